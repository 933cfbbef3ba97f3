//! How rejections are closed: the entries of the log that say so, and the requests of a back office.

use super::operations::edits;
use super::read::{Fields, Read, WireError, parse, push_text};
use super::verdicts::reason;
use crate::change::Edit;
use crate::id::{Actor, GroupId, GroupType, RecordId, RecordKey, Seq};
use crate::json::{Node, push_string};
use crate::limits::{Limits, PAYLOAD_DEPTH};
use crate::verdict::{Resolution, ResolvedAs};

/// Reads the member `resolution` of an entry.
pub(super) fn read_resolution(node: &Node<'_>) -> Read<Resolution> {
    let fields = Fields::of(node)?;
    let word = fields.text("as")?;
    let unknown = || WireError::new(format!("{word:?} is no way to close a rejection")).within("as");
    Ok(Resolution {
        of: fields.id("of", |text| GroupId::new(text))?,
        resolved_as: ResolvedAs::from_wire(word).ok_or_else(unknown)?,
        by: fields.optional_id("by", |text| GroupId::new(text))?,
        actor: fields.optional_id("actor", |text| Actor::new(text))?,
        reason: fields.optional_text("reason")?.map(Into::into),
    })
}

/// The entry of the log that tells of a resolution, as it is stored and served. Its chain covers `of` and `[]`.
///
/// ```
/// use gbsync_core::{id::{GroupId, Seq}, verdict::{Resolution, ResolvedAs}, wire::resolution_entry_json};
/// let of = GroupId::new("g-1").unwrap();
/// let resolution = Resolution { of, resolved_as: ResolvedAs::Discarded, by: None, actor: None, reason: None };
/// assert!(resolution_entry_json(Seq(43), &resolution).starts_with(r#"{"seq":43,"resolution":{"of":"g-1","as":"discarded""#));
/// ```
pub fn resolution_entry_json(seq: Seq, resolution: &Resolution) -> String {
    format!("{{\"seq\":{seq},\"resolution\":{},\"changeCount\":0,\"changes\":[]}}", resolution_json(resolution))
}

/// A resolution as an object.
pub fn resolution_json(resolution: &Resolution) -> String {
    let mut out = String::from("{\"of\":");
    push_string(&mut out, resolution.of.as_str());
    push_text(&mut out, "as", resolution.resolved_as.as_str());
    let by = resolution.by.as_ref().map(GroupId::as_str);
    let actor = resolution.actor.as_ref().map(Actor::as_str);
    for (name, text) in [("by", by), ("actor", actor), ("reason", resolution.reason.as_deref())] {
        match text {
            Some(text) => push_text(&mut out, name, text),
            None => out.push_str(&format!(",\"{name}\":null")),
        }
    }
    out.push('}');
    out
}

/// A request to close a rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// How.
    pub resolved_as: ResolvedAs,
    /// Why.
    pub reason: String,
    /// Who closes it; the token's actor when absent.
    pub actor: Option<Actor>,
    /// What is done instead; `None` when it is discarded.
    pub remedy: Option<Remedy>,
}

/// What is done instead of a rejected group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// The kind of operation of a compensation; an amendment has the type of what it replaces.
    pub group_type: Option<GroupType>,
    /// What the operation is about.
    pub root: Option<String>,
    /// The edits, in order.
    pub edits: Vec<(RecordKey, Edit)>,
}

impl Resolve {
    /// Reads a request to close a rejection in this way.
    ///
    /// # Errors
    /// [`WireError`] when the request is malformed, says no reason, or an amendment or compensation has no change.
    pub fn parse(resolved_as: ResolvedAs, text: &[u8], limits: &Limits) -> Result<Self, WireError> {
        let (node, text) = parse(text, PAYLOAD_DEPTH + 3)?;
        let fields = Fields::of(&node)?;
        let remedy = match resolved_as {
            ResolvedAs::Discarded => None,
            ResolvedAs::Amended => {
                Some(Remedy { group_type: None, root: root(&fields)?, edits: edits(&fields, text, limits)? })
            }
            ResolvedAs::Compensated => Some(Remedy {
                group_type: Some(fields.id("type", |text| GroupType::new(text))?),
                root: Some(root(&fields)?.ok_or_else(|| WireError::new("is required").within("root"))?),
                edits: edits(&fields, text, limits)?,
            }),
        };
        let actor = fields.optional_id("actor", |text| Actor::new(text))?;
        Ok(Self { resolved_as, reason: reason(&fields)?, actor, remedy })
    }
}

/// What an operation is about: a text that an id can be made of.
fn root(fields: &Fields<'_, '_>) -> Read<Option<String>> {
    let Some(root) = fields.optional_text("root")? else { return Ok(None) };
    let invalid = |error: crate::id::InvalidId| WireError::new(error.to_string()).within("root");
    RecordId::new(root.trim()).map_err(invalid)?;
    Ok(Some(root.into()))
}
