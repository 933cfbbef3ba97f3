//! Families in `gbsync_parked`: a group and all that were sealed in its place, one after the other.
//!
//! Invariant: the server accepts at most one of them; which one, or who closed them, is the same for all members.

use super::outbox::StoredState;
use super::parked;
use crate::error::{Error, damaged};
use gbsync_core::id::{Actor, GroupId};
use gbsync_core::verdict::Resolution;
use rusqlite::{Connection, OptionalExtension as _, params};

/// A group of a family.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) local_no: i64,
    pub(crate) id: GroupId,
    pub(crate) state: StoredState,
    pub(crate) attempts: u32,
    pub(crate) replaced_by: Option<GroupId>,
    pub(crate) is_closed_by_log: bool,
}

/// Whether a group is of any family: it was parked, or stands for one that was.
pub(crate) fn is_noted(connection: &Connection, local_no: i64) -> Result<bool, Error> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM gbsync_parked WHERE local_no = ?1")?;
    Ok(statement.query_row([local_no], |_| Ok(())).optional()?.is_some())
}

/// The family of a group, itself included, in seal order.
pub(crate) fn members(connection: &Connection, local_no: i64) -> Result<Vec<Member>, Error> {
    let sql = "SELECT x.local_no, x.group_id, x.state, x.attempts, p.replaced_by, p.is_closed_by_log
                 FROM gbsync_parked AS p JOIN gbsync_outbox AS x ON x.local_no = p.local_no
                WHERE p.family = (SELECT family FROM gbsync_parked WHERE local_no = ?1) ORDER BY p.local_no";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([local_no])?;
    let about = |error| damaged("gbsync_parked", error);
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let replaced_by: Option<Box<str>> = row.get(4)?;
        found.push(Member {
            local_no: row.get(0)?,
            id: GroupId::new(row.get::<_, Box<str>>(1)?).map_err(about)?,
            state: StoredState::from_stored(row.get_ref(2)?.as_str().unwrap_or_default())?,
            attempts: row.get(3)?,
            replaced_by: replaced_by.map(GroupId::new).transpose().map_err(about)?,
            is_closed_by_log: row.get(5)?,
        });
    }
    Ok(found)
}

/// The member of a group's family that took effect, if it is known here.
pub(crate) fn accepted(connection: &Connection, local_no: i64) -> Result<Option<GroupId>, Error> {
    let members = members(connection, local_no)?;
    Ok(members.into_iter().find(|member| member.state == StoredState::Accepted).map(|member| member.id))
}

/// Keeps with the whole family how the log closed it.
pub(crate) fn note_closure(connection: &Connection, local_no: i64, resolution: &Resolution, now: u64) -> Result<(), Error> {
    let sql = "UPDATE gbsync_parked SET is_closed_by_log = 1, replaced_by = ?2, closed_by = ?3, reason = ?4, closed_at = ?5,
                      closed_as = ?6
                WHERE family = (SELECT family FROM gbsync_parked WHERE local_no = ?1)";
    connection.prepare_cached(sql)?.execute(params![
        local_no,
        resolution.by.as_ref().map(GroupId::as_str),
        resolution.actor.as_ref().map(Actor::as_str),
        resolution.reason,
        now,
        resolution.resolved_as.as_str()
    ])?;
    Ok(())
}

/// Closes a rejected group as the log closed its family before, if it did.
pub(crate) fn take_over_closure(connection: &Connection, local_no: i64, now: u64) -> Result<bool, Error> {
    let sql = "SELECT closed_as, replaced_by, closed_by, reason FROM gbsync_parked
                WHERE family = (SELECT family FROM gbsync_parked WHERE local_no = ?1) AND is_closed_by_log
                ORDER BY local_no LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([local_no])?;
    let Some(row) = rows.next()? else { return Ok(false) };
    let about = |error| damaged("gbsync_parked", error);
    let state = match row.get_ref(0)?.as_str().unwrap_or_default() {
        "amended" => "replaced",
        "discarded" => "discarded",
        "compensated" => "compensated",
        other => return Err(damaged("gbsync_parked.closed_as", other)),
    };
    let (by, actor): (Option<Box<str>>, Option<Box<str>>) = (row.get(1)?, row.get(2)?);
    let by = by.map(GroupId::new).transpose().map_err(about)?;
    let actor = actor.map(Actor::new).transpose().map_err(about)?;
    let reason: Option<String> = row.get(3)?;
    drop(rows);
    let closing = parked::Closing { state, by: by.as_ref(), actor: actor.as_ref(), reason: reason.as_deref() };
    parked::close(connection, local_no, &closing, now)?;
    connection.prepare_cached("UPDATE gbsync_parked SET is_closed_by_log = 1 WHERE local_no = ?1")?.execute([local_no])?;
    Ok(true)
}
