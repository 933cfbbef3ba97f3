//! `sequences`: the highest number of each sequence that a device gave.

use super::row::{count, stored};
use crate::store::StoreError;
use gbsync_core::id::DeviceId;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

/// The highest number of each sequence.
pub(super) fn of_device(
    connection: &Connection,
    space_no: i64,
    device: &DeviceId,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT sequence, highest FROM sequences WHERE space_no = ?1 AND device = ?2")?;
    let mut rows = statement.query(params![space_no, device.as_str()])?;
    let mut highest = BTreeMap::new();
    while let Some(row) = rows.next()? {
        highest.insert(row.get(0)?, count(row, 1)?);
    }
    Ok(highest)
}

/// Keeps what was learned.
pub(super) fn write_sequences(
    connection: &Connection,
    space_no: i64,
    learned: &BTreeMap<(DeviceId, String), u64>,
) -> Result<(), StoreError> {
    for ((device, sequence), highest) in learned {
        connection
            .prepare_cached(
                "INSERT INTO sequences (space_no, device, sequence, highest) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (space_no, device, sequence) DO UPDATE SET highest = max(highest, excluded.highest)",
            )?
            .execute(params![space_no, device.as_str(), sequence, stored(*highest)])?;
    }
    Ok(())
}
