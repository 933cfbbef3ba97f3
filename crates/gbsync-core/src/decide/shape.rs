//! Does a group look like its operation: how many records of which kinds it names. Cascaded deletes are not counted: its
//! author did not say them.

use super::refusal::{Stop, invalid, whole};
use super::working::Working;
use crate::id::{Entity, GroupType, RecordKey};
use crate::schema::{Count, OperationRules, Schema, Undeclared};
use crate::verdict::RejectionCode;
use std::collections::BTreeMap;

/// Judges the shape, and that no record is changed outside an operation that must not be.
pub(super) fn check(
    working: &Working<'_>,
    schema: &Schema,
    group_type: Option<&GroupType>,
    operation: Option<&OperationRules>,
) -> Result<(), Stop> {
    let Some(group_type) = group_type else { return check_ungrouped(working, schema) };
    let Some(shape) = operation.and_then(|operation| operation.shape.as_ref()) else { return Ok(()) };
    let named = working.slots.iter().filter(|slot| slot.cause.is_none()).map(|slot| (slot.index, slot.key));
    match misfit(shape, group_type, named) {
        None => Ok(()),
        Some((message, Some(place))) => {
            Err(invalid(RejectionCode::ShapeViolation, name(group_type), message, place, working.facts).into())
        }
        Some((message, None)) => Err(whole(RejectionCode::ShapeViolation, name(group_type), message).into()),
    }
}

/// What messages call the rule.
pub(super) fn name(group_type: &GroupType) -> String {
    format!("{group_type}.shape")
}

fn check_ungrouped(working: &Working<'_>, schema: &Schema) -> Result<(), Stop> {
    let refuses = |entity: &Entity| schema.entity(entity).is_some_and(|rules| rules.ungrouped == Undeclared::Refuse);
    let Some(slot) = working.slots.iter().find(|slot| slot.cause.is_none() && refuses(&slot.key.entity)) else {
        return Ok(());
    };
    let message = format!("change {} on {} stands outside any operation; open one around it", slot.index, slot.key);
    let rule = format!("{}.ungrouped", slot.key.entity);
    Err(invalid(RejectionCode::ShapeViolation, rule, message, slot.place(), working.facts).into())
}

/// What is wrong with the records that an operation names, and the first at fault where one is.
pub(super) fn misfit<'k>(
    shape: &BTreeMap<Entity, Count>,
    group_type: &GroupType,
    named: impl Iterator<Item = (usize, &'k RecordKey)>,
) -> Option<(String, Option<(usize, &'k RecordKey)>)> {
    let mut counts: BTreeMap<&Entity, u64> = BTreeMap::new();
    for (index, key) in named {
        let Some(count) = shape.get(&key.entity) else {
            let message =
                format!("change {index}: {group_type} does not change {}; leave it to another operation", key.entity);
            return Some((message, Some((index, key))));
        };
        let found = counts.entry(&key.entity).or_default();
        *found += 1;
        if count.most.is_some_and(|most| *found > most) {
            let message =
                format!("{group_type} changes {} of {}; change {index} is one too many", expected(*count), key.entity);
            return Some((message, Some((index, key))));
        }
    }
    shape.iter().find_map(|(entity, count)| {
        let found = counts.get(entity).copied().unwrap_or(0);
        (found < count.least).then(|| {
            let message = format!("{group_type} changes {} of {entity}; this group has {found}", expected(*count));
            (message, None)
        })
    })
}

fn expected(Count { least, most }: Count) -> String {
    match most {
        Some(most) if most == least => format!("exactly {least}"),
        Some(most) => format!("{least} to {most}"),
        None => format!("at least {least}"),
    }
}
