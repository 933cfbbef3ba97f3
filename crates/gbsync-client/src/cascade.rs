//! Deletes that follow from deletes in the local view: a group that deletes a record takes along those that refer to it by a
//! reference with `on_delete = "cascade"`, as the server will.
//!
//! Invariant: what follows is never stored as a change. It is derived each time the group is laid, also from records that a
//! pull brings later, and goes with the group.
//!
//! Rejected alternative: writing the deletes into the group; records that others add meanwhile would stay behind.

use crate::error::{Error, damaged};
use crate::store::{Tx, lists, overlay};
use gbsync_core::change::Payload;
use gbsync_core::decide::IndexKey;
use gbsync_core::id::{RecordId, RecordKey};
use gbsync_core::json;
use gbsync_core::limits::PAYLOAD_DEPTH;
use gbsync_core::schema::{OnDelete, Schema};
use std::collections::{BTreeMap, BTreeSet};

/// Which records follow which, among those that are laid.
#[derive(Default)]
pub(crate) struct Follows {
    by_target: BTreeMap<RecordKey, BTreeSet<RecordKey>>,
    targets: BTreeMap<RecordKey, Vec<RecordKey>>,
}

impl Follows {
    /// Notes what a record follows now. Answers those of its targets that are new.
    pub(crate) fn set(&mut self, key: &RecordKey, targets: Vec<RecordKey>) -> Vec<RecordKey> {
        let before = self.targets.remove(key).unwrap_or_default();
        for target in &before {
            if let Some(followers) = self.by_target.get_mut(target) {
                followers.remove(key);
            }
        }
        for target in &targets {
            self.by_target.entry(target.clone()).or_default().insert(key.clone());
        }
        let new = targets.iter().filter(|target| !before.contains(target)).cloned().collect();
        if !targets.is_empty() {
            self.targets.insert(key.clone(), targets);
        }
        new
    }

    /// The records that follow one.
    pub(crate) fn of(&self, target: &RecordKey) -> Vec<RecordKey> {
        self.by_target.get(target).into_iter().flatten().cloned().collect()
    }
}

/// Whether any delete takes something along.
pub(crate) fn has_any(tx: &Tx<'_>) -> bool {
    let is_cascade = |schema: &Schema| {
        let mut references = schema.entities.values().flat_map(|rules| rules.references());
        references.any(|(_, reference)| reference.on_delete == OnDelete::Cascade)
    };
    tx.schemas().effective().is_some_and(is_cascade)
}

/// Whether deleting records like this one takes something along.
pub(crate) fn takes_along(schema: &Schema, key: &RecordKey) -> bool {
    schema.referrers(&key.entity).any(|(_, _, reference)| reference.on_delete == OnDelete::Cascade)
}

/// The records whose delete takes this one along.
pub(crate) fn targets(tx: &Tx<'_>, key: &RecordKey, payload: Option<&Payload>) -> Result<Vec<RecordKey>, Error> {
    references(tx, key, payload, |on_delete| on_delete == OnDelete::Cascade)
}

/// The records that this one refers to by references of a kind.
pub(crate) fn references(
    tx: &Tx<'_>,
    key: &RecordKey,
    payload: Option<&Payload>,
    is_meant: impl Fn(OnDelete) -> bool,
) -> Result<Vec<RecordKey>, Error> {
    let (Some(rules), Some(payload)) = (tx.schemas().laying(&key.entity), payload) else { return Ok(Vec::new()) };
    let mut fields = rules.references().filter(|(_, reference)| is_meant(reference.on_delete)).peekable();
    if fields.peek().is_none() {
        return Ok(Vec::new());
    }
    let node = json::parse(payload.as_str().as_bytes(), PAYLOAD_DEPTH + 1).map_err(|error| damaged("a payload", error))?;
    let target = |(field, reference): (&str, &gbsync_core::schema::Reference)| {
        let value = node.member(field)?;
        let id = value.as_str().or_else(|| value.as_number().filter(|digits| digits.parse::<i64>().is_ok()))?;
        Some(RecordKey { entity: reference.entity.clone(), id: RecordId::new(id).ok()? })
    };
    Ok(fields.filter_map(target).collect())
}

/// The records that the local view shows to follow one.
pub(crate) fn followers(tx: &Tx<'_>, key: &RecordKey) -> Result<BTreeSet<RecordKey>, Error> {
    let mut followers = BTreeSet::new();
    let Some(schema) = tx.schemas().effective() else { return Ok(followers) };
    for (entity, field, reference) in schema.referrers(&key.entity) {
        if reference.on_delete == OnDelete::Cascade {
            let list = IndexKey { entity: entity.clone(), fields: field.into(), value: key.id.as_str().into() };
            let keys = lists::members(tx, schema, &list)?.into_iter();
            followers.extend(keys.map(|id| RecordKey { entity: entity.clone(), id }));
        }
    }
    Ok(followers)
}

/// Whether a record that nothing lies over refers to one that an overlay group deletes.
pub(crate) fn is_taken_along(tx: &Tx<'_>, key: &RecordKey, payload: Option<&Payload>) -> Result<bool, Error> {
    for target in targets(tx, key, payload)? {
        if overlay::is_deleted(tx, &target)? {
            return Ok(true);
        }
    }
    Ok(false)
}
