//! What one part of a schema says of another: references, sequences, tables, circles of cascades.

use super::super::problem::{Code, Problems};
use super::super::source::{Entry, Value};
use super::super::{OnDelete, Schema};
use super::rule::check_entity_name;
use crate::id::Entity;
use std::collections::{BTreeMap, BTreeSet};

/// Checks everything that takes more than one part to see.
pub(super) fn check(schema: &Schema, entities: &[&Entry], sequences: &[&Entry], problems: &mut Problems) {
    check_tables(entities, problems);
    for entity in entities {
        for field in members(entity, "fields") {
            let path = format!("entities.{}.fields.{}", entity.key, field.key);
            if let Some((name, at)) = text_of(field, "references") {
                check_entity_name(name, at, &format!("{path}.references"), entities, problems);
            }
            if let Some((name, at)) = text_of(field, "sequence")
                && !sequences.iter().any(|entry| entry.key == name)
            {
                let known: Vec<&str> = sequences.iter().map(|entry| entry.key.as_str()).collect();
                let message = format!("there is no sequence {name:?}");
                problems.add_unknown(at, &format!("{path}.sequence"), Code::UnknownName, message, name, &known);
            }
        }
    }
    check_cascades(schema, entities, problems);
    check_scopes(schema, entities, problems);
}

/// A record that everybody sees cannot refer to one that only some see: the others would hold it without that one.
fn check_scopes(schema: &Schema, entities: &[&Entry], problems: &mut Problems) {
    let is_scoped = |entity: &Entity| schema.entity(entity).is_some_and(|rules| rules.scope.is_some());
    for (entity, rules) in schema.entities.iter().filter(|(_, rules)| rules.scope.is_none()) {
        let far = rules.references().filter(|(_, reference)| reference.on_delete != OnDelete::Ignore);
        for (field, reference) in far.filter(|(_, reference)| is_scoped(&reference.entity)) {
            let entry = entities.iter().find(|entry| entry.key == entity.as_str());
            let field_at = entry.and_then(|entry| members(entry, "fields").into_iter().find(|entry| entry.key == field));
            let at = field_at.map_or(0, |field| text_of(field, "references").map_or(field.at, |(_, at)| at));
            let message = format!("{entity} are seen by everybody, and {} only in their scopes", reference.entity);
            let fix = format!("give {entity} a scope as well, or the reference on_delete = \"ignore\"");
            let path = format!("entities.{entity}.fields.{field}.references");
            problems.add_with(at, &path, Code::Contradiction, message, fix);
        }
    }
}

/// SQL does not tell case apart, and each entity has a second relation, `{entity}_all`.
fn check_tables(entities: &[&Entry], problems: &mut Problems) {
    let mut tables: BTreeMap<String, &str> = BTreeMap::new();
    for entity in entities {
        let path = format!("entities.{}", entity.key);
        if let Some(other) = tables.get(&entity.key.to_ascii_lowercase()) {
            let message = format!("the entities {:?} and {other:?} would have one table", entity.key);
            problems.add_with(entity.at, &path, Code::NameCollision, message, "SQL does not tell case apart; rename one");
        }
        tables.insert(entity.key.to_ascii_lowercase(), &entity.key);
    }
    for entity in entities {
        let lower = entity.key.to_ascii_lowercase();
        if let Some(other) = lower.strip_suffix("_all").and_then(|name| tables.get(name)) {
            let path = format!("entities.{}", entity.key);
            let message = format!("the entity {:?} would have the table that lists all of {other:?}", entity.key);
            problems.add_with(entity.at, &path, Code::NameCollision, message, "rename it");
        }
    }
}

/// Deletes that cascade from one entity to another and back. Within one entity they follow a tree and end.
fn check_cascades(schema: &Schema, entities: &[&Entry], problems: &mut Problems) {
    let mut deletes: BTreeMap<&Entity, Vec<(&Entity, &str)>> = BTreeMap::new();
    for (entity, rules) in &schema.entities {
        let cascades = rules.references().filter(|(_, reference)| reference.on_delete == OnDelete::Cascade);
        for (field, reference) in cascades.filter(|(_, reference)| reference.entity != *entity) {
            deletes.entry(&reference.entity).or_default().push((entity, field));
        }
    }
    // A circle is reported once: where the first entity of it in name order begins it.
    let mut reported: BTreeSet<&Entity> = BTreeSet::new();
    for start in schema.entities.keys() {
        let Some(circle) = circle_from(start, &deletes) else { continue };
        if circle.iter().any(|(entity, _)| reported.contains(entity)) {
            continue;
        }
        reported.extend(circle.iter().map(|(entity, _)| *entity));
        let names: Vec<&str> = std::iter::once(start.as_str()).chain(circle.iter().map(|(e, _)| e.as_str())).collect();
        let message = format!("deletes cascade in a circle: {}", names.join(" → "));
        let (entity, field) = circle[0];
        let at =
            entities.iter().find(|entry| entry.key == entity.as_str()).map_or(0, |entry| place_of_cascade(entry, field));
        let path = format!("entities.{entity}.fields.{field}.on_delete");
        problems.add_with(at, &path, Code::CascadeCycle, message, "let one of them restrict or ignore");
    }
}

/// The shortest way of cascading deletes from an entity back to itself.
fn circle_from<'s>(
    start: &'s Entity,
    deletes: &BTreeMap<&'s Entity, Vec<(&'s Entity, &'s str)>>,
) -> Option<Vec<(&'s Entity, &'s str)>> {
    let mut came_from: BTreeMap<&Entity, (&Entity, &str)> = BTreeMap::new();
    let mut next = vec![start];
    while !next.is_empty() && !came_from.contains_key(start) {
        let mut reached = Vec::new();
        for from in next {
            for (to, field) in deletes.get(from).into_iter().flatten() {
                if !came_from.contains_key(to) {
                    came_from.insert(to, (from, field));
                    reached.push(*to);
                }
            }
        }
        next = reached;
    }
    let mut circle = Vec::new();
    let mut at = start;
    loop {
        let (from, field) = came_from.get(at)?;
        circle.push((at, *field));
        at = from;
        if at == start {
            circle.reverse();
            return Some(circle);
        }
    }
}

fn place_of_cascade(entity: &Entry, field: &str) -> usize {
    let field = members(entity, "fields").into_iter().find(|entry| entry.key == field);
    field.map_or(entity.at, |field| text_of(field, "on_delete").map_or(field.at, |(_, at)| at))
}

fn members<'i>(entry: &'i Entry, key: &str) -> Vec<&'i Entry> {
    let Value::Table(entries) = &entry.item.value else { return Vec::new() };
    match entries.iter().find(|entry| entry.key == key).map(|entry| &entry.item.value) {
        Some(Value::Table(entries)) => entries.iter().collect(),
        _ => Vec::new(),
    }
}

fn text_of<'i>(entry: &'i Entry, key: &str) -> Option<(&'i str, usize)> {
    let Value::Table(entries) = &entry.item.value else { return None };
    let found = entries.iter().find(|entry| entry.key == key)?;
    match &found.item.value {
        Value::Text(text) => Some((text, found.item.at)),
        _ => None,
    }
}
