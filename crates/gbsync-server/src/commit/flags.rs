//! Flags inside a transaction: which of those that groups want to clear there are.
//!
//! A group that clears a flag which never was is rejected: it was made on another log, or by a mistake that should surface.
//! Clearing one that is cleared already is fine: two people may look at the same list.

use crate::store::FlagId;
use gbsync_core::group::Header;
use gbsync_core::id::Seq;
use gbsync_core::verdict::{Rejection, RejectionCode};
use std::collections::{BTreeMap, BTreeSet};

/// The rule that a group breaks when it clears a flag that is not there.
const RULE: &str = "clears";

/// The flags that a transaction touches.
pub(super) struct Flags {
    known: BTreeSet<FlagId>,
    cleared: BTreeMap<FlagId, Seq>,
}

/// The flags that a group clears. The parser let no other form through; a number too large for one names no flag.
pub(super) fn wanted(header: &Header) -> impl Iterator<Item = FlagId> {
    header.clears.iter().filter_map(|name| FlagId::parse(name))
}

impl Flags {
    pub(super) fn new(known: BTreeSet<FlagId>) -> Self {
        Self { known, cleared: BTreeMap::new() }
    }

    /// Refuses a group that clears a flag which is not there.
    pub(super) fn check(&self, header: &Header) -> Option<Rejection> {
        let is_known = |name: &str| FlagId::parse(name).is_some_and(|flag| self.known.contains(&flag));
        let unknown = header.clears.iter().find(|name| !is_known(name))?;
        let message = format!("it clears the flag {unknown}, which this log does not have; look at the flags again");
        let (code, rule) = (RejectionCode::InvariantViolation, Some(RULE.into()));
        Some(Rejection { code, message, rule, changes: Vec::new() })
    }

    /// Notes what an accepted group clears and how many flags it has itself.
    pub(super) fn accept(&mut self, header: &Header, seq: Seq, flags: usize) {
        for flag in wanted(header) {
            self.cleared.entry(flag).or_insert(seq);
        }
        self.known.extend((0..flags as u64).map(|place| FlagId { seq, place }));
    }

    /// Which flags were cleared, by the group at which place of the log.
    pub(super) fn finish(self) -> BTreeMap<FlagId, Seq> {
        self.cleared
    }
}
