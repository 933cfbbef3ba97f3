//! `GET …/rejections` and what the back office is answered when it closes one.

use super::read::{push_count, push_text};
use super::resolution::resolution_json;
use super::results::{GroupResult, result_json};
use crate::id::{Actor, GroupId, GroupType, Seq};
use crate::json::push_string;
use crate::time::Timestamp;
use crate::verdict::Resolution;
use crate::wire::SealedAs;

/// A rejected group as the server keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedGroup {
    /// The group.
    pub id: GroupId,
    /// The kind of operation.
    pub group_type: Option<GroupType>,
    /// Where it was sealed, where that is known.
    pub sealed_as: Option<SealedAs>,
    /// Who made it.
    pub actor: Option<Actor>,
    /// When its maker says it was made.
    pub created_at: Option<Timestamp>,
    /// When it was rejected.
    pub decided_at: Timestamp,
    /// The rejected group that it was sent instead of.
    pub replaces: Option<GroupId>,
    /// Its result, with the reason a change.
    pub result: GroupResult,
    /// How it was closed; `None` while it is open.
    pub closed: Option<Closed>,
    /// The bytes of its changes, where they arrived and are asked for.
    pub changes: Option<Box<str>>,
}

/// How a rejection was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// `amended`, `discarded`, `compensated`, or `replaced` by another group that was rejected as well.
    pub closed_as: Box<str>,
    /// The group that took its place or made up for it.
    pub by: Option<GroupId>,
    /// Who closed it.
    pub actor: Option<Actor>,
    /// Why.
    pub reason: Option<Box<str>>,
    /// When.
    pub at: Timestamp,
}

/// A page of rejections, without their changes.
pub fn rejections_json<'r>(rejections: impl IntoIterator<Item = &'r RejectedGroup>) -> String {
    let mut out = String::from("{\"rejections\":[");
    for (index, rejected) in rejections.into_iter().enumerate() {
        out.push_str(if index > 0 { ",{" } else { "{" });
        push_members(&mut out, rejected);
        out.push('}');
    }
    out.push_str("]}");
    out
}

/// One rejection with its result and its changes.
pub fn rejection_json(rejected: &RejectedGroup) -> String {
    let mut out = String::from("{");
    push_members(&mut out, rejected);
    out.push_str(&format!(",\"result\":{},\"changes\":", result_json(&rejected.result)));
    out.push_str(rejected.changes.as_deref().unwrap_or("null"));
    out.push('}');
    out
}

fn push_members(out: &mut String, rejected: &RejectedGroup) {
    let nullable = |out: &mut String, name: &str, text: Option<&str>| match text {
        Some(text) => push_text(out, name, text),
        None => out.push_str(&format!(",\"{name}\":null")),
    };
    out.push_str("\"syncGroupId\":");
    push_string(out, rejected.id.as_str());
    nullable(out, "syncGroupType", rejected.group_type.as_ref().map(GroupType::as_str));
    if let Some(sealed_as) = &rejected.sealed_as {
        push_text(out, "device", sealed_as.device.as_str());
        push_text(out, "epoch", sealed_as.epoch.as_str());
        push_count(out, "deviceSeq", sealed_as.device_seq.0);
    }
    nullable(out, "actor", rejected.actor.as_ref().map(Actor::as_str));
    nullable(out, "createdAt", rejected.created_at.as_ref().map(Timestamp::as_str));
    push_text(out, "decidedAt", rejected.decided_at.as_str());
    nullable(out, "replaces", rejected.replaces.as_ref().map(GroupId::as_str));
    push_text(out, "state", if rejected.closed.is_some() { "closed" } else { "open" });
    if let crate::verdict::Verdict::Rejected { rejection, .. } = &rejected.result.verdict {
        push_text(out, "code", rejection.code.as_str());
        push_text(out, "message", &rejection.message);
    }
    let Some(closed) = &rejected.closed else {
        out.push_str(",\"resolution\":null");
        return;
    };
    out.push_str(",\"resolution\":{\"as\":");
    push_string(out, &closed.closed_as);
    nullable(out, "by", closed.by.as_ref().map(GroupId::as_str));
    nullable(out, "actor", closed.actor.as_ref().map(Actor::as_str));
    nullable(out, "reason", closed.reason.as_deref());
    push_text(out, "at", closed.at.as_str());
    out.push('}');
}

/// The answer to a request to close a rejection. Without a resolution nothing took effect: the result says why.
pub fn resolved_json(resolution: Option<(&Resolution, Seq)>, result: Option<&GroupResult>, head: Option<Seq>) -> String {
    let mut out = String::from("{\"resolution\":");
    match resolution {
        Some((resolution, seq)) => out.push_str(&format!("{},\"seq\":{seq}", resolution_json(resolution))),
        None => out.push_str("null,\"seq\":null"),
    }
    match result {
        Some(result) => out.push_str(&format!(",\"result\":{}", result_json(result))),
        None => out.push_str(",\"result\":null"),
    }
    if let Some(head) = head {
        push_count(&mut out, "head", head.0);
    }
    out.push('}');
    out
}
