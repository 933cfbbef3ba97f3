//! Which lists of indexes a record stands on: one for each reference it holds and one for each set of unique fields.

use super::facts::IndexKey;
use crate::change::Payload;
use crate::id::RecordKey;
use crate::json::{Node, Outline, canonical};
use crate::schema::{EntityRules, Reference, Schema};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The lists that a record with this payload stands on.
pub fn entries(schema: &Schema, key: &RecordKey, payload: &Payload) -> BTreeSet<IndexKey> {
    let Some(rules) = schema.entity(&key.entity).filter(|rules| is_indexed(rules)) else { return BTreeSet::new() };
    entries_in(rules, key, &payload.outline()).collect()
}

/// Whether records of an entity stand on any list.
pub(super) fn is_indexed(rules: &EntityRules) -> bool {
    !rules.unique.is_empty() || rules.references().next().is_some()
}

fn entries_in(rules: &EntityRules, key: &RecordKey, record: &Outline<'_>) -> impl Iterator<Item = IndexKey> {
    let references = rules.references().filter_map(|(field, _)| {
        let id = Reference::id_in_text(record.member(field)?)?;
        Some(IndexKey { entity: key.entity.clone(), fields: field.into(), value: id.into() })
    });
    references.chain(unique_in(rules, key, record))
}

/// The lists of unique fields that a record stands on.
pub(super) fn unique_in(rules: &EntityRules, key: &RecordKey, record: &Outline<'_>) -> impl Iterator<Item = IndexKey> {
    let text = |field: &str| record.member(field).filter(|text| *text != "null").map(Cow::Borrowed);
    rules.unique.iter().filter_map(move |fields| unique_list(key, fields, text))
}

/// The list of a set of unique fields.
pub(super) fn unique_key(key: &RecordKey, fields: &[String], node: &Node<'_>) -> Option<IndexKey> {
    let text = |field: &str| node.member(field).filter(|value| !value.is_null()).map(|value| canonical(value).into());
    unique_list(key, fields, text)
}

/// The list of a set of unique fields whose canonical texts are these; none where one is absent or null, as in SQL.
fn unique_list<'t>(key: &RecordKey, fields: &[String], text: impl Fn(&str) -> Option<Cow<'t, str>>) -> Option<IndexKey> {
    let mut value = String::from("[");
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            value.push(',');
        }
        value.push_str(&text(field)?);
    }
    value.push(']');
    Some(IndexKey { entity: key.entity.clone(), fields: fields.join(",").into(), value: value.into() })
}

/// The lists that a record joins (`true`) and leaves.
pub(super) fn moves(
    schema: &Schema,
    key: &RecordKey,
    before: Option<&Payload>,
    after: Option<&Payload>,
) -> Vec<(IndexKey, bool)> {
    let Some(rules) = schema.entity(&key.entity).filter(|rules| before != after && is_indexed(rules)) else {
        return Vec::new();
    };
    if let (None, Some(after)) = (before, after) {
        return entries_in(rules, key, &after.outline()).map(|index| (index, true)).collect();
    }
    let of = |payload: Option<&Payload>| payload.map(|payload| entries(schema, key, payload)).unwrap_or_default();
    let (before, after) = (of(before), of(after));
    let left = before.difference(&after).map(|index| (index.clone(), false));
    let joined = after.difference(&before).map(|index| (index.clone(), true));
    left.chain(joined).collect()
}
