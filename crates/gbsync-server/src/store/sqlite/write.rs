//! The writer's side: what a transaction loads and what it leaves. At most one look-up and one upsert a record.

use super::adopt::schema_mark;
use super::flags::{clear_flags, known_flags, write_flags};
use super::index::{learn_index, write_index};
use super::lineage::{self, load_healed, write_healed};
use super::parts;
use super::read;
use super::rejections::{last_number, load_closures, load_rejected, write_closures};
use super::row::{decided, id, place, record, space as space_row, stored};
use super::sequences::write_sequences;
use crate::store::{
    CutChanges, EpochKey, Held, KeptAncestor, Staged, Staging, StoreError, StoredGroup, ToldEpoch, UploadedPart, Wanted,
    Writer, Written,
};
use gbsync_core::change::Payload;
use gbsync_core::decide::{Facts, Needs};
use gbsync_core::id::{DeviceId, DeviceSeq, GroupId, LogId, RecordKey, SpaceId};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::scope::Trace;
use gbsync_core::time::Timestamp;
use gbsync_core::wire::{flags_json, part_json};
use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Transactions between two looks at the WAL's size.
const WAL_LOOK: u64 = 256;
/// Bytes of WAL above which the writer waits for readers and begins it anew.
const WAL_BYTES: u64 = 128 * 1024 * 1024;
/// How long it waits for them.
const WAL_PATIENCE: Duration = Duration::from_millis(250);

/// The one connection that writes.
pub(super) struct SqliteWriter {
    connection: Connection,
    wal: PathBuf,
    commits: u64,
}

impl SqliteWriter {
    pub(super) fn new(connection: Connection, path: &Path) -> Self {
        Self { connection, wal: path.with_extension("db-wal"), commits: 0 }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Automatic checkpoints never wait for readers, so that under reads that always overlap the WAL would only grow.
    fn bound_wal(&mut self) {
        self.commits += 1;
        if !self.commits.is_multiple_of(WAL_LOOK) {
            return;
        }
        if std::fs::metadata(&self.wal).is_ok_and(|wal| wal.len() > WAL_BYTES)
            && let Err(error) = self.begin_wal_anew()
        {
            tracing::warn!(%error, "the write-ahead log cannot be begun anew now");
        }
    }
}

impl SqliteWriter {
    /// Waits for readers only for a moment: a backup reads for long, and sales must not wait for it.
    fn begin_wal_anew(&self) -> Result<(), rusqlite::Error> {
        let patience_ms: u32 = self.connection.pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
        self.connection.busy_timeout(WAL_PATIENCE)?;
        let begun = self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
        self.connection.busy_timeout(Duration::from_millis(patience_ms.into()))?;
        begun.inspect_err(|error| gbsync_wal::note(&self.connection, error))
    }
}

impl Writer for SqliteWriter {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    fn load(&mut self, space: &SpaceId, wanted: &Wanted<'_>) -> Result<Option<Held>, StoreError> {
        let connection = &self.connection;
        let Some((space_no, state)) = space_row(connection, space)? else { return Ok(None) };
        #[cfg(feature = "mutants")]
        crate::planted::learn_makers(connection)?;
        let mut groups = BTreeMap::new();
        for group in &wanted.groups {
            if let Some(decided) = decided(connection, space_no, group)? {
                groups.insert((*group).clone(), decided);
            }
        }
        let (roots, winners) = load_families(connection, space_no, &wanted.groups)?;
        let closures = load_closures(connection, space_no, &roots)?;
        let rejected = load_rejected(connection, space_no, &wanted.rejected)?;
        let mut numbers = load_numbers(connection, space_no, &wanted.numbers)?;
        if wanted.makes_groups {
            let key = EpochKey::of_server(&state.log);
            let last = last_number(connection, space_no, key.device.as_str(), key.epoch.as_str())?;
            numbers.insert(key, last.into_iter().collect());
        }
        let flags = known_flags(connection, space_no, &wanted.flags)?;
        let schema = schema_mark(connection)?;
        let healed = load_healed(connection, space_no, &state, &wanted.lost)?;
        let chains = read::chains(connection, space_no, &state, &wanted.chains)?;
        let mut facts = Facts::behind(state.horizon);
        let supposed = wanted.suppose(&mut facts);
        learn_records(connection, space_no, wanted.looked_up(), &mut facts)?;
        learn_index(connection, space_no, &wanted.needs.index, &mut facts)?;
        Ok(Some(Held {
            healed,
            chains,
            state,
            schema,
            groups,
            roots,
            winners,
            closures,
            rejected,
            numbers,
            flags,
            facts,
            supposed,
        }))
    }

    fn learn(&mut self, space: &SpaceId, needs: &Needs, facts: &mut Facts) -> Result<(), StoreError> {
        let Some((space_no, _)) = space_row(&self.connection, space)? else {
            return Err(StoreError::Damaged("a space vanished inside a transaction".into()));
        };
        learn_records(&self.connection, space_no, needs.records.iter(), facts)?;
        learn_index(&self.connection, space_no, &needs.index, facts)
    }

    fn write(&mut self, space: &SpaceId, written: &Written) -> Result<(), StoreError> {
        let connection = &self.connection;
        let Some((space_no, _)) = space_row(connection, space)? else {
            return Err(StoreError::Damaged("a space vanished inside a transaction".into()));
        };
        write_records(connection, space_no, written)?;
        write_index(connection, space_no, &written.index)?;
        let epochs = write_numbers(connection, space_no, written)?;
        for group in written.groups.iter().filter(|_| !is(Mutant::DedupInOwnTransaction)) {
            write_group(connection, space_no, group, &epochs, &written.decided_at)?;
        }
        write_families(connection, space_no, written)?;
        write_closures(connection, space_no, written)?;
        write_flags(connection, space_no, &written.groups)?;
        clear_flags(connection, space_no, &written.cleared)?;
        write_sequences(connection, space_no, &written.sequences)?;
        write_healed(connection, space_no, &written.healed)?;
        let mut statement = connection.prepare_cached(
            "INSERT INTO log (place, change_count, chain, entry, parts, scopes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for entry in &written.entries {
            let (place, change_count) = (place(space_no, entry.seq)?, stored(entry.change_count));
            let parts = entry.parts.as_ref().map_or(0, |parts| parts.cuts.len() as u64);
            let trace = entry.trace.as_ref().map(Trace::to_json);
            statement.execute(params![place, change_count, entry.chain.as_bytes(), entry.entry, stored(parts), trace])?;
            if let Some(CutChanges { changes, cuts }) = &entry.parts {
                parts::write_log_parts(connection, place, cuts.iter().map(|cut| part_json(changes, cut)))?;
            }
        }
        if !written.entries.is_empty() {
            connection.prepare_cached("UPDATE spaces SET head = ?2, chain = ?3 WHERE space = ?1")?.execute(params![
                space.as_str(),
                stored(written.head.0),
                written.chain.as_bytes()
            ])?;
        }
        #[cfg(feature = "mutants")]
        crate::planted::end_of_write(connection, space_no, written, || {
            written
                .groups
                .iter()
                .try_for_each(|group| write_group(connection, space_no, group, &epochs, &written.decided_at))
        })?;
        Ok(())
    }

    fn fork(&mut self, space: &SpaceId, log: &LogId, ancestors: &[KeptAncestor]) -> Result<(), StoreError> {
        lineage::fork(&self.connection, space, log, ancestors)
    }

    fn tell(&mut self, told: &ToldEpoch, at: &Timestamp) -> Result<(), StoreError> {
        let Some((space_no, _)) = space_row(&self.connection, &told.space)? else { return Ok(()) };
        let epoch_no = upsert_epoch(&self.connection, space_no, &told.key, DeviceSeq(0), at)?;
        if let Some((epoch, device_seq)) = &told.previous {
            self.connection
                .prepare_cached(
                    "UPDATE devices SET previous_epoch = ?3, previous_seq = ?4
                     WHERE space_no = ?1 AND epoch_no = ?2 AND previous_epoch IS NULL",
                )?
                .execute(params![space_no, epoch_no, epoch.as_str(), stored(device_seq.0)])?;
        }
        Ok(())
    }

    fn stage(&mut self, part: &UploadedPart, group_bytes: u64, now_ms: u64) -> Result<Staging, StoreError> {
        parts::stage(&self.connection, part, group_bytes, now_ms)
    }

    fn staged(
        &mut self,
        space: &SpaceId,
        device: &DeviceId,
        group: &GroupId,
        parts: u64,
        take: &mut dyn FnMut(&str) -> Result<bool, StoreError>,
    ) -> Result<Staged, StoreError> {
        parts::staged(&self.connection, space, device, group, parts, take)
    }

    fn unstage(&mut self, space: &SpaceId, device: &DeviceId, group: &GroupId) -> Result<(), StoreError> {
        parts::unstage(&self.connection, space, device, group)
    }

    fn expire_uploads(&mut self, before_ms: u64) -> Result<(), StoreError> {
        parts::expire(&self.connection, before_ms)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let committed = self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        committed.inspect_err(|error| gbsync_wal::note(&self.connection, error))?;
        self.bound_wal();
        Ok(())
    }

    fn rollback(&mut self) {
        // The connection is closed after this; a transaction that is still open ends with it.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a transaction could not be rolled back; its connection is closed");
        }
    }
}

fn learn_records<'k>(
    connection: &Connection,
    space_no: i64,
    keys: impl Iterator<Item = &'k RecordKey>,
    facts: &mut Facts,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT version, edit_version, payload, marks, scopes FROM records WHERE space_no = ?1 AND entity = ?2 AND id = ?3",
    )?;
    for key in keys {
        let mut rows = statement.query(params![space_no, key.entity.as_str(), key.id.as_str()])?;
        let record = rows.next()?.map(record).transpose()?;
        facts.learn_record(key.clone(), record);
    }
    Ok(())
}

type GroupMap = BTreeMap<GroupId, GroupId>;

/// Which families the groups belong to, and who won there.
fn load_families(
    connection: &Connection,
    space_no: i64,
    groups: &BTreeSet<&GroupId>,
) -> Result<(GroupMap, GroupMap), StoreError> {
    let mut root_of = connection.prepare_cached("SELECT root FROM families WHERE space_no = ?1 AND group_id = ?2")?;
    let mut winner_of =
        connection.prepare_cached("SELECT group_id FROM family_winners WHERE space_no = ?1 AND root = ?2")?;
    let (mut roots, mut winners) = (BTreeMap::new(), BTreeMap::new());
    // Most spaces never see a replacement: one look-up instead of one a group.
    let has_families: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM families WHERE space_no = ?1)")?
        .query_row([space_no], |row| row.get(0))?;
    for group in groups.iter().filter(|_| has_families) {
        let mut rows = root_of.query(params![space_no, group.as_str()])?;
        let Some(row) = rows.next()? else { continue };
        let root = id(row, 0, GroupId::new)?;
        let mut rows = winner_of.query(params![space_no, root.as_str()])?;
        if let Some(row) = rows.next()? {
            winners.insert(root.clone(), id(row, 0, GroupId::new)?);
        }
        roots.insert((*group).clone(), root);
    }
    Ok((roots, winners))
}

fn load_numbers(
    connection: &Connection,
    space_no: i64,
    wanted: &BTreeMap<EpochKey, BTreeSet<DeviceSeq>>,
) -> Result<BTreeMap<EpochKey, BTreeMap<DeviceSeq, GroupId>>, StoreError> {
    let mut epoch = connection
        .prepare_cached("SELECT epoch_no, highest_seq FROM devices WHERE space_no = ?1 AND device = ?2 AND epoch = ?3")?;
    let mut number = connection
        .prepare_cached("SELECT group_id FROM numbers WHERE space_no = ?1 AND epoch_no = ?2 AND device_seq = ?3")?;
    let mut held = BTreeMap::new();
    for (key, numbers) in wanted {
        let mut known = BTreeMap::new();
        let found: Option<(i64, i64)> = epoch
            .query_row(params![space_no, key.device.as_str(), key.epoch.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        // Numbers above the highest are new: no look-up for the common case.
        for device_seq in numbers.iter().filter(|number| found.is_some_and(|(_, highest)| stored(number.0) <= highest)) {
            let epoch_no = found.map(|(epoch_no, _)| epoch_no);
            let mut rows = number.query(params![space_no, epoch_no, stored(device_seq.0)])?;
            if let Some(row) = rows.next()? {
                known.insert(*device_seq, id(row, 0, GroupId::new)?);
            }
        }
        held.insert(key.clone(), known);
    }
    Ok(held)
}

/// Writes records. One that was supposed to be absent is inserted, which its key refuses where it is there.
fn write_records(connection: &Connection, space_no: i64, written: &Written) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO records (space_no, entity, id, version, edit_version, payload, marks, scopes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut upsert = connection.prepare_cached(
        "INSERT INTO records (space_no, entity, id, version, edit_version, payload, marks, scopes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (space_no, entity, id) DO UPDATE
         SET version = excluded.version, edit_version = excluded.edit_version, payload = excluded.payload,
             marks = excluded.marks, scopes = excluded.scopes",
    )?;
    let is_new = |key| written.supposed.binary_search(key).is_ok();
    for (key, record) in &written.records {
        let payload = record.payload.as_ref().map(Payload::as_str);
        let (version, edit_version) = (stored(record.version.0), stored(record.edit_version.0));
        let marks = record.marks.as_ref().map(|marks| marks.to_json());
        let (entity, id) = (key.entity.as_str(), key.id.as_str());
        let scopes = record.reach.to_json();
        let values = params![space_no, entity, id, version, edit_version, payload, marks, scopes];
        match is_new(key) {
            true => insert.execute(values).map_err(taken)?,
            false => upsert.execute(values)?,
        };
    }
    Ok(())
}

/// What a key that is there already means.
fn taken(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error().map(|error| error.extended_code) {
        Some(SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE) => StoreError::Taken(error.to_string()),
        _ => StoreError::Sqlite(error),
    }
}

/// Writes the numbers of decided groups and returns the numbers of their epochs.
fn write_numbers<'w>(
    connection: &Connection,
    space_no: i64,
    written: &'w Written,
) -> Result<BTreeMap<&'w EpochKey, i64>, StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO numbers (space_no, epoch_no, device_seq, group_id) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (space_no, epoch_no, device_seq) DO NOTHING",
    )?;
    let mut epochs = BTreeMap::new();
    for (key, numbers) in &written.numbers {
        let Some(highest) = numbers.last_key_value().map(|(device_seq, _)| *device_seq) else { continue };
        let epoch_no = upsert_epoch(connection, space_no, key, highest, &written.decided_at)?;
        for (device_seq, group) in numbers {
            statement.execute(params![space_no, epoch_no, stored(device_seq.0), group.as_str()])?;
        }
        epochs.insert(key, epoch_no);
    }
    Ok(epochs)
}

/// Notes a life of a device; `highest` 0 is one that has not pushed.
fn upsert_epoch(
    connection: &Connection,
    space_no: i64,
    key: &EpochKey,
    highest: DeviceSeq,
    at: &Timestamp,
) -> Result<i64, StoreError> {
    let pushed_at = (highest > DeviceSeq(0)).then(|| at.as_str());
    let mut statement = connection.prepare_cached(
        "INSERT INTO devices (space_no, device, epoch, epoch_no, highest_seq, first_seen, pushed_at)
         VALUES (?1, ?2, ?3, (SELECT coalesce(max(epoch_no), 0) + 1 FROM devices WHERE space_no = ?1), ?4, ?5, ?6)
         ON CONFLICT (space_no, device, epoch) DO UPDATE
         SET highest_seq = max(highest_seq, excluded.highest_seq), pushed_at = coalesce(excluded.pushed_at, pushed_at)
         RETURNING epoch_no",
    )?;
    let values = params![space_no, key.device.as_str(), key.epoch.as_str(), stored(highest.0), at.as_str(), pushed_at];
    Ok(statement.query_row(values, |row| row.get(0))?)
}

fn write_group(
    connection: &Connection,
    space_no: i64,
    group: &StoredGroup,
    epochs: &BTreeMap<&EpochKey, i64>,
    decided_at: &Timestamp,
) -> Result<(), StoreError> {
    let epoch_no = group.source.as_ref().and_then(|(key, _)| epochs.get(key));
    let device_seq = group.source.as_ref().map(|(_, device_seq)| stored(device_seq.0));
    let digest = group.digest.as_ref().map(|digest| digest.as_bytes().as_slice());
    let seq = group.seq.map(|seq| stored(seq.0));
    let flags = (!group.flags.is_empty()).then(|| flags_json(&group.flags));
    #[cfg(feature = "mutants")]
    crate::planted::forget_decision(connection, space_no, &group.id)?;
    connection
        .prepare_cached(
            "INSERT INTO groups (space_no, group_id, digest, seq, epoch_no, device_seq, decided_at, flags)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![space_no, group.id.as_str(), digest, seq, epoch_no, device_seq, decided_at.as_str(), flags])?;
    let Some(rejected) = &group.rejected else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT INTO rejections (space_no, group_id, result, group_type, actor, created_at, replaces, changes, scopes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            space_no,
            group.id.as_str(),
            rejected.result,
            rejected.group_type.as_ref().map(|group_type| group_type.as_str()),
            rejected.actor.as_ref().map(|actor| actor.as_str()),
            rejected.created_at.as_ref().map(Timestamp::as_str),
            rejected.replaces.as_ref().map(GroupId::as_str),
            rejected.changes.as_deref(),
            rejected.scopes.to_json(),
        ])?;
    Ok(())
}

fn write_families(connection: &Connection, space_no: i64, written: &Written) -> Result<(), StoreError> {
    for (group, root) in &written.roots {
        connection
            .prepare_cached("INSERT INTO families (space_no, group_id, root) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute(params![space_no, group.as_str(), root.as_str()])?;
    }
    for (from, into) in &written.merges {
        connection.prepare_cached("UPDATE families SET root = ?3 WHERE space_no = ?1 AND root = ?2")?.execute(params![
            space_no,
            from.as_str(),
            into.as_str()
        ])?;
        connection
            .prepare_cached("DELETE FROM family_winners WHERE space_no = ?1 AND root = ?2")?
            .execute(params![space_no, from.as_str()])?;
    }
    for (root, group) in &written.winners {
        connection
            .prepare_cached(
                "INSERT INTO family_winners (space_no, root, group_id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![space_no, root.as_str(), group.as_str()])?;
    }
    Ok(())
}
