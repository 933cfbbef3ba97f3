//! The runtime on which connections to PostgreSQL live, and waiting for what they answer.
//!
//! Its own: the store is asked by writers' threads and by administrators without any runtime, and must not depend on how many
//! threads a server's runtime has.

use crate::store::StoreError;
use std::future::Future;
use tokio::runtime::{Builder, Runtime};

/// Threads that speak to PostgreSQL.
const THREADS: usize = 2;

/// The runtime; its tasks end with it.
pub(super) struct Engine {
    runtime: Option<Runtime>,
}

impl Engine {
    pub(super) fn start() -> Result<Self, StoreError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("gbsync-postgres").enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Lost(format!("no thread can be started: {error}")))?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// One for a single connection, without threads of its own: whoever waits does what there is to do, and nobody has to be
    /// woken for it.
    pub(super) fn of_one() -> Result<Self, StoreError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Lost(format!("nothing can be waited for: {error}")))?;
        Ok(Self { runtime: Some(runtime) })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken when it is dropped")
    }

    /// Waits for an answer. Blocks: not to be called on a runtime's thread.
    pub(super) fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime().block_on(answer)
    }

    /// Lets `work` wait wherever it is called, also on a runtime's thread.
    pub(super) fn elsewhere<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| match scope.spawn(work).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a task.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime().spawn(task)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Not waited for: it may be dropped on a runtime's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
