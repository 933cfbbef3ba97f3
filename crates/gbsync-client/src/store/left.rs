//! The history that this device leaves for another log: what groups that were made on it say of that from then on
//! (docs/protocol.md, "Restored logs").
//!
//! Invariant (P7): a group whose bases the present log may not have says what stood there, and says it for ever: the name of
//! its log may have meant several histories.

use super::{outbox, overlay, state, stood};
use crate::error::{Error, damaged};
use gbsync_core::decide::agreed;
use gbsync_core::id::{GroupId, LogId, RecordKey, Seq};
use gbsync_core::limits::NAMED_BASES;
use gbsync_core::wire::{Ancestor, MadeOn};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{BTreeMap, BTreeSet};

/// Up to where the log that this device goes by is the one that was read anew. Read before what was read takes its place.
///
/// `proven`: as the server said at the last handshake; a server that does not say is believed by the names of its ancestors.
pub(crate) fn shared(
    connection: &Connection,
    (known, then): (&LogId, &[Ancestor]),
    (log, now): (&LogId, &[Ancestor]),
) -> Result<Seq, Error> {
    let sql = "SELECT cursor, CASE WHEN told_log = ?1 THEN told_agreed END FROM gbsync_state";
    let (cursor, proven): (u64, Option<u64>) =
        connection.query_row(sql, [log.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    match proven {
        Some(proven) if proven < cursor => stood::same_up_to(connection, Seq(proven)),
        Some(_) => Ok(Seq(cursor)),
        None => Ok(agreed(known, then, (log, now))),
    }
}

/// Lets groups that were made on the history that is left say so, where they have a base behind `shared`. After those that can
/// were given the name of the new log.
pub(crate) fn leave(connection: &Connection, (known, log): (&LogId, &LogId), shared: Seq) -> Result<(), Error> {
    for (local_no, made_on) in made_on_others(connection)? {
        let made_on = MadeOn { shared: made_on.shared.min(shared), ..made_on };
        set_made_on(connection, local_no, &made_on)?;
    }
    // Read anew for another reason: what was seen of it is in it.
    if known == log && shared >= state::generation_and_cursor(connection)?.1 {
        return Ok(());
    }
    for (local_no, is_accepted) in made_on_log(connection, known)? {
        let above = bases(connection, local_no)?.into_iter().filter(|base| *base > shared).collect::<Vec<_>>();
        if above.is_empty() && known == log {
            continue;
        }
        if above.is_empty() && is_accepted {
            let sql = "UPDATE gbsync_outbox SET log = ?2 WHERE local_no = ?1";
            connection.prepare_cached(sql)?.execute(params![local_no, log.as_str()])?;
            continue;
        }
        let mut made_on = MadeOn { shared, bases: BTreeMap::new() };
        for base in above.into_iter().take(NAMED_BASES) {
            made_on.bases.extend(stood::group_at(connection, base)?.map(|group| (base, group)));
        }
        set_made_on(connection, local_no, &made_on)?;
    }
    if known != log {
        connection.execute("UPDATE gbsync_state SET left_log = ?1, left_shared = ?2", params![known.as_str(), shared.0])?;
    }
    Ok(())
}

/// Lets a group say on which history it was made whose operation began before that was left and is sealed only now. What stood
/// at its bases is forgotten.
pub(crate) fn seal_late(connection: &Connection, local_no: i64, log: &LogId) -> Result<(), Error> {
    let sql = "SELECT left_shared FROM gbsync_state WHERE left_log = ?1 AND log <> ?1";
    let shared: Option<u64> = connection.prepare_cached(sql)?.query_row([log.as_str()], |row| row.get(0)).optional()?;
    match shared {
        Some(shared) => set_made_on(connection, local_no, &MadeOn { shared: Seq(shared), bases: BTreeMap::new() }),
        None => Ok(()),
    }
}

/// Whether who sees a record of the present log at `version`, and an own group over it, sees all that the author of that
/// group saw: a log that begins anew may lack what the group was made on, while the group is still laid over what is there.
///
/// Then nothing vouches for an edit on top of the group but the version itself (world 22869: P7). What the log lacks and this
/// device made is seen where it is laid over the record as well, with what that was made on (world 45).
pub(crate) fn has_all_of(connection: &Connection, group: &GroupId, key: &RecordKey, version: Seq) -> Result<bool, Error> {
    let mut own = vec![group.clone()];
    while let Some(group) = own.pop() {
        for base in lost_bases(connection, &group, key)? {
            match base {
                Some(base) if is_laid_over(connection, &base, key)? => own.push(base),
                Some(base) if stood::stands_by(connection, &base, version)? => {}
                _ => return Ok(false),
            }
        }
    }
    Ok(true)
}

/// What a group was made on as to one record, where the present log may not have it; `None` where nobody remembers what it was.
fn lost_bases(connection: &Connection, group: &GroupId, key: &RecordKey) -> Result<Vec<Option<GroupId>>, Error> {
    let sql = "SELECT local_no, made_on FROM gbsync_outbox WHERE group_id = ?1 AND made_on IS NOT NULL";
    let found: Option<(i64, Box<str>)> =
        connection.prepare_cached(sql)?.query_row([group.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((local_no, text)) = found else { return Ok(Vec::new()) };
    let Some(made_on) = made_on(Some(&text))? else { return Ok(Vec::new()) };
    let changes = outbox::changes_of(connection, local_no)?;
    let edits = changes.iter().filter(|change| change.key == *key && !change.edit.is_increment());
    let lost = edits.map(|change| change.base.version).filter(|seen| *seen > made_on.shared);
    Ok(lost.map(|seen| made_on.bases.get(&seen).cloned()).collect())
}

/// Whether a group of this device shows in a record that it names.
fn is_laid_over(connection: &Connection, group: &GroupId, key: &RecordKey) -> Result<bool, Error> {
    let Some(standing) = outbox::standing(connection, group)? else { return Ok(false) };
    let row = overlay::row_of(connection, key, standing.local_no)?;
    Ok(row.is_some_and(|row| !row.is_hidden && !row.is_derived))
}

/// Reads what [`set_made_on`] kept.
pub(crate) fn made_on(text: Option<&str>) -> Result<Option<MadeOn>, Error> {
    let read = |text| MadeOn::parse(text).map_err(|error| damaged("gbsync_outbox.made_on", error));
    text.map(read).transpose()
}

/// Keeps what a group says of the history that it was made on.
pub(crate) fn set_made_on(connection: &Connection, local_no: i64, made_on: &MadeOn) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET made_on = ?2 WHERE local_no = ?1";
    connection.prepare_cached(sql)?.execute(params![local_no, made_on.to_json()])?;
    Ok(())
}

fn bases(connection: &Connection, local_no: i64) -> Result<BTreeSet<Seq>, Error> {
    let changes = outbox::changes_of(connection, local_no)?;
    Ok(changes.iter().filter(|change| !change.edit.is_increment()).map(|change| change.base.version).collect())
}

/// Groups that may still be sent and were made on a history that was left before.
fn made_on_others(connection: &Connection) -> Result<Vec<(i64, MadeOn)>, Error> {
    let sql = "SELECT local_no, made_on FROM gbsync_outbox
                WHERE made_on IS NOT NULL AND state IN ('sealed', 'waiting_for_sign_in', 'accepted')";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let made_on = made_on(row.get::<_, Option<Box<str>>>(1)?.as_deref())?;
        found.extend(made_on.map(|made_on| Ok::<_, Error>((row.get(0)?, made_on))).transpose()?);
    }
    Ok(found)
}

/// Groups that may still be sent and were made on the history of this name, and whether they are accepted.
fn made_on_log(connection: &Connection, log: &LogId) -> Result<Vec<(i64, bool)>, Error> {
    let sql = "SELECT local_no, state = 'accepted' FROM gbsync_outbox
                WHERE log = ?1 AND made_on IS NULL AND state IN ('sealed', 'waiting_for_sign_in', 'accepted')";
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map([log.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{lost, schema};

    /// A device that stood at 5 of the log `old`, and hears of `new`, which is the same up to 1 at least.
    fn device(told_agreed: Option<u64>) -> Connection {
        let connection = Connection::open_in_memory().expect("a database");
        schema::migrate(&connection, 0).expect("its tables");
        let sql =
            "INSERT INTO gbsync_state(one, server, space, device, epoch, log, cursor, told_log, told_ancestors, told_agreed)
                   VALUES (1, 's', 'shop', 'd', 'e', 'old', 5, 'new', '[[\"old\",4]]', ?1)";
        connection.execute(sql, [told_agreed]).expect("its state");
        let rows = [
            ("gbsync_stood", 5, r#"{"1":"a","2":"b","3":"c","4":"d","5":"e"}"#),
            ("gbsync_stood_next", 4, r#"{"1":"a","2":"b","3":"x","4":"d"}"#),
        ];
        for (table, up_to, groups) in rows {
            let sql = format!("INSERT INTO {table}(up_to, after, groups) VALUES (?1, 0, ?2)");
            connection.execute(&sql, params![up_to, groups]).expect("a row is stored");
        }
        connection
    }

    fn keep(connection: &Connection, local_no: i64, state: &str, base: u64) {
        let changes = format!(r#"[{{"entity":"receipts","id":"r","action":"delete","baseVersion":{base}}}]"#);
        let sql = "INSERT INTO gbsync_outbox(local_no, group_id, epoch, device_seq, state, log, sealed_at, records, digest, changes)
                   VALUES (?1, 'g' || ?1, 'e', ?1, ?2, 'old', 0, 1, x'00', ?3)";
        connection.execute(sql, params![local_no, state, changes]).expect("the row is stored");
    }

    fn said(connection: &Connection, local_no: i64) -> (String, Option<String>) {
        let sql = "SELECT log, made_on FROM gbsync_outbox WHERE local_no = ?1";
        connection.query_row(sql, [local_no], |row| Ok((row.get(0)?, row.get(1)?))).expect("it is there")
    }

    fn leave_for(connection: &Connection, log: &str) {
        lost::rename_shared_bases(connection, &LogId::new(log).expect("a name")).expect("it is left");
    }

    #[test]
    fn what_was_made_behind_the_parting_says_what_stood_there() {
        let connection = device(Some(1));
        for (local_no, (state, base)) in
            [("sealed", 2), ("sealed", 4), ("accepted", 5), ("accepted", 1)].into_iter().enumerate()
        {
            keep(&connection, local_no as i64, state, base);
        }
        leave_for(&connection, "new");
        let made_on =
            |base: u64, group: &str| Some(format!(r#"{{"shared":2,"bases":[{{"seq":{base},"group":"{group}"}}]}}"#));
        assert_eq!(said(&connection, 0), ("new".into(), None));
        assert_eq!(said(&connection, 1), ("old".into(), made_on(4, "d")), "whatever the names of the logs say");
        assert_eq!(said(&connection, 2), ("old".into(), made_on(5, "e")));
        assert_eq!(said(&connection, 3), ("new".into(), None));
    }

    #[test]
    fn what_was_said_stays_and_is_shared_no_further_than_any_history_since() {
        let connection = device(Some(1));
        keep(&connection, 1, "sealed", 5);
        leave_for(&connection, "new");
        let sql = "UPDATE gbsync_state SET log = 'new', told_log = 'old', told_agreed = 1; DELETE FROM gbsync_stood_next";
        connection.execute_batch(sql).expect("it goes on, and hears of a log of the first name");
        leave_for(&connection, "old");
        let made_on = Some(r#"{"shared":1,"bases":[{"seq":5,"group":"e"}]}"#.to_owned());
        assert_eq!(said(&connection, 1), ("old".into(), made_on));
    }

    #[test]
    fn a_server_that_does_not_say_is_believed_by_its_ancestors() {
        let connection = device(None);
        keep(&connection, 1, "sealed", 4);
        keep(&connection, 2, "sealed", 5);
        leave_for(&connection, "new");
        assert_eq!(said(&connection, 1), ("new".into(), None));
        assert_eq!(said(&connection, 2).1.as_deref(), Some(r#"{"shared":4,"bases":[{"seq":5,"group":"e"}]}"#));
    }

    #[test]
    fn what_is_sealed_after_its_history_was_left_names_nothing_and_shares_what_is_known() {
        let connection = device(Some(1));
        leave_for(&connection, "new");
        connection.execute_batch("UPDATE gbsync_state SET log = 'new'").expect("it goes on");
        keep(&connection, 1, "sealed", 4);
        let log = |name: &str| LogId::new(name).expect("a name");
        seal_late(&connection, 1, &log("new")).expect("it is of the present log");
        assert_eq!(said(&connection, 1).1, None);
        seal_late(&connection, 1, &log("old")).expect("it says so");
        assert_eq!(said(&connection, 1).1.as_deref(), Some(r#"{"shared":2}"#));
    }
}
