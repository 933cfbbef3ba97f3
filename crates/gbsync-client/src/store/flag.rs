//! `gbsync_flag`: soft rules that accepted groups broke, until an operation clears them.
//!
//! Invariant: what is shown is what the log says up to the cursor, and what this device's own verdicts say beyond. Flags
//! that a reading anew finds are shown when the base it fills is.

use crate::error::Error;
use gbsync_core::id::{GroupId, Seq};
use gbsync_core::verdict::Flag;
use rusqlite::{Connection, params};

/// Notes the flags of a group; each is named `{seq}.{place}`.
pub(crate) fn raise(connection: &Connection, is_next: bool, seq: Seq, group: &GroupId, flags: &[Flag]) -> Result<(), Error> {
    for (place, flag) in flags.iter().enumerate() {
        raise_one(connection, is_next, (seq, place as u64), group, flag)?;
    }
    Ok(())
}

/// Notes one flag, by the group's place in the log and its own in the group.
pub(crate) fn raise_one(
    connection: &Connection,
    is_next: bool,
    (seq, place): (Seq, u64),
    group: &GroupId,
    flag: &Flag,
) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO gbsync_open_flag(flag_id, is_next, seq, code, rule, entity, id, message, group_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let (entity, id) = flag.key.as_ref().map(|key| (key.entity.as_str(), key.id.as_str())).unzip();
    let (name, code) = (format!("{seq}.{place}"), flag.code.as_str());
    statement.execute(params![name, is_next, seq.0, code, flag.rule, entity, id, flag.message, group.as_str()])?;
    Ok(())
}

/// Removes flags that an operation cleared.
pub(crate) fn clear(connection: &Connection, is_next: bool, flags: &[Box<str>]) -> Result<(), Error> {
    for flag in flags {
        let sql = "DELETE FROM gbsync_open_flag WHERE is_next = ?1 AND flag_id = ?2";
        connection.prepare_cached(sql)?.execute(params![is_next, flag])?;
    }
    Ok(())
}

/// Forgets what an earlier reading anew found.
pub(crate) fn begin_next(connection: &Connection) -> Result<(), Error> {
    connection.execute("DELETE FROM gbsync_open_flag WHERE is_next", [])?;
    Ok(())
}

/// Shows what a reading anew found.
pub(crate) fn flip(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch("DELETE FROM gbsync_open_flag WHERE NOT is_next; UPDATE gbsync_open_flag SET is_next = 0;")?;
    Ok(())
}
