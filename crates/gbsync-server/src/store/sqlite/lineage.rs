//! The lineage of a space's log.

use super::row::{count, id, stored};
use crate::store::lineage::{HealedGroup, KeptAncestor, to_json};
use crate::store::{SpaceState, StoreError};
use gbsync_core::id::{GroupId, LogId, Seq, SpaceId};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

pub(super) const STEP: &str = "
-- The logs that this one was restored from, the nearest first, as JSON. NULL: none.
ALTER TABLE spaces ADD COLUMN ancestors TEXT;

-- Groups that an earlier log lost and that devices brought back: their places there, and here. now_seq NULL: rejected here.
CREATE TABLE healed (
  space_no INTEGER NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, group_id TEXT NOT NULL, now_seq INTEGER,
  PRIMARY KEY (space_no, log, seq)
) STRICT, WITHOUT ROWID;
";

/// What devices brought back of these places of earlier logs.
pub(super) fn load_healed(
    connection: &Connection,
    space_no: i64,
    state: &SpaceState,
    places: &BTreeSet<(&LogId, Seq)>,
) -> Result<Vec<HealedGroup>, StoreError> {
    let mut healed = Vec::new();
    for (log, seq) in places.iter().filter(|(log, _)| !state.ancestors.is_empty() && **log != state.log) {
        let sql = "SELECT group_id, now_seq FROM healed WHERE space_no = ?1 AND log = ?2 AND seq = ?3";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![space_no, log.as_str(), stored(seq.0)])?;
        let Some(row) = rows.next()? else { continue };
        let now = row.get::<_, Option<i64>>(1)?.map(|_| count(row, 1).map(Seq)).transpose()?;
        healed.push(HealedGroup { log: (*log).clone(), seq: *seq, group: id(row, 0, GroupId::new)?, now });
    }
    Ok(healed)
}

/// Keeps what was brought back. The first that said so of a place stays.
pub(super) fn write_healed(connection: &Connection, space_no: i64, healed: &[HealedGroup]) -> Result<(), StoreError> {
    for HealedGroup { log, seq, group, now } in healed {
        let sql =
            "INSERT INTO healed (space_no, log, seq, group_id, now_seq) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
        let now = now.map(|now| stored(now.0));
        connection.prepare_cached(sql)?.execute(params![space_no, log.as_str(), stored(seq.0), group.as_str(), now])?;
    }
    Ok(())
}

/// Gives a space another log.
pub(super) fn fork(
    connection: &Connection,
    space: &SpaceId,
    log: &LogId,
    ancestors: &[KeptAncestor],
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("UPDATE spaces SET log = ?2, ancestors = ?3 WHERE space = ?1")?;
    statement.execute(params![space.as_str(), log.as_str(), to_json(ancestors)])?;
    Ok(())
}
