//! What a decision is made on: records and indexes as far as they were asked for, with what earlier groups of the same
//! transaction left.
//!
//! Core asks for what it needs and the store answers, many questions at a time, so that deciding costs a constant number of
//! round trips. Nothing is asked twice.

use super::lists::Lists;
use super::{Marks, OtherLog, Outcome};
use crate::change::Payload;
use crate::id::{Entity, GroupId, LogId, RecordId, RecordKey, Role, Seq};
use crate::schema::Schema;
use crate::scope::{Reach, ScopeSet};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// A record as the server holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The `seq` that last changed it.
    pub version: Seq,
    /// The `seq` of its last change other than an increment.
    pub edit_version: Seq,
    /// The payload; `None` for a tombstone.
    pub payload: Option<Payload>,
    /// What the policies `merge` and `last_write_wins` remember of it.
    pub marks: Option<Box<Marks>>,
    /// Where it is seen; a tombstone, where it was.
    pub reach: Reach,
}

/// What the server knows of another group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It has this place in the log.
    Accepted(Seq),
    /// It was rejected, with finality.
    Rejected,
}

/// Where a group stands: everything but the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is known of the groups it depends on, and of those that its bases were in another log.
    pub groups: BTreeMap<GroupId, Known>,
    /// The group that took effect in the place of the one this replaces: that one itself or another replacement.
    pub replaced_by: Option<GroupId>,
    /// The current log.
    pub log: LogId,
    /// Of a group that was made on another log: how its base versions are read. `None` where nothing is known of that log.
    pub other_log: Option<OtherLog>,
    /// Its last `seq`.
    pub head: Seq,
    /// The roles of the person who made it; `None` where rights are not asked, as on a device.
    pub roles: Option<BTreeSet<Role>>,
    /// The scopes that its author holds.
    pub scopes: ScopeSet,
    /// The server's clock, in milliseconds after 1970.
    pub now_ms: u64,
}

/// One list of an index: the records of an entity whose fields have a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexKey {
    /// The kind of record.
    pub entity: Entity,
    /// The fields, with commas between.
    pub fields: Box<str>,
    /// Of a reference the id it holds; of unique fields the canonical JSON array of their values.
    pub value: Box<str>,
}

/// What has to be known before a group can be decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Records.
    pub records: BTreeSet<RecordKey>,
    /// Lists of indexes.
    pub index: BTreeSet<IndexKey>,
}

impl Needs {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.index.is_empty()
    }
}

/// What joined (`true`) and left lists of indexes.
pub type IndexMoves = BTreeMap<IndexKey, BTreeMap<RecordId, bool>>;

/// What is known, and what accepted groups changed of it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Records asked for; `None` where there is none.
    records: BTreeMap<RecordKey, Option<Record>>,
    /// Lists asked for or changed.
    lists: Lists,
    /// Tombstones up to here may be removed already.
    horizon: Seq,
}

impl Facts {
    /// Nothing known yet, of a store that keeps tombstones behind this place of the log.
    pub fn behind(horizon: Seq) -> Self {
        Self { horizon, ..Self::default() }
    }

    /// Takes what the store holds of a record, unless a group has changed it already. A tombstone up to the horizon counts as
    /// removed whether it is or not: when that happens must decide nothing.
    pub fn learn_record(&mut self, key: RecordKey, record: Option<Record>) {
        // A device knows no horizon and no versions: what it shows as deleted was there.
        let is_kept = |version| self.horizon == Seq(0) || version > self.horizon;
        let record = record.filter(|record| record.payload.is_some() || is_kept(record.version));
        self.records.entry(key).or_insert(record);
    }

    /// Whether a record that is not there was there when its author saw it at `base`, and was deleted since.
    pub(super) fn was_there(&self, base: Seq) -> bool {
        base > Seq(0) && base <= self.horizon
    }

    /// Takes a list of an index as the store holds it; what accepted groups changed of it is added.
    pub fn learn_index(&mut self, key: IndexKey, ids: impl IntoIterator<Item = RecordId>) {
        self.lists.open(key).learn(ids.into_iter().collect());
    }

    /// A record: `None` when it was not asked for, `Some(None)` when there is none.
    pub fn record(&self, key: &RecordKey) -> Option<Option<&Record>> {
        self.records.get(key).map(Option::as_ref)
    }

    /// A record that was asked for, where there is one.
    pub fn found(&self, key: &RecordKey) -> Option<&Record> {
        self.records.get(key)?.as_ref()
    }

    /// A record that was asked for, with the key that the facts hold.
    pub(super) fn entry(&self, key: &RecordKey) -> Option<(&RecordKey, Option<&Record>)> {
        self.records.get_key_value(key).map(|(key, record)| (key, record.as_ref()))
    }

    /// A list of an index; `None` when it was not asked for.
    pub fn list(&self, key: &IndexKey) -> Option<&BTreeSet<RecordId>> {
        self.lists.find(key)?.ids.as_ref()
    }

    /// What of this is not known yet.
    #[must_use]
    pub fn missing(&self, mut needs: Needs) -> Needs {
        needs.records.retain(|key| !self.records.contains_key(key));
        needs.index.retain(|key| self.list(key).is_none());
        needs
    }

    /// Takes what an accepted group left.
    pub fn apply(&mut self, outcomes: Vec<Outcome>, schema: Option<&Schema>) {
        for Outcome { key, record, .. } in outcomes {
            let Some(schema) = schema else {
                self.records.insert(key, Some(record));
                continue;
            };
            let known = self.records.entry(key);
            let before = match &known {
                Entry::Occupied(known) => known.get().as_ref().and_then(|record| record.payload.as_ref()),
                Entry::Vacant(_) => None,
            };
            for (list, is_added) in super::index::moves(schema, known.key(), before, record.payload.as_ref()) {
                self.lists.open(list).shift(&known.key().id, is_added);
            }
            match known {
                Entry::Occupied(mut known) => *known.get_mut() = Some(record),
                Entry::Vacant(known) => drop(known.insert(Some(record))),
            }
        }
    }

    /// Everything to be written: records that changed after `head`, in key order, and what moved in indexes.
    pub fn into_changed(self, head: Seq) -> (Vec<(RecordKey, Record)>, IndexMoves) {
        let changed = |(key, record): (RecordKey, Option<Record>)| Some((key, record?));
        let records = self.records.into_iter().filter_map(changed).filter(|(_, record)| record.version > head);
        (records.collect(), self.lists.into_moves())
    }
}
