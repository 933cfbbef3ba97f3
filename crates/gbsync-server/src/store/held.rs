//! What a transaction asks the store for before it decides, and what it finds.

use super::{EpochKey, FlagId, HealedGroup, SchemaMark, SpaceState};
use gbsync_core::decide::{Facts, Needs};
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, GroupId, GroupType, LogId, RecordKey, Seq};
use gbsync_core::scope::{Reach, ScopeSet};
use gbsync_core::verdict::{Flag, Rejection, Resolution};
use std::collections::{BTreeMap, BTreeSet};

/// What a transaction needs to know of one space.
#[derive(Debug, Default)]
pub(crate) struct Wanted<'w> {
    pub(crate) groups: BTreeSet<&'w GroupId>,
    pub(crate) numbers: BTreeMap<EpochKey, BTreeSet<DeviceSeq>>,
    /// Flags that groups clear.
    pub(crate) flags: BTreeSet<FlagId>,
    /// Rejected groups that are to be closed or replaced.
    pub(crate) rejected: BTreeSet<&'w GroupId>,
    /// Places of earlier logs that groups name.
    pub(crate) lost: BTreeSet<(&'w LogId, Seq)>,
    /// Places of the log whose chain is asked for.
    pub(crate) chains: BTreeSet<Seq>,
    /// Whether the server makes groups itself, and so needs the last of its own numbers.
    pub(crate) makes_groups: bool,
    /// What deciding the groups needs as far as they say it themselves.
    pub(crate) needs: Needs,
    /// Those of the needed records that their authors made. They are held for absent without a look: whoever makes a record under a
    /// new id is right about it, and a key that is there refuses the write.
    pub(crate) supposed: BTreeSet<&'w RecordKey>,
}

impl Wanted<'_> {
    /// The needed records that are to be looked up, in order.
    pub(crate) fn looked_up(&self) -> impl Iterator<Item = &RecordKey> {
        self.needs.records.iter().filter(|key| !self.supposed.contains(key))
    }

    /// Holds those that are supposed to be absent for absent; which ones.
    pub(crate) fn suppose(&self, facts: &mut Facts) -> Vec<RecordKey> {
        let keys: Vec<RecordKey> = self.supposed.iter().map(|key| (*key).clone()).collect();
        keys.iter().for_each(|key| facts.learn_record(key.clone(), None));
        keys
    }
}

/// What the store holds of what was wanted.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) state: SpaceState,
    pub(crate) schema: SchemaMark,
    pub(crate) groups: BTreeMap<GroupId, Decided>,
    /// Of a group that replaces another or is replaced: what names its family.
    pub(crate) roots: BTreeMap<GroupId, GroupId>,
    /// The accepted group of a family, by the family's name.
    pub(crate) winners: BTreeMap<GroupId, GroupId>,
    /// How somebody closed a family, by the family's name.
    pub(crate) closures: BTreeMap<GroupId, Resolution>,
    pub(crate) rejected: BTreeMap<GroupId, HeldRejection>,
    pub(crate) numbers: BTreeMap<EpochKey, BTreeMap<DeviceSeq, GroupId>>,
    /// What devices brought back of the lost places.
    pub(crate) healed: Vec<HealedGroup>,
    /// The chain at those of the places that the log has.
    pub(crate) chains: BTreeMap<Seq, Digest>,
    /// Those of the flags that there are, cleared or not, and where the record that each names is seen.
    pub(crate) flags: BTreeMap<FlagId, Reach>,
    /// What was needed.
    pub(crate) facts: Facts,
    /// The records that were supposed to be absent, in order.
    pub(crate) supposed: Vec<RecordKey>,
}

/// A space of several that were to be loaded.
#[derive(Debug)]
pub(crate) enum Loaded {
    Held(Box<Held>),
    NoSpace,
    /// It has to be loaded alone: another writer is at work there, or the store does not know it well enough yet. Nothing of the
    /// transaction may be about it.
    Alone,
}

impl Loaded {
    /// What was loaded of a space that was waited for.
    pub(crate) fn of(held: Option<Held>) -> Self {
        held.map_or(Self::NoSpace, |held| Self::Held(Box::new(held)))
    }
}

/// Whose a rejected group is.
#[derive(Debug, Clone)]
pub(crate) struct HeldRejection {
    pub(crate) group_type: Option<GroupType>,
    pub(crate) actor: Option<Actor>,
    pub(crate) device: Option<DeviceId>,
    /// The scopes that its author held.
    pub(crate) scopes: ScopeSet,
}

/// A group that has its final verdict.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    /// `None` for a group that was discarded before it arrived.
    pub(crate) digest: Option<Digest>,
    pub(crate) outcome: DecidedAs,
}

/// A final verdict.
#[derive(Debug, Clone)]
pub(crate) enum DecidedAs {
    Accepted { seq: Seq, flags: Vec<Flag> },
    Rejected(Box<Rejection>),
}
