//! The tables of the device's file, and their versions. The app's own tables in the file are left alone.

use crate::error::Error;
use rusqlite::{Connection, OptionalExtension as _};
use std::path::Path;

/// The steps from one format to the next; the format of a file is how many of them it went through.
const STEPS: &[&str] = &[
    TABLES,
    RULES,
    PARTS,
    PARKED,
    super::face::SQL_FACE,
    super::server_schema::SERVER_SCHEMA,
    super::snapshot::SNAPSHOT,
    SCOPES,
    super::snapshot::HORIZON,
    super::lost::LOST,
    super::lost::UNPASSED,
    super::stood::STOOD,
];

/// The newest format this version writes and reads.
pub(crate) const FORMAT: i64 = STEPS.len() as i64;

/// Base: what the server confirmed. Also made under another name while the log is read anew.
pub(crate) const BASE_COLUMNS: &str = "(
  entity       TEXT NOT NULL,
  id           TEXT NOT NULL,
  version      INTEGER NOT NULL,
  edit_version INTEGER NOT NULL,
  payload      TEXT,             -- canonical JSON; NULL is a tombstone
  PRIMARY KEY (entity, id)
) WITHOUT ROWID";

const TABLES: &str = "
CREATE TABLE gbsync_meta(key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- One row: where this device stands.
CREATE TABLE gbsync_state(
  one                 INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  server              TEXT NOT NULL,
  space               TEXT NOT NULL,
  device              TEXT NOT NULL,
  epoch               TEXT NOT NULL,
  previous_epoch      TEXT,                        -- told to the server at the next handshake
  previous_device_seq INTEGER,
  wants_new_epoch     INTEGER NOT NULL DEFAULT 0,  -- the server knows our numbers under other ids
  numbered_through    INTEGER NOT NULL DEFAULT 0,  -- deviceSeq given so far, where the outbox no longer shows it
  ordered_through     INTEGER NOT NULL DEFAULT 0,  -- local_no given so far, likewise
  log                 TEXT,
  chain               TEXT,
  cursor              INTEGER NOT NULL DEFAULT 0,
  head                INTEGER,
  generation          INTEGER NOT NULL DEFAULT 0,  -- how often the log was read anew
  is_rebasing         INTEGER NOT NULL DEFAULT 0,  -- gbsync_base_next is being filled
  next_log            TEXT,
  next_chain          TEXT,
  next_cursor         INTEGER NOT NULL DEFAULT 0,
  in_flight           TEXT,                        -- JSON array of the local_no of what is on its way
  pending_from        INTEGER NOT NULL DEFAULT 0,  -- no group before this local_no is undecided
  failures            INTEGER NOT NULL DEFAULT 0,  -- requests failed in a row
  next_attempt_at     INTEGER,                     -- milliseconds after 1970
  error_code          TEXT,
  error_message       TEXT,
  error_at            INTEGER,
  is_stopped          INTEGER NOT NULL DEFAULT 0,
  limits              TEXT                         -- JSON, as the server told at the last handshake
);

-- Sealed groups: undecided, accepted (for a while), parked. `changes` is sent verbatim for ever.
CREATE TABLE gbsync_outbox(
  local_no         INTEGER NOT NULL PRIMARY KEY,   -- seal order on this device, over all epochs
  group_id         TEXT NOT NULL UNIQUE,
  type             TEXT,
  root             TEXT,
  actor            TEXT,
  epoch            TEXT NOT NULL,
  device_seq       INTEGER NOT NULL,
  state            TEXT NOT NULL,                  -- sealed, waiting_for_sign_in, accepted, parked
  log              TEXT,
  sealed_at        INTEGER NOT NULL,
  depends_on       TEXT,                           -- JSON array of group ids
  replaces         TEXT,
  records          INTEGER NOT NULL,
  digest           BLOB NOT NULL,
  changes          TEXT NOT NULL,
  decided_at       INTEGER,
  seq              INTEGER,
  generation       INTEGER,                        -- in which reading of the log it is known to be accepted
  code             TEXT,
  message          TEXT,
  verdict          TEXT,                           -- the server's result, as it came
  attempts         INTEGER NOT NULL DEFAULT 0,
  incomplete       INTEGER NOT NULL DEFAULT 0,
  next_attempt_at  INTEGER
);
CREATE INDEX gbsync_outbox_parked ON gbsync_outbox(local_no) WHERE state = 'parked';
CREATE INDEX gbsync_outbox_accepted ON gbsync_outbox(decided_at) WHERE state = 'accepted';

-- Who waits for whom, for parking what depends on a rejected group.
CREATE TABLE gbsync_dependency(
  parent TEXT NOT NULL,
  child  INTEGER NOT NULL,
  PRIMARY KEY (parent, child)
) WITHOUT ROWID;

-- One row a record and overlay group: the record as that group leaves it, and who touched it up to there.
CREATE TABLE gbsync_overlay(
  entity       TEXT NOT NULL,
  id           TEXT NOT NULL,
  local_no     INTEGER NOT NULL,
  touch        TEXT NOT NULL,
  edited       INTEGER,
  born_or_died INTEGER,
  is_hidden    INTEGER NOT NULL,  -- the group cannot be laid entirely, so nothing of it shows
  payload      TEXT,              -- NULL: the record is not there after this group
  PRIMARY KEY (entity, id, local_no)
) WITHOUT ROWID;

-- Ids given by the author of an operations file: they make a line idempotent for ever.
CREATE TABLE gbsync_given_id(group_id TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
";

/// Which part of the space this device sees, as the server names it.
const SCOPES: &str = "
ALTER TABLE gbsync_state ADD COLUMN scope_set TEXT;       -- of base and cursor; NULL: nothing was read yet
ALTER TABLE gbsync_state ADD COLUMN next_scope_set TEXT;  -- of what is read anew
UPDATE gbsync_state SET scope_set = 'all' WHERE log IS NOT NULL;
UPDATE gbsync_state SET next_scope_set = 'all' WHERE is_rebasing;
";

/// What groups say of schema, clock and flags; sequences; and what tells that a file is an old copy of itself.
const RULES: &str = "
ALTER TABLE gbsync_outbox ADD COLUMN schema_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE gbsync_outbox ADD COLUMN hlc TEXT;      -- may be stamped anew: it is not among the bytes of the changes
ALTER TABLE gbsync_outbox ADD COLUMN clears TEXT;   -- JSON array of flags

-- The group does not name the record: it deletes one that this refers to.
ALTER TABLE gbsync_overlay ADD COLUMN is_derived INTEGER NOT NULL DEFAULT 0;
CREATE INDEX gbsync_overlay_derived ON gbsync_overlay(local_no) WHERE is_derived;
CREATE INDEX gbsync_overlay_deletes ON gbsync_overlay(entity, id) WHERE touch = 'delete';

ALTER TABLE gbsync_state ADD COLUMN hlc TEXT;          -- the last reading of the clock, where no kept group shows it
ALTER TABLE gbsync_state ADD COLUMN wanted_epoch TEXT; -- the epoch that will begin; it names sequence numbers already
ALTER TABLE gbsync_state ADD COLUMN life TEXT;         -- what the file beside the database must say

-- The last number given of each sequence. Never goes back.
CREATE TABLE gbsync_sequence(name TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;

-- Soft rules that accepted groups broke.
CREATE TABLE gbsync_open_flag(
  flag_id  TEXT NOT NULL,
  is_next  INTEGER NOT NULL,   -- found while the log is read anew
  seq      INTEGER NOT NULL,
  code     TEXT NOT NULL,
  rule     TEXT NOT NULL,
  entity   TEXT,
  id       TEXT,
  message  TEXT NOT NULL,
  group_id TEXT NOT NULL,
  PRIMARY KEY (is_next, flag_id)
) WITHOUT ROWID;
";

const PARTS: &str = "
-- A group that no request holds, while it is sent in parts: how it is cut, and which parts the server has.
CREATE TABLE gbsync_upload(
  local_no   INTEGER NOT NULL PRIMARY KEY REFERENCES gbsync_outbox(local_no) ON DELETE CASCADE,
  part_bytes INTEGER NOT NULL
);
CREATE TABLE gbsync_upload_part(
  local_no INTEGER NOT NULL REFERENCES gbsync_upload(local_no) ON DELETE CASCADE,
  part     INTEGER NOT NULL,
  PRIMARY KEY (local_no, part)
) WITHOUT ROWID;

-- Entries of the log that no page holds, while their parts are fetched. Nothing of them shows before all are here.
CREATE TABLE gbsync_download(
  seq      INTEGER NOT NULL PRIMARY KEY,
  log      TEXT NOT NULL,
  group_id TEXT NOT NULL,
  chain    TEXT NOT NULL,   -- of the page that named it; empty where that goes further
  parts    INTEGER NOT NULL
);
CREATE TABLE gbsync_download_part(
  seq     INTEGER NOT NULL REFERENCES gbsync_download(seq) ON DELETE CASCADE,
  part    INTEGER NOT NULL,
  changes INTEGER NOT NULL, -- how many are in it
  body    TEXT NOT NULL,
  PRIMARY KEY (seq, part)
);
";

/// What became of groups that were parked, beside the outbox, so that a sale that never is pays nothing for it.
const PARKED: &str = "
CREATE TABLE gbsync_parked(
  local_no          INTEGER NOT NULL PRIMARY KEY,
  family            TEXT NOT NULL,               -- the first of the groups that stand for one another
  closed_as         TEXT,                        -- amended, discarded or compensated, where the log said so
  replaced_by       TEXT,                        -- the group that stands in its place, or made up for it
  closed_by         TEXT,                        -- the person who closed it
  reason            TEXT,
  closed_at         INTEGER,
  is_closed_by_log  INTEGER NOT NULL DEFAULT 0,  -- the server closed it: nothing here can change that
  is_requeued       INTEGER NOT NULL DEFAULT 0,  -- sealed by itself, because what its predecessor waited for was settled
  resolver_attempts INTEGER NOT NULL DEFAULT 0,  -- of the family, up to this group
  is_left           INTEGER NOT NULL DEFAULT 0   -- the resolver leaves it to a person
);
CREATE INDEX gbsync_parked_family ON gbsync_parked(family);

-- What changes of a parked group were made on, where it was still known when the group was parked.
CREATE TABLE gbsync_parked_base(
  local_no INTEGER NOT NULL,
  idx      INTEGER NOT NULL,
  payload  TEXT NOT NULL,
  PRIMARY KEY (local_no, idx)
) WITHOUT ROWID;

-- What the server is to be told of groups that are not sent any more, until it answered.
CREATE TABLE gbsync_discard(
  group_id TEXT NOT NULL PRIMARY KEY,
  reason   TEXT NOT NULL,
  actor    TEXT
) WITHOUT ROWID;

-- Groups that an earlier version parked.
INSERT INTO gbsync_parked(local_no, family) SELECT local_no, group_id FROM gbsync_outbox WHERE state = 'parked';
";

/// The stable relations (ARCHITECTURE.md, "Stored on a device").
pub(crate) const VIEWS: &str = "
CREATE VIEW gbsync_records(entity, id, payload, version) AS
  SELECT b.entity, b.id, b.payload, b.version FROM gbsync_base AS b
   WHERE b.payload IS NOT NULL
     AND NOT EXISTS (SELECT 1 FROM gbsync_overlay AS o WHERE o.entity = b.entity AND o.id = b.id AND NOT o.is_hidden)
  UNION ALL
  SELECT o.entity, o.id, o.payload,
         coalesce((SELECT b.version FROM gbsync_base AS b WHERE b.entity = o.entity AND b.id = o.id), 0)
    FROM gbsync_overlay AS o
   WHERE NOT o.is_hidden AND o.payload IS NOT NULL
     AND NOT EXISTS (SELECT 1 FROM gbsync_overlay AS later
                      WHERE later.entity = o.entity AND later.id = o.id AND later.local_no > o.local_no
                        AND NOT later.is_hidden);

CREATE VIEW gbsync_group(group_id, type, root, actor, device_seq, state, code, message, sealed_at, decided_at, attempts,
                         next_attempt_at, replaces, replaced_by, closed_by, reason) AS
  SELECT x.group_id, x.type, x.root, x.actor, x.device_seq,
         CASE WHEN x.state = 'sealed'
               AND x.local_no IN (SELECT value FROM json_each((SELECT coalesce(in_flight, '[]') FROM gbsync_state)))
              THEN 'in_flight' ELSE x.state END,
         x.code, x.message,
         strftime('%Y-%m-%dT%H:%M:%fZ', x.sealed_at / 1000.0, 'unixepoch'),
         strftime('%Y-%m-%dT%H:%M:%fZ', x.decided_at / 1000.0, 'unixepoch'),
         x.attempts,
         strftime('%Y-%m-%dT%H:%M:%fZ', x.next_attempt_at / 1000.0, 'unixepoch'),
         x.replaces, p.replaced_by, p.closed_by, p.reason
    FROM gbsync_outbox AS x LEFT JOIN gbsync_parked AS p ON p.local_no = x.local_no;

CREATE VIEW gbsync_record_state(entity, id, state, group_id, code, message) AS
  SELECT o.entity, o.id, g.state, g.group_id, g.code, g.message
    FROM gbsync_overlay AS o
    JOIN gbsync_outbox AS x ON x.local_no = o.local_no
    JOIN gbsync_group AS g ON g.group_id = x.group_id
   WHERE NOT EXISTS (SELECT 1 FROM gbsync_overlay AS later
                      WHERE later.entity = o.entity AND later.id = o.id AND later.local_no > o.local_no)
  UNION ALL
  -- The columns beside max() are those of its row.
  SELECT entity, id, 'parked', group_id, code, message
    FROM (SELECT json_extract(c.value, '$.entity') AS entity, json_extract(c.value, '$.id') AS id, x.group_id, x.code, x.message,
                 max(x.local_no)
            FROM gbsync_outbox AS x, json_each(x.changes) AS c WHERE x.state = 'parked' GROUP BY 1, 2) AS last
   WHERE NOT EXISTS (SELECT 1 FROM gbsync_overlay AS o WHERE o.entity = last.entity AND o.id = last.id);

CREATE VIEW gbsync_flag(flag_id, seq, code, rule, entity, id, message, group_id) AS
  SELECT flag_id, seq, code, rule, entity, id, message, group_id FROM gbsync_open_flag WHERE NOT is_next;

CREATE VIEW gbsync_parked_change(group_id, idx, entity, id, action, payload, base_payload, current_payload, current_version,
                                 code, message) AS
  SELECT x.group_id, c.key, json_extract(c.value, '$.entity'), json_extract(c.value, '$.id'), json_extract(c.value, '$.action'),
         json_extract(c.value, '$.payload'), was.payload,
         -- The log may have brought a newer state than the verdict showed.
         CASE WHEN v.value IS NULL OR b.version >= coalesce(json_extract(v.value, '$.current.version'), 0)
              THEN b.payload ELSE json_extract(v.value, '$.current.payload') END,
         max(coalesce(b.version, 0), coalesce(json_extract(v.value, '$.current.version'), 0)),
         coalesce(json_extract(v.value, '$.code'), x.code), x.message
    FROM gbsync_outbox AS x JOIN json_each(x.changes) AS c
    LEFT JOIN gbsync_parked_base AS was ON was.local_no = x.local_no AND was.idx = c.key
    LEFT JOIN json_each(x.verdict, '$.changes') AS v ON json_extract(v.value, '$.index') = c.key
    LEFT JOIN gbsync_base AS b ON b.entity = json_extract(c.value, '$.entity') AND b.id = json_extract(c.value, '$.id')
   WHERE x.state = 'parked';
";

/// Drops the views, so that tables under them can be exchanged.
pub(crate) const DROP_VIEWS: &str = "
DROP VIEW IF EXISTS gbsync_flag;
DROP VIEW IF EXISTS gbsync_parked_change;
DROP VIEW IF EXISTS gbsync_record_state;
DROP VIEW IF EXISTS gbsync_group;
DROP VIEW IF EXISTS gbsync_records;
";

/// The format of the file, `None` if it has no gbsync tables. Reads only.
pub(crate) fn format(connection: &Connection, path: &Path) -> Result<Option<i64>, Error> {
    let exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'gbsync_meta'";
    let exists = connection.query_row(exists, [], |_| Ok(())).optional();
    if exists.map_err(|error| Error::about_file(error, path))?.is_none() {
        return Ok(None);
    }
    let format = "SELECT CAST(value AS INTEGER) FROM gbsync_meta WHERE key = 'format'";
    let format: Option<i64> = connection.query_row(format, [], |row| row.get(0)).optional()?;
    match format {
        None => Err(Error::Damaged("gbsync_meta has no format".into())),
        Some(format) if format > FORMAT => {
            Err(Error::NewerFormat { path: path.display().to_string(), format, known: FORMAT })
        }
        Some(format) => Ok(Some(format)),
    }
}

/// Brings a file to the newest format inside a transaction: a new one from nothing, an older one from where it is. The views
/// belong to no step: they are made anew.
pub(crate) fn migrate(connection: &Connection, found: i64) -> Result<(), Error> {
    if found == FORMAT {
        return Ok(());
    }
    connection.execute_batch(DROP_VIEWS)?;
    if found == 0 {
        connection.execute_batch(&format!("CREATE TABLE gbsync_base{BASE_COLUMNS};"))?;
    }
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        connection.execute_batch(step)?;
    }
    connection.execute_batch(VIEWS)?;
    let sql = "INSERT INTO gbsync_meta(key, value) VALUES ('format', ?1) ON CONFLICT DO UPDATE SET value = excluded.value";
    connection.execute(sql, [FORMAT.to_string()])?;
    Ok(())
}
