//! When to push and pull: one round, and the loop of a device that stays online.
//!
//! Invariant (P10): nothing but the database says what is left to do. A round that ends anywhere is taken up by the next.

mod download;
mod exchange;
mod heal;
mod live;
mod options;
mod parked;
mod rebase;
mod round;
mod schema;
mod send;
mod snapshot;
mod upload;
mod watch;

pub use options::{OnTransfer, SentBatch, SentGroup, SyncError, SyncOptions, SyncReport, Transfer};
pub use watch::{Following, SyncObserver};

use crate::client::Client;
use crate::lock::SyncLock;
use crate::session::{Senders, Signed};
use crate::transport::Transport;
use gbsync_core::wire::LivePage;
use live::Taken;
use round::Round;

/// How often a held lock is asked for again.
const LOCK_POLL_MS: u64 = 50;

impl Client {
    /// One round: pushes what may be sent, then pulls to the head of the log, own groups too.
    ///
    /// Safe to call from several tasks and processes: one round runs at a time, the others wait up to
    /// [`SyncOptions::lock_wait_ms`]. Dropping the future ends the round; nothing is lost and the next one goes on.
    /// SQLite commits run inside the future; give it a thread of its own where a few milliseconds matter, or call
    /// [`Client::sync_blocking`].
    ///
    /// # Errors
    /// [`SyncError`] says what to do; everything is kept. Parked groups are no error: see [`SyncReport::parked`].
    pub async fn sync(&self, transport: &dyn Transport, options: &SyncOptions) -> Result<SyncReport, SyncError> {
        let _lock = self.sync_lock(options).await?;
        let _turn = self.round().lock().await;
        let session = self.session();
        let senders = Senders::new(session.as_ref());
        Round::new(self, &Signed::new(transport, session), options, senders).run().await
    }

    /// Applies a page that a live stream brought, as a round applies one.
    async fn take_live(
        &self,
        transport: &dyn Transport,
        options: &SyncOptions,
        page: LivePage,
        scope_set: Option<&str>,
    ) -> Result<Taken, SyncError> {
        let _lock = self.sync_lock(options).await?;
        let _turn = self.round().lock().await;
        Round::new(self, transport, options, Senders::default()).take_live(page, scope_set).await
    }

    /// [`Client::sync`] for a program without futures: runs the round on a runtime of its own on this thread.
    ///
    /// # Errors
    /// As [`Client::sync`].
    ///
    /// # Panics
    /// Inside an asynchronous runtime; call [`Client::sync`] there.
    #[cfg(feature = "native")]
    pub fn sync_blocking(&self, transport: &dyn Transport, options: &SyncOptions) -> Result<SyncReport, SyncError> {
        // One thread for network and database: handing every request to another cost a third of a push.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| SyncError::NoRuntime { reason: error.to_string() })?;
        runtime.block_on(self.sync(transport, options))
    }

    async fn sync_lock(&self, options: &SyncOptions) -> Result<SyncLock, SyncError> {
        let mut waited_ms = 0;
        loop {
            let taken = SyncLock::take(self.store().path());
            match taken.map_err(|error| SyncError::NoLock { reason: error.to_string() })? {
                Ok(lock) => return Ok(lock),
                Err(held) if waited_ms >= options.lock_wait_ms => return Err(SyncError::Busy { holder: held.by }),
                Err(_) => self.environment().timer.sleep(LOCK_POLL_MS).await,
            }
            waited_ms += LOCK_POLL_MS;
        }
    }
}
