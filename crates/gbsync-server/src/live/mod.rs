//! The log as it grows, to everybody who listens: one encoded copy of each page for all listeners of a space who see the same.
//!
//! A space that somebody listens to has one reader (`pump.rs`), which the feed wakes. It reads each page once, encodes it once,
//! and puts it into a ring that all listeners share. A listener (`listener.rs`) that connects behind reads pages by itself until
//! it meets the ring; one that falls behind the ring is dropped and comes back with its cursor.
//!
//! Invariant: what a listener is sent follows without a gap on its cursor. A page of the ring that does not is never sent; the
//! store is asked instead.
//!
//! Rejected alternative: a queue a listener. Ten thousand of them would hold ten thousand copies of what each is too slow to
//! take.

mod listener;
mod pump;

pub(crate) use listener::{Listener, Opening};

use crate::config::LiveConfig;
use crate::routes::App;
use crate::store::{Page, PageRequest, SpaceState, StoreError};
use bytes::Bytes;
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq, SpaceId};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::scope::Sight;
use gbsync_core::wire::{EndReason, LiveHead, push_group_frame};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

/// Changes after which a page closes.
const PAGE_RECORDS: u64 = 1_000;

/// The spaces that somebody listens to.
pub(crate) struct Live {
    channels: Mutex<BTreeMap<ChannelKey, Arc<Channel>>>,
    places: Arc<Semaphore>,
    pub(crate) config: LiveConfig,
}

/// A space, and which part of it: one channel for all who see the same.
type ChannelKey = (SpaceId, String);

/// A page as every listener of a space gets it.
#[derive(Debug, Clone)]
struct Chunk {
    after: Seq,
    next: Seq,
    bytes: Bytes,
    /// Whether nothing comes behind it.
    is_end: bool,
}

/// What the listeners of a space share.
struct Channel {
    ring: broadcast::Sender<Chunk>,
    /// How far the ring is. Held while a page enters it, so that a listener that joins knows which pages it will see.
    at: Mutex<Seq>,
}

/// A listener's share of a channel.
struct Joined {
    ring: broadcast::Receiver<Chunk>,
    /// Every page that begins here or later comes through the ring.
    at: Seq,
}

impl Live {
    pub(crate) fn new(config: LiveConfig) -> Self {
        let places = Arc::new(Semaphore::new(config.listeners.min(Semaphore::MAX_PERMITS)));
        Self { channels: Mutex::default(), places, config }
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.config.listeners.saturating_sub(self.places.available_permits())
    }

    /// A place for one more listener, if there is one.
    pub(crate) fn take_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Joins a space's listeners; the first one starts the reader, at `state`.
    fn join(&self, app: &Arc<App>, source: &Source, state: &SpaceState) -> Joined {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry(source.key()).or_insert_with(|| {
            let (ring, _) = broadcast::channel(self.config.buffered_pages.max(1));
            let channel = Arc::new(Channel { ring, at: Mutex::new(state.head) });
            tokio::spawn(pump::run(Arc::clone(app), Arc::clone(&channel), source.clone(), state.clone()));
            channel
        });
        let at = channel.at.lock().unwrap_or_else(PoisonError::into_inner);
        Joined { ring: channel.ring.subscribe(), at: *at }
    }

    /// Ends a channel that nobody listens to. Answers whether it did.
    fn end_if_alone(&self, source: &Source, channel: &Arc<Channel>) -> bool {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alone = channel.ring.receiver_count() == 0;
        if is_alone {
            forget(&mut channels, source, channel);
        }
        is_alone
    }

    /// Ends a channel: whoever joins from now on begins another.
    fn end(&self, source: &Source, channel: &Arc<Channel>, reason: EndReason) {
        forget(&mut self.channels.lock().unwrap_or_else(PoisonError::into_inner), source, channel);
        let at = *channel.at.lock().unwrap_or_else(PoisonError::into_inner);
        channel.send(Chunk { after: at, next: at, bytes: reason.frame().into(), is_end: true });
    }
}

fn forget(channels: &mut BTreeMap<ChannelKey, Arc<Channel>>, source: &Source, channel: &Arc<Channel>) {
    let key = source.key();
    if channels.get(&key).is_some_and(|present| Arc::ptr_eq(present, channel)) {
        channels.remove(&key);
    }
}

impl Channel {
    fn send(&self, chunk: Chunk) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        *at = chunk.next;
        // Nobody may be listening any more; that changes nothing.
        let _ = self.ring.send(chunk);
    }
}

/// Which log of which space is read, and through whose eyes.
#[derive(Debug, Clone)]
struct Source {
    space: SpaceId,
    log: LogId,
    sight: Arc<Sight>,
    /// What names the part of the space that is seen.
    scope_set: String,
}

impl Source {
    fn key(&self) -> ChannelKey {
        (self.space.clone(), self.scope_set.clone())
    }

    fn request(&self, after: Seq, chain: Option<Digest>, max_bytes: u64) -> PageRequest {
        let (space, log) = (self.space.clone(), Some(self.log.clone()));
        let sight = if is(Mutant::ScopeFilterMissingLive) { Arc::default() } else { Arc::clone(&self.sight) };
        PageRequest { space, after, log, chain, max_records: PAGE_RECORDS, max_bytes, sight }
    }

    /// The events of a page: its groups, and the head that closes it.
    fn encode(&self, after: Seq, page: Page) -> Result<Encoded, NoPage> {
        let Page::Entries { entries, next, chain, head } = page else { return Err(NoPage::Resync) };
        let mut out = String::with_capacity(entries.iter().map(|entry| entry.len() + 40).sum::<usize>() + 400);
        for entry in &entries {
            push_group_frame(&mut out, entry).ok_or(NoPage::Damaged)?;
        }
        LiveHead { space: self.space.clone(), log: self.log.clone(), after, next, chain, head }.write(&mut out);
        Ok(Encoded { bytes: out.into(), next, chain, head })
    }
}

/// A page in the form of the stream.
struct Encoded {
    bytes: Bytes,
    next: Seq,
    chain: Digest,
    head: Seq,
}

/// Why there is no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoPage {
    /// The log is another one, or ends before the cursor.
    Resync,
    /// The store holds what is no entry.
    Damaged,
}

impl From<NoPage> for StoreError {
    fn from(_: NoPage) -> Self {
        Self::Damaged("an entry of the log does not begin with its seq".into())
    }
}
