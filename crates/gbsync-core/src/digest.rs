//! SHA-256 in the three places the product uses it: a group's bytes, the log's chain, and the rows of a space.

use crate::id::{GroupId, RecordKey, Seq};
use crate::json::push_string;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The chain before the first group of a log: 64 zeros.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of a text.
    ///
    /// ```
    /// let digest = gbsync_core::digest::Digest::of(b"[]");
    /// assert!(digest.to_string().starts_with("4f53cda18c2baa0c"));
    /// ```
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes 32 stored bytes; `None` for another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The chain after one more log entry: SHA-256 over the hexadecimal chain before it, its `seq` in decimal, its group
    /// id and the stored bytes of its changes, joined by line feeds (docs/protocol.md, "Digests").
    ///
    /// Joined by line feeds, because an id cannot hold one: no two entries share a text.
    #[must_use]
    pub fn chained(&self, seq: Seq, group_id: &GroupId, changes: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(format!("{self}\n{seq}\n{group_id}\n"));
        hasher.update(changes);
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The digest of a space's rows: SHA-256 over `[entity,id,version,payload]\n` a live record, in byte order of entity and
/// id (docs/protocol.md, "Digests"). Two devices at one cursor must agree about it.
///
/// ```
/// use gbsync_core::{digest::RowsDigest, id::{RecordKey, Seq}};
/// let mut rows = RowsDigest::default();
/// rows.add(&RecordKey::new("receipts", "r-1").unwrap(), Seq(7), r#"{"total":"1.00"}"#);
/// assert_eq!(rows.finish().0, 1);
/// ```
#[derive(Default)]
pub struct RowsDigest {
    hasher: Sha256,
    rows: u64,
    line: String,
}

impl RowsDigest {
    /// Adds the next record in `(entity, id)` byte order.
    pub fn add(&mut self, key: &RecordKey, version: Seq, payload: &str) {
        self.line.clear();
        self.line.push('[');
        push_string(&mut self.line, key.entity.as_str());
        self.line.push(',');
        push_string(&mut self.line, key.id.as_str());
        self.line.push_str(&format!(",{version},{payload}]\n"));
        self.hasher.update(&self.line);
        self.rows += 1;
    }

    /// The number of rows and their digest.
    pub fn finish(self) -> (u64, Digest) {
        (self.rows, Digest(self.hasher.finalize().into()))
    }
}
