//! The canonical form: keys by UTF-8 bytes, no white space, string escapes of RFC 8785 section 3.2.2.2, numbers as read.

use super::{Node, Value};
use std::borrow::Cow;

/// The canonical text of a value.
///
/// Keys are sorted by their UTF-8 bytes (RFC 8785 sorts by UTF-16 units; bytes are what SQLite, PostgreSQL's `C`
/// collation and every language's byte strings agree about).
///
/// ```
/// use gbsync_core::json::{canonical, parse};
/// let node = parse(br#" { "b" : 1e2, "a" : "\u00e9\/" } "#, 64).unwrap();
/// assert_eq!(canonical(&node), r#"{"a":"é/","b":1e2}"#);
/// ```
pub fn canonical(node: &Node<'_>) -> String {
    let mut out = String::with_capacity(node.span().len());
    push_value(&mut out, node);
    out
}

fn push_value(out: &mut String, node: &Node<'_>) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(digits) => out.push_str(digits),
        Value::String(text) => push_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_value(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => push_object(out, members),
    }
}

fn push_object(out: &mut String, members: &[(Cow<'_, str>, Node<'_>)]) {
    let mut push_members = |members: &mut dyn Iterator<Item = &(Cow<'_, str>, Node<'_>)>| {
        out.push('{');
        for (index, (key, member)) in members.enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(out, key);
            out.push(':');
            push_value(out, member);
        }
        out.push('}');
    };
    if members.is_sorted_by(|a, b| a.0.as_bytes() < b.0.as_bytes()) {
        push_members(&mut members.iter());
    } else {
        let mut sorted: Vec<_> = members.iter().collect();
        sorted.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        push_members(&mut sorted.into_iter());
    }
}

/// Appends `text` as a JSON string with the fewest escapes: only `"`, `\` and control characters.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..index]);
        plain = index + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x09 => out.push_str("\\t"),
            0x0A => out.push_str("\\n"),
            0x0C => out.push_str("\\f"),
            0x0D => out.push_str("\\r"),
            control => {
                out.push_str("\\u00");
                out.push(char::from(b'0' + (control >> 4)));
                out.push(char::from_digit(u32::from(control & 15), 16).expect("four bits are one hex digit"));
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}
