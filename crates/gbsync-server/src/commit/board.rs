//! Works that wait for one of several writers: each space has one writer at a time, and a transaction is of one space.
//!
//! What arrives for a space while a writer is busy there waits and shares the next transaction, so a hot space fills its
//! transactions by itself, and no other space waits for it as long as a writer is free.
//!
//! Rejected alternative: spaces dealt out to writers for good; two hot ones on one writer would halve each other.

use super::Work;
use super::gather::{MOST_BYTES, MOST_WORKS};
use gbsync_core::id::SpaceId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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

    fn take(&self) -> Option<(Place, Vec<Work>)> {
        let mut waiting = self.lock();
        loop {
            if let Some(place) = waiting.free.pop_front() {
                let works = waiting.places.get_mut(&place).map(transaction_of).unwrap_or_default();
                waiting.works -= works.len();
                return Some((place, works));
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// As many works as one transaction takes, in the order they came.
fn transaction_of(waiting: &mut VecDeque<Work>) -> Vec<Work> {
    let (mut works, mut bytes) = (Vec::new(), 0);
    while let Some(work) = waiting.front() {
        bytes += work.bytes();
        if !works.is_empty() && (bytes > MOST_BYTES || works.len() >= MOST_WORKS) {
            break;
        }
        works.extend(waiting.pop_front());
    }
    works
}

/// One writer's way to the board.
pub(super) struct Seat {
    board: Arc<Board>,
    place: Option<Place>,
}

impl Seat {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, place: None }
    }

    /// Leaves the place of the works before and takes those of the next transaction; `None` when the board is closed and
    /// nothing waits that has no writer.
    pub(super) fn next(&mut self) -> Option<Vec<Work>> {
        if let Some(place) = self.place.take() {
            self.board.leave(place);
        }
        let (place, works) = self.board.take()?;
        self.place = Some(place);
        Some(works)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.board.leave(place);
        }
    }
}
