//! Values that together stand for one record: no two records of an entity have them after the group. A group may swap them.

use super::index::unique_key;
use super::refusal::{Stop, invalid};
use super::working::{Slot, Working};
use super::{IndexKey, Needs};
use crate::id::{RecordId, RecordKey};
use crate::schema::Schema;
use crate::verdict::{Flag, RejectionCode};
use std::collections::BTreeMap;

/// Judges every set of unique fields whose values the group sets.
pub(super) fn check(working: &Working<'_>, _: &Schema, needs: &mut Needs, _: &mut Vec<Flag>) -> Result<(), Stop> {
    let mut taken: BTreeMap<IndexKey, &RecordKey> = BTreeMap::new();
    for slot in &working.slots {
        for fields in slot.rules.into_iter().flat_map(|rules| &rules.unique) {
            let Some(list) = values(slot, fields, false) else { continue };
            if values(slot, fields, true).as_ref() == Some(&list) {
                continue;
            }
            let other = match working.facts.list(&list) {
                Some(ids) => ids.iter().find_map(|id| holder(working, slot, fields, &list, id)),
                None => {
                    needs.index.insert(list.clone());
                    None
                }
            };
            if let Some(other) = other.or_else(|| taken.get(&list).map(|key| (*key).clone())) {
                let (names, other) = (fields.join("+"), working.name_of(&other, needs));
                let message = format!(
                    "change {} on {}: {other} already has {names} {}; use another value",
                    slot.index, slot.key, list.value
                );
                let rule = format!("{}.{names}", slot.key.entity);
                return Err(invalid(RejectionCode::DuplicateValue, rule, message, slot.place(), working.facts).into());
            }
            taken.insert(list, slot.key);
        }
    }
    Ok(())
}

/// The list on which a record stands for its values, after the group or before it.
fn values(slot: &Slot<'_>, fields: &[String], is_before: bool) -> Option<IndexKey> {
    let node = if is_before { slot.before() } else { slot.after() };
    unique_key(slot.key, fields, node?)
}

/// Another record that had the values before the group and keeps them.
fn holder(working: &Working<'_>, slot: &Slot<'_>, fields: &[String], list: &IndexKey, id: &RecordId) -> Option<RecordKey> {
    let key = RecordKey { entity: slot.key.entity.clone(), id: id.clone() };
    let keeps = match working.slot(&key) {
        Some(other) => other.key != slot.key && values(other, fields, false).as_ref() == Some(list),
        None => true,
    };
    keeps.then_some(key)
}
