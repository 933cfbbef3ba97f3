//! `flags`: soft rules that accepted groups broke, until a group clears them.

use super::row::{count, space as space_row, stored};
use crate::store::{FlagId, FlagInfo, FlagsRequest, StoreError, StoredGroup, sighted};
use gbsync_core::id::{RecordKey, Seq};
use gbsync_core::scope::Reach;
use gbsync_core::verdict::{Flag, RejectionCode};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use std::collections::{BTreeMap, BTreeSet};

/// Those of the flags that there are, and where the record of each is seen.
pub(super) fn known_flags(
    connection: &Connection,
    space_no: i64,
    wanted: &BTreeSet<FlagId>,
) -> Result<BTreeMap<FlagId, Reach>, StoreError> {
    let mut known = BTreeMap::new();
    for flag in wanted {
        let mut statement = connection.prepare_cached(
            "SELECT r.id IS NOT NULL, r.scopes FROM flags AS f
               LEFT JOIN records AS r ON r.space_no = f.space_no AND r.entity = f.entity AND r.id = f.id
              WHERE f.space_no = ?1 AND f.seq = ?2 AND f.place = ?3",
        )?;
        let mut rows = statement.query(params![space_no, stored(flag.seq.0), stored(flag.place)])?;
        if let Some(row) = rows.next()? {
            let scopes: Option<String> = row.get(1)?;
            let reach = if row.get(0)? { sighted::reach(scopes.as_deref())? } else { Reach::nowhere() };
            known.insert(*flag, reach);
        }
    }
    Ok(known)
}

/// Keeps the flags of accepted groups.
pub(super) fn write_flags(connection: &Connection, space_no: i64, groups: &[StoredGroup]) -> Result<(), StoreError> {
    for group in groups {
        let Some(seq) = group.seq.filter(|_| !group.flags.is_empty()) else { continue };
        let mut statement = connection.prepare_cached(
            "INSERT INTO flags (space_no, seq, place, code, rule, message, entity, id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for (place, Flag { code, rule, message, key }) in group.flags.iter().enumerate() {
            let (seq, place, code) = (stored(seq.0), stored(place as u64), code.as_str());
            let (entity, id) = (key.as_ref().map(|key| key.entity.as_str()), key.as_ref().map(|key| key.id.as_str()));
            statement.execute(params![space_no, seq, place, code, rule, message, entity, id])?;
        }
    }
    Ok(())
}

/// Notes which groups cleared which flags; the first to clear one stays.
pub(super) fn clear_flags(
    connection: &Connection,
    space_no: i64,
    cleared: &BTreeMap<FlagId, Seq>,
) -> Result<(), StoreError> {
    for (flag, by) in cleared {
        connection
            .prepare_cached(
                "UPDATE flags SET cleared_by = ?4
                 WHERE space_no = ?1 AND seq = ?2 AND place = ?3 AND cleared_by IS NULL",
            )?
            .execute(params![space_no, stored(flag.seq.0), stored(flag.place), stored(by.0)])?;
    }
    Ok(())
}

/// That the record of a flag is seen in one of these scopes, a JSON array.
const IS_SEEN: &str = "EXISTS (
  SELECT 1 FROM records AS r WHERE r.space_no = f.space_no AND r.entity = f.entity AND r.id = f.id AND (r.scopes IS NULL OR EXISTS (
    SELECT 1 FROM json_each(r.scopes) AS s WHERE s.value IN (SELECT value FROM json_each(?5)))))";

/// Flags in the order of the log.
pub(super) fn list(connection: &Connection, request: &FlagsRequest) -> Result<Option<Vec<FlagInfo>>, StoreError> {
    let Some((space_no, _)) = space_row(connection, &request.space)? else { return Ok(None) };
    let open = if request.is_open_only { "AND cleared_by IS NULL" } else { "" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT seq, place, code, rule, message, entity, id, cleared_by FROM flags AS f
         WHERE space_no = ?1 AND (seq, place) > (?2, ?3) {open} AND (?5 IS NULL OR {IS_SEEN}) ORDER BY seq, place LIMIT ?4"
    ))?;
    let (seq, after) = request.after.map_or((0, -1), |after| (stored(after.seq.0), stored(after.place)));
    let scopes = request.scopes.to_json();
    let mut rows = statement.query(params![space_no, seq, after, stored(request.most), scopes])?;
    let mut flags = Vec::new();
    while let Some(row) = rows.next()? {
        flags.push(info(row)?);
    }
    Ok(Some(flags))
}

/// A flag, from eight columns.
pub(super) fn info(row: &Row<'_>) -> Result<FlagInfo, StoreError> {
    let damaged = |what: String| StoreError::Damaged(format!("a flag: {what}"));
    let (code, entity, id): (String, Option<String>, Option<String>) = (row.get(2)?, row.get(5)?, row.get(6)?);
    let code = RejectionCode::from_wire(&code).ok_or_else(|| damaged(format!("{code:?} is no code")))?;
    let key = entity.zip(id).map(|(entity, id)| RecordKey::new(&entity, &id)).transpose();
    let flag = Flag { code, rule: row.get(3)?, message: row.get(4)?, key: key.map_err(|error| damaged(error.to_string()))? };
    let cleared_by = if row.get_ref(7)? == ValueRef::Null { None } else { Some(Seq(count(row, 7)?)) };
    Ok(FlagInfo { id: FlagId { seq: Seq(count(row, 0)?), place: count(row, 1)? }, flag, cleared_by })
}
