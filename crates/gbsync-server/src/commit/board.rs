//! Works that wait for one of several writers: each space has one writer at a time.
//!
//! What arrives for a space while a writer is busy there waits and shares the next transaction, so a hot space fills its
//! transactions by itself, and no other space waits for it as long as a writer is free. Where none is, whoever is free next takes its
//! share of all that waits: pushes of many spaces in one transaction, which costs the database about as much as one of them.
//!
//! Rejected alternative: spaces dealt out to writers for good; two hot ones on one writer would halve each other.

use super::Work;
use super::gather::{MOST_BYTES, MOST_WORKS};
use gbsync_core::id::SpaceId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most spaces in a transaction: the more, the longer each of them waits for it.
const MOST_SPACES: usize = 16;

/// What a writer works on: a space, or, with `None`, what belongs to no space.
type Place = Option<SpaceId>;

/// The works that no writer has taken.
pub(super) struct Board {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Works that may wait.
    most: usize,
}

#[derive(Default)]
struct Waiting {
    /// Places that have works or a writer.
    places: BTreeMap<Place, VecDeque<Work>>,
    /// Those that have works and no writer, the longest waiting first.
    free: VecDeque<Place>,
    works: usize,
    /// Writers that have nothing to do.
    idle: usize,
    is_closed: bool,
}

impl Board {
    pub(super) fn new(most: usize) -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new(), most }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a work wait for a writer; gives it back when too many wait or the board is closed.
    pub(super) fn put(&self, work: Work) -> Result<(), Work> {
        let mut waiting = self.lock();
        if waiting.is_closed || waiting.works >= self.most {
            return Err(work);
        }
        let place = work.space().cloned();
        waiting.works += 1;
        match waiting.places.get_mut(&place) {
            Some(works) => works.push_back(work),
            None => {
                waiting.places.insert(place.clone(), VecDeque::from([work]));
                waiting.free.push_back(place);
                self.changed.notify_one();
            }
        }
        Ok(())
    }

    /// Takes no more; writers end when nothing waits.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// A writer has left a place.
    fn leave(&self, place: Place) {
        let mut waiting = self.lock();
        if waiting.places.get(&place).is_some_and(|works| !works.is_empty()) {
            waiting.free.push_back(place);
            self.changed.notify_one();
        } else {
            waiting.places.remove(&place);
        }
    }

    /// The works of a transaction, and the places that they are of.
    fn take(&self) -> Option<(Vec<Place>, Vec<Work>)> {
        let mut waiting = self.lock();
        loop {
            if !waiting.free.is_empty() {
                return Some(waiting.take());
            }
            if waiting.is_closed {
                return None;
            }
            waiting.idle += 1;
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }
}

impl Waiting {
    /// What the next writer takes: the place that waits longest, and a share of the others where that is of pushes alone.
    fn take(&mut self) -> (Vec<Place>, Vec<Work>) {
        let share = self.free.len().div_ceil(self.idle + 1).clamp(1, MOST_SPACES);
        let (mut places, mut taken) = (Vec::new(), Taken::default());
        while places.len() < share {
            let Some(works) = self.free.front().and_then(|place| self.places.get_mut(place)) else { break };
            let may_come_along = places.is_empty() || taken.is_shared && works.iter().all(Work::may_share);
            if !may_come_along || !taken.take(works) {
                break;
            }
            places.extend(self.free.pop_front());
        }
        self.works -= taken.works.len();
        (places, taken.works)
    }
}

/// The works of a transaction, in the order they came.
#[derive(Default)]
struct Taken {
    works: Vec<Work>,
    bytes: u64,
    /// Whether works of other spaces may come along.
    is_shared: bool,
}

impl Taken {
    /// Takes as many as there is room for; whether that is any.
    fn take(&mut self, waiting: &mut VecDeque<Work>) -> bool {
        let before = self.works.len();
        self.is_shared = waiting.iter().all(Work::may_share);
        while let Some(work) = waiting.front() {
            self.bytes += work.bytes();
            if !self.works.is_empty() && (self.bytes > MOST_BYTES || self.works.len() >= MOST_WORKS) {
                break;
            }
            self.works.extend(waiting.pop_front());
        }
        self.works.len() > before
    }
}

impl Work {
    /// Whether it may be decided beside works of other spaces: whatever is no push, or a push in parts, leaves something in a
    /// transaction before it is decided.
    fn may_share(&self) -> bool {
        matches!(self, Self::Push(push, _) if push.request.in_parts().is_none())
    }
}

/// One writer's way to the board.
pub(super) struct Seat {
    board: Arc<Board>,
    places: Vec<Place>,
}

impl Seat {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, places: Vec::new() }
    }

    /// Leaves the places of the works before and takes those of the next transaction; `None` when the board is closed and
    /// nothing waits that has no writer.
    pub(super) fn next(&mut self) -> Option<Vec<Work>> {
        self.leave();
        let (places, works) = self.board.take()?;
        self.places = places;
        Some(works)
    }

    fn leave(&mut self) {
        self.places.drain(..).for_each(|place| self.board.leave(place));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}
