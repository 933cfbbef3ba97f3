//! The reader of a space that somebody listens to.
//!
//! Invariant: a page enters the ring once, in the order of the log, and only after the feed or a look at the store said that it
//! is durable. A wake-up that gets lost costs a heartbeat's time, for then the store is asked anyway.

use super::{Channel, Chunk, Encoded, NoPage, Source};
use crate::routes::App;
use crate::store::SpaceState;
use gbsync_core::digest::Digest;
use gbsync_core::id::Seq;
#[cfg(feature = "mutants")]
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::wire::EndReason;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long the reader rests after a page, for each listener of the node: pages that follow quickly travel together, so that
/// what a node spends on sending grows with its listeners and not with its commits as well.
const REST_A_LISTENER: Duration = Duration::from_micros(25);
/// The longest such rest.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// How long the reader waits when the store does not answer.
const STORE_REST: Duration = Duration::from_secs(1);
/// How often a store may fail in a row before the listeners are sent away.
const STORE_FAILURES: u32 = 5;

/// Where the reader is.
struct Reader {
    app: Arc<App>,
    source: Source,
    at: Seq,
    chain: Digest,
}

/// Reads until nobody listens, the server stops, or the log is another one.
pub(super) async fn run(app: Arc<App>, channel: Arc<Channel>, source: Source, state: SpaceState) {
    let mut wake_up = app.feed.subscribe(&source.space);
    let mut is_draining = app.is_draining.clone();
    let heartbeat = Duration::from_millis(app.live.config.heartbeat_ms.max(1));
    let mut reader = Reader { app: Arc::clone(&app), source: source.clone(), at: state.head, chain: state.chain };
    let (mut beat_at, mut failures) = (Instant::now() + heartbeat, 0);
    // What was committed between the look at the state and the subscription woke nobody.
    let mut is_first = true;
    let reason = loop {
        if !std::mem::take(&mut is_first) {
            tokio::select! {
                _ = wake_up.changed() => {}
                () = sleep_until(beat_at) => {
                    #[cfg(feature = "mutants")]
                    if is(Mutant::NotifyLostWithoutPolling) {
                        if app.live.end_if_alone(&source, &channel) {
                            return;
                        }
                        reader.beat(&channel);
                        beat_at = Instant::now() + heartbeat;
                        continue;
                    }
                }
                _ = is_draining.wait_for(|is_draining| *is_draining) => break EndReason::Stopping,
            }
        }
        if app.live.end_if_alone(&source, &channel) {
            return;
        }
        match reader.read_on(&channel, Instant::now() >= beat_at).await {
            Ok(false) => failures = 0,
            Ok(true) => {
                failures = 0;
                beat_at = Instant::now() + heartbeat;
                let listeners = u32::try_from(app.live.listeners()).unwrap_or(u32::MAX);
                sleep((REST_A_LISTENER * listeners).min(LONGEST_REST)).await;
            }
            Err(Stop::Resync) => break EndReason::ResyncRequired,
            Err(Stop::Unavailable) if failures >= STORE_FAILURES => break EndReason::Unavailable,
            Err(Stop::Unavailable) => {
                failures += 1;
                is_first = true;
                sleep(STORE_REST).await;
            }
        }
    };
    app.live.end(&source, &channel, reason);
}

/// Why the reader cannot go on.
enum Stop {
    Resync,
    Unavailable,
}

impl Reader {
    /// Puts every page that there is into the ring, and an empty one where there is none and the heart is to beat. Answers
    /// whether anything went in.
    async fn read_on(&mut self, channel: &Channel, must_beat: bool) -> Result<bool, Stop> {
        let mut has_sent = false;
        loop {
            let Encoded { bytes, next, chain, head } = self.read().await?;
            let is_empty = next == self.at;
            if !is_empty || (must_beat && !has_sent) {
                channel.send(Chunk { after: self.at, next, bytes, is_end: false });
                has_sent = true;
            }
            (self.at, self.chain) = (next, chain);
            if is_empty || next >= head {
                return Ok(has_sent);
            }
        }
    }

    /// [`Mutant::NotifyLostWithoutPolling`]: the heart beats, and nobody looks at the store.
    #[cfg(feature = "mutants")]
    fn beat(&self, channel: &Channel) {
        let (Source { space, log, .. }, at) = (self.source.clone(), self.at);
        let mut out = String::new();
        gbsync_core::wire::LiveHead { space, log, after: at, next: at, chain: self.chain, head: at }.write(&mut out);
        channel.send(Chunk { after: at, next: at, bytes: out.into(), is_end: false });
    }

    async fn read(&self) -> Result<Encoded, Stop> {
        let (source, after) = (self.source.clone(), self.at);
        let request = source.request(after, Some(self.chain), self.app.live.config.page_bytes);
        let reading = self.app.read(move |store| match source.encode(after, store.page(&request)?) {
            Err(damaged @ NoPage::Damaged) => Err(damaged.into()),
            encoded => Ok(encoded.ok()),
        });
        reading.await.map_err(|_| Stop::Unavailable)?.ok_or(Stop::Resync)
    }
}
