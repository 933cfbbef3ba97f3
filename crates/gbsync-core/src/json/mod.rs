//! The one strict JSON parser and the canonical form.
//!
//! Everything that comes from outside is read here before anything else sees it. `serde_json`, SQLite and PostgreSQL
//! disagree about duplicate keys, lone surrogates, NUL and big numbers, so none of them may be the first reader.
//!
//! Invariant: a [`Node`] never holds a duplicate key, a NUL, a lone surrogate, an integer beyond `i64`, a number of more
//! than 34 significant digits, or more nesting than the limit it was parsed with.
//!
//! Rejected alternative: parsing with `serde_json` and checking afterwards; by then the duplicate key is gone.

mod merge;
mod number;
mod outline;
mod parse;
mod scan;
mod walk;
mod write;

pub use merge::{compose_patches, merge_patch};
pub use number::{Decimal, add_numbers};
pub use outline::{Outline, text_of};
pub use parse::{JsonError, JsonErrorKind, parse, parse_opaque};
pub use write::{canonical, push_string};

use std::borrow::Cow;
use std::ops::Range;

/// One parsed JSON value, with the place it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Node<'a> {
    /// Where in the parsed text this value begins and ends. A text has less than 4 GiB; half the width makes half the tree.
    start: u32,
    end: u32,
    /// Levels of nesting: 0 for a scalar, 1 for an empty array or object.
    depth: u16,
    /// Whether the text of this value already is the canonical form.
    is_canonical: bool,
    /// The value itself.
    pub value: Value<'a>,
}

/// A JSON value. Numbers stay text: nothing between a price and its digits may round it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as written.
    Number(Cow<'a, str>),
    /// A string, escapes resolved.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Node<'a>>),
    /// An object, members in the order written.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// A value that was computed and not read from a text.
    pub fn computed(value: Value<'a>) -> Self {
        let depth = match &value {
            Value::Array(items) => 1 + items.iter().map(|item| item.depth).max().unwrap_or(0),
            Value::Object(members) => 1 + members.iter().map(|(_, member)| member.depth).max().unwrap_or(0),
            _ => 0,
        };
        Self { start: 0, end: 0, is_canonical: false, depth, value }
    }

    /// The bytes of the parsed text that this value was read from.
    pub fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether the text of this value already is the canonical form.
    pub fn is_canonical(&self) -> bool {
        self.is_canonical
    }

    /// Levels of nesting: 0 for a scalar, 1 for an empty array or object.
    pub fn depth(&self) -> usize {
        usize::from(self.depth)
    }

    /// The member `key` of an object; `None` for another key or when this is no object.
    ///
    /// ```
    /// let node = gbsync_core::json::parse(br#"{"total":"1.00"}"#, 64).unwrap();
    /// assert_eq!(node.member("total").and_then(|total| total.as_str()), Some("1.00"));
    /// ```
    pub fn member(&self, key: &str) -> Option<&Node<'a>> {
        match &self.value {
            Value::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, member)| member),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The digits of a number, as written.
    pub fn as_number(&self) -> Option<&str> {
        match &self.value {
            Value::Number(text) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer below 2^53, which is what `seq`, versions and counts are on the wire.
    pub fn as_count(&self) -> Option<u64> {
        self.as_number()?.parse::<u64>().ok().filter(|count| *count < (1 << 53))
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Node<'a>]> {
        match &self.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Whether this is an object.
    pub fn is_object(&self) -> bool {
        matches!(self.value, Value::Object(_))
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What this value is called in an error message.
    pub fn kind_name(&self) -> &'static str {
        match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }

    /// The canonical text of this value, borrowed from `text` when it was written canonically.
    ///
    /// `text` must be the text that this node was parsed from.
    pub fn canonical_in<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.is_canonical { Cow::Borrowed(&text[self.span()]) } else { Cow::Owned(canonical(self)) }
    }
}
