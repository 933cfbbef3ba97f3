//! One committed state, record by record.
//!
//! The read holds a transaction of its own connection: it keeps nobody from writing, and the WAL from being begun anew until
//! it ends (docs/decisions/0028 has how long that is).

use super::adopt::schema_mark;
use super::flags;
use super::row::{count, id, space as space_row, stored};
use crate::store::{EachRecord, Part, SnapshotOf, StoreError};
use gbsync_core::id::{GroupId, Seq};
use gbsync_core::wire::{SnapshotFlag, SnapshotRow};
use rusqlite::Connection;

const RECORDS: &str = "SELECT entity, id, version, edit_version, payload, scopes FROM records
                      WHERE space_no = ?1 AND (payload IS NOT NULL OR version > ?2) ORDER BY entity, id";

/// Open flags with their groups: of those the log may have no entry any more. Looked for where there are any.
const FLAGS: &str = "
SELECT f.seq, f.place, f.code, f.rule, f.message, f.entity, f.id, f.cleared_by, g.group_id
  FROM groups AS g CROSS JOIN flags AS f ON f.space_no = g.space_no AND f.seq = g.seq
 WHERE g.space_no = ?1 AND g.flags IS NOT NULL AND f.cleared_by IS NULL
   AND EXISTS (SELECT 1 FROM flags WHERE space_no = ?1 AND cleared_by IS NULL)
 ORDER BY f.seq, f.place";

pub(super) fn each_record(connection: &Connection, of: &SnapshotOf, take: &mut dyn EachRecord) -> Result<bool, StoreError> {
    let Some((space_no, state)) = space_row(connection, &of.space)? else { return Ok(false) };
    if !take.begin(&state, schema_mark(connection)?.latest)? {
        return Ok(true);
    }
    let mut statement = connection.prepare(RECORDS)?;
    let mut rows = statement.query([space_no, stored(state.horizon.0)])?;
    let damaged = |error: rusqlite::types::FromSqlError| StoreError::Damaged(error.to_string());
    while let Some(row) = rows.next()? {
        if !of.part.shows(row.get_ref(5)?.as_str_or_null().map_err(damaged)?)? {
            continue;
        }
        take.record(&SnapshotRow {
            entity: row.get_ref(0)?.as_str().map_err(damaged)?,
            id: row.get_ref(1)?.as_str().map_err(damaged)?,
            version: Seq(count(row, 2)?),
            edit_version: Seq(count(row, 3)?),
            payload: row.get_ref(4)?.as_str_or_null().map_err(damaged)?,
        })?;
    }
    // What a flag says may be of a record that the holder of scopes does not see.
    if of.part != Part::Whole {
        return Ok(true);
    }
    let mut statement = connection.prepare(FLAGS)?;
    let mut rows = statement.query([space_no])?;
    while let Some(row) = rows.next()? {
        let info = flags::info(row)?;
        let group = id(row, 8, GroupId::new)?;
        take.flag(&SnapshotFlag { seq: info.id.seq, place: info.id.place, group, flag: info.flag })?;
    }
    Ok(true)
}
