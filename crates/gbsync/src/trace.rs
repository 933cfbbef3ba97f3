//! How a batch that was sent is listed: `gbsync sync --trace` and `gbsync demo` print the same lines.

use gbsync_client::{SentBatch, SentGroup};
use gbsync_core::id::GroupType;
use serde_json::{Value, json};

/// The listing of one batch; an empty line stands between two.
///
/// ```text
/// Batch 1 (3 records)
/// - receipts:receipt-001 action=upsert group=receipt-create / receipt-create:receipt-001:<uuid>
/// - customers:customer-001 action=upsert group=no-group
/// ```
pub fn batch_text(batch: &SentBatch) -> String {
    let mut text = if batch.number > 1 { String::from("\n") } else { String::new() };
    text.push_str(&format!("Batch {} ({} records)", batch.number, batch.records));
    for group in &batch.groups {
        let name = match &group.group_type {
            Some(group_type) => format!("{group_type} / {}", group.id),
            None => "no-group".to_owned(),
        };
        for (key, action) in &group.changes {
            text.push_str(&format!("\n- {key} action={action} group={name}"));
        }
    }
    text
}

/// The same batch as an object with stable fields.
pub fn batch_json(batch: &SentBatch) -> Value {
    json!({ "batch": batch.number, "records": batch.records, "groups": batch.groups.iter().map(group_json).collect::<Vec<_>>() })
}

fn group_json(group: &SentGroup) -> Value {
    let change = |(key, action): &(gbsync_core::id::RecordKey, &'static str)| json!({ "entity": key.entity.as_str(), "id": key.id.as_str(), "action": action });
    json!({
        "syncGroupId": group.id.as_str(),
        "syncGroupType": group.group_type.as_ref().map(GroupType::as_str),
        "changes": group.changes.iter().map(change).collect::<Vec<_>>(),
    })
}
