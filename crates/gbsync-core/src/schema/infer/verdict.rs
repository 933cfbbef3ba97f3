//! From what was seen to a schema.

use super::seen::{CountSeen, EntitySeen, FieldSeen, OperationSeen};
use super::{Inference, Inferred};
use crate::id::Entity;
use crate::schema::problem::Problems;
use crate::schema::{Count, Counter, EntityRules, Field, FieldKind, OperationRules, Reference, Schema, names};
use std::collections::{BTreeMap, BTreeSet};

/// Most digits after the point that money and weights have; a number with more is measured, not counted.
const MOST_SCALE: u32 = 4;
/// Fields that refer to their own kind of record, as far as their names tell.
const TO_ITS_KIND: [&str; 7] = ["parent", "reportsto", "manager", "supervisor", "previous", "replaces", "next"];

/// Entities that a remark names at most.
const MOST_NAMED: usize = 12;

type Notes = BTreeMap<String, Vec<String>>;

/// The schema that fits everything seen.
pub(super) fn schema_of(seen: Inference) -> Inferred {
    let mut inferred = Inferred { schema: Schema { version: 1, ..Schema::default() }, notes: Notes::new() };
    if seen.left_out > 0 {
        let note = format!(
            "{} values were not looked at: more entities, fields or operations than a schema may have",
            seen.left_out
        );
        inferred.note("", note);
    }
    let usable = usable_entities(&seen.entities, &mut inferred);
    for (name, entity) in usable.iter().filter_map(|name| seen.entities.get_key_value(*name)) {
        let rules = rules_of(name, entity, &usable, &seen.entities, &mut inferred);
        if let Ok(name) = Entity::new(name.as_str()) {
            inferred.schema.entities.insert(name, rules);
        }
    }
    for (group_type, operation) in &seen.operations {
        let path = format!("operations.{group_type}");
        let rules = shape_of(operation, &usable, &path, &mut inferred);
        inferred.schema.operations.insert(group_type.clone(), rules);
    }
    inferred
}

impl Inferred {
    fn note(&mut self, path: &str, note: impl Into<String>) {
        self.notes.entry(path.to_owned()).or_default().push(note.into());
    }
}

/// The entities that a schema may name.
fn usable_entities<'s>(seen: &'s BTreeMap<String, EntitySeen>, inferred: &mut Inferred) -> BTreeSet<&'s str> {
    let mut tables = BTreeSet::new();
    let lower: BTreeSet<String> = seen.keys().map(|name| name.to_ascii_lowercase()).collect();
    let mut usable = BTreeSet::new();
    for name in seen.keys() {
        let mut problems = Problems::default();
        names::check_entity(name, 0, "", &mut problems);
        let key = name.to_ascii_lowercase();
        let is_list_of_other = key.strip_suffix("_all").is_some_and(|other| lower.contains(other));
        if problems.is_empty() && !is_list_of_other && tables.insert(key) {
            usable.insert(name.as_str());
        } else {
            inferred.note("", format!("the entity {name:?} cannot be declared under this name, and would be refused"));
        }
    }
    usable
}

fn rules_of(
    name: &str,
    seen: &EntitySeen,
    usable: &BTreeSet<&str>,
    all: &BTreeMap<String, EntitySeen>,
    inferred: &mut Inferred,
) -> EntityRules {
    let mut rules = EntityRules::default();
    let path = format!("entities.{name}");
    if seen.ungrouped == 0 {
        inferred.note(&path, "changed in operations only; ungrouped = \"refuse\" would keep it so");
    }
    let mut columns: BTreeSet<String> = BTreeSet::new();
    for (field_name, field_seen) in &seen.fields {
        let mut problems = Problems::default();
        names::check_field(field_name, 0, "", &mut problems);
        let lower = field_name.to_ascii_lowercase();
        if !problems.is_empty() || columns.contains(&lower) {
            inferred
                .note(&path, format!("the field {field_name:?} cannot be declared under this name; it stays undeclared"));
            continue;
        }
        let path = format!("{path}.fields.{field_name}");
        let mut field = field_of(field_seen, &path, inferred);
        field.required = seen.upserts > 0 && field_seen.in_upserts == seen.upserts && !field_seen.is_removed;
        if field.counter.is_none() && matches!(field.kind, FieldKind::Text | FieldKind::Integer) {
            field.reference = reference_of(name, field_name, field_seen, usable, all, &path, inferred);
        }
        columns.insert(lower);
        rules.fields.insert(field_name.clone(), field);
    }
    let decimals = rules.fields.iter().filter(|(_, field)| field.has_minor());
    let minors: BTreeSet<String> = decimals.map(|(name, _)| format!("{}_minor", name.to_ascii_lowercase())).collect();
    rules.fields.retain(|name, _| !minors.contains(&name.to_ascii_lowercase()));
    rules
}

fn field_of(seen: &FieldSeen, path: &str, inferred: &mut Inferred) -> Field {
    let numbers = seen.integers + seen.fractions;
    let kinds = [numbers, seen.booleans, seen.texts, seen.structures].iter().filter(|count| **count > 0).count();
    let is_money = seen.decimals > 0 && seen.decimals == seen.texts && seen.booleans + seen.structures == 0;
    let kind = if is_money && seen.scale <= 18 {
        FieldKind::Decimal { scale: seen.scale }
    } else if kinds == 0 {
        inferred.note(path, "only null was seen");
        FieldKind::Json
    } else if kinds > 1 {
        inferred.note(path, "values of several types were seen");
        FieldKind::Json
    } else if seen.structures > 0 {
        FieldKind::Json
    } else if seen.booleans > 0 {
        FieldKind::Boolean
    } else if seen.texts > 0 {
        match (seen.dates == seen.texts, seen.timestamps == seen.texts) {
            (true, _) => FieldKind::Date,
            (_, true) => FieldKind::Timestamp,
            _ => FieldKind::Text,
        }
    } else if seen.fractions == 0 {
        FieldKind::Integer
    } else if seen.scale <= MOST_SCALE {
        FieldKind::Decimal { scale: seen.scale }
    } else {
        FieldKind::Real
    };
    let mut field = Field::of(kind);
    if seen.increments > 0 {
        match (kind, seen.is_patched) {
            (FieldKind::Integer | FieldKind::Decimal { .. } | FieldKind::Real, false) => {
                field.counter = Some(Counter::default());
            }
            _ => inferred
                .note(path, "was incremented and set; a counter is only incremented, so the increments will be refused"),
        }
    }
    field
}

/// The record that a field names: by its name, where every value is an id of that kind.
fn reference_of(
    entity: &str,
    field: &str,
    seen: &FieldSeen,
    usable: &BTreeSet<&str>,
    all: &BTreeMap<String, EntitySeen>,
    path: &str,
    inferred: &mut Inferred,
) -> Option<Reference> {
    if seen.values.is_empty() {
        return None;
    }
    let lower = field.to_ascii_lowercase();
    let stem = lower.strip_suffix("_id").or_else(|| lower.strip_suffix("id").filter(|_| field.ends_with("Id")));
    let is_named_id = stem.is_some_and(|stem| !stem.is_empty());
    let stem = stem.unwrap_or(&lower).trim_end_matches('_').replace('_', "");
    let holds = |name: &&&str| all.get(**name).is_some_and(|other| seen.values.is_within(&other.ids));
    let within: Vec<&str> = usable.iter().filter(holds).copied().collect();
    let by_name = usable.iter().find(|name| is_plural_of(name, &stem)).copied();
    let to = match by_name {
        Some(name) if within.contains(&name) => Some(name),
        Some(name) => {
            if is_named_id {
                inferred.note(path, format!("looks like a reference to {name}, but some values are no ids of it"));
            }
            None
        }
        None if TO_ITS_KIND.contains(&stem.as_str()) && within.contains(&entity) => Some(entity),
        None if is_named_id && within.len() == 1 => within.first().copied(),
        None => {
            if is_named_id && !within.is_empty() {
                let more = if within.len() > MOST_NAMED { ", …" } else { "" };
                let names = within.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
                inferred.note(path, format!("may refer to {names}{more}; add references = \"…\" if so"));
            }
            None
        }
    }?;
    Some(Reference { entity: Entity::new(to).ok()?, on_delete: Default::default(), on_violation: Default::default() })
}

/// Whether an entity's name is a word, or its plural, without regard to case and underscores.
fn is_plural_of(entity: &str, word: &str) -> bool {
    let entity = entity.to_ascii_lowercase().replace('_', "");
    let plural_of_y = word.strip_suffix('y').map(|stem| format!("{stem}ies"));
    entity == word
        || entity == format!("{word}s")
        || entity == format!("{word}es")
        || plural_of_y.is_some_and(|y| y == entity)
}

fn shape_of(seen: &OperationSeen, usable: &BTreeSet<&str>, path: &str, inferred: &mut Inferred) -> OperationRules {
    let mut rules = OperationRules::default();
    if seen.entities.keys().any(|name| !usable.contains(name.as_str())) {
        inferred.note(path, "it changes an entity that cannot be declared, so it has no shape");
        return rules;
    }
    let mut shape = BTreeMap::new();
    for (name, counts) in &seen.entities {
        let CountSeen { least, most, .. } = *counts;
        let least = if counts.lines == seen.lines { least } else { 0 };
        if most > 1 {
            let many = if least == most { format!("always {least}") } else { format!("{least} to {most}") };
            inferred.note(&format!("{path}.shape.{name}"), format!("{name}: {many}"));
        }
        if let Ok(name) = Entity::new(name.as_str()) {
            shape.insert(name, Count { least: least.min(1), most: (most <= 1).then_some(1) });
        }
    }
    inferred.note(path, format!("seen {} times", seen.lines));
    rules.shape = Some(shape);
    rules
}
