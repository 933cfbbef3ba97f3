//! `gbsync_parked`: the groups that were parked, those that stand in their place, and what became of them.
//!
//! Invariant: at most one group of a family is undecided or parked on this device; nothing here deletes a payload while any
//! of its family is open.

use super::outbox::{self, ids_from_json};
use crate::error::{Error, damaged};
use crate::operation::staging::{Instead, MadeBy};
use gbsync_core::change::Payload;
use gbsync_core::id::{Actor, GroupId, GroupType, Seq};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Notes that a group is parked, in a family of its own if it is in none.
pub(crate) fn note(connection: &Connection, local_no: i64) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO gbsync_parked(local_no, family)
               SELECT local_no, group_id FROM gbsync_outbox WHERE local_no = ?1";
    connection.prepare_cached(sql)?.execute([local_no])?;
    Ok(())
}

/// Whether no group here ever was parked: the common case, in which nothing has to be looked up.
pub(crate) fn is_empty(connection: &Connection) -> Result<bool, Error> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM gbsync_parked LIMIT 1")?;
    Ok(statement.query_row([], |_| Ok(())).optional()?.is_none())
}

/// Forgets a group that left the outbox.
pub(super) fn forget(connection: &Connection, local_no: i64) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM gbsync_parked WHERE local_no = ?1")?.execute([local_no])?;
    connection.prepare_cached("DELETE FROM gbsync_parked_base WHERE local_no = ?1")?.execute([local_no])?;
    Ok(())
}

/// Keeps what a change of a group was made on.
pub(crate) fn keep_base(connection: &Connection, local_no: i64, index: usize, payload: &Payload) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO gbsync_parked_base(local_no, idx, payload) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![local_no, index as u64, payload.as_str()])?;
    Ok(())
}

/// A kept group with what it was sealed as.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) local_no: i64,
    pub(crate) id: GroupId,
    /// As stored.
    pub(crate) state: String,
    pub(crate) group_type: Option<GroupType>,
    pub(crate) root: Option<String>,
    pub(crate) actor: Option<Actor>,
    pub(crate) depends_on: Vec<GroupId>,
    pub(crate) clears: Vec<Box<str>>,
    pub(crate) seq: Option<Seq>,
    pub(crate) replaced_by: Option<GroupId>,
    pub(crate) is_requeued: bool,
}

/// A group of this outbox, whatever became of it.
pub(crate) fn kept(connection: &Connection, id: &GroupId) -> Result<Option<Kept>, Error> {
    let sql = "SELECT x.local_no, x.state, x.type, x.root, x.actor, x.depends_on, x.seq, p.replaced_by,
                      coalesce(p.is_requeued, 0), x.clears
                 FROM gbsync_outbox AS x LEFT JOIN gbsync_parked AS p ON p.local_no = x.local_no WHERE x.group_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let about = |error| damaged("gbsync_outbox", error);
    let text = |index| -> Result<Option<Box<str>>, Error> { Ok(row.get(index)?) };
    let clears: Option<String> = row.get(9)?;
    Ok(Some(Kept {
        local_no: row.get(0)?,
        id: id.clone(),
        state: row.get(1)?,
        group_type: text(2)?.map(GroupType::new).transpose().map_err(about)?,
        root: row.get(3)?,
        actor: text(4)?.map(Actor::new).transpose().map_err(about)?,
        depends_on: ids_from_json(text(5)?.as_deref())?,
        clears: clears
            .map_or(Ok(Vec::new()), |clears| serde_json::from_str(&clears))
            .map_err(|error| damaged("gbsync_outbox.clears", error))?,
        seq: row.get::<_, Option<u64>>(6)?.map(Seq),
        replaced_by: text(7)?.map(GroupId::new).transpose().map_err(about)?,
        is_requeued: row.get(8)?,
    }))
}

/// A parked group that somebody wants to do something about.
///
/// # Errors
/// [`Error::UnknownGroup`] when it is not kept, [`Error::NotParked`] in any other state.
pub(crate) fn open(connection: &Connection, id: &GroupId) -> Result<Kept, Error> {
    let kept = kept(connection, id)?.ok_or_else(|| Error::UnknownGroup(id.clone()))?;
    match kept.state.as_str() {
        "parked" => Ok(kept),
        _ => Err(Error::NotParked { id: id.clone(), state: kept.state }),
    }
}

/// The parked groups whose only fault is what they depend on, in seal order.
pub(crate) fn dependents(connection: &Connection) -> Result<Vec<GroupId>, Error> {
    let sql = "SELECT group_id FROM gbsync_outbox WHERE state = 'parked' AND code = 'dependency_rejected' ORDER BY local_no";
    ids(connection, sql, params![])
}

/// The parked groups that a resolver may be asked about, in seal order.
pub(crate) fn unasked(connection: &Connection, most_attempts: u32) -> Result<Vec<GroupId>, Error> {
    let sql = "SELECT x.group_id FROM gbsync_outbox AS x JOIN gbsync_parked AS p ON p.local_no = x.local_no
                WHERE x.state = 'parked' AND x.code <> 'dependency_rejected' AND NOT p.is_left AND p.resolver_attempts < ?1
                ORDER BY x.local_no";
    ids(connection, sql, params![most_attempts])
}

/// How often the resolver answered for a group and those it stands for.
pub(crate) fn resolver_attempts(connection: &Connection, id: &GroupId) -> Result<u32, Error> {
    let sql = "SELECT p.resolver_attempts FROM gbsync_parked AS p JOIN gbsync_outbox AS x ON x.local_no = p.local_no
                WHERE x.group_id = ?1";
    let attempts = connection.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?;
    Ok(attempts.unwrap_or(0))
}

/// Notes that the resolver leaves a group to a person.
pub(crate) fn leave(connection: &Connection, local_no: i64) -> Result<(), Error> {
    connection.prepare_cached("UPDATE gbsync_parked SET is_left = 1 WHERE local_no = ?1")?.execute([local_no])?;
    Ok(())
}

/// Says why a group stays parked.
pub(crate) fn set_message(connection: &Connection, local_no: i64, message: &str) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET message = ?2 WHERE local_no = ?1 AND state = 'parked'";
    connection.prepare_cached(sql)?.execute(params![local_no, message])?;
    Ok(())
}

fn ids(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<GroupId>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id: Box<str> = row.get(0)?;
        found.push(GroupId::new(id).map_err(|error| damaged("gbsync_outbox.group_id", error))?);
    }
    Ok(found)
}

/// Closes a parked group because a new one, just stored, stands in its place.
pub(crate) fn replace(
    connection: &Connection,
    instead: &Instead,
    (new_no, new_id): (i64, &GroupId),
    now: u64,
) -> Result<(), Error> {
    let old = open(connection, &instead.of)?;
    let (is_requeued, is_resolver) = (instead.made_by == MadeBy::Requeue, instead.made_by == MadeBy::Resolver);
    // A group behind a parked one is stored as parked and noted already.
    let sql = "INSERT INTO gbsync_parked(local_no, family, is_requeued, resolver_attempts)
               SELECT ?1, family, ?3, resolver_attempts + ?4 FROM gbsync_parked WHERE local_no = ?2
               ON CONFLICT DO UPDATE SET family = excluded.family, is_requeued = excluded.is_requeued,
                                         resolver_attempts = excluded.resolver_attempts";
    connection.prepare_cached(sql)?.execute(params![new_no, old.local_no, is_requeued, is_resolver])?;
    close(connection, old.local_no, &Closing { state: "replaced", by: Some(new_id), actor: None, reason: None }, now)
}

/// How a group is closed.
pub(crate) struct Closing<'a> {
    /// The state it has from now on.
    pub(crate) state: &'a str,
    /// The group that stands in its place, or makes up for it.
    pub(crate) by: Option<&'a GroupId>,
    /// Who closed it.
    pub(crate) actor: Option<&'a Actor>,
    /// Why.
    pub(crate) reason: Option<&'a str>,
}

/// Closes a group: it is kept and not sent any more.
pub(crate) fn close(connection: &Connection, local_no: i64, closing: &Closing<'_>, now: u64) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET state = ?2, next_attempt_at = NULL WHERE local_no = ?1";
    connection.prepare_cached(sql)?.execute(params![local_no, closing.state])?;
    let sql = "UPDATE gbsync_parked SET replaced_by = ?2, closed_by = ?3, reason = ?4, closed_at = ?5 WHERE local_no = ?1";
    let (by, actor) = (closing.by.map(GroupId::as_str), closing.actor.map(Actor::as_str));
    connection.prepare_cached(sql)?.execute(params![local_no, by, actor, closing.reason, now])?;
    Ok(())
}

/// The group that stands for this one now: itself, or the last that was sealed in its place.
pub(crate) fn stands_for(connection: &Connection, id: &GroupId) -> Result<GroupId, Error> {
    let mut id = id.clone();
    // A family is as long as people had patience; a circle would be damage.
    for _ in 0..100_000 {
        match kept(connection, &id)? {
            Some(Kept { state, replaced_by: Some(next), .. }) if state == "replaced" => id = next,
            _ => return Ok(id),
        }
    }
    Err(damaged("gbsync_parked", format!("{id} stands in its own place")))
}

/// Removes closed groups that are older than `before`, once nothing of their family is open; at most `limit`.
pub(crate) fn prune(connection: &Connection, before: u64, limit: u32) -> Result<(), Error> {
    let sql = "SELECT p.local_no FROM gbsync_parked AS p JOIN gbsync_outbox AS x ON x.local_no = p.local_no
                WHERE p.closed_at < ?1 AND x.state IN ('replaced', 'discarded', 'compensated', 'superseded')
                  AND NOT EXISTS (SELECT 1 FROM gbsync_discard AS d WHERE d.group_id = x.group_id)
                  AND NOT EXISTS (SELECT 1 FROM gbsync_parked AS q JOIN gbsync_outbox AS y ON y.local_no = q.local_no
                                   WHERE q.family = p.family AND y.state IN ('sealed', 'waiting_for_sign_in', 'parked'))
                  AND NOT EXISTS (SELECT 1 FROM gbsync_dependency AS e JOIN gbsync_outbox AS z ON z.local_no = e.child
                                   WHERE e.parent = x.group_id AND z.state = 'parked')
                ORDER BY p.local_no LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let old: Vec<i64> = statement.query_map(params![before, limit], |row| row.get(0))?.collect::<Result<_, _>>()?;
    outbox::remove(connection, &old)
}
