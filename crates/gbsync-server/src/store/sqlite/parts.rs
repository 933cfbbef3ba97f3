//! Groups in parts: what is staged of those that devices upload, and log entries that no page holds.
//!
//! Invariant: nothing staged is read but by the push that names it, in the transaction that decides it.

use super::row::{count, decided, place, space as space_row, stored};
use crate::store::{LogPart, PartRequest, Staged, Staging, StoreError, UploadedPart, sighted};
use gbsync_core::id::{DeviceId, GroupId, SpaceId};
use gbsync_core::limits::MISSING_PARTS;
use gbsync_core::scope::Sight;
use gbsync_core::wire::change_count;
use rusqlite::{Connection, OptionalExtension, params};

/// How many of the largest groups a device may have staged at a time.
const DEVICE_GROUPS: u64 = 2;

pub(super) fn stage(
    connection: &Connection,
    part: &UploadedPart,
    group_bytes: u64,
    now_ms: u64,
) -> Result<Staging, StoreError> {
    let Some((space_no, _)) = space_row(connection, &part.space)? else { return Ok(Staging::NoSpace) };
    if decided(connection, space_no, &part.group)?.is_some() {
        return Ok(Staging::Decided);
    }
    let (device, group) = (part.device.as_str(), part.group.as_str());
    let before: Option<i64> = connection
        .prepare_cached(
            "SELECT octet_length(body) - 1 FROM upload_parts
              WHERE space_no = ?1 AND device = ?2 AND group_id = ?3 AND part = ?4",
        )?
        .query_row(params![space_no, device, group, stored(part.number)], |row| row.get(0))
        .optional()?;
    let others: Option<i64> = connection
        .prepare_cached("SELECT bytes FROM uploads WHERE space_no = ?1 AND device = ?2 AND group_id = ?3")?
        .query_row(params![space_no, device, group], |row| row.get(0))
        .optional()?;
    // Of the two brackets one stands for the comma to the next part.
    let bytes = others.unwrap_or(0) - before.unwrap_or(0) + stored(part.body.len() as u64) - 1;
    let bytes = u64::try_from(bytes).map_err(|_| StoreError::Damaged(format!("{bytes} bytes are staged of {group}")))?;
    if bytes + 1 > group_bytes {
        return Ok(Staging::OverLimit(group_bytes));
    }
    make_room(connection, space_no, part, bytes, group_bytes.saturating_mul(DEVICE_GROUPS))?;
    connection
        .prepare_cached(
            "INSERT INTO uploads (space_no, device, group_id, bytes, touched_ms) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET bytes = excluded.bytes, touched_ms = excluded.touched_ms",
        )?
        .execute(params![space_no, device, group, stored(bytes), stored(now_ms)])?;
    connection
        .prepare_cached(
            "INSERT INTO upload_parts (space_no, device, group_id, part, body) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET body = excluded.body",
        )?
        .execute(params![space_no, device, group, stored(part.number), part.body])?;
    Ok(Staging::Staged)
}

/// Removes the longest untouched uploads of the device, but this one, until this one has room. Their device will be told
/// which parts are missing and send them again.
fn make_room(
    connection: &Connection,
    space_no: i64,
    part: &UploadedPart,
    bytes: u64,
    device_bytes: u64,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT group_id, bytes FROM uploads WHERE space_no = ?1 AND device = ?2 AND group_id <> ?3
          ORDER BY touched_ms DESC, group_id",
    )?;
    let mut rows = statement.query(params![space_no, part.device.as_str(), part.group.as_str()])?;
    let (mut total, mut crowded_out) = (bytes, Vec::new());
    while let Some(row) = rows.next()? {
        total = total.saturating_add(count(row, 1)?);
        if total > device_bytes {
            crowded_out.push(row.get::<_, String>(0)?);
        }
    }
    crowded_out.iter().try_for_each(|group| remove(connection, space_no, part.device.as_str(), group))
}

fn remove(connection: &Connection, space_no: i64, device: &str, group: &str) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM upload_parts WHERE space_no = ?1 AND device = ?2 AND group_id = ?3",
        "DELETE FROM uploads WHERE space_no = ?1 AND device = ?2 AND group_id = ?3",
    ] {
        connection.prepare_cached(sql)?.execute(params![space_no, device, group])?;
    }
    Ok(())
}

pub(super) fn staged(
    connection: &Connection,
    space: &SpaceId,
    device: &DeviceId,
    group: &GroupId,
    parts: u64,
    take: &mut dyn FnMut(&str) -> Result<bool, StoreError>,
) -> Result<Staged, StoreError> {
    let Some((space_no, _)) = space_row(connection, space)? else { return Ok(Staged::Missing(vec![0])) };
    if decided(connection, space_no, group)?.is_some() {
        return Ok(Staged::Decided);
    }
    let values = params![space_no, device.as_str(), group.as_str(), stored(parts)];
    let missing = missing(connection, values, parts)?;
    if !missing.is_empty() {
        return Ok(Staged::Missing(missing));
    }
    let mut statement = connection.prepare_cached(
        "SELECT body FROM upload_parts WHERE space_no = ?1 AND device = ?2 AND group_id = ?3 AND part < ?4 ORDER BY part",
    )?;
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        let body = row.get_ref(0)?.as_str().map_err(|error| StoreError::Damaged(error.to_string()))?;
        if !take(body)? {
            break;
        }
    }
    Ok(Staged::All)
}

fn missing(connection: &Connection, values: &[&dyn rusqlite::ToSql], parts: u64) -> Result<Vec<u64>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT part FROM upload_parts WHERE space_no = ?1 AND device = ?2 AND group_id = ?3 AND part < ?4 ORDER BY part",
    )?;
    let mut rows = statement.query(values)?;
    let (mut missing, mut next) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let part = count(row, 0)?;
        missing.extend(next..part);
        next = part + 1;
    }
    missing.extend(next..parts);
    missing.truncate(MISSING_PARTS);
    Ok(missing)
}

pub(super) fn unstage(
    connection: &Connection,
    space: &SpaceId,
    device: &DeviceId,
    group: &GroupId,
) -> Result<(), StoreError> {
    match space_row(connection, space)? {
        Some((space_no, _)) => remove(connection, space_no, device.as_str(), group.as_str()),
        None => Ok(()),
    }
}

pub(super) fn expire(connection: &Connection, before_ms: u64) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("SELECT space_no, device, group_id FROM uploads WHERE touched_ms < ?1")?;
    let expired = statement.query_map([stored(before_ms)], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    let expired = expired.collect::<Result<Vec<_>, _>>()?;
    expired.iter().try_for_each(|(space_no, device, group)| remove(connection, *space_no, device, group))
}

/// Stores the parts of a log entry.
pub(super) fn write_log_parts(
    connection: &Connection,
    place: i64,
    bodies: impl Iterator<Item = String>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("INSERT INTO log_parts (place, part, body) VALUES (?1, ?2, ?3)")?;
    for (part, body) in bodies.enumerate() {
        statement.execute(params![place, stored(part as u64), body])?;
    }
    Ok(())
}

pub(super) fn log_part(connection: &Connection, request: &PartRequest) -> Result<LogPart, StoreError> {
    let PartRequest { space, log, seq, number, sight } = request;
    let Some((space_no, state)) = space_row(connection, space)? else { return Ok(LogPart::NoSpace) };
    if log.as_ref().is_some_and(|log| *log != state.log) {
        return Ok(LogPart::LogChanged);
    }
    if *seq > state.head {
        return Ok(LogPart::BeyondHead { head: state.head });
    }
    if *seq <= state.horizon {
        return Ok(LogPart::BehindHorizon { horizon: state.horizon });
    }
    let at = place(space_no, *seq)?;
    let mut statement = connection.prepare_cached(
        "SELECT body, scopes FROM log_parts JOIN log ON log.place = log_parts.place WHERE log_parts.place = ?1 AND part = ?2",
    )?;
    let found: Option<(String, Option<String>)> =
        statement.query_row([at, stored(*number)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((body, trace)) = found else { return Ok(LogPart::NoPart) };
    let skipped = || -> Result<u64, StoreError> {
        let mut statement = connection.prepare_cached("SELECT body FROM log_parts WHERE place = ?1 AND part < ?2")?;
        let mut rows = statement.query([at, stored(*number)])?;
        let mut skipped = 0;
        while let Some(row) = rows.next()? {
            skipped += change_count(&row.get::<_, String>(0)?);
        }
        Ok(skipped)
    };
    let told = sighted::log_part(sight, *seq, &body, skipped, trace.as_deref())?;
    Ok(told.map_or(LogPart::NoPart, LogPart::Body))
}

/// How many changes of an entry in parts are told, where nothing is stored beside it that says so.
pub(super) fn told(connection: &Connection, at: i64, sight: &Sight) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT body FROM log_parts WHERE place = ?1 ORDER BY part")?;
    let mut rows = statement.query([at])?;
    let mut told = 0;
    while let Some(row) = rows.next()? {
        told += sighted::told_in_parts(sight, [row.get::<_, String>(0)?])?;
    }
    Ok(told)
}
