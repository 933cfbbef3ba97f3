//! Groups into batches: a batch is a unit of transport and never splits a group (ARCHITECTURE.md, step 4).
//!
//! Invariant: one pass in seal order, constant work a group and a dependency; nothing is remembered of a group but that
//! it waits.
//!
//! Rejected alternative: collecting per item and regrouping, which scans all pending items once a group.

use crate::limits::Limits;
use std::collections::BTreeSet;

/// What the planner needs to know of a sealed group. `G` names a group, `A` an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<G, A> {
    /// The group.
    pub group: G,
    /// Its changes.
    pub records: u64,
    /// Its bytes in wire form.
    pub bytes: u64,
    /// Who made it.
    pub actor: A,
    /// Whether it may be sent at all now: not while it waits for a sign-in or for its next attempt.
    pub is_ready: bool,
    /// The groups it waits for that the server has not accepted.
    pub undecided: Vec<G>,
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It joined the batch.
    Joined,
    /// It joined the batch, which is full with it.
    Filled,
    /// It does not fit; close the batch, begin another and offer it again.
    Closed,
    /// It waits, and so will all that depend on it.
    Waits,
}

/// Fills batches one after the other.
///
/// A group is planned only if all it waits for is accepted or planned before it; a caller that plans several batches
/// ahead sends them in order and plans anew after any verdict but `accepted`.
///
/// ```
/// use gbsync_core::{limits::Limits, plan::{Candidate, Placed, Planner}};
/// let limits = Limits { batch_records: 2, ..Limits::default() };
/// let mut planner = Planner::new(&limits);
/// let receipt = Candidate { group: 1, records: 3, bytes: 300, actor: "ann", is_ready: true, undecided: vec![] };
/// assert_eq!(planner.offer(&receipt), Placed::Filled); // over the limit, so it travels alone
/// ```
#[derive(Debug, Clone)]
pub struct Planner<G, A> {
    batch_records: u64,
    batch_bytes: u64,
    records: u64,
    bytes: u64,
    actor: Option<A>,
    waiting: BTreeSet<G>,
}

impl<G: Ord + Clone, A: PartialEq + Clone> Planner<G, A> {
    /// A planner with an empty batch.
    pub fn new(limits: &Limits) -> Self {
        Self {
            batch_records: limits.batch_records,
            batch_bytes: limits.batch_bytes,
            records: 0,
            bytes: 0,
            actor: None,
            waiting: BTreeSet::new(),
        }
    }

    /// Offers the next group in seal order.
    pub fn offer(&mut self, candidate: &Candidate<G, A>) -> Placed {
        let waits = !candidate.is_ready
            || (!self.waiting.is_empty() && candidate.undecided.iter().any(|group| self.waiting.contains(group)));
        if waits {
            self.waiting.insert(candidate.group.clone());
            return Placed::Waits;
        }
        let (records, bytes) = (self.records + candidate.records, self.bytes + candidate.bytes);
        let is_over = records > self.batch_records || bytes > self.batch_bytes;
        let is_another_actor = self.actor.as_ref().is_some_and(|actor| *actor != candidate.actor);
        if self.records > 0 && (is_over || is_another_actor) {
            self.close();
            return Placed::Closed;
        }
        (self.records, self.bytes) = (records, bytes);
        if records >= self.batch_records || bytes >= self.batch_bytes {
            self.close();
            return Placed::Filled;
        }
        self.actor.get_or_insert_with(|| candidate.actor.clone());
        Placed::Joined
    }

    /// Begins an empty batch. What waits goes on waiting.
    fn close(&mut self) {
        (self.records, self.bytes, self.actor) = (0, 0, None);
    }
}

/// Plans a whole outbox into batches, as draining it would send them if everything is accepted.
///
/// ```
/// use gbsync_core::{limits::Limits, plan::{Candidate, plan}};
/// let group = |group, records| Candidate { group, records, bytes: 1, actor: (), is_ready: true, undecided: vec![] };
/// let limits = Limits { batch_records: 2, ..Limits::default() };
/// assert_eq!(plan([group(1, 3), group(2, 1), group(3, 1)], &limits), vec![vec![1], vec![2, 3]]);
/// ```
pub fn plan<G: Ord + Clone, A: PartialEq + Clone>(
    candidates: impl IntoIterator<Item = Candidate<G, A>>,
    limits: &Limits,
) -> Vec<Vec<G>> {
    let mut planner = Planner::new(limits);
    let (mut batches, mut batch) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let mut placed = planner.offer(&candidate);
        if placed == Placed::Closed {
            batches.push(std::mem::take(&mut batch));
            placed = planner.offer(&candidate);
        }
        if placed != Placed::Waits {
            batch.push(candidate.group);
        }
        if placed == Placed::Filled {
            batches.push(std::mem::take(&mut batch));
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}
