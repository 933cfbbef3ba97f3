//! What a group itself says that deciding it needs, so that one question to the store is normally enough.

use super::{IndexKey, Needs};
use crate::change::{Change, Edit};
use crate::group::Group;
use crate::id::{RecordId, RecordKey};
use crate::json::Node;
use crate::schema::{EntityRules, Schema};
use std::borrow::Cow;

/// A group's changes in the names of this schema.
pub(super) fn translated<'g>(group: &'g Group, schema: Option<&Schema>) -> Cow<'g, [Change]> {
    let _ = schema;
    Cow::Borrowed(group.changes())
}

/// What deciding a group needs to know, as far as the group itself says: to be loaded before [`super::decide`] is asked.
pub fn wants(group: &Group, schema: Option<&Schema>) -> Needs {
    wanted(&translated(group, schema), schema)
}

pub(super) fn wanted(changes: &[Change], schema: Option<&Schema>) -> Needs {
    let mut needs = Needs { records: changes.iter().map(|change| change.key.clone()).collect(), ..Needs::default() };
    let Some(schema) = schema else { return needs };
    for change in changes {
        let Some(rules) = schema.entity(&change.key.entity) else { continue };
        want_targets(&mut needs, change, rules);
        if let Edit::Delete = change.edit {
            for (entity, field, _) in schema.referrers(&change.key.entity) {
                let value = change.key.id.as_str().into();
                needs.index.insert(IndexKey { entity: entity.clone(), fields: field.into(), value });
            }
        }
    }
    needs
}

/// The records that a payload refers to, and the lists of its unique fields.
fn want_targets(needs: &mut Needs, change: &Change, rules: &EntityRules) {
    let (Edit::Upsert(payload) | Edit::Patch(payload)) = &change.edit else { return };
    if rules.unique.is_empty() && rules.references().next().is_none() {
        return;
    }
    let node = payload.node();
    for (field, reference) in rules.references() {
        needs.records.extend(target(&node, field).map(|id| RecordKey { entity: reference.entity.clone(), id }));
    }
    needs.index.extend(
        super::index::entries_of(rules, &change.key, &node)
            .into_iter()
            .filter(|list| rules.unique.iter().any(|fields| fields.join(",") == *list.fields)),
    );
}

/// The id that a field holds.
pub(super) fn target(node: &Node<'_>, field: &str) -> Option<RecordId> {
    RecordId::new(id_in(node.member(field)?)?).ok()
}

/// The id that a reference's value names: a text itself, an integer by its digits; `None` where there is none.
pub(super) fn id_in<'v>(value: &'v Node<'_>) -> Option<&'v str> {
    let is_integer = |digits: &&str| digits.parse::<i64>().is_ok();
    value.as_str().or_else(|| value.as_number().filter(is_integer))
}
