//! Was each change made on the state that the record still has (docs/protocol.md, "How a group is decided")? Without a schema every entity has
//! the policy `reject`.

use super::{Facts, Known, Record, Standing};
use crate::change::{Change, Edit};
use crate::group::Group;
use crate::id::{RecordKey, Seq};
use crate::verdict::{ChangeCode, CurrentRecord, RefusedChange, Rejection, RejectionCode};
use std::collections::BTreeSet;

/// Bytes of records that a refusal shows at most; changes beyond are named without their record.
const SHOWN_BYTES: usize = 1024 * 1024;

/// Refuses the group when any of its changes was made on another state than the record has.
pub(super) fn check(group: &Group, standing: &Standing, facts: &Facts) -> Result<(), Rejection> {
    let mut edited: BTreeSet<&RecordKey> = BTreeSet::new();
    let (mut refused, mut shown_bytes) = (Vec::new(), 0);
    for (index, change) in group.changes().iter().enumerate() {
        // A change after an edit of the same record was made on what the group itself left. One after an increment was
        // not: an increment has no base that could vouch for it.
        if edited.contains(&change.key) {
            continue;
        }
        if !change.edit.is_increment() {
            edited.insert(&change.key);
        }
        let record = facts.found(&change.key);
        if let Some(code) = conflict(change, record, effective_base(change, standing)) {
            let bytes = record.and_then(|record| record.payload.as_ref()).map_or(0, |payload| payload.as_str().len());
            shown_bytes += bytes;
            // Few bytes of changes may touch many bytes of records: an answer must stay one that a device can read.
            let current = record.filter(|_| bytes == 0 || shown_bytes <= SHOWN_BYTES).map(current_record);
            refused.push(RefusedChange { index, key: change.key.clone(), code, current });
        }
    }
    match refused.first() {
        None => Ok(()),
        Some(first) => {
            let others = match refused.len() {
                1 => String::new(),
                many => format!(", and {} more like it", many - 1),
            };
            let message = format!("change {} on {}: {}{others}", first.index, first.key, sentence(first.code));
            Err(Rejection { code: RejectionCode::Conflict, message, rule: None, changes: refused })
        }
    }
}

/// The `seq` of the base group, if the change has one, else its base version.
fn effective_base(change: &Change, standing: &Standing) -> Seq {
    match change.base.group.as_ref().and_then(|group| standing.groups.get(group)) {
        Some(Known::Accepted(seq)) => *seq,
        _ => change.base.version,
    }
}

fn conflict(change: &Change, record: Option<&Record>, base: Seq) -> Option<ChangeCode> {
    match (&change.edit, record) {
        (Edit::Upsert(_), None) => None,
        (Edit::Patch(_) | Edit::Increment(_) | Edit::Delete, None) => Some(ChangeCode::Missing),
        (Edit::Upsert(_), Some(record)) if record.payload.is_none() => {
            (base < record.version).then_some(ChangeCode::Deleted)
        }
        (_, Some(record)) if record.payload.is_none() => Some(ChangeCode::Deleted),
        (Edit::Increment(_), Some(_)) => None,
        (Edit::Upsert(_), Some(_)) if base == Seq(0) => Some(ChangeCode::Exists),
        (_, Some(record)) => (base < record.edit_version).then_some(ChangeCode::VersionConflict),
    }
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

pub(super) fn current_record(record: &Record) -> CurrentRecord {
    CurrentRecord { version: record.version, payload: record.payload.as_ref().map(|payload| payload.as_str().into()) }
}
