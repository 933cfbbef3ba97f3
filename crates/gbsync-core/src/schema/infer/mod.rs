//! A first schema from data: what an operations file shows of types, references, counters and shapes.
//!
//! Invariant: memory is bounded by the number of entities, fields and operation types, whatever the length of the file: of
//! ids only samples of hashes are kept, taken by the hash itself, so that two samples can be compared.
//!
//! What is inferred is a beginning: a file cannot show what was forbidden. Bounds are left open where the data only shows
//! how many there happened to be.

mod sample;
mod seen;
mod toml;
mod verdict;

use self::seen::{EntitySeen, OperationSeen};
use super::Schema;
use crate::id::GroupType;
use crate::limits::{SCHEMA_ENTITIES, SCHEMA_FIELDS};
use crate::wire::OperationLine;
use std::collections::BTreeMap;

/// Reads lines and remembers what they show.
#[derive(Debug, Default)]
pub struct Inference {
    entities: BTreeMap<String, EntitySeen>,
    operations: BTreeMap<GroupType, OperationSeen>,
    /// Names that were not looked at, because there were too many.
    left_out: u64,
}

/// A first schema, and remarks on what it could not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// The schema.
    pub schema: Schema,
    /// Remarks by path, e.g. `entities.tracks.fields.composer`; those with an empty path concern the whole.
    pub notes: BTreeMap<String, Vec<String>>,
}

impl Inference {
    /// Looks at one line.
    pub fn add(&mut self, line: &OperationLine) {
        let mut touched: BTreeMap<&str, std::collections::BTreeSet<&str>> = BTreeMap::new();
        for (key, edit) in &line.edits {
            let name = key.entity.as_str();
            if !self.entities.contains_key(name) && self.entities.len() >= SCHEMA_ENTITIES {
                self.left_out += 1;
                continue;
            }
            let seen = self.entities.entry(name.to_owned()).or_default();
            self.left_out += seen.add(key.id.as_str(), edit, line.group_type.is_some(), SCHEMA_FIELDS);
            touched.entry(name).or_default().insert(key.id.as_str());
        }
        let Some(group_type) = &line.group_type else { return };
        if !self.operations.contains_key(group_type) && self.operations.len() >= SCHEMA_ENTITIES {
            self.left_out += 1;
            return;
        }
        let counts = touched.into_iter().map(|(entity, ids)| (entity, ids.len() as u64));
        self.operations.entry(group_type.clone()).or_default().add(counts);
    }

    /// The schema that fits everything looked at.
    pub fn finish(self) -> Inferred {
        verdict::schema_of(self)
    }
}

/// The schema that fits these lines.
///
/// ```
/// use gbsync_core::{limits::Limits, schema::infer, wire::OperationLine};
/// let line = r#"{"type":"sell","root":"1","changes":[
///     {"entity":"sales","id":"1","action":"upsert","payload":{"total":"1.50"}}]}"#;
/// let line = OperationLine::parse(line, &Limits::default()).unwrap();
/// let toml = infer([&line]).to_toml();
/// assert!(toml.contains(r#"fields.total = { type = "decimal", scale = 2, required = true }"#));
/// ```
pub fn infer<'l>(lines: impl IntoIterator<Item = &'l OperationLine>) -> Inferred {
    let mut inference = Inference::default();
    lines.into_iter().for_each(|line| inference.add(line));
    inference.finish()
}
