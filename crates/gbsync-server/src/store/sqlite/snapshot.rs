//! One committed state, record by record.
//!
//! The read holds a transaction of its own connection: it keeps nobody from writing, and the WAL from being begun anew until
//! it ends (docs/decisions/0028 has how long that is).

use super::row::{count, space as space_row, stored};
use crate::store::{EachRecord, SnapshotOf, StoreError};
use gbsync_core::id::Seq;
use gbsync_core::wire::SnapshotRow;
use rusqlite::Connection;

const RECORDS: &str = "SELECT entity, id, version, edit_version, payload, scopes FROM records
                      WHERE space_no = ?1 AND (payload IS NOT NULL OR version > ?2) ORDER BY entity, id";

pub(super) fn each_record(connection: &Connection, of: &SnapshotOf, take: &mut dyn EachRecord) -> Result<bool, StoreError> {
    let Some((space_no, state)) = space_row(connection, &of.space)? else { return Ok(false) };
    if !take.begin(&state)? {
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
    Ok(true)
}
