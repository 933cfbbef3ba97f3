//! The lineage of a space's log.

use super::flight::Outgoing;
use super::row::{count, id, optional_count, stored};
use crate::store::lineage::{HealedGroup, KeptAncestor, to_json};
use crate::store::{SpaceState, StoreError};
use deadpool_postgres::ClientWrapper;
use gbsync_core::id::{GroupId, LogId, Seq};
use std::collections::BTreeSet;

const LOAD: &str = "
SELECT h.log, h.seq, h.group_id, h.now_seq FROM unnest($2::text[], $3::bigint[]) AS w(log, seq)
 CROSS JOIN LATERAL (SELECT * FROM healed WHERE space_no = $1 AND log = w.log AND seq = w.seq OFFSET 0) AS h";

/// The first that said so of a place stays.
const WRITE: &str = "
INSERT INTO healed (space_no, log, seq, group_id, now_seq)
SELECT $1, w.* FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[]) AS w ON CONFLICT DO NOTHING";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[LOAD, WRITE];

/// What devices brought back of these places of earlier logs. Asks only where the log was restored.
pub(super) async fn load_healed(
    client: &ClientWrapper,
    space_no: i64,
    state: &SpaceState,
    places: &BTreeSet<(&LogId, Seq)>,
) -> Result<Vec<HealedGroup>, StoreError> {
    let places = places.iter().filter(|(log, _)| !state.ancestors.is_empty() && **log != state.log);
    let (logs, seqs): (Vec<&str>, Vec<i64>) = places.map(|(log, seq)| (log.as_str(), stored(seq.0))).unzip();
    if logs.is_empty() {
        return Ok(Vec::new());
    }
    let statement = client.prepare_cached(LOAD).await?;
    let rows = client.query(&statement, &[&space_no, &logs, &seqs]).await?;
    let healed = |row| {
        let now = optional_count(row, 3)?.map(Seq);
        Ok(HealedGroup { log: id(row, 0, LogId::new)?, seq: Seq(count(row, 1)?), group: id(row, 2, GroupId::new)?, now })
    };
    rows.iter().map(healed).collect()
}

/// Keeps what was brought back.
pub(super) fn write_healed<'w>(outgoing: &mut Outgoing<'w>, healed: &'w [HealedGroup]) {
    if healed.is_empty() {
        return;
    }
    let logs: Vec<&str> = healed.iter().map(|healed| healed.log.as_str()).collect();
    let seqs: Vec<i64> = healed.iter().map(|healed| stored(healed.seq.0)).collect();
    let groups: Vec<&str> = healed.iter().map(|healed| healed.group.as_str()).collect();
    let now: Vec<Option<i64>> = healed.iter().map(|healed| healed.now.map(|now| stored(now.0))).collect();
    outgoing.add(WRITE, vec![Box::new(logs), Box::new(seqs), Box::new(groups), Box::new(now)]);
}

/// Gives a space another log.
pub(super) async fn fork(
    client: &ClientWrapper,
    space_no: i64,
    log: &LogId,
    ancestors: &[KeptAncestor],
) -> Result<(), StoreError> {
    let sql = "UPDATE spaces SET log = $2, ancestors = $3 WHERE space_no = $1";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&space_no, &log.as_str(), &to_json(ancestors)]).await?;
    Ok(())
}
