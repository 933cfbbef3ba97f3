//! What plain SQL finds in every file, whatever its schema: the bracket of an operation, and where triggers append what was
//! done (docs/sql.md).
//!
//! SQLite cannot see a transaction end. So an open bracket breaks a deferred foreign key, and COMMIT fails; and because
//! foreign keys are off in most drivers, opening one probes them.

/// The step that makes them.
pub(super) const SQL_FACE: &str = "
-- One row: the rules that the file is kept under.
CREATE TABLE gbsync_schema(
  one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  version INTEGER NOT NULL,
  schema  TEXT NOT NULL             -- as JSON
) STRICT;

-- What triggers saw, in order: a row where a record changed (insert, update, delete) and one a field after it (set, add,
-- add_minor); open and close around an operation.
CREATE TABLE gbsync_capture(
  no     INTEGER NOT NULL PRIMARY KEY,
  action TEXT NOT NULL,
  entity TEXT,
  id     TEXT,
  field  TEXT,
  value  ANY,
  type   TEXT,
  root   TEXT,
  actor  TEXT,
  at     INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
) STRICT;
CREATE INDEX gbsync_capture_bracket ON gbsync_capture(no) WHERE action IN ('open', 'close');

-- Records as parked groups left them.
CREATE TABLE gbsync_refused_row(
  local_no INTEGER NOT NULL,
  entity   TEXT NOT NULL,
  id       TEXT NOT NULL,
  payload  TEXT NOT NULL,
  PRIMARY KEY (local_no, entity, id)
) WITHOUT ROWID;

CREATE TABLE gbsync_never(id INTEGER PRIMARY KEY CHECK (id IS NULL));
CREATE TABLE gbsync_probe_parent(id INTEGER PRIMARY KEY);
CREATE TABLE gbsync_probe_child(id INTEGER PRIMARY KEY REFERENCES gbsync_probe_parent ON DELETE CASCADE);
CREATE TABLE gbsync_operation(
  type  TEXT NOT NULL,
  root  TEXT NOT NULL,
  actor TEXT,
  open  INTEGER NOT NULL DEFAULT 1 REFERENCES gbsync_never(id) DEFERRABLE INITIALLY DEFERRED
);

CREATE TRIGGER gbsync_operation_open BEFORE INSERT ON gbsync_operation BEGIN
  SELECT RAISE(ABORT, 'gbsync: an operation was left open by a program with triggers or foreign keys off; it ends when gbsync next opens or syncs this file')
   WHERE (SELECT count(*) FROM gbsync_operation)
      <> coalesce((SELECT action = 'open' FROM gbsync_capture WHERE action IN ('open', 'close') ORDER BY no DESC LIMIT 1), 0);
  SELECT RAISE(ABORT, 'gbsync: an operation is already open; DELETE FROM gbsync_operation closes it')
   WHERE EXISTS (SELECT 1 FROM gbsync_operation);
  SELECT RAISE(ABORT, 'gbsync: an operation needs a type, a root and perhaps an actor: texts of 1 to 256 bytes without control characters')
   WHERE NEW.type IS NULL OR NEW.root IS NULL OR NEW.open IS NOT 1
      OR length(trim(NEW.type)) = 0 OR length(CAST(NEW.type AS BLOB)) > 256
      OR length(trim(NEW.root)) = 0 OR length(CAST(NEW.root AS BLOB)) > 256
      OR length(NEW.actor) = 0 OR length(CAST(NEW.actor AS BLOB)) > 256
      OR instr(CAST(NEW.type || NEW.root || coalesce(NEW.actor, '') AS BLOB), x'00')
      OR NEW.type || NEW.root || coalesce(NEW.actor, '')
         GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*';
  INSERT INTO gbsync_probe_parent VALUES (1);
  INSERT INTO gbsync_probe_child VALUES (1);
  DELETE FROM gbsync_probe_parent;
  SELECT RAISE(ABORT, 'gbsync: run PRAGMA foreign_keys=ON before BEGIN') WHERE EXISTS (SELECT 1 FROM gbsync_probe_child);
  INSERT INTO gbsync_capture(action, type, root, actor) VALUES ('open', NEW.type, NEW.root, NEW.actor);
END;
CREATE TRIGGER gbsync_operation_change BEFORE UPDATE ON gbsync_operation BEGIN
  SELECT RAISE(ABORT, 'gbsync: an open operation cannot be changed; DELETE FROM gbsync_operation closes it');
END;
CREATE TRIGGER gbsync_operation_close AFTER DELETE ON gbsync_operation BEGIN
  INSERT INTO gbsync_capture(action) VALUES ('close');
END;
";

/// The version of the schema that the file is kept under.
pub(crate) const SCHEMA_VERSION: &str = "SELECT version FROM gbsync_schema";
