//! A captured operation that cannot be sealed becomes a parked group: numbered, whole, with its reason.
//!
//! Invariant (P11): this refuses nothing. What is over a limit is kept over the limit, for a person to decide.

use super::rows::Captured;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::outbox::{self, NewRow, NextGroup};
use crate::store::{Tx, parked, state};
use crate::view::View;
use crate::{tables, view};
use gbsync_core::change::{Change, Edit, Payload};
use gbsync_core::depend::Touch;
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{Actor, GroupId, GroupType, RecordKey};
use gbsync_core::lay::lay;
use gbsync_core::limits::{DEPENDENCIES, Limits};
use gbsync_core::squash::{Squashed, squash};
use gbsync_core::time::Timestamp;

/// What is parked, and why.
pub(super) struct Refused<'a> {
    pub(super) captured: &'a Captured,
    pub(super) changes: &'a [(RecordKey, Edit)],
    /// The refused group that it was written on top of.
    pub(super) depends_on: Option<GroupId>,
    pub(super) code: &'a str,
    pub(super) message: &'a str,
}

/// One record of it.
struct Held {
    key: RecordKey,
    seen: View,
    edits: Vec<Edit>,
    /// The record as the group would have left it, as far as it can be laid.
    left: Option<Payload>,
}

/// Stores it as a parked group. `None` when nothing is left of it.
pub(super) fn park(tx: &Tx<'_>, environment: &Environment, refused: &Refused<'_>) -> Result<Option<GroupId>, Error> {
    let held = held(tx, refused.changes)?;
    if held.is_empty() {
        return Ok(None);
    }
    let depends_on = dependencies(tx, refused, &held)?;
    let mut changes = Vec::new();
    for Held { key, seen, edits, .. } in &held {
        for edit in edits {
            let mut base = seen.base.clone();
            base.group = base.group.filter(|group| depends_on.contains(group));
            let change = Change::new(key.clone(), edit.clone(), base);
            changes.push(change.map_err(|source| Error::InvalidPayload { key: key.clone(), source })?);
        }
    }
    let state = state::read(tx)?;
    let captured = refused.captured;
    let NextGroup { local_no, device_seq, epoch } = outbox::next_group(tx)?;
    let group_type = captured.group_type.clone().and_then(|text| GroupType::new(text).ok());
    let header = Header {
        id: mint(environment, group_type.as_ref(), captured.root.as_deref(), &held[0].key),
        group_type,
        device_seq,
        actor: captured.actor.clone().and_then(|text| Actor::new(text).ok()),
        created_at: Timestamp::from_unix_ms(captured.at),
        schema_version: tx.schemas().app_version(),
        depends_on,
        replaces: None,
        family: None,
        log: state.log.filter(|_| changes.iter().any(|change| change.base.version.0 > 0)),
        hlc: None,
        clears: Vec::new(),
    };
    let unlimited = Limits { group_records: u64::MAX, group_bytes: u64::MAX, payload_bytes: u64::MAX, ..Limits::default() };
    let group = Group::seal(header, changes, &unlimited)?;
    let root = captured.root.as_deref();
    outbox::insert(
        tx,
        &NewRow { local_no, group: &group, root, epoch: &epoch, sealed_at: captured.at, parked_behind: None },
    )?;
    outbox::set_parked(tx, local_no, refused.code, refused.message, None, environment.clock.now_ms())?;
    tx.note_sealed(local_no);
    let seen = held.iter().flat_map(|record| record.edits.iter().map(|_| record.seen.payload.as_ref()));
    for (index, seen) in seen.enumerate() {
        if let Some(seen) = seen {
            parked::keep_base(tx, local_no, index, seen)?;
        }
    }
    for Held { key, left, .. } in &held {
        tables::keep_refused(tx, local_no, key, left.as_ref())?;
    }
    Ok(Some(group.id().clone()))
}

fn mint(environment: &Environment, group_type: Option<&GroupType>, root: Option<&str>, first: &RecordKey) -> GroupId {
    let uuid = environment.uuid();
    let typed = group_type.zip(root).and_then(|(group_type, root)| GroupId::mint(group_type, root, &uuid).ok());
    typed.unwrap_or_else(|| GroupId::mint_single(first, &uuid))
}

fn held(tx: &Tx<'_>, changes: &[(RecordKey, Edit)]) -> Result<Vec<Held>, Error> {
    let mut held: Vec<Held> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for (key, edit) in changes {
        let place = match places.get(key) {
            Some(place) => *place,
            None => {
                places.insert(key, held.len());
                let seen = view::of(tx, key)?;
                let left = seen.payload.clone();
                held.push(Held { key: key.clone(), seen, edits: Vec::new(), left });
                held.len() - 1
            }
        };
        let record = &mut held[place];
        let rules = tx.schemas().writing(&key.entity);
        record.left = lay(edit, record.left.as_ref(), rules).unwrap_or_else(|_| edit.payload().cloned());
        match record.edits.pop() {
            None => record.edits.push(edit.clone()),
            Some(last) => match squash(&last, edit, record.seen.payload.is_some(), rules) {
                Squashed::One(one) => record.edits.push(one),
                Squashed::Both => record.edits.extend([last, edit.clone()]),
                Squashed::Nothing => {}
            },
        }
    }
    held.retain(|record| !record.edits.is_empty());
    Ok(held)
}

fn dependencies(tx: &Tx<'_>, refused: &Refused<'_>, held: &[Held]) -> Result<Vec<GroupId>, Error> {
    let mut ids: Vec<GroupId> = refused.depends_on.iter().cloned().collect();
    for Held { seen, edits, .. } in held {
        ids.extend(seen.base.group.clone());
        let touch = match edits.last() {
            Some(Edit::Delete) => Touch::Delete,
            _ if edits.iter().all(Edit::is_increment) => Touch::Increment,
            _ if seen.payload.is_some() => Touch::Edit,
            _ => Touch::Create,
        };
        for local_no in seen.trail.dependencies(touch) {
            ids.extend(outbox::id_of(tx, local_no)?);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    ids.truncate(DEPENDENCIES);
    Ok(ids)
}
