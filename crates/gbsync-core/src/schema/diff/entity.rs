//! Changes of one entity.

use super::{Changes, field};
use crate::schema::{EntityRules, Invariant, OnViolation, Schema, Undeclared};

pub(super) fn compare(old: &EntityRules, new: &EntityRules, schema: &Schema, path: &str, changes: &mut Changes) {
    field::compare_all(old, new, schema, path, changes);
    changes.undeclared(&format!("{path}.additional"), old.additional, new.additional, "a field that is not declared");
    changes.undeclared(&format!("{path}.ungrouped"), old.ungrouped, new.ungrouped, "a change outside any operation");
    for (key, is_same, old, new) in [
        ("on_conflict", old.on_conflict == new.on_conflict, old.on_conflict.as_str(), new.on_conflict.as_str()),
        (
            "on_delete_conflict",
            old.on_delete_conflict == new.on_delete_conflict,
            old.on_delete_conflict.as_str(),
            new.on_delete_conflict.as_str(),
        ),
    ] {
        if !is_same {
            let message =
                format!("{new} instead of {old}: the server decides so from now on, also what still waits in outboxes");
            changes.harmless(&format!("{path}.{key}"), message);
        }
    }
    for fields in new.unique.iter().filter(|fields| !old.unique.contains(fields)) {
        changes.stricter(&format!("{path}.unique"), &format!("{} must be unique now", fields.join(", ")));
    }
    for fields in old.unique.iter().filter(|fields| !new.unique.contains(fields)) {
        changes.harmless(&format!("{path}.unique"), format!("{} need not be unique any more", fields.join(", ")));
    }
    compare_scopes(old, new, path, changes);
    if old.indexes != new.indexes {
        changes.harmless(&format!("{path}.indexes"), "each device builds its own");
    }
    compare_invariants(&old.invariants, &new.invariants, path, changes);
}

fn compare_scopes(old: &EntityRules, new: &EntityRules, path: &str, changes: &mut Changes) {
    let path = format!("{path}.scope");
    let again = "devices that do not see everything bootstrap again";
    match (&old.scope, &new.scope) {
        (None, Some(field)) => {
            let what = format!("records lie in the scope that {field} names now: {again} and lose those of other scopes");
            changes.stricter(&path, &what);
        }
        (Some(_), None) => {
            let message = format!("everybody sees all of them now, whatever scope they were in: {again}");
            changes.harmless(&path, message);
        }
        (Some(was), Some(field)) if was != field => {
            let what =
                format!("{field} says where records lie now, and not {was}: {again}, and tokens must name other scopes");
            changes.stricter(&path, &what);
        }
        _ => {}
    }
}

/// Changes of the rules of an entity or an operation type.
pub(super) fn compare_invariants(old: &[Invariant], new: &[Invariant], path: &str, changes: &mut Changes) {
    for rule in new {
        let path = format!("{path}.invariants.{}", rule.name);
        let known = old.iter().find(|known| known.name == rule.name);
        let is_flag = rule.on_violation == OnViolation::Flag;
        match known {
            Some(known) if known == rule => {}
            _ if is_flag => changes.harmless(&path, "a rule whose violations are flagged, not refused"),
            Some(known) if known.cel == rule.cel => {
                changes.stricter_unless_flagged(&path, "a violation is refused now, and was flagged")
            }
            Some(_) => changes.stricter_unless_flagged(&path, "the rule says something else now"),
            None => changes.stricter_unless_flagged(&path, "a new rule"),
        }
    }
    for rule in old.iter().filter(|rule| !new.iter().any(|known| known.name == rule.name)) {
        changes.harmless(&format!("{path}.invariants.{}", rule.name), "no longer a rule; older devices still keep it");
    }
}

/// Whether a field that is no longer declared may still be sent.
pub(super) fn accepts_undeclared(rules: &EntityRules) -> bool {
    rules.additional == Undeclared::Accept
}
