//! What a transaction leaves, in one round trip, whatever the number of rows: one statement for what every push leaves, and one for
//! each other table, in key order.

use super::flight::{Outgoing, Value};
use super::index;
use super::lineage::write_healed;
use super::row::{id, stored};
use super::rows::{RecordColumns, Rows};
use super::writer::{Entered, PostgresWriter};
use crate::store::{CutChanges, EpochKey, StoreError, ToldEpoch, Written};
use deadpool_postgres::ClientWrapper;
use gbsync_core::decide::Record;
use gbsync_core::id::{Actor, DeviceId, EpochId, GroupId, RecordKey, SpaceId};
use gbsync_core::time::Timestamp;
use gbsync_core::wire::part_json;
use std::collections::{BTreeMap, BTreeSet};

/// What every push leaves, of one space or of several: new records, log entries, verdicts and numbers, how far devices are, and where
/// the logs stand. One statement, because starting one costs as much as inserting some rows; its arrays are read side by side, which
/// `unnest` of several in FROM would copy first.
const DECIDED: &str = "
WITH new_records AS (
  INSERT INTO records (space_no, entity, id, version, edit_version, payload, marks, scopes)
  SELECT unnest($1::bigint[]), unnest($2::text[]), unnest($3::text[]), unnest($4::bigint[]), unnest($5::bigint[]),
         unnest($6::text[]), unnest($7::text[]), unnest($8::text[])),
new_entries AS (
  INSERT INTO log (space_no, seq, change_count, chain, entry, parts, scopes)
  SELECT unnest($9::bigint[]), unnest($10::bigint[]), unnest($11::bigint[]), unnest($12::bytea[]), unnest($13::text[]),
         unnest($14::bigint[]), unnest($15::text[])),
new_groups AS (
  INSERT INTO groups (space_no, group_id, digest, seq, epoch_no, device_seq, flags, decided_at)
  SELECT unnest($16::bigint[]), unnest($17::text[]), unnest($18::bytea[]), unnest($19::bigint[]), unnest($20::bigint[]),
         unnest($21::bigint[]), unnest($22::text[]), $23::text),
new_numbers AS (
  INSERT INTO numbers (space_no, epoch_no, device_seq, group_id)
  SELECT unnest($24::bigint[]), unnest($25::bigint[]), unnest($26::bigint[]), unnest($27::text[])),
seen_devices AS (
  INSERT INTO devices (space_no, device, epoch, epoch_no, highest_seq, first_seen, pushed_at)
  SELECT unnest($28::bigint[]), unnest($29::text[]), unnest($30::text[]), unnest($31::bigint[]), unnest($32::bigint[]), $23, $23
  ON CONFLICT (space_no, device, epoch) DO UPDATE
  SET highest_seq = greatest(devices.highest_seq, excluded.highest_seq), pushed_at = excluded.pushed_at)
UPDATE spaces AS s SET head = w.head, chain = w.chain
  FROM unnest($33::bigint[], $34::bigint[], $35::bytea[]) AS w(space_no, head, chain)
 CROSS JOIN LATERAL (SELECT ctid FROM spaces WHERE space_no = w.space_no OFFSET 0) AS at
 WHERE s.ctid = at.ctid";

/// Records that are there, or may be.
const RECORDS: &str = "
INSERT INTO records (space_no, entity, id, version, edit_version, payload, marks, scopes)
SELECT $1, unnest($2::text[]), unnest($3::text[]), unnest($4::bigint[]), unnest($5::bigint[]), unnest($6::text[]),
       unnest($7::text[]), unnest($8::text[])
ON CONFLICT (space_no, entity, id) DO UPDATE
SET version = excluded.version, edit_version = excluded.edit_version, payload = excluded.payload, marks = excluded.marks,
    scopes = excluded.scopes";

/// Notes lives of devices that have not pushed. Under the lock of the space, so no number is given twice.
const DEVICES: &str = "
INSERT INTO devices (space_no, device, epoch, epoch_no, highest_seq, first_seen)
SELECT $1, w.device, w.epoch, last.epoch_no + w.place, 0, $4
  FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS w(device, epoch, place),
       (SELECT coalesce(max(epoch_no), 0) AS epoch_no FROM devices WHERE space_no = $1) AS last
ON CONFLICT (space_no, device, epoch) DO UPDATE SET highest_seq = devices.highest_seq
RETURNING device, epoch, epoch_no";

const REJECTIONS: &str = "
INSERT INTO rejections (space_no, group_id, result, group_type, actor, created_at, replaces, changes, scopes)
SELECT $1, w.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[]) AS w";

const LOG_PARTS: &str = "
INSERT INTO log_parts (space_no, seq, part, body) SELECT $1, w.* FROM unnest($2::bigint[], $3::bigint[], $4::text[]) AS w";

const FLAGS: &str = "
INSERT INTO flags (space_no, seq, place, code, rule, message, entity, id)
SELECT $1, w.* FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) AS w";

/// The first to clear one stays.
const CLEARED: &str = "
UPDATE flags AS f SET cleared_by = w.cleared_by
  FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS w(seq, place, cleared_by)
 CROSS JOIN LATERAL (SELECT ctid FROM flags WHERE space_no = $1 AND seq = w.seq AND place = w.place OFFSET 0) AS at
 WHERE f.ctid = at.ctid AND f.cleared_by IS NULL";

const SEQUENCES: &str = "
INSERT INTO sequences (space_no, device, sequence, highest)
SELECT $1, w.* FROM unnest($2::text[], $3::text[], $4::bigint[]) AS w
ON CONFLICT (space_no, device, sequence) DO UPDATE SET highest = greatest(sequences.highest, excluded.highest)";

const FAMILIES: &str = "
INSERT INTO families (space_no, group_id, root) SELECT $1, w.* FROM unnest($2::text[], $3::text[]) AS w ON CONFLICT DO NOTHING";

/// Families that become part of another: members, winner and closure. A closure that the other has already stays.
const MERGES: [&str; 3] = [
    "UPDATE families SET root = $3 WHERE space_no = $1 AND root = $2",
    "DELETE FROM family_winners WHERE space_no = $1 AND root = $2 AND $3::text IS NOT NULL",
    "UPDATE family_closures SET root = $3 WHERE space_no = $1 AND root = $2
        AND NOT EXISTS (SELECT 1 FROM family_closures WHERE space_no = $1 AND root = $3)",
];

const WINNERS: &str = "
INSERT INTO family_winners (space_no, root, group_id) SELECT $1, w.* FROM unnest($2::text[], $3::text[]) AS w
ON CONFLICT DO NOTHING";

const CLOSURES: &str = "
INSERT INTO family_closures (space_no, root, of_group, closed_as, closed_by, actor, reason)
SELECT $1, w.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS w ON CONFLICT DO NOTHING";

/// The first of several groups that are sent in the place of one.
const REPLACED: &str = "
UPDATE rejections AS r SET closed_as = 'replaced', closed_by = w.by, closed_at = $4
  FROM unnest($2::text[], $3::text[]) AS w(replaced, by)
 CROSS JOIN LATERAL (SELECT ctid FROM rejections WHERE space_no = $1 AND group_id = w.replaced OFFSET 0) AS at
 WHERE r.ctid = at.ctid AND r.closed_as IS NULL";

/// Shows with each rejection of these families how the family was closed. A closure counts before a winner: it says who and why.
const SHOW_CLOSURES: &str = "
UPDATE rejections AS r SET closed_as = f.closed_as, closed_by = f.closed_by, closed_actor = f.actor, closed_reason = f.reason,
                           closed_at = $3
  FROM (SELECT DISTINCT at.ctid AS at, coalesce(c.closed_as, 'amended') AS closed_as,
               CASE WHEN c.root IS NULL THEN v.group_id ELSE c.closed_by END AS closed_by, c.actor AS actor, c.reason AS reason
          FROM unnest($2::text[]) AS w(group_id)
         CROSS JOIN LATERAL (SELECT root FROM families WHERE space_no = $1 AND group_id = w.group_id OFFSET 0) AS own
         CROSS JOIN LATERAL (SELECT group_id FROM families WHERE space_no = $1 AND root = own.root OFFSET 0) AS m
          LEFT JOIN LATERAL (SELECT * FROM family_closures WHERE space_no = $1 AND root = own.root OFFSET 0) AS c ON true
          LEFT JOIN LATERAL (SELECT * FROM family_winners WHERE space_no = $1 AND root = own.root OFFSET 0) AS v ON true
         CROSS JOIN LATERAL (SELECT ctid FROM rejections WHERE space_no = $1 AND group_id = m.group_id OFFSET 0) AS at
         WHERE c.root IS NOT NULL OR v.root IS NOT NULL) AS f
 WHERE r.ctid = f.at AND (r.closed_as IS NULL OR r.closed_as = 'replaced')";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[
    DECIDED,
    RECORDS,
    DEVICES,
    REJECTIONS,
    LOG_PARTS,
    FLAGS,
    CLEARED,
    SEQUENCES,
    FAMILIES,
    MERGES[0],
    MERGES[1],
    MERGES[2],
    WINNERS,
    CLOSURES,
    REPLACED,
    SHOW_CLOSURES,
];

/// What writes what was decided in one space or in several, to be sent.
pub(super) async fn write<'w>(
    writer: &mut PostgresWriter,
    written: &[(&SpaceId, &'w Written)],
) -> Result<Outgoing<'w>, StoreError> {
    let mut outgoing = Outgoing::new();
    let (mut rows, mut others) = (Rows::default(), Vec::new());
    for &(space, written) in written {
        writer.inside(space).await?;
        know_epochs(writer, space, written).await?;
        let entered = writer.entered.get_mut(space).ok_or_else(|| StoreError::Damaged("a space is not locked".into()))?;
        let is_new = |key| entered.absent.contains(key) || written.supposed.binary_search(key).is_ok();
        let (new, known): (Vec<_>, Vec<_>) = written.records.iter().partition(|(key, _)| is_new(key));
        rows.add(entered, written, &new);
        others.push((entered.space_no, written, known));
        // They are there from here on, for whoever writes once more in this transaction.
        entered.absent.clear();
    }
    outgoing.add_to_all(DECIDED, rows.values());
    for (space_no, written, known) in others {
        outgoing.stand_in(space_no);
        beside(&mut outgoing, written, &known);
    }
    Ok(outgoing)
}

/// What only some leave.
fn beside<'w>(outgoing: &mut Outgoing<'w>, written: &'w Written, known: &[&'w (RecordKey, Record)]) {
    if !known.is_empty() {
        outgoing.add(RECORDS, records(known));
    }
    index::write(outgoing, &written.index);
    rejections(outgoing, written);
    families(outgoing, written);
    flags(outgoing, written);
    if !written.sequences.is_empty() {
        let (devices, names): (Vec<_>, Vec<_>) =
            written.sequences.keys().map(|(device, name)| (device.as_str(), name.as_str())).unzip();
        let highest: Vec<i64> = written.sequences.values().map(|highest| stored(*highest)).collect();
        outgoing.add(SEQUENCES, vec![Box::new(devices), Box::new(names), Box::new(highest)]);
    }
    write_healed(outgoing, &written.healed);
    parts(outgoing, written);
}

/// Gives epochs that push for the first time their numbers: a round trip in the life of a device's database.
async fn know_epochs(writer: &mut PostgresWriter, space: &SpaceId, written: &Written) -> Result<(), StoreError> {
    let Some(Entered { space_no, epochs, .. }) = writer.entered.get(space) else { return Ok(()) };
    let (space_no, is_known) = (*space_no, |key: &&EpochKey| epochs.contains_key(*key));
    let unknown: Vec<&EpochKey> = written.numbers.keys().filter(|key| !is_known(key)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let statement = writer.client().prepare_cached(DEVICES).await?;
    let devices: Vec<&str> = unknown.iter().map(|key| key.device.as_str()).collect();
    let epochs: Vec<&str> = unknown.iter().map(|key| key.epoch.as_str()).collect();
    let rows = writer.client().query(&statement, &[&space_no, &devices, &epochs, &written.decided_at.as_str()]).await?;
    for row in &rows {
        let key = EpochKey { device: id(row, 0, DeviceId::new)?, epoch: id(row, 1, EpochId::new)? };
        let number = row.try_get(2)?;
        if let Some(entered) = writer.entered.get_mut(space) {
            entered.epochs.insert(key, number);
        }
    }
    Ok(())
}

fn records<'w>(records: &[&'w (RecordKey, Record)]) -> Vec<Value<'w>> {
    let mut columns = RecordColumns::default();
    records.iter().for_each(|(key, record)| columns.add(key, record));
    columns.values().into()
}

fn rejections<'w>(outgoing: &mut Outgoing<'w>, written: &'w Written) {
    // In the order they were decided: that is the order in which the back office sees them.
    let rejected: Vec<_> =
        written.groups.iter().filter_map(|group| Some((group.id.as_str(), group.rejected.as_ref()?))).collect();
    if rejected.is_empty() {
        return;
    }
    let ids: Vec<&str> = rejected.iter().map(|(id, _)| *id).collect();
    let results: Vec<&str> = rejected.iter().map(|(_, rejected)| rejected.result.as_str()).collect();
    let types: Vec<Option<&str>> =
        rejected.iter().map(|(_, rejected)| Some(rejected.group_type.as_ref()?.as_str())).collect();
    let actors: Vec<Option<&str>> = rejected.iter().map(|(_, rejected)| Some(rejected.actor.as_ref()?.as_str())).collect();
    let times: Vec<Option<&str>> =
        rejected.iter().map(|(_, rejected)| Some(rejected.created_at.as_ref()?.as_str())).collect();
    let replaced: Vec<Option<&str>> =
        rejected.iter().map(|(_, rejected)| Some(rejected.replaces.as_ref()?.as_str())).collect();
    let changes: Vec<Option<&str>> = rejected.iter().map(|(_, rejected)| rejected.changes.as_deref()).collect();
    let scopes: Vec<Option<String>> = rejected.iter().map(|(_, rejected)| rejected.scopes.to_json()).collect();
    outgoing.add(
        REJECTIONS,
        vec![
            Box::new(ids),
            Box::new(results),
            Box::new(types),
            Box::new(actors),
            Box::new(times),
            Box::new(replaced),
            Box::new(changes),
            Box::new(scopes),
        ],
    );
}

fn pairs(map: &BTreeMap<GroupId, GroupId>) -> (Vec<&str>, Vec<&str>) {
    map.iter().map(|(one, other)| (one.as_str(), other.as_str())).unzip()
}

/// Families, and how rejections are closed by them.
fn families<'w>(outgoing: &mut Outgoing<'w>, written: &'w Written) {
    if !written.roots.is_empty() {
        let (groups, roots) = pairs(&written.roots);
        outgoing.add(FAMILIES, vec![Box::new(groups), Box::new(roots)]);
    }
    for (from, into) in &written.merges {
        for merge in MERGES {
            outgoing.add(merge, vec![Box::new(from.as_str()), Box::new(into.as_str())]);
        }
    }
    if !written.winners.is_empty() {
        let (roots, groups) = pairs(&written.winners);
        outgoing.add(WINNERS, vec![Box::new(roots), Box::new(groups)]);
    }
    closures(outgoing, written);
    let mut touched: BTreeSet<&str> = written.closures.keys().chain(written.winners.keys()).map(GroupId::as_str).collect();
    touched.extend(written.merges.iter().map(|(_, into)| into.as_str()));
    let mut replaced = BTreeMap::new();
    for group in written.groups.iter() {
        let Some(rejected) = &group.rejected else { continue };
        touched.insert(group.id.as_str());
        if let Some(replaces) = &rejected.replaces {
            replaced.entry(replaces.as_str()).or_insert(group.id.as_str());
        }
    }
    let at = written.decided_at.as_str();
    if !replaced.is_empty() {
        let (of, by): (Vec<&str>, Vec<&str>) = replaced.into_iter().unzip();
        outgoing.add(REPLACED, vec![Box::new(of), Box::new(by), Box::new(at)]);
    }
    if !touched.is_empty() {
        let touched: Vec<&str> = touched.into_iter().collect();
        outgoing.add(SHOW_CLOSURES, vec![Box::new(touched), Box::new(at)]);
    }
}

fn closures<'w>(outgoing: &mut Outgoing<'w>, written: &'w Written) {
    if written.closures.is_empty() {
        return;
    }
    let roots: Vec<&str> = written.closures.keys().map(GroupId::as_str).collect();
    let closures = || written.closures.values();
    let of: Vec<&str> = closures().map(|closure| closure.of.as_str()).collect();
    let closed_as: Vec<&str> = closures().map(|closure| closure.resolved_as.as_str()).collect();
    let by: Vec<Option<&str>> = closures().map(|closure| closure.by.as_ref().map(GroupId::as_str)).collect();
    let actors: Vec<Option<&str>> = closures().map(|closure| closure.actor.as_ref().map(Actor::as_str)).collect();
    let reasons: Vec<Option<&str>> = closures().map(|closure| closure.reason.as_deref()).collect();
    outgoing.add(
        CLOSURES,
        vec![Box::new(roots), Box::new(of), Box::new(closed_as), Box::new(by), Box::new(actors), Box::new(reasons)],
    );
}

fn flags<'w>(outgoing: &mut Outgoing<'w>, written: &'w Written) {
    let flags = written.groups.iter().filter_map(|group| Some((group.seq?, &group.flags)));
    let flags: Vec<_> =
        flags.flat_map(|(seq, flags)| flags.iter().enumerate().map(move |(place, flag)| (seq, place, flag))).collect();
    if !flags.is_empty() {
        let seqs: Vec<i64> = flags.iter().map(|(seq, ..)| stored(seq.0)).collect();
        let places: Vec<i64> = flags.iter().map(|(_, place, _)| stored(*place as u64)).collect();
        let codes: Vec<&str> = flags.iter().map(|(.., flag)| flag.code.as_str()).collect();
        let rules: Vec<&str> = flags.iter().map(|(.., flag)| flag.rule.as_ref()).collect();
        let messages: Vec<&str> = flags.iter().map(|(.., flag)| flag.message.as_ref()).collect();
        let entities: Vec<Option<&str>> = flags.iter().map(|(.., flag)| Some(flag.key.as_ref()?.entity.as_str())).collect();
        let ids: Vec<Option<&str>> = flags.iter().map(|(.., flag)| Some(flag.key.as_ref()?.id.as_str())).collect();
        outgoing.add(
            FLAGS,
            vec![
                Box::new(seqs),
                Box::new(places),
                Box::new(codes),
                Box::new(rules),
                Box::new(messages),
                Box::new(entities),
                Box::new(ids),
            ],
        );
    }
    if !written.cleared.is_empty() {
        let seqs: Vec<i64> = written.cleared.keys().map(|flag| stored(flag.seq.0)).collect();
        let places: Vec<i64> = written.cleared.keys().map(|flag| stored(flag.place)).collect();
        let by: Vec<i64> = written.cleared.values().map(|seq| stored(seq.0)).collect();
        outgoing.add(CLEARED, vec![Box::new(seqs), Box::new(places), Box::new(by)]);
    }
}

/// Changes that an entry only names.
fn parts<'w>(outgoing: &mut Outgoing<'w>, written: &'w Written) {
    for entry in &written.entries {
        let Some(CutChanges { changes, cuts }) = &entry.parts else { continue };
        // One statement a part: together they may be larger than one message takes.
        for (number, cut) in cuts.iter().enumerate() {
            let (seqs, numbers) = (vec![stored(entry.seq.0)], vec![stored(number as u64)]);
            outgoing.add(LOG_PARTS, vec![Box::new(seqs), Box::new(numbers), Box::new(vec![part_json(changes, cut)])]);
        }
    }
}

/// Keeps what a device said of its epochs.
pub(super) async fn tell(client: &ClientWrapper, space_no: i64, told: &ToldEpoch, at: &Timestamp) -> Result<(), StoreError> {
    let mut outgoing = Outgoing::new();
    outgoing.stand_in(space_no);
    let (devices, epochs) = (vec![told.key.device.as_str()], vec![told.key.epoch.as_str()]);
    outgoing.add(DEVICES, vec![Box::new(devices), Box::new(epochs), Box::new(at.as_str())]);
    if let Some((epoch, device_seq)) = &told.previous {
        let sql = "UPDATE devices SET previous_epoch = $4, previous_seq = $5
                    WHERE space_no = $1 AND device = $2 AND epoch = $3 AND previous_epoch IS NULL";
        let (device, of) = (told.key.device.as_str(), told.key.epoch.as_str());
        outgoing.add(sql, vec![Box::new(device), Box::new(of), Box::new(epoch.as_str()), Box::new(stored(device_seq.0))]);
    }
    outgoing.send(client, None).await
}
