//! One record as the device shows it, with the base that an edit of it would have and the groups that touched it last.

use crate::error::Error;
use crate::schemas::Schemas;
use crate::store::overlay::OverlayRow;
use crate::store::{base, outbox, overlay, state};
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
    /// The overlay groups that touched it last, hidden ones included.
    pub(crate) trail: Trail<i64>,
}

impl View {
    /// Whether the record was there and is not any more.
    pub(crate) fn was_deleted(&self) -> bool {
        self.payload.is_none() && self.base != Base::default()
    }
}

/// The record as base and overlay show it, in the names that records are laid under.
pub(crate) fn under(schemas: &Schemas, connection: &Connection, key: &RecordKey) -> Result<View, Error> {
    let view = of(connection, key)?;
    Ok(View { payload: schemas.renewed(key, view.payload), ..view })
}

/// The record as base and overlay show it.
pub(crate) fn of(connection: &Connection, key: &RecordKey) -> Result<View, Error> {
    // One question: most records have nothing over them.
    let (confirmed, is_covered) = base::read_covered(connection, key)?;
    let version = match &confirmed {
        // The server has removed that tombstone, or counts it as removed: the record never was.
        Some(row) if row.payload.is_none() && row.edit_version <= state::horizon(connection)? => Seq(0),
        confirmed => confirmed.as_ref().map_or(Seq(0), |row| row.edit_version),
    };
    let latest = if is_covered { overlay::latest(connection, key)? } else { None };
    let Some(latest) = latest else {
        let payload = confirmed.and_then(|row| row.payload);
        return Ok(View { payload, base: Base { version, group: None }, trail: Trail::default() });
    };
    let trail = still_over(connection, key, &latest)?;
    let shown = if latest.is_hidden { overlay::latest_shown(connection, key)? } else { Some(latest) };
    let Some(shown) = shown else {
        let payload = confirmed.and_then(|row| row.payload);
        return Ok(View { payload, base: Base { version, group: None }, trail });
    };
    let group = match still_over(connection, key, &shown)?.edited {
        Some(local_no) => outbox::id_of(connection, local_no)?,
        None => None,
    };
    Ok(View { payload: shown.payload, base: Base { version, group }, trail })
}

/// The trail of a row, without the groups that lie over the record no longer: they are part of the base now.
fn still_over(connection: &Connection, key: &RecordKey, row: &OverlayRow) -> Result<Trail<i64>, Error> {
    let trail = row.trail;
    if trail.edited.is_none_or(|no| no == row.local_no) && trail.born_or_died.is_none_or(|no| no == row.local_no) {
        return Ok(trail);
    }
    let earliest = overlay::earliest(connection, key)?;
    let is_over = |local_no: &i64| earliest.is_some_and(|earliest| *local_no >= earliest);
    Ok(Trail {
        touched: trail.touched,
        edited: trail.edited.filter(is_over),
        born_or_died: trail.born_or_died.filter(is_over),
    })
}
