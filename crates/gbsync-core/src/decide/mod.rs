//! The verdict on a group, from the group and what the server holds. Pure: the store loads the facts and commits the result.
//!
//! Stages in the order of docs/protocol.md, "How a group is decided"; the first that fails gives the code.
//!
//! Invariant: a group is decided as a whole; a rejected one leaves no trace in the facts.

mod conflict;
mod facts;
mod index;
mod marks;

pub use facts::{Facts, IndexKey, IndexMoves, Known, Needs, Record, Standing};
pub use index::entries;
pub use marks::{InvalidMarks, Marks};

use crate::change::Edit;
use crate::group::Group;
use crate::id::{GroupId, RecordKey};
use crate::lay::{LayError, lay};
use crate::limits::Limits;
use crate::schema::Schema;
use crate::verdict::{ChangeCode, Flag, RefusedChange, Rejection, RejectionCode};
use std::collections::BTreeMap;

/// A record as an accepted group leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The record.
    pub key: RecordKey,
    /// Its state: version is the group's `seq`.
    pub record: Record,
    /// Why the group changed it, where it did not say so itself.
    pub cause: Option<Cause>,
}

/// Why a group changed a record that it does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A record that it refers to was deleted.
    Cascade,
}

/// What an accepted group leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// The records, in the order it first touched them; derived ones after those.
    pub outcomes: Vec<Outcome>,
    /// Soft rules that it broke.
    pub flags: Vec<Flag>,
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The group takes effect and leaves this.
    Accept(Accepted),
    /// It does not, with finality.
    Reject(Rejection),
    /// It waits for these groups, which the server does not know.
    Block(Vec<GroupId>),
}

/// What deciding a group needs to know, as far as the group itself says: to be loaded before [`decide`] is asked.
pub fn wants(group: &Group, schema: Option<&Schema>) -> Needs {
    let _ = schema;
    Needs { records: group.changes().iter().map(|change| change.key.clone()).collect(), ..Needs::default() }
}

/// Decides a group that would get `standing.head + 1` as its `seq`.
///
/// # Errors
/// [`Needs`] names what else has to be known: load it and ask again.
///
/// ```
/// # use gbsync_core::{change::*, decide::*, group::*, id::*, limits::Limits, time::Timestamp};
/// # use std::collections::BTreeMap;
/// # let limits = Limits::default();
/// # let header = Header { id: GroupId::new("g1").unwrap(), group_type: None, device_seq: DeviceSeq(1), actor: None,
/// #     created_at: Timestamp::from_unix_ms(0), schema_version: 0, depends_on: vec![], replaces: None, log: None, hlc: None,
/// #     clears: vec![] };
/// let payload = Payload::parse(r#"{"total":"1.00"}"#, &limits).unwrap();
/// let key = RecordKey::new("receipts", "r-1").unwrap();
/// let change = Change::new(key.clone(), Edit::Upsert(payload), Base::default()).unwrap();
/// let group = Group::seal(header, vec![change], &limits).unwrap();
/// let standing = Standing { groups: BTreeMap::new(), replaced_by: None, log: LogId::new("log-1").unwrap(), head: Seq(41),
///     roles: None, now_ms: 0 };
/// let mut facts = Facts::default();
/// assert!(decide(&group, &standing, &facts, None, &limits).is_err()); // the record has not been loaded
/// facts.learn_record(key, None);
/// let Ok(Decision::Accept(accepted)) = decide(&group, &standing, &facts, None, &limits) else { panic!() };
/// assert_eq!(accepted.outcomes[0].record.version, Seq(42));
/// ```
pub fn decide(
    group: &Group,
    standing: &Standing,
    facts: &Facts,
    schema: Option<&Schema>,
    limits: &Limits,
) -> Result<Decision, Needs> {
    let needs = facts.missing(wants(group, schema));
    if !needs.is_empty() {
        return Err(needs);
    }
    if let Some(decision) = check_standing(group, standing) {
        return Ok(decision);
    }
    Ok(match settle(group, standing, facts, limits) {
        Ok(outcomes) => Decision::Accept(Accepted { outcomes, flags: Vec::new() }),
        Err(rejection) => Decision::Reject(rejection),
    })
}

/// What keeps a group from being decided on its changes: what it replaces, what it depends on, the log it was made on.
fn check_standing(group: &Group, standing: &Standing) -> Option<Decision> {
    if let Some(other) = &standing.replaced_by {
        let message = format!("{other} already took effect in its place; nothing is left to do for this group");
        return Some(reject(RejectionCode::AlreadyReplaced, message));
    }
    let known = |id: &GroupId| standing.groups.get(id);
    let depends_on = &group.header().depends_on;
    if let Some(parent) = depends_on.iter().find(|id| known(id) == Some(&Known::Rejected)) {
        let message = format!("it depends on {parent}, which was rejected; amend that one first");
        return Some(reject(RejectionCode::DependencyRejected, message));
    }
    let by: Vec<GroupId> = depends_on.iter().filter(|id| known(id).is_none()).cloned().collect();
    if !by.is_empty() {
        return Some(Decision::Block(by));
    }
    if let Some(log) = group.header().log.as_ref().filter(|log| **log != standing.log) {
        let message = format!("its base versions belong to log {log}, which this server does not know");
        return Some(reject(RejectionCode::BaseLost, message));
    }
    let (index, version) = group.changes().iter().map(|change| change.base.version).enumerate().max_by_key(|base| base.1)?;
    (version > standing.head).then(|| {
        let message = format!("change {index} was made on version {version}, beyond the head {} of this log", standing.head);
        reject(RejectionCode::BaseLost, message)
    })
}

fn reject(code: RejectionCode, message: String) -> Decision {
    Decision::Reject(Rejection { code, message, rule: None, changes: Vec::new() })
}

/// Judges every change against the records, then lays them.
fn settle(group: &Group, standing: &Standing, facts: &Facts, limits: &Limits) -> Result<Vec<Outcome>, Rejection> {
    conflict::check(group, standing, facts)?;
    let seq = standing.head.next();
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(group.changes().len());
    let mut places: BTreeMap<&RecordKey, usize> = BTreeMap::new();
    let mut laid_bytes = 0;
    for (index, change) in group.changes().iter().enumerate() {
        let place = places.get(&change.key).copied();
        let before = place.map(|place| &outcomes[place].record).or_else(|| facts.found(&change.key));
        // What a refusal shows is the server's record, never what the refused group itself made of it.
        let current = facts.found(&change.key);
        let payload = lay(&change.edit, before.and_then(|record| record.payload.as_ref()), None)
            .map_err(|error| cannot_lay(index, &change.key, current, &error))?;
        let bytes = payload.as_ref().map_or(0, |payload| payload.as_str().len() as u64);
        if matches!(change.edit, Edit::Patch(_) | Edit::Increment(_)) && bytes > limits.payload_bytes {
            let message = format!(
                "change {index} would leave {} with {bytes} bytes, over the limit of {}",
                change.key, limits.payload_bytes
            );
            return Err(refused(RejectionCode::TooLarge, message, index, &change.key, ChangeCode::Invalid, current));
        }
        // Many small increments of large records are few bytes on the wire and much work here, under everybody's lock.
        laid_bytes += bytes;
        if laid_bytes > limits.group_bytes {
            let message = format!("the group would leave over {} bytes of records; write it as several", limits.group_bytes);
            return Err(refused(RejectionCode::TooLarge, message, index, &change.key, ChangeCode::Invalid, current));
        }
        let edit_version = before.filter(|_| change.edit.is_increment()).map_or(seq, |record| record.edit_version);
        let record = Record { version: seq, edit_version, payload, marks: None };
        if let Some(place) = place {
            outcomes[place].record = record;
        } else {
            places.insert(&change.key, outcomes.len());
            outcomes.push(Outcome { key: change.key.clone(), record, cause: None });
        }
    }
    Ok(outcomes)
}

fn cannot_lay(index: usize, key: &RecordKey, current: Option<&Record>, error: &LayError) -> Rejection {
    let message = format!("change {index} on {key}: {error}");
    let (code, change_code) = match error {
        LayError::Missing => (RejectionCode::Conflict, ChangeCode::Missing),
        LayError::NotANumber { .. } => (RejectionCode::SchemaViolation, ChangeCode::Invalid),
        LayError::OutOfRange { .. } => (RejectionCode::BoundViolation, ChangeCode::Invalid),
    };
    refused(code, message, index, key, change_code, current)
}

fn refused(
    code: RejectionCode,
    message: String,
    index: usize,
    key: &RecordKey,
    change_code: ChangeCode,
    current: Option<&Record>,
) -> Rejection {
    let current = current.map(conflict::current_record);
    Rejection {
        code,
        message,
        rule: None,
        changes: vec![RefusedChange { index, key: key.clone(), code: change_code, current }],
    }
}
