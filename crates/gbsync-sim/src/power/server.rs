//! What must hold of a server's file after any loss of power.

use super::log;
use super::way::Way;
use crate::disk::Mark;
use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use std::path::Path;

/// Opens an image and holds it against what was acknowledged; perhaps after a server ran on it.
pub(super) fn check(way: &Way, folder: &Path, told: &[&Mark], must_start: bool) -> Result<()> {
    let acknowledged = told.iter().rev().find_map(|mark| if let Mark::Acknowledged(ids) = mark { Some(ids) } else { None });
    let path = folder.join("gbsync.db");
    if !path.is_file() {
        ensure!(acknowledged.is_none(), "P4: the server's file is gone");
        return Ok(());
    }
    if must_start {
        way.start_server(folder).context("no server starts on the image")?;
    }
    // By the server's own code, which refuses what it cannot read.
    let space = &way.remote.space;
    let digest = match gbsync_server::space_digest(folder, space) {
        Ok(digest) => digest,
        Err(gbsync_server::ServerError::NoSpace { .. }) if acknowledged.is_none() => return Ok(()),
        Err(_) if acknowledged.is_none() && is_empty(&path)? => return Ok(()),
        Err(error) => return Err(error).context("the store cannot be opened"),
    };
    let db = Connection::open(&path)?;
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(sound == "ok", "SQLite says {sound}");
    for id in acknowledged.into_iter().flatten() {
        let is_there: bool =
            db.query_row("SELECT EXISTS (SELECT 1 FROM groups WHERE group_id = ?1 AND seq IS NOT NULL)", [id], |row| {
                row.get(0)
            })?;
        ensure!(is_there, "P4: {id} was acknowledged and is gone");
    }
    let head = holds_what_the_log_leaves(&db)?;
    ensure!(head == digest.head.0, "P1: the log ends at {head}, the space says {}", digest.head.0);
    Ok(())
}

fn is_empty(path: &Path) -> Result<bool> {
    let db = Connection::open(path)?;
    Ok(db.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
}

/// The records that are stored are exactly those that the log leaves. Answers where it ends.
fn holds_what_the_log_leaves(db: &Connection) -> Result<u64> {
    let (head, records) = log::replay(db, |_| {})?;
    let stored = "SELECT entity, id, version, payload FROM records";
    log::same(db, stored, &records).context("P1: what is stored is not what the log leaves")?;
    Ok(head.0)
}
