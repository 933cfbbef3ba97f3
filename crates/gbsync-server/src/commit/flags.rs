//! Flags inside a transaction: which of those that groups want to clear there are.
//!
//! A group that clears a flag which never was is rejected: it was made on another log, or by a mistake that should surface. To an
//! author, a flag of a record beyond their scopes is one that never was.
//! Clearing one that is cleared already is fine: two people may look at the same list.

use crate::store::FlagId;
use gbsync_core::group::Header;
use gbsync_core::id::Seq;
use gbsync_core::scope::{Reach, ScopeSet};
use gbsync_core::verdict::{Rejection, RejectionCode};
use std::collections::BTreeMap;

/// The rule that a group breaks when it clears a flag that is not there.
const RULE: &str = "clears";

/// The flags that a transaction touches.
pub(super) struct Flags {
    known: BTreeMap<FlagId, Reach>,
    cleared: BTreeMap<FlagId, Seq>,
}

/// The flags that a group clears. The parser let no other form through; a number too large for one names no flag.
pub(super) fn wanted(header: &Header) -> impl Iterator<Item = FlagId> {
    header.clears.iter().filter_map(|name| FlagId::parse(name))
}

impl Flags {
    pub(super) fn new(known: BTreeMap<FlagId, Reach>) -> Self {
        Self { known, cleared: BTreeMap::new() }
    }

    /// Refuses a group that clears a flag which is not there for an author of these scopes.
    pub(super) fn check(&self, header: &Header, scopes: &ScopeSet) -> Option<Rejection> {
        let reach = |name: &str| self.known.get(&FlagId::parse(name)?);
        let is_known = |name: &str| reach(name).is_some_and(|reach| scopes.sees(reach));
        let unknown = header.clears.iter().find(|name| !is_known(name))?;
        let message = format!("it clears the flag {unknown}, which this log does not have; look at the flags again");
        let (code, rule) = (RejectionCode::InvariantViolation, Some(RULE.into()));
        Some(Rejection { code, message, rule, changes: Vec::new() })
    }

    /// Notes what an accepted group clears, and of each flag that it has itself, where its record is seen.
    pub(super) fn accept(&mut self, header: &Header, seq: Seq, flags: Vec<Reach>) {
        for flag in wanted(header) {
            self.cleared.entry(flag).or_insert(seq);
        }
        self.known.extend((0..).zip(flags).map(|(place, reach)| (FlagId { seq, place }, reach)));
    }

    /// Which flags were cleared, by the group at which place of the log.
    pub(super) fn finish(self) -> BTreeMap<FlagId, Seq> {
        self.cleared
    }
}
