//! `gbsync_sequence`: the last number given of each sequence. Goes forward in the transaction that seals, and never back,
//! whatever becomes of the group.

use crate::error::{Error, damaged};
use gbsync_core::id::{DeviceId, EpochId};
use rusqlite::{Connection, params};

/// Takes the next number.
pub(crate) fn next(connection: &Connection, name: &str) -> Result<u64, Error> {
    let sql = "INSERT INTO gbsync_sequence(name, n) VALUES (?1, 1) ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n";
    Ok(connection.prepare_cached(sql)?.query_row([name], |row| row.get(0))?)
}

/// Goes on above a number that the server knows of this device.
pub(crate) fn go_on_above(connection: &Connection, name: &str, n: u64) -> Result<(), Error> {
    let sql = "INSERT INTO gbsync_sequence(name, n) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = max(n, ?2) WHERE n < ?2";
    connection.prepare_cached(sql)?.execute(params![name, n])?;
    Ok(())
}

/// Under whose name numbers are given: the device, and the epoch that is or, where one is wanted, will be.
pub(crate) fn giver(connection: &Connection) -> Result<(DeviceId, EpochId), Error> {
    let sql = "SELECT device, coalesce(wanted_epoch, epoch) FROM gbsync_state";
    let (device, epoch): (Box<str>, Box<str>) =
        connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let about = |error| damaged("gbsync_state", error);
    Ok((DeviceId::new(device).map_err(about)?, EpochId::new(epoch).map_err(about)?))
}
