//! Does each change fit the declared types? Judged on the change alone, before anybody asks what state it meets.
//!
//! Null is the same as absent. What a record must have after the change is judged again when it has been laid.

use super::Facts;
use super::refusal::misfit;
use crate::change::{Change, Edit};
use crate::id::Entity;
use crate::json::{Node, Value};
use crate::lay::decimal_of;
use crate::schema::{EntityRules, Field, FieldKind, Schema, Undeclared};
use crate::time::{is_date, is_timestamp};
use crate::verdict::Rejection;
use std::borrow::Cow;

type Members<'a> = [(Cow<'a, str>, Node<'a>)];

/// Parses every payload, once, and holds it against the rules of its entity. The values, in the order of the changes.
pub(super) fn check<'a>(changes: &'a [Change], schema: &Schema, facts: &Facts) -> Result<Vec<Option<Node<'a>>>, Rejection> {
    changes.iter().enumerate().map(|place| check_change(place, schema, facts)).collect()
}

fn check_change<'a>(place: (usize, &'a Change), schema: &Schema, facts: &Facts) -> Result<Option<Node<'a>>, Rejection> {
    let (_, change) = place;
    let entity = &change.key.entity;
    let Some(rules) = schema.entity(entity) else {
        let problem = format!("the schema has no entity {:?}; declare it or write another", entity.as_str());
        return Err(misfit(entity.to_string(), &problem, place, facts));
    };
    let Some(payload) = change.edit.payload() else { return Ok(None) };
    let node = payload.node();
    let Value::Object(members) = &node.value else { unreachable!("a payload is an object") };
    let fault = match &change.edit {
        Edit::Increment(_) => members.iter().find_map(|(name, delta)| misfit_delta(rules, name, delta)),
        edit => misfit_value(rules, members, matches!(edit, Edit::Upsert(_))),
    };
    match fault {
        None => Ok(Some(node)),
        Some((name, problem)) => Err(misfit(rule(entity, &name), &problem, place, facts)),
    }
}

/// What a rule about a field is called.
pub(super) fn rule(entity: &Entity, field: &str) -> String {
    format!("{entity}.{field}")
}

/// The first field at fault of a payload that sets fields, and what to do about it.
fn misfit_value(rules: &EntityRules, members: &Members<'_>, is_upsert: bool) -> Option<(String, String)> {
    // Both lists stand in the order of their names' bytes.
    let mut declared = rules.fields.iter().peekable();
    for (name, value) in members {
        while let Some((skipped, field)) = declared.next_if(|(declared, _)| declared.as_str() < &**name) {
            if is_upsert && let Some(problem) = absent(skipped, field) {
                return Some((skipped.clone(), problem));
            }
        }
        let Some((_, field)) = declared.next_if(|(declared, _)| declared.as_str() == &**name) else {
            if rules.additional == Undeclared::Refuse {
                return Some((name.to_string(), format!("the field {name:?} is not declared; leave it out or declare it")));
            }
            continue;
        };
        let problem = match &field.counter {
            Some(_) if !is_upsert => Some(format!("{name:?} is a counter; change it by an increment")),
            _ if value.is_null() => absent(name, field),
            _ => misfit_kind(value, field.kind).map(|must| format!("{name:?} must be {must}, not {}", shown(value))),
        };
        if let Some(problem) = problem {
            return Some((name.to_string(), problem));
        }
    }
    if !is_upsert {
        return None;
    }
    declared.find_map(|(name, field)| Some((name.clone(), absent(name, field)?)))
}

/// An upsert may leave out a counter: a record that exists keeps its own.
fn absent(name: &str, field: &Field) -> Option<String> {
    (field.required && field.counter.is_none()).then(|| needed(name))
}

fn needed(name: &str) -> String {
    format!("{name:?} is required; give it a value")
}

/// The first required field that a record lacks after an edit. An upsert that was held against the types can only lack
/// counters.
pub(super) fn missing<'r>(rules: &'r EntityRules, record: &Node<'_>, edit: &Edit) -> Option<(&'r str, String)> {
    let is_upsert = matches!(edit, Edit::Upsert(_));
    let mut required = rules.fields.iter().filter(|(_, field)| field.required && (!is_upsert || field.counter.is_some()));
    let (name, _) = required.find(|(name, _)| record.member(name).is_none_or(Node::is_null))?;
    Some((name, needed(name)))
}

fn misfit_delta(rules: &EntityRules, name: &str, delta: &Node<'_>) -> Option<(String, String)> {
    let problem = match rules.fields.get(name) {
        None if rules.additional == Undeclared::Refuse => {
            format!("the field {name:?} is not declared; leave it out or declare it")
        }
        None => return None,
        Some(Field { counter: None, .. }) => format!("{name:?} is not a counter; set it by a patch"),
        Some(field) => {
            let must = misfit_kind(delta, field.kind)?;
            format!("what is added to {name:?} must be {must}, not {}", shown(delta))
        }
    };
    Some((name.to_owned(), problem))
}

/// What a value of a kind must be, if this is none.
fn misfit_kind(value: &Node<'_>, kind: FieldKind) -> Option<Cow<'static, str>> {
    let (fits, must) = match kind {
        FieldKind::Text => (value.as_str().is_some(), "a string"),
        FieldKind::Integer => {
            (value.as_number().is_some_and(|digits| digits.parse::<i64>().is_ok()), "an integer of 64 bits")
        }
        FieldKind::Real => (value.as_number().is_some(), "a number"),
        FieldKind::Boolean => (matches!(value.value, Value::Bool(_)), "true or false"),
        FieldKind::Date => (value.as_str().is_some_and(is_date), "a date like \"2026-06-03\""),
        FieldKind::Timestamp => {
            let is_time = value.as_str().is_some_and(is_timestamp);
            (is_time, "a time in UTC like \"2026-06-03T20:52:59Z\"")
        }
        FieldKind::Json => (true, "any JSON"),
        FieldKind::Decimal { scale } => {
            let fits = decimal_of(&value.value).is_some_and(|decimal| decimal.with_scale(scale).is_some());
            return (!fits).then(|| format!("a decimal with at most {scale} digits after the point").into());
        }
    };
    (!fits).then_some(must.into())
}

/// A value as a message shows it: scalars as they are, unless they are long.
fn shown(value: &Node<'_>) -> String {
    match &value.value {
        Value::Number(digits) if digits.len() <= 40 => digits.to_string(),
        Value::String(text) if text.len() <= 40 => format!("{text:?}"),
        Value::Bool(value) => value.to_string(),
        _ => value.kind_name().to_owned(),
    }
}
