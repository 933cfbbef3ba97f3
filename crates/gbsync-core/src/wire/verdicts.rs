//! `POST …/verdicts` and `POST …/groups/{id}/discard`: the requests.

use super::read::{Fields, WireError, each, id_item, parse};
use crate::id::GroupId;
use crate::json::push_string;
use crate::limits::VERDICT_IDS;

/// Most bytes of a reason.
const REASON_BYTES: usize = 4096;

/// Reads the ids that are asked about.
///
/// # Errors
/// [`WireError`] when the request is malformed or asks about more than [`VERDICT_IDS`] groups.
pub fn parse_verdicts_request(text: &[u8]) -> Result<Vec<GroupId>, WireError> {
    let (node, _) = parse(text, 8)?;
    let ids = Fields::of(&node)?.array("ids")?;
    if ids.len() > VERDICT_IDS {
        return Err(WireError::new(format!("has {} ids; ask about at most {VERDICT_IDS} at once", ids.len())).within("ids"));
    }
    each("ids", ids, |id| id_item(id, |text| GroupId::new(text)))
}

/// The question about verdicts.
pub fn verdicts_request_json(ids: &[GroupId]) -> String {
    let mut out = String::from("{\"ids\":[");
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_string(&mut out, id.as_str());
    }
    out.push_str("]}");
    out
}

/// Reads the reason of a discard.
///
/// # Errors
/// [`WireError`] when the request is malformed or the reason is empty or over 4,096 bytes.
pub fn parse_discard(text: &[u8]) -> Result<String, WireError> {
    let (node, _) = parse(text, 8)?;
    let reason = Fields::of(&node)?.text("reason")?.trim();
    match reason.len() {
        0 => Err(WireError::new("is empty; say why the group is discarded").within("reason")),
        bytes if bytes > REASON_BYTES => {
            Err(WireError::new(format!("has {bytes} bytes, over the limit of {REASON_BYTES}")).within("reason"))
        }
        _ => Ok(reason.into()),
    }
}

/// The request to discard a group.
pub fn discard_json(reason: &str) -> String {
    let mut out = String::from("{\"reason\":");
    push_string(&mut out, reason);
    out.push('}');
    out
}
