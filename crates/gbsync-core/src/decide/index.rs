//! Which lists of indexes a record stands on: one for each reference it holds and one for each set of unique fields.

use super::facts::IndexKey;
use crate::change::Payload;
use crate::id::RecordKey;
use crate::json::{Node, Value, canonical};
use crate::schema::{EntityRules, Reference, Schema};
use std::collections::BTreeSet;

/// The lists that a record with this payload stands on.
pub fn entries(schema: &Schema, key: &RecordKey, payload: &Payload) -> BTreeSet<IndexKey> {
    let Some(rules) = schema.entity(&key.entity) else { return BTreeSet::new() };
    if is_indexed(rules) { entries_of(rules, key, &payload.node()) } else { BTreeSet::new() }
}

/// Whether records of an entity stand on any list.
fn is_indexed(rules: &EntityRules) -> bool {
    !rules.unique.is_empty() || rules.references().next().is_some()
}

/// The lists that a record with this value stands on.
pub(super) fn entries_of(rules: &EntityRules, key: &RecordKey, node: &Node<'_>) -> BTreeSet<IndexKey> {
    entries_in(rules, key, node).collect()
}

fn entries_in(rules: &EntityRules, key: &RecordKey, node: &Node<'_>) -> impl Iterator<Item = IndexKey> {
    let references = rules.references().filter_map(|(field, _)| {
        let id = Reference::id_in(node.member(field)?)?;
        Some(IndexKey { entity: key.entity.clone(), fields: field.into(), value: id.into() })
    });
    let unique = rules.unique.iter().filter_map(|fields| unique_key(key, fields, node));
    references.chain(unique)
}

/// The list of a set of unique fields; none where one of them is absent or null, as in SQL.
pub(super) fn unique_key(key: &RecordKey, fields: &[String], node: &Node<'_>) -> Option<IndexKey> {
    let values = fields.iter().map(|field| node.member(field).filter(|value| !value.is_null()).cloned());
    let values = values.collect::<Option<Vec<_>>>()?;
    let value = canonical(&Node::computed(Value::Array(values)));
    Some(IndexKey { entity: key.entity.clone(), fields: fields.join(",").into(), value: value.into() })
}

/// The lists that a record joins (`true`) and leaves.
pub fn moves(schema: &Schema, key: &RecordKey, before: Option<&Payload>, after: Option<&Payload>) -> Vec<(IndexKey, bool)> {
    let Some(rules) = schema.entity(&key.entity).filter(|rules| before != after && is_indexed(rules)) else {
        return Vec::new();
    };
    if let (None, Some(after)) = (before, after) {
        return entries_in(rules, key, &after.node()).map(|index| (index, true)).collect();
    }
    let of = |payload: Option<&Payload>| payload.map(|payload| entries(schema, key, payload)).unwrap_or_default();
    let (before, after) = (of(before), of(after));
    let left = before.difference(&after).map(|index| (index.clone(), false));
    let joined = after.difference(&before).map(|index| (index.clone(), true));
    left.chain(joined).collect()
}
