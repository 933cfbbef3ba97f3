//! One record as the device shows it, with the base that an edit of it would have.

use crate::error::Error;
use crate::store::{base, outbox, overlay};
use gbsync_core::change::{Base, Payload};
use gbsync_core::depend::Trail;
use gbsync_core::id::{RecordKey, Seq};
use rusqlite::Connection;

/// One record as the device shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// The record; `None` when it is not there.
    pub(crate) payload: Option<Payload>,
    /// What an edit made now would be made on.
    pub(crate) base: Base,
}

/// The record as base and overlay show it.
pub(crate) fn of(connection: &Connection, key: &RecordKey) -> Result<View, Error> {
    let confirmed = base::read(connection, key)?;
    let version = confirmed.as_ref().map_or(Seq(0), |row| row.edit_version);
    let Some(shown) = overlay::latest_shown(connection, key)? else {
        let payload = confirmed.and_then(|row| row.payload);
        return Ok(View { payload, base: Base { version, group: None } });
    };
    let edited = still_over(connection, key, &shown, shown.trail)?.edited;
    let group = match edited {
        Some(local_no) => outbox::id_of(connection, local_no)?,
        None => None,
    };
    Ok(View { payload: shown.payload, base: Base { version, group } })
}

/// The overlay groups that touched a record last.
pub(crate) fn trail(connection: &Connection, key: &RecordKey) -> Result<Trail<i64>, Error> {
    match overlay::latest(connection, key)? {
        Some(latest) => still_over(connection, key, &latest, latest.trail),
        None => Ok(Trail::default()),
    }
}

/// Forgets the groups of a trail that lie over the record no longer: they are part of the base now.
fn still_over(
    connection: &Connection,
    key: &RecordKey,
    row: &overlay::OverlayRow,
    trail: Trail<i64>,
) -> Result<Trail<i64>, Error> {
    let earliest = match trail.edited == Some(row.local_no) && trail.born_or_died.is_none_or(|no| no == row.local_no) {
        true => return Ok(trail),
        false => overlay::earliest(connection, key)?,
    };
    let is_over = |local_no: &i64| earliest.is_some_and(|earliest| *local_no >= earliest);
    Ok(Trail {
        touched: trail.touched,
        edited: trail.edited.filter(is_over),
        born_or_died: trail.born_or_died.filter(is_over),
    })
}
