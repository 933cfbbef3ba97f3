//! What the server says of a group. A verdict is a value, not an error.

use crate::id::{Actor, GroupId, RecordKey, Seq};
use crate::scope::{Reach, ScopeSet};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* #[doc = concat!("(`", $text, "`)")] $variant,)*
        }

        impl $name {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word on the wire; never changes.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The code with this word.
            pub fn from_wire(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

codes! {
    /// Why a group was rejected (docs/protocol.md, "How a group is decided"). All but `group_id_reused` and `clock_skew` are final.
    RejectionCode {
        /// A change was made on a state that is no longer the record's.
        Conflict = "conflict",
        /// Every change lost against a later one.
        Superseded = "superseded",
        /// A payload does not fit the schema, or a number is added to something else.
        SchemaViolation = "schema_violation",
        /// A value that must be unique is taken.
        DuplicateValue = "duplicate_value",
        /// A reference points nowhere.
        DanglingReference = "dangling_reference",
        /// A deleted record is referenced.
        StillReferenced = "still_referenced",
        /// The group does not look like its operation.
        ShapeViolation = "shape_violation",
        /// A rule of the operation does not hold.
        InvariantViolation = "invariant_violation",
        /// A counter would leave its bounds.
        BoundViolation = "bound_violation",
        /// The group reaches beyond its scope.
        ScopeViolation = "scope_violation",
        /// The actor may not do this.
        NotPermitted = "not_permitted",
        /// A limit of groups or payloads is exceeded.
        TooLarge = "too_large",
        /// A group it depends on was rejected.
        DependencyRejected = "dependency_rejected",
        /// The group it replaces was accepted, or another replacement was.
        AlreadyReplaced = "already_replaced",
        /// It was discarded on request.
        Discarded = "discarded",
        /// Its base belongs to a log that this server does not know.
        BaseLost = "base_lost",
        /// The id stands for another content.
        GroupIdReused = "group_id_reused",
        /// Its clock is too far ahead.
        ClockSkew = "clock_skew",
    }
}

impl RejectionCode {
    /// Whether a verdict with this code stands for ever.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::GroupIdReused | Self::ClockSkew)
    }
}

codes! {
    /// What is wrong with one change of a rejected group.
    ChangeCode {
        /// The record was edited since the base.
        VersionConflict = "version_conflict",
        /// The record was deleted.
        Deleted = "deleted",
        /// The record exists, and its author did not know it.
        Exists = "exists",
        /// The record never was.
        Missing = "missing",
        /// The change does not fit the record: see the group's code.
        Invalid = "invalid",
    }
}

codes! {
    /// How a rejection was closed.
    ResolvedAs {
        /// Another group took effect in its place.
        Amended = "amended",
        /// Nobody wants it any more.
        Discarded = "discarded",
        /// Another operation made up for it.
        Compensated = "compensated",
    }
}

/// How somebody closed a rejection, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The rejected group.
    pub of: GroupId,
    /// How it was closed.
    pub resolved_as: ResolvedAs,
    /// The group that took its place or made up for it.
    pub by: Option<GroupId>,
    /// Who closed it.
    pub actor: Option<Actor>,
    /// Why.
    pub reason: Option<String>,
}

/// The record as the server holds it, beside a change that it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentRecord {
    /// The `seq` that last changed it.
    pub version: Seq,
    /// The payload in canonical form; `None` for a tombstone.
    pub payload: Option<Box<str>>,
    /// Where it was seen then; a server keeps it, and takes it out before it answers.
    pub reach: Reach,
}

/// One change at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedChange {
    /// Its place in the group.
    pub index: usize,
    /// Its record.
    pub key: RecordKey,
    /// What is wrong.
    pub code: ChangeCode,
    /// The record as it is, where there is one and the token may see it.
    pub current: Option<CurrentRecord>,
}

/// Why a group was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The stable code.
    pub code: RejectionCode,
    /// A sentence for people.
    pub message: String,
    /// The rule at fault, where a rule is.
    pub rule: Option<String>,
    /// The changes at fault.
    pub changes: Vec<RefusedChange>,
}

impl Rejection {
    /// Takes out the records that the holder of these scopes does not see, and where the others are seen.
    pub fn hide_from(&mut self, scopes: &ScopeSet) {
        for change in &mut self.changes {
            change.current = change.current.take().filter(|current| scopes.sees(&current.reach));
        }
    }

    /// What is told to the holder of these scopes.
    #[must_use]
    pub fn told_to(mut self, scopes: &ScopeSet) -> Self {
        self.hide_from(scopes);
        self.changes
            .iter_mut()
            .filter_map(|change| change.current.as_mut())
            .for_each(|current| current.reach = Reach::Everywhere);
        self
    }
}

/// A soft rule that an accepted group broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The code that its rejection would have had.
    pub code: RejectionCode,
    /// The rule.
    pub rule: String,
    /// A sentence for people.
    pub message: String,
    /// The record at fault, where one is.
    pub key: Option<RecordKey>,
}

/// What the server says of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect.
    Accepted {
        /// Its place in the log.
        seq: Seq,
        /// Whether this was decided before.
        is_duplicate: bool,
        /// Soft rules that it broke.
        flags: Vec<Flag>,
    },
    /// It did not and will not.
    Rejected {
        /// Why.
        rejection: Rejection,
        /// Whether this was decided before.
        is_duplicate: bool,
    },
    /// It waits for these.
    Blocked {
        /// Groups the server has not accepted.
        by: Vec<GroupId>,
    },
    /// It arrived damaged; send it again.
    Incomplete {
        /// What does not fit.
        message: String,
        /// Of a group in parts: the parts that are not there, or the first of them.
        missing: Vec<u64>,
    },
    /// The server was asked about a group it has not decided.
    Unknown,
}
