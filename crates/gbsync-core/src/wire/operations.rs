//! Operations files: one JSON object a line, for `gbsync apply` and for tests.

use super::read::{Fields, Read, WireError, parse};
use crate::change::{Base, Change, Edit, Payload};
use crate::id::{Entity, GroupId, GroupType, RecordId, RecordKey};
use crate::json::Node;
use crate::limits::{Limits, PAYLOAD_DEPTH};

/// One line: an operation, or single changes when it has no type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationLine {
    /// The kind of operation; `None`: each change is a group of one.
    pub group_type: Option<GroupType>,
    /// What the operation is about; empty without a type.
    pub root: String,
    /// An id given by the file's author: it makes the line idempotent.
    pub group_id: Option<GroupId>,
    /// The edits, in order.
    pub edits: Vec<(RecordKey, Edit)>,
}

impl OperationLine {
    /// Reads one line.
    ///
    /// # Errors
    /// [`WireError`] names the change and says why; nothing of such a line may be applied.
    ///
    /// ```
    /// use gbsync_core::{limits::Limits, wire::OperationLine};
    /// let line = r#"{"changes":[{"entity":"genres","id":"1","action":"upsert","payload":{"name":"Rock"}}]}"#;
    /// let line = OperationLine::parse(line, &Limits::default()).unwrap();
    /// assert!(line.group_type.is_none() && line.edits.len() == 1);
    /// ```
    pub fn parse(line: &str, limits: &Limits) -> Result<Self, WireError> {
        let (node, text) = parse(line.as_bytes(), PAYLOAD_DEPTH + 3)?;
        let fields = Fields::of(&node)?;
        let group_type = fields.optional_id("type", |text| GroupType::new(text))?;
        let group_id = fields.optional_id("syncGroupId", |text| GroupId::new(text))?;
        let edits = edits(&fields, text, limits)?;
        let root = fields.optional_text("root")?.unwrap_or_default().to_owned();
        if group_type.is_some() && root.trim().is_empty() {
            return Err(
                WireError::new("is required for an operation with a type: say which record it is about").within("root")
            );
        }
        if group_type.is_none() && group_id.is_some() && edits.len() > 1 {
            let message = "one id cannot stand for several groups: give the line a type, or one change";
            return Err(WireError::new(message).within("syncGroupId"));
        }
        Ok(Self { group_type, root, group_id, edits })
    }
}

/// The member `changes` of an operation: at least one edit.
pub(super) fn edits(fields: &Fields<'_, '_>, text: &str, limits: &Limits) -> Read<Vec<(RecordKey, Edit)>> {
    let edit = |(index, item): (usize, &Node<'_>)| {
        edit(item, text, limits).map_err(|mut error| {
            error.message = format!("change {index}: {}", error.message);
            error.within(index).within("changes")
        })
    };
    let edits = fields.array("changes")?.iter().enumerate().map(edit).collect::<Read<Vec<_>>>()?;
    match edits.is_empty() {
        true => Err(WireError::new("the operation has no change").within("changes")),
        false => Ok(edits),
    }
}

fn edit(node: &Node<'_>, text: &str, limits: &Limits) -> Read<(RecordKey, Edit)> {
    let fields = Fields::of(node)?;
    let key = RecordKey {
        entity: fields.id("entity", |text| Entity::new(text))?,
        id: fields.id("id", |text| RecordId::new(text))?,
    };
    let make = match fields.text("action")? {
        "upsert" => Edit::Upsert,
        "patch" => Edit::Patch,
        "increment" => Edit::Increment,
        "delete" => return Ok((key, Edit::Delete)),
        other => {
            let message = format!("{other:?} is no action; use upsert, patch, increment or delete");
            return Err(WireError::new(message).within("action"));
        }
    };
    let payload = fields.required("payload")?;
    let payload =
        Payload::from_node(payload, text, limits).map_err(|error| WireError::new(error.to_string()).within("payload"))?;
    // The constructor of a change refuses an increment of something else than numbers.
    let change = Change::new(key, make(payload), Base::default());
    let change = change.map_err(|error| WireError::new(error.to_string()).within("payload"))?;
    Ok((change.key, change.edit))
}
