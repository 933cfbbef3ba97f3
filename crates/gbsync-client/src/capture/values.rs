//! From a column's value to JSON.

use super::rows::How;
use crate::tables::{Column, from_minor};
use gbsync_core::json::{self, Node, Value as Json, push_string};
use gbsync_core::limits::PAYLOAD_DEPTH;
use gbsync_core::schema::FieldKind;
use rusqlite::types::Value;

/// The JSON of a captured value; a sentence when it has none.
pub(super) fn json_of(column: Option<&Column>, how: How, value: &Value) -> Result<String, String> {
    let kind = column.map(|column| column.kind);
    match (value, kind) {
        (Value::Null, _) => Ok("null".to_owned()),
        (Value::Integer(minor), Some(FieldKind::Decimal { scale })) if how == How::AddMinor => Ok(from_minor(*minor, scale)),
        (Value::Integer(is_true), Some(FieldKind::Boolean)) => Ok(if *is_true == 0 { "false" } else { "true" }.to_owned()),
        (Value::Integer(number), _) => Ok(number.to_string()),
        (Value::Real(number), _) => {
            let number = serde_json::Number::from_f64(*number).ok_or("it is no finite number")?;
            Ok(number.to_string())
        }
        (Value::Text(text), Some(FieldKind::Json)) => match json::parse(text.as_bytes(), PAYLOAD_DEPTH) {
            Ok(_) => Ok(text.clone()),
            Err(error) => Err(format!("it is no JSON: {error}")),
        },
        (Value::Text(text), _) => Ok(string(text)),
        (Value::Blob(_), _) => Err("it is no text in UTF-8".to_owned()),
    }
}

/// The JSON of a value that has none of its own, for a person to see.
pub(super) fn forced(column: Option<&Column>, how: How, value: &Value) -> String {
    json_of(column, how, value).unwrap_or_else(|_| match value {
        Value::Text(text) => string(text),
        Value::Blob(bytes) => string(&String::from_utf8_lossy(bytes)),
        other => string(&format!("{other:?}")),
    })
}

fn string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    push_string(&mut json, text);
    json
}

/// A JSON object of members, in any order.
pub(super) fn object<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut json = String::from("{");
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            json.push(',');
        }
        push_string(&mut json, name);
        json.push(':');
        json.push_str(value);
    }
    json.push('}');
    json
}

/// The merge patch that makes `new` of `old`, as canonical JSON; `None` where no merge patch can, because `new` holds null
/// inside an object.
pub(super) fn patch(old: Option<&Node<'_>>, new: &Node<'_>) -> Option<String> {
    let Json::Object(members) = &new.value else { return Some(json::canonical(new)) };
    let mut parts: Vec<(String, String)> = Vec::new();
    for (name, member) in members {
        let before = old.and_then(|old| old.member(name));
        if member.is_null() {
            return None;
        }
        if before.is_none_or(|before| json::canonical(before) != json::canonical(member)) {
            parts.push((name.to_string(), patch(before, member)?));
        }
    }
    if let Some(Json::Object(gone)) = old.map(|old| &old.value) {
        let gone = gone.iter().filter(|(name, _)| new.member(name).is_none());
        parts.extend(gone.map(|(name, _)| (name.to_string(), "null".to_owned())));
    }
    Some(object(parts.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_makes_the_new_value_of_the_old_one() {
        let made = |old: &str, new: &str| {
            let (old_node, new_node) =
                (json::parse(old.as_bytes(), 64).expect(old), json::parse(new.as_bytes(), 64).expect(new));
            let patch = patch(Some(&old_node), &new_node)?;
            let patch_node = json::parse(patch.as_bytes(), 64).expect("a patch is JSON");
            Some(json::canonical(&json::merge_patch(Some(old_node), patch_node)))
        };
        for (old, new) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
            (r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"y":3}}"#),
            (r#"{"a":[1]}"#, r#"{"a":{"b":1}}"#),
            (r#""text""#, r#"{"a":{}}"#),
            (r#"{"a":1}"#, "7"),
            ("{}", "{}"),
        ] {
            assert_eq!(made(old, new).as_deref(), Some(new), "{old} -> {new}");
        }
        assert_eq!(made("{}", r#"{"a":null}"#), None);
    }
}
