//! The network: requests and answers that wait for the world to deliver, lose, double, cut or exchange them.

use gbsync_client::{BoxFuture, Request, Response, Transport, TransportError};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where an answer is put, and who waits for it.
#[derive(Default)]
struct Slot {
    answer: Option<Result<Response, TransportError>>,
    waker: Option<Waker>,
}

/// One request on its way, or its answer on its way back.
#[derive(Clone)]
pub struct Message {
    /// What it asks.
    pub request: Request,
    /// The answer, once the server gave one.
    pub answer: Option<Response>,
    slot: Arc<Mutex<Slot>>,
}

/// Everything that is on its way.
#[derive(Clone, Default)]
pub struct Network {
    messages: Arc<Mutex<Vec<Message>>>,
}

impl Network {
    /// How many messages are on their way.
    pub fn len(&self) -> usize {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes a message off the way.
    pub fn take(&self, place: usize) -> Message {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).remove(place)
    }

    /// Puts a message on its way.
    pub fn put(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    /// What a device sends with.
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(Wire { network: self.clone() })
    }
}

impl Message {
    /// Gives the device an answer, or tells it that none came.
    pub fn settle(self, answer: Result<Response, &str>) {
        let answer = answer.map_err(|message| TransportError { message: message.into() });
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.answer.get_or_insert(answer);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

struct Wire {
    network: Network,
}

impl Transport for Wire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let slot = Arc::new(Mutex::new(Slot::default()));
        self.network.put(Message { request, answer: None, slot: slot.clone() });
        Box::pin(Waiting(slot))
    }
}

struct Waiting(Arc<Mutex<Slot>>);

impl Future for Waiting {
    type Output = Result<Response, TransportError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
