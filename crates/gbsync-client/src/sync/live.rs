//! Listening to the log: the stream of the server, what it brings, and when to do without.
//!
//! A page that comes this way is applied by the code that applies every page, and only where it follows the cursor in the log
//! that the device reads, of the part of the space that it has, and while whoever opened the stream is signed in. Whatever else
//! comes, a round finds out about.
//!
//! Rejected alternative: taking the stream as a bell that a round is to be made. Two hundred devices would then ask for what
//! the server has just sent them.

use super::options::{SyncError, SyncOptions, SyncReport};
use super::round::{Round, encoded, scope_set_parameter};
use super::watch::Following;
use crate::client::Client;
use crate::environment::BoxFuture;
use crate::error::Error;
use crate::store::state;
use crate::transport::{Method, Pieces, Request, Streamed, Transport};
use gbsync_core::retry::Backoff;
use gbsync_core::wire::{LiveEvent, LivePage, LiveReader};

/// How long the head of the stream and its first event may take, each, in milliseconds. Who buffers the stream lets neither through.
const FIRST_MS: u64 = 10_000;
/// How long the stream may be silent, in milliseconds: twice what the protocol promises.
const SILENCE_MS: u64 = 30_000;
/// How long to do without a stream where there is none, in milliseconds, at most.
const WITHOUT_MS: u64 = 10 * 60_000;
/// How long to wait before the stream is opened again.
const BACKOFF: Backoff = Backoff { first_ms: 1_000, most_ms: WITHOUT_MS };
/// Most bytes of a page that is not complete.
const PAGE_BYTES: usize = 160 * 1024 * 1024;

/// The stream of a watch, open or not.
pub(super) struct Live<'c> {
    client: &'c Client,
    transport: &'c dyn Transport,
    is_wanted: bool,
    open: Option<Open<'c>>,
    /// Streams in a row that said nothing, or only once.
    failures: u32,
    /// From when on, and for how long, none is opened, in milliseconds.
    rests: Option<(u64, u64)>,
    /// What the observer was told last.
    told: Option<Following>,
}

/// An open stream.
struct Open<'c> {
    body: Box<dyn Pieces>,
    reader: LiveReader,
    events: u64,
    /// Which part of the space it tells of.
    scope_set: Option<String>,
    /// Under which session it was opened.
    session_no: u64,
    /// Resolves when the stream was silent for too long.
    silence: BoxFuture<'c, ()>,
}

/// What a stream came to.
pub(super) enum Heard {
    Page(LivePage),
    Lost,
}

/// How long to do without a stream.
enum Rest {
    /// A moment, longer with each failure: everybody lost the stream at once when a server stops, and comes back one by one.
    Moment,
    /// The same, and at least what the server asks for.
    AtLeast(Option<u64>),
    /// Long: there is none, or somebody between does not let it through.
    Long,
}

impl<'c> Live<'c> {
    pub(super) fn new(client: &'c Client, transport: &'c dyn Transport, options: &SyncOptions) -> Self {
        Self { client, transport, is_wanted: options.live, open: None, failures: 0, rests: None, told: None }
    }

    /// Opens the stream at the cursor if there is none and it is time to. Answers how the log is followed from now on.
    pub(super) async fn ensure_open(&mut self) -> Result<Following, Error> {
        if self.open.is_some() && !self.is_of_another_session() {
            return Ok(Following::Live);
        }
        self.open = None;
        let session_no = self.client.session_no();
        let now = self.client.environment().clock.now_ms();
        // A clock that was set back says nothing about how long it has been.
        let rests = self.rests.is_some_and(|(since, wait)| now >= since && now - since < wait);
        if !self.is_wanted || rests {
            return Ok(Following::Asking);
        }
        let state = state::read(&self.client.store().reader())?;
        let (Some(log), None) = (&state.log, &state.rebase) else { return Ok(Following::Asking) };
        let (space, log) = (encoded(&state.space), encoded(log));
        let mut path = format!("/v1/spaces/{space}/live?after={}&log={log}", state.cursor);
        if let Some(chain) = &state.chain {
            path.push_str(&format!("&chain={chain}"));
        }
        path.push_str(&scope_set_parameter(state.scope_set.as_deref()));
        let request = Request { method: Method::Get, path, body: None, timeout_ms: 2 * FIRST_MS, token: None };
        let opened = tokio::select! {
            biased;
            opened = self.transport.open(request) => Some(opened),
            () = self.client.environment().timer.sleep(FIRST_MS) => None,
        };
        match opened {
            Some(Ok(Streamed { status: 200, content_type: Some(content_type), body, .. })) if is_stream(&content_type) => {
                let silence = self.client.environment().timer.sleep(FIRST_MS);
                let (reader, scope_set) = (LiveReader::new(PAGE_BYTES), state.scope_set);
                self.open = Some(Open { body, reader, events: 0, scope_set, session_no, silence });
                return Ok(Following::Live);
            }
            // There is no place now, or it takes a token or another log, which a round finds out about.
            Some(Ok(Streamed { status: 401 | 403 | 410 | 429 | 503, retry_after_ms, .. })) => {
                self.rest(Rest::AtLeast(retry_after_ms));
            }
            Some(Err(_)) => self.rest(Rest::Moment),
            Some(Ok(_)) | None => self.rest(Rest::Long),
        }
        Ok(Following::Asking)
    }

    /// Whether the observer was told otherwise.
    pub(super) fn is_news(&mut self, how: Following) -> bool {
        self.told.replace(how) != Some(how)
    }

    /// The next page; never resolves while no stream is open. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Heard {
        let Some(open) = &mut self.open else { return std::future::pending().await };
        let rest = loop {
            match open.reader.next() {
                Ok(None) => {}
                Ok(Some(LiveEvent::Page(page))) => {
                    open.events += 1;
                    if open.events > 1 {
                        self.failures = 0;
                    }
                    return Heard::Page(page);
                }
                Ok(Some(LiveEvent::End(_))) => break Rest::Moment,
                Err(_) => break Rest::Long,
            }
            let piece = tokio::select! {
                biased;
                piece = open.body.next() => piece,
                () = &mut open.silence => break if open.events == 0 { Rest::Long } else { Rest::Moment },
            };
            match piece {
                Ok(Some(bytes)) => {
                    open.silence = self.client.environment().timer.sleep(SILENCE_MS);
                    open.reader.push(&bytes);
                }
                Ok(None) | Err(_) => break Rest::Moment,
            }
        };
        self.open = None;
        self.rest(rest);
        Heard::Lost
    }

    /// Whether somebody signed in or out since the stream was opened: what it tells is for who was signed in then.
    pub(super) fn is_of_another_session(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.session_no != self.client.session_no())
    }

    /// Which part of the space the stream tells of; all of it where the device knew no name for it.
    pub(super) fn scope_set(&self) -> Option<&str> {
        self.open.as_ref().and_then(|open| open.scope_set.as_deref())
    }

    /// Gives the stream up: it does not follow the cursor.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.rest(Rest::Moment);
    }

    fn rest(&mut self, rest: Rest) {
        self.failures += 1;
        let (environment, failures) = (self.client.environment(), self.failures);
        let random = environment.random_u64();
        let wait_ms = match rest {
            Rest::Moment => BACKOFF.wait_ms(failures, random, None),
            Rest::AtLeast(least_ms) => BACKOFF.wait_ms(failures, random, least_ms),
            Rest::Long => WITHOUT_MS / 2 + random % (WITHOUT_MS / 2),
        };
        self.rests = Some((environment.clock.now_ms(), wait_ms.min(WITHOUT_MS)));
    }

    /// How long until a stream may be opened again, in milliseconds.
    pub(super) fn rest_ms(&self) -> u64 {
        let now = self.client.environment().clock.now_ms();
        let left = |(since, wait): (u64, u64)| wait.saturating_sub(now.saturating_sub(since));
        if self.is_wanted { self.rests.map_or(0, left) } else { u64::MAX }
    }
}

fn is_stream(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// What became of a page of the stream.
pub(super) enum Taken {
    /// It is in the base.
    Applied(SyncReport),
    /// The base had it already.
    Known,
    /// It does not follow: a round finds out why.
    Astray,
}

impl Round<'_> {
    /// Applies a page of a stream that tells of this part of the space, if it follows.
    pub(super) async fn take_live(mut self, live: LivePage, scope_set: Option<&str>) -> Result<Taken, SyncError> {
        let LivePage { space, log, after, page } = live;
        let state = self.state()?;
        let is_of_this_log = state.space == space && state.log.as_ref() == Some(&log);
        let is_this_part = state.scope_set.as_deref() == scope_set;
        if !is_of_this_log || !is_this_part || after > state.cursor || state.rebase.is_some() || state.wants_new_epoch {
            return Ok(Taken::Astray);
        }
        if page.next <= state.cursor {
            let is_other_chain = page.next == state.cursor && state.chain.as_ref().is_some_and(|chain| *chain != page.chain);
            return Ok(if is_other_chain { Taken::Astray } else { Taken::Known });
        }
        if self.unknown_schema(&page).is_some() {
            return Ok(Taken::Astray);
        }
        if let super::download::Fetched::Resync(_) = self.fetch_parts(&page, state.log.as_ref()).await? {
            return Ok(Taken::Astray);
        }
        self.take_page(&page)?;
        let status = self.client.status()?;
        (self.report.waiting, self.report.cursor) = (status.pending_groups, status.cursor);
        Ok(Taken::Applied(self.report))
    }
}
