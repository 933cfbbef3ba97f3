//! What a log lost, and what the log is called: accepted groups that go back into the queue, and the log that the base
//! versions of a waiting group belong to (docs/protocol.md, "Restored logs").
//!
//! Invariant (P4, P11): a group that was accepted leaves that state only into the queue, with its id, number and bytes, and
//! remembers every place that it had. The log that a group names changes only where all of its base versions mean the same
//! in both.

use super::{left, outbox, state};
use crate::error::{Error, damaged};
use gbsync_core::decide::agreed;
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq};
use gbsync_core::limits::KNOWN_PLACES;
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::wire::Ancestor;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

/// Where accepted groups stood, the ancestors of logs, and places where this device stood.
pub(super) const LOST: &str = "
ALTER TABLE gbsync_outbox ADD COLUMN accepted_log TEXT;  -- the log that seq is of
ALTER TABLE gbsync_outbox ADD COLUMN accepted_as TEXT;   -- JSON array of [log, seq]: where it stood in logs that lost it
UPDATE gbsync_outbox SET accepted_log = (SELECT log FROM gbsync_state) WHERE state = 'accepted';

ALTER TABLE gbsync_state ADD COLUMN ancestors TEXT;      -- of log; JSON array of [log, seq]
ALTER TABLE gbsync_state ADD COLUMN told_log TEXT;       -- the log that the last handshake told of, and its ancestors
ALTER TABLE gbsync_state ADD COLUMN told_ancestors TEXT;

-- Places of the log where this device stood: the last ones, and ever fewer further back.
CREATE TABLE gbsync_place(seq INTEGER NOT NULL PRIMARY KEY, chain TEXT NOT NULL);
";

/// Accepted groups are kept for days; those that the cursor has not passed are few, and found by their `seq`.
///
/// Some files have the index already: for a while the step before this one made it.
pub(super) const UNPASSED: &str = "
CREATE INDEX IF NOT EXISTS gbsync_outbox_unpassed ON gbsync_outbox(seq) WHERE state = 'accepted';
";

/// Places that are kept one by one before those further back are thinned out.
const NEAR_PLACES: usize = 20;

/// Reads `[[log, seq], …]`.
pub(crate) fn places(text: Option<&str>) -> Result<Vec<(LogId, Seq)>, Error> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let about = |error: String| damaged("places in logs", error);
    let places: Vec<(String, u64)> = serde_json::from_str(text).map_err(|error| about(error.to_string()))?;
    let place = |(log, seq)| Ok((LogId::new(log).map_err(|error| about(error.to_string()))?, Seq(seq)));
    places.into_iter().map(place).collect()
}

fn ancestors(text: Option<&str>) -> Result<Vec<Ancestor>, Error> {
    Ok(places(text)?.into_iter().map(|(log, up_to)| Ancestor { log, up_to }).collect())
}

fn ancestors_json(ancestors: &[Ancestor]) -> String {
    let places: Vec<(&str, u64)> = ancestors.iter().map(|ancestor| (ancestor.log.as_str(), ancestor.up_to.0)).collect();
    serde_json::to_string(&places).expect("texts and numbers are JSON")
}

/// Keeps what a handshake told of the log, where it comes from, and up to where it is the one that this device goes by.
pub(crate) fn set_told(
    connection: &Connection,
    log: &LogId,
    ancestors: &[Ancestor],
    agreed: Option<Seq>,
) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET told_log = ?1, told_ancestors = ?2, ancestors = CASE WHEN log = ?1 THEN ?2 ELSE ancestors END,
                      told_agreed = ?3
                WHERE told_log IS NOT ?1 OR told_ancestors IS NOT ?2 OR (log = ?1 AND ancestors IS NOT ?2) OR told_agreed IS NOT ?3";
    let agreed = agreed.map(|agreed| agreed.0);
    connection.prepare_cached(sql)?.execute(params![log.as_str(), ancestors_json(ancestors), agreed])?;
    Ok(())
}

/// Accepted groups that the log, read anew, does not hold: back into the queue, bytes unchanged.
pub(crate) fn reoffer_lost(connection: &Connection, generation: u64) -> Result<Vec<i64>, Error> {
    reoffer(connection, "generation < ?1", generation)
}

/// Accepted groups beyond the cursor: back into the queue.
pub(crate) fn reoffer_unpassed(connection: &Connection) -> Result<Vec<i64>, Error> {
    reoffer(connection, "seq > ?1", state::generation_and_cursor(connection)?.1.0)
}

/// Accepted groups at whose places, after one `seq` and up to another, the log had other groups: back into the queue. `met`:
/// those that it did have. In the transaction that moves the cursor: whoever looks later sees only that their places were passed.
/// Answers whether there were any.
pub(crate) fn reoffer_missed(
    connection: &Connection,
    (after, up_to): (Seq, Seq),
    met: &BTreeSet<i64>,
) -> Result<bool, Error> {
    let sql = "SELECT local_no FROM gbsync_outbox WHERE state = 'accepted' AND seq > ?1 AND seq <= ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let all: Vec<i64> = statement.query_map([after.0, up_to.0], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut is_any = false;
    for local_no in all.into_iter().filter(|local_no| !met.contains(local_no)) {
        // What the log had elsewhere lies over nothing any more.
        let sql = "SELECT EXISTS (SELECT 1 FROM gbsync_overlay WHERE local_no = ?1)";
        if connection.prepare_cached(sql)?.query_row([local_no], |row| row.get(0))? {
            reoffer_one(connection, local_no)?;
            is_any = true;
        }
    }
    Ok(is_any)
}

/// An accepted group that the log turns out not to hold: back into the queue.
pub(crate) fn reoffer_one(connection: &Connection, local_no: i64) -> Result<(), Error> {
    reoffer(connection, "local_no = ?1", local_no.unsigned_abs())?;
    Ok(())
}

fn reoffer(connection: &Connection, which: &str, value: u64) -> Result<Vec<i64>, Error> {
    if is(Mutant::LostGroupStaysAccepted) {
        return Ok(Vec::new());
    }
    let sql = format!(
        "UPDATE gbsync_outbox SET state = 'sealed', seq = NULL, generation = NULL, decided_at = NULL, accepted_log = NULL,
                accepted_as = CASE WHEN accepted_log IS NULL OR seq IS NULL THEN accepted_as
                    ELSE json_insert(coalesce(accepted_as, '[]'), '$[#]', json_array(accepted_log, seq)) END
          WHERE state = 'accepted' AND {which} RETURNING local_no"
    );
    let mut statement = connection.prepare(&sql)?;
    let lost: Vec<i64> = statement.query_map([value], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if let Some(first) = lost.iter().min() {
        connection.execute("UPDATE gbsync_state SET pending_from = min(pending_from, ?1)", [first])?;
    }
    Ok(lost)
}

/// Accepted groups whose place the cursor has not passed.
pub(crate) fn unpassed(connection: &Connection) -> Result<Vec<i64>, Error> {
    let sql = "SELECT local_no FROM gbsync_outbox WHERE state = 'accepted' AND seq > (SELECT cursor FROM gbsync_state)";
    let mut statement = connection.prepare_cached(sql)?;
    let unpassed = statement.query_map([], |row| row.get(0))?;
    Ok(unpassed.collect::<Result<_, _>>()?)
}

/// Whether the log, read to its end, ends before the place of an accepted group. One whose place was passed is no longer accepted
/// ([`reoffer_missed`]).
pub(crate) fn is_missed(connection: &Connection, local_no: i64) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM gbsync_outbox AS x, gbsync_state AS s
                         WHERE x.local_no = ?1 AND x.state = 'accepted' AND x.seq > s.head)";
    Ok(connection.prepare_cached(sql)?.query_row([local_no], |row| row.get(0))?)
}

/// The log has another name and is, up to the cursor, the one that was read: goes on under the new name.
pub(crate) fn take_name(connection: &Connection, log: &LogId) -> Result<Vec<i64>, Error> {
    rename_bases(connection, log)?;
    let unpassed = reoffer_unpassed(connection)?;
    connection
        .execute("UPDATE gbsync_state SET log = ?1, ancestors = told_ancestors WHERE told_log = ?1", [log.as_str()])?;
    // What was made on the same history, and may be offered again.
    let sql = "UPDATE gbsync_outbox SET log = ?1
                WHERE state = 'accepted' AND made_on IS NULL AND log = (SELECT log FROM gbsync_state)";
    connection.execute(sql, [log.as_str()])?;
    connection.execute("UPDATE gbsync_state SET log = ?1", [log.as_str()])?;
    // What stands behind the cursor is in the log under its new name as well.
    connection.execute("UPDATE gbsync_outbox SET accepted_log = ?1 WHERE state = 'accepted'", [log.as_str()])?;
    Ok(unpassed)
}

/// Lets the undecided groups whose base versions the log that is now told of shares name that one.
///
/// Before the name in the state changes: what was read under the present one is known to be shared up to the cursor only where
/// both agree there, which [`take_name`]'s caller saw, or up to what the ancestors say.
pub(crate) fn rename_bases(connection: &Connection, log: &LogId) -> Result<(), Error> {
    rename(connection, log, true)
}

/// The same where the log is read anew. What cannot name that one says what it was made on.
pub(crate) fn rename_shared_bases(connection: &Connection, log: &LogId) -> Result<(), Error> {
    rename(connection, log, false)
}

fn rename(connection: &Connection, log: &LogId, is_same_here: bool) -> Result<(), Error> {
    let sql = "SELECT log, ancestors, cursor, CASE WHEN told_log = ?1 THEN told_ancestors END FROM gbsync_state";
    let (known, known_ancestors, cursor, told): (Option<Box<str>>, Option<String>, u64, Option<String>) =
        connection.query_row(sql, [log.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let (then, now) = (ancestors(known_ancestors.as_deref())?, ancestors(told.as_deref())?);
    let known = known.map(|known| LogId::new(known).map_err(|error| damaged("gbsync_state.log", error))).transpose()?;
    if let Some(known) = &known {
        name_first(connection, known)?;
    }
    let of_known = match &known {
        None => Seq(0),
        Some(_) if is_same_here => Seq(cursor),
        Some(known) => left::shared(connection, (known, &then), (log, &now))?,
    };
    for named in names(connection, log)? {
        let through_known = match then.iter().find(|ancestor| ancestor.log == named) {
            Some(ancestor) => ancestor.up_to.min(of_known),
            None => Seq(0),
        };
        let shared = match known.as_ref() == Some(&named) {
            true => of_known,
            false => agreed(&named, &[], (log, &now)).max(through_known),
        };
        // What was forgotten of the log that is known and the same up to the cursor is in it.
        let has_all = is_same_here && known.as_ref() == Some(&named);
        for local_no in waiting_under(connection, &named)? {
            if !has_all && depends_on_forgotten(connection, local_no)? {
                continue;
            }
            let changes = outbox::changes_of(connection, local_no)?;
            let mut based = changes.iter().filter(|change| !change.edit.is_increment());
            if based.all(|change| change.base.version <= shared) {
                let sql = "UPDATE gbsync_outbox SET log = ?2 WHERE local_no = ?1";
                connection.prepare_cached(sql)?.execute(params![local_no, log.as_str()])?;
            }
        }
    }
    match known.filter(|_| !is_same_here) {
        Some(known) => left::leave(connection, (&known, log), of_known),
        None => Ok(()),
    }
}

/// Groups that were sealed before this device heard of any log depend on groups of the first that it heard of.
fn name_first(connection: &Connection, log: &LogId) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET log = ?1 WHERE log IS NULL AND depends_on IS NOT NULL
                  AND state IN ('sealed', 'waiting_for_sign_in')";
    connection.prepare_cached(sql)?.execute([log.as_str()])?;
    Ok(())
}

/// The undecided groups that name this log, and say nothing else of what they were made on.
fn waiting_under(connection: &Connection, log: &LogId) -> Result<Vec<i64>, Error> {
    let sql = "SELECT local_no FROM gbsync_outbox WHERE log = ?1 AND made_on IS NULL AND state IN ('sealed', 'waiting_for_sign_in')";
    let mut statement = connection.prepare_cached(sql)?;
    let waiting = statement.query_map([log.as_str()], |row| row.get(0))?;
    Ok(waiting.collect::<Result<_, _>>()?)
}

/// Whether a group depends on one that was accepted so long ago that this device no longer has it. That one may have gone with
/// a lost log, and the server ends the wait for it only where the dependent says of which log it is.
fn depends_on_forgotten(connection: &Connection, local_no: i64) -> Result<bool, Error> {
    let sql = "SELECT depends_on FROM gbsync_outbox WHERE local_no = ?1";
    let parents: Option<String> = connection.prepare_cached(sql)?.query_row([local_no], |row| row.get(0))?;
    for parent in outbox::ids_from_json(parents.as_deref())? {
        if outbox::standing(connection, &parent)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The logs that undecided groups name, but for this one.
fn names(connection: &Connection, log: &LogId) -> Result<BTreeSet<LogId>, Error> {
    let sql = "SELECT DISTINCT log FROM gbsync_outbox
                WHERE log <> ?1 AND made_on IS NULL AND state IN ('sealed', 'waiting_for_sign_in')";
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map([log.as_str()], |row| row.get::<_, Box<str>>(0))?;
    names.map(|name| LogId::new(name?).map_err(|error| damaged("gbsync_outbox.log", error))).collect()
}

/// Remembers that this device stood there.
pub(crate) fn remember_place(connection: &Connection, seq: Seq, chain: Digest) -> Result<(), Error> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO gbsync_place(seq, chain) VALUES (?1, ?2)")?
        .execute(params![seq.0, chain.to_string()])?;
    let count: u64 = connection.prepare_cached("SELECT count(*) FROM gbsync_place")?.query_row([], |row| row.get(0))?;
    if count <= KNOWN_PLACES as u64 {
        return Ok(());
    }
    let mut statement = connection.prepare_cached("SELECT seq FROM gbsync_place ORDER BY seq DESC")?;
    let seqs: Vec<u64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for seq in superfluous(&seqs) {
        connection.prepare_cached("DELETE FROM gbsync_place WHERE seq = ?1")?.execute([seq])?;
    }
    Ok(())
}

/// Which of these places, the last first, need not be kept: of those further back, one for each doubling of the distance is.
fn superfluous(seqs: &[u64]) -> Vec<u64> {
    let Some(last) = seqs.first() else { return Vec::new() };
    let (near, far) = seqs.split_at(NEAR_PLACES.min(seqs.len()));
    let doublings = |seq: u64| (last - seq).max(1).ilog2();
    let mut kept = near.last().map_or(0, |seq| doublings(*seq));
    let mut superfluous = Vec::new();
    for seq in far {
        match doublings(*seq) > kept {
            true => kept = doublings(*seq),
            false => superfluous.push(*seq),
        }
    }
    superfluous
}

/// Forgets all places: another log is read.
pub(crate) fn forget_places(connection: &Connection) -> Result<(), Error> {
    connection.execute("DELETE FROM gbsync_place", [])?;
    Ok(())
}

/// The places that are remembered, the last ones first, as a handshake tells them.
pub(crate) fn known_places(connection: &Connection) -> Result<String, Error> {
    let mut statement = connection.prepare("SELECT seq || '.' || chain FROM gbsync_place ORDER BY seq DESC LIMIT ?1")?;
    let places = statement.query_map([KNOWN_PLACES as u64 - 1], |row| row.get::<_, String>(0))?;
    let mut places = places.collect::<Result<Vec<_>, _>>()?;
    places.push(format!("0.{}", Digest::ZERO));
    Ok(places.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    /// A group that waits, made on the log `old`, with a base that both logs have.
    fn seal(connection: &Connection, local_no: i64, id: &str, depends_on: Option<&str>) {
        let changes = r#"[{"entity":"receipts","id":"r","action":"delete","baseVersion":1}]"#;
        let sql = "INSERT INTO gbsync_outbox(local_no, group_id, epoch, device_seq, state, log, sealed_at, depends_on, records, digest,
                                             changes, schema_version)
                   VALUES (?1, ?2, 'e', ?1, 'sealed', 'old', 0, ?3, 1, x'00', ?4, 0)";
        connection.execute(sql, params![local_no, id, depends_on, changes]).expect("the row is stored");
    }

    #[test]
    fn a_group_keeps_the_name_of_its_log_where_what_it_depends_on_is_forgotten() {
        let connection = Connection::open_in_memory().expect("a database");
        schema::migrate(&connection, 0).expect("its tables");
        let state = r#"INSERT INTO gbsync_state(one, server, space, device, epoch, log, cursor, told_log, told_ancestors)
                       VALUES (1, 's', 'shop', 'd', 'e', 'old', 9, 'new', '[["old",1]]')"#;
        connection.execute(state, []).expect("its state");
        seal(&connection, 1, "parent", None);
        seal(&connection, 2, "child", Some(r#"["parent"]"#));
        seal(&connection, 3, "orphan", Some(r#"["long-pruned"]"#));
        seal(&connection, 4, "early orphan", Some(r#"["long-pruned"]"#));
        let early = "UPDATE gbsync_outbox SET log = NULL WHERE local_no = 4";
        connection.execute(early, []).expect("it was sealed before any log was known");
        rename_shared_bases(&connection, &LogId::new("new").expect("a name")).expect("they are renamed");
        let named = |id: &str| -> String {
            let sql = "SELECT log FROM gbsync_outbox WHERE group_id = ?1";
            connection.query_row(sql, [id], |row| row.get(0)).expect("it is there")
        };
        let names = ["parent", "child", "orphan", "early orphan"].map(named);
        assert_eq!(names, ["new", "new", "old", "old"]);
    }

    #[test]
    fn places_are_dense_where_the_device_stood_last_and_few_further_back() {
        let seqs: Vec<u64> = (1..=10_000).rev().collect();
        let dropped: BTreeSet<u64> = superfluous(&seqs).into_iter().collect();
        let kept: Vec<u64> = seqs.into_iter().filter(|seq| !dropped.contains(seq)).collect();
        assert_eq!(kept[..20], (9_981..=10_000).rev().collect::<Vec<u64>>());
        assert_eq!(kept[20..], [9_968, 9_936, 9_872, 9_744, 9_488, 8_976, 7_952, 5_904, 1_808]);
        assert!(superfluous(&[]).is_empty());
    }
}
