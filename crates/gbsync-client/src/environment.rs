//! What the client takes from the world around it: time, randomness and waiting. All of it is passed in, so that a
//! simulator can own it and a browser can bring its own.

use gbsync_core::id::EpochId;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What a trait object must be to live in a client: shareable between threads natively, nothing in a browser.
#[cfg(not(target_arch = "wasm32"))]
pub trait Shared: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync + ?Sized> Shared for T {}
/// What a trait object must be to live in a client: shareable between threads natively, nothing in a browser.
#[cfg(target_arch = "wasm32")]
pub trait Shared {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> Shared for T {}

/// A future behind a pointer: `Send` natively, not in a browser.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A future behind a pointer: `Send` natively, not in a browser.
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A wall clock. May be wrong by years: no decision about order rests on it.
pub trait Clock: Shared {
    /// Milliseconds after 1970.
    fn now_ms(&self) -> u64;
}

/// A source of random bytes, for ids and jitter.
pub trait Random: Shared {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// Waiting.
pub trait Timer: Shared {
    /// Resolves after `wait_ms` milliseconds.
    fn sleep(&self, wait_ms: u64) -> BoxFuture<'_, ()>;
}

/// Clock, randomness and timer of one client.
#[derive(Clone)]
pub struct Environment {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
    /// Waiting.
    pub timer: Arc<dyn Timer>,
}

impl Environment {
    /// A UUID version 7 (RFC 9562): ordered by time, unique by randomness.
    pub(crate) fn uuid(&self) -> String {
        let mut random = [0; 10];
        self.random.fill(&mut random);
        uuid::Builder::from_unix_timestamp_millis(self.clock.now_ms(), &random).into_uuid().to_string()
    }

    pub(crate) fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn new_epoch(&self) -> EpochId {
        EpochId::new(self.uuid()).expect("a UUID is a valid id")
    }
}

#[cfg(feature = "native")]
mod native {
    use super::{BoxFuture, Clock, Environment, Random, Timer};
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    struct SystemClock;

    impl Clock for SystemClock {
        fn now_ms(&self) -> u64 {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }
    }

    struct SystemRandom;

    impl Random for SystemRandom {
        fn fill(&self, bytes: &mut [u8]) {
            getrandom::fill(bytes).expect("the operating system has random bytes");
        }
    }

    struct TokioTimer;

    impl Timer for TokioTimer {
        fn sleep(&self, wait_ms: u64) -> BoxFuture<'_, ()> {
            Box::pin(tokio::time::sleep(Duration::from_millis(wait_ms)))
        }
    }

    impl Default for Environment {
        /// The system's clock and randomness, and tokio's timer.
        fn default() -> Self {
            Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom), timer: Arc::new(TokioTimer) }
        }
    }
}
