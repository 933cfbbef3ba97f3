//! The network: requests and answers that wait for the world to deliver, lose, double, cut or exchange them.

use crate::random::Random;
use gbsync_client::{BoxFuture, Request, Response, Transport, TransportError};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// The space of the device that sent it, by number.
    pub space: usize,
    /// Which message it is: numbers rise.
    pub number: u64,
    /// Until when it is held up.
    pub held_until_ms: u64,
    /// What it asks.
    pub request: Request,
    /// Whether it is a copy of a request whose sender waits for another answer, or none.
    pub is_late_copy: bool,
    /// The answer, once the server gave one.
    pub answer: Option<Response>,
    slot: Arc<Mutex<Slot>>,
}

/// Everything that is on its way.
#[derive(Clone, Default)]
pub struct Network {
    messages: Arc<Mutex<Vec<Message>>>,
    sent: Arc<AtomicU64>,
}

impl Network {
    /// Takes a message off the way, one of those that are not held up; and whether an older one is still on its way.
    pub fn draw(&self, random: &mut Random, now_ms: u64) -> Option<(Message, bool)> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let free: Vec<usize> = (0..messages.len()).filter(|&place| messages[place].held_until_ms <= now_ms).collect();
        let message = messages.remove(*free.get(random.below(free.len()))?);
        let overtakes = messages.iter().any(|older| older.number < message.number);
        Some((message, overtakes))
    }

    /// Doubles a request that is on its way; the copy is held up, and nobody waits for its answer.
    pub fn double_late(&self, random: &mut Random, held_until_ms: u64) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let requests: Vec<usize> = (0..messages.len()).filter(|&place| messages[place].answer.is_none()).collect();
        let Some(place) = requests.get(random.below(requests.len())) else { return };
        let late = Message { held_until_ms, is_late_copy: true, slot: Arc::default(), ..messages[*place].clone() };
        messages.push(late);
    }

    /// Takes a request with a body off the way.
    pub fn draw_upload(&self, random: &mut Random) -> Option<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let carries = |message: &Message| message.answer.is_none() && message.request.body.is_some();
        let uploads: Vec<usize> = (0..messages.len()).filter(|&place| carries(&messages[place])).collect();
        let place = *uploads.get(random.below(uploads.len()))?;
        Some(messages.remove(place))
    }

    /// Takes the oldest message off the way.
    pub fn oldest(&self) -> Option<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = (0..messages.len()).min_by_key(|&place| messages[place].number)?;
        Some(messages.remove(oldest))
    }

    /// Puts a message on its way.
    pub fn put(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    /// What a device sends with.
    pub fn transport(&self, space: usize) -> Arc<dyn Transport> {
        Arc::new(Wire { network: self.clone(), space })
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
    space: usize,
}

impl Transport for Wire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let slot = Arc::new(Mutex::new(Slot::default()));
        let number = self.network.sent.fetch_add(1, Ordering::Relaxed);
        let message = Message {
            space: self.space,
            number,
            held_until_ms: 0,
            request,
            is_late_copy: false,
            answer: None,
            slot: slot.clone(),
        };
        self.network.put(message);
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
