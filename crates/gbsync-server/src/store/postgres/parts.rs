//! Groups in parts: what is staged of those that devices upload, and log entries that no page holds.
//!
//! Invariant: nothing staged is read but by the push that names it, in the transaction that decides it.

use super::flight::Flight;
use super::read::{END, SNAPSHOT, SPACE};
use super::row::{count, id, space as space_row, stored};
use crate::store::{LogPart, PartRequest, Staged, Staging, StoreError, UploadedPart, sighted};
use deadpool_postgres::ClientWrapper;
use gbsync_core::id::{DeviceId, GroupId, Seq, SpaceId};
use gbsync_core::limits::MISSING_PARTS;
use gbsync_core::scope::Sight;
use gbsync_core::wire::change_count;

/// How many of the largest groups a device may have staged at a time.
const DEVICE_GROUPS: u64 = 2;

const IS_DECIDED: &str = "SELECT 1 FROM groups WHERE space_no = $1 AND group_id = $2";
const PART: &str = "SELECT octet_length(body)::bigint - 1 FROM upload_parts WHERE space_no = $1 AND device = $2 AND group_id = $3 AND part = $4";
const UPLOADS: &str =
    "SELECT group_id, bytes FROM uploads WHERE space_no = $1 AND device = $2 ORDER BY touched_ms DESC, group_id";
const TOUCH: &str = "
INSERT INTO uploads (space_no, device, group_id, bytes, touched_ms) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (space_no, device, group_id) DO UPDATE SET bytes = excluded.bytes, touched_ms = excluded.touched_ms";
const KEEP: &str = "
INSERT INTO upload_parts (space_no, device, group_id, part, body) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (space_no, device, group_id, part) DO UPDATE SET body = excluded.body";

const LOG_PART: &str = "
SELECT p.body, l.scopes
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN LATERAL (SELECT scopes FROM log WHERE space_no = s.space_no AND seq = $2 OFFSET 0) AS l
 CROSS JOIN LATERAL (SELECT body FROM log_parts WHERE space_no = s.space_no AND seq = $2 AND part = $3 OFFSET 0) AS p";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[IS_DECIDED, PART, UPLOADS, TOUCH, KEEP, LOG_PART];

pub(super) async fn stage(
    client: &ClientWrapper,
    space_no: i64,
    part: &UploadedPart,
    group_bytes: u64,
    now_ms: u64,
) -> Result<Staging, StoreError> {
    let prepare = async |sql| client.prepare_cached(sql).await;
    let (is_decided, of_part, of_uploads) = (prepare(IS_DECIDED).await?, prepare(PART).await?, prepare(UPLOADS).await?);
    let (device, group, number) = (part.device.as_str(), part.group.as_str(), stored(part.number));
    let mut flight = Flight::new(client);
    let at_decided = flight.add(&is_decided, vec![&space_no, &group]);
    let at_part = flight.add(&of_part, vec![&space_no, &device, &group, &number]);
    let at_uploads = flight.add(&of_uploads, vec![&space_no, &device]);
    let rows = flight.land().await?;
    if !rows[at_decided].is_empty() {
        return Ok(Staging::Decided);
    }
    let before = rows[at_part].first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))?;
    let mut uploads = Vec::new();
    for row in &rows[at_uploads] {
        uploads.push((row.try_get::<_, &str>(0)?, count(row, 1)?));
    }
    let others = uploads.iter().find(|(upload, _)| *upload == group).map_or(0, |(_, bytes)| stored(*bytes));
    // Of the two brackets one stands for the comma to the next part.
    let bytes = others - before + stored(part.body.len() as u64) - 1;
    let bytes = u64::try_from(bytes).map_err(|_| StoreError::Damaged(format!("{bytes} bytes are staged of {group}")))?;
    if bytes + 1 > group_bytes {
        return Ok(Staging::OverLimit(group_bytes));
    }
    // The longest untouched uploads of the device, but this one, go until this one has room. Their device will be told
    // which parts are missing and send them again.
    let (mut total, mut crowded_out) = (bytes, Vec::new());
    for (upload, bytes) in uploads.iter().filter(|(upload, _)| *upload != group) {
        total = total.saturating_add(*bytes);
        if total > group_bytes.saturating_mul(DEVICE_GROUPS) {
            crowded_out.push(*upload);
        }
    }
    if !crowded_out.is_empty() {
        remove(client, space_no, device, &crowded_out).await?;
    }
    let (touch, keep) = (prepare(TOUCH).await?, prepare(KEEP).await?);
    let (bytes, now_ms) = (stored(bytes), stored(now_ms));
    let mut flight = Flight::new(client);
    flight.add(&touch, vec![&space_no, &device, &group, &bytes, &now_ms]);
    flight.add(&keep, vec![&space_no, &device, &group, &number, &part.body]);
    flight.land().await?;
    Ok(Staging::Staged)
}

/// Removes what is staged of groups.
pub(super) async fn remove(client: &ClientWrapper, space_no: i64, device: &str, groups: &[&str]) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM upload_parts WHERE space_no = $1 AND device = $2 AND group_id = ANY($3)",
        "DELETE FROM uploads WHERE space_no = $1 AND device = $2 AND group_id = ANY($3)",
    ] {
        let statement = client.prepare_cached(sql).await?;
        client.execute(&statement, &[&space_no, &device, &groups]).await?;
    }
    Ok(())
}

pub(super) async fn staged(
    client: &ClientWrapper,
    (space_no, device, group): (i64, &DeviceId, &GroupId),
    parts: u64,
    take: &mut dyn FnMut(&str) -> Result<bool, StoreError>,
) -> Result<Staged, StoreError> {
    let (device, group, most) = (device.as_str(), group.as_str(), stored(parts));
    let is_decided = client.prepare_cached(IS_DECIDED).await?;
    if client.query_opt(&is_decided, &[&space_no, &group]).await?.is_some() {
        return Ok(Staged::Decided);
    }
    let numbers = client
        .prepare_cached(
            "SELECT part FROM upload_parts WHERE space_no = $1 AND device = $2 AND group_id = $3 AND part < $4 ORDER BY part",
        )
        .await?;
    let (mut missing, mut next) = (Vec::new(), 0);
    for row in client.query(&numbers, &[&space_no, &device, &group, &most]).await? {
        let part = count(&row, 0)?;
        missing.extend(next..part);
        next = part + 1;
    }
    missing.extend(next..parts);
    missing.truncate(MISSING_PARTS);
    if !missing.is_empty() {
        return Ok(Staged::Missing(missing));
    }
    let body = client
        .prepare_cached("SELECT body FROM upload_parts WHERE space_no = $1 AND device = $2 AND group_id = $3 AND part = $4")
        .await?;
    // One at a time: a group may be as large as all the memory that is meant for it.
    for number in 0..most {
        let row = client.query_one(&body, &[&space_no, &device, &group, &number]).await?;
        if !take(row.try_get(0)?)? {
            break;
        }
    }
    Ok(Staged::All)
}

/// Where uploads were not touched since.
pub(super) async fn spaces_with_expired(client: &ClientWrapper, before_ms: u64) -> Result<Vec<SpaceId>, StoreError> {
    let sql = "SELECT DISTINCT s.space FROM uploads u JOIN spaces s USING (space_no) WHERE u.touched_ms < $1";
    let rows = client.query(sql, &[&stored(before_ms)]).await?;
    rows.iter().map(|row| id(row, 0, SpaceId::new)).collect()
}

/// Removes uploads of a space that were not touched since.
pub(super) async fn expire(client: &ClientWrapper, space_no: i64, before_ms: u64) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM upload_parts p USING uploads u WHERE u.space_no = $1 AND u.touched_ms < $2
            AND p.space_no = u.space_no AND p.device = u.device AND p.group_id = u.group_id",
        "DELETE FROM uploads WHERE space_no = $1 AND touched_ms < $2",
    ] {
        client.execute(sql, &[&space_no, &stored(before_ms)]).await?;
    }
    Ok(())
}

pub(super) async fn log_part(client: &ClientWrapper, request: &PartRequest) -> Result<LogPart, StoreError> {
    let PartRequest { space, log, seq, number, sight } = request;
    let of_space = client.prepare_cached(SPACE).await?;
    let of_part = client.prepare_cached(LOG_PART).await?;
    let (name, place, part) = (space.as_str(), stored(seq.0), stored(*number));
    let mut flight = Flight::new(client);
    flight.say(SNAPSHOT);
    let at_space = flight.add(&of_space, vec![&name]);
    let at_part = flight.add(&of_part, vec![&name, &place, &part]);
    flight.say(END);
    let rows = flight.land().await?;
    let Some(row) = rows[at_space].first() else { return Ok(LogPart::NoSpace) };
    let (space_no, state) = space_row(row)?;
    if log.as_ref().is_some_and(|log| *log != state.log) {
        return Ok(LogPart::LogChanged);
    }
    if *seq > state.head {
        return Ok(LogPart::BeyondHead { head: state.head });
    }
    if *seq <= state.horizon {
        return Ok(LogPart::BehindHorizon { horizon: state.horizon });
    }
    let Some(row) = rows[at_part].first() else { return Ok(LogPart::NoPart) };
    let (body, trace): (&str, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
    let is_divided = sight.of_entry(trace).map_err(sighted::damaged)?.is_none();
    let skipped = if is_divided { changes_before(client, space_no, *seq, *number).await? } else { 0 };
    let told = sighted::log_part(sight, *seq, body, || Ok(skipped), trace)?;
    Ok(told.map_or(LogPart::NoPart, LogPart::Body))
}

/// How many changes of an entry are in the parts before one. One at a time, as each may be large.
async fn changes_before(client: &ClientWrapper, space_no: i64, seq: Seq, number: u64) -> Result<u64, StoreError> {
    let mut changes = 0;
    for before in 0..number {
        changes += part_of(client, space_no, seq, before).await?.map_or(0, |body| change_count(&body));
    }
    Ok(changes)
}

/// How many changes of an entry in parts are told, where nothing is stored beside it that says so.
pub(super) async fn told(client: &ClientWrapper, space_no: i64, seq: Seq, sight: &Sight) -> Result<u64, StoreError> {
    let (mut told, mut number) = (0, 0);
    while let Some(body) = part_of(client, space_no, seq, number).await? {
        told += sighted::told_in_parts(sight, [body])?;
        number += 1;
    }
    Ok(told)
}

async fn part_of(client: &ClientWrapper, space_no: i64, seq: Seq, number: u64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT body FROM log_parts WHERE space_no = $1 AND seq = $2 AND part = $3";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_opt(&statement, &[&space_no, &stored(seq.0), &stored(number)]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
