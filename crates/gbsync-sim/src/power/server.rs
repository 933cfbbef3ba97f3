//! What must hold of a server's file after any loss of power.

use super::way::Way;
use crate::disk::Mark;
use anyhow::{Context, Result, ensure};
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, RecordKey, Seq};
use gbsync_core::wire::{LogPage, LogState, page_json, parse_log_part};
use rusqlite::Connection;
use std::collections::BTreeMap;
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
    let head = replay(&db)?;
    ensure!(head == digest.head.0, "P1: the log ends at {head}, the space says {}", digest.head.0);
    Ok(())
}

fn is_empty(path: &Path) -> Result<bool> {
    let db = Connection::open(path)?;
    Ok(db.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
}

/// The changes of an entry that is stored in parts, as one array.
fn joined(db: &Connection, place: i64) -> Result<String> {
    let mut statement = db.prepare("SELECT body FROM log_parts WHERE place = ?1 ORDER BY part")?;
    let parts = statement.query_map([place], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let inner: Vec<&str> = parts.iter().map(|part| part.trim_start_matches('[').trim_end_matches(']')).collect();
    Ok(format!("[{}]", inner.join(",")))
}

/// Reads the log from its beginning: without gaps, chained, and leaving exactly the records that are stored.
fn replay(db: &Connection) -> Result<u64> {
    let mut statement = db.prepare("SELECT entry, chain, place FROM log ORDER BY place")?;
    let entries =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?)))?;
    let mut records: BTreeMap<RecordKey, (Seq, Option<Box<str>>)> = BTreeMap::new();
    let (mut seq, mut chain) = (Seq(0), Digest::ZERO);
    for entry in entries {
        let (entry, stored, place) = entry?;
        seq = seq.next();
        let page = page_json([entry.as_str()], seq, Digest::ZERO, seq);
        let page = LogPage::parse(page.as_bytes()).context("P1: an entry of the log cannot be read")?;
        let read = page.entries.into_iter().next().context("an entry is on its page")?;
        ensure!(read.seq == seq, "P8: the log jumps from {} to {}", seq.0 - 1, read.seq);
        let group = read.group.context("every entry of this run is a group")?;
        let changes = match group.in_parts {
            None => entry.find(",\"changes\":").map(|place| entry[place + 11..entry.len() - 1].to_owned()),
            Some(_) => Some(joined(db, place)?),
        };
        let changes = changes.context("an entry has changes or parts")?;
        chain = chain.chained(seq, &GroupId::new(group.id.as_str())?, &changes);
        ensure!(chain.as_bytes().as_slice() == stored, "the chain breaks at {seq}");
        let in_parts = if group.in_parts.is_some() { parse_log_part(changes.as_bytes())? } else { Vec::new() };
        for change in group.changes.into_iter().chain(in_parts) {
            let payload = if let LogState::Live(payload) = change.state { Some(payload) } else { None };
            records.insert(change.key, (change.version, payload));
        }
    }
    let mut statement = db.prepare("SELECT entity, id, version, payload FROM records ORDER BY entity, id")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u64>(2)?, row.get::<_, Option<Box<str>>>(3)?))
    })?;
    let mut count = 0;
    for row in rows {
        let (entity, id, version, payload) = row?;
        let key = RecordKey::new(&entity, &id)?;
        ensure!(records.get(&key) == Some(&(Seq(version), payload)), "P1: {key} is stored otherwise than the log leaves it");
        count += 1;
    }
    ensure!(count == records.len(), "P1: the log leaves {} records, {count} are stored", records.len());
    Ok(seq.0)
}
