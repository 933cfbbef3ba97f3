//! The promises, one function each, held against the real databases after every step and every reopening.
//!
//! A database whose files did not change since it was last held against the reference is not read again: what it says of a
//! place of the log, and what the reference says of it, is for ever the same.

mod tables;

use crate::model::{Author, Model, Record, State};
use crate::names;
use crate::world::device::DeviceParty;
use crate::world::server::{ServerParty, space_id};
use anyhow::{Context, Result, bail, ensure};
use gbsync_client::Response;
use gbsync_core::digest::Digest;
use rusqlite::{Connection, OptionalExtension as _, Params};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// More entries than any log has here.
const LONGEST_LOG: usize = 1_000_000;

/// What the server's database says of a space after a commit: takes new entries of its log into the reference first.
///
/// # Errors
/// The promise that is broken.
pub fn server(server: &ServerParty, space: &str, model: &mut Model) -> Result<()> {
    let db = server.reader()?;
    let mut statement = db.prepare_cached("SELECT space_no FROM spaces WHERE space = ?1")?;
    let space_no: i64 = statement.query_row([space], |row| row.get(0))?;
    let before = model.head();
    p3_once(db, space_no, model)?;
    p3_refused_for_ever(db, space_no, model, before)?;
    p4_durable_on_the_server(db, space_no, model)?;
    p1_whole(db, space_no, model)
}

/// What a device's database says, held against the reference.
///
/// # Errors
/// The promise that is broken.
pub fn device(device: &mut DeviceParty, model: &Model) -> Result<()> {
    let client = device.client()?.clone();
    client.with_reader(|db| {
        let mut look = || {
            p2_seen_whole(db, model, device)?;
            p4_durable(db, device, model)?;
            p5_ordered(db, model)?;
            p7_undone_whole(db)?;
            p11_accounted(db, device)
        };
        Ok(look())
    })?
}

/// P1 whole: the records are what whole groups leave, each with the place that last changed it.
fn p1_whole(db: &Connection, space_no: i64, model: &Model) -> Result<()> {
    let stored = "SELECT entity, id, payload, version FROM records WHERE payload IS NOT NULL AND space_no = ?1";
    let state = &model.states[model.head()];
    same(db, stored, [space_no], state, Strictly::AndVersions).context("P1: on the server")?;
    let deleted = "SELECT entity, id, version FROM records WHERE payload IS NULL AND space_no = ?1";
    same_deleted(db, deleted, [space_no], state).context("P1: on the server")
}

/// P2 and P6: the base is the reference at the cursor, to the byte, and the view is the base with each undecided group over it,
/// or hidden; the typed tables show the view.
/// Where app or server have the second version of the schema, the view may say records in the words of either; base and
/// columns have theirs.
fn p2_seen_whole(db: &Connection, model: &Model, device: &DeviceParty) -> Result<()> {
    let mut statement = db.prepare_cached("SELECT cursor, chain FROM gbsync_state")?;
    let (cursor, chain): (usize, Option<String>) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(known) = model.known(cursor, chain.as_deref()) else {
        bail!("P2: the cursor is at {cursor} of a log that ends at {}, or of one that never was", model.head())
    };
    let confirmed = known.state;
    let base = "SELECT entity, id, payload, version FROM gbsync_base WHERE payload IS NOT NULL";
    same(db, base, [], confirmed, Strictly::AndVersions).with_context(|| format!("P2: the base at cursor {cursor}"))?;
    let deleted = "SELECT entity, id, version FROM gbsync_base WHERE payload IS NULL";
    same_deleted(db, deleted, [], confirmed).with_context(|| format!("P2: the base at cursor {cursor}"))?;
    let is_mixed = model.may_upgrade || device.version() > names::FIRST;
    let mut view = if is_mixed { confirmed.renewed() } else { confirmed.clone() };
    // What the log brought is part of the base, whether its answer came or not.
    for group in overlay(db)?.iter().filter(|group| known.place(group).is_none_or(|place| place > cursor)) {
        let Some(operation) = model.operation(group) else { bail!("P2: nobody made {group}") };
        view.apply(operation);
    }
    let shown = "SELECT entity, id, payload, 0 FROM gbsync_records";
    let strictly = if is_mixed { Strictly::InOtherWords } else { Strictly::ToTheByte };
    same(db, shown, [], &view, strictly).with_context(|| format!("P2: the view at cursor {cursor}"))?;
    match device.schema() {
        Some(rules) if confirmed.has_rules => tables::show(db, &view, rules, is_mixed),
        _ => Ok(()),
    }
}

/// The groups that lie over the base, or are part of it, in seal order.
fn overlay(db: &Connection) -> Result<Vec<String>> {
    let sql =
        "SELECT group_id FROM gbsync_outbox WHERE state IN ('sealed', 'waiting_for_sign_in', 'accepted') ORDER BY local_no";
    let mut statement = db.prepare_cached(sql)?;
    let groups = statement.query_map([], |row| row.get(0))?;
    Ok(groups.collect::<Result<_, _>>()?)
}

/// P3 once, and P8 for the numbers: the log goes on without a gap, and each group stands in it once.
fn p3_once(db: &Connection, space_no: i64, model: &mut Model) -> Result<()> {
    let sql = "SELECT entry, lower(hex(chain)) FROM log WHERE place > ?1 AND place <= ?2 ORDER BY place";
    let mut statement = db.prepare_cached(sql)?;
    let mut entries = statement.query([place(space_no, model.head()), place(space_no, LONGEST_LOG)])?;
    while let Some(entry) = entries.next()? {
        let row_chain: String = entry.get(1)?;
        let entry: Value = serde_json::from_str(entry.get_ref(0)?.as_str()?)?;
        let seq = entry["seq"].as_u64().unwrap_or(0);
        ensure!(seq == model.head() as u64 + 1, "P8: the log jumps from {} to {seq}", model.head());
        if let (Some(replaced), Some(by)) = (entry["replaces"].as_str(), entry["syncGroupId"].as_str())
            && entry["device"] == "server"
        {
            model.replaced(replaced.to_owned(), by.to_owned(), Author::Office);
        }
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let number = (text("device"), text("epoch"), entry["deviceSeq"].as_u64().unwrap_or(0));
        if let Some(group) = entry["syncGroupId"].as_str()
            && let Some(owner) = model.numbers.insert(number.clone(), group.to_owned())
        {
            bail!("P11: number {} of {} was accepted as {owner} and as {group}", number.2, number.1);
        }
        match entry["syncGroupId"].as_str() {
            Some(_) if entry["device"] == "server" && entry["syncGroupType"] == "schema-upgrade" => {
                let changes = entry["changes"].as_array().into_iter().flatten();
                let keys = changes.filter_map(|change| Some((change["entity"].as_str()?, change["id"].as_str()?)));
                model.upgrade(keys).map_err(anyhow::Error::msg)?;
            }
            Some(group) => {
                model.accept(group).map_err(anyhow::Error::msg)?;
                let is_flagged = entry["flags"].as_array().is_some_and(|flags| !flags.is_empty());
                let state = &model.states[model.head()];
                let should_be = state.has_rules && model.operation(group).is_some_and(|made| state.is_flagged(made));
                ensure!(is_flagged == should_be, "P11: {group} is flagged: {is_flagged}, and should be: {should_be}");
            }
            None => model.pass(),
        }
        model.past.chains.push(row_chain);
    }
    Ok(())
}

/// P3 once, and P7: what a group was refused with is what it is told for ever, and a conflict is one.
fn p3_refused_for_ever(db: &Connection, space_no: i64, model: &mut Model, before: usize) -> Result<()> {
    let sql = "SELECT group_id, result, coalesce(result ->> '$.code', '') FROM rejections WHERE space_no = ?1";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([space_no])?;
    while let Some(row) = rows.next()? {
        let text = |place: usize| -> Result<&str> { Ok(row.get_ref(place)?.as_str()?) };
        model.refuse(text(0)?, text(2)?, text(1)?, before).map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// Where an entry stands among those of all spaces.
fn place(space_no: i64, seq: usize) -> i64 {
    space_no * (1 << 40) + seq as i64
}

/// P3 once: a request that arrived twice is answered alike: the same verdicts, but for the word that one is a repetition.
///
/// # Errors
/// The promise that is broken.
pub fn p3_answered_alike(first: Option<&Response>, second: Option<&Response>) -> Result<()> {
    let verdicts = |answer: Option<&Response>| {
        let answer = answer.filter(|answer| answer.status == 200)?;
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        let results = answer["results"].as_array()?;
        let verdict = |result: &Value| ["syncGroupId", "status", "seq", "code"].map(|key| result[key].clone());
        Some(results.iter().map(verdict).collect::<Vec<_>>())
    };
    let (Some(first), Some(second)) = (verdicts(first), verdicts(second)) else { return Ok(()) };
    for (first, second) in first.iter().zip(&second) {
        // What waited or was not final may have been decided since.
        let is_final = first[1] == "accepted" || first[1] == "rejected";
        ensure!(!is_final || first == second, "P3: the same push was answered {first:?} and then {second:?}");
    }
    Ok(())
}

/// P4 durable: what stood in the log stands in it.
fn p4_durable_on_the_server(db: &Connection, space_no: i64, model: &Model) -> Result<()> {
    let mut statement = db.prepare_cached("SELECT count(*) FROM log WHERE place > ?1 AND place <= ?2")?;
    let count: usize = statement.query_row([place(space_no, 0), place(space_no, LONGEST_LOG)], |row| row.get(0))?;
    ensure!(count == model.head(), "P4: the log had {} entries and has {count}", model.head());
    Ok(())
}

/// P4 durable, and P7 for a payload at all: what was saved is there, whatever became of it; or it is long accepted, or closed.
fn p4_durable(db: &Connection, device: &mut DeviceParty, model: &Model) -> Result<()> {
    let mut statement = db.prepare_cached(
        "SELECT root, min(length(changes)), max(state IN ('replaced', 'discarded', 'compensated', 'superseded'))
           FROM gbsync_outbox GROUP BY root",
    )?;
    let mut rows = statement.query([])?;
    let mut kept = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let root: String = row.get(0)?;
        ensure!(row.get::<_, u64>(1)? > 2, "P7: the payload of {root} is gone");
        if row.get(2)? {
            device.closed.insert(root.clone());
        }
        kept.insert(root);
    }
    let mut statement = db.prepare_cached("SELECT group_id, seq FROM gbsync_outbox WHERE state = 'accepted'")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (group, seq) = (row.get_ref(0)?.as_str()?, row.get::<_, usize>(1)?);
        ensure!(model.stood_at(group, seq), "P4: {group} was acknowledged as {seq} and does not stand there");
    }
    let is_lost = |token: &&String| !kept.contains(*token) && !device.closed.contains(*token) && !model.was_accepted(token);
    let lost = device.saved.iter().find(is_lost);
    match lost {
        Some(token) => bail!("P4: {token} was saved and is gone"),
        None => Ok(()),
    }
}

/// P4 durable: at rest, what a log lost that a device still had is in the log again, or on a device, undone with a reason.
///
/// # Errors
/// The promise that is broken.
pub fn p4_healed<'a>(devices: impl Iterator<Item = &'a DeviceParty> + Clone, model: &Model) -> Result<()> {
    let mut kept = BTreeSet::new();
    for device in devices.clone() {
        kept.extend(device.client()?.with_reader(|db| {
            let mut statement = db.prepare_cached("SELECT root FROM gbsync_outbox WHERE state <> 'accepted'")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?);
        kept.extend(device.closed.iter().cloned());
    }
    let is_there = |token: &String| model.is_accepted(token) || kept.contains(token) || model.is_excused(token);
    let lost = devices.flat_map(|device| &device.saved).find(|token| !is_there(token));
    match lost {
        Some(token) => bail!("P4: {token} was saved, its log was lost, and nobody brought it back"),
        None => Ok(()),
    }
}

/// P5 ordered: a group never stands in the log before one that it depends on.
fn p5_ordered(db: &Connection, model: &Model) -> Result<()> {
    let sql = "SELECT d.parent, o.group_id FROM gbsync_dependency AS d JOIN gbsync_outbox AS o ON o.local_no = d.child";
    let mut statement = db.prepare_cached(sql)?;
    let mut pairs = statement.query([])?;
    while let Some(pair) = pairs.next()? {
        let (parent, child) = (pair.get_ref(0)?.as_str()?, pair.get_ref(1)?.as_str()?);
        if let (Some(of_child), Some(of_parent)) = (model.operation(child), model.operation(parent))
            && !model.is_replacement(child)
        {
            ensure!(of_child.shares_with(of_parent), "P5: {child} waits for {parent}, and they share nothing");
        }
        let Some(child_at) = model.place(child) else { continue };
        let is_before = model.place(parent).is_some_and(|parent_at| parent_at < child_at);
        ensure!(is_before, "P5: {child} was accepted before {parent}, which it depends on");
    }
    Ok(())
}

/// P6 convergent: one digest on every device of a space and on the server.
///
/// # Errors
/// The promise that is broken.
pub fn p6_convergent<'a>(server: &ServerParty, space: &str, devices: impl Iterator<Item = &'a DeviceParty>) -> Result<()> {
    let theirs = gbsync_server::space_digest(&server.folder, &space_id(space))?;
    for device in devices {
        let ours = device.client()?.digest()?;
        let is_same = (ours.cursor, ours.records, ours.digest) == (theirs.head, theirs.records, theirs.digest);
        ensure!(is_same, "P6: device {} has another digest than the server at {}", device.place, theirs.head);
    }
    Ok(())
}

/// P6: who says that it stands in a log that was lost is refused; nobody hears the answer of a server that dies.
///
/// # Errors
/// The promise that is broken.
pub fn p6_lost_place_refused(status: Option<u16>, seq: usize) -> Result<()> {
    let status = status.unwrap_or(503);
    ensure!(status >= 400, "P6: whoever stands at {seq} of a log that was lost was answered {status}");
    Ok(())
}

/// P7 undone whole: a parked group says why, and nothing that depends on it is still under way.
fn p7_undone_whole(db: &Connection) -> Result<()> {
    let sql = "SELECT count(*) FROM gbsync_outbox WHERE state = 'parked' AND (code IS NULL OR message IS NULL)";
    let unexplained: u64 = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    ensure!(unexplained == 0, "P7: {unexplained} groups are parked without a reason");
    let sql = "SELECT count(*) FROM gbsync_outbox AS p JOIN gbsync_dependency AS d ON d.parent = p.group_id
                 JOIN gbsync_outbox AS c ON c.local_no = d.child
                WHERE p.state = 'parked' AND c.state IN ('sealed', 'waiting_for_sign_in')";
    let left: u64 = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    ensure!(left == 0, "P7: {left} groups are under way whose parents are parked");
    Ok(())
}

/// P8 bounded: no request is larger than the server takes.
///
/// # Errors
/// The promise that is broken.
pub fn p8_bounded(body: Option<&[u8]>, request_bytes: u64) -> Result<()> {
    let bytes = body.map_or(0, |body| body.len() as u64);
    ensure!(bytes <= request_bytes, "P8: a request has {bytes} bytes of {request_bytes}");
    Ok(())
}

/// P9 isolated: a request that came to another space than its token's is refused, and learns nothing.
///
/// # Errors
/// The promise that is broken.
pub fn p9_isolated(answer: Option<&Response>) -> Result<()> {
    let Some(answer) = answer else { return Ok(()) };
    ensure!(answer.status == 404, "P9: a request for another space was answered {}", answer.status);
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(!text.contains("\"w\""), "P9: a request for another space was answered with records: {text}");
    Ok(())
}

/// P10 live: at rest every group is decided, and every device is at the end of the log.
///
/// # Errors
/// The promise that is broken.
pub fn p10_live(device: &DeviceParty, model: &Model) -> Result<()> {
    let status = device.client()?.status()?;
    let (place, pending) = (device.place, status.pending_groups);
    if pending > 0 {
        bail!("P10: device {place} still has {pending} undecided groups, {}", undecided(device)?);
    }
    let is_at_the_end = status.cursor.0 == model.head() as u64;
    ensure!(is_at_the_end, "P10: device {place} is at {} of {}", status.cursor, model.head());
    Ok(())
}

/// What a device knows of its undecided groups.
fn undecided(device: &DeviceParty) -> Result<String> {
    let sql = "SELECT group_concat(group_id || ' ' || state || ' of log ' || coalesce(log, '-') || ', depends on '
                   || coalesce(depends_on, '-') || ', was at ' || coalesce(accepted_as, '-') || ', said ' || coalesce(message, '-'), '; ')
                 FROM gbsync_outbox WHERE state IN ('sealed', 'waiting_for_sign_in')";
    Ok(device.client()?.with_reader(|db| db.query_row(sql, [], |row| row.get(0)))?)
}

/// P11 accounted, and P7 for the payload: the numbers of an epoch have no gap, over all that was ever seen of them, every group
/// is in a state that has a name, and what is parked or closed has the bytes that were sealed.
fn p11_accounted(db: &Connection, device: &mut DeviceParty) -> Result<()> {
    const STATES: [&str; 8] =
        ["sealed", "waiting_for_sign_in", "accepted", "parked", "replaced", "discarded", "compensated", "superseded"];
    let mut statement = db.prepare_cached(
        "SELECT epoch, device_seq, state, group_id, digest,
                CASE WHEN state NOT IN ('sealed', 'waiting_for_sign_in', 'accepted') THEN changes END FROM gbsync_outbox",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let state = row.get_ref(2)?.as_str()?;
        ensure!(STATES.contains(&state), "P11: a group is {state}");
        let (epoch, number, group): (String, u64, String) = (row.get(0)?, row.get(1)?, row.get(3)?);
        if let Some(changes) = row.get_ref(5)?.as_str_or_null()? {
            let is_kept = Digest::of(changes.as_bytes()).as_bytes().as_slice() == row.get_ref(4)?.as_blob()?;
            ensure!(is_kept, "P7: {group} is {state}, and its payload is not what was sealed: {changes}");
        }
        let owner = device.owners.entry((epoch.clone(), number)).or_insert_with(|| group.clone());
        ensure!(*owner == group, "P11: number {number} of {epoch} is that of {owner} and of {group}");
        device.numbers.entry(epoch).or_default().insert(number);
    }
    for (epoch, numbers) in &device.numbers {
        let last = numbers.last().copied().unwrap_or(0);
        ensure!(last == numbers.len() as u64, "P11: {} numbers of {epoch} are missing", last - numbers.len() as u64);
    }
    Ok(())
}

/// P11 accounted: at rest device and server say the same of every number that the device still knows. What one has as accepted
/// or refused, the other has as that, at that place and with that code; what was refused, discarded or replaced was not accepted
/// all the same; and a number that the server knows is the group's that the device gave it to. A refusal that the server was told to
/// forget, because it was `put_back` to an earlier state, stays on the device alone: the group is parked with its reason, and what
/// replaces it is a new one.
///
/// # Errors
/// The promise that is broken.
pub fn p11_accounted_on_the_server(device: &DeviceParty, server: &ServerParty, put_back: bool) -> Result<()> {
    type Row = (String, String, Option<u64>, Option<String>, bool, String, u64);
    let groups: Vec<Row> = device.client()?.with_reader(|db| {
        let sql = "SELECT group_id, state, seq, code, verdict IS NOT NULL, epoch, device_seq FROM gbsync_outbox";
        let read = |row: &rusqlite::Row<'_>| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
        };
        db.prepare(sql)?.query_map([], read)?.collect()
    })?;
    let db = server.reader()?;
    let mut statement = db.prepare_cached(
        "SELECT g.seq, r.result ->> '$.code' FROM groups AS g LEFT JOIN rejections AS r USING (space_no, group_id)
          WHERE g.group_id = ?1",
    )?;
    let mut numbers = db.prepare_cached(
        "SELECT n.group_id FROM numbers AS n JOIN devices AS d USING (space_no, epoch_no) WHERE d.epoch = ?1 AND n.device_seq = ?2",
    )?;
    for (group, state, seq, code, is_told, epoch, number) in groups {
        let decided: Option<(Option<u64>, Option<String>)> =
            statement.query_row([&group], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let is_same = match (state.as_str(), &decided) {
            ("accepted", Some((at, _))) => *at == seq,
            // What the server refused is refused with its code.
            ("parked", Some((None, told))) if is_told => *told == code,
            // What the device parked or closed itself never took effect.
            (_, Some((at, _))) => at.is_none(),
            (state, None) => state != "accepted" && (put_back || !(state == "parked" && is_told)),
        };
        ensure!(is_same, "P11: {group} is {state} at {seq:?} ({code:?}) on the device, and {decided:?} on the server");
        let owner: Option<String> = numbers.query_row((&epoch, number), |row| row.get(0)).optional()?;
        let sent_as = |sql: &str| -> rusqlite::Result<bool> { db.query_row(sql, (&group, &epoch), |row| row.get(0)) };
        // What two copies of a device captured under one epoch, and parked themselves, was never sent with its number; and what one
        // of them sent first, in an epoch of its own, the other learns from the log.
        let is_owner = owner.as_ref().is_none_or(|owner| *owner == group)
            || match state.as_str() {
                "accepted" => sent_as(
                    "SELECT EXISTS (SELECT 1 FROM numbers AS n JOIN devices AS d USING (space_no, epoch_no)
                                     WHERE n.group_id = ?1 AND d.epoch <> ?2)",
                )?,
                _ => !sent_as("SELECT EXISTS (SELECT 1 FROM numbers WHERE group_id = ?1 AND ?2 IS NOT NULL)")?,
            };
        ensure!(
            is_owner,
            "P11: number {number} of {epoch} is that of {group} on the device, and of {owner:?} on the server"
        );
    }
    Ok(())
}

/// How rows are held against a state.
#[derive(Clone, Copy, PartialEq)]
enum Strictly {
    /// Payloads are the same bytes.
    ToTheByte,
    /// And versions are the same.
    AndVersions,
    /// Payloads say the same in the words of the second version of the schema.
    InOtherWords,
}

/// Whether rows of entity, id and version are exactly the records that a state knows as deleted.
fn same_deleted(db: &Connection, sql: &str, of: impl Params, state: &State) -> Result<()> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(of)?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let key: (String, String) = (row.get(0)?, row.get(1)?);
        let (version, should_be): (usize, _) = (row.get(2)?, state.deleted.get(&key));
        let (entity, id) = &key;
        ensure!(should_be == Some(&version), "{entity}:{id} is deleted as {version} and should be as {should_be:?}");
        count += 1;
    }
    ensure!(count == state.deleted.len(), "{count} records are known as deleted of {}", state.deleted.len());
    Ok(())
}

/// Whether rows of entity, id, payload and version are exactly the records of a state.
fn same(db: &Connection, sql: &str, of: impl Params, state: &State, strictly: Strictly) -> Result<()> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(of)?;
    let mut seen: BTreeSet<*const Record> = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let (entity, id) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        let payload = row.get_ref(2)?.as_str()?;
        let Some(record) = state.record(entity, id) else { bail!("{entity}:{id} is {payload} and should not be there") };
        let is_same = match strictly {
            Strictly::InOtherWords => names::renewed(entity, &serde_json::from_str(payload)?) == record.fields,
            Strictly::ToTheByte | Strictly::AndVersions => record.text == payload,
        };
        ensure!(is_same, "{entity}:{id} is {payload} and should be {}", record.text);
        let version: usize = row.get(3)?;
        let is_version_right = strictly != Strictly::AndVersions || version == record.version;
        ensure!(is_version_right, "{entity}:{id} has version {version} and should have {}", record.version);
        ensure!(seen.insert(Arc::as_ptr(record)), "{entity}:{id} is there twice");
    }
    if seen.len() == state.len() {
        return Ok(());
    }
    match state.all().find(|(_, _, record)| !seen.contains(&Arc::as_ptr(record))) {
        Some((entity, id, record)) => bail!("{entity}:{id} is not there and should be {}", record.text),
        None => Ok(()),
    }
}
