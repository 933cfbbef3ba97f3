//! What an operation must look like: entities with typed fields, references, counters and policies; sequences; operation
//! types with roles, shape and invariants (docs/schema.md).
//!
//! Invariant: a [`Schema`] in memory is consistent: every name it mentions exists, every rule compiles, no two entities
//! share a table. What reads one refuses the rest with line and column.
//!
//! Rejected alternative: JSON Schema, which knows neither references nor the sum of an invoice's lines.

mod diff;
mod expression;
mod infer;
mod json;
mod names;
mod problem;
mod read;
mod scope;
mod source;
mod table;
mod translate;

pub use diff::{SchemaChange, Severity, diff};
pub use expression::{Expression, ExpressionError};
pub use infer::{Inference, Inferred, infer};
pub use problem::{Code, SchemaProblem, SchemaProblems};

use crate::id::{Entity, GroupType, Role};
use crate::json::{Decimal, Node, text_of};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The rules of a space.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// Counts up with every change; groups say which one they were made under. From 1.
    pub version: u64,
    /// The kinds of records. A record of another kind is refused.
    pub entities: BTreeMap<Entity, EntityRules>,
    /// Numbers that are allotted when an operation is sealed.
    pub sequences: BTreeMap<String, Sequence>,
    /// The kinds of operations that have rules of their own.
    pub operations: BTreeMap<GroupType, OperationRules>,
    /// What becomes of an operation whose type is not declared.
    pub undeclared_operations: Undeclared,
}

/// What becomes of something that the schema does not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Undeclared {
    /// It has no rules of its own (`"accept"`).
    #[default]
    Accept,
    /// It is refused (`"refuse"`).
    Refuse,
}

/// The rules of one kind of record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EntityRules {
    /// Its declared fields, by name.
    pub fields: BTreeMap<String, Field>,
    /// What becomes of a field that is not declared (`additional = false` refuses it).
    pub additional: Undeclared,
    /// What becomes of a change of it outside any operation.
    pub ungrouped: Undeclared,
    /// What becomes of an edit made on a state that the record no longer has.
    pub on_conflict: OnConflict,
    /// What becomes of a delete of a record that was edited since, and of an edit of one that was deleted since.
    pub on_delete_conflict: OnDeleteConflict,
    /// Lists of fields whose values together stand for one record.
    pub unique: Vec<Vec<String>>,
    /// Lists of fields by which the device's table is searched.
    pub indexes: Vec<Vec<String>>,
    /// Rules that hold whatever operation touches a record of this kind.
    pub invariants: Vec<Invariant>,
    /// The field that says in which scope a record lies; without one everybody sees it.
    pub scope: Option<String>,
}

/// One field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its type.
    pub kind: FieldKind,
    /// Whether a record without it, or with null, is refused.
    pub required: bool,
    /// Whether it changes by increments only, and its bounds.
    pub counter: Option<Counter>,
    /// The record that its value is the id of; an integer stands for the id with its digits.
    pub reference: Option<Reference>,
    /// The sequence that fills it when an operation that makes a record without it is sealed.
    pub sequence: Option<String>,
    /// The canonical JSON that it has in groups made before `since`, where they leave it out.
    pub default: Option<Box<str>>,
    /// The name it had before `since`.
    pub was: Option<String>,
    /// The schema version in which it appeared or was renamed; the schema's own version when absent.
    pub since: Option<u64>,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// A string.
    Text,
    /// An integer within `i64`.
    Integer,
    /// A number of any kind.
    Real,
    /// An exact decimal: a string with `scale` digits after the point, or a number.
    Decimal {
        /// Digits after the point, 0 to 18.
        scale: u32,
    },
    /// `true` or `false`.
    Boolean,
    /// `YYYY-MM-DD`.
    Date,
    /// RFC 3339, UTC.
    Timestamp,
    /// Any JSON.
    Json,
}

/// A field that only increments change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counter {
    /// The least value it may have.
    pub min: Option<Decimal>,
    /// The greatest value it may have.
    pub max: Option<Decimal>,
    /// What becomes of a group that takes it over a bound.
    pub on_violation: OnViolation,
}

/// What a field refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The kind of record that it holds the id of.
    pub entity: Entity,
    /// What becomes of the referring record when the other one is deleted.
    pub on_delete: OnDelete,
    /// What becomes of a group whose reference points nowhere.
    pub on_violation: OnViolation,
}

/// What becomes of a referring record when the one it refers to is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDelete {
    /// The delete is refused (`still_referenced`).
    #[default]
    Restrict,
    /// It is deleted with it.
    Cascade,
    /// Nothing: the reference may point nowhere from then on, and others may be made to the deleted record.
    Ignore,
}

/// What becomes of a group that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnViolation {
    /// It is rejected.
    #[default]
    Reject,
    /// It is accepted with a flag: a sale that happened cannot un-happen.
    Flag,
}

/// What becomes of an edit made on a state that the record no longer has (docs/schema.md, "Conflicts").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The group is rejected, the current records attached.
    #[default]
    Reject,
    /// Field by field: only one changed since to another value conflicts.
    Merge,
    /// The later one by the hybrid logical clock wins.
    LastWriteWins,
    /// The incoming change wins.
    Accept,
}

/// What becomes of a delete against an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDeleteConflict {
    /// The group is rejected.
    #[default]
    Reject,
    /// The delete wins: a late edit of the deleted record is rejected, a late delete of an edited one is accepted.
    DeleteWins,
    /// The edit wins: a late upsert makes the deleted record anew, a late delete of an edited one is rejected.
    EditWins,
}

/// Numbers that are allotted when an operation is sealed: never one twice, whatever becomes of the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The text of a number: `{device}` is a short name of this device and epoch, `{n}` or `{n:06}` the number.
    pub format: SequenceFormat,
}

/// The parts of a sequence's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceFormat {
    /// The parts in order.
    pub parts: Vec<SequencePart>,
}

/// One part of a sequence's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequencePart {
    /// This text.
    Text(String),
    /// The device's short name.
    Device,
    /// The number, with at least so many digits.
    Number {
        /// Digits at least.
        width: usize,
    },
}

/// The rules of one kind of operation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OperationRules {
    /// Who may do it: one of these roles. Everybody when empty.
    pub roles: BTreeSet<Role>,
    /// How many records of each kind it changes; a kind that is not named must not be there. Anything when absent.
    pub shape: Option<BTreeMap<Entity, Count>>,
    /// What holds in the state that it leaves.
    pub invariants: Vec<Invariant>,
    /// How far it may reach.
    pub scope: OperationScope,
}

/// How far an operation may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OperationScope {
    /// Its records lie in one scope (`"all_or_none"`).
    #[default]
    AllOrNone,
    /// They may lie in several, and what they refer to comes along (`"closure"`).
    Closure,
}

/// How many, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// At least.
    pub least: u64,
    /// At most; any number when absent.
    pub most: Option<u64>,
}

/// A rule in CEL.
#[derive(Debug, Clone, PartialEq)]
pub struct Invariant {
    /// What messages call it.
    pub name: String,
    /// What must be true.
    pub cel: Expression,
    /// What becomes of a group that breaks it.
    pub on_violation: OnViolation,
}

impl Field {
    /// A field of a kind, with no rule of its own.
    ///
    /// ```
    /// use gbsync_core::schema::{Field, FieldKind};
    /// assert!(!Field::of(FieldKind::Text).required);
    /// ```
    pub fn of(kind: FieldKind) -> Self {
        Self { kind, required: false, counter: None, reference: None, sequence: None, default: None, was: None, since: None }
    }
}

impl Field {
    /// Whether its table has a second column, `{field}_minor`, with its value in whole units of its last digit.
    pub fn has_minor(&self) -> bool {
        matches!(self.kind, FieldKind::Decimal { .. })
    }
}

impl FieldKind {
    /// The word for it in a schema's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Decimal { .. } => "decimal",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
        }
    }
}

impl OnConflict {
    /// The word for it in a schema's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Merge => "merge",
            Self::LastWriteWins => "last_write_wins",
            Self::Accept => "accept",
        }
    }
}

impl OnDeleteConflict {
    /// The word for it in a schema's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::DeleteWins => "delete_wins",
            Self::EditWins => "edit_wins",
        }
    }
}

impl OperationScope {
    /// The word for it in a schema's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllOrNone => "all_or_none",
            Self::Closure => "closure",
        }
    }
}

impl OnDelete {
    /// The word for it in a schema's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restrict => "restrict",
            Self::Cascade => "cascade",
            Self::Ignore => "ignore",
        }
    }
}

impl Reference {
    /// The id that a reference's value names: a text itself, an integer by its digits; `None` where there is none.
    pub fn id_in<'v>(value: &'v Node<'_>) -> Option<&'v str> {
        let is_integer = |digits: &&str| digits.parse::<i64>().is_ok();
        value.as_str().or_else(|| value.as_number().filter(is_integer))
    }

    /// [`Reference::id_in`] of a value's canonical text.
    pub(crate) fn id_in_text(value: &str) -> Option<Cow<'_, str>> {
        text_of(value).or_else(|| value.parse::<i64>().is_ok().then_some(Cow::Borrowed(value)))
    }
}

impl Schema {
    /// The rules of a kind of record.
    pub fn entity(&self, entity: &Entity) -> Option<&EntityRules> {
        self.entities.get(entity)
    }

    /// The fields that refer to a kind of record: entity, name, reference.
    pub fn referrers<'s>(&'s self, to: &'s Entity) -> impl Iterator<Item = (&'s Entity, &'s str, &'s Reference)> {
        self.entities.iter().flat_map(move |(entity, rules)| {
            let refers = rules.references().filter(move |(_, reference)| reference.entity == *to);
            refers.map(move |(name, reference)| (entity, name, reference))
        })
    }

    /// Those of them whose records a member of a record lists: `payments`, or `payments_by_receiptId`.
    pub(crate) fn listed<'s, 'm>(
        &'s self,
        to: &'s Entity,
        member: &'m str,
    ) -> impl Iterator<Item = (&'s Entity, &'s str, &'s Reference)> + use<'s, 'm> {
        let by = |entity: &Entity| match member.strip_prefix(entity.as_str())? {
            "" => Some(None),
            rest => rest.strip_prefix("_by_").map(Some),
        };
        let entities = self.entities.iter().filter_map(move |(entity, rules)| Some((entity, rules, by(entity)?)));
        entities.flat_map(move |(entity, rules, by)| {
            let refers = rules.references().filter(move |(_, reference)| reference.entity == *to);
            let is_named = move |name: &str| by.is_none_or(|by| by == name);
            refers.filter(move |(name, _)| is_named(name)).map(move |(name, reference)| (entity, name, reference))
        })
    }
}

impl EntityRules {
    /// Its fields that refer to other records.
    pub fn references(&self) -> impl Iterator<Item = (&str, &Reference)> {
        self.fields.iter().filter_map(|(name, field)| Some((name.as_str(), field.reference.as_ref()?)))
    }

    /// Its fields that only increments change.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &Field, &Counter)> {
        self.fields.iter().filter_map(|(name, field)| Some((name.as_str(), field, field.counter.as_ref()?)))
    }
}
