//! The text of a schema as one tree, whether it was TOML or JSON, with the place of every key and value.
//!
//! Invariant: the tree keeps numbers as text and every place as a byte offset into the text, so that a problem found later
//! can point at what its author wrote.
//!
//! Rejected alternative: deserializing into structs, which stops at the first mistake and forgets where it stood.

use super::problem::{Code, Problems};
use crate::json;
use std::borrow::Cow;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Most levels of tables and lists: a schema needs seven.
const DEPTH: usize = 32;

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Item {
    /// Bytes before it.
    pub at: usize,
    /// What it is.
    pub value: Value,
}

/// A value of either notation.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    /// In JSON's syntax.
    Number(String),
    Bool(bool),
    List(Vec<Item>),
    Table(Vec<Entry>),
    /// A TOML date or time, as written.
    Date(String),
    Null,
    /// `nan`, `inf`, and integers that no payload holds.
    Unusable,
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// Bytes before the key.
    pub at: usize,
    /// Its value.
    pub item: Item,
}

impl Item {
    /// What this is called in a message.
    pub fn kind_name(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Number(digits) if digits.contains(['.', 'e', 'E']) => "a number with a fraction",
            Value::Number(_) => "an integer",
            Value::Bool(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Date(_) => "a date",
            Value::Null => "null",
            Value::Unusable => "a number out of range",
        }
    }
}

/// Reads the tree; what is no TOML or no JSON becomes a problem.
pub(super) fn read(text: &str, problems: &mut Problems) -> Item {
    // JSON has no byte order mark: its parser says so.
    if text.trim_start_matches('\u{FEFF}').trim_start().starts_with('{') {
        read_json(text, problems)
    } else {
        read_toml(text, problems)
    }
}

fn read_json(text: &str, problems: &mut Problems) -> Item {
    match json::parse(text.as_bytes(), DEPTH) {
        Ok(node) => of_json(&node, text),
        Err(error) => {
            let path = error.pointer.trim_start_matches('/').replace('/', ".");
            let at = if error.kind == json::JsonErrorKind::DuplicateKey {
                last_key(text, error.offset, path.rsplit('.').next().unwrap_or_default())
            } else {
                error.offset
            };
            problems.add(at, &path, Code::Syntax, error.kind.to_string());
            Item { at: 0, value: Value::Table(Vec::new()) }
        }
    }
}

/// Where a key stands last before `end`: the parser notices a second one only where its object ends.
fn last_key(text: &str, end: usize, key: &str) -> usize {
    let mut quoted = String::new();
    json::push_string(&mut quoted, key);
    let mut places = text[..end].rmatch_indices(&quoted).map(|(place, _)| place);
    let is_key = |place: &usize| text[place + quoted.len()..].trim_start().starts_with(':');
    places.find(is_key).unwrap_or(end)
}

fn of_json(node: &json::Node<'_>, text: &str) -> Item {
    let value = match &node.value {
        json::Value::Null => Value::Null,
        json::Value::Bool(is) => Value::Bool(*is),
        json::Value::Number(digits) => Value::Number(digits.to_string()),
        json::Value::String(text) => Value::Text(text.to_string()),
        json::Value::Array(items) => Value::List(items.iter().map(|item| of_json(item, text)).collect()),
        json::Value::Object(members) => {
            let entry = |(key, member): &(Cow<'_, str>, json::Node<'_>)| Entry {
                key: key.to_string(),
                at: key_before(text, member.span().start),
                item: of_json(member, text),
            };
            Value::Table(members.iter().map(entry).collect())
        }
    };
    Item { at: node.span().start, value }
}

/// Where the key of a member begins whose value begins at `value`: the parser keeps no places of keys.
fn key_before(text: &str, value: usize) -> usize {
    let bytes = text.as_bytes();
    let end = text[..value].trim_end().trim_end_matches(':').trim_end().len().saturating_sub(1);
    let is_escaped = |quote: usize| bytes[..quote].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
    (0..end).rev().find(|place| bytes[*place] == b'"' && !is_escaped(*place)).unwrap_or(value)
}

fn read_toml(text: &str, problems: &mut Problems) -> Item {
    // A recovered tree would miss what stands around the mistake, and its absence would be reported as one more.
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        problems.add(at, "", Code::Syntax, format!("this is no TOML: {}", error.message().replace('\n', " ")));
    }
    if errors.is_empty() { of_table(0, table.get_ref()) } else { Item { at: 0, value: Value::Table(Vec::new()) } }
}

fn of_table(at: usize, table: &DeTable<'_>) -> Item {
    let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| Entry {
        key: key.get_ref().to_string(),
        at: key.span().start,
        item: of_toml(value),
    };
    let mut entries: Vec<Entry> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.at);
    Item { at, value: Value::Table(entries) }
}

fn of_toml(spanned: &Spanned<DeValue<'_>>) -> Item {
    let at = spanned.span().start;
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Number(integer.to_string()),
            Err(_) => Value::Unusable,
        },
        DeValue::Float(float) => {
            let digits = float.as_str().trim_start_matches('+').to_ascii_lowercase();
            if json::Decimal::parse(&digits).is_some() { Value::Number(digits) } else { Value::Unusable }
        }
        DeValue::Boolean(is) => Value::Bool(*is),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(of_toml).collect()),
        DeValue::Table(table) => return of_table(at, table),
    };
    Item { at, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(item: &Item) -> &[Entry] {
        match &item.value {
            Value::Table(entries) => entries,
            _ => panic!("a table"),
        }
    }

    #[test]
    fn both_notations_keep_the_places_of_keys_and_values() {
        let toml = "a = 1\n[b]\nc.d = \"x\"\n";
        let json = r#"{ "a" : 1, "b\"\\": { "c": {"d" :"x"}}}"#;
        for (text, b) in [(toml, "b"), (json, "b\"\\")] {
            let mut problems = Problems::default();
            let tree = read(text, &mut problems);
            assert!(problems.is_empty());
            let b = entries(&tree).iter().find(|entry| entry.key == b).expect("b");
            let c = &entries(&b.item)[0];
            let d = &entries(&c.item)[0];
            assert!(text[c.at..].starts_with(['c', '"']), "{}", &text[c.at..]);
            assert!(text[d.at..].trim_start_matches('"').starts_with('d'), "{}", &text[d.at..]);
            assert!(text[d.item.at..].starts_with("\"x\""));
            assert!(text[b.at..].trim_start_matches('"').starts_with('b'));
        }
    }
}
