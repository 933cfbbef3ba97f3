//! A new epoch: this database was restored from an old copy or cloned, so the server knows its numbers under other ids
//! (docs/protocol.md, "Push").
//!
//! The intent is persisted first, then the log is read anew, then the numbers change: so groups that the log already
//! holds keep their number, and the new epoch has no gap, whenever a crash comes.

use crate::environment::Environment;
use crate::error::Error;
use crate::store::{outbox, state};
use gbsync_core::id::DeviceSeq;
use rusqlite::Connection;

/// Begins the epoch that was wanted: numbers the undecided groups anew from 1 in seal order. Ids and bytes stay.
pub(crate) fn begin(tx: &Connection, environment: &Environment) -> Result<(), Error> {
    let last = DeviceSeq(outbox::next_group(tx)?.device_seq.0 - 1);
    let epoch = state::read(tx)?.wanted_epoch.unwrap_or_else(|| environment.new_epoch());
    let numbered = outbox::renumber(tx, &epoch)?;
    state::set_epoch(tx, &epoch, last, numbered)
}
