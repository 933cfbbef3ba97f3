//! The functions of rules.

use super::evaluate::{Budget, Halt};
use super::number::{calculate, order};
use super::{Binary, Function, Value, pattern};
use crate::json::Decimal;
use regex::Regex;
use std::borrow::Cow;
use std::rc::Rc;

/// Steps that compiling a pattern counts as.
const PATTERN_STEPS: usize = 20_000;

/// Calls a function. The compiler has counted the arguments.
pub(super) fn call<'a>(function: Function, mut arguments: Vec<Value<'a>>, budget: &Budget) -> Result<Value<'a>, Halt> {
    let second = if arguments.len() > 1 { arguments.pop() } else { None };
    let Some(first) = arguments.pop() else { return Err(error("there is no such function")) };
    Ok(match (function, first, second) {
        (Function::Sum, Value::List(items), None) => sum(&items, budget)?,
        (Function::Min | Function::Max, first, second) => {
            let items = match (first, second) {
                (Value::List(items), None) => items,
                (first, second) => Rc::new(arguments.into_iter().chain([first]).chain(second).collect()),
            };
            extreme(&items, function == Function::Max, budget)?
        }
        (Function::Size, of, None) => size(&of, budget)?,
        (Function::Contains, Value::Text(text), Some(Value::Text(part))) => {
            budget.charge((text.len() + part.len()) / 8)?;
            Value::Bool(text.contains(&*part))
        }
        (Function::StartsWith, Value::Text(text), Some(Value::Text(part))) => Value::Bool(text.starts_with(&*part)),
        (Function::EndsWith, Value::Text(text), Some(Value::Text(part))) => Value::Bool(text.ends_with(&*part)),
        (Function::Matches, text, Some(Value::Text(part))) => {
            budget.charge(PATTERN_STEPS)?;
            let regex = pattern(&part).map_err(Halt::Error)?;
            Value::Bool(matches(&text, &regex, budget)?)
        }
        (Function::Int, value, None) => Value::Integer(integer(&value)?),
        (Function::Double, value, None) => Value::Decimal(decimal(&value)?),
        (Function::String, value, None) => Value::Text(Cow::Owned(text(&value)?)),
        (Function::Bool, Value::Bool(value), None) => Value::Bool(value),
        (Function::Type, value, None) => Value::Text(Cow::Borrowed(type_name(&value))),
        (Function::Dyn, value, None) => value,
        (_, first, _) => return Err(error(format!("a function does not take {}", first.kind()))),
    })
}

fn error(problem: impl Into<String>) -> Halt {
    Halt::Error(problem.into())
}

/// The sum of what a list holds, 0 of an empty one. Null counts as nothing, as in SQL.
fn sum<'a>(items: &[Value<'a>], budget: &Budget) -> Result<Value<'a>, Halt> {
    budget.charge(items.len())?;
    let mut sum = Value::Integer(0);
    for item in items.iter().filter(|item| !matches!(item, Value::Null)) {
        sum = calculate(Binary::Add, sum, item.clone())?;
    }
    Ok(sum)
}

/// The least or greatest of a list, null of an empty one. Null counts as nothing.
fn extreme<'a>(items: &[Value<'a>], is_greatest: bool, budget: &Budget) -> Result<Value<'a>, Halt> {
    budget.charge(items.len())?;
    let mut best: Option<&Value<'a>> = None;
    for item in items.iter().filter(|item| !matches!(item, Value::Null)) {
        let is_better = match best {
            None => true,
            Some(best) => order(item, best)?.is_gt() == is_greatest && !order(item, best)?.is_eq(),
        };
        if is_better {
            best = Some(item);
        }
    }
    Ok(best.cloned().unwrap_or(Value::Null))
}

fn size<'a>(of: &Value<'a>, budget: &Budget) -> Result<Value<'a>, Halt> {
    let size = match of {
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        Value::Text(text) => {
            budget.charge(text.len() / 64)?;
            text.chars().count()
        }
        other => return Err(error(format!("{} has no size", other.kind()))),
    };
    Ok(Value::Integer(i64::try_from(size).unwrap_or(i64::MAX)))
}

/// Whether a pattern is found in a text. The time is linear in the text; a large pattern makes each step longer.
pub(super) fn matches(text: &Value<'_>, regex: &Regex, budget: &Budget) -> Result<bool, Halt> {
    let Value::Text(text) = text else { return Err(error(format!("{} has no pattern", text.kind()))) };
    budget.charge(text.len() * (1 + regex.as_str().len() / 16))?;
    Ok(regex.is_match(text))
}

fn integer(value: &Value<'_>) -> Result<i64, Halt> {
    let whole = match value {
        Value::Integer(value) => Some(*value),
        Value::Decimal(value) => value.as_integer(),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    whole.ok_or_else(|| error(format!("{} is no integer", value.kind())))
}

fn decimal(value: &Value<'_>) -> Result<Decimal, Halt> {
    let decimal = match value {
        Value::Text(text) => Decimal::parse(text),
        other => other.decimal(),
    };
    decimal.ok_or_else(|| error(format!("{} is no number", value.kind())))
}

fn text(value: &Value<'_>) -> Result<String, Halt> {
    Ok(match value {
        Value::Text(text) => text.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Decimal(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        other => return Err(error(format!("{} is no text", other.kind()))),
    })
}

fn type_name(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "null_type",
        Value::Bool(_) => "bool",
        Value::Integer(_) => "int",
        Value::Decimal(_) => "decimal",
        Value::Text(_) => "string",
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Record(_) => "record",
    }
}
