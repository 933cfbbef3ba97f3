//! What is wrong with data that came before the rules: references that point nowhere and operations of another shape.
//!
//! Two questions, each about one record or one operation, so that whoever walks a store needs no more memory than for that.

use super::{shape, wants};
use crate::change::Payload;
use crate::id::{Entity, GroupType, RecordKey};
use crate::schema::{OnDelete, Schema, Undeclared};

/// A rule that an operation breaks as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenShape {
    /// The rule, as a rejection names it.
    pub rule: String,
    /// A sentence for people.
    pub message: String,
}

/// The records that a record refers to, each with the field that does. Values that are no id refer to nothing.
pub fn referents(schema: &Schema, key: &RecordKey, payload: &Payload) -> Vec<(String, RecordKey)> {
    let Some(rules) = schema.entity(&key.entity) else { return Vec::new() };
    if rules.references().next().is_none() {
        return Vec::new();
    }
    let record = payload.outline();
    let referent = |(field, reference): (&str, &crate::schema::Reference)| {
        let key = RecordKey { entity: reference.entity.clone(), id: wants::target_in(&record, field)? };
        Some((field.to_owned(), key))
    };
    rules.references().filter_map(referent).collect()
}

/// Whether a field may refer to a record that was deleted: its reference says `on_delete = "ignore"`.
pub fn may_refer_to_deleted(schema: &Schema, entity: &Entity, field: &str) -> bool {
    let reference = schema.entity(entity).and_then(|rules| rules.fields.get(field)?.reference.as_ref());
    reference.is_some_and(|reference| reference.on_delete == OnDelete::Ignore)
}

/// What is wrong with the shape of an operation that changes these records, cascades left out.
pub fn broken_shape(schema: &Schema, group_type: Option<&GroupType>, records: &[RecordKey]) -> Option<BrokenShape> {
    let Some(group_type) = group_type else {
        let is_refused = |key: &&RecordKey| schema.entity(&key.entity).is_some_and(|r| r.ungrouped == Undeclared::Refuse);
        let key = records.iter().find(is_refused)?;
        let message = format!("{key} was changed outside any operation");
        return Some(BrokenShape { rule: format!("{}.ungrouped", key.entity), message });
    };
    let shape = schema.operations.get(group_type)?.shape.as_ref()?;
    let (message, _) = shape::misfit(shape, group_type, records.iter().enumerate())?;
    Some(BrokenShape { rule: shape::name(group_type), message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Entity;
    use crate::schema::{Count, EntityRules, Field, FieldKind, OnViolation, OperationRules, Reference};

    fn entity(name: &str) -> Entity {
        Entity::new(name).expect("a name")
    }

    fn schema() -> Schema {
        let mut receipt_id = Field::of(FieldKind::Text);
        let (on_delete, on_violation) = (OnDelete::Restrict, OnViolation::Reject);
        receipt_id.reference = Some(Reference { entity: entity("receipts"), on_delete, on_violation });
        let payments = EntityRules { fields: [("receiptId".to_owned(), receipt_id)].into(), ..EntityRules::default() };
        let receipts = EntityRules { ungrouped: Undeclared::Refuse, ..EntityRules::default() };
        let shape =
            [(entity("receipts"), Count { least: 1, most: Some(1) }), (entity("payments"), Count { least: 1, most: None })];
        let sale = OperationRules { shape: Some(shape.into()), ..OperationRules::default() };
        Schema {
            version: 1,
            entities: [(entity("receipts"), receipts), (entity("payments"), payments)].into(),
            operations: [(GroupType::new("sale").expect("a name"), sale)].into(),
            ..Schema::default()
        }
    }

    #[test]
    fn a_record_refers_to_what_its_fields_name() {
        let key = RecordKey::new("payments", "p1").expect("a key");
        let of = |payload: &str| referents(&schema(), &key, &Payload::from_stored(payload));
        let target = RecordKey::new("receipts", "r1").expect("a key");
        assert_eq!(of(r#"{"receiptId":"r1"}"#), [("receiptId".to_owned(), target)]);
        assert_eq!(of(r#"{"receiptId":7}"#)[0].1.id.as_str(), "7");
        for nothing in ["{}", r#"{"receiptId":null}"#, r#"{"receiptId":true}"#, r#"{"receiptId":""}"#] {
            assert_eq!(of(nothing), []);
        }
    }

    #[test]
    fn an_operation_has_as_many_records_as_its_shape_says() {
        let sale = GroupType::new("sale").expect("a name");
        let other = GroupType::new("other").expect("a name");
        let broken = |group_type: Option<&GroupType>, records: &[&str]| {
            let key = |(index, entity): (usize, &&str)| RecordKey::new(entity, &format!("{index}")).expect("a key");
            let records: Vec<RecordKey> = records.iter().enumerate().map(key).collect();
            broken_shape(&schema(), group_type, &records).map(|broken| broken.rule)
        };
        assert_eq!(broken(Some(&sale), &["receipts", "payments", "payments"]), None);
        assert_eq!(broken(Some(&other), &["stock"]), None);
        assert_eq!(broken(None, &["payments"]), None);
        for (group_type, records, rule) in [
            (Some(&sale), &["receipts"][..], "sale.shape"),
            (Some(&sale), &["receipts", "receipts", "payments"], "sale.shape"),
            (Some(&sale), &["receipts", "payments", "stock"], "sale.shape"),
            (None, &["receipts"], "receipts.ungrouped"),
        ] {
            assert_eq!(broken(group_type, records).as_deref(), Some(rule));
        }
    }
}
