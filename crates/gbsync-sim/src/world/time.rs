//! Time that the world moves: one true time, and for each party a clock that may be wrong.

use crate::random::Random as Stream;
use gbsync_client::{BoxFuture, Clock, Environment, Random, Timer};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// 2026-06-01, in milliseconds after 1970.
const BEGINNING_MS: u64 = 1_780_272_000_000;

/// The true time, and who waits for it.
#[derive(Clone)]
pub struct Time {
    now_ms: Arc<AtomicU64>,
    waiting: Arc<Mutex<Vec<Waker>>>,
}

/// A party's clock and randomness.
#[derive(Clone)]
pub struct Party {
    time: Time,
    /// How far its clock is off, in milliseconds.
    off_ms: Arc<AtomicI64>,
    /// At what time its clock stands still; 0 while it goes.
    frozen_ms: Arc<AtomicU64>,
    random: Arc<Mutex<Stream>>,
}

impl Time {
    /// The beginning.
    pub fn new() -> Self {
        Self { now_ms: Arc::new(AtomicU64::new(BEGINNING_MS)), waiting: Arc::default() }
    }

    /// The true time, in milliseconds after 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A party whose clock is right.
    pub fn party(&self, seed: u64) -> Party {
        Party {
            time: self.clone(),
            off_ms: Arc::default(),
            frozen_ms: Arc::default(),
            random: Arc::new(Mutex::new(Stream::of(seed))),
        }
    }
}

impl Party {
    /// What its clock says, in milliseconds after 1970.
    pub fn clock_ms(&self) -> u64 {
        match self.frozen_ms.load(Ordering::Relaxed) {
            0 => self.time.now_ms().saturating_add_signed(self.off_ms.load(Ordering::Relaxed)),
            frozen_ms => frozen_ms,
        }
    }

    /// Sets its clock right, or so far off.
    pub fn set_off(&self, off_ms: i64) {
        self.frozen_ms.store(0, Ordering::Relaxed);
        self.off_ms.store(off_ms, Ordering::Relaxed);
    }

    /// Stops its clock.
    pub fn freeze(&self) {
        self.frozen_ms.store(self.clock_ms(), Ordering::Relaxed);
    }

    /// Fills bytes from its own stream.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// An id like those the client mints.
    pub fn id(&self) -> String {
        let mut bytes = [0; 16];
        self.fill_random(&mut bytes);
        let [high, low] = [0, 8].map(|at| u64::from_be_bytes(std::array::from_fn(|byte| bytes[at + byte])));
        format!(
            "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }

    /// The environment of a client.
    pub fn environment(&self) -> Environment {
        Environment { clock: Arc::new(self.clone()), random: Arc::new(self.clone()), timer: Arc::new(self.clone()) }
    }

    /// The environment of a server.
    pub fn server_environment(&self) -> gbsync_server::Environment {
        let (clock, random) = (self.clone(), self.clone());
        gbsync_server::Environment::new(move || clock.clock_ms(), move |bytes| random.fill_random(bytes))
    }
}

impl Clock for Party {
    fn now_ms(&self) -> u64 {
        self.clock_ms()
    }
}

impl Random for Party {
    fn fill(&self, bytes: &mut [u8]) {
        self.fill_random(bytes);
    }
}

impl Timer for Party {
    fn sleep(&self, wait_ms: u64) -> BoxFuture<'_, ()> {
        Box::pin(Sleep { time: self.time.clone(), until_ms: self.time.now_ms() + wait_ms })
    }
}

struct Sleep {
    time: Time,
    until_ms: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.now_ms() >= self.until_ms {
            return Poll::Ready(());
        }
        self.time.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(context.waker().clone());
        Poll::Pending
    }
}
