//! `gbsync_upload`: how far a group in parts is with the server.

use crate::error::Error;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeSet;

/// How a group is cut, and which of its parts the server said it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) part_bytes: u64,
    pub(crate) staged: BTreeSet<u64>,
}

pub(crate) fn read(connection: &Connection, local_no: i64) -> Result<Option<Progress>, Error> {
    let sql = "SELECT part_bytes FROM gbsync_upload WHERE local_no = ?1";
    let part_bytes = connection.prepare_cached(sql)?.query_row([local_no], |row| row.get(0)).optional()?;
    let Some(part_bytes) = part_bytes else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT part FROM gbsync_upload_part WHERE local_no = ?1")?;
    let staged = statement.query_map([local_no], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(Some(Progress { part_bytes, staged }))
}

/// Begins an upload, or begins it anew with another cut.
pub(crate) fn begin(connection: &Connection, local_no: i64, part_bytes: u64) -> Result<(), Error> {
    connection.execute("DELETE FROM gbsync_upload_part WHERE local_no = ?1", [local_no])?;
    connection.execute("DELETE FROM gbsync_upload WHERE local_no = ?1", [local_no])?;
    connection.execute("INSERT INTO gbsync_upload(local_no, part_bytes) VALUES (?1, ?2)", params![local_no, part_bytes])?;
    Ok(())
}

/// Notes that the server has a part.
pub(crate) fn acknowledge(connection: &Connection, local_no: i64, part: u64) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO gbsync_upload_part(local_no, part) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![local_no, part])?;
    Ok(())
}

/// Notes that the server does not have these parts, or none of them where it cannot say which.
pub(crate) fn lose(connection: &Connection, local_no: i64, missing: &[u64]) -> Result<(), Error> {
    if missing.is_empty() {
        connection.execute("DELETE FROM gbsync_upload_part WHERE local_no = ?1", [local_no])?;
    }
    let mut statement = connection.prepare_cached("DELETE FROM gbsync_upload_part WHERE local_no = ?1 AND part = ?2")?;
    for part in missing {
        statement.execute(params![local_no, part])?;
    }
    Ok(())
}

/// Forgets uploads of groups that are decided.
pub(crate) fn forget_decided(connection: &Connection) -> Result<(), Error> {
    let sql = "DELETE FROM gbsync_upload WHERE local_no NOT IN
                 (SELECT u.local_no FROM gbsync_upload AS u JOIN gbsync_outbox AS o ON o.local_no = u.local_no
                   WHERE o.state IN ('sealed', 'waiting_for_sign_in'))";
    connection.prepare_cached(sql)?.execute([])?;
    let sql = "DELETE FROM gbsync_upload_part WHERE local_no NOT IN (SELECT local_no FROM gbsync_upload)";
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
