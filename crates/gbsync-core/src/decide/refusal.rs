//! How a stage ends when it does not let a group pass.

use super::{Facts, Needs, Record};
use crate::change::Change;
use crate::id::RecordKey;
use crate::schema::OnViolation;
use crate::verdict::{ChangeCode, CurrentRecord, Flag, RefusedChange, Rejection, RejectionCode};

/// Why deciding stops.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something is not known yet.
    Needs(Needs),
    /// The group is rejected.
    Reject(Rejection),
}

impl From<Needs> for Stop {
    fn from(needs: Needs) -> Self {
        Self::Needs(needs)
    }
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Reject(rejection)
    }
}

/// Refuses a group for one change that does not fit a rule.
pub(super) fn invalid(
    code: RejectionCode,
    rule: impl Into<Option<String>>,
    message: String,
    (index, key): (usize, &RecordKey),
    facts: &Facts,
) -> Rejection {
    let current = facts.found(key).map(current_record);
    let change = RefusedChange { index, key: key.clone(), code: ChangeCode::Invalid, current };
    Rejection { code, message, rule: rule.into(), changes: vec![change] }
}

/// Refuses a group for one change that does not fit the schema. `rule` is the field or what else is at fault.
pub(super) fn misfit(rule: String, problem: &str, (index, change): (usize, &Change), facts: &Facts) -> Rejection {
    let message = format!("change {index} on {}: {problem}", change.key);
    invalid(RejectionCode::SchemaViolation, rule, message, (index, &change.key), facts)
}

/// Refuses a group as a whole.
pub(super) fn whole(code: RejectionCode, rule: impl Into<Option<String>>, message: String) -> Rejection {
    Rejection { code, message, rule: rule.into(), changes: Vec::new() }
}

/// Refuses the group, or flags it where the rule is soft.
pub(super) fn violated(flags: &mut Vec<Flag>, on_violation: OnViolation, rejection: Rejection) -> Result<(), Stop> {
    match on_violation {
        OnViolation::Reject => Err(rejection.into()),
        OnViolation::Flag => {
            let Rejection { code, message, rule, changes } = rejection;
            let key = changes.into_iter().next().map(|change| change.key);
            flags.push(Flag { code, rule: rule.unwrap_or_default(), message, key });
            Ok(())
        }
    }
}

pub(super) fn current_record(record: &Record) -> CurrentRecord {
    CurrentRecord {
        version: record.version,
        payload: record.payload.as_ref().map(|payload| payload.as_str().into()),
        reach: record.reach.clone(),
    }
}
