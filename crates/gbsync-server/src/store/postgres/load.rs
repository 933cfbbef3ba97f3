//! What a transaction needs to know of its space: with the lock of the space, in one round trip.

use super::flight::Flight;
use super::lineage::load_healed;
use super::row::{count, decided, digest, id, optional_id, space as space_row, stored};
use super::writer::{BEGIN, PostgresWriter, lock};
use crate::store::{EpochKey, FlagId, Held, HeldRejection, SchemaMark, StoreError, Wanted, sighted};
use deadpool_postgres::ClientWrapper;
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, EpochId, GroupId, GroupType, Seq, SpaceId};
use gbsync_core::verdict::{Resolution, ResolvedAs};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;

/// Which schema is in force.
/// The newest schema that was stored, and the newest in force.
pub(super) const SCHEMA: &str =
    "SELECT coalesce(max(version), 0), coalesce(max(version) FILTER (WHERE in_force), 0) FROM schemas";

/// Of each group: what was decided, its family, who won there and how it was closed.
const GROUPS: &str = "
SELECT w.group_id, g.group_id IS NOT NULL, g.digest, g.seq, g.flags, r.result, f.root, v.group_id,
       c.of_group, c.closed_as, c.closed_by, c.actor, c.reason
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::text[]) AS w(group_id)
  LEFT JOIN LATERAL (SELECT * FROM groups WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS g ON true
  LEFT JOIN LATERAL (SELECT result FROM rejections WHERE space_no = s.space_no AND group_id = g.group_id AND g.seq IS NULL
                     OFFSET 0) AS r ON true
  LEFT JOIN LATERAL (SELECT root FROM families WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS f ON true
  LEFT JOIN LATERAL (SELECT group_id FROM family_winners WHERE space_no = s.space_no AND root = f.root OFFSET 0) AS v ON true
  LEFT JOIN LATERAL (SELECT * FROM family_closures WHERE space_no = s.space_no AND root = f.root OFFSET 0) AS c ON true
 WHERE g.group_id IS NOT NULL OR f.root IS NOT NULL";

const NUMBERS: &str = "
SELECT d.device, d.epoch, n.device_seq, n.group_id
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::text[], $3::text[], $4::bigint[]) AS w(device, epoch, device_seq)
 CROSS JOIN LATERAL (SELECT * FROM devices WHERE space_no = s.space_no AND device = w.device AND epoch = w.epoch OFFSET 0) AS d
 CROSS JOIN LATERAL (SELECT * FROM numbers WHERE space_no = s.space_no AND epoch_no = d.epoch_no AND device_seq = w.device_seq
                     OFFSET 0) AS n";

const REJECTED: &str = "
SELECT r.group_id, r.group_type, r.actor, d.device, r.scopes
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::text[]) AS w(group_id)
 CROSS JOIN LATERAL (SELECT * FROM rejections WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS r
 CROSS JOIN LATERAL (SELECT epoch_no FROM groups WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS g
  LEFT JOIN LATERAL (SELECT device FROM devices WHERE space_no = s.space_no AND epoch_no = g.epoch_no OFFSET 0) AS d ON true";

const FLAGS: &str = "
SELECT f.seq, f.place
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::bigint[], $3::bigint[]) AS w(seq, place)
 CROSS JOIN LATERAL (SELECT * FROM flags WHERE space_no = s.space_no AND seq = w.seq AND place = w.place OFFSET 0) AS f";

/// The chain at places of the log.
const CHAINS: &str = "
SELECT l.seq, l.chain
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::bigint[]) AS w(seq)
 CROSS JOIN LATERAL (SELECT seq, chain FROM log WHERE space_no = s.space_no AND seq = w.seq OFFSET 0) AS l";

/// The last number that the server gave in an epoch of its own.
const LAST_NUMBER: &str = "
SELECT device_seq, group_id FROM numbers
 WHERE space_no = $1 AND epoch_no = (SELECT epoch_no FROM devices WHERE space_no = $1 AND device = $2 AND epoch = $3)
 ORDER BY device_seq DESC LIMIT 1";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[GROUPS, NUMBERS, REJECTED, FLAGS, CHAINS, LAST_NUMBER];

/// Locks the space and loads what is wanted; `None` when there is no such space.
pub(super) async fn load(
    writer: &mut PostgresWriter,
    space: &SpaceId,
    wanted: &Wanted<'_>,
) -> Result<Option<Held>, StoreError> {
    let begins = !writer.is_open;
    writer.is_open = true;
    let client = writer.client();
    let prepare = async |sql| client.prepare_cached(sql).await;
    let (locked, schema, groups, numbers) =
        (prepare(lock()).await?, prepare(SCHEMA).await?, prepare(GROUPS).await?, prepare(NUMBERS).await?);
    let (rejected, flags, chains) = (prepare(REJECTED).await?, prepare(FLAGS).await?, prepare(CHAINS).await?);
    let name = space.as_str();
    let group_ids: Vec<&str> = wanted.groups.iter().map(|group| group.as_str()).collect();
    let rejected_ids: Vec<&str> = wanted.rejected.iter().map(|group| group.as_str()).collect();
    let Numbers { devices, epochs, seqs } = Numbers::of(&wanted.numbers);
    let flag_seqs: Vec<i64> = wanted.flags.iter().map(|flag| stored(flag.seq.0)).collect();
    let flag_places: Vec<i64> = wanted.flags.iter().map(|flag| stored(flag.place)).collect();
    let places: Vec<i64> = wanted.chains.iter().map(|seq| stored(seq.0)).collect();
    let mut flight = Flight::new(client);
    if begins {
        flight.say(BEGIN);
    }
    // Before the others: they see what was committed while this one waited.
    let at_lock = flight.add(&locked, vec![&name]);
    let at_schema = flight.add(&schema, vec![]);
    let at_groups = (!group_ids.is_empty()).then(|| flight.add(&groups, vec![&name, &group_ids]));
    let at_numbers = (!seqs.is_empty()).then(|| flight.add(&numbers, vec![&name, &devices, &epochs, &seqs]));
    let at_rejected = (!rejected_ids.is_empty()).then(|| flight.add(&rejected, vec![&name, &rejected_ids]));
    let at_flags = (!flag_seqs.is_empty()).then(|| flight.add(&flags, vec![&name, &flag_seqs, &flag_places]));
    let at_chains = (!places.is_empty()).then(|| flight.add(&chains, vec![&name, &places]));
    let rows = flight.land().await?;
    let rows_of = |place: Option<usize>| place.map_or(&[][..], |place| rows[place].as_slice());
    let Some(row) = rows[at_lock].first() else { return Ok(None) };
    let (space_no, state) = space_row(row)?;
    let mark = &rows[at_schema][0];
    let schema = SchemaMark { latest: count(mark, 0)?, in_force: count(mark, 1)? };
    let healed = load_healed(client, space_no, &state, &wanted.lost).await?;
    let mut chains =
        BTreeMap::from([(Seq(0), Digest::ZERO), (state.horizon, state.horizon_chain), (state.head, state.chain)]);
    for row in rows_of(at_chains) {
        chains.insert(Seq(count(row, 0)?), digest(row, 1)?);
    }
    let mut held = Held {
        healed,
        chains,
        state,
        schema,
        groups: BTreeMap::new(),
        roots: BTreeMap::new(),
        winners: BTreeMap::new(),
        closures: BTreeMap::new(),
        rejected: held_rejections(rows_of(at_rejected))?,
        numbers: wanted.numbers.keys().map(|key| (key.clone(), BTreeMap::new())).collect(),
        flags: held_flags(rows_of(at_flags))?,
    };
    rows_of(at_groups).iter().try_for_each(|row| hold_group(&mut held, row))?;
    for row in rows_of(at_numbers) {
        let key = EpochKey { device: id(row, 0, DeviceId::new)?, epoch: id(row, 1, EpochId::new)? };
        held.numbers.entry(key).or_default().insert(DeviceSeq(count(row, 2)?), id(row, 3, GroupId::new)?);
    }
    if wanted.makes_groups {
        let key = EpochKey::of_server(&held.state.log);
        held.numbers.insert(key.clone(), last_number(client, space_no, &key).await?);
    }
    writer.entered = Some((space.clone(), space_no));
    Ok(Some(held))
}

/// Numbers that are asked for, side by side.
struct Numbers<'w> {
    devices: Vec<&'w str>,
    epochs: Vec<&'w str>,
    seqs: Vec<i64>,
}

impl<'w> Numbers<'w> {
    fn of(wanted: &'w BTreeMap<EpochKey, BTreeSet<DeviceSeq>>) -> Self {
        let mut numbers = Self { devices: Vec::new(), epochs: Vec::new(), seqs: Vec::new() };
        for (key, device_seq) in wanted.iter().flat_map(|(key, seqs)| seqs.iter().map(move |seq| (key, seq))) {
            numbers.devices.push(key.device.as_str());
            numbers.epochs.push(key.epoch.as_str());
            numbers.seqs.push(stored(device_seq.0));
        }
        numbers
    }
}

fn hold_group(held: &mut Held, row: &Row) -> Result<(), StoreError> {
    let group = id(row, 0, GroupId::new)?;
    if row.try_get::<_, bool>(1)? {
        held.groups.insert(group.clone(), decided(&group, row, 2)?);
    }
    let Some(root) = optional_id(row, 6, GroupId::new)? else { return Ok(()) };
    if let Some(winner) = optional_id(row, 7, GroupId::new)? {
        held.winners.insert(root.clone(), winner);
    }
    if let Some(of) = optional_id(row, 8, GroupId::new)? {
        let word: &str = row.try_get(9)?;
        let resolution = Resolution {
            of,
            resolved_as: ResolvedAs::from_wire(word)
                .ok_or_else(|| StoreError::Damaged(format!("a family is closed as {word:?}")))?,
            by: optional_id(row, 10, GroupId::new)?,
            actor: optional_id(row, 11, Actor::new)?,
            reason: row.try_get::<_, Option<&str>>(12)?.map(Into::into),
        };
        held.closures.insert(root.clone(), resolution);
    }
    held.roots.insert(group, root);
    Ok(())
}

fn held_rejections(rows: &[Row]) -> Result<BTreeMap<GroupId, HeldRejection>, StoreError> {
    let held = |row: &Row| {
        let rejection = HeldRejection {
            group_type: optional_id(row, 1, GroupType::new)?,
            actor: optional_id(row, 2, Actor::new)?,
            device: optional_id(row, 3, DeviceId::new)?,
            scopes: sighted::scope_set(row.try_get(4)?)?,
        };
        Ok((id(row, 0, GroupId::new)?, rejection))
    };
    rows.iter().map(held).collect()
}

fn held_flags(rows: &[Row]) -> Result<BTreeSet<FlagId>, StoreError> {
    rows.iter().map(|row| Ok(FlagId { seq: Seq(count(row, 0)?), place: count(row, 1)? })).collect()
}

async fn last_number(
    client: &ClientWrapper,
    space_no: i64,
    key: &EpochKey,
) -> Result<BTreeMap<DeviceSeq, GroupId>, StoreError> {
    let statement = client.prepare_cached(LAST_NUMBER).await?;
    let row = client.query_opt(&statement, &[&space_no, &key.device.as_str(), &key.epoch.as_str()]).await?;
    row.iter().map(|row| Ok((DeviceSeq(count(row, 0)?), id(row, 1, GroupId::new)?))).collect()
}
