//! One committed state, record by record, in small steps.
//!
//! The steps share a read-only transaction of the isolation level REPEATABLE READ: it locks nothing, and what is deleted
//! meanwhile stays on the disk until it ends.

use super::load::SCHEMA;
use super::read::{END, SNAPSHOT, SPACE};
use super::row::{count, id, space as space_row, stored};
use crate::store::{EachRecord, Part, SnapshotOf, StoreError};
use deadpool_postgres::ClientWrapper;
use gbsync_core::id::{GroupId, Seq};
use gbsync_core::wire::{SnapshotFlag, SnapshotRow};

/// Records and bytes of payloads of a step.
const STEP: (i64, i64) = (2_000, 1024 * 1024);

const RECORDS: &str = "
SELECT entity, id, version, edit_version, payload, scopes FROM (
  SELECT entity, id, version, edit_version, payload, scopes, row_number() OVER w AS place,
         sum(coalesce(octet_length(payload), 0)) OVER w AS bytes
    FROM (SELECT entity, id, version, edit_version, payload, scopes FROM records
           WHERE space_no = $1 AND (entity, id) > ($2, $3) AND (payload IS NOT NULL OR version > $4)
           ORDER BY entity, id LIMIT $5) AS r
  WINDOW w AS (ORDER BY entity, id ROWS UNBOUNDED PRECEDING)) AS s
 WHERE place = 1 OR bytes <= $6::bigint ORDER BY entity, id";

/// Open flags with their groups: of those the log may have no entry any more. Looked for where there are any.
const FLAGS: &str = "
SELECT f.seq, f.place, f.code, f.rule, f.message, f.entity, f.id, f.cleared_by, g.group_id
  FROM groups AS g
 CROSS JOIN LATERAL (SELECT * FROM flags WHERE space_no = $1 AND seq = g.seq AND cleared_by IS NULL OFFSET 0) AS f
 WHERE g.space_no = $1 AND g.flags IS NOT NULL
   AND EXISTS (SELECT 1 FROM flags WHERE space_no = $1 AND cleared_by IS NULL)
 ORDER BY f.seq, f.place";

pub(super) async fn each_record(
    client: &ClientWrapper,
    of: &SnapshotOf,
    take: &mut dyn EachRecord,
) -> Result<bool, StoreError> {
    let of_space = client.prepare_cached(SPACE).await?;
    let step = client.prepare_cached(RECORDS).await?;
    client.batch_execute(SNAPSHOT).await?;
    let row = client.query_opt(&of_space, &[&of.space.as_str()]).await?;
    let Some((space_no, state)) = row.as_ref().map(space_row).transpose()? else {
        client.batch_execute(END).await?;
        return Ok(false);
    };
    let mark = client.query_one(SCHEMA, &[]).await?;
    if take.begin(&state, count(&mark, 0)?)? {
        let (horizon, mut after) = (stored(state.horizon.0), (String::new(), String::new()));
        loop {
            let rows = client.query(&step, &[&space_no, &after.0, &after.1, &horizon, &STEP.0, &STEP.1]).await?;
            let Some(last) = rows.last() else { break };
            after = (last.try_get(0)?, last.try_get(1)?);
            for row in &rows {
                if !of.part.shows(row.try_get(5)?)? {
                    continue;
                }
                take.record(&SnapshotRow {
                    entity: row.try_get(0)?,
                    id: row.try_get(1)?,
                    version: Seq(count(row, 2)?),
                    edit_version: Seq(count(row, 3)?),
                    payload: row.try_get(4)?,
                })?;
            }
        }
        // What a flag says may be of a record that the holder of scopes does not see.
        let is_whole = of.part == Part::Whole;
        let flags = if is_whole { client.query(FLAGS, &[&space_no]).await? } else { Vec::new() };
        for row in &flags {
            let info = super::flags::info(row)?;
            let group = id(row, 8, GroupId::new)?;
            take.flag(&SnapshotFlag { seq: info.id.seq, place: info.id.place, group, flag: info.flag })?;
        }
    }
    client.batch_execute(END).await?;
    Ok(true)
}
