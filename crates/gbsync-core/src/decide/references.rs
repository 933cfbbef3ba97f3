//! References hold in the state that a group leaves, both ways: what it makes refers to records that are there, and what it
//! deletes is referred to by none.

use super::cascade::{is_deleted, referring};
use super::refusal::{Stop, invalid, violated};
use super::types::rule;
use super::working::{Slot, Working};
use super::{Needs, unique};
use crate::id::{RecordId, RecordKey};
use crate::schema::{OnDelete, Reference, Schema};
use crate::verdict::{Flag, Rejection, RejectionCode};

/// Judges references and unique values. A refusal counts only where everything before it is known.
pub(super) fn check(working: &Working<'_>, schema: &Schema, flags: &mut Vec<Flag>) -> Result<(), Stop> {
    let mut needs = Needs::default();
    for stage in [outgoing, incoming, unique::check] {
        match stage(working, schema, &mut needs, flags) {
            Err(Stop::Reject(rejection)) if needs.is_empty() => return Err(rejection.into()),
            Err(Stop::Needs(more)) => return Err(more.into()),
            _ => {}
        }
    }
    if needs.is_empty() { Ok(()) } else { Err(needs.into()) }
}

/// Every reference that the group sets points to a record, or, with `on_delete = "ignore"`, to one that was.
fn outgoing(working: &Working<'_>, _: &Schema, needs: &mut Needs, flags: &mut Vec<Flag>) -> Result<(), Stop> {
    for slot in &working.slots {
        let (Some(rules), Some(after)) = (slot.rules, slot.after()) else { continue };
        for (field, reference) in rules.references() {
            let Some(value) = after.member(field).and_then(Reference::id_in) else { continue };
            if is_kept(slot, field, value) {
                continue;
            }
            if !points(working, value, reference, needs) {
                let to = &reference.entity;
                let message = format!(
                    "change {} on {}: {field:?} refers to {to}:{value}, which does not exist; write it first or in this group",
                    slot.index, slot.key
                );
                violated(
                    flags,
                    reference.on_violation,
                    refusal(RejectionCode::DanglingReference, slot, field, message, working),
                )?;
            }
        }
    }
    Ok(())
}

/// Whether the record held this reference before. Where it points nowhere, that is not this group's doing.
fn is_kept(slot: &Slot<'_>, field: &str, value: &str) -> bool {
    slot.existed() && slot.before().is_some_and(|before| before.member(field).and_then(Reference::id_in) == Some(value))
}

fn points(working: &Working<'_>, value: &str, reference: &Reference, needs: &mut Needs) -> bool {
    // What may stay when the other record goes may also be written after it went: the reversal of a voided receipt.
    let may_be_gone = reference.on_delete == OnDelete::Ignore;
    if let Some(slot) = working.named(&reference.entity, value) {
        return slot.after().is_some() || (may_be_gone && slot.existing.is_some());
    }
    // A text that is no id is that of no record.
    let Ok(id) = RecordId::new(value) else { return false };
    let key = RecordKey { entity: reference.entity.clone(), id };
    match working.facts.record(&key) {
        // To somebody who does not see it, it is not there.
        Some(record) => record.is_some_and(|record| {
            let is_seen = working.scopes.is_none_or(|scopes| scopes.sees(&record.reach));
            is_seen && (may_be_gone || record.payload.is_some())
        }),
        None => {
            needs.records.insert(key);
            true
        }
    }
}

/// Nothing refers to what the group deletes.
fn incoming(working: &Working<'_>, schema: &Schema, needs: &mut Needs, flags: &mut Vec<Flag>) -> Result<(), Stop> {
    for slot in working.slots.iter().filter(|slot| is_deleted(slot)) {
        for referrer in schema.referrers(&slot.key.entity) {
            let (entity, field, reference) = referrer;
            if reference.on_delete != OnDelete::Restrict {
                continue;
            }
            let Some(other) = referring(working, slot.key, referrer, needs).next() else { continue };
            let other = working.name_of(&other, needs);
            let message = format!(
                "change {}: {} is still referred to by {other}; delete or change that one first or in this group",
                slot.index, slot.key
            );
            let code = RejectionCode::StillReferenced;
            let rejection = invalid(code, rule(entity, field), message, slot.place(), working.facts);
            violated(flags, reference.on_violation, rejection)?;
        }
    }
    Ok(())
}

fn refusal(code: RejectionCode, slot: &Slot<'_>, field: &str, message: String, working: &Working<'_>) -> Rejection {
    invalid(code, rule(&slot.key.entity, field), message, slot.place(), working.facts)
}
