//! Does a group stay within the scopes of its author, and is it seen whole wherever it is seen (docs/schema.md, "Scopes")?
//!
//! A record lies where its field says. A group writes only records that lie where its author may write, before and after it.
//! Under `all_or_none` all of them lie in one scope, and no record refers to one that is not seen there. Under `closure` they
//! may lie in several, and what they refer to comes along: it is seen wherever a record is that refers to it.
//!
//! Invariant: after an accepted group nobody sees a record without those that it refers to, but where a reference may point
//! nowhere (`on_delete = "ignore"`).
//!
//! Deletes that follow from others are not asked to lie in one scope: each device loses those that it had. They are writes of
//! their author like all others.

use super::cascade::referring;
use super::refusal::{Stop, whole};
use super::working::{Slot, Working};
use super::{Facts, Needs, Record, Standing};
use crate::change::{Change, Payload};
use crate::id::{GroupType, RecordId, RecordKey, Scope};
use crate::json::Node;
use crate::schema::{EntityRules, OnDelete, OperationRules, OperationScope, Reference, Schema};
use crate::scope::{Reach, ScopeSet};
use crate::verdict::{ChangeCode, RefusedChange, Rejection, RejectionCode};
use std::collections::BTreeSet;

/// Where a record lies that has this value.
fn lies(rules: &EntityRules, record: &Node<'_>) -> Option<Scope> {
    let value = record.member(rules.scope.as_deref()?)?;
    Scope::new(Reference::id_in(value)?).ok()
}

/// Where a stored record lies.
pub(super) fn lies_stored(rules: &EntityRules, record: &Payload) -> Option<Scope> {
    let outline = record.outline();
    Scope::new(Reference::id_in_text(outline.member(rules.scope.as_deref()?)?)?).ok()
}

/// Where a record of this kind is seen while it was written by no group yet: for records from before there were scopes.
pub fn reach_of(rules: Option<&EntityRules>, record: &Payload) -> Reach {
    match rules.filter(|rules| rules.scope.is_some()) {
        None => Reach::Everywhere,
        Some(rules) => lies_stored(rules, record).map_or_else(Reach::nowhere, Reach::of),
    }
}

/// Refuses a group that touches a record which lies where its author may not write.
pub(super) fn check_bases(changes: &[Change], standing: &Standing, facts: &Facts, schema: &Schema) -> Result<(), Rejection> {
    if standing.scopes == ScopeSet::All || !schema.has_scopes() {
        return Ok(());
    }
    for (index, change) in changes.iter().enumerate() {
        let (Some(rules), Some(record)) = (schema.entity(&change.key.entity), facts.found(&change.key)) else { continue };
        if rules.scope.is_some() && !may_write(rules, record, &standing.scopes) {
            return Err(beyond(index, &change.key));
        }
    }
    Ok(())
}

fn may_write(rules: &EntityRules, record: &Record, scopes: &ScopeSet) -> bool {
    match &record.payload {
        Some(payload) => scopes.holds(lies_stored(rules, payload).as_ref()),
        None => scopes.sees(&record.reach),
    }
}

fn beyond(index: usize, key: &RecordKey) -> Rejection {
    let message = format!("change {index} on {key} lies beyond the scopes of its author; ask somebody who may write there");
    refusal((index, key), format!("{}.scope", key.entity), message)
}

fn refusal((index, key): (usize, &RecordKey), rule: String, message: String) -> Rejection {
    let change = RefusedChange { index, key: key.clone(), code: ChangeCode::Invalid, current: None };
    Rejection { code: RejectionCode::ScopeViolation, message, rule: Some(rule), changes: vec![change] }
}

/// Judges where the records lie that a group leaves. Before references: what lies beyond is none of the author's business.
pub(super) fn check(
    working: &Working<'_>,
    schema: &Schema,
    group_type: Option<&GroupType>,
    operation: Option<&OperationRules>,
) -> Result<(), Stop> {
    if !schema.has_scopes() {
        return Ok(());
    }
    let is_one = operation.is_none_or(|rules| rules.scope == OperationScope::AllOrNone);
    let rule = group_type.map_or_else(|| "scope".to_owned(), |group_type| format!("{group_type}.scope"));
    let mut one: Option<(Scope, &RecordKey)> = None;
    for slot in &working.slots {
        let Some(rules) = slot.rules.filter(|rules| rules.scope.is_some()) else { continue };
        let scope = lies_after(slot, rules)?;
        let Some(scope) = scope.or_else(|| lay_before(slot, rules)) else { continue };
        let is_held = working.scopes.is_none_or(|scopes| scopes.holds(Some(&scope)));
        if !is_held {
            return Err(beyond(slot.index, slot.key).into());
        }
        if !is_one || slot.cause.is_some() {
            continue;
        }
        match &one {
            Some((first, of)) if *first != scope => {
                let message = format!(
                    "{} lies in scope {scope:?} and {of} in {first:?}; write them in two groups, or declare scope = \"closure\"",
                    slot.key,
                    scope = scope.as_str(),
                    first = first.as_str()
                );
                return Err(refusal(slot.place(), rule, message).into());
            }
            Some(_) => {}
            None => one = Some((scope, slot.key)),
        }
    }
    if is_one && working.scopes.is_some() {
        return check_references(working, schema, &rule);
    }
    Ok(())
}

/// Where a record lies after the group; `None` where it is deleted.
fn lies_after(slot: &Slot<'_>, rules: &EntityRules) -> Result<Option<Scope>, Rejection> {
    let Some(after) = slot.after() else { return Ok(None) };
    let Some(scope) = lies(rules, after) else {
        let field = rules.scope.as_deref().unwrap_or_default();
        let message = format!(
            "change {} on {}: {field:?} must be the name of a scope, of 1 to 256 bytes and without control characters",
            slot.index, slot.key
        );
        return Err(refusal(slot.place(), format!("{}.{field}", slot.key.entity), message));
    };
    Ok(Some(scope))
}

fn lay_before(slot: &Slot<'_>, rules: &EntityRules) -> Option<Scope> {
    lies_stored(rules, slot.existing?.payload.as_ref()?)
}

/// Where a record is seen after the group.
pub(super) fn reach_after(slot: &Slot<'_>) -> Reach {
    let Some(rules) = slot.rules.filter(|rules| rules.scope.is_some()) else { return Reach::Everywhere };
    let before = slot.existing.map(|record| &record.reach);
    let Some(after) = slot.after() else { return before.cloned().unwrap_or_else(Reach::nowhere) };
    let mut scopes: BTreeSet<Scope> = lies(rules, after).into_iter().collect();
    // Where it was brought it stays, for as long as it lives.
    if let (Some(Reach::In(before)), true) = (before, slot.existed()) {
        let left = lay_before(slot, rules);
        scopes.extend(before.iter().filter(|scope| Some(*scope) != left.as_ref()).cloned());
    }
    scopes.extend(slot.brought.iter().cloned());
    Reach::In(scopes)
}

/// A record that another one refers to, as far as it matters where it is seen.
struct Parent {
    key: RecordKey,
    reach: BTreeSet<Scope>,
}

/// The records in scopes that a record refers to after the group, with where they are seen. Without those that are not there,
/// or that its author does not see: to the author they are not there either.
fn parents(working: &Working<'_>, schema: &Schema, slot: &Slot<'_>, needs: &mut Needs) -> Vec<Parent> {
    let (Some(rules), Some(after)) = (slot.rules, slot.after()) else { return Vec::new() };
    let mut parents = Vec::new();
    for (field, reference) in rules.references() {
        let is_scoped = schema.entity(&reference.entity).is_some_and(|rules| rules.scope.is_some());
        if !is_scoped || reference.on_delete == OnDelete::Ignore {
            continue;
        }
        let Some(id) = after.member(field).and_then(Reference::id_in).and_then(|id| RecordId::new(id).ok()) else {
            continue;
        };
        let key = RecordKey { entity: reference.entity.clone(), id };
        let reach = match (working.slot(&key), working.facts.record(&key)) {
            (Some(parent), _) => parent.after().map(|_| reach_after(parent)),
            (None, None) => {
                needs.records.insert(key);
                continue;
            }
            (None, Some(record)) => record
                .filter(|record| record.payload.is_some())
                .map(|record| record.reach.clone())
                .filter(|reach| working.scopes.is_none_or(|scopes| scopes.sees(reach))),
        };
        if let Some(Reach::In(reach)) = reach {
            parents.push(Parent { key, reach });
        }
    }
    parents
}

/// Where the records are seen that still refer to one which the group moved to another scope.
fn left_behind(working: &Working<'_>, schema: &Schema, slot: &Slot<'_>, needs: &mut Needs) -> BTreeSet<Scope> {
    let mut scopes = BTreeSet::new();
    let Some((rules, after)) = slot.rules.filter(|rules| rules.scope.is_some()).zip(slot.after()) else { return scopes };
    if lay_before(slot, rules).is_none_or(|before| Some(before) == lies(rules, after)) {
        return scopes;
    }
    for referrer in schema.referrers(&slot.key.entity) {
        let (entity, _, reference) = referrer;
        let rules = schema.entity(entity).filter(|rules| rules.scope.is_some() && reference.on_delete != OnDelete::Ignore);
        let Some(rules) = rules else { continue };
        for key in referring(working, slot.key, referrer, needs) {
            match (working.slot(&key), working.facts.record(&key)) {
                (Some(child), _) => scopes.extend(child.after().and_then(|after| lies(rules, after))),
                (None, Some(child)) => {
                    scopes.extend(child.and_then(|child| lies_stored(rules, child.payload.as_ref()?)));
                }
                (None, None) => {
                    needs.records.insert(key);
                }
            }
        }
    }
    scopes
}

/// No record is seen where one that it refers to is not.
fn check_references(working: &Working<'_>, schema: &Schema, rule: &str) -> Result<(), Stop> {
    let mut needs = Needs::default();
    for slot in &working.slots {
        let Some(rules) = slot.rules.filter(|rules| rules.scope.is_some()) else { continue };
        let scope = slot.after().and_then(|after| lies(rules, after));
        let far = parents(working, schema, slot, &mut needs);
        let far = far.into_iter().find(|parent| scope.as_ref().is_some_and(|scope| !parent.reach.contains(scope)));
        let is_left = match reach_after(slot) {
            Reach::In(reach) => !left_behind(working, schema, slot, &mut needs).is_subset(&reach),
            Reach::Everywhere => false,
        };
        if !needs.is_empty() {
            continue;
        }
        let message = match far {
            Some(parent) => {
                format!(
                    "{} refers to {}, which is not seen where it lies; declare scope = \"closure\"",
                    slot.key, parent.key
                )
            }
            None if is_left => format!(
                "{} would leave records behind that refer to it; move them in this group, or declare scope = \"closure\"",
                slot.key
            ),
            None => continue,
        };
        return Err(refusal(slot.place(), rule.to_owned(), message).into());
    }
    if needs.is_empty() { Ok(()) } else { Err(needs.into()) }
}

/// Brings along what the records of a group refer to, to wherever they are seen.
pub(super) fn close<'a>(
    working: &mut Working<'a>,
    schema: &'a Schema,
    operation: Option<&OperationRules>,
) -> Result<(), Stop> {
    let is_closed = operation.is_some_and(|rules| rules.scope == OperationScope::Closure);
    if !is_closed || !schema.has_scopes() || working.scopes.is_none() {
        return Ok(());
    }
    let mut needs = Needs::default();
    let mut open: Vec<usize> = (0..working.slots.len()).collect();
    while let Some(at) = open.pop() {
        let slot = &working.slots[at];
        let Reach::In(mut reach) = reach_after(slot) else { continue };
        let left = left_behind(working, schema, slot, &mut needs);
        let bring: Vec<RecordKey> = parents(working, schema, slot, &mut needs)
            .into_iter()
            .filter(|parent| !reach.union(&left).all(|scope| parent.reach.contains(scope)))
            .map(|parent| parent.key)
            .collect();
        let is_new: Vec<Scope> = left.difference(&reach).cloned().collect();
        if slot.after().is_some() {
            reach.extend(is_new.iter().cloned());
            working.slots[at].brought.extend(is_new);
        }
        for key in bring {
            if let Some(parent) = working.bring(&key, at, &reach) {
                open.push(parent);
            }
        }
        let limit = working.limits.group_records;
        if working.slots.len() as u64 > limit {
            let message = format!("the group would bring over {limit} records along; write it as several");
            return Err(whole(RejectionCode::TooLarge, None, message).into());
        }
    }
    if needs.is_empty() { Ok(()) } else { Err(needs.into()) }
}

/// Takes out of a refusal what its reader may not see, and notes of the rest where it is seen.
pub(super) fn hide(rejection: &mut Rejection, scopes: &ScopeSet, facts: &Facts) {
    for change in &mut rejection.changes {
        let reach = facts.found(&change.key).map(|record| &record.reach);
        if let (Some(current), Some(reach)) = (&mut change.current, reach) {
            current.reach = reach.clone();
        }
    }
    rejection.hide_from(scopes);
}
