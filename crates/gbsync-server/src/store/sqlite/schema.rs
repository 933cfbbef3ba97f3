//! The tables, and how a file comes to have them.
//!
//! Every table's primary key begins with the space (ARCHITECTURE.md, "Stored on the server"), as a number, because it stands in every row.
//! The log is an ordinary table and not `WITHOUT ROWID`: entries of some kilobytes stay on their leaf there, while an index
//! tree would move most of each to an overflow page.
//!
//! Invariant: a file of a newer format, or of another program, is refused before anything is written to it.

use crate::store::StoreError;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::path::Path;

/// The steps from one format to the next; the format of a file is how many of them it went through.
const STEPS: &[&str] = &[FIRST, RULES, SCHEMAS, PARTS, CLOSURES, DISCARDED, RIGHTS, SCOPES, HORIZON, super::lineage::STEP];

/// The newest format known here.
pub(super) const FORMAT: i64 = STEPS.len() as i64;

const FIRST: &str = "
CREATE TABLE gbsync_meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;

-- head and chain are those of the last log entry; log is minted with the space.
CREATE TABLE spaces (
  space TEXT PRIMARY KEY, space_no INTEGER NOT NULL UNIQUE, log TEXT NOT NULL, head INTEGER NOT NULL, chain BLOB NOT NULL,
  horizon INTEGER NOT NULL, created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- payload NULL: a tombstone.
CREATE TABLE records (
  space_no INTEGER NOT NULL, entity TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
  edit_version INTEGER NOT NULL, payload TEXT, PRIMARY KEY (space_no, entity, id)
) STRICT, WITHOUT ROWID;

-- place: space_no * 2^40 + seq, so that the row id is the key and no index is written beside it.
CREATE TABLE log (
  place INTEGER PRIMARY KEY, change_count INTEGER NOT NULL, chain BLOB NOT NULL, entry TEXT NOT NULL
) STRICT;

-- Every group with a final verdict, for ever. seq NULL: rejected. digest NULL: discarded before it arrived.
CREATE TABLE groups (
  space_no INTEGER NOT NULL, group_id TEXT NOT NULL, digest BLOB, seq INTEGER, epoch_no INTEGER, device_seq INTEGER,
  decided_at TEXT NOT NULL, PRIMARY KEY (space_no, group_id)
) STRICT, WITHOUT ROWID;

-- What a rejected group was and why it was rejected.
CREATE TABLE rejections (
  space_no INTEGER NOT NULL, group_id TEXT NOT NULL, result TEXT NOT NULL, group_type TEXT, actor TEXT, created_at TEXT,
  replaces TEXT, changes TEXT, PRIMARY KEY (space_no, group_id)
) STRICT;

-- The lives of devices. highest_seq 0: known from a handshake only.
CREATE TABLE devices (
  space_no INTEGER NOT NULL, device TEXT NOT NULL, epoch TEXT NOT NULL, epoch_no INTEGER NOT NULL,
  highest_seq INTEGER NOT NULL, first_seen TEXT NOT NULL, pushed_at TEXT, previous_epoch TEXT, previous_seq INTEGER,
  PRIMARY KEY (space_no, device, epoch)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX devices_by_number ON devices (space_no, epoch_no);

CREATE TABLE numbers (
  space_no INTEGER NOT NULL, epoch_no INTEGER NOT NULL, device_seq INTEGER NOT NULL, group_id TEXT NOT NULL,
  PRIMARY KEY (space_no, epoch_no, device_seq)
) STRICT, WITHOUT ROWID;

-- A group and its replacements are a family, named by one of them; at most one member is accepted.
CREATE TABLE families (
  space_no INTEGER NOT NULL, group_id TEXT NOT NULL, root TEXT NOT NULL, PRIMARY KEY (space_no, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX families_by_root ON families (space_no, root);
CREATE TABLE family_winners (
  space_no INTEGER NOT NULL, root TEXT NOT NULL, group_id TEXT NOT NULL, PRIMARY KEY (space_no, root)
) STRICT, WITHOUT ROWID;

-- hash: SHA-256 of the token, which is stored nowhere.
CREATE TABLE tokens (
  space_no INTEGER NOT NULL, token_id TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, roles TEXT NOT NULL, actor TEXT,
  device TEXT, created_at TEXT NOT NULL, revoked_at TEXT, PRIMARY KEY (space_no, token_id)
) STRICT, WITHOUT ROWID;
";

const RULES: &str = "
-- What conflict policies remember of a record, as JSON.
ALTER TABLE records ADD COLUMN marks TEXT;

-- Soft rules that an accepted group broke, as JSON.
ALTER TABLE groups ADD COLUMN flags TEXT;

-- References (value: the id they hold) and unique values (value: their JSON).
CREATE TABLE index_entries (
  space_no INTEGER NOT NULL, entity TEXT NOT NULL, fields TEXT NOT NULL, value TEXT NOT NULL, id TEXT NOT NULL,
  PRIMARY KEY (space_no, entity, fields, value, id)
) STRICT, WITHOUT ROWID;
";

const SCHEMAS: &str = "
-- The schemas that were in force, for all spaces. in_force 0: records are still being brought to it.
CREATE TABLE schemas (
  version INTEGER PRIMARY KEY, text TEXT NOT NULL, since TEXT NOT NULL, in_force INTEGER NOT NULL
) STRICT;

-- How far a space was brought to the schema with this version: the last record looked at, and whether that was all.
CREATE TABLE upgrades (
  space_no INTEGER NOT NULL, version INTEGER NOT NULL, entity TEXT, id TEXT, is_done INTEGER NOT NULL,
  PRIMARY KEY (space_no, version)
) STRICT, WITHOUT ROWID;

-- Soft rules that accepted groups broke. cleared_by: the seq of the group that cleared it.
CREATE TABLE flags (
  space_no INTEGER NOT NULL, seq INTEGER NOT NULL, place INTEGER NOT NULL, code TEXT NOT NULL, rule TEXT NOT NULL,
  message TEXT NOT NULL, entity TEXT, id TEXT, cleared_by INTEGER, PRIMARY KEY (space_no, seq, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX open_flags ON flags (space_no, seq, place) WHERE cleared_by IS NULL;

-- The highest number of a sequence in a record that the device made.
CREATE TABLE sequences (
  space_no INTEGER NOT NULL, device TEXT NOT NULL, sequence TEXT NOT NULL, highest INTEGER NOT NULL,
  PRIMARY KEY (space_no, device, sequence)
) STRICT, WITHOUT ROWID;
";

const PARTS: &str = "
-- Groups that a device sends in parts: what arrived so far. bytes: of the changes staged, as one array.
CREATE TABLE uploads (
  space_no INTEGER NOT NULL, device TEXT NOT NULL, group_id TEXT NOT NULL, bytes INTEGER NOT NULL,
  touched_ms INTEGER NOT NULL, PRIMARY KEY (space_no, device, group_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE upload_parts (
  space_no INTEGER NOT NULL, device TEXT NOT NULL, group_id TEXT NOT NULL, part INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (space_no, device, group_id, part)
) STRICT;

-- parts 0: the entry has its changes in it.
ALTER TABLE log ADD COLUMN parts INTEGER NOT NULL DEFAULT 0;
CREATE TABLE log_parts (
  place INTEGER NOT NULL, part INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (place, part)
) STRICT;
";

const CLOSURES: &str = "
-- How a rejection was closed: amended, discarded, compensated, or replaced by a group that was rejected as well.
ALTER TABLE rejections ADD COLUMN closed_as TEXT;
ALTER TABLE rejections ADD COLUMN closed_by TEXT;
ALTER TABLE rejections ADD COLUMN closed_actor TEXT;
ALTER TABLE rejections ADD COLUMN closed_reason TEXT;
ALTER TABLE rejections ADD COLUMN closed_at TEXT;
UPDATE rejections SET closed_as = 'discarded', closed_at = (SELECT g.decided_at FROM groups AS g
    WHERE g.space_no = rejections.space_no AND g.group_id = rejections.group_id) WHERE result ->> '$.code' = 'discarded';
UPDATE rejections SET closed_as = 'amended', closed_by = w.group_id, closed_at = (SELECT g.decided_at FROM groups AS g
    WHERE g.space_no = rejections.space_no AND g.group_id = w.group_id)
  FROM families AS f JOIN family_winners AS w ON w.space_no = f.space_no AND w.root = f.root
 WHERE f.space_no = rejections.space_no AND f.group_id = rejections.group_id AND rejections.closed_as IS NULL;

-- Who closed a family, and why; a family that a device's own amendment won has none.
CREATE TABLE family_closures (
  space_no INTEGER NOT NULL, root TEXT NOT NULL, of_group TEXT NOT NULL, closed_as TEXT NOT NULL, closed_by TEXT, actor TEXT,
  reason TEXT, PRIMARY KEY (space_no, root)
) STRICT, WITHOUT ROWID;
";

const DISCARDED: &str = "
-- What was discarded before closures were kept is closed as well: nobody can amend it any more.
INSERT OR IGNORE INTO families (space_no, group_id, root)
  SELECT space_no, group_id, group_id FROM rejections WHERE result ->> '$.code' = 'discarded';
INSERT OR IGNORE INTO family_closures (space_no, root, of_group, closed_as, actor, reason)
  SELECT r.space_no, f.root, r.group_id, 'discarded', r.actor, r.result ->> '$.message'
    FROM rejections AS r JOIN families AS f ON f.space_no = r.space_no AND f.group_id = r.group_id
   WHERE r.result ->> '$.code' = 'discarded';
";

const RIGHTS: &str = "
-- act_as: whose groups the token may send beside its actor's, as a JSON array; \"*\": everybody's whose roles are known.
ALTER TABLE tokens ADD COLUMN expires_at TEXT;
ALTER TABLE tokens ADD COLUMN act_as TEXT;

-- The roles of people, for groups that a device sends in their names.
CREATE TABLE actors (
  space_no INTEGER NOT NULL, actor TEXT NOT NULL, roles TEXT NOT NULL, since TEXT NOT NULL, PRIMARY KEY (space_no, actor)
) STRICT, WITHOUT ROWID;

-- Tokens of another party that are refused here before they end, by the id in them.
CREATE TABLE revoked_jwts (jti TEXT PRIMARY KEY, revoked_at TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

const SCOPES: &str = "
-- Where a record is seen, as a JSON array of scopes; NULL: everywhere.
ALTER TABLE records ADD COLUMN scopes TEXT;
-- Where the changes of an entry are seen, as runs of changes; NULL: it is from before its space had scopes.
ALTER TABLE log ADD COLUMN scopes TEXT;
-- The scopes that a token opens, and that the author of a rejected group held; NULL: all.
ALTER TABLE tokens ADD COLUMN scopes TEXT;
ALTER TABLE rejections ADD COLUMN scopes TEXT;
";

const HORIZON: &str = "
-- The chain of the last entry that the log has no more; zero bytes where it has all.
ALTER TABLE spaces ADD COLUMN horizon_chain BLOB NOT NULL DEFAULT x'0000000000000000000000000000000000000000000000000000000000000000';

-- Tombstones are removed when the horizon has passed them.
CREATE INDEX tombstones ON records (space_no, version) WHERE payload IS NULL;
";

/// Refuses what is not a store of this or an earlier format. `false`: the file is new and empty.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| not_a_store(path, error))?;
    if tables == 0 {
        return Ok(false);
    }
    match format(connection)? {
        Some(found) if found > FORMAT => Err(StoreError::Newer { store: path.display().to_string(), found, known: FORMAT }),
        Some(_) => Ok(true),
        None => Err(StoreError::NotAStore { path: path.into(), reason: "it is a SQLite file of another program".into() }),
    }
}

/// Brings a checked file to the newest format, in one transaction that another process may have won.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = usize::try_from(format(&transaction)?.unwrap_or(0)).unwrap_or(0);
    for step in STEPS.iter().skip(found) {
        transaction.execute_batch(step)?;
    }
    if found < STEPS.len() {
        transaction.execute(
            "INSERT INTO gbsync_meta (key, value) VALUES ('format', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [FORMAT],
        )?;
    }
    gbsync_wal::commit(transaction)?;
    Ok(())
}

pub(super) fn format(connection: &Connection) -> Result<Option<i64>, StoreError> {
    let has_meta: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'gbsync_meta')",
        [],
        |row| row.get(0),
    )?;
    if !has_meta {
        return Ok(None);
    }
    Ok(connection.query_row("SELECT value FROM gbsync_meta WHERE key = 'format'", [], |row| row.get(0)).optional()?)
}

fn not_a_store(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => {
            StoreError::NotAStore { path: path.into(), reason: "it is not a SQLite file".into() }
        }
        _ => error.into(),
    }
}
