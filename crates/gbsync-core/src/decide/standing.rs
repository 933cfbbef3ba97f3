//! What keeps a group from being decided on its changes: what it replaces, what it depends on, the log it was made on, its
//! clock, and who may do what.

use super::refusal::whole;
use super::{Decision, Known, Standing, heal};
use crate::group::Group;
use crate::id::{GroupId, GroupType};
use crate::limits::CLOCK_SKEW_MS;
use crate::schema::{OperationRules, Schema, Undeclared};
use crate::verdict::{Rejection, RejectionCode};

/// The decision on a group that its changes have no part in.
pub(super) fn check(group: &Group, standing: &Standing, schema: Option<&Schema>) -> Option<Decision> {
    let header = group.header();
    if let Some(other) = &standing.replaced_by {
        let message = format!("{other} already took effect in its place; nothing is left to do for this group");
        return Some(reject(RejectionCode::AlreadyReplaced, message));
    }
    let known = |id: &GroupId| standing.groups.get(id);
    if let Some(parent) = header.depends_on.iter().find(|id| known(id) == Some(&Known::Rejected)) {
        let message = format!("it depends on {parent}, which was rejected; amend that one first");
        return Some(reject(RejectionCode::DependencyRejected, message));
    }
    let by: Vec<GroupId> = header.depends_on.iter().filter(|id| known(id).is_none()).cloned().collect();
    if !by.is_empty() {
        return Some(heal::gone(standing, &by).unwrap_or(Decision::Block(by)));
    }
    // The rules that it was made under are not here yet: it waits for them, and for no group.
    if schema.is_some_and(|schema| header.schema_version > schema.version) {
        return Some(Decision::Block(Vec::new()));
    }
    if standing.other_log.is_some() {
        return skew(group, standing);
    }
    if let Some(log) = header.log.as_ref().filter(|log| **log != standing.log) {
        let message = format!("its base versions belong to log {log}, which this server does not know");
        return Some(reject(RejectionCode::BaseLost, message));
    }
    let latest = group.changes().iter().map(|change| change.base.version).enumerate().max_by_key(|base| base.1);
    if let Some((index, version)) = latest.filter(|(_, version)| *version > standing.head) {
        let message = format!("change {index} was made on version {version}, beyond the head {} of this log", standing.head);
        return Some(reject(RejectionCode::BaseLost, message));
    }
    skew(group, standing)
}

/// A clock that is far ahead would win against every later writer. `createdAt` is never judged.
fn skew(group: &Group, standing: &Standing) -> Option<Decision> {
    let ahead = group.header().hlc.as_ref()?.unix_ms().saturating_sub(standing.now_ms);
    (ahead > CLOCK_SKEW_MS).then(|| {
        let message =
            format!("its clock is {} s ahead of the server's; set the device's clock and send it again", ahead / 1000);
        reject(RejectionCode::ClockSkew, message)
    })
}

pub(super) fn reject(code: RejectionCode, message: String) -> Decision {
    Decision::Reject(whole(code, None, message))
}

/// Whether the person who made a group may do such an operation. On a device nobody asks.
pub(super) fn check_roles(group_type: Option<&GroupType>, standing: &Standing, schema: &Schema) -> Result<(), Rejection> {
    let (Some(roles), Some(group_type)) = (&standing.roles, group_type) else { return Ok(()) };
    let Some(rules) = schema.operations.get(group_type) else { return Ok(()) };
    if rules.roles.is_empty() || !rules.roles.is_disjoint(roles) {
        return Ok(());
    }
    let needed: Vec<&str> = rules.roles.iter().map(|role| role.as_str()).collect();
    let message = format!("{group_type} needs one of the roles {}; ask somebody who has it", needed.join(", "));
    Err(whole(RejectionCode::NotPermitted, format!("{group_type}.roles"), message))
}

/// The rules of an operation's type, where it is declared.
pub(super) fn operation<'s>(
    group_type: Option<&GroupType>,
    schema: &'s Schema,
) -> Result<Option<&'s OperationRules>, Rejection> {
    let Some(group_type) = group_type else { return Ok(None) };
    let rules = schema.operations.get(group_type);
    if rules.is_none() && schema.undeclared_operations == Undeclared::Refuse {
        let message =
            format!("the operation type {:?} is not declared; declare it in the schema or use another", group_type.as_str());
        return Err(whole(RejectionCode::NotPermitted, "undeclared_operations".to_owned(), message));
    }
    Ok(rules)
}
