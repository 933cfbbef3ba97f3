//! Base versions of another log than the present one: of a log that this one was restored from (docs/protocol.md, "Restored
//! logs").
//!
//! Up to where both logs agree, a version is the same in both. One above it names a group that this log lost. When the device
//! that made that group has brought it back, the change is judged as made on that group, as if its author had named it as
//! `baseGroup`: so under `merge` it vouches for the fields of that group's chain and for no others. It does not go on that chain
//! itself: several who saw the group may have edited it, and none of them saw the others' edits. A change that names a group of
//! its own device over such a version was made on both.
//!
//! Rejected alternative: replacing the version by the group's new `seq`. What others wrote between the restore and the
//! group's return would count as seen by an author who never saw it.

use super::{Decision, Known, Standing, standing};
use crate::change::{Base, Change};
use crate::id::{GroupId, LogId, Seq};
use crate::mutant::{Mutant, is};
use crate::verdict::RejectionCode;
use crate::wire::Ancestor;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// How the base versions of a group that was made on another log are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OtherLog {
    /// The last `seq` that both logs have in common.
    pub up_to: Seq,
    /// Groups that devices brought back, by the `seq` that they had in the other log. What became of each is in
    /// [`Standing::groups`].
    pub offered: BTreeMap<Seq, GroupId>,
    /// Whether other devices may still bring what is missing.
    pub is_waited_for: bool,
    /// Of the groups that it depends on, those that the device believes accepted and that nobody will bring any more.
    pub gone: BTreeSet<GroupId>,
}

/// The decision on a group of which nobody will bring a group that it depends on.
pub(super) fn gone(standing: &Standing, by: &[GroupId]) -> Option<Decision> {
    let other = standing.other_log.as_ref()?;
    let gone = by.iter().find(|id| other.gone.contains(*id))?;
    let message =
        format!("it depends on {gone}, which the log lost when it was restored, and nobody brought it back in time");
    Some(standing::reject(RejectionCode::BaseLost, message))
}

/// The changes with bases of the present log, or the decision where they have none.
pub(super) fn rebased<'c>(changes: Cow<'c, [Change]>, standing: &Standing) -> Result<Cow<'c, [Change]>, Decision> {
    let Some(other) = &standing.other_log else { return Ok(changes) };
    let is_above = |change: &Change| {
        change.base.version > other.up_to && !change.edit.is_increment() && !is(Mutant::ReofferedOnUntranslatedBase)
    };
    if !changes.iter().any(is_above) {
        return Ok(changes);
    }
    let (mut changes, mut by, mut is_missing) = (changes.into_owned(), Vec::new(), false);
    for (index, change) in changes.iter_mut().enumerate().filter(|(_, change)| is_above(change)) {
        let version = change.base.version;
        let (named, read) = (change.base.group.take(), other.offered.get(&version).cloned());
        // Who names a group saw the version beneath it as well.
        match read.as_ref().and_then(|group| standing.groups.get(group)) {
            Some(Known::Accepted(_)) => {}
            Some(Known::Rejected) => {
                let group = read.map_or_else(String::new, |group| group.to_string());
                return Err(lost(index, version, &format!("the log lost it, and {group}, which was it, is refused now")));
            }
            None if !other.is_waited_for => {
                return Err(lost(
                    index,
                    version,
                    "the log lost it when it was restored, and nobody brought it back in time",
                ));
            }
            None => {
                is_missing = true;
                by.extend(read.clone());
            }
        }
        let group = named.or(read);
        change.base = Base { version: other.up_to, group };
    }
    match is_missing {
        true => Err(Decision::Block(by)),
        false => Ok(Cow::Owned(changes)),
    }
}

/// Where the groups stand now that base versions of a lost log were, by change.
pub(super) fn read_as(changes: &[Change], standing: &Standing) -> Vec<Option<Seq>> {
    let Some(other) = &standing.other_log else { return Vec::new() };
    let place = |change: &Change| match standing.groups.get(other.offered.get(&change.base.version)?)? {
        Known::Accepted(seq) => Some(*seq),
        Known::Rejected => None,
    };
    let is_above = |change: &Change| change.base.version > other.up_to && !change.edit.is_increment();
    changes.iter().map(|change| place(change).filter(|_| is_above(change))).collect()
}

fn lost(index: usize, version: Seq, why: &str) -> Decision {
    standing::reject(
        RejectionCode::BaseLost,
        format!("change {index} was made on version {version} of an earlier log: {why}"),
    )
}

/// Up to which `seq` a log agrees with one whose ancestors are these: all of it with itself, 0 with a stranger.
///
/// `then`: what was known of the ancestors of `log`, where it is itself none of these: two logs restored from one share what
/// both have of it.
///
/// ```
/// use gbsync_core::{decide::agreed, id::{LogId, Seq}, wire::Ancestor};
/// let log = |name: &str| LogId::new(name).unwrap();
/// let ancestor = |name: &str, up_to| Ancestor { log: log(name), up_to: Seq(up_to) };
/// let now = (&log("c"), &[ancestor("b", 120), ancestor("a", 100)][..]);
/// assert_eq!(agreed(&log("b"), &[], now), Seq(120));
/// assert_eq!(agreed(&log("other"), &[ancestor("a", 80)], now), Seq(80));
/// assert_eq!(agreed(&log("stranger"), &[], now), Seq(0));
/// ```
pub fn agreed(log: &LogId, then: &[Ancestor], (now, ancestors): (&LogId, &[Ancestor])) -> Seq {
    let in_now = |log: &LogId| match log == now {
        true => Some(Seq(u64::MAX)),
        false => ancestors.iter().find(|ancestor| ancestor.log == *log).map(|ancestor| ancestor.up_to),
    };
    let shared = |ancestor: &Ancestor| Some(in_now(&ancestor.log)?.min(ancestor.up_to));
    in_now(log).or_else(|| then.iter().filter_map(shared).max()).unwrap_or(Seq(0))
}

/// The ancestors of a log that is restored from `log` as it was at `head`: those of that one, as far as it went, and it.
pub fn lineage(log: &LogId, head: Seq, ancestors: &[Ancestor]) -> Vec<Ancestor> {
    let own = Ancestor { log: log.clone(), up_to: head };
    let cut = |ancestor: &Ancestor| Ancestor { log: ancestor.log.clone(), up_to: ancestor.up_to.min(head) };
    std::iter::once(own).chain(ancestors.iter().map(cut)).collect()
}
