//! The verdict on a group, from the group and what the server holds. Pure: the store loads the facts and commits the result.
//!
//! Stages in the order of docs/protocol.md, "How a group is decided"; the first that fails gives the code.
//!
//! Invariant: a group is decided as a whole; a rejected one leaves no trace in the facts.

mod bounds;
mod cascade;
mod conflict;
mod facts;
mod heal;
mod index;
mod invariant;
mod lists;
mod marks;
mod references;
mod refusal;
mod scan;
mod scopes;
mod shape;
mod standing;
mod types;
mod unique;
mod wants;
mod working;
mod world;

pub use facts::{Facts, IndexKey, IndexMoves, Known, Needs, Record, Standing};
pub use heal::{OtherLog, agreed, lineage};
pub use index::entries;
pub use marks::{InvalidMarks, Marks};
pub use scan::{BrokenShape, broken_shape, may_refer_to_deleted, referents};
pub use scopes::reach_of;
pub use wants::{wanted, wants};

use crate::change::Change;
use crate::group::Group;
use crate::id::{GroupId, GroupType, RecordKey};
use crate::limits::Limits;
use crate::schema::{OperationRules, Schema};
use crate::verdict::{Flag, Rejection};
use conflict::Bases;
use refusal::Stop;
use wants::translated;
use working::Working;

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
    /// A record that refers to it is seen where it was not.
    Closure,
}

impl Cause {
    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cascade => "cascade",
            Self::Closure => "closure",
        }
    }
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
    /// It waits for these groups, which the server does not know; for what it cannot name where there is none.
    Block(Vec<GroupId>),
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
/// #     created_at: Timestamp::from_unix_ms(0), schema_version: 0, depends_on: vec![], replaces: None, family: None, log: None, hlc: None,
/// #     clears: vec![] };
/// let payload = Payload::parse(r#"{"total":"1.00"}"#, &limits).unwrap();
/// let key = RecordKey::new("receipts", "r-1").unwrap();
/// let change = Change::new(key.clone(), Edit::Upsert(payload), Base::default()).unwrap();
/// let group = Group::seal(header, vec![change], &limits).unwrap();
/// let standing = Standing { groups: BTreeMap::new(), replaced_by: None, log: LogId::new("log-1").unwrap(), head: Seq(41),
///     other_log: None, roles: None, scopes: Default::default(), now_ms: 0 };
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
    let is_missing = group.changes().iter().any(|change| facts.record(&change.key).is_none());
    if is_missing {
        return Err(facts.missing(wants(group, schema)));
    }
    if let Some(decision) = standing::check(group, standing, schema) {
        return Ok(decision);
    }
    let changes = match heal::rebased(translated(group, schema), standing) {
        Ok(changes) => changes,
        Err(decision) => return Ok(decision),
    };
    match settle(group, &changes, standing, facts, schema, limits) {
        Ok(accepted) => Ok(Decision::Accept(accepted)),
        Err(Stop::Reject(mut rejection)) => {
            scopes::hide(&mut rejection, &standing.scopes, facts);
            Ok(Decision::Reject(rejection))
        }
        Err(Stop::Needs(needs)) => Err(needs),
    }
}

/// Judges every change against the records, lays them, and judges what they leave.
fn settle(
    group: &Group,
    changes: &[Change],
    standing: &Standing,
    facts: &Facts,
    schema: Option<&Schema>,
    limits: &Limits,
) -> Result<Accepted, Stop> {
    let (group_type, hlc) = (group.header().group_type.as_ref(), group.header().hlc.as_ref());
    let (mut given, mut operation) = (Vec::new(), None);
    if let Some(schema) = schema {
        standing::check_roles(group_type, standing, schema)?;
        operation = standing::operation(group_type, schema)?;
        given = types::check(changes, schema, facts)?;
        scopes::check_bases(changes, standing, facts, schema)?;
    }
    let read = heal::read_as(group.changes(), standing);
    Bases { changes, given: &given, read: &read, hlc, standing, facts, schema }.check()?;
    let mut working = Working::new(schema, facts, limits);
    working.scopes = Some(&standing.scopes);
    working.lay(changes, given, Some(standing))?;
    let flags = match schema {
        Some(schema) => judge(&mut working, schema, group_type, operation)?,
        None => Vec::new(),
    };
    Ok(Accepted { outcomes: working.into_outcomes(standing.head.next(), hlc), flags })
}

/// The stages that judge the state that changes leave.
fn judge<'a>(
    working: &mut Working<'a>,
    schema: &'a Schema,
    group_type: Option<&GroupType>,
    operation: Option<&'a OperationRules>,
) -> Result<Vec<Flag>, Stop> {
    let mut flags = Vec::new();
    cascade::spread(working, schema)?;
    scopes::check(working, schema, group_type, operation)?;
    references::check(working, schema, &mut flags)?;
    shape::check(working, schema, group_type, operation)?;
    bounds::check(working, &mut flags)?;
    invariant::check(working, schema, operation, &mut flags)?;
    scopes::close(working, schema, operation)?;
    Ok(flags)
}

/// Holds changes that are about to be sealed against the rules: all that [`decide`] will ask but rights and conflicts.
///
/// # Errors
/// [`Needs`] names what else has to be known: load it and ask again.
pub fn check(
    changes: &[Change],
    facts: &Facts,
    schema: &Schema,
    group_type: Option<&GroupType>,
    limits: &Limits,
) -> Result<Result<Vec<Flag>, Rejection>, Needs> {
    let is_missing = changes.iter().any(|change| facts.record(&change.key).is_none());
    if is_missing {
        return Err(facts.missing(wants::wanted(changes, Some(schema), group_type)));
    }
    let checked = || {
        let operation = standing::operation(group_type, schema)?;
        let given = types::check(changes, schema, facts)?;
        let mut working = Working::new(Some(schema), facts, limits);
        working.lay(changes, given, None)?;
        judge(&mut working, schema, group_type, operation)
    };
    match checked() {
        Ok(flags) => Ok(Ok(flags)),
        Err(Stop::Reject(rejection)) => Ok(Err(rejection)),
        Err(Stop::Needs(needs)) => Err(needs),
    }
}
