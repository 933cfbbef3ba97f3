//! The loop of a device that stays online: a round whenever there is something to send, and the log as it grows.

use super::live::{Heard, Live, Taken};
use super::options::{SyncError, SyncOptions, SyncReport};
use super::round::encoded;
use crate::client::Client;
use crate::environment::Shared;
use crate::error::Error;
use crate::session::Current;
use crate::store::state;
use crate::transport::{Method, Request, Transport};
use gbsync_core::retry::Backoff;
use gbsync_core::wire::{LivePage, LogPage};

/// How long the server may hold a question for news, in seconds.
const WAIT_S: u64 = 20;
/// How often the file is asked whether another process wrote to it, in milliseconds.
const FILE_POLL_MS: u64 = 100;
/// The least time between two questions that brought nothing, in milliseconds.
const IDLE_POLL_MS: u64 = 500;
/// How often groups that wait for their next attempt are looked at, in milliseconds.
const WAITING_POLL_MS: u64 = 5_000;
/// How often a round is made although nothing calls for one, in milliseconds: a stream tells of no new schema or limit.
const ROUND_MS: u64 = 5 * 60_000;

/// Hears what the rounds of a watch do.
pub trait SyncObserver: Shared {
    /// A round ended well, or a page of the server's stream was applied.
    fn round(&self, report: &SyncReport);
    /// A round ended early; the watch goes on by itself.
    fn failed(&self, error: &SyncError);
    /// The log is followed in another way than before.
    fn following(&self, how: Following) {
        let _ = how;
    }
}

/// How a watch hears of what others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    /// The server sends it.
    Live,
    /// The device asks again and again.
    Asking,
}

/// Why the waiting of a watch ended.
enum News {
    /// It is time for a round.
    Round,
    /// The stream brought a page.
    Page(Box<LivePage>),
    /// The stream was lost: there may be another one soon.
    Lost,
}

impl Client {
    /// Syncs until the future is dropped: at once when this or another process sealed a group, when the server has news,
    /// and after failures with growing waits. Listens to the server's stream, and asks again and again where there is none.
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
        let signed = Current { client: self, transport };
        let mut live = Live::new(self, &signed, &options);
        loop {
            match self.sync(transport, &options).await {
                Ok(report) => {
                    failures = 0;
                    observer.round(&report);
                    match self.follow(&signed, &options, observer, &mut live, report.waiting).await {
                        Ok(()) => {}
                        Err(SyncError::Local(error)) if !error.may_pass() => return SyncError::Local(error),
                        Err(_) => self.environment().timer.sleep(IDLE_POLL_MS).await,
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

    /// Takes what the stream brings until it is time for a round.
    async fn follow<'c>(
        &'c self,
        transport: &'c dyn Transport,
        options: &SyncOptions,
        observer: &dyn SyncObserver,
        live: &mut Live<'c>,
        mut waiting: u64,
    ) -> Result<(), SyncError> {
        let mut round_is_due = self.environment().timer.sleep(ROUND_MS);
        loop {
            let how = live.ensure_open().await?;
            if live.is_news(how) {
                observer.following(how);
            }
            let news = tokio::select! {
                news = self.wait_for_news(transport, options, live, how, waiting) => news?,
                () = &mut round_is_due => return Ok(()),
            };
            match news {
                News::Round => return Ok(()),
                // What came meanwhile is found by asking, until another stream is open.
                News::Lost => {}
                News::Page(_) if live.is_of_another_session() => return Ok(()),
                News::Page(page) => match self.take_live(transport, options, *page, live.scope_set()).await {
                    Ok(Taken::Applied(report)) => {
                        observer.round(&report);
                        // What waits may have what it waited for.
                        if report.waiting > 0 {
                            return Ok(());
                        }
                        waiting = 0;
                    }
                    Ok(Taken::Known) => {}
                    Ok(Taken::Astray) => {
                        live.close();
                        return Ok(());
                    }
                    Err(error) => {
                        live.close();
                        return Err(error);
                    }
                },
            }
        }
    }

    /// Resolves when the file was written to, when the server's log went on, or after a while.
    async fn wait_for_news<'c>(
        &'c self,
        transport: &dyn Transport,
        options: &SyncOptions,
        live: &mut Live<'c>,
        how: Following,
        waiting: u64,
    ) -> Result<News, Error> {
        let rest_ms = live.rest_ms();
        let news = async {
            match how {
                Following::Live => Ok(match live.next().await {
                    Heard::Page(page) => News::Page(Box::new(page)),
                    Heard::Lost => News::Lost,
                }),
                Following::Asking => self.ask_for_news(transport, options, rest_ms).await,
            }
        };
        tokio::select! {
            news = news => news,
            changed = self.wait_for_file(waiting) => changed.map(|()| News::Round),
        }
    }

    /// Asks the log to answer when there is something. Where a stream may be opened before, only until then.
    async fn ask_for_news(&self, transport: &dyn Transport, options: &SyncOptions, rest_ms: u64) -> Result<News, Error> {
        let state = state::read(&self.store().reader())?;
        let wait_s = WAIT_S.min(rest_ms.div_ceil(1000).max(1));
        let mut path = format!("/v1/spaces/{}/log?after={}&maxRecords=1&wait={wait_s}", encoded(&state.space), state.cursor);
        if let Some(log) = &state.log {
            path.push_str(&format!("&log={}", encoded(log)));
        }
        let timeout_ms = options.request_timeout_ms.max((WAIT_S + 10) * 1000);
        let asked = transport.send(Request { method: Method::Get, path, body: None, timeout_ms, token: None }).await;
        let page = asked.ok().and_then(|response| LogPage::parse(&response.body).ok());
        if page.is_none_or(|page| page.next <= state.cursor) {
            // No news, a server that does not wait, or something the next round finds out about.
            self.environment().timer.sleep(IDLE_POLL_MS).await;
        }
        Ok(News::Round)
    }

    async fn wait_for_file(&self, waiting: u64) -> Result<(), Error> {
        let (before, session_no) = (self.data_version()?, self.session_no());
        // Something may have been sealed since the round looked.
        if self.status()?.pending_groups != waiting {
            return Ok(());
        }
        let mut waited_ms = 0;
        loop {
            self.environment().timer.sleep(FILE_POLL_MS).await;
            waited_ms += FILE_POLL_MS;
            // Groups that wait for their next attempt are looked at even when nothing else happens.
            let has_changed = self.data_version()? != before || self.session_no() != session_no;
            if has_changed || (waiting > 0 && waited_ms >= WAITING_POLL_MS) {
                return Ok(());
            }
        }
    }

    /// Changes whenever another connection wrote to the file, this client's own writer included.
    fn data_version(&self) -> Result<i64, Error> {
        Ok(self.store().reader().pragma_query_value(None, "data_version", |row| row.get(0))?)
    }
}
