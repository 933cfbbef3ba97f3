//! Reading fields out of parsed messages, with pointers in the errors.

use crate::id::InvalidId;
use crate::json::{self, JsonError, Node, Value};

/// A message that is not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", if pointer.is_empty() { String::new() } else { format!(" (at {pointer})") })]
pub struct WireError {
    /// RFC 6901 pointer to the value at fault; empty for the whole text.
    pub pointer: String,
    /// What is wrong, for people.
    pub message: String,
}

impl From<JsonError> for WireError {
    fn from(error: JsonError) -> Self {
        Self { pointer: error.pointer.clone(), message: format!("{} at byte {}", error.kind, error.offset) }
    }
}

pub(super) type Read<T> = Result<T, WireError>;

impl WireError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { pointer: String::new(), message: message.into() }
    }

    /// The same error seen from one level further out.
    pub(super) fn within(mut self, step: impl std::fmt::Display) -> Self {
        self.pointer = format!("/{step}{}", self.pointer);
        self
    }
}

/// An object of a message.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n, 'a> {
    node: &'n Node<'a>,
}

impl<'n, 'a> Fields<'n, 'a> {
    pub(super) fn of(node: &'n Node<'a>) -> Read<Self> {
        if node.is_object() {
            return Ok(Self { node });
        }
        Err(WireError::new(format!("must be an object, not {}", node.kind_name())))
    }

    /// A member that is there and not null.
    pub(super) fn optional(&self, name: &'static str) -> Option<&'n Node<'a>> {
        self.node.member(name).filter(|member| !member.is_null())
    }

    pub(super) fn required(&self, name: &'static str) -> Read<&'n Node<'a>> {
        self.node.member(name).ok_or_else(|| WireError::new("is required").within(name))
    }

    pub(super) fn text(&self, name: &'static str) -> Read<&'n str> {
        let node = self.required(name)?;
        node.as_str().ok_or_else(|| wrong(node, "a string").within(name))
    }

    pub(super) fn optional_text(&self, name: &'static str) -> Read<Option<&'n str>> {
        let Some(node) = self.optional(name) else { return Ok(None) };
        node.as_str().map(Some).ok_or_else(|| wrong(node, "a string").within(name))
    }

    pub(super) fn count(&self, name: &'static str) -> Read<u64> {
        let node = self.required(name)?;
        node.as_count().ok_or_else(|| wrong(node, "an integer from 0 to below 2^53").within(name))
    }

    pub(super) fn optional_count(&self, name: &'static str) -> Read<Option<u64>> {
        if self.optional(name).is_some() { self.count(name).map(Some) } else { Ok(None) }
    }

    pub(super) fn optional_flag(&self, name: &'static str) -> Read<Option<bool>> {
        match self.optional(name).map(|node| (node, &node.value)) {
            None => Ok(None),
            Some((_, Value::Bool(flag))) => Ok(Some(*flag)),
            Some((node, _)) => Err(wrong(node, "true or false").within(name)),
        }
    }

    pub(super) fn array(&self, name: &'static str) -> Read<&'n [Node<'a>]> {
        let node = self.required(name)?;
        node.as_array().ok_or_else(|| wrong(node, "an array").within(name))
    }

    pub(super) fn optional_array(&self, name: &'static str) -> Read<&'n [Node<'a>]> {
        if self.optional(name).is_some() { self.array(name) } else { Ok(&[]) }
    }

    pub(super) fn id<T>(&self, name: &'static str, new: impl Fn(&str) -> Result<T, InvalidId>) -> Read<T> {
        new(self.text(name)?).map_err(|error| WireError::new(error.to_string()).within(name))
    }

    pub(super) fn optional_id<T>(&self, name: &'static str, new: impl Fn(&str) -> Result<T, InvalidId>) -> Read<Option<T>> {
        if self.optional(name).is_some() { self.id(name, new).map(Some) } else { Ok(None) }
    }
}

pub(super) fn wrong(node: &Node<'_>, expected: &str) -> WireError {
    WireError::new(format!("must be {expected}, not {}", node.kind_name()))
}

/// Reads the items of an array, each with its place in the error's pointer.
pub(super) fn each<'n, 'a, T>(name: &str, items: &'n [Node<'a>], read: impl Fn(&'n Node<'a>) -> Read<T>) -> Read<Vec<T>> {
    let within = |(index, item)| read(item).map_err(|error: WireError| error.within(index).within(name));
    let mut read = Vec::with_capacity(items.len());
    for item in items.iter().enumerate() {
        read.push(within(item)?);
    }
    Ok(read)
}

/// An id in a list.
pub(super) fn id_item<T>(node: &Node<'_>, new: impl Fn(&str) -> Result<T, InvalidId>) -> Read<T> {
    let text = node.as_str().ok_or_else(|| wrong(node, "a string"))?;
    new(text).map_err(|error| WireError::new(error.to_string()))
}

pub(super) fn parse<'a>(text: &'a [u8], depth: usize) -> Read<(Node<'a>, &'a str)> {
    let node = json::parse(text, depth)?;
    let text = std::str::from_utf8(text).map_err(|_| WireError::new("the text is not valid UTF-8"))?;
    Ok((node, text))
}

/// As [`parse`], where the members of payloads are not looked at.
pub(super) fn parse_passing<'a>(text: &'a [u8], depth: usize) -> Read<(Node<'a>, &'a str)> {
    let node = json::parse_opaque(text, depth, "payload")?;
    let text = std::str::from_utf8(text).map_err(|_| WireError::new("the text is not valid UTF-8"))?;
    Ok((node, text))
}

/// More bytes than most messages have around their lists.
pub(super) const ENVELOPE_BYTES: usize = 512;

/// Appends texts with commas between them.
pub(super) fn push_joined(out: &mut String, texts: &[&str]) {
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(text);
    }
}

/// Appends `,"name":"text"`.
pub(super) fn push_text(out: &mut String, name: &str, text: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    json::push_string(out, text);
}

/// Appends `,"name":number`.
pub(super) fn push_count(out: &mut String, name: &str, count: u64) {
    out.push_str(&format!(",\"{name}\":{count}"));
}
