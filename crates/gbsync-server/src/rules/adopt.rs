//! Putting a schema in force: every record is brought to it first, through the log, so that devices follow by pulling.
//!
//! Runs where no push is decided: before the server listens, or on the writer's thread between two transactions. Each step is
//! a transaction of its own that notes how far it came; after a crash the next start goes on there before anything else.
//!
//! Invariant: while a schema is stored that is not in force, nothing is decided.
//!
//! Rejected alternative: translating records when they are read. Devices that pulled before would hold other bytes than those
//! that pull after, for ever.

use super::InForce;
use super::upgrade::Upgrade;
use crate::config::Environment;
use crate::error::ServerError;
use crate::store::{StoreError, StoredEntry, StoredGroup, StoredSchema, UpgradeStep, Writer, Written};
use gbsync_core::decide::{Outcome, Record};
use gbsync_core::id::{DeviceId, DeviceSeq, EpochId, GroupId, GroupType, RecordKey, Seq, SpaceId};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::scope::{Reach, Trace};
use gbsync_core::wire::{EntryHeader, changes_json, entry_json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of records in a step, and so about those of its entry in the log, at most.
const STEP_BYTES: u64 = 256 * 1024;
/// What a change takes in an entry beside the record's payload and unusually long names.
const CHANGE_BYTES: u64 = 256;
/// The device and the kind of operation of the entries that bring records to a schema.
const DEVICE: &str = "server";
const GROUP_TYPE: &str = "schema-upgrade";

/// Puts schemas in force.
pub(crate) struct Adoption<'a> {
    pub(crate) writer: &'a mut dyn Writer,
    pub(crate) environment: &'a Environment,
    pub(crate) limits: &'a Limits,
    /// Hears of each head that moved, after the COMMIT.
    pub(crate) told: &'a mut dyn FnMut(&SpaceId, Seq),
}

impl Adoption<'_> {
    /// The schema in force afterwards: what a crash left half done is finished, then `given`, if it is newer, is put in
    /// force.
    ///
    /// # Errors
    /// [`ServerError::SchemaOlder`] and [`ServerError::SchemaChanged`] before anything was written;
    /// [`ServerError::Store`] when the store fails: to be tried again before anything is decided.
    pub(crate) fn run(&mut self, given: Option<&Schema>) -> Result<Option<Arc<InForce>>, ServerError> {
        self.writer.reserve()?;
        let in_force = self.run_alone(given);
        // After a failure the writer's end releases it.
        if !matches!(in_force, Err(ServerError::Store(_))) {
            self.writer.release()?;
        }
        in_force
    }

    fn run_alone(&mut self, given: Option<&Schema>) -> Result<Option<Arc<InForce>>, ServerError> {
        let stored = self.writer.schemas()?;
        let latest = stored.last().map(read).transpose()?;
        if let (Some(given), Some(latest)) = (given, &latest) {
            check(given, &latest.schema)?;
        }
        let is_pending = stored.last().is_some_and(|schema| !schema.is_in_force);
        let mut current = match (is_pending, latest) {
            (false, latest) => latest,
            (true, Some(pending)) => {
                let before = stored.iter().rfind(|schema| schema.is_in_force).map(read).transpose()?;
                self.bring(before.as_ref(), &pending.schema)?;
                Some(pending)
            }
            (true, None) => None,
        };
        let version = current.as_ref().map_or(0, |current| current.schema.version);
        if let Some(given) = given.filter(|given| given.version > version) {
            let next = self.propose(given)?;
            self.bring(current.as_ref(), &next.schema)?;
            current = Some(next);
        }
        Ok(current.map(Arc::new))
    }

    fn propose(&mut self, schema: &Schema) -> Result<InForce, ServerError> {
        let (text, since) = (schema.to_json(), self.environment.now());
        let stored = StoredSchema { version: schema.version, text: text.clone(), since: since.clone(), is_in_force: false };
        self.writer.begin()?;
        self.writer.propose(&stored)?;
        self.writer.commit()?;
        Ok(InForce { schema: schema.clone(), text, since })
    }

    /// Brings every space to a schema that is stored, from wherever a crash left it.
    fn bring(&mut self, from: Option<&InForce>, to: &Schema) -> Result<(), StoreError> {
        let upgrade = Upgrade::new(from.map(|from| &from.schema), to);
        let (entities, mut records, mut changed) = (upgrade.entities(), 0, 0);
        // An entry must fit the answers that devices read.
        let step_bytes = (STEP_BYTES.min(self.limits.request_bytes / 4), CHANGE_BYTES + upgrade.growth());
        loop {
            self.writer.begin()?;
            let Some(step) = self.writer.next_step(to.version, &entities, step_bytes)? else { break };
            records += step.records.len();
            let written = self.step(&upgrade, to, &step)?;
            self.writer.commit()?;
            if let Some(written) = written {
                changed += written.records.len();
                (self.told)(&step.space, written.head);
            }
            tracing::info!(space = %step.space, version = to.version, records, changed, "bringing records to the schema");
        }
        self.writer.put_in_force(to.version)?;
        self.writer.commit()?;
        tracing::info!(version = to.version, records, changed, "the schema is in force");
        Ok(())
    }

    fn step(&mut self, upgrade: &Upgrade<'_>, to: &Schema, step: &UpgradeStep) -> Result<Option<Written>, StoreError> {
        let space = &step.space;
        let Some((last, _)) = step.records.last() else {
            let doubles = self.writer.rebuild_index(space, to, &upgrade.reindexed())?;
            if doubles > 0 {
                tracing::warn!(%space, doubles, "values that must be unique are in several records; gbsync orphans lists them");
            }
            self.writer.advance(space, to.version, None)?;
            return Ok(None);
        };
        let written = self.entry(upgrade, to, step);
        if let Some(written) = &written {
            self.writer.write(space, written)?;
        }
        self.writer.advance(space, to.version, Some(last))?;
        Ok(written)
    }

    /// The log entry that changes the records of a step; `None` when all stay as they are. The edit versions stay: an edit
    /// that a device made on the record before does not conflict with this.
    fn entry(&self, upgrade: &Upgrade<'_>, to: &Schema, step: &UpgradeStep) -> Option<Written> {
        let (state, now) = (&step.state, self.environment.now());
        let seq = state.head.next();
        let changed = step.records.iter().filter_map(|(key, record)| {
            let record = Record { version: seq, ..upgrade.record(&key.entity, record)? };
            Some(Outcome { key: key.clone(), record, cause: None })
        });
        let outcomes: Vec<Outcome> = changed.collect();
        let trace = trace(&step.records, &outcomes);
        if outcomes.is_empty() {
            return None;
        }
        let uuid = uuid::Builder::from_unix_timestamp_millis(self.environment.now_ms(), &self.environment.random::<10>());
        let id = GroupId::new(format!("{GROUP_TYPE}:{}:{}", to.version, uuid.into_uuid())).expect("it is short");
        let device = DeviceId::new(DEVICE).expect("the name of a device");
        let epoch = EpochId::new(state.log.as_str()).expect("what names a log may name an epoch");
        let group_type = GroupType::new(GROUP_TYPE).expect("the name of a kind");
        let header = EntryHeader {
            seq,
            id: &id,
            group_type: Some(&group_type),
            device: &device,
            epoch: &epoch,
            // Numbers of this device have gaps: it pushes nothing, so nobody counts them.
            device_seq: DeviceSeq(seq.0),
            actor: None,
            created_at: &now,
            committed_at: &now,
            replaces: None,
            hlc: None,
            flags: &[],
            clears: &[],
        };
        let (changes, change_count) = (changes_json(&outcomes), outcomes.len() as u64);
        let chain = state.chain.chained(seq, &id, &changes);
        let entry =
            StoredEntry { seq, change_count, chain, entry: entry_json(&header, change_count, &changes), parts: None, trace };
        let group = StoredGroup { id, digest: None, source: None, seq: Some(seq), flags: Vec::new(), rejected: None };
        Some(Written {
            decided_at: now,
            head: seq,
            chain,
            records: outcomes.into_iter().map(|outcome| (outcome.key, outcome.record)).collect(),
            supposed: Vec::new(),
            index: BTreeMap::new(),
            entries: vec![entry],
            groups: vec![group],
            numbers: BTreeMap::new(),
            merges: Vec::new(),
            roots: BTreeMap::new(),
            winners: BTreeMap::new(),
            healed: Vec::new(),
            closures: BTreeMap::new(),
            cleared: BTreeMap::new(),
            sequences: BTreeMap::new(),
        })
    }
}

/// Where the records of a step are seen, before it and after; `None` where everybody sees and saw all of them.
fn trace(before: &[(RecordKey, Record)], outcomes: &[Outcome]) -> Option<Trace> {
    let before: BTreeMap<&RecordKey, &Reach> = before.iter().map(|(key, record)| (key, &record.reach)).collect();
    let mut trace = Trace::default();
    for Outcome { key, record, .. } in outcomes {
        // Whom a record that everybody saw is out of sight from now on begins again, and need not be told which ones there were.
        let seen = before.get(key).filter(|reach| ***reach != Reach::Everywhere || record.reach == Reach::Everywhere);
        trace.add(seen.map_or_else(Reach::nowhere, |reach| (*reach).clone()), record.reach.clone());
    }
    let is_divided = outcomes.iter().any(|outcome| outcome.record.reach != Reach::Everywhere)
        || before.values().any(|reach| **reach != Reach::Everywhere);
    is_divided.then_some(trace)
}

/// A schema that was stored.
pub(super) fn read(stored: &StoredSchema) -> Result<InForce, StoreError> {
    let damaged = |problem: String| StoreError::Damaged(format!("its schema {}: {problem}", stored.version));
    let schema = Schema::parse(&stored.text).map_err(|problems| damaged(problems.to_string()))?;
    if schema.version != stored.version {
        return Err(damaged(format!("it says that it is {}", schema.version)));
    }
    Ok(InForce { schema, text: stored.text.clone(), since: stored.since.clone() })
}

/// Refuses a schema that is not the next one, nor the same again.
fn check(given: &Schema, latest: &Schema) -> Result<(), ServerError> {
    let (given_version, kept) = (given.version, latest.version);
    if given_version < kept {
        return Err(ServerError::SchemaOlder { given: given_version, kept });
    }
    if given_version == kept && given != latest {
        return Err(ServerError::SchemaChanged { version: kept });
    }
    Ok(())
}
