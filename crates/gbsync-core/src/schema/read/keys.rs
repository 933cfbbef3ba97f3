//! One table of a schema's text: its keys, taken with their types, everything else reported.

use super::super::problem::{Code, Problems, nearest};
use super::super::source::{Entry, Item, Value};
use crate::json::Decimal;

/// The keys of one table.
pub(super) struct Keys<'i> {
    /// What leads here, e.g. `entities.receipts`.
    pub path: String,
    /// Bytes before the table's own key.
    pub at: usize,
    entries: &'i [Entry],
}

impl<'i> Keys<'i> {
    /// The keys of a value that has to be a table.
    pub fn of(item: &'i Item, at: usize, path: String, problems: &mut Problems) -> Option<Self> {
        match &item.value {
            Value::Table(entries) => Some(Self { path, at, entries }),
            _ => {
                wrong_type(item, &path, "a table", problems);
                None
            }
        }
    }

    /// Where a key of this table stands in the text.
    pub fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Reports every key that is none of these.
    pub fn only(&self, known: &[&str], problems: &mut Problems) {
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let (path, key) = (self.path_of(&entry.key), &entry.key);
            problems.add_unknown(entry.at, &path, Code::UnknownKey, format!("unknown key {key:?}"), key, known);
        }
    }

    /// Whether a key that is missing stands here with a slip of the pen, which is reported already.
    pub fn is_misspelt(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key != key && nearest(&entry.key, std::iter::once(key)).is_some())
    }

    /// All of them, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &'i Entry> + use<'i> {
        self.entries.iter()
    }

    /// One of them.
    pub fn find(&self, key: &str) -> Option<&'i Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Where a key stands, or else the table.
    pub fn place(&self, key: &str) -> usize {
        self.find(key).map_or(self.at, |entry| entry.at)
    }

    /// A table of named things, such as the entities.
    pub fn named(&self, key: &str, most: usize, problems: &mut Problems) -> Vec<&'i Entry> {
        let Some(entry) = self.find(key) else { return Vec::new() };
        let Some(keys) = Keys::of(&entry.item, entry.at, self.path_of(key), problems) else { return Vec::new() };
        let count = keys.entries.len();
        if count > most {
            let message = format!("{count} {key} are over the limit of {most}");
            problems.add(entry.at, &self.path_of(key), Code::TooLarge, message);
        }
        keys.iter().take(most).collect()
    }

    /// A string.
    pub fn text(&self, key: &str, problems: &mut Problems) -> Option<(&'i str, usize)> {
        let entry = self.find(key)?;
        text(&entry.item, &self.path_of(key), problems).map(|text| (text, entry.item.at))
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &str, problems: &mut Problems) -> Option<bool> {
        let entry = self.find(key)?;
        match entry.item.value {
            Value::Bool(is) => Some(is),
            _ => {
                wrong_type(&entry.item, &self.path_of(key), "true or false", problems);
                None
            }
        }
    }

    /// An integer from 0.
    pub fn count(&self, key: &str, problems: &mut Problems) -> Option<u64> {
        let entry = self.find(key)?;
        let Value::Number(digits) = &entry.item.value else {
            wrong_type(&entry.item, &self.path_of(key), "an integer", problems);
            return None;
        };
        let count = digits.parse::<u64>().ok().filter(|count| *count < (1 << 53));
        if count.is_none() {
            let message = format!("{key} must be an integer from 0, not {digits}");
            problems.add(entry.item.at, &self.path_of(key), Code::OutOfRange, message);
        }
        count
    }

    /// An exact number, also written as a string.
    pub fn decimal(&self, key: &str, problems: &mut Problems) -> Option<Decimal> {
        let entry = self.find(key)?;
        let decimal = match &entry.item.value {
            Value::Number(digits) | Value::Text(digits) => Decimal::parse(digits),
            _ => None,
        };
        if decimal.is_none() {
            wrong_type(&entry.item, &self.path_of(key), "a number", problems);
        }
        decimal
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let (word, at) = self.text(key, problems)?;
        let found = words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
            let message = format!("{key} cannot be {word:?}");
            problems.add_unknown(at, &self.path_of(key), Code::UnknownValue, message, word, &known);
        }
        found
    }

    /// The items of a list.
    pub fn list(&self, key: &str, most: usize, problems: &mut Problems) -> Option<&'i [Item]> {
        let entry = self.find(key)?;
        let path = self.path_of(key);
        let items = list(&entry.item, &path, problems)?;
        if items.len() > most {
            let message = format!("{} items are over the limit of {most}", items.len());
            problems.add(entry.at, &path, Code::TooLarge, message);
            return None;
        }
        Some(items)
    }
}

/// The text of a string.
pub(super) fn text<'i>(item: &'i Item, path: &str, problems: &mut Problems) -> Option<&'i str> {
    match &item.value {
        Value::Text(text) => Some(text),
        _ => {
            wrong_type(item, path, "a string", problems);
            None
        }
    }
}

/// The text of one string of a list.
pub(super) fn text_in_list<'i>(item: &'i Item, path: &str, problems: &mut Problems) -> Option<&'i str> {
    match &item.value {
        Value::Text(text) => Some(text),
        _ => {
            let key = path.rsplit('.').next().unwrap_or_default();
            let message = format!("each item of {key} must be a string, not {}", item.kind_name());
            problems.add(item.at, path, Code::WrongType, message);
            None
        }
    }
}

/// The items of a list.
pub(super) fn list<'i>(item: &'i Item, path: &str, problems: &mut Problems) -> Option<&'i [Item]> {
    match &item.value {
        Value::List(items) => Some(items),
        _ => {
            wrong_type(item, path, "a list", problems);
            None
        }
    }
}

/// Reports a value of another type.
pub(super) fn wrong_type(item: &Item, path: &str, expected: &str, problems: &mut Problems) {
    let key = path.rsplit('.').next().unwrap_or_default();
    let message = format!("{key} must be {expected}, not {}", item.kind_name());
    problems.add(item.at, path, Code::WrongType, message);
}

/// A path with one more key.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
