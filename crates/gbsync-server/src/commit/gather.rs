//! How long a transaction waits for company.
//!
//! A single device never waits: with nobody else about, its push is committed at once. When several push at a time, the
//! first of them waits a moment for those that are being parsed and for those that were answered just before and are about to
//! come back, because one fsync for eight costs as much as one for one.
//!
//! Rejected alternative: a fixed delay, which slows the single device and still misses company under load.

use super::Work;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How long the next push may stay away before a transaction starts without it.
const LULL: Duration = Duration::from_micros(250);
/// How long a transaction waits at most.
const LONGEST: Duration = Duration::from_millis(1);
/// Most works in a transaction.
pub(super) const MOST_WORKS: usize = 256;
/// Most bytes of pushes in a transaction; one that is larger travels alone.
pub(super) const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// Who is about.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    being_parsed: AtomicU64,
}

/// A push that is being parsed. Dropped when it is queued, or when it failed.
pub(crate) struct Announced(Arc<Crowd>);

impl Crowd {
    pub(super) fn announce(self: &Arc<Self>) -> Announced {
        self.being_parsed.fetch_add(1, Ordering::Relaxed);
        Announced(Arc::clone(self))
    }

    fn being_parsed(&self) -> u64 {
        self.being_parsed.load(Ordering::Relaxed)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.being_parsed.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes works off the queue, a transaction's worth at a time.
pub(super) struct Gatherer {
    queue: Receiver<Work>,
    crowd: Arc<Crowd>,
    /// How many pushes came together lately: the most, forgotten by a quarter a transaction.
    lately: f64,
    /// A work that did not fit the transaction before.
    left_over: Option<Work>,
}

impl Gatherer {
    pub(super) fn new(queue: Receiver<Work>, crowd: Arc<Crowd>) -> Self {
        Self { queue, crowd, lately: 1.0, left_over: None }
    }

    /// The works of the next transaction; `None` when the queue is closed and empty.
    pub(super) fn gather(&mut self) -> Option<Vec<Work>> {
        let first = match self.left_over.take() {
            Some(work) => work,
            None => self.queue.recv().ok()?,
        };
        let mut bytes = first.bytes();
        let mut works = vec![first];
        let deadline = Instant::now() + LONGEST;
        while works.len() < MOST_WORKS {
            let Some(work) = self.next(works.len(), deadline) else { break };
            if bytes + work.bytes() > MOST_BYTES {
                self.left_over = Some(work);
                break;
            }
            bytes += work.bytes();
            works.push(work);
        }
        self.lately = (self.lately * 0.75).max(works.len() as f64);
        Some(works)
    }

    fn next(&mut self, gathered: usize, deadline: Instant) -> Option<Work> {
        if let Ok(work) = self.queue.try_recv() {
            return Some(work);
        }
        let is_expecting = self.crowd.being_parsed() > 0 || (gathered as f64) < self.lately.floor();
        let patience = LULL.min(deadline.saturating_duration_since(Instant::now()));
        if !is_expecting || patience.is_zero() {
            return None;
        }
        self.queue.recv_timeout(patience).ok()
    }
}

impl Work {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            // What is staged of it is not in the request.
            Self::Push(push, _) if push.request.in_parts().is_some() => push.bytes.max(MOST_BYTES + 1),
            Self::Push(push, _) => push.bytes,
            Self::Stage(part, _) => part.body.len() as u64,
            Self::Discard(..) | Self::Resolve(..) | Self::Tell(..) | Self::Fork(..) | Self::Probe(_) => 0,
            Self::Adopt(..) => MOST_BYTES + 1,
        }
    }
}
