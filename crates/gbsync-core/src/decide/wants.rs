//! What a group itself says that deciding it needs, so that one question to the store is normally enough. What follows from
//! stored state (the parent of a patched record, a cascade, the records on a list) is asked for by the stages.

use super::index::entries_of;
use super::{IndexKey, Needs};
use crate::change::{Change, Edit};
use crate::group::Group;
use crate::id::{Entity, GroupType, RecordId, RecordKey};
use crate::json::Node;
use crate::rule::Rule;
use crate::schema::{EntityRules, Reference, Schema};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// A group's changes in the names of this schema.
pub(super) fn translated<'g>(group: &'g Group, schema: Option<&Schema>) -> Cow<'g, [Change]> {
    let made_under = group.header().schema_version;
    let Some(schema) = schema.filter(|schema| made_under < schema.version) else {
        return Cow::Borrowed(group.changes());
    };
    let translate = |change: &'g Change| schema.translate(&change.key.entity, &change.edit, made_under);
    let edits: Vec<Cow<'g, Edit>> = group.changes().iter().map(translate).collect();
    if edits.iter().all(|edit| matches!(edit, Cow::Borrowed(_))) {
        return Cow::Borrowed(group.changes());
    }
    let changes = group.changes().iter().zip(edits).map(|(change, edit)| Change {
        key: change.key.clone(),
        edit: edit.into_owned(),
        base: change.base.clone(),
    });
    Cow::Owned(changes.collect())
}

/// What deciding a group needs to know, as far as the group itself says: to be loaded before [`super::decide`] is asked.
pub fn wants(group: &Group, schema: Option<&Schema>) -> Needs {
    wanted(&translated(group, schema), schema, group.header().group_type.as_ref())
}

pub(super) fn wanted(changes: &[Change], schema: Option<&Schema>, group_type: Option<&GroupType>) -> Needs {
    let mut needs = Needs { records: changes.iter().map(|change| change.key.clone()).collect(), ..Needs::default() };
    let Some(schema) = schema else { return needs };
    let rules = rules(changes, schema, group_type);
    for change in changes {
        let Some(entity) = schema.entity(&change.key.entity) else { continue };
        if let Edit::Delete = change.edit {
            let referrers = schema.referrers(&change.key.entity);
            needs.index.extend(referrers.map(|(entity, field, _)| list(entity, field, &change.key.id)));
        }
        want_referrers(&mut needs, schema, &rules, &change.key);
        for target in want_values(&mut needs, change, entity) {
            want_referrers(&mut needs, schema, &rules, &target);
            needs.records.insert(target);
        }
    }
    needs
}

fn list(entity: &Entity, field: &str, id: &RecordId) -> IndexKey {
    IndexKey { entity: entity.clone(), fields: field.into(), value: id.as_str().into() }
}

/// The rules that the group will be held against.
fn rules<'s>(changes: &[Change], schema: &'s Schema, group_type: Option<&GroupType>) -> Vec<&'s Rule> {
    let own: BTreeSet<&Entity> = changes.iter().map(|change| &change.key.entity).collect();
    let own: Vec<&EntityRules> = own.into_iter().filter_map(|entity| schema.entity(entity)).collect();
    let others = own.iter().flat_map(|rules| rules.references()).filter_map(|(_, to)| schema.entity(&to.entity));
    let of_operation = group_type.and_then(|group_type| schema.operations.get(group_type));
    let invariants = own.iter().copied().chain(others).flat_map(|rules| &rules.invariants);
    let invariants = invariants.chain(of_operation.into_iter().flat_map(|rules| &rules.invariants));
    invariants.map(|invariant| invariant.cel.rule()).collect()
}

/// The lists of those that refer to a record, where a rule looks at them.
fn want_referrers(needs: &mut Needs, schema: &Schema, rules: &[&Rule], to: &RecordKey) {
    for rule in rules.iter().filter(|rule| rule.entities.contains(to.entity.as_str())) {
        for (entity, field, _) in schema.referrers(&to.entity) {
            let is_named = |member: &str| is_list_of(member, entity, field);
            if rule.members.iter().any(|member| is_named(member)) {
                needs.index.insert(list(entity, field, &to.id));
            }
        }
    }
}

/// Whether a member of a record is the list of those that refer to it by this field: `payments`, `payments_by_receiptId`.
pub(super) fn is_list_of(member: &str, entity: &Entity, field: &str) -> bool {
    match member.strip_prefix(entity.as_str()) {
        Some("") => true,
        Some(rest) => rest.strip_prefix("_by_") == Some(field),
        None => false,
    }
}

/// Asks for the lists of unique values that a payload gives whole; the records that it refers to.
fn want_values(needs: &mut Needs, change: &Change, rules: &EntityRules) -> Vec<RecordKey> {
    let (Edit::Upsert(payload) | Edit::Patch(payload)) = &change.edit else { return Vec::new() };
    if rules.unique.is_empty() && rules.references().next().is_none() {
        return Vec::new();
    }
    let node = payload.node();
    if !rules.unique.is_empty() {
        let is_unique = |list: &IndexKey| rules.unique.iter().any(|fields| fields.join(",") == *list.fields);
        needs.index.extend(entries_of(rules, &change.key, &node).into_iter().filter(is_unique));
    }
    let key = |(field, reference): (&str, &Reference)| {
        Some(RecordKey { entity: reference.entity.clone(), id: target(&node, field)? })
    };
    rules.references().filter_map(key).collect()
}

/// The id that a field holds, where it is one.
pub(super) fn target(node: &Node<'_>, field: &str) -> Option<RecordId> {
    RecordId::new(Reference::id_in(node.member(field)?)?).ok()
}
