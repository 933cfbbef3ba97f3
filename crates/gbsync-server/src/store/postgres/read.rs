//! What routes ask of committed states. What takes several statements reads one snapshot.

use super::flight::Flight;
use super::parts;
use super::row::{count, decided, digest, id, space as space_row, stored};
use crate::shown::Shown;
use crate::store::kept::{Filling, Row};
use crate::store::{Page, PageRequest, SpaceState, SpaceView, StoreError, ToldEpoch, Usage, sighted};
use deadpool_postgres::ClientWrapper;
use gbsync_core::id::{DeviceId, DeviceSeq, EpochId, GroupId, Seq, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{DeviceReport, GroupResult};
use std::collections::BTreeMap;

/// Begins a read of several statements on one committed state.
pub(super) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
/// Ends it.
pub(super) const END: &str = "COMMIT";
/// A space's row, as [`space_row`] reads it.
pub(super) const SPACE: &str =
    "SELECT space_no, log, head, chain, horizon, horizon_chain, ancestors FROM spaces WHERE space = $1";

/// What a space holds.
pub(super) async fn usage(client: &ClientWrapper, space: &SpaceId) -> Result<Option<Usage>, StoreError> {
    let of_space = client.prepare_cached(SPACE).await?;
    let Some(row) = client.query_opt(&of_space, &[&space.as_str()]).await? else { return Ok(None) };
    let (space_no, _) = space_row(&row)?;
    let sql = "SELECT count(*), coalesce(sum(octet_length(payload)), 0)::bigint FROM records
                WHERE space_no = $1 AND payload IS NOT NULL";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_one(&statement, &[&space_no]).await?;
    Ok(Some(Usage { records: count(&row, 0)?, bytes: count(&row, 1)? }))
}

const OF_DEVICE: &str = "
SELECT epoch, highest_seq FROM devices
 WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND device = $2 AND pushed_at IS NOT NULL
 ORDER BY pushed_at DESC, epoch_no DESC LIMIT 1";

const SEQUENCES: &str = "
SELECT sequence, highest FROM sequences WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND device = $2";

const TOLD: &str = "
SELECT previous_epoch IS NOT NULL FROM devices
 WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND device = $2 AND epoch = $3";

/// The chain at a place of the log.
const CHAIN: &str = "SELECT chain FROM log WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND seq = $2";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[SPACE, OF_DEVICE, SEQUENCES, TOLD, CHAIN, ENTRIES, VERDICTS];

pub(super) async fn space(
    client: &ClientWrapper,
    space: &SpaceId,
    device: Option<&DeviceId>,
    told: Option<&ToldEpoch>,
) -> Result<Option<SpaceView>, StoreError> {
    let of_space = client.prepare_cached(SPACE).await?;
    let of_device = client.prepare_cached(OF_DEVICE).await?;
    let (of_sequences, of_told) = (client.prepare_cached(SEQUENCES).await?, client.prepare_cached(TOLD).await?);
    let (name, device_name) = (space.as_str(), device.map_or("", DeviceId::as_str));
    let (told_device, told_epoch) = told.map_or(("", ""), |told| (told.key.device.as_str(), told.key.epoch.as_str()));
    let mut flight = Flight::new(client);
    flight.say(SNAPSHOT);
    let at_space = flight.add(&of_space, vec![&name]);
    let at_device = flight.add(&of_device, vec![&name, &device_name]);
    let at_sequences = flight.add(&of_sequences, vec![&name, &device_name]);
    let at_told = flight.add(&of_told, vec![&name, &told_device, &told_epoch]);
    flight.say(END);
    let rows = flight.land().await?;
    let Some(row) = rows[at_space].first() else { return Ok(None) };
    let (_, state) = space_row(row)?;
    let mut sequences = BTreeMap::new();
    for row in &rows[at_sequences] {
        sequences.insert(row.try_get(0)?, count(row, 1)?);
    }
    let report = |row| -> Result<DeviceReport, StoreError> {
        Ok(DeviceReport { epoch: id(row, 0, EpochId::new)?, device_seq: DeviceSeq(count(row, 1)?), sequences })
    };
    let device = rows[at_device].first().filter(|_| device.is_some()).map(report).transpose()?;
    let knows_previous: Option<bool> = rows[at_told].first().map(|row| row.try_get(0)).transpose()?;
    let knows_told = told.is_none_or(|told| knows_previous.is_some_and(|knows| knows || told.previous.is_none()));
    Ok(Some(SpaceView { state, device, knows_told }))
}

pub(super) async fn page(client: &ClientWrapper, request: &PageRequest) -> Result<Page, StoreError> {
    let of_space = client.prepare_cached(SPACE).await?;
    let of_chain = client.prepare_cached(CHAIN).await?;
    let of_entries = client.prepare_cached(ENTRIES).await?;
    let (name, after) = (request.space.as_str(), stored(request.after.0));
    let (records, bytes) = (stored(request.max_records), stored(request.max_bytes));
    let mut flight = Flight::new(client);
    flight.say(SNAPSHOT);
    let at_space = flight.add(&of_space, vec![&name]);
    let at_chain = flight.add(&of_chain, vec![&name, &after]);
    let at_entries = flight.add(&of_entries, vec![&name, &after, &records, &bytes]);
    flight.say(END);
    let rows = flight.land().await?;
    let Some(row) = rows[at_space].first() else { return Ok(Page::NoSpace) };
    let (space_no, state) = space_row(row)?;
    if let Some(page) = refused(request, &state) {
        return Ok(page);
    }
    let chain = match rows[at_chain].first() {
        Some(row) => digest(row, 0)?,
        None if request.after == state.horizon => state.horizon_chain,
        None => {
            let message =
                format!("the log has no entry {}, which is behind its horizon and not beyond its head", request.after);
            return Err(StoreError::Damaged(message));
        }
    };
    if request.chain.is_some_and(|known| known != chain) {
        return Ok(Page::LogChanged);
    }
    let mut filling = Filling::new(request, chain);
    for row in &rows[at_entries] {
        let (seq, change_count, parts) = (Seq(count(row, 0)?), count(row, 1)?, count(row, 4)?);
        let trace: Option<&str> = row.try_get(5)?;
        let told = match parts > 0 && trace.is_none() && !request.sight.is_whole() {
            true => Some(parts::told(client, space_no, seq, &request.sight).await?),
            false => None,
        };
        let entry = Row { seq, change_count, chain: digest(row, 2)?, entry: row.try_get(3)?, parts, trace, told };
        if !filling.add(&entry)? {
            break;
        }
    }
    Ok(filling.finish(state.head))
}

/// No more than what a page may hold leaves PostgreSQL: the rows that fit by their running sums, and always the first.
const ENTRIES: &str = "
SELECT seq, change_count, chain, entry, parts, scopes FROM (
  SELECT l.seq, l.change_count, l.chain, l.entry, l.parts, l.scopes, row_number() OVER w AS place,
         sum(l.change_count) OVER w AS records, sum(octet_length(l.entry)) OVER w AS bytes
    FROM (SELECT seq, change_count, chain, entry, parts, scopes FROM log
           WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND seq > $2 ORDER BY seq
           LIMIT greatest($3::bigint, 1)) AS l
  WINDOW w AS (ORDER BY l.seq ROWS UNBOUNDED PRECEDING)) AS p
 WHERE place = 1 OR (records <= $3::bigint AND bytes <= $4::bigint) ORDER BY seq";

fn refused(request: &PageRequest, state: &SpaceState) -> Option<Page> {
    if request.log.as_ref().is_some_and(|log| *log != state.log) {
        return Some(Page::LogChanged);
    }
    if request.after > state.head {
        return Some(Page::BeyondHead { head: state.head });
    }
    (request.after < state.horizon).then_some(Page::BehindHorizon { horizon: state.horizon })
}

const VERDICTS: &str = "
SELECT g.group_id, g.digest, g.seq, g.flags, r.result, r.scopes, l.seq IS NOT NULL, l.scopes
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::text[]) AS w(group_id)
 CROSS JOIN LATERAL (SELECT * FROM groups WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS g
  LEFT JOIN LATERAL (SELECT * FROM rejections WHERE space_no = s.space_no AND group_id = g.group_id OFFSET 0) AS r ON true
  LEFT JOIN LATERAL (SELECT * FROM log WHERE space_no = s.space_no AND seq = g.seq OFFSET 0) AS l ON true";

pub(super) async fn verdicts(
    client: &ClientWrapper,
    space: &SpaceId,
    ids: &[GroupId],
    scopes: &ScopeSet,
) -> Result<Vec<GroupResult>, StoreError> {
    let statement = client.prepare_cached(VERDICTS).await?;
    let names: Vec<&str> = ids.iter().map(GroupId::as_str).collect();
    let mut known = BTreeMap::new();
    for row in &client.query(&statement, &[&space.as_str(), &names]).await? {
        let group = id(row, 0, GroupId::new)?;
        let outcome = decided(&group, row, 1)?.outcome;
        let (is_logged, trace): (bool, Option<&str>) = (row.try_get(6)?, row.try_get(7)?);
        known.insert(group, sighted::verdict(outcome, is_logged.then_some(trace), row.try_get(5)?, scopes)?);
    }
    let mut shown = Shown::new();
    let verdict = |id: &GroupId| {
        let mut verdict = known.get(id).cloned().unwrap_or(Verdict::Unknown);
        if let Verdict::Rejected { rejection, .. } = &mut verdict {
            shown.fit(rejection);
        }
        GroupResult { id: id.clone(), verdict }
    };
    Ok(ids.iter().map(verdict).collect())
}
