//! Deletes that follow from deletes: records that refer to a deleted one by a reference with `on_delete = "cascade"` go with
//! it, level by level. They conflict with nothing; their versions move.

use super::refusal::Stop;
use super::working::{Slot, Working};
use super::{IndexKey, Needs};
use crate::id::{Entity, RecordId, RecordKey};
use crate::schema::{OnDelete, Reference, Schema};

/// Deletes what the group's deletes take with them.
pub(super) fn spread<'a>(working: &mut Working<'a>, schema: &'a Schema) -> Result<(), Stop> {
    let mut level: Vec<usize> = (0..working.slots.len()).filter(|at| is_deleted(&working.slots[*at])).collect();
    while !level.is_empty() {
        let taken = taken(working, &level, schema)?;
        level.clear();
        for (key, index) in taken {
            // Two references may take the same record.
            if working.slot(key).is_some_and(|slot| slot.after().is_none()) {
                continue;
            }
            level.push(working.cascade(key, index)?);
        }
    }
    Ok(())
}

/// Whether the group deletes a record that was there.
pub(super) fn is_deleted(slot: &Slot<'_>) -> bool {
    slot.after().is_none() && slot.existed()
}

/// The records that one level of deletes takes, each with the change that it follows from.
fn taken<'a>(working: &Working<'a>, level: &[usize], schema: &'a Schema) -> Result<Vec<(&'a RecordKey, usize)>, Stop> {
    let (mut needs, mut taken) = (Needs::default(), Vec::new());
    for slot in level.iter().map(|at| &working.slots[*at]) {
        for referrer in schema.referrers(&slot.key.entity).filter(|(.., reference)| reference.on_delete == OnDelete::Cascade)
        {
            for key in referring(working, slot.key, referrer, &mut needs) {
                match working.facts.entry(&key) {
                    None => {
                        needs.records.insert(key);
                    }
                    Some((key, _)) => taken.push((key, slot.index)),
                }
            }
        }
    }
    working.check_room(needs.records.len())?;
    if needs.is_empty() { Ok(taken) } else { Err(needs.into()) }
}

/// The records that refer to `to` by a field and still do so after the group, as far as they did before it.
pub(super) fn referring<'w, 'a>(
    working: &'w Working<'a>,
    to: &'w RecordKey,
    (entity, field, _): (&'w Entity, &'w str, &'w Reference),
    needs: &mut Needs,
) -> impl Iterator<Item = RecordKey> + use<'w, 'a> {
    let list = IndexKey { entity: entity.clone(), fields: field.into(), value: to.id.as_str().into() };
    let ids = working.facts.list(&list);
    if ids.is_none() {
        needs.index.insert(list);
    }
    let still_refers = move |id: &RecordId| {
        let key = RecordKey { entity: entity.clone(), id: id.clone() };
        let refers = working.slot(&key).is_none_or(|slot| {
            let value = slot.after().and_then(|after| after.member(field));
            value.and_then(Reference::id_in) == Some(to.id.as_str())
        });
        refers.then_some(key)
    };
    ids.into_iter().flatten().filter_map(still_refers)
}
