//! The lineage of a space's log inside a transaction: where devices stand, what they bring back of earlier logs, and a log that
//! turns out to have been rolled back (docs/protocol.md, "Restored logs").
//!
//! Invariant: no group is decided on versions of which the sender says that they are of another history than the log's: a
//! device that says where it stands is held to it under the lock of the space.

use super::ledger::Terms;
use crate::store::{HealedGroup, Held, KeptAncestor, SpaceState, StoreError, Writer, descend, meet};
use gbsync_core::decide::{Known, OtherLog};
use gbsync_core::digest::Digest;
use gbsync_core::group::Group;
use gbsync_core::id::{GroupId, LogId, Seq, SpaceId};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{Arrival, Content, LogPlace, MadeOn, PushRequest};
use std::collections::{BTreeMap, BTreeSet};

/// How long a log that was found rolled back is left alone, in milliseconds: a device that is out of its mind must not make a new
/// one with every request.
const FORK_REST_MS: u64 = 60 * 1000;

/// Names what has to be known of other logs to decide these groups.
pub(super) fn wanted<'r>(lost: &mut BTreeSet<(&'r LogId, Seq)>, request: &'r PushRequest) {
    for arrival in &request.groups {
        lost.extend(arrival.accepted_as.iter().map(|(log, seq)| (log, *seq)));
        let Content::Whole(group) = &arrival.content else { continue };
        if arrival.made_on.is_some() {
            continue;
        }
        let Some(log) = &group.header().log else { continue };
        lost.extend(bases(group).map(|version| (log, version)));
    }
}

/// The groups that a group names as its bases in a history that its device left.
pub(super) fn named(arrival: &Arrival) -> impl Iterator<Item = &GroupId> {
    arrival.made_on.iter().flat_map(|made_on| made_on.bases.values())
}

fn bases(group: &Group) -> impl Iterator<Item = Seq> {
    let versions = group.changes().iter().filter(|change| !change.edit.is_increment()).map(|change| change.base.version);
    versions.filter(|version| *version > Seq(0))
}

/// What is known of earlier logs, in one transaction.
pub(super) struct Lineage {
    chains: BTreeMap<Seq, Digest>,
    known: BTreeMap<(LogId, Seq), (GroupId, Option<Seq>)>,
    /// What is to be written.
    pub(super) healed: Vec<HealedGroup>,
}

impl Lineage {
    pub(super) fn new(healed: Vec<HealedGroup>, chains: BTreeMap<Seq, Digest>) -> Self {
        let known = healed.into_iter().map(|healed| ((healed.log, healed.seq), (healed.group, healed.now))).collect();
        Self { chains, known, healed: Vec::new() }
    }

    /// Why a sender stands elsewhere than in this log, if it does. `head`: of the log before this transaction.
    pub(super) fn displaced(&self, at: &LogPlace, state: &SpaceState, head: Seq) -> Option<Displaced> {
        if at.log != state.log {
            return Some(Displaced::LogChanged);
        }
        if at.seq > head {
            return Some(Displaced::BeyondHead { head });
        }
        // What the log no longer holds cannot be compared.
        let is_other = self.chains.get(&at.seq).is_some_and(|chain| *chain != at.chain);
        is_other.then_some(Displaced::LogChanged)
    }

    /// How the bases of a group are read that was made on another log. `None` for one made on the present log, or on one
    /// that nothing is known of.
    ///
    /// Where its device says what its bases were, the name of the log tells nothing: another history may have had the same.
    pub(super) fn other_log(
        &self,
        (group, made_on): (&Group, Option<&MadeOn>),
        state: &SpaceState,
        came_along: &BTreeSet<GroupId>,
        terms: &Terms<'_>,
    ) -> Option<OtherLog> {
        let newest = state.ancestors.iter().map(|kept| kept.at_ms).max();
        let now_ms = u64::try_from(terms.now.unix_ms()).unwrap_or(0);
        let is_waited_for = newest.is_some_and(|newest| now_ms.saturating_sub(newest) < terms.heal_window_ms);
        let (up_to, offered) = match made_on {
            Some(made_on) => (made_on.shared, made_on.bases.clone()),
            None => {
                let log = group.header().log.as_ref().filter(|log| **log != state.log && newest.is_some())?;
                let kept = state.ancestors.iter().find(|kept| kept.ancestor.log == *log);
                let offered = |seq| Some((seq, self.known.get(&(log.clone(), seq))?.0.clone()));
                (kept.map_or(Seq(0), |kept| kept.ancestor.up_to), bases(group).filter_map(offered).collect())
            }
        };
        let gone = match is_waited_for {
            true => BTreeSet::new(),
            false => group.header().depends_on.iter().filter(|id| !came_along.contains(*id)).cloned().collect(),
        };
        Some(OtherLog { up_to, offered, is_waited_for, gone })
    }

    /// What became of the groups that a group's bases were.
    pub(super) fn standings(&self, group: &Group) -> impl Iterator<Item = (GroupId, Known)> {
        let log = group.header().log.as_ref();
        let known = move |seq| {
            let (id, now) = self.known.get(&(log?.clone(), seq))?;
            Some((id.clone(), now.map_or(Known::Rejected, Known::Accepted)))
        };
        bases(group).filter_map(known)
    }

    /// Notes where a group that has its verdict stood in logs that lost it. The first that says so of a place is believed.
    pub(super) fn brought_back(&mut self, arrival: &Arrival, verdict: &Verdict, state: &SpaceState) {
        let now = match verdict {
            Verdict::Accepted { seq, .. } => Some(*seq),
            _ => None,
        };
        for (log, seq) in &arrival.accepted_as {
            let ancestor = state.ancestors.iter().find(|kept| kept.ancestor.log == *log);
            let is_shared = ancestor.is_some_and(|kept| *seq <= kept.ancestor.up_to);
            let is_here = *log == state.log && now == Some(*seq);
            let place = (log.clone(), *seq);
            if is_shared || is_here || self.known.contains_key(&place) {
                continue;
            }
            self.known.insert(place, (arrival.id.clone(), now));
            self.healed.push(HealedGroup { log: log.clone(), seq: *seq, group: arrival.id.clone(), now });
        }
    }
}

/// Why a sender stands elsewhere than in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Displaced {
    LogChanged,
    BeyondHead { head: Seq },
}

/// A device stands where the present log does not.
#[derive(Debug, Clone)]
pub(crate) struct Forking {
    pub(crate) space: SpaceId,
    pub(crate) at: LogPlace,
    /// Earlier places where the device stood, to find up to where both agree.
    pub(crate) known: BTreeMap<Seq, Digest>,
    /// Of the log that begins.
    pub(crate) log: LogId,
}

/// What that comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForkingOutcome {
    /// The log is another one now, or was already: the highest of the places that the device knows at which both are the same.
    Done(Seq),
    /// A log has begun only just now; ask again later.
    TooSoon,
}

impl Forking {
    /// The places whose chain has to be known.
    pub(super) fn places(&self) -> impl Iterator<Item = Seq> {
        self.known.keys().copied().chain([self.at.seq])
    }

    /// Begins a new log where the present one turns out to have been rolled back behind what a device has seen of it. A log
    /// that nothing is known of was lost as well: the store was put back to a state from before it. It becomes an ancestor,
    /// so that what it had is waited for.
    pub(super) fn fork(&self, writer: &mut dyn Writer, held: &mut Held, now_ms: u64) -> Result<ForkingOutcome, StoreError> {
        let Held { state, chains, .. } = held;
        let agrees = |(seq, chain): &(&Seq, &Digest)| **seq <= state.head && chains.get(seq) == Some(*chain);
        let up_to = self.known.iter().filter(agrees).map(|(seq, _)| *seq).max().unwrap_or(Seq(0));
        let stands = self.at.seq <= state.head && chains.get(&self.at.seq).is_none_or(|known| *known == self.at.chain);
        let is_known = state.ancestors.iter().any(|kept| kept.ancestor.log == self.at.log);
        if stands || is_known && self.at.log != state.log {
            return Ok(ForkingOutcome::Done(up_to));
        }
        let newest = state.ancestors.iter().map(|kept: &KeptAncestor| kept.at_ms).max();
        if newest.is_some_and(|newest| now_ms.abs_diff(newest) < FORK_REST_MS) {
            return Ok(match self.at.log == state.log {
                true => ForkingOutcome::TooSoon,
                false => ForkingOutcome::Done(up_to),
            });
        }
        let (log, ancestors) = match self.at.log == state.log {
            true => (self.log.clone(), descend(&state.log, up_to, &state.ancestors, now_ms)),
            false => (state.log.clone(), meet(&self.at.log, up_to, &state.ancestors, now_ms)),
        };
        tracing::warn!(
            space = %self.space, log = %self.at.log, head = %state.head, seen = %self.at.seq, agreed = %up_to, now = %log,
            "a device has seen more than the log holds: the store was put back to an earlier state; devices bring back what it lost"
        );
        writer.fork(&self.space, &log, &ancestors)?;
        (state.log, state.ancestors) = (log, ancestors);
        Ok(ForkingOutcome::Done(up_to))
    }
}

/// Whether a sender is held to where it says that it stands.
pub(super) fn is_held() -> bool {
    !is(Mutant::FutureCursorAccepted)
}
