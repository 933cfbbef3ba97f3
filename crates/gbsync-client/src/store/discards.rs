//! `gbsync_discard`: what the server is to be told of groups that are not sent any more.
//!
//! Invariant (P11): a row stays until the server answered, so that every number this device gave is accounted for there.

use super::parked;
use crate::error::{Error, damaged};
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, EpochId, GroupId, GroupType};
use gbsync_core::wire::{DiscardRequest, SealedAs};
use rusqlite::{Connection, Row, params};

/// Keeps the intent to tell the server that a group is not wanted.
pub(crate) fn intend(connection: &Connection, id: &GroupId, reason: &str, actor: Option<&Actor>) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO gbsync_discard(group_id, reason, actor) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![id.as_str(), reason, actor.map(Actor::as_str)])?;
    Ok(())
}

/// The server knows: it answered, or it closed the group itself.
pub(crate) fn forget(connection: &Connection, id: &GroupId) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM gbsync_discard WHERE group_id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// What is to be told, in seal order.
pub(crate) fn all(connection: &Connection) -> Result<Vec<(GroupId, DiscardRequest)>, Error> {
    let sql = "SELECT d.group_id, d.reason, d.actor, s.device, x.epoch, x.device_seq, x.actor, x.type
                 FROM gbsync_discard AS d JOIN gbsync_outbox AS x ON x.group_id = d.group_id JOIN gbsync_state AS s
                ORDER BY x.local_no";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(request(row)?);
    }
    Ok(found)
}

fn request(row: &Row<'_>) -> Result<(GroupId, DiscardRequest), Error> {
    let about = |error| damaged("gbsync_discard", error);
    let text = |index| -> Result<Box<str>, Error> { Ok(row.get(index)?) };
    let optional = |index| -> Result<Option<Box<str>>, Error> { Ok(row.get(index)?) };
    let sealed_as = SealedAs {
        device: DeviceId::new(text(3)?).map_err(about)?,
        epoch: EpochId::new(text(4)?).map_err(about)?,
        device_seq: DeviceSeq(row.get(5)?),
        actor: optional(6)?.map(Actor::new).transpose().map_err(about)?,
        group_type: optional(7)?.map(GroupType::new).transpose().map_err(about)?,
    };
    let request = DiscardRequest {
        reason: row.get(1)?,
        actor: optional(2)?.map(Actor::new).transpose().map_err(about)?,
        sealed_as: Some(sealed_as),
    };
    Ok((GroupId::new(text(0)?).map_err(about)?, request))
}

/// Discards a parked group: it is closed here, and the server is told at the next round.
pub(crate) fn discard(
    connection: &Connection,
    id: &GroupId,
    reason: &str,
    actor: Option<&Actor>,
    now: u64,
) -> Result<(), Error> {
    let open = parked::open(connection, id)?;
    let closing = parked::Closing { state: "discarded", by: None, actor, reason: Some(reason) };
    parked::close(connection, open.local_no, &closing, now)?;
    intend(connection, id, reason, actor)
}
