//! `[entities.NAME]`: one kind of record, but for what it says of others.

use super::super::problem::{Code, Problems};
use super::super::source::{Entry, Item, Value};
use super::super::{EntityRules, FieldKind, OnConflict, OnDeleteConflict, Undeclared, names};
use super::keys::{self, Keys};
use super::{UNDECLARED, field};
use crate::id::Entity;
use crate::limits::{SCHEMA_FIELDS, SCHEMA_RULES};

const KEYS: [&str; 9] =
    ["fields", "additional", "ungrouped", "on_conflict", "on_delete_conflict", "unique", "indexes", "invariants", "scope"];
const ON_CONFLICT: [OnConflict; 4] = [OnConflict::Reject, OnConflict::Merge, OnConflict::LastWriteWins, OnConflict::Accept];
const ON_DELETE_CONFLICT: [OnDeleteConflict; 3] =
    [OnDeleteConflict::Reject, OnDeleteConflict::DeleteWins, OnDeleteConflict::EditWins];

/// Reads one entity; its invariants are read when all entities are known.
pub(super) fn read(entry: &Entry, version: u64, problems: &mut Problems) -> Option<(Entity, EntityRules)> {
    let path = format!("entities.{}", entry.key);
    names::check_entity(&entry.key, entry.at, &path, problems);
    let keys = Keys::of(&entry.item, entry.at, path, problems)?;
    keys.only(&KEYS, problems);
    let mut rules = EntityRules {
        ungrouped: keys.choice("ungrouped", &UNDECLARED, problems).unwrap_or_default(),
        on_conflict: keys
            .choice("on_conflict", &ON_CONFLICT.map(|policy| (policy.as_str(), policy)), problems)
            .unwrap_or_default(),
        on_delete_conflict: keys
            .choice("on_delete_conflict", &ON_DELETE_CONFLICT.map(|policy| (policy.as_str(), policy)), problems)
            .unwrap_or_default(),
        ..EntityRules::default()
    };
    if keys.boolean("additional", problems) == Some(false) {
        rules.additional = Undeclared::Refuse;
    }
    let fields = keys.named("fields", SCHEMA_FIELDS, problems);
    for entry in &fields {
        if let Some(field) = field::read(entry, &keys.path_of("fields"), version, problems) {
            rules.fields.insert(entry.key.clone(), field);
        }
    }
    check_columns(&keys, &fields, &rules, problems);
    check_former_names(&keys, &fields, problems);
    rules.unique = read_field_lists(&keys, "unique", &fields, problems);
    rules.indexes = read_field_lists(&keys, "indexes", &fields, problems);
    check_unique_fields(&keys, &rules, problems);
    rules.scope = read_scope(&keys, &fields, &rules, problems);
    Some((Entity::new(entry.key.as_str()).ok()?, rules))
}

/// No two fields may become one column; a decimal has two.
fn check_columns(keys: &Keys<'_>, fields: &[&Entry], rules: &EntityRules, problems: &mut Problems) {
    let mut columns: Vec<(String, &str)> = Vec::new();
    for entry in fields {
        let lower = entry.key.to_ascii_lowercase();
        let path = keys::join(&keys.path_of("fields"), &entry.key);
        if let Some((_, other)) = columns.iter().find(|(column, _)| *column == lower) {
            let message = format!("the fields {:?} and {other:?} would be one column", entry.key);
            problems.add_with(entry.at, &path, Code::NameCollision, message, "SQL does not tell case apart; rename one");
        }
        columns.push((lower, &entry.key));
    }
    for entry in fields.iter().filter(|entry| rules.fields.get(&entry.key).is_some_and(super::super::Field::has_minor)) {
        let minor = format!("{}_minor", entry.key.to_ascii_lowercase());
        if let Some(other) = fields.iter().find(|other| other.key.to_ascii_lowercase() == minor) {
            let path = keys::join(&keys.path_of("fields"), &other.key);
            let message = format!("the field {:?} is also the column of whole units beside {:?}", other.key, entry.key);
            problems.add_with(other.at, &path, Code::NameCollision, message, "rename it");
        }
    }
}

/// A former name must not be a field's, nor that of two.
fn check_former_names(keys: &Keys<'_>, fields: &[&Entry], problems: &mut Problems) {
    let mut former: Vec<(&str, &str)> = Vec::new();
    for entry in fields {
        let Value::Table(members) = &entry.item.value else { continue };
        let Some(was) = members.iter().find(|member| member.key == "was") else { continue };
        let Value::Text(name) = &was.item.value else { continue };
        let path = format!("{}.{}.was", keys.path_of("fields"), entry.key);
        if fields.iter().any(|field| field.key == *name) {
            let message = format!("{:?} cannot have been {name:?}, which is a field still", entry.key);
            problems.add_with(was.item.at, &path, Code::Contradiction, message, "a renamed field leaves its old name");
        } else if let Some((_, other)) = former.iter().find(|(known, _)| known == name) {
            let message = format!("{:?} and {other:?} cannot both have been {name:?}", entry.key);
            problems.add(was.item.at, &path, Code::Contradiction, message);
        }
        former.push((name, &entry.key));
    }
}

/// `unique` and `indexes`: lists of fields. In `indexes` one name stands for a list of one.
fn read_field_lists(keys: &Keys<'_>, key: &str, fields: &[&Entry], problems: &mut Problems) -> Vec<Vec<String>> {
    let mut lists: Vec<Vec<String>> = Vec::new();
    for item in keys.list(key, SCHEMA_RULES, problems).unwrap_or_default() {
        let path = keys.path_of(key);
        let names = match &item.value {
            Value::Text(_) if key == "indexes" => std::slice::from_ref(item),
            Value::Text(name) => {
                let message = "unique is a list of lists of fields";
                problems.add_with(item.at, &path, Code::WrongType, message, format!("write unique = [[{name:?}]]"));
                continue;
            }
            _ => match keys::list(item, &path, problems) {
                Some(names) => names,
                None => continue,
            },
        };
        let list = read_field_list(names, item, &path, fields, problems);
        if !list.is_empty() && lists.contains(&list) {
            problems.add(item.at, &path, Code::Contradiction, format!("{} stands here twice", list.join(", ")));
        }
        lists.push(list);
    }
    lists
}

fn read_field_list(names: &[Item], list: &Item, path: &str, fields: &[&Entry], problems: &mut Problems) -> Vec<String> {
    let mut read: Vec<String> = Vec::new();
    if names.is_empty() {
        problems.add(list.at, path, Code::OutOfRange, "the list names no field");
    }
    for item in names {
        let Some(name) = keys::text_in_list(item, path, problems) else { continue };
        if !fields.iter().any(|field| field.key == name) {
            let known: Vec<&str> = fields.iter().map(|field| field.key.as_str()).collect();
            let message = format!("{name:?} is no declared field");
            problems.add_unknown(item.at, path, Code::UnknownName, message, name, &known);
        } else if read.iter().any(|other| other == name) {
            problems.add(item.at, path, Code::Contradiction, format!("{name:?} stands in one list twice"));
        }
        read.push(name.to_owned());
    }
    read
}

/// The field that says where a record lies: every record has it, and it never changes unseen.
fn read_scope(keys: &Keys<'_>, fields: &[&Entry], rules: &EntityRules, problems: &mut Problems) -> Option<String> {
    let (name, at) = keys.text("scope", problems)?;
    let path = keys.path_of("scope");
    if !fields.iter().any(|field| field.key == name) {
        let known: Vec<&str> = fields.iter().map(|field| field.key.as_str()).collect();
        let message = format!("{name:?} is no declared field");
        problems.add_unknown(at, &path, Code::UnknownName, message, name, &known);
        return None;
    }
    // One that is declared and not here is reported already.
    let field = rules.fields.get(name)?;
    let (why, fix) = if !matches!(field.kind, FieldKind::Text | FieldKind::Integer) {
        (format!("has the type {}", field.kind.as_str()), "name a field of type text or integer")
    } else if field.counter.is_some() {
        ("is a counter".to_owned(), "name a field that is none")
    } else if !field.required {
        ("may be left out, and a record without it would lie nowhere".to_owned(), "add required = true to the field")
    } else {
        return Some(name.to_owned());
    };
    let message = format!("{name:?} cannot say in which scope a record lies: it {why}");
    problems.add_with(at, &path, Code::Contradiction, message, fix);
    None
}

/// What is unique must be comparable, and must not change unseen.
fn check_unique_fields(keys: &Keys<'_>, rules: &EntityRules, problems: &mut Problems) {
    for name in rules.unique.iter().flatten() {
        let Some(field) = rules.fields.get(name) else { continue };
        let why = if field.kind == super::super::FieldKind::Json {
            "has the type json, whose values are not compared"
        } else if field.counter.is_some() {
            "is a counter, whose increments are not compared with other records"
        } else {
            continue;
        };
        let message = format!("{name:?} cannot be unique: it {why}");
        problems.add(keys.place("unique"), &keys.path_of("unique"), Code::Contradiction, message);
    }
}
