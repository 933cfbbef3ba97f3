//! Which groups stood at the last places of the log that this device goes by. Its base versions are places: when the log turns
//! out to be another one, what stood there tells what an edit was made on, which the name of a log does not (docs/decisions/0043).
//!
//! One row a page. Rejected alternative: the group's id beside each record of the base, which every pulled change would pay for.

use crate::error::{Error, damaged};
use gbsync_core::id::{GroupId, Seq};
use gbsync_core::wire::LogPage;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeMap;

/// What stood where, here and in the log that is read anew; what groups say of the history that they were made on; and up to
/// where the history that the last handshake was about is the server's.
pub(super) const STOOD: &str = "
CREATE TABLE gbsync_stood(
  up_to  INTEGER NOT NULL PRIMARY KEY,
  after  INTEGER NOT NULL,   -- the places after this one, up to that one
  groups TEXT NOT NULL       -- JSON object: the groups that this device was told of, by their seq
);
CREATE TABLE gbsync_stood_next(up_to INTEGER NOT NULL PRIMARY KEY, after INTEGER NOT NULL, groups TEXT NOT NULL);
ALTER TABLE gbsync_outbox ADD COLUMN made_on TEXT;       -- madeOn of the protocol, where the group was made on a history that was left
ALTER TABLE gbsync_state ADD COLUMN told_agreed INTEGER; -- up to which seq the server's log is this one, as it said last
ALTER TABLE gbsync_state ADD COLUMN left_log TEXT;       -- the log that was left last for another one,
ALTER TABLE gbsync_state ADD COLUMN left_shared INTEGER; -- and up to which seq both are the same
";

/// Places that are remembered at most.
const PLACES: u64 = 32_768;

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Current,
    /// The one that is read anew.
    Next,
}

impl Of {
    fn table(self) -> &'static str {
        match self {
            Self::Current => "gbsync_stood",
            Self::Next => "gbsync_stood_next",
        }
    }
}

/// Remembers what stands on a page that follows `after`. What lies too far before the end of the log is not worth a row.
pub(crate) fn remember(connection: &Connection, of: Of, after: Seq, page: &LogPage) -> Result<(), Error> {
    if page.next <= after || page.next.0.saturating_add(PLACES) < page.head.0 {
        return Ok(());
    }
    let entries = page.entries.iter().filter(|entry| entry.seq > after);
    let groups = entries.filter_map(|entry| Some((entry.seq.0, entry.group.as_ref()?.id.as_str())));
    let groups = serde_json::to_string(&groups.collect::<BTreeMap<_, _>>()).expect("numbers and texts are JSON");
    let table = of.table();
    let sql = format!("INSERT OR REPLACE INTO {table}(up_to, after, groups) VALUES (?1, ?2, ?3)");
    connection.prepare_cached(&sql)?.execute(params![page.next.0, after.0, groups])?;
    let sql = format!("DELETE FROM {table} WHERE up_to <= ?1");
    connection.prepare_cached(&sql)?.execute([page.next.0.saturating_sub(PLACES)])?;
    Ok(())
}

/// The group that stood at a place, where that is remembered.
pub(crate) fn group_at(connection: &Connection, seq: Seq) -> Result<Option<GroupId>, Error> {
    let sql = "SELECT json_extract(groups, '$.\"' || ?1 || '\"') FROM gbsync_stood WHERE up_to >= ?1 ORDER BY up_to LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let id: Option<Option<Box<str>>> = statement.query_row([seq.0], |row| row.get(0)).optional()?;
    id.flatten().map(|id| GroupId::new(id).map_err(|error| damaged("gbsync_stood", error))).transpose()
}

/// Whether a group stands at a place of this log, or before it; `false` where that is not remembered.
pub(crate) fn stands_by(connection: &Connection, group: &GroupId, place: Seq) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM gbsync_stood AS s, json_each(s.groups) AS entry
                WHERE s.after < ?2 AND entry.value = ?1 AND CAST(entry.key AS INTEGER) <= ?2";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row(params![group.as_str(), place.0], |_| Ok(())).optional()?.is_some())
}

/// Up to where this log and the one that was read anew have the same groups, if both are the same up to `proven`.
pub(crate) fn same_up_to(connection: &Connection, proven: Seq) -> Result<Seq, Error> {
    let (here, there) = (Run::after(connection, Of::Current, proven)?, Run::after(connection, Of::Next, proven)?);
    let both = here.up_to.min(there.up_to);
    let stands_elsewhere = |(seq, group): (&u64, &String)| there.groups.get(seq) != Some(group);
    let differs = here.groups.iter().find(|entry| stands_elsewhere(*entry)).map(|(seq, _)| *seq);
    let is_new = there.groups.keys().find(|seq| !here.groups.contains_key(seq)).copied();
    let first = differs.into_iter().chain(is_new).min().map_or(both, |seq| both.min(Seq(seq - 1)));
    Ok(first.max(proven))
}

/// What is remembered without a gap behind a place.
struct Run {
    up_to: Seq,
    groups: BTreeMap<u64, String>,
}

impl Run {
    fn after(connection: &Connection, of: Of, place: Seq) -> Result<Self, Error> {
        let sql = format!("SELECT after, up_to, groups FROM {} WHERE up_to > ?1 ORDER BY up_to", of.table());
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([place.0])?;
        let mut run = Self { up_to: place, groups: BTreeMap::new() };
        while let Some(row) = rows.next()? {
            let (after, up_to, groups): (u64, u64, Box<str>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if after > run.up_to.0 {
                break;
            }
            let groups: BTreeMap<u64, String> =
                serde_json::from_str(&groups).map_err(|error| damaged("gbsync_stood", error))?;
            run.groups.extend(groups.into_iter().filter(|(seq, _)| *seq > place.0));
            run.up_to = Seq(up_to);
        }
        Ok(run)
    }
}

/// Forgets what was noted of a log that was read anew.
pub(crate) fn forget_next(connection: &Connection) -> Result<(), Error> {
    connection.execute("DELETE FROM gbsync_stood_next", [])?;
    Ok(())
}

/// What was read anew is the log now.
pub(crate) fn flip(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(
        "DELETE FROM gbsync_stood;
         INSERT INTO gbsync_stood SELECT * FROM gbsync_stood_next;
         DELETE FROM gbsync_stood_next;",
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    fn remembered(connection: &Connection, of: Of, pages: &[(u64, &[(u64, &str)])]) {
        let mut after = 0;
        for (up_to, groups) in pages {
            let groups: BTreeMap<u64, &str> = groups.iter().copied().collect();
            let sql = format!("INSERT INTO {}(up_to, after, groups) VALUES (?1, ?2, ?3)", of.table());
            let groups = serde_json::to_string(&groups).expect("it is JSON");
            connection.execute(&sql, params![up_to, after, groups]).expect("the row is stored");
            after = *up_to;
        }
    }

    #[test]
    fn two_histories_are_the_same_up_to_where_other_groups_stand() {
        let connection = Connection::open_in_memory().expect("a database");
        schema::migrate(&connection, 0).expect("its tables");
        remembered(&connection, Of::Current, &[(2, &[(1, "a"), (2, "b")]), (5, &[(3, "c"), (4, "d"), (5, "e")])]);
        remembered(&connection, Of::Next, &[(4, &[(1, "a"), (2, "b"), (3, "c"), (4, "x")])]);
        let same = |proven| same_up_to(&connection, Seq(proven)).expect("it can be compared");
        assert_eq!((same(0), same(2), same(4)), (Seq(3), Seq(3), Seq(4)));
        let at = |seq| group_at(&connection, Seq(seq)).expect("it can be asked").map(|id| id.to_string());
        assert_eq!((at(2).as_deref(), at(5).as_deref(), at(6)), (Some("b"), Some("e"), None));
        let stands_by = |group: &str, place| {
            let group = GroupId::new(group).expect("an id");
            stands_by(&connection, &group, Seq(place)).expect("it can be asked")
        };
        assert!(stands_by("d", 4) && stands_by("a", 4) && !stands_by("d", 3) && !stands_by("x", 5));
        flip(&connection).expect("it is exchanged");
        assert_eq!((at(4).as_deref(), at(5)), (Some("x"), None));
    }

    #[test]
    fn a_gap_ends_what_is_known_to_be_the_same() {
        let connection = Connection::open_in_memory().expect("a database");
        schema::migrate(&connection, 0).expect("its tables");
        for of in [Of::Current, Of::Next] {
            remembered(&connection, of, &[(2, &[(1, "a"), (2, "b")]), (4, &[(3, "c")]), (6, &[(5, "e")])]);
            connection.execute(&format!("DELETE FROM {} WHERE up_to = 4", of.table()), []).expect("it is gone");
        }
        assert_eq!(same_up_to(&connection, Seq(0)).expect("it can be compared"), Seq(2));
    }
}
