//! What must hold of a device's file after any loss of power.

use super::way::Way;
use crate::disk::Mark;
use anyhow::{Context, Result, bail, ensure};
use gbsync_client::{Client, Config};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;

/// Opens an image and holds it against what was told.
pub(super) fn check(way: &Way, folder: &Path, told: &[&Mark], must_sync: bool) -> Result<()> {
    let path = folder.join("till.db");
    // Whoever only looks opens the file under the rules that it has.
    let schema = way.schema.clone().filter(|_| must_sync);
    let saved: Vec<&str> =
        told.iter().filter_map(|mark| if let Mark::Saved(token) = mark { Some(&**token) } else { None }).collect();
    let client = match Client::open(Config { schema, ..Config::new(&path) }) {
        Ok(client) => client,
        // Power was lost before the file was made.
        Err(gbsync_client::Error::NotInitialized { .. }) if saved.is_empty() => return Ok(()),
        Err(error) => return Err(error).context("the file cannot be opened"),
    };
    let look = |db: &Connection| holds(way, db, &saved).and_then(|()| way.history.is_base(db)).and_then(|()| has_no_gap(db));
    client.with_reader(|db| Ok(look(db)))??;
    if must_sync {
        let _alone = way.sync_alone();
        way.sync_client(&client).context("the image cannot sync")?;
        let ours = client.digest()?;
        let theirs = gbsync_server::space_digest(way.server_folder(), &way.remote.space)?;
        ensure!(
            (ours.cursor, ours.records, ours.digest) == (theirs.head, theirs.records, theirs.digest),
            "P6: after a sync the device has {} records at {}, the server {} at {}",
            ours.records,
            ours.cursor,
            theirs.records,
            theirs.head
        );
        let status = client.status()?;
        ensure!(status.pending_groups == 0, "P10: {} groups are still undecided after a sync", status.pending_groups);
        client.with_reader(|db| Ok(holds(way, db, &saved)))??;
    }
    Ok(())
}

fn holds(way: &Way, db: &Connection, saved: &[&str]) -> Result<()> {
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(sound == "ok", "SQLite says {sound}");
    let roots = column(db, "SELECT root FROM gbsync_group WHERE root IS NOT NULL")?;
    for token in saved {
        ensure!(roots.iter().any(|root| root == token), "P4: {token} was saved and is gone");
    }
    whole(way, db, "gbsync_records", "P2 (view)")?;
    whole(way, db, "gbsync_base", "P2 (base)")?;
    if way.schema.is_some() {
        tables_show(db)?;
    }
    let states = column(db, "SELECT DISTINCT state FROM gbsync_group")?;
    let known = ["sealed", "in_flight", "accepted", "parked"];
    if let Some(other) = states.iter().find(|state| !known.contains(&state.as_str())) {
        bail!("P11: a group is {other}");
    }
    Ok(())
}

/// Of one epoch: the server went on after the crash, so that an image that syncs is an old copy to it and begins another.
fn has_no_gap(db: &Connection) -> Result<()> {
    let gaps: i64 =
        db.query_row("SELECT coalesce(max(device_seq), 0) - count(DISTINCT device_seq) FROM gbsync_group", [], |row| {
            row.get(0)
        })?;
    ensure!(gaps == 0, "P11: {gaps} numbers are missing");
    Ok(())
}

/// Every operation shows all of its own records or none.
fn whole(way: &Way, db: &Connection, relation: &str, promise: &str) -> Result<()> {
    let sql = format!(
        "SELECT json_extract(payload, '$.w'), count(*) FROM {relation}
          WHERE payload IS NOT NULL AND json_extract(payload, '$.w') IS NOT NULL GROUP BY 1"
    );
    let mut statement = db.prepare(&sql)?;
    let counts = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
    let counts: BTreeMap<String, u64> = counts.collect::<Result<_, _>>()?;
    for (token, count) in &counts {
        if let Some(all) = way.records.get(token)
            && count != all
        {
            bail!("{promise}: {count} of {all} records of {token} are there");
        }
    }
    // An edit's note and its entry are there together, unless a later edit replaced the note or the receipt is gone.
    let notes = column(
        db,
        &format!(
            "SELECT coalesce(json_extract(payload, '$.remark'), json_extract(payload, '$.note')) AS note
               FROM {relation} WHERE payload IS NOT NULL AND note IS NOT NULL"
        ),
    )?;
    match notes.iter().find(|note| !counts.contains_key(*note)) {
        Some(note) => bail!("{promise}: the receipt has the note of {note}, and its entry is not there"),
        None => Ok(()),
    }
}

/// The typed tables show the view, in the words of the app.
fn tables_show(db: &Connection) -> Result<()> {
    for (entity, column) in [("receipts", "total"), ("payments", "receiptId"), ("entries", "receiptId"), ("notes", "w")] {
        let sql = format!(
            "SELECT (SELECT count(*) FROM {entity}), (SELECT count(*) FROM gbsync_records WHERE entity = '{entity}'),
                    (SELECT count(*) FROM {entity} AS t JOIN gbsync_records AS r ON r.entity = '{entity}' AND r.id = t.id
                      WHERE t.{column} IS json_extract(r.payload, '$.{column}'))"
        );
        let (rows, records, same): (u64, u64, u64) =
            db.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let is_shown = rows == records && records == same;
        ensure!(is_shown, "P2: the table {entity} has {rows} rows for {records} records, {same} of them right");
    }
    Ok(())
}

fn column(db: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = db.prepare(sql)?;
    let values = statement.query_map([], |row| row.get(0))?;
    Ok(values.collect::<Result<_, _>>()?)
}
