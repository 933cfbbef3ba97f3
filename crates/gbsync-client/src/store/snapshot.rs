//! `gbsync_snapshot`: how far a snapshot is loaded into the table beside the base.
//!
//! Invariant: the records of a unit and the place where the next one begins are stored in one transaction. The row stays until
//! the flip, so that a round after a crash knows that what is beside the base came from a snapshot.

use crate::error::{Error, damaged};
use gbsync_core::id::GroupId;
use gbsync_core::wire::SnapshotHead;
use rusqlite::{Connection, OptionalExtension as _, params};

/// The step that keeps it.
pub(super) const SNAPSHOT: &str = "
CREATE TABLE gbsync_snapshot(
  one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  etag    TEXT NOT NULL,             -- names the file at the server
  head    TEXT NOT NULL,             -- its first line
  at      INTEGER NOT NULL,          -- bytes of it that are stored
  loaded  INTEGER NOT NULL,          -- records of it that are stored
  is_done INTEGER NOT NULL DEFAULT 0 -- its last line came
) STRICT;
";

/// The step that keeps where the server's log begins.
pub(super) const HORIZON: &str = "
ALTER TABLE gbsync_state ADD COLUMN horizon INTEGER NOT NULL DEFAULT 0; -- as the server told at the last handshake
";

/// A snapshot that is being loaded, or is.
#[derive(Debug, Clone)]
pub(crate) struct Loading {
    pub(crate) etag: String,
    pub(crate) head: SnapshotHead,
    pub(crate) at: u64,
    pub(crate) loaded: u64,
    pub(crate) is_done: bool,
}

pub(crate) fn read(connection: &Connection) -> Result<Option<Loading>, Error> {
    let mut statement = connection.prepare_cached("SELECT etag, head, at, loaded, is_done FROM gbsync_snapshot")?;
    let row = statement.query_row([], |row| {
        let head: String = row.get(1)?;
        Ok((row.get(0)?, head, row.get(2)?, row.get(3)?, row.get(4)?))
    });
    let Some((etag, head, at, loaded, is_done)) = row.optional()? else { return Ok(None) };
    let head = SnapshotHead::parse(head.as_bytes()).map_err(|error| damaged("gbsync_snapshot.head", error))?;
    Ok(Some(Loading { etag, head, at, loaded, is_done }))
}

/// Keeps how far it is.
pub(crate) fn keep(connection: &Connection, loading: &Loading) -> Result<(), Error> {
    let Loading { etag, head, at, loaded, is_done } = loading;
    let sql = "INSERT INTO gbsync_snapshot(one, etag, head, at, loaded, is_done) VALUES (1, ?1, ?2, ?3, ?4, ?5)
               ON CONFLICT DO UPDATE SET etag = ?1, head = ?2, at = ?3, loaded = ?4, is_done = ?5";
    connection.prepare_cached(sql)?.execute(params![etag, head.to_json(), at, loaded, is_done])?;
    Ok(())
}

/// Forgets it.
pub(crate) fn forget(connection: &Connection) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM gbsync_snapshot")?.execute([])?;
    Ok(())
}

/// Groups in seal order of which a verdict may be asked: all but those that are undecided under an id that their author gave.
pub(crate) fn ids_after(connection: &Connection, local_no: i64, most: u32) -> Result<Vec<(i64, GroupId)>, Error> {
    let sql = "SELECT local_no, group_id FROM gbsync_outbox AS x
                WHERE local_no > ?1 AND (state = 'accepted'
                   OR NOT EXISTS (SELECT 1 FROM gbsync_given_id AS g WHERE g.group_id = x.group_id)) ORDER BY local_no LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![local_no, most], |row| Ok((row.get(0)?, row.get::<_, Box<str>>(1)?)))?;
    rows.map(|row| {
        let (local_no, id) = row?;
        Ok((local_no, GroupId::new(id).map_err(|error| damaged("gbsync_outbox.group_id", error))?))
    })
    .collect()
}
