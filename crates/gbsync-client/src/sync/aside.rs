//! Long work in a thread of its own, while the round waits for an answer.
//!
//! Invariant: dropping the wait waits for the work, so that nothing of a round goes on when the round is gone.
//!
//! Rejected alternative: tokio's pool of blocking threads. What is begun there goes on when nobody waits any more.

use std::panic::resume_unwind;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Work that goes on.
pub(super) struct Aside<T> {
    thread: Option<JoinHandle<T>>,
    is_done: oneshot::Receiver<()>,
}

impl<T: Send + 'static> Aside<T> {
    /// Begins it.
    pub(super) fn begin(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<Self> {
        let (done, is_done) = oneshot::channel();
        let run = move || {
            // Dropped when the work ends, also by a panic.
            let _done: oneshot::Sender<()> = done;
            work()
        };
        let thread = std::thread::Builder::new().name("gbsync-pull".into()).spawn(run)?;
        Ok(Self { thread: Some(thread), is_done })
    }

    /// What it came to. A panic of the work goes on here.
    pub(super) async fn ended(mut self) -> T {
        let _ = (&mut self.is_done).await;
        let thread = self.thread.take().expect("only the end takes it");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<T> Drop for Aside<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Aside;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    fn wait<T: Send + 'static>(aside: Aside<T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(aside.ended())
    }

    #[test]
    fn work_aside_answers() {
        assert_eq!(wait(Aside::begin(|| 42).unwrap()), 42);
    }

    #[test]
    fn dropping_the_wait_waits_for_the_work() {
        let is_done = Arc::new(AtomicBool::new(false));
        let of_work = is_done.clone();
        let work = move || {
            std::thread::sleep(Duration::from_millis(50));
            of_work.store(true, Ordering::SeqCst);
        };
        drop(Aside::begin(work).unwrap());
        assert!(is_done.load(Ordering::SeqCst));
    }

    #[test]
    fn a_panic_of_the_work_is_one_of_the_wait() {
        let aside = Aside::begin(|| panic!("of the work")).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| wait::<()>(aside))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"of the work"));
    }
}
