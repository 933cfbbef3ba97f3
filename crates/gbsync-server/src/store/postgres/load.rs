//! What a transaction needs to know of its space: with the lock of the space, in one round trip.
//!
//! What every push asks is one statement, whose rows say what they answer: executing a statement costs more than most answers
//! that it finds. What only some ask travels beside it; what was found and needs another look, a round trip later.

use super::flight::Flight;
use super::learn::{LISTS, hold_lists, lists_of};
use super::lineage::load_healed;
use super::row::{count, digest, id, optional_count, optional_id, record, space as space_row, stored};
use super::writer::{BEGIN, PostgresWriter, lock};
use crate::store::{
    Decided, DecidedAs, EpochKey, FlagId, Held, HeldRejection, SchemaMark, StoreError, Wanted, kept, sighted,
};
use deadpool_postgres::ClientWrapper;
use gbsync_core::decide::Facts;
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, GroupId, GroupType, RecordKey, Seq, SpaceId};
use gbsync_core::scope::Reach;
use gbsync_core::verdict::{Resolution, ResolvedAs};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;

/// The newest schema that was stored, and the newest in force.
pub(super) const SCHEMA: &str =
    "SELECT coalesce(max(version), 0), coalesce(max(version) FILTER (WHERE in_force), 0) FROM schemas";

/// What every push asks. Behind the kind of a row, and the place of what it answers among what was asked: of the schemas as
/// `SCHEMA`; of a known group its seq, digest, flags and root; of an epoch its number, and one of the device's numbers with its
/// group, which is looked for only where it is not above all that are known; of a record as `row::record`.
const ASKED: &str = "
WITH s AS MATERIALIZED (SELECT space_no FROM spaces WHERE space = $1)
SELECT 0, 0::bigint, coalesce(max(version), 0), coalesce(max(version) FILTER (WHERE in_force), 0), NULL::text, NULL::text,
       NULL::text, NULL::bytea
  FROM schemas
UNION ALL
SELECT 1, w.place, g.seq, (g.group_id IS NOT NULL)::int::bigint, g.flags, f.root, NULL, g.digest
  FROM s CROSS JOIN unnest($2::text[]) WITH ORDINALITY AS w(group_id, place)
  LEFT JOIN LATERAL (SELECT * FROM groups WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS g ON true
  LEFT JOIN LATERAL (SELECT root FROM families WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS f ON true
 WHERE g.group_id IS NOT NULL OR f.root IS NOT NULL
UNION ALL
SELECT 2, w.place, d.epoch_no, n.device_seq, n.group_id, NULL, NULL, NULL
  FROM s CROSS JOIN unnest($3::text[], $4::text[], $5::int[], $6::int[]) WITH ORDINALITY AS w(device, epoch, first, last, place)
 CROSS JOIN LATERAL (SELECT epoch_no, highest_seq FROM devices
                      WHERE space_no = s.space_no AND device = w.device AND epoch = w.epoch OFFSET 0) AS d
  LEFT JOIN LATERAL (
       SELECT n.device_seq, n.group_id FROM unnest(($7::bigint[])[w.first:w.last]) AS a(device_seq)
        CROSS JOIN LATERAL (SELECT * FROM numbers WHERE space_no = s.space_no AND epoch_no = d.epoch_no
                               AND device_seq = a.device_seq AND a.device_seq <= d.highest_seq OFFSET 0) AS n
       OFFSET 0) AS n ON true
UNION ALL
SELECT 3, w.place, r.version, r.edit_version, r.payload, r.marks, r.scopes, NULL
  FROM s CROSS JOIN unnest($8::text[], $9::text[]) WITH ORDINALITY AS w(entity, id, place)
 CROSS JOIN LATERAL (SELECT * FROM records WHERE space_no = s.space_no AND entity = w.entity AND id = w.id OFFSET 0) AS r";

/// Of groups that are of a family, or that were rejected: why, who won in the family and how it was closed.
const FATES: &str = "
SELECT w.group_id, r.result, f.root, v.group_id, c.of_group, c.closed_as, c.closed_by, c.actor, c.reason
  FROM unnest($2::text[]) AS w(group_id)
  LEFT JOIN LATERAL (SELECT result FROM rejections WHERE space_no = $1 AND group_id = w.group_id OFFSET 0) AS r ON true
  LEFT JOIN LATERAL (SELECT root FROM families WHERE space_no = $1 AND group_id = w.group_id OFFSET 0) AS f ON true
  LEFT JOIN LATERAL (SELECT group_id FROM family_winners WHERE space_no = $1 AND root = f.root OFFSET 0) AS v ON true
  LEFT JOIN LATERAL (SELECT * FROM family_closures WHERE space_no = $1 AND root = f.root OFFSET 0) AS c ON true";

const REJECTED: &str = "
SELECT r.group_id, r.group_type, r.actor, d.device, r.scopes
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::text[]) AS w(group_id)
 CROSS JOIN LATERAL (SELECT * FROM rejections WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS r
 CROSS JOIN LATERAL (SELECT epoch_no FROM groups WHERE space_no = s.space_no AND group_id = w.group_id OFFSET 0) AS g
  LEFT JOIN LATERAL (SELECT device FROM devices WHERE space_no = s.space_no AND epoch_no = g.epoch_no OFFSET 0) AS d ON true";

/// Flags, and where the record of each is seen.
const FLAGS: &str = "
SELECT f.seq, f.place, r.id IS NOT NULL, r.scopes
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::bigint[], $3::bigint[]) AS w(seq, place)
 CROSS JOIN LATERAL (SELECT * FROM flags WHERE space_no = s.space_no AND seq = w.seq AND place = w.place OFFSET 0) AS f
  LEFT JOIN LATERAL (SELECT id, scopes FROM records WHERE space_no = s.space_no AND entity = f.entity AND id = f.id OFFSET 0) AS r ON true";

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
pub(super) const PLANNED: &[&str] = &[ASKED, FATES, REJECTED, FLAGS, CHAINS, LAST_NUMBER];

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
    let (locked, asked) = (prepare(lock()).await?, prepare(ASKED).await?);
    let (rejected, flags, chains) = (prepare(REJECTED).await?, prepare(FLAGS).await?, prepare(CHAINS).await?);
    let lists = prepare(LISTS).await?;
    let name = space.as_str();
    let Asked { groups, devices, epochs, first, last, seqs, entities, ids } = Asked::of(wanted);
    let rejected_ids: Vec<&str> = wanted.rejected.iter().map(|group| group.as_str()).collect();
    let flag_seqs: Vec<i64> = wanted.flags.iter().map(|flag| stored(flag.seq.0)).collect();
    let flag_places: Vec<i64> = wanted.flags.iter().map(|flag| stored(flag.place)).collect();
    let places: Vec<i64> = wanted.chains.iter().map(|seq| stored(seq.0)).collect();
    let (list_entities, list_keys) = lists_of(&wanted.needs);
    let mut flight = Flight::new(client);
    if begins {
        flight.say(BEGIN);
    }
    // Before the others: they see what was committed while this one waited.
    let at_lock = flight.add(&locked, vec![&name]);
    let at_asked = flight.add(&asked, vec![&name, &groups, &devices, &epochs, &first, &last, &seqs, &entities, &ids]);
    let at_rejected = (!rejected_ids.is_empty()).then(|| flight.add(&rejected, vec![&name, &rejected_ids]));
    let at_flags = (!flag_seqs.is_empty()).then(|| flight.add(&flags, vec![&name, &flag_seqs, &flag_places]));
    let at_chains = (!places.is_empty()).then(|| flight.add(&chains, vec![&name, &places]));
    let at_lists = (!list_keys.is_empty()).then(|| flight.add(&lists, vec![&name, &list_entities, &list_keys]));
    let rows = flight.land().await?;
    let rows_of = |place: Option<usize>| place.map_or(&[][..], |place| rows[place].as_slice());
    let Some(row) = rows[at_lock].first() else { return Ok(None) };
    let (space_no, state) = space_row(row)?;
    let healed = load_healed(client, space_no, &state, &wanted.lost).await?;
    let mut chains =
        BTreeMap::from([(Seq(0), Digest::ZERO), (state.horizon, state.horizon_chain), (state.head, state.chain)]);
    for row in rows_of(at_chains) {
        chains.insert(Seq(count(row, 0)?), digest(row, 1)?);
    }
    let mut held = Held {
        healed,
        chains,
        facts: Facts::behind(state.horizon),
        state,
        schema: SchemaMark::default(),
        groups: BTreeMap::new(),
        roots: BTreeMap::new(),
        winners: BTreeMap::new(),
        closures: BTreeMap::new(),
        rejected: held_rejections(rows_of(at_rejected))?,
        numbers: wanted.numbers.keys().map(|key| (key.clone(), BTreeMap::new())).collect(),
        flags: held_flags(rows_of(at_flags))?,
    };
    let found = answers(&mut held, wanted, &rows[at_asked])?;
    hold_lists(&mut held.facts, &wanted.needs, rows_of(at_lists))?;
    fates(client, space_no, &mut held, found.unclear).await?;
    if wanted.makes_groups {
        let key = EpochKey::of_server(&held.state.log);
        held.numbers.insert(key.clone(), last_number(client, space_no, &key).await?);
    }
    writer.stand_in(space, space_no);
    (writer.epochs, writer.absent) = (found.epochs, found.absent);
    Ok(Some(held))
}

/// What is asked, side by side.
#[derive(Default)]
struct Asked<'w> {
    groups: Vec<&'w str>,
    /// Of each epoch, with the places of its numbers among all `seqs`, from one.
    devices: Vec<&'w str>,
    epochs: Vec<&'w str>,
    first: Vec<i32>,
    last: Vec<i32>,
    seqs: Vec<i64>,
    /// Of each record.
    entities: Vec<&'w str>,
    ids: Vec<&'w str>,
}

impl<'w> Asked<'w> {
    fn of(wanted: &'w Wanted<'_>) -> Self {
        let records = || wanted.needs.records.iter();
        let mut asked = Self {
            groups: wanted.groups.iter().map(|group| group.as_str()).collect(),
            entities: records().map(|key| key.entity.as_str()).collect(),
            ids: records().map(|key| key.id.as_str()).collect(),
            ..Self::default()
        };
        let place = |count: usize| i32::try_from(count).expect("a transaction has fewer groups than 2^31");
        for (key, seqs) in &wanted.numbers {
            asked.devices.push(key.device.as_str());
            asked.epochs.push(key.epoch.as_str());
            asked.first.push(place(asked.seqs.len() + 1));
            asked.seqs.extend(seqs.iter().map(|seq| stored(seq.0)));
            asked.last.push(place(asked.seqs.len()));
        }
        asked
    }
}

/// What the answers say beside what is held.
#[derive(Default)]
struct Found {
    /// The numbers of epochs.
    epochs: BTreeMap<EpochKey, i64>,
    /// Records that are not there.
    absent: BTreeSet<RecordKey>,
    /// Known groups of which not all is known yet.
    unclear: Vec<Unclear>,
}

/// A group that was rejected, or that is of a family.
struct Unclear {
    id: GroupId,
    /// `None` for one that has no verdict, only a family; its digest otherwise.
    rejected: Option<Option<Digest>>,
}

fn answers(held: &mut Held, wanted: &Wanted<'_>, rows: &[Row]) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let (groups, epochs): (Vec<_>, Vec<_>) = (wanted.groups.iter().collect(), wanted.numbers.keys().collect());
    let records: Vec<_> = wanted.needs.records.iter().collect();
    let mut known: Vec<Option<_>> = records.iter().map(|_| None).collect();
    let unasked = || StoreError::Damaged("an answer that nobody asked for".into());
    for row in rows {
        let place = usize::try_from(count(row, 1)?).unwrap_or(usize::MAX).wrapping_sub(1);
        match row.try_get::<_, i32>(0)? {
            0 => held.schema = SchemaMark { latest: count(row, 2)?, in_force: count(row, 3)? },
            1 => hold_group(held, &mut found, groups.get(place).ok_or_else(unasked)?, row)?,
            2 => {
                let key = *epochs.get(place).ok_or_else(unasked)?;
                found.epochs.entry(key.clone()).or_insert(row.try_get(2)?);
                if let Some(device_seq) = optional_count(row, 3)? {
                    let numbers = held.numbers.entry(key.clone()).or_default();
                    numbers.insert(DeviceSeq(device_seq), id(row, 4, GroupId::new)?);
                }
            }
            _ => *known.get_mut(place).ok_or_else(unasked)? = Some(record(row, 2)?),
        }
    }
    for (key, record) in records.into_iter().zip(known) {
        if record.is_none() {
            found.absent.insert(key.clone());
        }
        held.facts.learn_record(key.clone(), record);
    }
    Ok(found)
}

fn hold_group(held: &mut Held, found: &mut Found, group: &GroupId, row: &Row) -> Result<(), StoreError> {
    let is_decided = count(row, 3)? > 0;
    let digest = row.try_get::<_, Option<&[u8]>>(7)?.map(|_| digest(row, 7)).transpose()?;
    let seq = optional_count(row, 2)?.map(Seq);
    if let Some(seq) = seq {
        let outcome = DecidedAs::Accepted { seq, flags: kept::flags(row.try_get(4)?)? };
        held.groups.insert(group.clone(), Decided { digest, outcome });
    }
    let is_rejected = is_decided && seq.is_none();
    if is_rejected || row.try_get::<_, Option<&str>>(5)?.is_some() {
        found.unclear.push(Unclear { id: group.clone(), rejected: is_rejected.then_some(digest) });
    }
    Ok(())
}

/// Why groups were rejected, and what became of their families.
async fn fates(client: &ClientWrapper, space_no: i64, held: &mut Held, unclear: Vec<Unclear>) -> Result<(), StoreError> {
    if unclear.is_empty() {
        return Ok(());
    }
    let statement = client.prepare_cached(FATES).await?;
    let ids: Vec<&str> = unclear.iter().map(|unclear| unclear.id.as_str()).collect();
    let rows = client.query(&statement, &[&space_no, &ids]).await?;
    let rejected: BTreeMap<&str, Option<Digest>> =
        unclear.iter().filter_map(|unclear| Some((unclear.id.as_str(), unclear.rejected?))).collect();
    for row in &rows {
        let group = id(row, 0, GroupId::new)?;
        if let Some(digest) = rejected.get(group.as_str()) {
            let rejection = kept::rejection(&group, row.try_get(1)?)?;
            let outcome = DecidedAs::Rejected(Box::new(rejection));
            held.groups.insert(group.clone(), Decided { digest: *digest, outcome });
        }
        hold_family(held, group, row)?;
    }
    Ok(())
}

fn hold_family(held: &mut Held, group: GroupId, row: &Row) -> Result<(), StoreError> {
    let Some(root) = optional_id(row, 2, GroupId::new)? else { return Ok(()) };
    if let Some(winner) = optional_id(row, 3, GroupId::new)? {
        held.winners.insert(root.clone(), winner);
    }
    if let Some(of) = optional_id(row, 4, GroupId::new)? {
        let word: &str = row.try_get(5)?;
        let resolution = Resolution {
            of,
            resolved_as: ResolvedAs::from_wire(word)
                .ok_or_else(|| StoreError::Damaged(format!("a family is closed as {word:?}")))?,
            by: optional_id(row, 6, GroupId::new)?,
            actor: optional_id(row, 7, Actor::new)?,
            reason: row.try_get::<_, Option<&str>>(8)?.map(Into::into),
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

fn held_flags(rows: &[Row]) -> Result<BTreeMap<FlagId, Reach>, StoreError> {
    let held = |row: &Row| {
        let reach = if row.try_get(2)? { sighted::reach(row.try_get(3)?)? } else { Reach::nowhere() };
        Ok((FlagId { seq: Seq(count(row, 0)?), place: count(row, 1)? }, reach))
    };
    rows.iter().map(held).collect()
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
