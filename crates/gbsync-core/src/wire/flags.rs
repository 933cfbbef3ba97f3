//! Flags: soft rules that an accepted group broke, in answers and in the log.

use super::read::{Fields, Read, WireError, each, parse, push_text};
use crate::id::RecordKey;
use crate::json::Node;
use crate::verdict::{Flag, RejectionCode};
use std::collections::BTreeSet;

/// Reads one flag.
pub(super) fn flag(node: &Node<'_>) -> Read<Flag> {
    let fields = Fields::of(node)?;
    let code = fields.text("code")?;
    let unknown = || WireError::new(format!("{code:?} is no code of a rejection")).within("code");
    let key = match fields.optional_text("entity")? {
        Some(entity) => Some(RecordKey::new(entity, fields.text("id")?).map_err(|error| WireError::new(error.to_string()))?),
        None => None,
    };
    Ok(Flag {
        code: RejectionCode::from_wire(code).ok_or_else(unknown)?,
        rule: fields.text("rule")?.to_owned(),
        message: fields.optional_text("message")?.unwrap_or_default().to_owned(),
        key,
    })
}

/// Appends a list of flags.
pub(super) fn push_flags(out: &mut String, flags: &[Flag]) {
    out.push('[');
    for (index, flag) in flags.iter().enumerate() {
        out.push_str(if index > 0 { ",{\"code\":\"" } else { "{\"code\":\"" });
        out.push_str(flag.code.as_str());
        out.push('"');
        push_text(out, "rule", &flag.rule);
        push_text(out, "message", &flag.message);
        if let Some(key) = &flag.key {
            push_text(out, "entity", key.entity.as_str());
            push_text(out, "id", key.id.as_str());
        }
        out.push('}');
    }
    out.push(']');
}

/// A list of flags as a store keeps it.
pub fn flags_json(flags: &[Flag]) -> String {
    let mut out = String::new();
    push_flags(&mut out, flags);
    out
}

/// The flags of a group, of which only the changes of these records are told; `None`: it is not known of which. Each keeps its
/// place, by which it is named.
pub(crate) fn unseen_flags_json(flags: &[Flag], told: Option<&BTreeSet<RecordKey>>) -> String {
    let of = |flag: &Flag| match &flag.key {
        Some(key) if !told.is_some_and(|told| told.contains(key)) => {
            Flag { message: "it is on a record that is not seen here".into(), key: None, ..flag.clone() }
        }
        _ => flag.clone(),
    };
    flags_json(&flags.iter().map(of).collect::<Vec<_>>())
}

/// Reads a list of flags that a store kept.
///
/// # Errors
/// [`WireError`] when it is none.
pub fn parse_flags(text: &str) -> Result<Vec<Flag>, WireError> {
    let (node, _) = parse(text.as_bytes(), 3)?;
    let items = node.as_array().ok_or_else(|| WireError::new("must be an array"))?;
    each("flags", items, flag)
}
