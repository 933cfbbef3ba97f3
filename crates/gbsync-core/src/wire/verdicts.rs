//! `POST …/verdicts` and `POST …/groups/{id}/discard`: the requests.

use super::read::{Fields, Read, WireError, each, id_item, parse, push_count, push_text};
use crate::id::{Actor, DeviceId, DeviceSeq, EpochId, GroupId, GroupType};
use crate::json::{Node, push_string};
use crate::limits::{REASON_BYTES, VERDICT_IDS};

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

/// What is said of a group that nobody wants any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardRequest {
    /// Why.
    pub reason: String,
    /// Who says so; the token's actor when absent.
    pub actor: Option<Actor>,
    /// Which group it was on its device, so that its number is accounted for although it never came.
    pub sealed_as: Option<SealedAs>,
}

/// Where a group was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedAs {
    /// The device.
    pub device: DeviceId,
    /// In which life of its database.
    pub epoch: EpochId,
    /// The group's number there.
    pub device_seq: DeviceSeq,
    /// Who made it.
    pub actor: Option<Actor>,
    /// The kind of operation.
    pub group_type: Option<GroupType>,
}

/// Reads a discard.
///
/// # Errors
/// [`WireError`] when the request is malformed or the reason is empty or over 4,096 bytes.
pub fn parse_discard(text: &[u8]) -> Result<DiscardRequest, WireError> {
    let (node, _) = parse(text, 8)?;
    let fields = Fields::of(&node)?;
    let sealed_as = fields.optional("sealedAs").map(|node| sealed_as(node).map_err(|error| error.within("sealedAs")));
    Ok(DiscardRequest {
        reason: reason(&fields)?,
        actor: fields.optional_id("actor", |text| Actor::new(text))?,
        sealed_as: sealed_as.transpose()?,
    })
}

fn sealed_as(node: &Node<'_>) -> Read<SealedAs> {
    let fields = Fields::of(node)?;
    let device_seq = DeviceSeq(fields.count("deviceSeq")?);
    if device_seq.0 == 0 {
        return Err(WireError::new("numbers begin at 1").within("deviceSeq"));
    }
    Ok(SealedAs {
        device: fields.id("device", |text| DeviceId::new(text))?,
        epoch: fields.id("epoch", |text| EpochId::new(text))?,
        device_seq,
        actor: fields.optional_id("actor", |text| Actor::new(text))?,
        group_type: fields.optional_id("syncGroupType", |text| GroupType::new(text))?,
    })
}

/// The member `reason`: trimmed, not empty, within its limit.
pub(super) fn reason(fields: &Fields<'_, '_>) -> Read<String> {
    let reason = fields.text("reason")?.trim();
    match reason.len() {
        0 => Err(WireError::new("is empty; say why").within("reason")),
        bytes if bytes > REASON_BYTES => {
            Err(WireError::new(format!("has {bytes} bytes, over the limit of {REASON_BYTES}")).within("reason"))
        }
        _ => Ok(reason.into()),
    }
}

/// The request to discard a group.
pub fn discard_json(request: &DiscardRequest) -> String {
    let mut out = String::from("{\"reason\":");
    push_string(&mut out, &request.reason);
    if let Some(actor) = &request.actor {
        push_text(&mut out, "actor", actor.as_str());
    }
    if let Some(sealed_as) = &request.sealed_as {
        out.push_str(",\"sealedAs\":{\"device\":");
        push_string(&mut out, sealed_as.device.as_str());
        push_text(&mut out, "epoch", sealed_as.epoch.as_str());
        push_count(&mut out, "deviceSeq", sealed_as.device_seq.0);
        if let Some(actor) = &sealed_as.actor {
            push_text(&mut out, "actor", actor.as_str());
        }
        if let Some(group_type) = &sealed_as.group_type {
            push_text(&mut out, "syncGroupType", group_type.as_str());
        }
        out.push('}');
    }
    out.push('}');
    out
}
