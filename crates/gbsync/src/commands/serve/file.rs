//! A file in TOML as its keys, each with its place.

use super::settings::Value;
use std::borrow::Cow;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where something stands in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// A key of a file, or what is no TOML.
#[derive(Debug)]
pub struct Found {
    /// Its name, with that of its table and a dot before it.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// Its value, or a sentence about why it has none.
    pub value: Result<Value, String>,
}

/// Every key of a text, and everything that is no TOML in it.
pub fn read(text: &str) -> Vec<Found> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        let message = format!("this is no TOML: {}", error.message().replace('\n', " "));
        found.push(Found { key: String::new(), place: place(text, at), value: Err(message) });
    }
    // What stands around a mistake would be told of as more of them.
    if errors.is_empty() {
        flatten(text, "", table.get_ref(), &mut found);
    }
    found
}

fn flatten(text: &str, above: &str, table: &DeTable<'_>, found: &mut Vec<Found>) {
    for (key, value) in table {
        let (key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>) = (key, value);
        let name = if above.is_empty() { key.get_ref().to_string() } else { format!("{above}.{}", key.get_ref()) };
        if let DeValue::Table(table) = value.get_ref() {
            flatten(text, &name, table, found);
            continue;
        }
        // What is of no kind that a key has is told by the key's own kind.
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => match u64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Value::Number(number),
                Err(_) => Value::Text(String::new()),
            },
            _ => Value::Text(String::new()),
        };
        found.push(Found { key: name, place: place(text, key.span().start), value: Ok(value) });
    }
}

fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    Place { line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
}
