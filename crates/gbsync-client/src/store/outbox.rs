//! `gbsync_outbox`: sealed groups, their bytes, and what became of them.

use super::{clock, left, lost, parked};
use crate::error::{Error, damaged};
use gbsync_core::change::Change;
use gbsync_core::clock::Hlc;
use gbsync_core::digest::Digest;
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{Actor, DeviceSeq, EpochId, GroupId, GroupType, LogId, RecordKey, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::time::Timestamp;
use gbsync_core::wire::{self, MadeOn};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::BTreeSet;

/// The place of the last group that was sealed; 0 before the first.
pub(crate) fn last_no(connection: &Connection) -> Result<i64, Error> {
    Ok(next_group(connection)?.local_no - 1)
}

/// Where the next sealed group stands.
#[derive(Debug, Clone)]
pub(crate) struct NextGroup {
    /// Its place in the seal order of this device, over all epochs.
    pub(crate) local_no: i64,
    /// Its number: without gaps in its epoch.
    pub(crate) device_seq: DeviceSeq,
    pub(crate) epoch: EpochId,
}

/// Where the next sealed group stands: after the last row of the outbox, or where the state says, if rows were pruned or
/// an epoch began since.
pub(crate) fn next_group(connection: &Connection) -> Result<NextGroup, Error> {
    let mut statement = connection.prepare_cached("SELECT epoch, ordered_through, numbered_through FROM gbsync_state")?;
    let (epoch, ordered, numbered) =
        statement.query_row([], |row| Ok((row.get::<_, Box<str>>(0)?, row.get::<_, i64>(1)?, row.get::<_, u64>(2)?)))?;
    let sql = "SELECT local_no, device_seq, epoch = ?1 FROM gbsync_outbox ORDER BY local_no DESC LIMIT 1";
    let last = connection.prepare_cached(sql)?.query_row([&epoch], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let (last_no, last_seq, is_of_epoch): (i64, u64, bool) = last.optional()?.unwrap_or_default();
    let about = |error| damaged("gbsync_state", error);
    let last_seq = if is_of_epoch { last_seq } else { 0 };
    let is_possible = |number: i64| (0..i64::MAX).contains(&number);
    if !is_possible(last_no) || !is_possible(ordered) || numbered.max(last_seq) >= i64::MAX as u64 {
        return Err(damaged("gbsync_outbox", "a group has a number that none can have"));
    }
    let local_no = ordered.max(last_no) + 1;
    let numbered = if is(Mutant::DeviceSeqReused) { 0 } else { numbered };
    let device_seq = DeviceSeq(numbered.max(last_seq)).next();
    #[cfg(feature = "mutants")]
    let device_seq = crate::planted::skipped(device_seq, local_no);
    Ok(NextGroup { local_no, device_seq, epoch: EpochId::new(epoch).map_err(about)? })
}

/// The log that the confirmed versions belong to.
pub(crate) fn current_log(connection: &Connection) -> Result<Option<LogId>, Error> {
    let mut statement = connection.prepare_cached("SELECT log FROM gbsync_state")?;
    let log: Option<Box<str>> = statement.query_row([], |row| row.get(0))?;
    log.map(|log| LogId::new(log).map_err(|error| damaged("gbsync_state.log", error))).transpose()
}

/// A group about to be stored.
pub(crate) struct NewRow<'a> {
    pub(crate) local_no: i64,
    pub(crate) group: &'a Group,
    pub(crate) root: Option<&'a str>,
    pub(crate) epoch: &'a EpochId,
    pub(crate) sealed_at: u64,
    /// The rejected group it depends on, if one was rejected before this was sealed.
    pub(crate) parked_behind: Option<&'a GroupId>,
}

pub(crate) fn insert(connection: &Connection, new: &NewRow<'_>) -> Result<(), Error> {
    let header = new.group.header();
    let depends_on = (!header.depends_on.is_empty()).then(|| ids_json(&header.depends_on));
    let (state, code) = match new.parked_behind {
        Some(_) => ("parked", Some("dependency_rejected")),
        None => ("sealed", None),
    };
    let message = new.parked_behind.map(depends_on_parked);
    let clears = (!header.clears.is_empty()).then(|| serde_json::to_string(&header.clears).expect("texts are JSON"));
    let mut statement = connection.prepare_cached(
        "INSERT INTO gbsync_outbox(local_no, group_id, type, root, actor, epoch, device_seq, state, log, sealed_at, depends_on,
                                   replaces, records, digest, changes, code, message, schema_version, hlc, clears)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
    )?;
    statement.execute(params![
        new.local_no,
        header.id.as_str(),
        header.group_type.as_ref().map(GroupType::as_str),
        new.root,
        header.actor.as_ref().map(Actor::as_str),
        new.epoch.as_str(),
        header.device_seq.0,
        state,
        header.log.as_ref().map(LogId::as_str),
        new.sealed_at,
        depends_on,
        header.replaces.as_ref().map(GroupId::as_str),
        new.group.changes().len() as u64,
        new.group.digest().as_bytes(),
        new.group.changes_json(),
        code,
        message,
        header.schema_version,
        header.hlc.as_ref().map(ToString::to_string),
        clears,
    ])?;
    let mut statement =
        connection.prepare_cached("INSERT OR IGNORE INTO gbsync_dependency(parent, child) VALUES (?1, ?2)")?;
    for parent in &header.depends_on {
        statement.execute(params![parent.as_str(), new.local_no])?;
    }
    if new.parked_behind.is_some() {
        parked::note(connection, new.local_no)?;
    }
    Ok(())
}

/// The sentence under which a dependent of a rejected group is parked.
pub(crate) fn depends_on_parked(parent: &GroupId) -> String {
    format!("it depends on {parent}, which was refused; settle that one first")
}

fn ids_json(ids: &[GroupId]) -> String {
    let ids: Vec<&str> = ids.iter().map(GroupId::as_str).collect();
    serde_json::to_string(&ids).expect("texts are JSON")
}

pub(super) fn ids_from_json(text: Option<&str>) -> Result<Vec<GroupId>, Error> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let ids: Vec<String> = serde_json::from_str(text).map_err(|error| damaged("gbsync_outbox.depends_on", error))?;
    ids.into_iter().map(|id| GroupId::new(id).map_err(|error| damaged("gbsync_outbox.depends_on", error))).collect()
}

/// A sealed group as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct StoredGroup {
    pub(crate) local_no: i64,
    pub(crate) header: Header,
    pub(crate) records: u64,
    pub(crate) digest: Digest,
    /// Bytes of its changes.
    pub(crate) bytes: u64,
    /// Its changes, but for a group that is larger than was asked for.
    pub(crate) changes_json: Option<Box<str>>,
    pub(crate) next_attempt_at: Option<u64>,
    pub(crate) waits_for_sign_in: bool,
    /// Where it stood in logs that lost it.
    pub(crate) accepted_as: Vec<(LogId, Seq)>,
    /// What its bases were, where it was made on a history that was left.
    pub(crate) made_on: Option<MadeOn>,
}

/// The first undecided groups after `after` in seal order, each given to `take` until it answers `false`. Changes of more
/// than `most_bytes` stay in the file.
pub(crate) fn each_pending(
    connection: &Connection,
    after: i64,
    most_bytes: u64,
    mut take: impl FnMut(StoredGroup) -> Result<bool, Error>,
) -> Result<(), Error> {
    let sql = "SELECT local_no, group_id, type, actor, device_seq, log, sealed_at, depends_on, replaces, records, digest,
                octet_length(changes), CASE WHEN octet_length(changes) <= ?2 THEN changes END, next_attempt_at,
                schema_version, hlc, clears, state = 'waiting_for_sign_in', accepted_as, made_on,
                CASE WHEN replaces IS NOT NULL THEN
                  (SELECT family FROM gbsync_parked AS p WHERE p.local_no = gbsync_outbox.local_no AND family <> replaces) END
           FROM gbsync_outbox WHERE state IN ('sealed', 'waiting_for_sign_in') AND local_no > ?1 ORDER BY local_no";
    #[cfg(feature = "mutants")]
    let sql = &crate::planted::in_order(sql);
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, most_bytes])?;
    while let Some(row) = rows.next()? {
        if !take(stored_group(row)?)? {
            break;
        }
    }
    Ok(())
}

/// The first undecided group; noted, so that the next walk begins there. An index of what is undecided would be one more
/// page that every sale writes.
pub(crate) fn first_pending(connection: &Connection) -> Result<Option<i64>, Error> {
    let sql = "SELECT local_no FROM gbsync_outbox WHERE state IN ('sealed', 'waiting_for_sign_in')
                  AND local_no >= (SELECT pending_from FROM gbsync_state) ORDER BY local_no LIMIT 1";
    let first: Option<i64> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    let from = match first {
        Some(local_no) => local_no,
        None => next_group(connection)?.local_no,
    };
    connection.prepare_cached("UPDATE gbsync_state SET pending_from = ?1 WHERE pending_from < ?1")?.execute([from])?;
    Ok(first)
}

fn stored_group(row: &Row<'_>) -> Result<StoredGroup, Error> {
    let about = |error| damaged("gbsync_outbox", error);
    let text = |index| -> Result<Option<Box<str>>, Error> { Ok(row.get(index)?) };
    let digest = row.get_ref(10)?.as_blob().ok().and_then(Digest::from_bytes);
    let digest = digest.ok_or_else(|| damaged("gbsync_outbox.digest", "it is none"))?;
    let header = Header {
        id: GroupId::new(text(1)?.unwrap_or_default()).map_err(about)?,
        group_type: text(2)?.map(GroupType::new).transpose().map_err(about)?,
        device_seq: DeviceSeq(row.get(4)?),
        actor: text(3)?.map(Actor::new).transpose().map_err(about)?,
        created_at: Timestamp::from_unix_ms(row.get(6)?),
        schema_version: row.get(14)?,
        depends_on: ids_from_json(text(7)?.as_deref())?,
        replaces: text(8)?.map(GroupId::new).transpose().map_err(about)?,
        family: text(20)?.map(GroupId::new).transpose().map_err(about)?,
        log: text(5)?.map(LogId::new).transpose().map_err(about)?,
        hlc: text(15)?.map(|hlc| Hlc::parse(&hlc)).transpose().map_err(|error| damaged("gbsync_outbox.hlc", error))?,
        clears: match text(16)? {
            Some(clears) => serde_json::from_str(&clears).map_err(|error| damaged("gbsync_outbox.clears", error))?,
            None => Vec::new(),
        },
    };
    Ok(StoredGroup {
        local_no: row.get(0)?,
        header,
        records: row.get(9)?,
        digest,
        bytes: row.get(11)?,
        changes_json: row.get(12)?,
        next_attempt_at: row.get(13)?,
        waits_for_sign_in: row.get(17)?,
        accepted_as: lost::places(text(18)?.as_deref())?,
        made_on: left::made_on(text(19)?.as_deref())?,
    })
}

/// An undecided group without its changes.
pub(crate) fn pending_head(connection: &Connection, local_no: i64) -> Result<Option<StoredGroup>, Error> {
    let mut found = None;
    each_pending(connection, local_no - 1, 0, |stored| {
        found = Some(stored).filter(|stored| stored.local_no == local_no);
        Ok(false)
    })?;
    Ok(found)
}

/// The bytes of a group's changes.
pub(crate) fn changes_text(connection: &Connection, local_no: i64) -> Result<Box<str>, Error> {
    let mut statement = connection.prepare_cached("SELECT changes FROM gbsync_outbox WHERE local_no = ?1")?;
    Ok(statement.query_row([local_no], |row| row.get(0))?)
}

/// What is known of a group on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) local_no: i64,
    pub(crate) state: StoredState,
}

/// The states that are stored; `in_flight` is told by `gbsync_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredState {
    Pending,
    Accepted,
    Parked,
    /// Not sent any more: replaced, discarded, compensated or superseded.
    Closed,
}

impl StoredState {
    pub(super) fn from_stored(word: &str) -> Result<Self, Error> {
        match word {
            "sealed" | "waiting_for_sign_in" => Ok(Self::Pending),
            "accepted" => Ok(Self::Accepted),
            "parked" => Ok(Self::Parked),
            "replaced" | "discarded" | "compensated" | "superseded" => Ok(Self::Closed),
            other => Err(damaged("gbsync_outbox.state", other)),
        }
    }
}

pub(crate) fn standing(connection: &Connection, id: &GroupId) -> Result<Option<Standing>, Error> {
    let mut statement = connection.prepare_cached("SELECT local_no, state FROM gbsync_outbox WHERE group_id = ?1")?;
    let mut rows = statement.query([id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let state = StoredState::from_stored(row.get_ref(1)?.as_str().unwrap_or_default())?;
    Ok(Some(Standing { local_no: row.get(0)?, state }))
}

/// The id of an overlay group.
pub(crate) fn id_of(connection: &Connection, local_no: i64) -> Result<Option<GroupId>, Error> {
    let mut statement = connection.prepare_cached("SELECT group_id FROM gbsync_outbox WHERE local_no = ?1")?;
    let id: Option<Box<str>> = statement.query_row([local_no], |row| row.get(0)).optional()?;
    id.map(|id| GroupId::new(id).map_err(|error| damaged("gbsync_outbox.group_id", error))).transpose()
}

/// The changes of a group, read from its bytes.
pub(crate) fn changes_of(connection: &Connection, local_no: i64) -> Result<Vec<Change>, Error> {
    Ok(sealed_changes(connection, local_no)?.0)
}

/// The changes of a group, read from its bytes, and the version of the schema it was made under.
pub(crate) fn sealed_changes(connection: &Connection, local_no: i64) -> Result<(Vec<Change>, u64), Error> {
    let mut statement =
        connection.prepare_cached("SELECT changes, schema_version FROM gbsync_outbox WHERE local_no = ?1")?;
    let (text, version): (Box<str>, u64) = statement.query_row([local_no], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((read_changes(&text)?, version))
}

/// Reads the changes of a group from its bytes.
pub(crate) fn read_changes(text: &str) -> Result<Vec<Change>, Error> {
    // What was sealed under other limits stays what it is.
    let unlimited = Limits { payload_bytes: u64::MAX, ..Limits::default() };
    wire::parse_changes(text, &unlimited).map_err(|error| damaged("gbsync_outbox.changes", error))
}

/// The most changes that a kept group has.
pub(crate) fn most_records(connection: &Connection) -> Result<u32, Error> {
    Ok(connection.query_row("SELECT coalesce(max(records), 0) FROM gbsync_outbox", [], |row| row.get(0))?)
}

/// The records that a group touches.
pub(crate) fn keys_of(connection: &Connection, local_no: i64) -> Result<BTreeSet<RecordKey>, Error> {
    Ok(changes_of(connection, local_no)?.into_iter().map(|change| change.key).collect())
}

/// Notes that a group was accepted as `seq`, by an answer or by the log, in this reading of the log. Answers whether that
/// is news.
pub(crate) fn set_accepted(
    connection: &Connection,
    local_no: i64,
    (seq, generation): (Seq, u64),
    attempts: u32,
    now: u64,
) -> Result<bool, Error> {
    let mut statement = connection.prepare_cached(
        "UPDATE gbsync_outbox AS x SET state = 'accepted', seq = ?2, generation = ?3, decided_at = coalesce(decided_at, ?4),
                code = NULL, message = NULL, next_attempt_at = NULL, attempts = attempts + ?5,
                accepted_log = CASE WHEN ?3 > s.generation THEN s.next_log ELSE s.log END,
                accepted_as = CASE WHEN x.state = 'accepted' AND ?3 > s.generation AND x.accepted_log <> s.next_log
                    THEN json_insert(coalesce(accepted_as, '[]'), '$[#]', json_array(accepted_log, seq)) ELSE accepted_as END
           FROM gbsync_state AS s
          WHERE x.local_no = ?1 AND (x.state <> 'accepted' OR x.generation <> ?3)",
    )?;
    Ok(statement.execute(params![local_no, seq.0, generation, now, attempts])? > 0)
}

/// Parks a group: kept, payload and reason, until a person or the app decides.
pub(crate) fn set_parked(
    connection: &Connection,
    local_no: i64,
    code: &str,
    message: &str,
    verdict: Option<&str>,
    now: u64,
) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(
        "UPDATE gbsync_outbox SET state = 'parked', code = ?2, message = ?3, verdict = ?4, decided_at = ?5, next_attempt_at = NULL
          WHERE local_no = ?1",
    )?;
    statement.execute(params![local_no, code, message, verdict, now])?;
    parked::note(connection, local_no)
}

/// Notes that a group waits, why, and until when.
pub(crate) fn set_waiting(
    connection: &Connection,
    local_no: i64,
    code: &str,
    message: &str,
    until: u64,
) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET code = ?2, message = ?3, next_attempt_at = ?4
                WHERE local_no = ?1 AND state IN ('sealed', 'waiting_for_sign_in')";
    connection.prepare_cached(sql)?.execute(params![local_no, code, message, until])?;
    Ok(())
}

/// The code of what a group waits for.
pub(crate) fn waits_for(connection: &Connection, local_no: i64) -> Result<Option<String>, Error> {
    let sql = "SELECT code FROM gbsync_outbox WHERE local_no = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([local_no], |row| row.get(0)).optional()?.flatten())
}

/// Counts one more attempt of each group of a batch.
pub(crate) fn count_attempts(connection: &Connection, local_nos: &[i64]) -> Result<(), Error> {
    let mut statement = connection.prepare_cached("UPDATE gbsync_outbox SET attempts = attempts + 1 WHERE local_no = ?1")?;
    for local_no in local_nos {
        statement.execute([local_no])?;
    }
    Ok(())
}

/// How often a group was tried.
pub(crate) fn attempts(connection: &Connection, local_no: i64) -> Result<u32, Error> {
    let sql = "SELECT attempts FROM gbsync_outbox WHERE local_no = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([local_no], |row| row.get(0))?)
}

/// Counts one more incomplete arrival; answers how many there were.
pub(crate) fn count_incomplete(connection: &Connection, local_no: i64) -> Result<u32, Error> {
    let sql = "UPDATE gbsync_outbox SET incomplete = incomplete + 1 WHERE local_no = ?1 RETURNING incomplete";
    Ok(connection.query_row(sql, [local_no], |row| row.get(0))?)
}

/// Lets every waiting group be tried at once.
pub(crate) fn clear_waits(connection: &Connection) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET next_attempt_at = NULL
                WHERE state IN ('sealed', 'waiting_for_sign_in') AND next_attempt_at IS NOT NULL
                  AND local_no >= (SELECT pending_from FROM gbsync_state)";
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// The undecided groups that wait for `parent`.
pub(crate) fn pending_children(connection: &Connection, parent: &GroupId) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT d.child FROM gbsync_dependency AS d JOIN gbsync_outbox AS o ON o.local_no = d.child
          WHERE d.parent = ?1 AND o.state IN ('sealed', 'waiting_for_sign_in') ORDER BY d.child",
    )?;
    let children = statement.query_map([parent.as_str()], |row| row.get(0))?;
    Ok(children.collect::<Result<_, _>>()?)
}

/// Numbers the undecided groups anew from 1 in seal order; ids and bytes stay. Answers how many there are.
pub(crate) fn renumber(connection: &Connection, epoch: &EpochId) -> Result<DeviceSeq, Error> {
    let sql = "UPDATE gbsync_outbox SET epoch = ?1, device_seq = numbered.n
                 FROM (SELECT local_no AS no, row_number() OVER (ORDER BY local_no) AS n FROM gbsync_outbox
                        WHERE state IN ('sealed', 'waiting_for_sign_in')) AS numbered
                WHERE local_no = numbered.no";
    Ok(DeviceSeq(connection.execute(sql, [epoch.as_str()])? as u64))
}

/// How many groups are undecided, and when the oldest of them was sealed.
pub(crate) fn pending(connection: &Connection) -> Result<(u64, Option<u64>), Error> {
    let sql = "SELECT count(*), min(sealed_at) FROM gbsync_outbox WHERE state IN ('sealed', 'waiting_for_sign_in')
                  AND local_no >= (SELECT pending_from FROM gbsync_state)";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// How many groups are parked, and how many accepted ones the cursor has not passed.
pub(crate) fn parked_and_unpassed(connection: &Connection) -> Result<(u64, u64), Error> {
    let sql = "SELECT (SELECT count(*) FROM gbsync_outbox WHERE state = 'parked'),
                      (SELECT count(*) FROM gbsync_outbox WHERE state = 'accepted' AND seq > (SELECT cursor FROM gbsync_state))";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Takes accepted groups that the cursor has passed, known from this reading of the log, off the overlay.
pub(crate) fn uncover_passed(connection: &Connection, generation: u64) -> Result<(), Error> {
    let sql = "DELETE FROM gbsync_overlay WHERE local_no IN
                 (SELECT local_no FROM gbsync_outbox
                   WHERE state = 'accepted' AND generation >= ?1 AND seq <= (SELECT cursor FROM gbsync_state))";
    connection.execute(sql, [generation])?;
    Ok(())
}

/// Removes accepted groups that the cursor has passed and that are older than `before`, at most `limit`.
pub(crate) fn prune(connection: &Connection, before: u64, limit: u32) -> Result<usize, Error> {
    let old = "SELECT local_no FROM gbsync_outbox WHERE state = 'accepted' AND decided_at < ?1
                  AND seq <= (SELECT cursor FROM gbsync_state) ORDER BY decided_at LIMIT ?2";
    let mut statement = connection.prepare_cached(old)?;
    let old: Vec<i64> = statement.query_map(params![before, limit], |row| row.get(0))?.collect::<Result<_, _>>()?;
    remove(connection, &old)?;
    Ok(old.len())
}

/// Removes groups that nobody can miss, and remembers their numbers.
pub(super) fn remove(connection: &Connection, old: &[i64]) -> Result<(), Error> {
    if old.is_empty() {
        return Ok(());
    }
    let next = next_group(connection)?;
    clock::keep(connection)?;
    connection
        .prepare_cached("UPDATE gbsync_state SET ordered_through = ?1, numbered_through = ?2")?
        .execute(params![next.local_no - 1, next.device_seq.0 - 1])?;
    let mut dependency = connection.prepare_cached("DELETE FROM gbsync_dependency WHERE parent = ?1")?;
    let mut group = connection.prepare_cached("DELETE FROM gbsync_outbox WHERE local_no = ?1 RETURNING group_id")?;
    for local_no in old {
        let id: String = group.query_row([local_no], |row| row.get(0))?;
        dependency.execute([id])?;
        parked::forget(connection, *local_no)?;
    }
    Ok(())
}

/// Whether an id was given to a group before, also to one that is long pruned.
pub(crate) fn is_known(connection: &Connection, id: &GroupId) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM gbsync_given_id WHERE group_id = ?1)
                   OR EXISTS (SELECT 1 FROM gbsync_outbox WHERE group_id = ?1)";
    Ok(connection.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0))?)
}

/// Remembers an id that the author of an operations file gave.
pub(crate) fn remember_given_id(connection: &Connection, id: &GroupId) -> Result<(), Error> {
    connection.prepare_cached("INSERT INTO gbsync_given_id(group_id) VALUES (?1)")?.execute([id.as_str()])?;
    Ok(())
}

/// Whether an undecided group has a number of another epoch than the current one.
pub(crate) fn has_other_epochs(connection: &Connection) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM gbsync_outbox WHERE state IN ('sealed', 'waiting_for_sign_in')
                                 AND epoch <> (SELECT epoch FROM gbsync_state))";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}
