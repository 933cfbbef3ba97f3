//! Was each change made on the state that the record still has, and if not, what does the entity's policy say
//! (docs/schema.md, "Conflicts")? Without a schema every entity has the policy `reject`.
//!
//! An upsert under `merge` says what every field shall be, and not which of them its author changed. A field that differs
//! from the record's and that somebody changed since is therefore a conflict; nothing newer is ever overwritten.

use super::marks::{Marks, is_same};
use super::refusal::current_record;
use super::{Facts, Known, Record, Standing};
use crate::change::{Change, Edit};
use crate::clock::Hlc;
use crate::id::{GroupId, RecordKey, Seq};
use crate::json::{Node, Value, merge_patch};
use crate::lay::{decimal_of, is_counter};
use crate::schema::{EntityRules, FieldKind, OnConflict, OnDeleteConflict, Schema};
use crate::verdict::{ChangeCode, RefusedChange, Rejection, RejectionCode};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Bytes of records that a refusal shows at most; changes beyond are named without their record.
const SHOWN_BYTES: usize = 1024 * 1024;

/// What becomes of one change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// It holds.
    Holds,
    /// It conflicts.
    Conflicts(ChangeCode),
    /// A later writer has written.
    Late(ChangeCode),
}

/// A group's changes, with all that matters to conflicts.
pub(super) struct Bases<'a> {
    pub(super) changes: &'a [Change],
    /// The payloads, in the same order; empty without a schema.
    pub(super) given: &'a [Option<Node<'a>>],
    /// Where the groups stand that versions of a lost log were, in the same order; empty where none was lost.
    pub(super) read: &'a [Option<Seq>],
    pub(super) hlc: Option<&'a Hlc>,
    pub(super) standing: &'a Standing,
    pub(super) facts: &'a Facts,
    pub(super) schema: Option<&'a Schema>,
}

impl Bases<'_> {
    /// Refuses the group when any of its changes conflicts.
    pub(super) fn check(&self) -> Result<(), Rejection> {
        let mut edited: BTreeSet<&RecordKey> = BTreeSet::new();
        let (mut refused, mut shown_bytes, mut is_all_late) = (Vec::new(), 0, true);
        for (index, change) in self.changes.iter().enumerate() {
            // A change after an edit of the same record was made on what the group itself left. One after an increment was
            // not: an increment has no base that could vouch for it.
            if edited.contains(&change.key) {
                continue;
            }
            if !change.edit.is_increment() {
                edited.insert(&change.key);
            }
            let record = self.facts.found(&change.key);
            let code = match self.judge(index, change, record) {
                Judged::Holds => {
                    is_all_late = false;
                    continue;
                }
                Judged::Conflicts(code) => {
                    is_all_late = false;
                    code
                }
                Judged::Late(code) => code,
            };
            let bytes = record.and_then(|record| record.payload.as_ref()).map_or(0, |payload| payload.as_str().len());
            shown_bytes += bytes;
            // Few bytes of changes may touch many bytes of records: an answer must stay one that a device can read.
            let current = record.filter(|_| bytes == 0 || shown_bytes <= SHOWN_BYTES).map(current_record);
            refused.push(RefusedChange { index, key: change.key.clone(), code, current });
        }
        match refused.first() {
            None => Ok(()),
            Some(first) => Err(refusal(is_all_late, first.clone(), refused)),
        }
    }

    fn judge(&self, index: usize, change: &Change, record: Option<&Record>) -> Judged {
        let rules = self.schema.and_then(|schema| schema.entity(&change.key.entity));
        let on_delete = rules.map_or(OnDeleteConflict::Reject, |rules| rules.on_delete_conflict);
        let policy = rules.map_or(OnConflict::Reject, |rules| rules.on_conflict);
        let base = self.effective_base(change);
        let Some(record) = record else {
            let is_anew = matches!(change.edit, Edit::Upsert(_));
            return match self.facts.was_there(base) {
                // Its tombstone is gone: without this the edit would bring the record back to life.
                true if !is_anew || on_delete != OnDeleteConflict::EditWins => Judged::Conflicts(ChangeCode::Deleted),
                false if !is_anew => Judged::Conflicts(ChangeCode::Missing),
                _ => Judged::Holds,
            };
        };
        if record.payload.is_none() {
            let is_anew = matches!(change.edit, Edit::Upsert(_))
                && (base >= record.version || on_delete == OnDeleteConflict::EditWins);
            return if is_anew { Judged::Holds } else { Judged::Conflicts(ChangeCode::Deleted) };
        }
        let code = match &change.edit {
            Edit::Increment(_) => return Judged::Holds,
            Edit::Upsert(_) if base == Seq(0) => ChangeCode::Exists,
            _ => ChangeCode::VersionConflict,
        };
        let is_seen = match policy {
            // A chain vouches for the fields that it changed, and for no other.
            OnConflict::Merge => record.edit_version <= change.base.version,
            _ => record.edit_version <= base,
        };
        #[cfg(feature = "mutants")]
        let is_seen = is_seen || crate::mutant::was_last_edited_by_sender(record.edit_version);
        if is_seen {
            return Judged::Holds;
        }
        let holds = match (&change.edit, policy) {
            (Edit::Delete, OnConflict::Merge) => {
                on_delete == OnDeleteConflict::DeleteWins || self.sees_all(index, change, record)
            }
            (Edit::Delete, _) => on_delete == OnDeleteConflict::DeleteWins,
            (_, OnConflict::Reject) => false,
            (_, OnConflict::Accept) => true,
            (_, OnConflict::LastWriteWins) => {
                let last = record.marks.as_ref().and_then(|marks| marks.hlc.as_ref());
                return if self.hlc > last { Judged::Holds } else { Judged::Late(code) };
            }
            (_, OnConflict::Merge) => self.merges(index, change, record, rules),
        };
        if holds { Judged::Holds } else { Judged::Conflicts(code) }
    }

    /// The `seq` of the base group, if the change has one, else its base version.
    fn effective_base(&self, change: &Change) -> Seq {
        base_group(change, self.standing).unwrap_or(change.base.version)
    }

    /// Whether the author saw the latest change of a field, or made it.
    fn sees(&self, index: usize, change: &Change, marks: &Marks, field: &str) -> bool {
        let mark = marks.of(field);
        let is_own = |base: Seq| mark <= base && marks.is_one_chain(mark, base);
        let read = self.read.get(index).copied().flatten();
        mark <= change.base.version || base_group(change, self.standing).into_iter().chain(read).any(is_own)
    }

    fn sees_all(&self, index: usize, change: &Change, record: &Record) -> bool {
        let marks = marks(record);
        let sees = |field: &str| self.sees(index, change, &marks, field);
        sees("") && marks.fields.keys().all(|field| sees(field))
    }

    /// Whether every field that the change would set is one that its author saw, or has that value already.
    fn merges(&self, index: usize, change: &Change, record: &Record, rules: Option<&EntityRules>) -> bool {
        let (Some(Some(given)), Some(payload), Some(rules)) = (self.given.get(index), &record.payload, rules) else {
            return false;
        };
        let (current, marks) = (payload.node(), marks(record));
        let (Value::Object(given), Value::Object(members)) = (&given.value, &current.value) else { return false };
        let is_upsert = matches!(change.edit, Edit::Upsert(_));
        let fits = |field: &str, new: Option<&Node<'_>>| {
            let kind = rules.fields.get(field).map(|field| field.kind);
            let is_set = is_set(current.member(field), new, is_upsert, kind);
            is_set || is_counter(rules, field) || self.sees(index, change, &marks, field)
        };
        let taken_out = |field: &str| is_upsert && given.iter().all(|(name, _)| name != field);
        given.iter().all(|(field, new)| fits(field, Some(new)))
            && members.iter().all(|(field, _)| !taken_out(field) || fits(field, None))
    }
}

/// The place in the log of the group that a change was made on.
pub(super) fn base_group(change: &Change, standing: &Standing) -> Option<Seq> {
    match standing.groups.get(change.base.group.as_ref()?) {
        Some(Known::Accepted(seq)) => Some(*seq),
        _ => None,
    }
}

/// The place of the group whose chain a change goes on. One that is only read as made on a group of a lost log goes on none:
/// others who saw that group may have edited it as well, without knowing of each other.
pub(super) fn continued(change: &Change, standing: &Standing) -> Option<Seq> {
    let is_read = |group: &GroupId| {
        standing.other_log.as_ref().is_some_and(|other| other.offered.values().any(|offered| offered == group))
    };
    base_group(change, standing).filter(|_| !change.base.group.as_ref().is_some_and(is_read))
}

/// What is remembered of a record's fields: without marks, all were changed by its last edit.
fn marks(record: &Record) -> Cow<'_, Marks> {
    match record.marks.as_deref() {
        Some(marks) => Cow::Borrowed(marks),
        None => Cow::Owned(Marks { since: record.edit_version, ..Marks::default() }),
    }
}

/// Whether a field already is what a change would make of it. Null is the same as absent.
fn is_set(old: Option<&Node<'_>>, new: Option<&Node<'_>>, is_upsert: bool, kind: Option<FieldKind>) -> bool {
    let (old, new) = (old.filter(|old| !old.is_null()), new.filter(|new| !new.is_null()));
    let (Some(old), Some(new)) = (old, new) else { return old.is_none() && new.is_none() };
    if !is_upsert && new.is_object() {
        return is_same(&merge_patch(Some(old.clone()), new.clone()), old);
    }
    // A decimal may be given with fewer digits than the record has.
    match (kind, decimal_of(&old.value), decimal_of(&new.value)) {
        (Some(FieldKind::Decimal { .. }), Some(old), Some(new)) => old.compare(new).is_eq(),
        _ => is_same(old, new),
    }
}

fn refusal(is_all_late: bool, first: RefusedChange, refused: Vec<RefusedChange>) -> Rejection {
    let others = match refused.len() {
        1 => String::new(),
        many => format!(", and {} more like it", many - 1),
    };
    let (code, problem) = match is_all_late {
        true => (RejectionCode::Superseded, "a later writer has written the record"),
        false => (RejectionCode::Conflict, sentence(first.code)),
    };
    let message = format!("change {} on {}: {problem}{others}", first.index, first.key);
    Rejection { code, message, rule: None, changes: refused }
}

fn sentence(code: ChangeCode) -> &'static str {
    match code {
        ChangeCode::VersionConflict => "the record was edited since this change was made",
        ChangeCode::Deleted => "the record was deleted since this change was made",
        ChangeCode::Exists => "the record already exists",
        ChangeCode::Missing => "the record does not exist",
        ChangeCode::Invalid => "the change does not fit the record",
    }
}
