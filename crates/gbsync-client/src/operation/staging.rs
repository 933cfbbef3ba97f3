//! Changes on their way into a group. In memory only: until the seal, nothing of an operation exists.
//!
//! Invariant: the base of a record is what the operation saw when it first read or wrote it, never refreshed, so that an
//! edit made on old data is recognized.

use crate::error::Error;
use crate::schemas::Schemas;
use crate::store::{Stamp, outbox};
use crate::view::{self, View};
use gbsync_core::change::{Change, Edit, InvalidPayload, Payload};
use gbsync_core::depend::Touch;
use gbsync_core::id::{Actor, GroupId, GroupType, LogId, RecordKey};
use gbsync_core::limits::Limits;
use gbsync_core::squash::{Squashed, squash};
use rusqlite::Connection;
use std::collections::BTreeMap;

/// The changes of one operation so far.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) group_type: Option<GroupType>,
    pub(crate) root: Option<String>,
    pub(crate) actor: Option<Actor>,
    pub(crate) given_id: Option<GroupId>,
    pub(crate) depends_on: Vec<GroupId>,
    pub(crate) clears: Vec<Box<str>>,
    rules: Schemas,
    /// The parked group in whose place this one is sealed.
    pub(crate) instead: Option<Instead>,
    /// When it was made, where that is not now: in milliseconds after 1970.
    pub(crate) made_at: Option<u64>,
    limits: Limits,
    records: BTreeMap<RecordKey, StagedRecord>,
    /// Records with changes, in the order first changed.
    order: Vec<RecordKey>,
    /// The content of the file when the first record was touched.
    stamp: Option<Stamp>,
    /// The log that the base versions belong to, once there is one.
    pub(crate) log: Option<LogId>,
}

/// A parked group that a new one is sealed in the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instead {
    pub(crate) of: GroupId,
    pub(crate) made_by: MadeBy,
}

/// Who seals in the place of a parked group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeBy {
    /// Somebody decided it.
    Person,
    /// The app's resolver; its answers are counted.
    Resolver,
    /// Nobody: what the group waited for is settled.
    Requeue,
}

/// One record that the operation read or wrote.
#[derive(Debug)]
pub(crate) struct StagedRecord {
    /// What the operation saw at first touch.
    pub(crate) seen: View,
    /// What the record is inside the operation.
    pub(crate) now: Option<Payload>,
    pub(crate) edits: Vec<Edit>,
}

impl StagedRecord {
    /// What the group does to the record, given whether it is there when the group is sealed.
    pub(crate) fn touch(&self, is_there: bool) -> Touch {
        match self.edits.last() {
            Some(Edit::Delete) => Touch::Delete,
            _ if self.edits.iter().all(Edit::is_increment) => Touch::Increment,
            _ if is_there => Touch::Edit,
            _ => Touch::Create,
        }
    }
}

impl Staging {
    pub(crate) fn new(
        group_type: Option<GroupType>,
        root: Option<String>,
        actor: Option<Actor>,
        (limits, rules): (Limits, Schemas),
    ) -> Self {
        Self {
            group_type,
            root,
            actor,
            given_id: None,
            depends_on: Vec::new(),
            clears: Vec::new(),
            rules,
            instead: None,
            made_at: None,
            limits,
            records: BTreeMap::new(),
            order: Vec::new(),
            stamp: None,
            log: None,
        }
    }

    /// Notes which content of the file the first record is read from, so that the seal knows whether it still is that one.
    pub(crate) fn begin_at(&mut self, stamp: Stamp) {
        self.stamp.get_or_insert(stamp);
    }

    /// Whether nothing was written to the file since the first record was touched.
    pub(crate) fn is_current(&self, stamp: Stamp) -> bool {
        self.stamp == Some(stamp)
    }

    /// The record as this operation sees it.
    pub(crate) fn read(&mut self, connection: &Connection, key: &RecordKey) -> Result<Option<Payload>, Error> {
        let payload = self.touch(connection, key)?.now.clone();
        Ok(payload.map(|payload| Payload::from_stored(self.rules.in_apps_names(&key.entity, payload.as_str()))))
    }

    fn touch(&mut self, connection: &Connection, key: &RecordKey) -> Result<&mut StagedRecord, Error> {
        if !self.records.contains_key(key) {
            let seen = view::under(&self.rules, connection, key)?;
            // Versions of two logs in one group: the older one is named, so that the server sees that a base is lost.
            if self.log.is_none() && seen.base.version.0 > 0 {
                self.log = outbox::current_log(connection)?;
            }
            let now = seen.payload.clone();
            self.records.insert(key.clone(), StagedRecord { seen, now, edits: Vec::new() });
        }
        Ok(self.records.get_mut(key).expect("inserted above"))
    }

    /// Reads the app's JSON as a payload and stages an edit with it.
    pub(crate) fn write(
        &mut self,
        connection: &Connection,
        key: RecordKey,
        make: fn(Payload) -> Edit,
        text: &str,
    ) -> Result<(), Error> {
        let payload =
            Payload::parse(text, &self.limits).map_err(|source| Error::InvalidPayload { key: key.clone(), source })?;
        self.stage(connection, key, make(payload))
    }

    /// Stages an edit: lays it on what the operation sees and squashes it with the operation's edits of the record.
    pub(crate) fn stage(&mut self, connection: &Connection, key: RecordKey, edit: Edit) -> Result<(), Error> {
        let (limit, rules) = (self.limits.payload_bytes, self.rules.clone());
        let record = self.touch(connection, &key)?;
        // The constructor of a change refuses an increment of something else than numbers.
        let checked = Change::new(key.clone(), edit, record.seen.base.clone());
        let edit = checked.map_err(|source| Error::InvalidPayload { key: key.clone(), source })?.edit;
        let action = edit.action();
        let now = match rules.lay(&key, &edit, rules.app_version(), record.now.as_ref()) {
            Ok(now) => now,
            Err(source) => return Err(Error::CannotLay { key, action, source }),
        };
        let bytes = now.as_ref().map_or(0, |payload| payload.as_str().len() as u64);
        if bytes > limit {
            return Err(Error::InvalidPayload { key, source: InvalidPayload::TooLarge { bytes, limit } });
        }
        let had_edits = !record.edits.is_empty();
        record.now = now;
        let existed = record.seen.payload.is_some();
        if edit == Edit::Delete && existed {
            // Whatever came before it, a delete made anew among it: the record is gone.
            record.edits.clear();
        }
        match record.edits.pop() {
            None => record.edits.push(edit),
            Some(last) => match squash(&last, &edit, existed, rules.writing(&key.entity)) {
                Squashed::One(one) => record.edits.push(one),
                Squashed::Both => record.edits.extend([last, edit]),
                Squashed::Nothing => {}
            },
        }
        let has_edits = !record.edits.is_empty();
        match (had_edits, has_edits) {
            (false, true) => self.order.push(key),
            (true, false) => self.order.retain(|other| *other != key),
            _ => {}
        }
        Ok(())
    }

    /// Records with changes, in the order first changed.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&RecordKey, &StagedRecord)> {
        self.order.iter().map(|key| (key, &self.records[key]))
    }

    /// The changes as they will be sealed, with the edits that numbers were taken for.
    pub(crate) fn changes(&self, numbered: &BTreeMap<RecordKey, Vec<Edit>>) -> Result<Vec<Change>, Error> {
        let edits = self.changed().flat_map(|(key, record)| {
            let edits = numbered.get(key).unwrap_or(&record.edits);
            edits.iter().map(move |edit| (key, record, edit))
        });
        edits
            .map(|(key, record, edit)| {
                Change::new(key.clone(), edit.clone(), record.seen.base.clone())
                    .map_err(|source| Error::InvalidPayload { key: key.clone(), source })
            })
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }
}
