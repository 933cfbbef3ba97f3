//! What fits a field: its default, and the bounds of a counter.

use super::super::FieldKind;
use super::super::problem::{Code, Problems};
use super::super::source::{Item, Value};
use super::keys::Keys;
use crate::json::{self, Decimal, Node};
use crate::time::{Timestamp, is_date};
use std::borrow::Cow;

/// Reads `default` as the canonical JSON that the field then has.
pub(super) fn read(keys: &Keys<'_>, kind: FieldKind, problems: &mut Problems) -> Option<Box<str>> {
    let entry = keys.find("default")?;
    let default = of_kind(&entry.item, kind);
    if default.is_none() {
        let message = format!("the default does not fit the type {}", kind.as_str());
        problems.add_with(entry.item.at, &keys.path_of("default"), Code::InvalidDefault, message, example(kind));
    }
    default
}

fn of_kind(item: &Item, kind: FieldKind) -> Option<Box<str>> {
    let quoted = |text: &str| {
        let mut out = String::new();
        json::push_string(&mut out, text);
        Some(out.into_boxed_str())
    };
    match (kind, &item.value) {
        (FieldKind::Text, Value::Text(text)) if !text.contains('\0') => quoted(text),
        (FieldKind::Integer, Value::Number(digits)) => digits.parse::<i64>().ok().map(|n| n.to_string().into()),
        (FieldKind::Real, Value::Number(digits)) => {
            // Through the strict parser: it refuses what no payload may hold.
            json::parse(digits.as_bytes(), 1).ok().map(|node| json::canonical(&node).into())
        }
        (FieldKind::Decimal { scale }, Value::Number(digits) | Value::Text(digits)) => {
            let decimal = Decimal::parse(digits).filter(|decimal| fits(kind, *decimal))?;
            quoted(&decimal.with_scale(scale)?.to_string())
        }
        (FieldKind::Boolean, Value::Bool(is)) => Some(is.to_string().into()),
        (FieldKind::Date, Value::Text(text) | Value::Date(text)) => {
            if is_date(text) {
                quoted(text)
            } else {
                None
            }
        }
        (FieldKind::Timestamp, Value::Text(text) | Value::Date(text)) => quoted(Timestamp::new(text).ok()?.as_str()),
        (FieldKind::Json, _) => {
            let text = json::canonical(&node_of(item)?);
            let is_sound = json::parse(text.as_bytes(), crate::limits::PAYLOAD_DEPTH - 1).is_ok();
            is_sound.then(|| text.into())
        }
        _ => None,
    }
}

/// A value as JSON; `None` for what JSON has not.
fn node_of(item: &Item) -> Option<Node<'_>> {
    let value = match &item.value {
        Value::Text(text) => json::Value::String(Cow::Borrowed(text)),
        Value::Number(digits) => json::Value::Number(Cow::Borrowed(digits)),
        Value::Bool(is) => json::Value::Bool(*is),
        Value::Null => json::Value::Null,
        Value::List(items) => json::Value::Array(items.iter().map(node_of).collect::<Option<_>>()?),
        Value::Table(entries) => {
            let members = entries.iter().map(|entry| Some((Cow::Borrowed(entry.key.as_str()), node_of(&entry.item)?)));
            json::Value::Object(members.collect::<Option<_>>()?)
        }
        Value::Date(_) | Value::Unusable => return None,
    };
    Some(Node::computed(value))
}

/// Whether a field of this type can have this value.
pub(super) fn fits(kind: FieldKind, value: Decimal) -> bool {
    match kind {
        FieldKind::Integer => value.minor(0).is_some(),
        FieldKind::Decimal { scale } => value.minor(scale).is_some(),
        _ => true,
    }
}

fn example(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Text => "write a string such as \"none\"",
        FieldKind::Integer => "write an integer such as 0",
        FieldKind::Real => "write a number such as 0.5",
        FieldKind::Decimal { .. } => "write a number with at most as many digits as its scale, such as \"0.00\"",
        FieldKind::Boolean => "write true or false",
        FieldKind::Date => "write a date such as \"2026-06-03\"",
        FieldKind::Timestamp => "write a time such as \"2026-06-03T20:52:59Z\"",
        FieldKind::Json => "write a value that JSON has",
    }
}
