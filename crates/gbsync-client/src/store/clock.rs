//! The hybrid logical clock of this device: the last reading is the greater one of what the state keeps and what the last
//! sealed group says, so that sealing writes no page for it.

use crate::error::{Error, damaged};
use gbsync_core::clock::Hlc;
use gbsync_core::id::DeviceId;
use rusqlite::{Connection, OptionalExtension as _, params};

fn reading(text: Option<String>) -> Result<Option<Hlc>, Error> {
    text.map(|text| Hlc::parse(&text)).transpose().map_err(|error| damaged("a clock's reading", error))
}

/// The reading for a group that is sealed now.
pub(crate) fn next(connection: &Connection, now: u64) -> Result<Hlc, Error> {
    let sql = "SELECT device, hlc FROM gbsync_state";
    let (device, kept): (Box<str>, Option<String>) =
        connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let device = DeviceId::new(device).map_err(|error| damaged("gbsync_state.device", error))?;
    let sql = "SELECT hlc FROM gbsync_outbox ORDER BY local_no DESC LIMIT 1";
    let sealed = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.flatten();
    let last = reading(kept)?.max(reading(sealed)?);
    Ok(Hlc::after(last.as_ref(), now, &device))
}

/// Takes the reading of another device's group: what is sealed here from now on comes after it.
pub(crate) fn hear(connection: &Connection, heard: &Hlc) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET hlc = ?1 WHERE hlc IS NULL OR hlc < ?1";
    connection.prepare_cached(sql)?.execute([heard.to_string()])?;
    Ok(())
}

/// Keeps the last reading in the state before the groups that show it are removed.
pub(crate) fn keep(connection: &Connection) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET hlc = max(coalesce(gbsync_state.hlc, ''), last.hlc)
                 FROM (SELECT hlc FROM gbsync_outbox ORDER BY local_no DESC LIMIT 1) AS last WHERE last.hlc IS NOT NULL";
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Stamps the undecided groups anew that are ahead of the server's clock, in seal order. Only what the groups say of
/// themselves changes; their bytes do not.
pub(crate) fn stamp_anew(connection: &Connection, server_now: u64, device: &DeviceId) -> Result<(), Error> {
    let mut last = Hlc::after(None, server_now, device);
    let sql = "SELECT local_no FROM gbsync_outbox WHERE state IN ('sealed', 'waiting_for_sign_in') AND hlc > ?1
                  AND local_no >= (SELECT pending_from FROM gbsync_state) ORDER BY local_no";
    let mut ahead = connection.prepare_cached(sql)?;
    let ahead: Vec<i64> = ahead.query_map([last.to_string()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut stamp = connection.prepare_cached("UPDATE gbsync_outbox SET hlc = ?2 WHERE local_no = ?1")?;
    for local_no in ahead {
        stamp.execute(params![local_no, last.to_string()])?;
        last = Hlc::after(Some(&last), server_now, device);
    }
    connection.execute("UPDATE gbsync_state SET hlc = ?1", [last.to_string()])?;
    Ok(())
}
