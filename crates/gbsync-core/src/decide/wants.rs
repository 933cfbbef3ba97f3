//! What a group itself says that deciding it needs, so that one question to the store is normally enough. What follows from
//! stored state (the parent of a patched record, a cascade, the records on a list) is asked for by the stages.

use super::index::{is_indexed, unique_in};
use super::working::FEW;
use super::{IndexKey, Needs};
use crate::change::{Change, Edit};
use crate::group::Group;
use crate::id::{Entity, GroupType, RecordId, RecordKey};
use crate::json::Outline;
use crate::rule::Rule;
use crate::schema::{EntityRules, Reference, Schema};
use std::borrow::Cow;

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

/// The same for changes in the names of this schema that are about to be sealed: to be loaded before [`super::check`].
pub fn wanted(changes: &[Change], schema: Option<&Schema>, group_type: Option<&GroupType>) -> Needs {
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
        for target in want_values(&mut needs, change, entity, changes) {
            // One that is wanted already had its turn, or will have it as a change of its own.
            if !needs.records.contains(&target) {
                want_referrers(&mut needs, schema, &rules, &target);
                needs.records.insert(target);
            }
        }
    }
    needs
}

fn list(entity: &Entity, field: &str, id: &RecordId) -> IndexKey {
    IndexKey { entity: entity.clone(), fields: field.into(), value: id.as_str().into() }
}

/// The rules that the group will be held against.
fn rules<'s>(changes: &[Change], schema: &'s Schema, group_type: Option<&GroupType>) -> Vec<&'s Rule> {
    let mut own: Vec<&Entity> = changes.iter().map(|change| &change.key.entity).collect();
    own.sort_unstable();
    own.dedup();
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
        let listed = rule.members.iter().flat_map(|member| schema.listed(&to.entity, member));
        needs.index.extend(listed.map(|(entity, field, _)| list(entity, field, &to.id)));
    }
}

/// Asks for the lists of unique values that a payload gives whole; the records that it refers to, but those that one of a
/// few changes names.
fn want_values(needs: &mut Needs, change: &Change, rules: &EntityRules, changes: &[Change]) -> Vec<RecordKey> {
    let (Edit::Upsert(payload) | Edit::Patch(payload)) = &change.edit else { return Vec::new() };
    if !is_indexed(rules) {
        return Vec::new();
    }
    let record = payload.outline();
    needs.index.extend(unique_in(rules, &change.key, &record));
    let is_named = |entity: &Entity, id: &str| {
        let is_it = |change: &Change| change.key.id.as_str() == id && change.key.entity == *entity;
        changes.len() <= FEW && changes.iter().any(is_it)
    };
    let key = |(field, reference): (&str, &Reference)| {
        let id = Reference::id_in_text(record.member(field)?)?;
        let is_named = is_named(&reference.entity, &id);
        if is_named { None } else { Some(RecordKey { entity: reference.entity.clone(), id: RecordId::new(id).ok()? }) }
    };
    rules.references().filter_map(key).collect()
}

/// The id that a field holds, where it is one.
pub(super) fn target_in(record: &Outline<'_>, field: &str) -> Option<RecordId> {
    RecordId::new(Reference::id_in_text(record.member(field)?)?).ok()
}
