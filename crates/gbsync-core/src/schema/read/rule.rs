//! `invariants`: rules in CEL, of an entity or of an operation type.

use super::super::problem::{Code, Problems};
use super::super::scope::Unknown;
use super::super::source::{Entry, Item};
use super::super::{Expression, Invariant, Schema};
use super::ON_VIOLATION;
use super::keys::{self, Keys};
use crate::id::Entity;
use crate::limits::{EXPRESSION_BYTES, SCHEMA_RULES};

/// What rules may name, and the text that they stand in.
pub(super) struct Names<'n> {
    /// The entities as they are written.
    pub entities: &'n [&'n Entry],
    /// The whole text.
    pub text: &'n str,
}

/// Reads the invariants of an entity, now that all entities are known.
pub(super) fn read_of_entity(schema: &mut Schema, entry: &Entry, entities: &[&Entry], text: &str, problems: &mut Problems) {
    let Ok(name) = Entity::new(entry.key.as_str()) else { return };
    let Some(rules) = schema.entities.get_mut(&name) else { return };
    let path = keys::join("entities", &entry.key);
    if let Some(keys) = Keys::of(&entry.item, entry.at, path, problems) {
        rules.invariants = read_list(&keys, &Names { entities, text }, problems);
    }
}

/// Reads the list `invariants` of a table.
pub(super) fn read_list(keys: &Keys<'_>, names: &Names<'_>, problems: &mut Problems) -> Vec<Invariant> {
    let mut invariants: Vec<Invariant> = Vec::new();
    let items = keys.list("invariants", SCHEMA_RULES, problems).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{}.{index}", keys.path_of("invariants"));
        let Some(keys) = Keys::of(item, item.at, path, problems) else { continue };
        let Some(invariant) = read(&keys, names, problems) else { continue };
        if invariants.iter().any(|other| other.name == invariant.name) {
            let message = format!("two invariants have the name {:?}", invariant.name);
            problems.add(keys.place("name"), &keys.path_of("name"), Code::NameCollision, message);
        }
        invariants.push(invariant);
    }
    invariants
}

fn read(keys: &Keys<'_>, names: &Names<'_>, problems: &mut Problems) -> Option<Invariant> {
    keys.only(&["name", "cel", "on_violation"], problems);
    for (key, fix) in [("name", "messages call the rule by it"), ("cel", "an expression that must be true")] {
        if keys.find(key).is_none() {
            problems.add_with(keys.at, &keys.path_of(key), Code::MissingKey, format!("an invariant needs {key}"), fix);
        }
    }
    let on_violation = keys.choice("on_violation", &ON_VIOLATION, problems).unwrap_or_default();
    let name = keys.text("name", problems);
    if let Some((name, at)) = name
        && (name.is_empty() || name.len() > 128 || name.chars().any(char::is_control))
    {
        let message = "an invariant's name has 1 to 128 bytes and no control character";
        problems.add(at, &keys.path_of("name"), Code::InvalidName, message);
    }
    let entry = keys.find("cel")?;
    let cel = read_expression(&entry.item, &keys.path_of("cel"), names, problems)?;
    Some(Invariant { name: name?.0.to_owned(), cel, on_violation })
}

fn read_expression(item: &Item, path: &str, names: &Names<'_>, problems: &mut Problems) -> Option<Expression> {
    let source = keys::text(item, path, problems)?;
    if source.len() > EXPRESSION_BYTES {
        let message = format!("a rule has at most {EXPRESSION_BYTES} bytes, not {}", source.len());
        problems.add(item.at, path, Code::TooLarge, message);
        return None;
    }
    let place = |offset: Option<usize>| place_in(names.text, item.at, source, offset);
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(error) => {
            let message = format!("the rule does not compile: {}", error.message);
            problems.add(place(error.offset), path, Code::InvalidRule, message);
            return None;
        }
    };
    let known: Vec<&str> = names.entities.iter().map(|entry| entry.key.as_str()).collect();
    for Unknown { what, name, offset, near } in expression.unknown_names(&known) {
        let message = format!("the rule names the {what} {name:?}, which is unknown");
        problems.add_unknown(place(offset), path, Code::UnknownName, message, &name, &near);
    }
    Some(expression)
}

/// Where in the text of the schema a place of an expression is: exactly when it was written without escapes.
fn place_in(text: &str, at: usize, source: &str, offset: Option<usize>) -> usize {
    let Some(offset) = offset.filter(|offset| source.is_char_boundary(*offset)) else { return at };
    let rest = &text[at..];
    let start = match ["\"\"\"", "'''"].iter().any(|quotes| rest.starts_with(quotes)) {
        true if rest[3..].starts_with("\r\n") => 5,
        true if rest[3..].starts_with('\n') => 4,
        true => 3,
        false => 1,
    };
    if rest[start..].starts_with(&source[..offset]) { at + start + offset } else { at }
}

/// Reports a name that is no entity's.
pub(super) fn check_entity_name(name: &str, at: usize, path: &str, entities: &[&Entry], problems: &mut Problems) {
    if entities.iter().any(|entry| entry.key == name) {
        return;
    }
    let known: Vec<&str> = entities.iter().map(|entry| entry.key.as_str()).collect();
    problems.add_unknown(at, path, Code::UnknownName, format!("there is no entity {name:?}"), name, &known);
}
