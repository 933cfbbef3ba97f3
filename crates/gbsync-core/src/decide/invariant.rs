//! Do the rules hold in the state that the group leaves? Those of its operation, and those of every entity of which it
//! changes a record or a record's references.
//!
//! A rule that cannot be evaluated, or not within its steps, does not hold: it is cut off, and stalls nobody.

use super::Needs;
use super::refusal::{Stop, invalid, violated, whole};
use super::working::Working;
use super::world::Records;
use crate::id::{Entity, RecordKey};
use crate::rule::{Budget, Evaluation, Halt};
use crate::schema::{Invariant, OperationRules, Schema};
use crate::verdict::{Flag, Rejection, RejectionCode};

/// Steps that each rule may take: some thousandths of a second, and more for groups of many records.
const STEPS: u64 = 100_000;
/// Steps more for each record that the group touches.
const STEPS_A_RECORD: u64 = 200;

/// Judges every rule that the group has to keep.
pub(super) fn check<'a>(
    working: &Working<'a>,
    schema: &'a Schema,
    operation: Option<&'a OperationRules>,
    flags: &mut Vec<Flag>,
) -> Result<(), Stop> {
    let of_operation = operation.into_iter().flat_map(|operation| &operation.invariants).map(|rule| (None, rule));
    let entities = touched(working, schema);
    let of_entities = entities.iter().flat_map(|entity| {
        let rules = schema.entity(entity).into_iter().flat_map(|rules| &rules.invariants);
        rules.map(move |rule| (Some(*entity), rule))
    });
    let mut invariants = of_operation.chain(of_entities).peekable();
    if invariants.peek().is_none() {
        return Ok(());
    }
    let records = Records::new(working, schema);
    for (entity, invariant) in invariants {
        // A rule of an entity is asked only where there is a record of it.
        if entity.is_some_and(|entity| records.has_none(entity)) {
            continue;
        }
        judge(invariant, working, &records, flags)?;
    }
    Ok(())
}

/// The entities of which a rule may find a record: those of the group, and those that its records refer to.
fn touched<'a>(working: &Working<'a>, schema: &'a Schema) -> Vec<&'a Entity> {
    let mut entities = sorted(working.slots.iter().map(|slot| &slot.key.entity).collect());
    let rules = entities.iter().filter_map(|entity| schema.entity(entity));
    let others: Vec<&Entity> = rules.flat_map(|rules| rules.references().map(|(_, reference)| &reference.entity)).collect();
    entities.extend(others);
    sorted(entities)
}

fn sorted(mut entities: Vec<&Entity>) -> Vec<&Entity> {
    entities.sort_unstable();
    entities.dedup();
    entities
}

fn judge<'a>(
    invariant: &'a Invariant,
    working: &Working<'a>,
    records: &Records<'_, 'a>,
    flags: &mut Vec<Flag>,
) -> Result<(), Stop> {
    let name = &invariant.name;
    let steps = STEPS + STEPS_A_RECORD * working.slots.len() as u64;
    let rejection = match Evaluation::holds(invariant.cel.rule(), records, &Budget::of(steps)) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(culprit)) => {
            // One that a rule asked for is known.
            let shown = |key: &RecordKey| format!(" for {}", working.name_of(key, &mut Needs::default()));
            let of = culprit.as_ref().map(|record| shown(record.key)).unwrap_or_default();
            let message = format!("the rule {name:?} would not hold{of}; correct the operation and save it again");
            let slot = culprit.and_then(|record| records.blamed(record.key));
            refusal(name, message, slot.map(|slot| slot.place()), working)
        }
        Err(Halt::Error(problem)) => {
            let message = format!("the rule {name:?} cannot be evaluated: {problem}; correct the operation or the rule");
            refusal(name, message, None, working)
        }
        Err(Halt::Exhausted) => {
            let message = format!("the rule {name:?} was cut off after {steps} steps; simplify it or split the operation");
            refusal(name, message, None, working)
        }
        Err(Halt::Needs(mut needs)) => {
            let mut more = records.needed(invariant.cel.rule());
            needs.records.append(&mut more.records);
            needs.index.append(&mut more.index);
            return Err(needs.into());
        }
    };
    violated(flags, invariant.on_violation, rejection)
}

fn refusal(name: &str, message: String, place: Option<(usize, &RecordKey)>, working: &Working<'_>) -> Rejection {
    let code = RejectionCode::InvariantViolation;
    match place {
        Some(place) => invalid(code, name.to_owned(), message, place, working.facts),
        None => whole(code, name.to_owned(), message),
    }
}
