//! What a newer schema makes of a stored record: a field has another name, or a value where it had none.
//!
//! The same rules as for groups that were made under an older schema (docs/schema.md, "Versions"): a rename counts where the
//! old name is not itself declared, a default where the field is absent.

use gbsync_core::decide::{Marks, Record, reach_of};
use gbsync_core::id::Entity;
use gbsync_core::schema::{EntityRules, Field, Schema};
use std::collections::BTreeSet;

/// From one schema to a newer one.
pub(super) struct Upgrade<'s> {
    from: Option<&'s Schema>,
    to: &'s Schema,
}

impl<'s> Upgrade<'s> {
    pub(super) fn new(from: Option<&'s Schema>, to: &'s Schema) -> Self {
        Self { from, to }
    }

    /// Its fields that change records which were written under the older schema.
    fn changed<'r>(&self, rules: &'r EntityRules) -> impl Iterator<Item = (&'r String, &'r Field)> + use<'r> {
        let (from, to) = (self.older_version(), self.to.version);
        let is_newer = move |field: &Field| field.since.unwrap_or(to) > from;
        rules.fields.iter().filter(move |(_, field)| is_newer(field) && (field.was.is_some() || field.default.is_some()))
    }

    /// The kinds of records that may change.
    pub(super) fn entities(&self) -> BTreeSet<Entity> {
        let has_changed =
            |(entity, rules): &(&Entity, &EntityRules)| self.changed(rules).next().is_some() || self.is_moved(entity, rules);
        self.to.entities.iter().filter(has_changed).map(|(entity, _)| entity.clone()).collect()
    }

    /// Whether its records are seen elsewhere than before: another field says where they lie, or one does now, or none.
    fn is_moved(&self, entity: &Entity, rules: &EntityRules) -> bool {
        self.from.and_then(|from| from.entity(entity)).and_then(|from| from.scope.as_deref()) != rules.scope.as_deref()
    }

    /// Bytes that a record grows by at most.
    pub(super) fn growth(&self) -> u64 {
        let bytes =
            |(name, field): (&String, &Field)| name.len() + field.default.as_ref().map_or(0, |default| default.len());
        let of = |rules: &EntityRules| self.changed(rules).map(bytes).sum::<usize>() as u64;
        self.to.entities.values().map(of).max().unwrap_or(0)
    }

    /// The kinds of records whose index lists are to be built anew, those that are no longer declared included.
    pub(super) fn reindexed(&self) -> BTreeSet<Entity> {
        let before = |entity: &Entity| self.from.and_then(|schema| schema.entity(entity));
        let differs = |(entity, rules): &(&Entity, &EntityRules)| {
            before(entity).is_none_or(|before| before.fields != rules.fields || before.unique != rules.unique)
        };
        // A default that counts anew may change records of a kind whose rules are the same.
        let changed = self.entities();
        let gone = self.from.iter().flat_map(|schema| schema.entities.keys());
        let gone = gone.filter(|entity| self.to.entity(entity).is_none()).cloned();
        self.to.entities.iter().filter(differs).map(|(entity, _)| entity.clone()).chain(gone).chain(changed).collect()
    }

    /// The record under the newer schema; `None` when it stays as it is.
    pub(super) fn record(&self, entity: &Entity, record: &Record) -> Option<Record> {
        let (rules, payload) = (self.to.entity(entity)?, record.payload.as_ref()?);
        let translated = self.to.translate_record(entity, payload, self.older_version());
        let is_translated = translated.is_some();
        let payload = translated.unwrap_or_else(|| payload.clone());
        let reach = match self.is_moved(entity, rules) {
            true => reach_of(Some(rules), &payload),
            false => record.reach.clone(),
        };
        if !is_translated && reach == record.reach {
            return None;
        }
        let mut marks = record.marks.clone();
        for (name, field) in self.changed(rules) {
            // One that is still declared keeps its own.
            let was = field.was.as_ref().filter(|was| !rules.fields.contains_key(*was));
            if let (Some(marks), Some(was)) = (&mut marks, was) {
                rename_mark(marks, was, name);
            }
        }
        Some(Record { payload: Some(payload), marks, reach, ..record.clone() })
    }

    fn older_version(&self) -> u64 {
        self.from.map_or(0, |schema| schema.version)
    }
}

/// An edit of the field under its old name and one under the new are edits of one field.
fn rename_mark(marks: &mut Marks, was: &str, name: &str) {
    if let Some(seq) = marks.fields.remove(was) {
        marks.fields.insert(name.into(), seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gbsync_core::change::Payload;
    use gbsync_core::id::Seq;
    use gbsync_core::schema::FieldKind;

    fn schema(version: u64, fields: &[(&str, Field)]) -> Schema {
        let fields = fields.iter().map(|(name, field)| ((*name).to_owned(), field.clone())).collect();
        let rules = EntityRules { fields, ..EntityRules::default() };
        let entities = [(Entity::new("receipts").expect("a name"), rules)].into();
        Schema { version, entities, ..Schema::default() }
    }

    fn upgraded(from: Option<&Schema>, to: &Schema, payload: &str) -> Option<String> {
        let marks = Marks { fields: [("customer".into(), Seq(3))].into(), ..Marks::default() };
        let record = Record {
            version: Seq(5),
            edit_version: Seq(4),
            payload: Some(Payload::from_stored(payload)),
            marks: Some(Box::new(marks)),
            reach: Default::default(),
        };
        let after = Upgrade::new(from, to).record(&Entity::new("receipts").expect("a name"), &record)?;
        assert_eq!((after.version, after.edit_version), (Seq(5), Seq(4)));
        let marks = after.marks.expect("marks");
        let marks: Vec<String> = marks.fields.iter().map(|(field, seq)| format!("{field}@{seq}")).collect();
        Some(format!("{} {}", after.payload.expect("a payload").as_str(), marks.join(",")))
    }

    #[test]
    fn a_renamed_field_keeps_its_value_and_its_mark() {
        let renamed = Field { was: Some("customer".into()), ..Field::of(FieldKind::Text) };
        let (one, two) = (schema(1, &[]), schema(2, &[("customerId", renamed)]));
        assert_eq!(
            upgraded(Some(&one), &two, r#"{"customer":"c1","x":1}"#).as_deref(),
            Some(r#"{"customerId":"c1","x":1} customerId@3"#)
        );
        // One that has the new name already keeps it, and nothing is done twice.
        assert_eq!(upgraded(Some(&one), &two, r#"{"customer":"c1","customerId":"c2"}"#), None);
        assert_eq!(upgraded(Some(&two), &two, r#"{"customer":"c1"}"#), None);
        assert!(upgraded(None, &two, r#"{"customer":"c1"}"#).is_some());
    }

    #[test]
    fn a_default_fills_what_is_absent_and_nothing_else() {
        let store = Field { default: Some(r#""main""#.into()), ..Field::of(FieldKind::Text) };
        let (one, two) = (schema(1, &[]), schema(2, &[("store", store)]));
        let marks = "customer@3";
        assert_eq!(upgraded(Some(&one), &two, "{}"), Some(format!(r#"{{"store":"main"}} {marks}"#)));
        assert_eq!(upgraded(Some(&one), &two, r#"{"store":null}"#), None);
    }

    #[test]
    fn a_name_that_is_still_declared_is_not_renamed() {
        let renamed = Field { was: Some("customer".into()), ..Field::of(FieldKind::Text) };
        let two = schema(2, &[("customerId", renamed), ("customer", Field::of(FieldKind::Text))]);
        assert_eq!(upgraded(None, &two, r#"{"customer":"c1"}"#), None);
    }
}
