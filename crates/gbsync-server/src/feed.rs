//! Who waits for a log to grow, and waking them after a COMMIT.
//!
//! Invariant: a head is told only after the transaction that moved it is durable.

use gbsync_core::id::{Seq, SpaceId};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// The heads of the spaces that somebody waited for.
#[derive(Default)]
pub(crate) struct Feed {
    heads: Mutex<BTreeMap<SpaceId, watch::Sender<Seq>>>,
    /// Commits of which nobody is told.
    #[cfg(feature = "fault-points")]
    losing: std::sync::atomic::AtomicU64,
}

impl Feed {
    /// Wakes when the space's head moves after this call.
    pub(crate) fn subscribe(&self, space: &SpaceId) -> watch::Receiver<Seq> {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        match heads.get(space) {
            Some(head) => head.subscribe(),
            None => {
                // Spaces that nobody waits for any more make room for the one that is new.
                heads.retain(|_, head| head.receiver_count() > 0);
                let (sender, receiver) = watch::channel(Seq(0));
                heads.insert(space.clone(), sender);
                receiver
            }
        }
    }

    /// Tells everyone who waits for the space that its log reaches `head`.
    pub(crate) fn advance(&self, space: &SpaceId, head: Seq) {
        #[cfg(feature = "fault-points")]
        if self.is_lost() {
            return;
        }
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = heads.get(space) {
            sender.send_replace(head);
        }
    }

    /// Tells nobody of the next so many commits.
    #[cfg(feature = "fault-points")]
    pub(crate) fn lose(&self, commits: u64) {
        self.losing.store(commits, std::sync::atomic::Ordering::SeqCst);
    }

    #[cfg(feature = "fault-points")]
    fn is_lost(&self) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        self.losing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    /// The same where the head may be known already: from another process, perhaps late.
    pub(crate) fn reach(&self, space: &SpaceId, head: Seq) {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = heads.get(space) {
            sender.send_if_modified(|known| {
                let is_news = head > *known;
                *known = head.max(*known);
                is_news
            });
        }
    }

    /// The spaces that somebody waits for.
    pub(crate) fn awaited(&self) -> Vec<SpaceId> {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.iter().filter(|(_, head)| head.receiver_count() > 0).map(|(space, _)| space.clone()).collect()
    }
}
