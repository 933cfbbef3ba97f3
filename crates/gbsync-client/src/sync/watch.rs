//! The loop of a device that stays online: a round whenever there is something to send or to fetch.

use super::options::{SyncError, SyncOptions, SyncReport};
use super::round::encoded;
use crate::client::Client;
use crate::environment::Shared;
use crate::error::Error;
use crate::store::state;
use crate::transport::{Method, Request, Transport};
use gbsync_core::retry::Backoff;
use gbsync_core::wire::LogPage;

/// How long the server may hold a question for news, in seconds.
const WAIT_S: u64 = 20;
/// How often the file is asked whether another process wrote to it, in milliseconds.
const FILE_POLL_MS: u64 = 100;
/// The least time between two questions that brought nothing, in milliseconds.
const IDLE_POLL_MS: u64 = 500;
/// How often groups that wait for their next attempt are looked at, in milliseconds.
const WAITING_POLL_MS: u64 = 5_000;

/// Hears what the rounds of a watch do.
pub trait SyncObserver: Shared {
    /// A round ended well.
    fn round(&self, report: &SyncReport);
    /// A round ended early; the watch goes on by itself.
    fn failed(&self, error: &SyncError);
}

impl Client {
    /// Syncs until the future is dropped: at once when this or another process sealed a group, when the server has news,
    /// and after failures with growing waits.
    ///
    /// Answers only when the local database itself fails in a way that waiting does not mend: a full disk is waited for.
    pub async fn watch_sync(
        &self,
        transport: &dyn Transport,
        options: &SyncOptions,
        observer: &dyn SyncObserver,
    ) -> SyncError {
        let mut options = options.clone();
        let (mut failures, mut latest_ms) = (0, self.environment().clock.now_ms());
        loop {
            match self.sync(transport, &options).await {
                Ok(report) => {
                    failures = 0;
                    observer.round(&report);
                    match self.wait_for_news(transport, &options, report.waiting).await {
                        Ok(()) => {}
                        Err(error) if error.may_pass() => self.environment().timer.sleep(IDLE_POLL_MS).await,
                        Err(error) => return error.into(),
                    }
                }
                Err(SyncError::Local(error)) if !error.may_pass() => return SyncError::Local(error),
                Err(error) => {
                    if !matches!(error, SyncError::BackingOff { .. }) {
                        failures += 1;
                        observer.failed(&error);
                    }
                    let wait_ms = Backoff::default().wait_ms(failures.max(1), self.environment().random_u64(), None);
                    self.environment().timer.sleep(wait_ms.max(FILE_POLL_MS)).await;
                }
            }
            // The first round tries everything at once; later ones keep to the waits that failures set, unless the clock
            // that set them was set back since: then they end nobody knows when.
            let now_ms = self.environment().clock.now_ms();
            options.ignores_backoff = now_ms < latest_ms;
            latest_ms = now_ms;
        }
    }

    /// Resolves when the file was written to, when the server's log went on, or after a while.
    async fn wait_for_news(&self, transport: &dyn Transport, options: &SyncOptions, waiting: u64) -> Result<(), Error> {
        let state = state::read(&self.store().reader())?;
        let mut path = format!("/v1/spaces/{}/log?after={}&maxRecords=1&wait={WAIT_S}", encoded(&state.space), state.cursor);
        if let Some(log) = &state.log {
            path.push_str(&format!("&log={}", encoded(log)));
        }
        let timeout_ms = options.request_timeout_ms.max((WAIT_S + 10) * 1000);
        let asked = transport.send(Request { method: Method::Get, path, body: None, timeout_ms });
        let news = async {
            let page = asked.await.ok().and_then(|response| LogPage::parse(&response.body).ok());
            if page.is_none_or(|page| page.next <= state.cursor) {
                // No news, a server that does not wait, or something the next round finds out about.
                self.environment().timer.sleep(IDLE_POLL_MS).await;
            }
        };
        tokio::select! {
            () = news => Ok(()),
            changed = self.wait_for_file(waiting) => changed,
        }
    }

    async fn wait_for_file(&self, waiting: u64) -> Result<(), Error> {
        let before = self.data_version()?;
        // Something may have been sealed since the round looked.
        if self.status()?.pending_groups != waiting {
            return Ok(());
        }
        let mut waited_ms = 0;
        loop {
            self.environment().timer.sleep(FILE_POLL_MS).await;
            waited_ms += FILE_POLL_MS;
            // Groups that wait for their next attempt are looked at even when nothing else happens.
            if self.data_version()? != before || (waiting > 0 && waited_ms >= WAITING_POLL_MS) {
                return Ok(());
            }
        }
    }

    /// Changes whenever another connection wrote to the file, this client's own writer included.
    fn data_version(&self) -> Result<i64, Error> {
        Ok(self.store().reader().pragma_query_value(None, "data_version", |row| row.get(0))?)
    }
}
