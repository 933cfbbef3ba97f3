//! The promises, one function each, held against the real databases after every step.

use crate::model::{Author, Fields, Key, Model, State};
use crate::world::party::{DeviceParty, ServerParty};
use anyhow::{Result, bail, ensure};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

/// What the server's database says after a commit, held against the reference: takes new entries of the log first.
///
/// # Errors
/// The promise that is broken.
pub fn server(server: &ServerParty, model: &mut Model) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = Connection::open_with_flags(server.folder.join("gbsync.db"), flags)?;
    accepted_once(&db, model)?;
    stored_whole(&db, model)
}

/// P3 and P8: the log goes on without a gap, and each group stands in it once.
fn accepted_once(db: &Connection, model: &mut Model) -> Result<()> {
    let mut statement = db.prepare("SELECT entry FROM log ORDER BY place LIMIT -1 OFFSET ?1")?;
    let entries = statement.query_map([model.head()], |row| row.get::<_, String>(0))?;
    for entry in entries {
        let entry: Value = serde_json::from_str(&entry?)?;
        let seq = entry["seq"].as_u64().unwrap_or(0);
        ensure!(seq == model.head() as u64 + 1, "P8: the log jumps from {} to {seq}", model.head());
        if let (Some(replaced), Some(by)) = (entry["replaces"].as_str(), entry["syncGroupId"].as_str())
            && entry["device"] == "server"
        {
            model.replaced(replaced.to_owned(), by.to_owned(), Author::Office);
        }
        match entry["syncGroupId"].as_str() {
            Some(group) => model.accept(group).map_err(anyhow::Error::msg)?,
            None => model.pass(),
        }
    }
    let count: usize = db.query_row("SELECT count(*) FROM log", [], |row| row.get(0))?;
    ensure!(count == model.head(), "P4: the log had {} entries and has {count}", model.head());
    Ok(())
}

/// P1: the records are what whole groups leave.
fn stored_whole(db: &Connection, model: &Model) -> Result<()> {
    let stored = rows(db, "SELECT entity, id, payload FROM records WHERE payload IS NOT NULL")?;
    let expected = &model.states[model.head()];
    match stored.difference(expected) {
        Some(difference) => bail!("P1: on the server {difference}"),
        None => Ok(()),
    }
}

/// What a device's database says, held against the reference.
///
/// # Errors
/// The promise that is broken.
pub fn device(device: &DeviceParty, model: &Model) -> Result<()> {
    let client = device.client()?;
    client.with_reader(|db| {
        Ok(seen_whole(db, model).and_then(|()| nothing_lost(db, device, model)).and_then(|()| accounted(db, device)))
    })?
}

/// P2 and P6: the base is the reference at the cursor, and the view is the base with each undecided group over it, or hidden.
fn seen_whole(db: &Connection, model: &Model) -> Result<()> {
    let cursor: usize = db.query_row("SELECT cursor FROM gbsync_state", [], |row| row.get(0))?;
    let Some(confirmed) = model.states.get(cursor) else {
        bail!("P2: the cursor is at {cursor} of a log that ends at {}", model.head())
    };
    let base = rows(db, "SELECT entity, id, payload FROM gbsync_base WHERE payload IS NOT NULL")?;
    if let Some(difference) = base.difference(confirmed) {
        bail!("P2: at cursor {cursor} the base's {difference}");
    }
    if confirmed.1 {
        tables_show_the_view(db)?;
    }
    let mut view = confirmed.clone();
    for group in overlay(db, cursor)? {
        let Some(operation) = model.operation(&group) else { bail!("P2: nobody made {group}") };
        view.apply(operation);
    }
    let shown = rows(db, "SELECT entity, id, payload FROM gbsync_records")?;
    match shown.difference(&view) {
        Some(difference) => bail!("P2: at cursor {cursor} the view's {difference}"),
        None => Ok(()),
    }
}

/// P2: the typed tables show what the view shows.
fn tables_show_the_view(db: &Connection) -> Result<()> {
    for (entity, column) in [("receipts", "total"), ("payments", "amount"), ("entries", "receiptId"), ("stock", "quantity")]
    {
        let sql = format!(
            "SELECT count(*) FROM (SELECT id, {column} FROM {entity} EXCEPT
                                   SELECT id, json_extract(payload, '$.{column}') FROM gbsync_records WHERE entity = '{entity}')"
        );
        let more: i64 = db.query_row(&sql, [], |row| row.get(0))?;
        let counts: i64 = db.query_row(
            &format!(
                "SELECT (SELECT count(*) FROM {entity}) - (SELECT count(*) FROM gbsync_records WHERE entity = '{entity}')"
            ),
            [],
            |row| row.get(0),
        )?;
        ensure!(more == 0 && counts == 0, "P2: the table {entity} shows something else than the view ({more}, {counts})");
    }
    Ok(())
}

/// The groups that lie over the base, in seal order.
fn overlay(db: &Connection, cursor: usize) -> Result<Vec<String>> {
    let sql = "SELECT group_id FROM gbsync_outbox
                WHERE state IN ('sealed', 'waiting_for_sign_in') OR (state = 'accepted' AND seq > ?1) ORDER BY local_no";
    let mut statement = db.prepare(sql)?;
    let groups = statement.query_map([cursor], |row| row.get(0))?;
    Ok(groups.collect::<Result<_, _>>()?)
}

/// P4 and P7: what was saved is there, with its payload, whatever became of it; or it is long accepted.
fn nothing_lost(db: &Connection, device: &DeviceParty, model: &Model) -> Result<()> {
    let mut statement = db.prepare_cached("SELECT length(changes) FROM gbsync_outbox WHERE root = ?1")?;
    for token in &device.saved {
        let mut rows = statement.query([token])?;
        match rows.next()? {
            Some(row) => ensure!(row.get::<_, u64>(0)? > 2, "P7: the payload of {token} is gone"),
            None if model.is_accepted(token) => {}
            None => bail!("P4: {token} was saved and is gone"),
        }
    }
    Ok(())
}

/// P11: numbers have no gap in an epoch, and every group is in a state that has a name.
fn accounted(db: &Connection, device: &DeviceParty) -> Result<()> {
    if !device.is_restored {
        let gaps: i64 = db.query_row(
            "SELECT coalesce(max(gap), 0) FROM (SELECT max(device_seq) - count(DISTINCT device_seq) AS gap
                                                  FROM gbsync_outbox GROUP BY epoch)",
            [],
            |row| row.get(0),
        )?;
        ensure!(gaps == 0, "P11: {gaps} numbers are missing");
    }
    let odd: i64 = db.query_row(
        "SELECT count(*) FROM gbsync_outbox WHERE state NOT IN ('sealed', 'waiting_for_sign_in', 'accepted', 'parked', 'replaced', 'discarded', 'compensated',
                                                       'superseded')",
        [],
        |row| row.get(0),
    )?;
    ensure!(odd == 0, "P11: {odd} groups are in a state without a name");
    Ok(())
}

/// P10: at rest, every group is decided, and every device shows what the server has.
///
/// # Errors
/// The promise that is broken.
pub fn at_rest(device: &DeviceParty, model: &Model) -> Result<()> {
    let client = device.client()?;
    let status = client.status()?;
    ensure!(status.pending_groups == 0, "P10: device {} still has {} undecided groups", device.place, status.pending_groups);
    ensure!(
        status.cursor.0 == model.head() as u64,
        "P10: device {} is at {} of {}",
        device.place,
        status.cursor,
        model.head()
    );
    let unexplained: i64 = client.with_reader(|db| {
        db.query_row(
            "SELECT count(*) FROM gbsync_outbox WHERE state = 'parked' AND (code IS NULL OR message IS NULL)",
            [],
            |row| row.get(0),
        )
    })?;
    ensure!(unexplained == 0, "P10: {unexplained} groups are parked without a reason");
    Ok(())
}

/// P5: on each device a group never stands in the log before one that it depends on.
///
/// # Errors
/// The promise that is broken.
pub fn ordered(device: &DeviceParty, model: &Model) -> Result<()> {
    let place = |group: &str| model.log.iter().position(|known| known == group);
    let pairs: Vec<(String, String)> = device.client()?.with_reader(|db| {
        let sql = "SELECT d.parent, o.group_id FROM gbsync_dependency AS d JOIN gbsync_outbox AS o ON o.local_no = d.child";
        let mut statement = db.prepare(sql)?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    })?;
    for (parent, child) in pairs {
        let Some(child_at) = place(&child) else { continue };
        match place(&parent) {
            Some(parent_at) if parent_at < child_at => {}
            _ => bail!("P5: {child} was accepted before {parent}, which it depends on"),
        }
    }
    Ok(())
}

fn rows(db: &Connection, sql: &str) -> Result<State> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut state = State::default();
    while let Some(row) = rows.next()? {
        let key: Key = (row.get(0)?, row.get(1)?);
        let payload: Fields = serde_json::from_str(row.get_ref(2)?.as_str()?)?;
        ensure!(state.0.insert(key.clone(), payload).is_none(), "P2: {}:{} is shown twice", key.0, key.1);
    }
    Ok(state)
}
