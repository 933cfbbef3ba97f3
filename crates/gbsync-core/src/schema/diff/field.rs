//! Changes of the fields of one entity.

use super::Changes;
use super::entity::accepts_undeclared;
use crate::schema::{Counter, EntityRules, Field, FieldKind, OnDelete, OnViolation, Schema};
use std::collections::BTreeSet;

const UNTIL_GONE: &str = "keep it until no device has the old version";

pub(super) fn compare_all(old: &EntityRules, new: &EntityRules, schema: &Schema, path: &str, changes: &mut Changes) {
    let mut renamed: BTreeSet<&str> = BTreeSet::new();
    for (name, field) in new.fields.iter().filter(|(name, _)| !old.fields.contains_key(*name)) {
        let path = format!("{path}.fields.{name}");
        match field.was.as_deref().and_then(|was| Some((was, old.fields.get(was)?))) {
            Some((was, former)) => {
                renamed.insert(was);
                compare_rename(was, field, schema, &path, changes);
                compare(former, field, schema, &path, changes);
            }
            None => compare_new(field, schema, &path, changes),
        }
    }
    for (name, field) in &old.fields {
        let path = format!("{path}.fields.{name}");
        match new.fields.get(name) {
            Some(known) => compare(field, known, schema, &path, changes),
            None if renamed.contains(name.as_str()) => {}
            None if accepts_undeclared(new) && field.counter.is_none() => {
                changes.harmless(&path, "no longer declared; what older devices send in it is kept");
            }
            None => changes.breaks(&path, "no longer declared, and refused where older devices send it", UNTIL_GONE),
        }
    }
}

/// Whether groups of devices with the old schema count as older than this field.
fn is_translated(field: &Field, schema: &Schema, changes: &Changes) -> bool {
    changes.old_version < field.since.unwrap_or(schema.version)
}

fn fix_since(changes: &Changes) -> String {
    format!("set since = {}", changes.new_version)
}

fn compare_rename(was: &str, field: &Field, schema: &Schema, path: &str, changes: &mut Changes) {
    if is_translated(field, schema, changes) {
        changes.translated(path, format!("was {was:?}; the server renames it in groups of older devices"));
    } else {
        let message =
            format!("was {was:?}, but its since is not after version {}, so nothing is renamed", changes.old_version);
        changes.breaks(path, message, fix_since(changes));
    }
}

fn compare_new(field: &Field, schema: &Schema, path: &str, changes: &mut Changes) {
    match (field.required, &field.default) {
        (false, None) => changes.harmless(path, "a new field that may be left out"),
        (_, Some(_)) if is_translated(field, schema, changes) => {
            changes.translated(path, "a new field; the server fills its default where older devices leave it out");
        }
        (false, Some(_)) => changes.harmless(path, "a new field that may be left out"),
        (true, Some(_)) => {
            let message = format!("a new required field whose since is not after version {}", changes.old_version);
            changes.breaks(path, message, fix_since(changes));
        }
        (true, None) => {
            let message = format!(
                "a new required field without default: groups of devices on version {} will be refused",
                changes.old_version
            );
            changes.breaks(path, message, "add default");
        }
    }
}

fn compare(old: &Field, new: &Field, schema: &Schema, path: &str, changes: &mut Changes) {
    if old.kind != new.kind {
        compare_kinds(old.kind, new.kind, path, changes);
    }
    if new.required && !old.required {
        if new.default.is_some() && is_translated(new, schema, changes) {
            changes.translated(path, "required now; the server fills its default where older devices leave it out");
        } else {
            changes.breaks(path, "required now, and older devices may leave it out", "add default, and since");
        }
    } else if old.required && !new.required {
        changes.harmless(path, "no longer required; older apps may read records without it");
    }
    compare_counters(old.counter.as_ref(), new.counter.as_ref(), path, changes);
    compare_references(old, new, path, changes);
    if old.sequence != new.sequence {
        changes.harmless(path, "filled by another sequence; older devices keep to theirs");
    }
    // A name that it had before, and has no more, is what still older devices send.
    if let Some(was) = old.was.as_deref().filter(|_| old.was != new.was) {
        let message = format!("no longer says that it was {was:?}: devices that still send that are not understood");
        changes.breaks(&format!("{path}.was"), message, UNTIL_GONE);
    }
    if old.default.is_some() && new.default.is_none() && new.required {
        let message = "no longer has a default: groups from before it are refused";
        changes.breaks(&format!("{path}.default"), message, UNTIL_GONE);
    }
}

fn compare_kinds(old: FieldKind, new: FieldKind, path: &str, changes: &mut Changes) {
    use FieldKind::{Date, Decimal, Integer, Json, Real, Text, Timestamp};
    let is_wider = match (old, new) {
        (_, Json) | (Integer, Real | Decimal { .. }) | (Date | Timestamp, Text) => true,
        (Decimal { scale }, Decimal { scale: now }) => now >= scale,
        _ => false,
    };
    let name = |kind: FieldKind| match kind {
        Decimal { scale } => format!("decimal of scale {scale}"),
        other => other.as_str().to_owned(),
    };
    let message = format!("{} instead of {}", name(new), name(old));
    if is_wider {
        changes.harmless(path, format!("{message}, which holds everything that older devices send"));
    } else {
        let message = format!("{message}: what older devices send does not fit");
        changes.breaks(path, message, "declare another field and leave this one");
    }
}

fn compare_counters(old: Option<&Counter>, new: Option<&Counter>, path: &str, changes: &mut Changes) {
    match (old, new) {
        (None, None) => {}
        (None, Some(_)) => {
            changes.breaks(
                path,
                "a counter now: older devices set it, which is refused",
                "declare another field as the counter",
            );
        }
        (Some(_), None) => {
            changes.breaks(path, "no longer a counter: the increments of older devices are refused", UNTIL_GONE);
        }
        (Some(old), Some(new)) => {
            let is_over = |bound: fn(&Counter) -> Option<crate::json::Decimal>, tighter: std::cmp::Ordering| match (
                bound(old),
                bound(new),
            ) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(old), Some(new)) => new.compare(old) == tighter,
            };
            let is_tighter = is_over(|counter| counter.min, std::cmp::Ordering::Greater)
                || is_over(|counter| counter.max, std::cmp::Ordering::Less);
            let is_harder = old.on_violation == OnViolation::Flag && new.on_violation == OnViolation::Reject;
            if new.on_violation == OnViolation::Reject && (is_tighter || is_harder) {
                changes.stricter_unless_flagged(path, "its bounds are tighter");
            } else if old != new {
                changes.harmless(path, "its bounds are wider, or flagged only");
            }
        }
    }
}

fn compare_references(old: &Field, new: &Field, path: &str, changes: &mut Changes) {
    match (&old.reference, &new.reference) {
        (None, None) => {}
        (Some(_), None) => changes.harmless(path, "no longer a reference"),
        (None, Some(reference)) if reference.on_violation == OnViolation::Flag => {
            changes.harmless(path, format!("refers to {} now; violations are flagged", reference.entity));
        }
        (None, Some(reference)) => {
            changes.stricter_unless_flagged(path, &format!("must refer to a record of {} now", reference.entity))
        }
        (Some(old), Some(new)) if old.entity != new.entity => {
            changes.stricter_unless_flagged(
                path,
                &format!("must refer to a record of {} now, not of {}", new.entity, old.entity),
            );
        }
        (Some(old), Some(new)) => {
            if old.on_violation == OnViolation::Flag && new.on_violation == OnViolation::Reject {
                changes.stricter_unless_flagged(path, "a reference to nowhere is refused now");
            }
            match (old.on_delete, new.on_delete) {
                (old, new) if old == new => {}
                (_, OnDelete::Restrict) => changes.stricter(path, "what it refers to cannot be deleted any more"),
                (_, OnDelete::Cascade) => changes.harmless(path, "deleted with what it refers to from now on"),
                (_, OnDelete::Ignore) => changes.harmless(path, "stays when what it refers to is deleted"),
            }
        }
    }
}
