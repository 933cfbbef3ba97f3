//! `POST …/push` and `POST …/verdicts`: the answers.

use super::flags::{flag, push_flags};
use super::read::{Fields, Read, WireError, each, id_item, parse, push_count, push_text, wrong};
use crate::id::{GroupId, RecordKey, Scope, Seq};
use crate::json::{Node, Value, push_string};
use crate::limits::PAYLOAD_DEPTH;
use crate::scope::Reach;
use crate::verdict::{ChangeCode, CurrentRecord, RefusedChange, Rejection, RejectionCode, Verdict};

/// Levels of an answer around a payload: answer, results, result, changes, change, current.
const DEPTH: usize = PAYLOAD_DEPTH + 6;

/// What is said of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupResult {
    /// The group.
    pub id: GroupId,
    /// The verdict.
    pub verdict: Verdict,
}

/// The answer to a push; an answer about verdicts has no head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushAnswer {
    /// One result a group, in the order sent.
    pub results: Vec<GroupResult>,
    /// The last `seq` of the log.
    pub head: Option<Seq>,
}

/// Reads an answer.
///
/// # Errors
/// [`WireError`] when it is not what the protocol says: then it is no answer, and the groups stay undecided.
pub fn parse_answer(text: &[u8]) -> Result<PushAnswer, WireError> {
    let (node, text) = parse(text, DEPTH)?;
    let fields = Fields::of(&node)?;
    let results = each("results", fields.array("results")?, |result| group_result(result, text))?;
    Ok(PushAnswer { results, head: fields.optional_count("head")?.map(Seq) })
}

/// Reads one result, the answer to a discard.
///
/// # Errors
/// [`WireError`] when it is not what the protocol says.
pub fn parse_result(text: &[u8]) -> Result<GroupResult, WireError> {
    let (node, text) = parse(text, DEPTH)?;
    group_result(&node, text)
}

fn group_result(node: &Node<'_>, text: &str) -> Read<GroupResult> {
    let fields = Fields::of(node)?;
    let id = fields.id("syncGroupId", |text| GroupId::new(text))?;
    let is_duplicate = matches!(fields.optional("duplicate").map(|node| &node.value), Some(Value::Bool(true)));
    let verdict = match fields.text("status")? {
        "accepted" => {
            let flags = each("flags", fields.optional_array("flags")?, flag)?;
            Verdict::Accepted { seq: Seq(fields.count("seq")?), is_duplicate, flags }
        }
        "rejected" => Verdict::Rejected { rejection: rejection(&fields, text)?, is_duplicate },
        "blocked" => {
            let by = each("blockedBy", fields.optional_array("blockedBy")?, |id| id_item(id, |text| GroupId::new(text)))?;
            Verdict::Blocked { by }
        }
        "incomplete" => Verdict::Incomplete {
            message: fields.optional_text("message")?.unwrap_or_default().into(),
            missing: each("missing", fields.optional_array("missing")?, part_number)?,
        },
        "unknown" => Verdict::Unknown,
        other => return Err(WireError::new(format!("{other:?} is no status")).within("status")),
    };
    Ok(GroupResult { id, verdict })
}

fn part_number(node: &Node<'_>) -> Read<u64> {
    node.as_count().ok_or_else(|| wrong(node, "the number of a part"))
}

fn rejection(fields: &Fields<'_, '_>, text: &str) -> Read<Rejection> {
    let code = fields.text("code")?;
    let unknown = || WireError::new(format!("{code:?} is no code of a rejection")).within("code");
    Ok(Rejection {
        code: RejectionCode::from_wire(code).ok_or_else(unknown)?,
        message: fields.optional_text("message")?.unwrap_or_default().into(),
        rule: fields.optional_text("rule")?.map(Into::into),
        changes: each("changes", fields.optional_array("changes")?, |change| refused_change(change, text))?,
    })
}

fn refused_change(node: &Node<'_>, text: &str) -> Read<RefusedChange> {
    let fields = Fields::of(node)?;
    let code = fields.text("code")?;
    let key =
        RecordKey::new(fields.text("entity")?, fields.text("id")?).map_err(|error| WireError::new(error.to_string()))?;
    let current = fields.optional("current").map(|node| current(node, text).map_err(|error| error.within("current")));
    Ok(RefusedChange {
        index: usize::try_from(fields.count("index")?).map_err(|_| WireError::new("is too large").within("index"))?,
        key,
        code: ChangeCode::from_wire(code)
            .ok_or_else(|| WireError::new(format!("{code:?} is no code of a change")).within("code"))?,
        current: current.transpose()?,
    })
}

fn current(node: &Node<'_>, text: &str) -> Read<CurrentRecord> {
    let fields = Fields::of(node)?;
    let payload = match fields.optional("payload") {
        Some(payload) if payload.is_object() => Some(payload.canonical_in(text).into()),
        Some(other) => return Err(wrong(other, "an object").within("payload")),
        None => None,
    };
    let reach = match fields.optional("scopes") {
        None => Reach::Everywhere,
        Some(_) => {
            let scopes = each("scopes", fields.array("scopes")?, |item| id_item(item, |text| Scope::new(text)))?;
            Reach::In(scopes.into_iter().collect())
        }
    };
    Ok(CurrentRecord { version: Seq(fields.count("version")?), payload, reach })
}

/// The answer to a push or to a question about verdicts.
pub fn answer_json(results: &[GroupResult], head: Option<Seq>) -> String {
    let mut out = String::from("{\"results\":[");
    for (index, result) in results.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_result(&mut out, result);
    }
    out.push(']');
    if let Some(head) = head {
        push_count(&mut out, "head", head.0);
    }
    out.push('}');
    out
}

/// One result.
pub fn result_json(result: &GroupResult) -> String {
    let mut out = String::new();
    push_result(&mut out, result);
    out
}

fn push_result(out: &mut String, result: &GroupResult) {
    out.push_str("{\"syncGroupId\":");
    push_string(out, result.id.as_str());
    match &result.verdict {
        Verdict::Accepted { seq, is_duplicate, flags } => {
            push_text(out, "status", "accepted");
            push_count(out, "seq", seq.0);
            out.push_str(&format!(",\"duplicate\":{is_duplicate},\"flags\":"));
            push_flags(out, flags);
        }
        Verdict::Rejected { rejection, is_duplicate } => {
            push_text(out, "status", "rejected");
            push_rejection(out, rejection);
            out.push_str(&format!(",\"duplicate\":{is_duplicate}"));
        }
        Verdict::Blocked { by } => {
            push_text(out, "status", "blocked");
            out.push_str(",\"blockedBy\":[");
            for (index, id) in by.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_string(out, id.as_str());
            }
            out.push(']');
        }
        Verdict::Incomplete { message, missing } => {
            push_text(out, "status", "incomplete");
            push_text(out, "message", message);
            if !missing.is_empty() {
                let missing: Vec<String> = missing.iter().map(u64::to_string).collect();
                out.push_str(&format!(",\"missing\":[{}]", missing.join(",")));
            }
        }
        Verdict::Unknown => push_text(out, "status", "unknown"),
    }
    out.push('}');
}

fn push_rejection(out: &mut String, rejection: &Rejection) {
    push_text(out, "code", rejection.code.as_str());
    push_text(out, "message", &rejection.message);
    match &rejection.rule {
        Some(rule) => push_text(out, "rule", rule),
        None => out.push_str(",\"rule\":null"),
    }
    out.push_str(",\"changes\":[");
    for (place, change) in rejection.changes.iter().enumerate() {
        out.push_str(if place > 0 { ",{" } else { "{" });
        out.push_str(&format!("\"index\":{}", change.index));
        push_text(out, "entity", change.key.entity.as_str());
        push_text(out, "id", change.key.id.as_str());
        push_text(out, "code", change.code.as_str());
        if let Some(current) = &change.current {
            let is_deleted = current.payload.is_none();
            out.push_str(&format!(",\"current\":{{\"version\":{},\"deleted\":{is_deleted},\"payload\":", current.version));
            out.push_str(current.payload.as_deref().unwrap_or("null"));
            if let Some(scopes) = current.reach.to_json() {
                out.push_str(&format!(",\"scopes\":{scopes}"));
            }
            out.push('}');
        }
        out.push('}');
    }
    out.push(']');
}
