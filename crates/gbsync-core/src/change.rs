//! One edit of one record.

use crate::id::{GroupId, RecordKey, Seq};
use crate::json::{self, Node, Outline, push_string};
use crate::limits::{Limits, PAYLOAD_DEPTH};

/// A record's JSON object in canonical form, within the limits of size and depth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(Box<str>);

/// Why a text is no payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPayload {
    /// The text is not strict JSON.
    #[error("the payload cannot be read: {0}")]
    Json(#[from] json::JsonError),
    /// The value is not an object.
    #[error("the payload must be a JSON object, not {0}")]
    NotAnObject(&'static str),
    /// Too deep.
    #[error("the payload is nested deeper than {PAYLOAD_DEPTH} levels")]
    TooDeep,
    /// Too long in canonical form.
    #[error("the payload has {bytes} bytes, over the limit of {limit}")]
    TooLarge {
        /// Bytes it has.
        bytes: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// A delta of an increment is not a number.
    #[error("an increment's field {0:?} must be a number")]
    NotANumber(String),
    /// An increment without a field.
    #[error("the payload names no field")]
    NoField,
}

impl Payload {
    /// Reads a payload from a text.
    ///
    /// # Errors
    /// [`InvalidPayload`] says what is wrong.
    ///
    /// ```
    /// use gbsync_core::{change::Payload, limits::Limits};
    /// let payload = Payload::parse(r#"{ "b":1, "a":2 }"#, &Limits::default()).unwrap();
    /// assert_eq!(payload.as_str(), r#"{"a":2,"b":1}"#);
    /// ```
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, InvalidPayload> {
        let node = json::parse(text.as_bytes(), PAYLOAD_DEPTH)?;
        Self::from_node(&node, text, limits)
    }

    /// Takes a parsed value; `text` is the text it was parsed from.
    ///
    /// # Errors
    /// [`InvalidPayload`] says what is wrong.
    pub fn from_node(node: &Node<'_>, text: &str, limits: &Limits) -> Result<Self, InvalidPayload> {
        if !node.is_object() {
            return Err(InvalidPayload::NotAnObject(node.kind_name()));
        }
        if node.depth() > PAYLOAD_DEPTH {
            return Err(InvalidPayload::TooDeep);
        }
        let canonical = node.canonical_in(text);
        let bytes = canonical.len() as u64;
        if bytes > limits.payload_bytes {
            return Err(InvalidPayload::TooLarge { bytes, limit: limits.payload_bytes });
        }
        Ok(Self(canonical.into()))
    }

    /// Takes a text that this product stored in canonical form itself.
    pub fn from_stored(canonical: impl Into<Box<str>>) -> Self {
        Self(canonical.into())
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, parsed again.
    pub fn node(&self) -> Node<'_> {
        json::parse(self.0.as_bytes(), PAYLOAD_DEPTH + 1).expect("a payload is canonical JSON")
    }

    /// The members as text, for those who want to know a field or two.
    pub(crate) fn outline(&self) -> Outline<'_> {
        Outline::of(&self.0)
    }
}

/// What a change does to its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The record shall be this, whatever it was.
    Upsert(Payload),
    /// An RFC 7396 merge patch of a record that exists.
    Patch(Payload),
    /// Numeric deltas by field, added to a record that exists. Commutes with other increments.
    Increment(Payload),
    /// The record shall be gone.
    Delete,
}

impl Edit {
    /// The word on the wire: `upsert`, `patch`, `increment` or `delete`.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Upsert(_) => "upsert",
            Self::Patch(_) => "patch",
            Self::Increment(_) => "increment",
            Self::Delete => "delete",
        }
    }

    /// The payload, for every edit but a delete.
    pub fn payload(&self) -> Option<&Payload> {
        match self {
            Self::Upsert(payload) | Self::Patch(payload) | Self::Increment(payload) => Some(payload),
            Self::Delete => None,
        }
    }

    /// Whether this only adds to fields.
    pub fn is_increment(&self) -> bool {
        matches!(self, Self::Increment(_))
    }
}

/// The confirmed state that a change was made on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base {
    /// The record's edit version when the operation first touched it; 0 if it did not exist.
    pub version: Seq,
    /// The last group of the device's own overlay that edited the record, if one had.
    pub group: Option<GroupId>,
}

/// One edit of one record, with the base it was made on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The record.
    pub key: RecordKey,
    /// What is done to it.
    pub edit: Edit,
    /// What it was done on. An increment has none.
    pub base: Base,
}

impl Change {
    /// Puts a change together and refuses an increment whose fields are not numbers.
    ///
    /// # Errors
    /// [`InvalidPayload::NotANumber`] names the field; [`InvalidPayload::NoField`] an increment of nothing.
    ///
    /// ```
    /// use gbsync_core::{change::*, id::RecordKey, limits::Limits};
    /// let delta = Payload::parse(r#"{"quantity":"three"}"#, &Limits::default()).unwrap();
    /// let key = RecordKey::new("stock", "paper-roll").unwrap();
    /// assert!(Change::new(key, Edit::Increment(delta), Base::default()).is_err());
    /// ```
    pub fn new(key: RecordKey, edit: Edit, base: Base) -> Result<Self, InvalidPayload> {
        if let Edit::Increment(payload) = &edit {
            check_deltas(&payload.node())?;
        }
        let base = if edit.is_increment() { Base::default() } else { base };
        Ok(Self { key, edit, base })
    }

    /// Appends the change in wire form. These bytes are digested when the group is sealed and never written anew.
    pub fn push_json(&self, out: &mut String) {
        out.push_str("{\"entity\":");
        push_string(out, self.key.entity.as_str());
        out.push_str(",\"id\":");
        push_string(out, self.key.id.as_str());
        out.push_str(",\"action\":\"");
        out.push_str(self.edit.action());
        out.push('"');
        if !self.edit.is_increment() {
            out.push_str(&format!(",\"baseVersion\":{}", self.base.version));
        }
        if let Some(group) = &self.base.group {
            out.push_str(",\"baseGroup\":");
            push_string(out, group.as_str());
        }
        if let Some(payload) = self.edit.payload() {
            out.push_str(",\"payload\":");
            out.push_str(payload.as_str());
        }
        out.push('}');
    }
}

fn check_deltas(node: &Node<'_>) -> Result<(), InvalidPayload> {
    let json::Value::Object(members) = &node.value else {
        return Err(InvalidPayload::NotAnObject(node.kind_name()));
    };
    if members.is_empty() {
        return Err(InvalidPayload::NoField);
    }
    match members.iter().find(|(_, delta)| delta.as_number().is_none()) {
        Some((field, _)) => Err(InvalidPayload::NotANumber(field.to_string())),
        None => Ok(()),
    }
}
