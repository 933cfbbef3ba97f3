//! What was seen of an entity, a field, an operation type.

use super::sample::Sample;
use crate::change::{Edit, Payload};
use crate::json::{Decimal, Node, Value};
use crate::time::{Timestamp, is_date};
use std::collections::BTreeMap;

/// What was seen of an entity.
#[derive(Debug, Default)]
pub(super) struct EntitySeen {
    pub fields: BTreeMap<String, FieldSeen>,
    /// Ids of records that were written whole.
    pub ids: Sample,
    /// Whole records.
    pub upserts: u64,
    /// Changes outside any operation.
    pub ungrouped: u64,
}

/// What was seen of a field.
#[derive(Debug, Default)]
pub(super) struct FieldSeen {
    /// Values in whole records, other than null.
    pub in_upserts: u64,
    /// Whether a patch removed it or set it to null.
    pub is_removed: bool,
    /// Whether a patch set it.
    pub is_patched: bool,
    /// Increments of it.
    pub increments: u64,
    pub integers: u64,
    /// Numbers with a fraction, and the most digits after the point.
    pub fractions: u64,
    pub booleans: u64,
    pub texts: u64,
    pub dates: u64,
    pub timestamps: u64,
    /// Texts that are numbers with a point.
    pub decimals: u64,
    /// Most digits after the point, of numbers and of such texts.
    pub scale: u32,
    /// Objects and lists.
    pub structures: u64,
    /// Texts and integers, which may be ids.
    pub values: Sample,
}

/// What was seen of an operation type.
#[derive(Debug, Default)]
pub(super) struct OperationSeen {
    pub lines: u64,
    pub entities: BTreeMap<String, CountSeen>,
}

/// How many records of an entity the operations changed.
#[derive(Debug)]
pub(super) struct CountSeen {
    /// Operations that changed any.
    pub lines: u64,
    pub least: u64,
    pub most: u64,
}

impl EntitySeen {
    /// Adds one edit; answers how many fields were left out because there are too many.
    pub fn add(&mut self, id: &str, edit: &Edit, is_grouped: bool, most_fields: usize) -> u64 {
        self.ungrouped += u64::from(!is_grouped);
        let Some(payload) = edit.payload() else { return 0 };
        if matches!(edit, Edit::Upsert(_)) {
            self.upserts += 1;
            self.ids.add(id);
        }
        self.add_fields(payload, edit, most_fields)
    }

    fn add_fields(&mut self, payload: &Payload, edit: &Edit, most_fields: usize) -> u64 {
        let node = payload.node();
        let Value::Object(members) = &node.value else { return 0 };
        let mut left_out = 0;
        for (name, value) in members {
            if !self.fields.contains_key(name.as_ref()) && self.fields.len() >= most_fields {
                left_out += 1;
                continue;
            }
            self.fields.entry(name.to_string()).or_default().add(value, edit);
        }
        left_out
    }
}

impl FieldSeen {
    fn add(&mut self, value: &Node<'_>, edit: &Edit) {
        match edit {
            Edit::Upsert(_) => self.in_upserts += u64::from(!value.is_null()),
            Edit::Patch(_) => {
                self.is_removed |= value.is_null();
                self.is_patched = true;
            }
            Edit::Increment(_) => self.increments += 1,
            Edit::Delete => {}
        }
        match &value.value {
            Value::Null => {}
            Value::Bool(_) => self.booleans += 1,
            Value::Number(digits) if digits.parse::<i64>().is_ok() => {
                self.integers += 1;
                if !edit.is_increment() {
                    self.values.add(digits);
                }
            }
            Value::Number(digits) => {
                self.fractions += 1;
                self.scale = self.scale.max(Decimal::parse(digits).map_or(u32::MAX, Decimal::scale));
            }
            Value::String(text) => self.add_text(text),
            Value::Array(_) | Value::Object(_) => self.structures += 1,
        }
    }

    fn add_text(&mut self, text: &str) {
        self.texts += 1;
        self.dates += u64::from(is_date(text));
        self.timestamps += u64::from(Timestamp::new(text).is_ok());
        if let Some(decimal) = Decimal::parse(text).filter(|decimal| decimal.scale() > 0 && !text.contains(['e', 'E'])) {
            self.decimals += 1;
            self.scale = self.scale.max(decimal.scale());
        }
        self.values.add(text);
    }
}

impl OperationSeen {
    /// Adds one operation.
    pub fn add<'e>(&mut self, counts: impl Iterator<Item = (&'e str, u64)>) {
        self.lines += 1;
        for (entity, count) in counts {
            let seen = self.entities.entry(entity.to_owned()).or_insert(CountSeen { lines: 0, least: count, most: count });
            seen.lines += 1;
            seen.least = seen.least.min(count);
            seen.most = seen.most.max(count);
        }
    }
}
