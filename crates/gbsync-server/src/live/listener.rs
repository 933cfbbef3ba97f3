//! One who listens.

use super::{Chunk, Encoded, Joined, NoPage, Source};
use crate::auth::Action;
use crate::error::Refusal;
use crate::routes::App;
use crate::store::{Page, SpaceState};
use axum::http::HeaderMap;
use bytes::Bytes;
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq, SpaceId};
use gbsync_core::scope::Sight;
use gbsync_core::wire::{EndReason, ProblemCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep};

/// From where somebody wants to listen.
pub(crate) struct Opening {
    pub(crate) space: SpaceId,
    pub(crate) after: Seq,
    pub(crate) log: Option<LogId>,
    pub(crate) chain: Option<Digest>,
    /// What the request bears to be let in: it is looked at again while the stream lasts.
    pub(crate) credentials: HeaderMap,
    /// When that ends, in milliseconds after 1970.
    pub(crate) ends_ms: Option<u64>,
    /// Through whose eyes it listens, and what names the part of the space that is seen.
    pub(crate) sight: Arc<Sight>,
    pub(crate) scope_set: String,
}

/// One who listens: where it is, and what it shares with the others.
pub(crate) struct Listener {
    app: Arc<App>,
    source: Source,
    state: SpaceState,
    credentials: HeaderMap,
    ends_ms: Option<u64>,
    checked_at: Instant,
    cursor: Seq,
    joined: Joined,
    /// Whether it was sent a page of the ring since it joined.
    has_followed: bool,
    first: Option<Bytes>,
    is_ended: bool,
    _place: OwnedSemaphorePermit,
}

/// The refusal, or the page behind `after`.
type Opened = Result<(SpaceState, Source, Encoded), Page>;

impl Listener {
    /// Looks the first page up and joins the others.
    ///
    /// # Errors
    /// 404 without the space, 410 when the cursor is not of this log, 503 when the server stops or has no place left.
    pub(crate) async fn open(app: Arc<App>, opening: Opening) -> Result<Self, Refusal> {
        let place = app.live.take_place().filter(|_| !*app.is_draining.borrow()).ok_or_else(Refusal::unavailable)?;
        let Opening { space, after, log, chain, credentials, ends_ms, sight, scope_set } = opening;
        let max_bytes = app.live.config.page_bytes;
        let reading = app.read(move |store| {
            let Some(view) = store.space(&space, None, None)? else { return Ok(Err(Page::NoSpace)) };
            let log = log.unwrap_or_else(|| view.state.log.clone());
            let source = Source { space, log, sight, scope_set };
            Ok(match store.page(&source.request(after, chain, max_bytes))? {
                page @ Page::Entries { .. } => {
                    let first = source.encode(after, page)?;
                    Ok((view.state, source, first))
                }
                none => Err(none),
            })
        });
        let opened: Opened = reading.await?;
        let (state, mut source, first) = opened.map_err(|none| crate::routes::no_page(&none, after))?;
        source.log = state.log.clone();
        let joined = app.live.join(&app, &source, &state);
        Ok(Self {
            app,
            source,
            state,
            credentials,
            ends_ms,
            checked_at: Instant::now(),
            cursor: first.next,
            joined,
            has_followed: false,
            first: Some(first.bytes),
            is_ended: false,
            _place: place,
        })
    }

    /// What to send next; `None` at the end. Nothing but the end is sent once the token has ended.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if self.is_ended {
            return None;
        }
        let (app, ends_ms) = (Arc::clone(&self.app), self.ends_ms);
        let next = tokio::select! {
            biased;
            () = ended(&app, ends_ms) => Err(EndReason::Unauthenticated),
            // The clock may have been set forward while it waited.
            next = self.step() => next.and_then(|bytes| match left_ms(&app, ends_ms) {
                Some(0) => Err(EndReason::Unauthenticated),
                _ => Ok(bytes),
            }),
        };
        Some(next.unwrap_or_else(|reason| {
            self.is_ended = true;
            reason.frame().into()
        }))
    }

    async fn step(&mut self) -> Result<Bytes, EndReason> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        loop {
            if self.cursor < self.joined.at {
                return Box::pin(self.catch_up()).await;
            }
            match self.joined.ring.recv().await {
                Ok(Chunk { bytes, is_end: true, .. }) => {
                    self.is_ended = true;
                    return Ok(bytes);
                }
                // It read this far by itself.
                Ok(chunk) if chunk.next < self.cursor || (chunk.next == self.cursor && chunk.after < chunk.next) => {}
                Ok(chunk) if chunk.after == self.cursor => {
                    Box::pin(self.check()).await?;
                    self.cursor = chunk.next;
                    self.has_followed = true;
                    return Ok(chunk.bytes);
                }
                // Its own pages were cut elsewhere.
                Ok(chunk) => self.joined.at = chunk.next,
                Err(RecvError::Lagged(_)) if self.has_followed => return Err(EndReason::TooSlow),
                // What the ring lost while it read by itself, it reads by itself.
                Err(RecvError::Lagged(_)) => self.joined = self.app.live.join(&self.app, &self.source, &self.state),
                Err(RecvError::Closed) => return Err(EndReason::Unavailable),
            }
        }
    }

    /// A page from the store. Asked for only when the page before it was taken, so that a slow reader costs nothing.
    async fn catch_up(&mut self) -> Result<Bytes, EndReason> {
        if *self.app.is_draining.borrow() {
            return Err(EndReason::Stopping);
        }
        self.check().await?;
        let (source, after) = (self.source.clone(), self.cursor);
        let request = source.request(after, None, self.app.live.config.page_bytes);
        let reading = self.app.read(move |store| match source.encode(after, store.page(&request)?) {
            Err(damaged @ NoPage::Damaged) => Err(damaged.into()),
            encoded => Ok(encoded.ok()),
        });
        let page = reading.await.map_err(|_| EndReason::Unavailable)?.ok_or(EndReason::ResyncRequired)?;
        self.cursor = page.next;
        Ok(page.bytes)
    }

    /// The token may have been revoked: it is looked at before anything is sent, every few seconds. At each heartbeat something
    /// is sent.
    async fn check(&mut self) -> Result<(), EndReason> {
        let every = Duration::from_millis(self.app.live.config.recheck_ms);
        if self.checked_at.elapsed() < every {
            return Ok(());
        }
        self.checked_at = Instant::now();
        let admitted = self.app.authorize(&self.credentials, Action::ReadLog, self.source.space.as_str()).await;
        let ended = |refusal: Refusal| match refusal.problem.code {
            ProblemCode::Unavailable => EndReason::Unavailable,
            _ => EndReason::Unauthenticated,
        };
        let admission = admitted.map_err(ended)?;
        match self.app.sight(&admission.scopes).await {
            Ok((_, scope_set)) if scope_set == self.source.scope_set => Ok(()),
            Ok(_) => Err(EndReason::ResyncRequired),
            Err(refusal) => Err(ended(refusal)),
        }
    }
}

/// How long a token is still valid, in milliseconds; `None` for one without an end.
fn left_ms(app: &App, ends_ms: Option<u64>) -> Option<u64> {
    ends_ms.map(|ends_ms| ends_ms.saturating_sub(app.environment.now_ms()))
}

/// Resolves when a token has ended by the server's own clock, which may be set back meanwhile; never for one without an end.
async fn ended(app: &App, ends_ms: Option<u64>) {
    loop {
        match left_ms(app, ends_ms) {
            None => std::future::pending().await,
            Some(0) => return,
            Some(left) => sleep(Duration::from_millis(left)).await,
        }
    }
}
