//! `gbsync_overlay`: each record as each overlay group leaves it. The local view, the dependency index and the undo log
//! are this one table.

use crate::error::{Error, damaged};
use gbsync_core::change::Payload;
use gbsync_core::depend::{Touch, Trail};
use gbsync_core::id::{Entity, RecordId, RecordKey};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// A record as one overlay group leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverlayRow {
    pub(crate) local_no: i64,
    pub(crate) touch: Touch,
    /// Who touched the record, up to and with this group.
    pub(crate) trail: Trail<i64>,
    pub(crate) is_hidden: bool,
    /// The group does not name the record: it deletes one that this refers to.
    pub(crate) is_derived: bool,
    pub(crate) payload: Option<Payload>,
}

const COLUMNS: &str = "local_no, touch, edited, born_or_died, is_hidden, payload, is_derived";

fn from_row(row: &Row<'_>) -> Result<OverlayRow, Error> {
    let local_no = row.get(0)?;
    let word = row.get_ref(1)?.as_str().map_err(|error| damaged("gbsync_overlay.touch", error))?;
    let payload: Option<Box<str>> = row.get(5)?;
    Ok(OverlayRow {
        local_no,
        touch: Touch::from_stored(word).ok_or_else(|| damaged("gbsync_overlay.touch", word))?,
        trail: Trail { touched: Some(local_no), edited: row.get(2)?, born_or_died: row.get(3)? },
        is_hidden: row.get(4)?,
        is_derived: row.get(6)?,
        payload: payload.map(Payload::from_stored),
    })
}

/// The latest group's row of a record.
pub(crate) fn latest(connection: &Connection, key: &RecordKey) -> Result<Option<OverlayRow>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM gbsync_overlay WHERE entity = ?1 AND id = ?2 ORDER BY local_no DESC LIMIT 1");
    one(connection, &sql, key)
}

/// The latest row of a record that shows.
pub(crate) fn latest_shown(connection: &Connection, key: &RecordKey) -> Result<Option<OverlayRow>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM gbsync_overlay WHERE entity = ?1 AND id = ?2 AND NOT is_hidden ORDER BY local_no DESC LIMIT 1"
    );
    one(connection, &sql, key)
}

/// A group's row of a record.
pub(crate) fn row_of(connection: &Connection, key: &RecordKey, local_no: i64) -> Result<Option<OverlayRow>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM gbsync_overlay WHERE entity = ?1 AND id = ?2 AND local_no = ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![key.entity.as_str(), key.id.as_str(), local_no])?;
    rows.next()?.map(from_row).transpose()
}

fn one(connection: &Connection, sql: &str, key: &RecordKey) -> Result<Option<OverlayRow>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([key.entity.as_str(), key.id.as_str()])?;
    rows.next()?.map(from_row).transpose()
}

/// All rows of a record, in seal order.
pub(crate) fn rows_of(connection: &Connection, key: &RecordKey) -> Result<Vec<OverlayRow>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM gbsync_overlay WHERE entity = ?1 AND id = ?2 ORDER BY local_no");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([key.entity.as_str(), key.id.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(from_row(row)?);
    }
    Ok(found)
}

/// Writes a row, new or laid anew.
pub(crate) fn put(connection: &Connection, key: &RecordKey, row: &OverlayRow) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO gbsync_overlay(entity, id, local_no, touch, edited, born_or_died, is_hidden, payload, is_derived)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT DO UPDATE SET touch = ?4, edited = ?5, born_or_died = ?6, is_hidden = ?7, payload = ?8, is_derived = ?9",
    )?;
    let payload = row.payload.as_ref().map(Payload::as_str);
    let (entity, id) = (key.entity.as_str(), key.id.as_str());
    let (edited, born_or_died) = (row.trail.edited, row.trail.born_or_died);
    statement.execute(params![
        entity,
        id,
        row.local_no,
        row.touch.as_str(),
        edited,
        born_or_died,
        row.is_hidden,
        payload,
        row.is_derived
    ])?;
    Ok(())
}

/// Takes a group's row of a record away.
pub(crate) fn remove(connection: &Connection, key: &RecordKey, local_no: i64) -> Result<Option<OverlayRow>, Error> {
    let sql = format!("DELETE FROM gbsync_overlay WHERE entity = ?1 AND id = ?2 AND local_no = ?3 RETURNING {COLUMNS}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![key.entity.as_str(), key.id.as_str(), local_no])?;
    let removed = rows.next()?.map(from_row).transpose()?;
    // The statement must run to its end for the row to be gone.
    while rows.next()?.is_some() {}
    Ok(removed)
}

/// The earliest group that still lies over a record.
pub(crate) fn earliest(connection: &Connection, key: &RecordKey) -> Result<Option<i64>, Error> {
    let sql = "SELECT local_no FROM gbsync_overlay WHERE entity = ?1 AND id = ?2 ORDER BY local_no LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([key.entity.as_str(), key.id.as_str()], |row| row.get(0)).optional()?)
}

/// The records that a group takes along without naming them.
pub(crate) fn derived_of(connection: &Connection, local_no: i64) -> Result<Vec<RecordKey>, Error> {
    let sql = "SELECT entity, id FROM gbsync_overlay WHERE is_derived AND local_no = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([local_no])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(key(row)?);
    }
    Ok(keys)
}

/// Whether an overlay group that shows deletes a record.
pub(crate) fn is_deleted(connection: &Connection, key: &RecordKey) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM gbsync_overlay WHERE touch = 'delete' AND entity = ?1 AND id = ?2)";
    Ok(connection.prepare_cached(sql)?.query_row([key.entity.as_str(), key.id.as_str()], |row| row.get(0))?)
}

/// Whether any group lies over anything.
pub(crate) fn is_empty(connection: &Connection) -> Result<bool, Error> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM gbsync_overlay LIMIT 1")?;
    Ok(statement.query_row([], |_| Ok(())).optional()?.is_none())
}

/// Every record that a group lies over, after `after` in key order, at most `limit`.
pub(crate) fn keys_after(connection: &Connection, after: Option<&RecordKey>, limit: u32) -> Result<Vec<RecordKey>, Error> {
    let sql = "SELECT DISTINCT entity, id FROM gbsync_overlay WHERE (entity, id) > (?1, ?2) ORDER BY entity, id LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let (entity, id) = after.map_or(("", ""), |key| (key.entity.as_str(), key.id.as_str()));
    let mut rows = statement.query(params![entity, id, limit])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(key(row)?);
    }
    Ok(keys)
}

fn key(row: &Row<'_>) -> Result<RecordKey, Error> {
    let (entity, id): (Box<str>, Box<str>) = (row.get(0)?, row.get(1)?);
    let about = |error| damaged("gbsync_overlay", error);
    Ok(RecordKey { entity: Entity::new(entity).map_err(about)?, id: RecordId::new(id).map_err(about)? })
}
