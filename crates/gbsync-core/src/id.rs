//! Newtypes of every id and number. An id that exists in memory is a valid one.

use crate::limits::{GROUP_ID_BYTES, ID_BYTES};
use std::fmt;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct InvalidId {
    /// What the text was to be, e.g. `entity`.
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: IdProblem,
}

/// What is wrong with a text that was to be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdProblem {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Over the limit.
    #[error("has {bytes} bytes, over the limit of {limit}")]
    TooLong {
        /// Bytes it has.
        bytes: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// U+0000 to U+001F or U+007F to U+009F.
    #[error("has a control character")]
    ControlCharacter,
}

fn check(what: &'static str, text: &str, limit: usize) -> Result<(), InvalidId> {
    let problem = if text.is_empty() {
        IdProblem::Empty
    } else if text.len() > limit {
        IdProblem::TooLong { bytes: text.len(), limit }
    } else if has_control(text) {
        IdProblem::ControlCharacter
    } else {
        return Ok(());
    };
    Err(InvalidId { what, problem })
}

/// U+0000 to U+001F, U+007F, and U+0080 to U+009F, which UTF-8 writes as C2 and then 80 to 9F.
fn has_control(text: &str) -> bool {
    let is_ascii_control = |byte: &u8| *byte < 0x20 || *byte == 0x7F;
    text.bytes().any(|byte| is_ascii_control(&byte)) || (!text.is_ascii() && text.chars().any(char::is_control))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks a text: not empty, within the limit of bytes, no control character.
            ///
            /// # Errors
            /// [`InvalidId`] says what is wrong.
            pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidId> {
                let text = text.into();
                check($what, &text, $limit)?;
                Ok(Self(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(/** The kind of a record, e.g. `receipts`. */ Entity, "entity", ID_BYTES);
text_id!(/** A record's id, unique in its entity. */ RecordId, "id", ID_BYTES);
text_id!(/** The kind of an operation, e.g. `receipt-create`. */ GroupType, "syncGroupType", ID_BYTES);
text_id!(/** A group's id: minted on the device, never rewritten, opaque to the server. */ GroupId, "syncGroupId", GROUP_ID_BYTES);
text_id!(/** One installation. */ DeviceId, "device", ID_BYTES);
text_id!(/** One life of a device's database: a restored or cloned one begins another. */ EpochId, "epoch", ID_BYTES);
text_id!(/** One request to push; for tracing only. */ BatchId, "batch", ID_BYTES);
text_id!(/** A unit of tenancy. */ SpaceId, "space", ID_BYTES);
text_id!(/** One log of a space; a restored server begins another. */ LogId, "log", ID_BYTES);
text_id!(/** The person or service that made a group. */ Actor, "actor", ID_BYTES);
text_id!(/** What a token lets its bearer do. */ Role, "role", ID_BYTES);
text_id!(/** A part of a space, e.g. one shop: the value of the field that says where a record lies. */ Scope, "scope", ID_BYTES);

impl GroupId {
    /// Mints the id of an operation's group: `{type}:{root}:{uuid}`.
    ///
    /// `type` and `root` are trimmed, and every character outside `[A-Za-z0-9_-]` becomes `-`.
    ///
    /// # Errors
    /// [`InvalidId`] when `root` is empty or longer than an id may be.
    ///
    /// ```
    /// use gbsync_core::id::{GroupId, GroupType};
    /// let kind = GroupType::new("receipt create").unwrap();
    /// let id = GroupId::mint(&kind, " r/1 ", "0192-uuid").unwrap();
    /// assert_eq!(id.as_str(), "receipt-create:r-1:0192-uuid");
    /// ```
    pub fn mint(group_type: &GroupType, root: &str, uuid: &str) -> Result<Self, InvalidId> {
        check("root", root.trim(), ID_BYTES)?;
        check("syncGroupType", group_type.as_str().trim(), ID_BYTES)?;
        Self::new(format!("{}:{}:{uuid}", cleaned(group_type.as_str()), cleaned(root)))
    }

    /// Mints the id of a group without a type: `change:{entity}-{id}:{uuid}`, cleaned the same way.
    pub fn mint_single(key: &RecordKey, uuid: &str) -> Self {
        let root = cleaned(&format!("{}-{}", key.entity, key.id));
        Self::new(format!("change:{root}:{uuid}")).expect("an entity, an id and a UUID are within a group id's limit")
    }
}

fn cleaned(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    text.trim().chars().map(keep).collect()
}

/// What names a record: its entity and its id. Ordered by their bytes, entity first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// The kind of record.
    pub entity: Entity,
    /// Its id in that entity.
    pub id: RecordId,
}

impl RecordKey {
    /// Checks both parts.
    ///
    /// # Errors
    /// [`InvalidId`] of the first part that is none.
    ///
    /// ```
    /// assert_eq!(gbsync_core::id::RecordKey::new("receipts", "r-1").unwrap().to_string(), "receipts:r-1");
    /// ```
    pub fn new(entity: &str, id: &str) -> Result<Self, InvalidId> {
        Ok(Self { entity: Entity::new(entity)?, id: RecordId::new(id)? })
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.entity, self.id)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(/** A position in a space's log: 1 is the first group, 0 is before it. Below 2^53. */ Seq);
number!(/** The number of a group on its device and epoch: without gaps from 1. Below 2^53. */ DeviceSeq);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded_and_free_of_control_characters() {
        assert_eq!(Entity::new("").expect_err("empty").problem, IdProblem::Empty);
        assert_eq!(Entity::new("a\u{0}b").expect_err("NUL").problem, IdProblem::ControlCharacter);
        assert_eq!(Entity::new("a\u{85}").expect_err("NEL").problem, IdProblem::ControlCharacter);
        assert!(Entity::new("é".repeat(128)).is_ok());
        assert!(Entity::new("é".repeat(129)).is_err());
    }

    #[test]
    fn the_longest_minted_ids_fit() {
        let (entity, id) = ("e".repeat(256), "i".repeat(256));
        let key = RecordKey::new(&entity, &id).expect("at the limit");
        let uuid = "0192d4e0-7b7a-7cc3-8a2f-3c1d5e6f7a8b";
        assert_eq!(GroupId::mint_single(&key, uuid).as_str().len(), 7 + 256 + 1 + 256 + 1 + 36);
        let kind = GroupType::new(entity.as_str()).expect("at the limit");
        assert!(GroupId::mint(&kind, &id, uuid).is_ok());
        assert!(GroupId::mint(&kind, "  ", uuid).is_err());
    }
}
