//! What a transaction needs to know of its spaces: with their locks, in one round trip.
//!
//! What every push asks is one statement, whose rows say what they answer: executing a statement costs more than most answers
//! that it finds. What only some ask travels beside it; what was found and needs another look, a round trip later.

use super::fates::{Unclear, fates};
use super::flight::{Flight, Values};
use super::learn::{LISTS, hold_lists, lists_of};
use super::lineage::load_healed;
use super::row::{count, digest, id, optional_count, optional_id, record, space as space_row, stored};
use super::writer::{BEGIN, Entered, LOCK_FREE, PostgresWriter, lock};
use crate::store::{
    Decided, DecidedAs, EpochKey, FlagId, Held, HeldRejection, Loaded, SchemaMark, SpaceState, StoreError, Wanted, kept,
    sighted,
};
use deadpool_postgres::ClientWrapper;
use gbsync_core::decide::{Facts, Record};
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, GroupId, GroupType, Seq, SpaceId};
use gbsync_core::scope::Reach;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;

/// The newest schema that was stored, and the newest in force.
pub(super) const SCHEMA: &str =
    "SELECT coalesce(max(version), 0), coalesce(max(version) FILTER (WHERE in_force), 0) FROM schemas";

/// What every push asks, of one space or of several. Behind the kind of a row, and the place of what it answers among what was asked:
/// of the schemas as `SCHEMA`; of a known group its seq, digest, flags and root; of an epoch its number, and one of the device's
/// numbers with its group, which is looked for only where it is not above all that are known; of a record as `row::record`.
const ASKED: &str = "
SELECT 0, 0::bigint, coalesce(max(version), 0), coalesce(max(version) FILTER (WHERE in_force), 0), NULL::text, NULL::text,
       NULL::text, NULL::bytea
  FROM schemas
UNION ALL
SELECT 1, w.place, g.seq, (g.group_id IS NOT NULL)::int::bigint, g.flags, f.root, NULL, g.digest
  FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS w(space_no, group_id, place)
  LEFT JOIN LATERAL (SELECT * FROM groups WHERE space_no = w.space_no AND group_id = w.group_id OFFSET 0) AS g ON true
  LEFT JOIN LATERAL (SELECT root FROM families WHERE space_no = w.space_no AND group_id = w.group_id OFFSET 0) AS f ON true
 WHERE g.group_id IS NOT NULL OR f.root IS NOT NULL
UNION ALL
SELECT 2, w.place, d.epoch_no, n.device_seq, n.group_id, NULL, NULL, NULL
  FROM unnest($3::bigint[], $4::text[], $5::text[], $6::int[], $7::int[]) WITH ORDINALITY
       AS w(space_no, device, epoch, first, last, place)
 CROSS JOIN LATERAL (SELECT epoch_no, highest_seq FROM devices
                      WHERE space_no = w.space_no AND device = w.device AND epoch = w.epoch OFFSET 0) AS d
  LEFT JOIN LATERAL (
       SELECT n.device_seq, n.group_id FROM unnest(($8::bigint[])[w.first:w.last]) AS a(device_seq)
        CROSS JOIN LATERAL (SELECT * FROM numbers WHERE space_no = w.space_no AND epoch_no = d.epoch_no
                               AND device_seq = a.device_seq AND a.device_seq <= d.highest_seq OFFSET 0) AS n
       OFFSET 0) AS n ON true
UNION ALL
SELECT 3, w.place, r.version, r.edit_version, r.payload, r.marks, r.scopes, NULL
  FROM unnest($9::bigint[], $10::text[], $11::text[]) WITH ORDINALITY AS w(space_no, entity, id, place)
 CROSS JOIN LATERAL (SELECT * FROM records WHERE space_no = w.space_no AND entity = w.entity AND id = w.id OFFSET 0) AS r";

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
pub(super) const PLANNED: &[&str] = &[ASKED, REJECTED, FLAGS, CHAINS, LAST_NUMBER];

/// What is wanted of a space.
struct Place<'w> {
    space: &'w SpaceId,
    /// As far as it was known before the lock.
    space_no: i64,
    wanted: &'w Wanted<'w>,
}

/// Locks the space and loads what is wanted; `None` when there is no such space.
pub(super) async fn load(
    writer: &mut PostgresWriter,
    space: &SpaceId,
    wanted: &Wanted<'_>,
) -> Result<Option<Held>, StoreError> {
    loop {
        let known = match writer.number(space) {
            Some(space_no) => Some(space_no),
            None => writer.enter(space).await?,
        };
        let Some(space_no) = known else { return Ok(None) };
        if let Some(held) = ask(writer, &[Place { space, space_no, wanted }], true).await?.pop().flatten() {
            return Ok(Some(held));
        }
        // It has another number in a store that was put back, or is not there at all.
        writer.forget(space);
    }
}

/// Locks those of several spaces that nobody else holds, and loads what is wanted of them.
pub(super) async fn load_free(
    writer: &mut PostgresWriter,
    wanted: &[(&SpaceId, Wanted<'_>)],
) -> Result<Vec<Loaded>, StoreError> {
    let mut loaded: Vec<Loaded> = wanted.iter().map(|_| Loaded::Alone).collect();
    let (mut known, mut at) = (Vec::new(), Vec::new());
    for (place, (space, wanted)) in wanted.iter().enumerate() {
        if let Some(space_no) = writer.number(space) {
            known.push(Place { space, space_no, wanted });
            at.push(place);
        }
    }
    #[cfg(feature = "mutants")]
    if super::writer::is_unlocked() {
        return Ok(loaded);
    }
    if known.is_empty() {
        return Ok(loaded);
    }
    for (place, held) in at.into_iter().zip(ask(writer, &known, false).await?) {
        if let Some(held) = held {
            loaded[place] = Loaded::Held(Box::new(held));
        }
    }
    Ok(loaded)
}

/// What only some ask of a space, by its name: the places of the answers.
struct Beside {
    rejected: Option<usize>,
    flags: Option<usize>,
    chains: Option<usize>,
    lists: Option<usize>,
}

/// Values of what only some ask.
struct BesideValues<'w> {
    name: &'w str,
    rejected: Vec<&'w str>,
    flag_seqs: Vec<i64>,
    flag_places: Vec<i64>,
    chains: Vec<i64>,
    list_entities: Vec<&'w str>,
    list_keys: Vec<Vec<u8>>,
}

impl<'w> BesideValues<'w> {
    fn of(place: &Place<'w>) -> Self {
        let wanted = place.wanted;
        let (list_entities, list_keys) = lists_of(&wanted.needs);
        Self {
            name: place.space.as_str(),
            rejected: wanted.rejected.iter().map(|group| group.as_str()).collect(),
            flag_seqs: wanted.flags.iter().map(|flag| stored(flag.seq.0)).collect(),
            flag_places: wanted.flags.iter().map(|flag| stored(flag.place)).collect(),
            chains: wanted.chains.iter().map(|seq| stored(seq.0)).collect(),
            list_entities,
            list_keys,
        }
    }
}

/// Locks spaces and loads what is wanted of them: of those that it `waits` for, or of those that nobody else holds.
async fn ask(writer: &mut PostgresWriter, places: &[Place<'_>], waits: bool) -> Result<Vec<Option<Held>>, StoreError> {
    let begins = !writer.is_open;
    writer.is_open = true;
    let client = writer.client();
    let prepare = async |sql| client.prepare_cached(sql).await;
    let (locked, asked) = (prepare(if waits { lock() } else { LOCK_FREE }).await?, prepare(ASKED).await?);
    let (rejected, flags, chains) = (prepare(REJECTED).await?, prepare(FLAGS).await?, prepare(CHAINS).await?);
    let lists = prepare(LISTS).await?;
    let names: Vec<&str> = places.iter().map(|place| place.space.as_str()).collect();
    let beside: Vec<BesideValues<'_>> = places.iter().map(BesideValues::of).collect();
    let question = Asked::of(places);
    let mut flight = Flight::new(client);
    if begins {
        flight.say(BEGIN);
    }
    // Before the others: they see what was committed while this one waited.
    let at_lock = match waits {
        true => flight.add(&locked, vec![&names[0]]),
        false => flight.add(&locked, vec![&names]),
    };
    let at_asked = flight.add(&asked, question.values());
    let beside: Vec<Beside> = beside
        .iter()
        .map(|of| Beside {
            rejected: (!of.rejected.is_empty()).then(|| flight.add(&rejected, vec![&of.name, &of.rejected])),
            flags: (!of.flag_seqs.is_empty()).then(|| flight.add(&flags, vec![&of.name, &of.flag_seqs, &of.flag_places])),
            chains: (!of.chains.is_empty()).then(|| flight.add(&chains, vec![&of.name, &of.chains])),
            lists: (!of.list_keys.is_empty()).then(|| flight.add(&lists, vec![&of.name, &of.list_entities, &of.list_keys])),
        })
        .collect();
    let rows = flight.land().await?;
    let mut states: Vec<Option<SpaceState>> = places.iter().map(|_| None).collect();
    for row in &rows[at_lock] {
        let (space_no, state) = space_row(row)?;
        let at = if waits { Some(0) } else { usize::try_from(count(row, 7)?).ok().and_then(|at| at.checked_sub(1)) };
        let place = at.and_then(|at| places.get(at)).ok_or_else(unasked)?;
        match space_no == place.space_no {
            true => states[at.unwrap_or_default()] = Some(state),
            false => writer.forget(place.space),
        }
    }
    let answers = question.answers(places, &rows[at_asked])?;
    let mut all_held = Vec::with_capacity(places.len());
    for (((place, state), found), beside) in places.iter().zip(states).zip(answers).zip(&beside) {
        let Some(state) = state else {
            all_held.push(None);
            continue;
        };
        let rows_of = |at: Option<usize>| at.map_or(&[][..], |at| rows[at].as_slice());
        all_held.push(Some(hold(writer, place, state, found, (beside, &rows_of)).await?));
    }
    Ok(all_held)
}

/// What a locked space holds.
async fn hold<'r>(
    writer: &mut PostgresWriter,
    place: &Place<'_>,
    state: SpaceState,
    found: Found,
    (beside, rows_of): (&Beside, &dyn Fn(Option<usize>) -> &'r [Row]),
) -> Result<Held, StoreError> {
    let (client, Place { space, space_no, wanted }) = (writer.client(), place);
    let healed = load_healed(client, *space_no, &state, &wanted.lost).await?;
    let mut chains =
        BTreeMap::from([(Seq(0), Digest::ZERO), (state.horizon, state.horizon_chain), (state.head, state.chain)]);
    for row in rows_of(beside.chains) {
        chains.insert(Seq(count(row, 0)?), digest(row, 1)?);
    }
    let mut facts = Facts::behind(state.horizon);
    let supposed = wanted.suppose(&mut facts);
    let mut absent = BTreeSet::new();
    for (key, record) in wanted.looked_up().zip(found.records) {
        if record.is_none() {
            absent.insert(key.clone());
        }
        facts.learn_record(key.clone(), record);
    }
    hold_lists(&mut facts, &wanted.needs, rows_of(beside.lists))?;
    let mut held = Held {
        healed,
        chains,
        supposed,
        facts,
        state,
        schema: found.schema,
        groups: found.groups,
        roots: BTreeMap::new(),
        winners: BTreeMap::new(),
        closures: BTreeMap::new(),
        rejected: held_rejections(rows_of(beside.rejected))?,
        numbers: found.numbers,
        flags: held_flags(rows_of(beside.flags))?,
    };
    fates(client, *space_no, &mut held, found.unclear).await?;
    if wanted.makes_groups {
        let key = EpochKey::of_server(&held.state.log);
        held.numbers.insert(key.clone(), last_number(client, *space_no, &key).await?);
    }
    writer.stand_in(space, Entered { space_no: *space_no, epochs: found.epochs, absent });
    Ok(held)
}

/// What every push asks, side by side.
#[derive(Default)]
struct Asked<'w> {
    /// Of each group.
    group_spaces: Vec<i64>,
    groups: Vec<&'w str>,
    /// Of each epoch, with the places of its numbers among all `seqs`, from one.
    epoch_spaces: Vec<i64>,
    devices: Vec<&'w str>,
    epochs: Vec<&'w str>,
    first: Vec<i32>,
    last: Vec<i32>,
    seqs: Vec<i64>,
    /// Of each record.
    record_spaces: Vec<i64>,
    entities: Vec<&'w str>,
    ids: Vec<&'w str>,
    /// Which of the places each is of: of groups, epochs and records.
    of: [Vec<usize>; 3],
    /// Which of the place's each is.
    numbered: [Vec<usize>; 3],
}

impl<'w> Asked<'w> {
    fn of(places: &[Place<'w>]) -> Self {
        let mut asked = Self::default();
        let count = |count: usize| i32::try_from(count).expect("a transaction has fewer groups than 2^31");
        for (at, Place { space_no, wanted, .. }) in places.iter().enumerate() {
            for group in &wanted.groups {
                asked.group_spaces.push(*space_no);
                asked.groups.push(group.as_str());
            }
            for (key, seqs) in &wanted.numbers {
                asked.epoch_spaces.push(*space_no);
                asked.devices.push(key.device.as_str());
                asked.epochs.push(key.epoch.as_str());
                asked.first.push(count(asked.seqs.len() + 1));
                asked.seqs.extend(seqs.iter().map(|seq| stored(seq.0)));
                asked.last.push(count(asked.seqs.len()));
            }
            let mut records = 0;
            for key in wanted.looked_up() {
                asked.record_spaces.push(*space_no);
                asked.entities.push(key.entity.as_str());
                asked.ids.push(key.id.as_str());
                records += 1;
            }
            for (kind, many) in [wanted.groups.len(), wanted.numbers.len(), records].into_iter().enumerate() {
                asked.of[kind].extend(std::iter::repeat_n(at, many));
                asked.numbered[kind].extend(0..many);
            }
        }
        asked
    }

    fn values(&self) -> Values<'_> {
        vec![
            &self.group_spaces,
            &self.groups,
            &self.epoch_spaces,
            &self.devices,
            &self.epochs,
            &self.first,
            &self.last,
            &self.seqs,
            &self.record_spaces,
            &self.entities,
            &self.ids,
        ]
    }

    /// What the answers say of each place.
    fn answers(&self, places: &[Place<'w>], rows: &[Row]) -> Result<Vec<Found>, StoreError> {
        let mut all: Vec<Found> = places.iter().map(Found::of).collect();
        for row in rows {
            let kind = row.try_get::<_, i32>(0)?;
            if kind == 0 {
                let schema = SchemaMark { latest: count(row, 2)?, in_force: count(row, 3)? };
                all.iter_mut().for_each(|found| found.schema = schema);
                continue;
            }
            let kind = usize::try_from(kind - 1).ok().filter(|kind| *kind < 3).ok_or_else(unasked)?;
            let among = usize::try_from(count(row, 1)?).unwrap_or(0).checked_sub(1).ok_or_else(unasked)?;
            let at = *self.of[kind].get(among).ok_or_else(unasked)?;
            let (number, found, wanted) = (self.numbered[kind][among], &mut all[at], places[at].wanted);
            match kind {
                0 => found.group(wanted.groups.iter().nth(number).ok_or_else(unasked)?, row)?,
                1 => found.epoch(wanted.numbers.keys().nth(number).ok_or_else(unasked)?, row)?,
                _ => found.records[number] = Some(record(row, 2)?),
            }
        }
        Ok(all)
    }
}

fn unasked() -> StoreError {
    StoreError::Damaged("an answer that nobody asked for".into())
}

/// What the answers say of a space.
struct Found {
    schema: SchemaMark,
    groups: BTreeMap<GroupId, Decided>,
    numbers: BTreeMap<EpochKey, BTreeMap<DeviceSeq, GroupId>>,
    /// The numbers of epochs.
    epochs: BTreeMap<EpochKey, i64>,
    /// Of each that was looked up.
    records: Vec<Option<Record>>,
    /// Known groups of which not all is known yet.
    unclear: Vec<Unclear>,
}

impl Found {
    /// Nothing yet.
    fn of(place: &Place<'_>) -> Self {
        let wanted = place.wanted;
        Self {
            schema: SchemaMark::default(),
            groups: BTreeMap::new(),
            numbers: wanted.numbers.keys().map(|key| (key.clone(), BTreeMap::new())).collect(),
            epochs: BTreeMap::new(),
            records: wanted.looked_up().map(|_| None).collect(),
            unclear: Vec::new(),
        }
    }

    fn epoch(&mut self, key: &EpochKey, row: &Row) -> Result<(), StoreError> {
        self.epochs.entry(key.clone()).or_insert(row.try_get(2)?);
        if let Some(device_seq) = optional_count(row, 3)? {
            let numbers = self.numbers.entry(key.clone()).or_default();
            numbers.insert(DeviceSeq(device_seq), id(row, 4, GroupId::new)?);
        }
        Ok(())
    }

    fn group(&mut self, group: &GroupId, row: &Row) -> Result<(), StoreError> {
        let is_decided = count(row, 3)? > 0;
        let digest = row.try_get::<_, Option<&[u8]>>(7)?.map(|_| digest(row, 7)).transpose()?;
        let seq = optional_count(row, 2)?.map(Seq);
        if let Some(seq) = seq {
            let outcome = DecidedAs::Accepted { seq, flags: kept::flags(row.try_get(4)?)? };
            self.groups.insert(group.clone(), Decided { digest, outcome });
        }
        let is_rejected = is_decided && seq.is_none();
        if is_rejected || row.try_get::<_, Option<&str>>(5)?.is_some() {
            self.unclear.push(Unclear { id: group.clone(), rejected: is_rejected.then_some(digest) });
        }
        Ok(())
    }
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
