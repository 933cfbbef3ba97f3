//! Every bound of the product, with its unit. Defaults as in docs/protocol.md, "Limits"; a server reports its own at the handshake.

/// Most levels of arrays and objects in a payload.
pub const PAYLOAD_DEPTH: usize = 64;
/// Levels that a message adds around a payload: request, groups, group, changes, change.
pub const ENVELOPE_DEPTH: usize = 5;
/// Most bytes of an entity's name, a record's id and every other id but a group's.
pub const ID_BYTES: usize = 256;
/// Most bytes of a group id.
pub const GROUP_ID_BYTES: usize = 600;
/// Most groups that one group may name as those it depends on.
pub const DEPENDENCIES: usize = 10_000;
/// Most ids in one question about verdicts.
pub const VERDICT_IDS: usize = 10_000;
/// Most parts that a group may be sent in.
pub const GROUP_PARTS: u64 = 65_536;
/// Most numbers of missing parts that one answer names.
pub const MISSING_PARTS: usize = 1_000;
/// How often a group that arrived incomplete is sent again before it is parked.
pub const INCOMPLETE_ATTEMPTS: u32 = 5;
/// Most bytes of a schema's text.
pub const SCHEMA_BYTES: usize = 1024 * 1024;
/// Most entities, operation types and sequences of a schema, each.
pub const SCHEMA_ENTITIES: usize = 1_000;
/// Most fields that an entity declares.
pub const SCHEMA_FIELDS: usize = 500;
/// Most rules in CEL of one entity or operation, and most lists of unique or indexed fields.
pub const SCHEMA_RULES: usize = 100;
/// Most bytes of one rule in CEL.
pub const EXPRESSION_BYTES: usize = 4 * 1024;
/// Most brackets open at one place of a rule: the compiler of CEL takes up to 160 KiB of the stack for each.
pub const EXPRESSION_BRACKETS: usize = 8;
/// Most members, calls and signs of operators in a row at one place of a rule, without `&&`, `||`, `?` or a comma.
pub const EXPRESSION_LINKS: usize = 128;
/// Most levels of a compiled rule, which is evaluated by recursion.
pub const EXPRESSION_DEPTH: usize = 64;

/// Most earlier places of the log that a handshake names.
pub const KNOWN_PLACES: usize = 48;

/// Most logs that a group tells to have lost it.
pub const LOST_PLACES: usize = 16;

/// Most bases of a group whose groups it names.
pub const NAMED_BASES: usize = 1_000;

/// How far a group's clock may be ahead of the server's, in milliseconds.
pub const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;

/// The bounds that a server sets and a device keeps.
///
/// ```
/// assert_eq!(gbsync_core::limits::Limits::default().batch_records, 40);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Changes after which a batch closes.
    pub batch_records: u64,
    /// Bytes of groups in wire form after which a batch closes.
    pub batch_bytes: u64,
    /// Bytes of one request's body, after decompression.
    pub request_bytes: u64,
    /// Changes in one group.
    pub group_records: u64,
    /// Bytes of one group's changes.
    pub group_bytes: u64,
    /// Bytes of one payload in canonical form.
    pub payload_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_records: 40,
            batch_bytes: 512 * 1024,
            request_bytes: 1024 * 1024,
            group_records: 10_000,
            group_bytes: 64 * 1024 * 1024,
            payload_bytes: 256 * 1024,
        }
    }
}

/// Most bytes of the reason for a discard or another resolution.
pub const REASON_BYTES: usize = 4096;
