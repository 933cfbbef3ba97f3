//! Sealing: staged changes and the local view they make become durable in one transaction, as one group.

use super::staging::{StagedRecord, Staging};
use super::waits;
use crate::Sealed;
use crate::cascade;
use crate::environment::Environment;
use crate::error::Error;
use crate::relay::relay;
use crate::requeue::requeue;
use crate::rules;
use crate::schemas::Schemas;
use crate::sequences;
use crate::store::outbox::{self, NewRow, NextGroup, StoredState};
use crate::store::overlay::{self, OverlayRow};
use crate::store::{Tx, clock, left, parked};
use crate::tables;
use crate::view::{self, View};
use gbsync_core::change::{Change, Edit, Payload};
use gbsync_core::depend::{Touch, Trail};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{DeviceId, GroupId, RecordKey};
use gbsync_core::time::Timestamp;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// What one record will be under the group.
pub(super) struct Laid<'a> {
    pub(super) key: &'a RecordKey,
    pub(super) touch: Touch,
    trail: Trail<i64>,
    /// `Err` when the edits cannot be laid on the record as it is now.
    pub(super) payload: Result<Option<Payload>, ()>,
}

/// Seals a staging inside a transaction. `is_current` says that what the staging saw is still so.
pub(crate) fn seal(tx: &Tx<'_>, environment: &Environment, staging: &Staging, is_current: bool) -> Result<Sealed, Error> {
    if staging.is_empty() {
        return Err(Error::EmptyOperation);
    }
    if let Some(instead) = &staging.instead {
        parked::open(tx, &instead.of)?;
    }
    let now = staging.made_at.unwrap_or_else(|| environment.clock.now_ms());
    let NextGroup { local_no, device_seq, epoch } = outbox::next_group(tx)?;
    let numbered = sequences::fill(tx, staging)?;
    let laid = staging.changed().map(|(key, record)| lay_record(tx, key, record, numbered.get(key), is_current));
    let laid = laid.collect::<Result<Vec<_>, _>>()?;
    let changes = based_on_seen(tx, staging, staging.changes(&numbered)?)?;
    #[cfg(feature = "mutants")]
    let changes = crate::planted::based_on_now(tx, changes)?;
    let depends_on = dependencies(tx, staging, &laid, &changes)?;
    let has_dependencies = !depends_on.is_empty();
    let parked_behind = parked_among(tx, &depends_on)?;
    let is_shown = parked_behind.is_none() && laid.iter().all(|laid| laid.payload.is_ok());
    // What cannot be laid on what is there now was right on what its author saw: the server decides about it.
    if is_shown {
        let seen = staging.changed().filter(|_| is_current).map(|(key, record)| (key, record.seen.payload.as_ref()));
        rules::check(tx, &changes, staging.group_type.as_ref(), staging.limits(), seen)?;
    }
    let header = Header {
        id: group_id(tx, environment, staging, &changes)?,
        group_type: staging.group_type.clone(),
        device_seq,
        actor: staging.actor.clone(),
        created_at: Timestamp::from_unix_ms(now),
        schema_version: tx.schemas().app_version(),
        depends_on,
        replaces: staging.instead.as_ref().map(|instead| instead.of.clone()),
        // Its predecessors know it: it is read with the group when that is sent.
        family: None,
        // A base version belongs to a log, and a group that it depends on may be lost with one; any other group fits every log.
        log: staging.log.clone().filter(|_| has_dependencies || changes.iter().any(|change| change.base.version.0 > 0)),
        hlc: if tx.schemas().has_clock() { Some(clock::next(tx, now)?) } else { None },
        clears: staging.clears.clone(),
    };
    let group = Group::seal(header, changes, staging.limits())?;
    check_changes(&group, staging.limits().request_bytes)?;
    #[cfg(feature = "mutants")]
    crate::planted::keep_before(tx, local_no, laid.iter().map(|laid| laid.key))?;
    #[cfg(feature = "mutants")]
    let (shown, last) = laid.split_at(laid.len() - usize::from(crate::planted::is_cut_off(staging)));
    #[cfg(not(feature = "mutants"))]
    let shown = &laid;
    if parked_behind.is_none() {
        store_overlay(tx, local_no, shown)?;
    }
    let root = staging.root.as_deref();
    let row = NewRow { local_no, group: &group, root, epoch: &epoch, sealed_at: now, parked_behind: parked_behind.as_ref() };
    outbox::insert(tx, &row)?;
    group.header().log.as_ref().map_or(Ok(()), |log| left::seal_late(tx, local_no, log))?;
    #[cfg(feature = "mutants")]
    if !last.is_empty() && parked_behind.is_none() {
        crate::planted::cut_off(tx)?;
        store_overlay(tx, local_no, last)?;
    }
    tx.note_sealed(local_no);
    if let Some(instead) = &staging.instead {
        parked::replace(tx, instead, (local_no, group.id()), now)?;
    }
    if let Some(schema) = tx.schemas().effective().filter(|_| is_shown) {
        let deleted = laid.iter().filter(|laid| laid.touch == Touch::Delete && cascade::takes_along(schema, laid.key));
        let deleted: BTreeSet<RecordKey> = deleted.map(|laid| laid.key.clone()).collect();
        if !deleted.is_empty() {
            relay(tx, deleted)?;
        }
    }
    if parked_behind.is_some() && staging.instead.is_none() {
        // What it waits for may have been settled while the operation was open: nothing else would come to free it.
        requeue(tx, environment, *staging.limits())?;
    }
    Ok(Sealed { group_id: group.id().clone(), device_seq })
}

/// Lays the operation's edits on the record as it is now, which may not be what the operation saw.
fn lay_record<'a>(
    tx: &Tx<'_>,
    key: &'a RecordKey,
    record: &StagedRecord,
    numbered: Option<&Vec<Edit>>,
    is_current: bool,
) -> Result<Laid<'a>, Error> {
    if is_current && numbered.is_none() {
        let touch = record.touch(record.seen.payload.is_some());
        return Ok(Laid { key, touch, trail: record.seen.trail, payload: Ok(record.now.clone()) });
    }
    let View { payload: current, trail, .. } = view::under(tx.schemas(), tx, key)?;
    let touch = record.touch(current.is_some());
    let payload = match numbered {
        None if current == record.seen.payload => Ok(record.now.clone()),
        _ => replay(tx.schemas(), key, numbered.unwrap_or(&record.edits), current),
    };
    Ok(Laid { key, touch, trail, payload })
}

fn replay(rules: &Schemas, key: &RecordKey, edits: &[Edit], current: Option<Payload>) -> Result<Option<Payload>, ()> {
    let version = rules.app_version();
    edits.iter().try_fold(current, |state, edit| rules.lay(key, edit, version, state.as_ref()).map_err(|_| ()))
}

/// Lets a change name an own group as its base only where its author saw all that the author of that one saw.
fn based_on_seen(tx: &Tx<'_>, staging: &Staging, mut changes: Vec<Change>) -> Result<Vec<Change>, Error> {
    for change in &mut changes {
        let Some(group) = &change.base.group else { continue };
        let is_of_present_log = staging.log.is_none() || staging.log == outbox::current_log(tx)?;
        if is_of_present_log && !left::has_all_of(tx, group, &change.key, change.base.version)? {
            change.base.group = None;
        }
    }
    Ok(changes)
}

/// What touches the same records first (docs/decisions/0003), then the bases, then what the app named.
fn dependencies(tx: &Tx<'_>, staging: &Staging, laid: &[Laid<'_>], changes: &[Change]) -> Result<Vec<GroupId>, Error> {
    let mut ids: Vec<GroupId> = Vec::new();
    let mut add = |id: GroupId| {
        if !ids.contains(&id) {
            ids.push(id);
        }
    };
    for Laid { touch, trail, .. } in laid {
        for local_no in trail.dependencies(*touch) {
            if let Some(id) = outbox::id_of(tx, local_no)? {
                add(id);
            }
        }
    }
    for local_no in waits::by_references(tx, laid)? {
        if let Some(id) = outbox::id_of(tx, local_no)? {
            add(id);
        }
    }
    changes.iter().filter_map(|change| change.base.group.clone()).for_each(&mut add);
    for id in &staging.depends_on {
        // What the app names may have been sealed anew since.
        add(parked::stands_for(tx, id)?);
    }
    Ok(ids)
}

/// The first dependency that was rejected in the meantime.
fn parked_among(tx: &Connection, ids: &[GroupId]) -> Result<Option<GroupId>, Error> {
    for id in ids {
        if outbox::standing(tx, id)?
            .is_some_and(|standing| matches!(standing.state, StoredState::Parked | StoredState::Closed))
        {
            return Ok(Some(id.clone()));
        }
    }
    Ok(None)
}

fn group_id(tx: &Connection, environment: &Environment, staging: &Staging, changes: &[Change]) -> Result<GroupId, Error> {
    if let Some(id) = &staging.given_id {
        if outbox::is_known(tx, id)? {
            return Err(Error::AlreadyApplied(id.clone()));
        }
        outbox::remember_given_id(tx, id)?;
        return Ok(id.clone());
    }
    let uuid = environment.uuid();
    match (&staging.group_type, &staging.root) {
        (Some(group_type), Some(root)) => Ok(GroupId::mint(group_type, root, &uuid)?),
        _ => Ok(GroupId::mint_single(&changes[0].key, &uuid)),
    }
}

/// A group that no request holds is sent in parts, cut between changes; so each change must fit into one.
fn check_changes(group: &Group, limit: u64) -> Result<(), Error> {
    if group.changes_json().len() as u64 <= limit {
        return Ok(());
    }
    let mut json = String::new();
    for change in group.changes() {
        json.clear();
        change.push_json(&mut json);
        // With the brackets of a part.
        let bytes = json.len() as u64 + 2;
        if bytes > limit {
            return Err(Error::ChangeTooLarge { key: change.key.clone(), bytes, limit });
        }
    }
    Ok(())
}

/// Lays the group over the local view: all of its records, or none where one cannot be laid.
fn store_overlay(tx: &Tx<'_>, local_no: i64, laid: &[Laid<'_>]) -> Result<(), Error> {
    let is_hidden = laid.iter().any(|laid| laid.payload.is_err());
    for Laid { key, touch, trail, payload } in laid {
        let payload = if is_hidden { None } else { payload.clone().unwrap_or_default() };
        let trail = trail.after(local_no, *touch);
        if !is_hidden {
            tables::write(tx, key, payload.as_ref().map(Payload::as_str))?;
        }
        overlay::put(tx, key, &OverlayRow { local_no, touch: *touch, trail, is_hidden, is_derived: false, payload })?;
    }
    Ok(())
}

/// A device's first id, and its epochs: both UUIDs.
pub(crate) fn new_device(environment: &Environment) -> DeviceId {
    DeviceId::new(environment.uuid()).expect("a UUID is a valid id")
}
