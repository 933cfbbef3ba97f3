//! Changes of the operation types.

use super::Changes;
use super::entity::compare_invariants;
use crate::id::Entity;
use crate::schema::{Count, OperationRules, OperationScope, Schema, Undeclared};
use std::collections::BTreeMap;

pub(super) fn compare(old: &Schema, new: &Schema, changes: &mut Changes) {
    let what = "an operation whose type is not declared";
    changes.undeclared("undeclared_operations", old.undeclared_operations, new.undeclared_operations, what);
    let free = OperationRules::default();
    for (name, rules) in &new.operations {
        let path = format!("operations.{name}");
        match old.operations.get(name) {
            Some(known) => compare_rules(known, rules, &path, changes),
            None if old.undeclared_operations == Undeclared::Refuse => {
                changes.harmless(&path, "a new kind of operation, which older devices were not allowed to do");
            }
            None if *rules == free => changes.harmless(&path, "a new kind of operation without rules"),
            None => changes.stricter(&path, "it has rules now, unless no older app does it"),
        }
    }
    for name in old.operations.keys().filter(|name| !new.operations.contains_key(*name)) {
        let path = format!("operations.{name}");
        if new.undeclared_operations == Undeclared::Refuse {
            changes.breaks(&path, "no longer declared, and refused where older devices do it", "keep it declared");
        } else {
            changes.harmless(&path, "no longer declared: it has no rules any more");
        }
    }
}

fn compare_rules(old: &OperationRules, new: &OperationRules, path: &str, changes: &mut Changes) {
    let lost: Vec<&str> = old.roles.difference(&new.roles).map(crate::id::Role::as_str).collect();
    if old.roles != new.roles {
        let path = format!("{path}.roles");
        if new.roles.is_empty() {
            changes.harmless(&path, "everybody may do it now");
        } else if old.roles.is_empty() {
            changes.stricter(&path, "only some roles may do it now");
        } else if lost.is_empty() {
            changes.harmless(&path, "more roles may do it now");
        } else {
            changes.stricter(&path, &format!("{} may not do it any more", lost.join(", ")));
        }
    }
    compare_shapes(old.shape.as_ref(), new.shape.as_ref(), &format!("{path}.shape"), changes);
    compare_invariants(&old.invariants, &new.invariants, path, changes);
    let path = format!("{path}.scope");
    match (old.scope, new.scope) {
        (OperationScope::AllOrNone, OperationScope::Closure) => {
            let message = "it may reach into several scopes now; what its records refer to is seen wherever they are";
            changes.harmless(&path, message);
        }
        (OperationScope::Closure, OperationScope::AllOrNone) => {
            changes.stricter(&path, "its records must lie in one scope now");
        }
        _ => {}
    }
}

type Shape = BTreeMap<Entity, Count>;

fn compare_shapes(old: Option<&Shape>, new: Option<&Shape>, path: &str, changes: &mut Changes) {
    let Some(new) = new else {
        if old.is_some() {
            changes.harmless(path, "no shape any more: it may change anything");
        }
        return;
    };
    let Some(old) = old else { return changes.stricter(path, "it has a shape now") };
    let none = Count { least: 0, most: Some(0) };
    for entity in old.keys().chain(new.keys().filter(|entity| !old.contains_key(*entity))) {
        let (before, after) = (old.get(entity).unwrap_or(&none), new.get(entity).unwrap_or(&none));
        let path = format!("{path}.{entity}");
        let is_narrower =
            after.least > before.least || after.most.is_some_and(|most| before.most.is_none_or(|before| before > most));
        if is_narrower {
            changes.stricter(&path, &format!("{after} records instead of {before}"));
        } else if before != after {
            changes.harmless(&path, format!("{after} records instead of {before}"));
        }
    }
}
