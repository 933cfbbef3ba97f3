//! From a text to a [`Schema`], with every mistake reported at once.
//!
//! Invariant: reading goes on after a mistake with what is left, so that one run tells all of them; a schema is handed out
//! only when there was none.
//!
//! Two passes: the first reads each entity, sequence and operation type by itself, the second looks at what one says of
//! another.

mod cross;
mod default;
mod entity;
mod field;
mod keys;
mod operation;
mod rule;
mod sequence;

use self::keys::Keys;
use super::problem::{Code, Problems, SchemaProblems};
use super::{OnViolation, Schema, Undeclared, source};
use crate::limits::{SCHEMA_BYTES, SCHEMA_ENTITIES};

/// The words for [`Undeclared`].
const UNDECLARED: [(&str, Undeclared); 2] = [("accept", Undeclared::Accept), ("refuse", Undeclared::Refuse)];
/// The words for [`OnViolation`].
const ON_VIOLATION: [(&str, OnViolation); 2] = [("reject", OnViolation::Reject), ("flag", OnViolation::Flag)];

impl Schema {
    /// Reads a schema from TOML, or from JSON where the first character is `{`.
    ///
    /// # Errors
    /// [`SchemaProblems`]: every mistake, each with line, column and what to do.
    ///
    /// ```
    /// use gbsync_core::schema::Schema;
    /// let schema = Schema::parse("version = 1\n[entities.receipts]\nfields.no = \"text\"\n").unwrap();
    /// assert_eq!(schema.entities.len(), 1);
    /// let problems = Schema::parse("version = 1\n[entities.receipts]\nfields.no = \"txet\"\n").unwrap_err();
    /// assert_eq!(problems.to_string(), "3:13: \"txet\" is no type; did you mean \"text\"?");
    /// ```
    pub fn parse(text: &str) -> Result<Self, SchemaProblems> {
        let mut problems = Problems::default();
        let schema = read(text, &mut problems);
        problems.into_result(text)?;
        Ok(schema)
    }
}

fn read(text: &str, problems: &mut Problems) -> Schema {
    let mut schema = Schema::default();
    if text.len() > SCHEMA_BYTES {
        let message = format!("a schema has at most {SCHEMA_BYTES} bytes, not {}", text.len());
        problems.add(0, "", Code::TooLarge, message);
        return schema;
    }
    let tree = source::read(text, problems);
    if !problems.is_empty() {
        return schema;
    }
    let Some(keys) = Keys::of(&tree, 0, String::new(), problems) else { return schema };
    keys.only(&["version", "entities", "sequences", "operations", "undeclared_operations"], problems);
    schema.version = read_version(&keys, problems);
    schema.undeclared_operations = keys.choice("undeclared_operations", &UNDECLARED, problems).unwrap_or_default();
    let entities = keys.named("entities", SCHEMA_ENTITIES, problems);
    let sequences = keys.named("sequences", SCHEMA_ENTITIES, problems);
    let operations = keys.named("operations", SCHEMA_ENTITIES, problems);
    for entry in &sequences {
        if let Some((name, sequence)) = sequence::read(entry, problems) {
            schema.sequences.insert(name, sequence);
        }
    }
    for entry in &entities {
        if let Some((name, rules)) = entity::read(entry, schema.version, problems) {
            schema.entities.insert(name, rules);
        }
    }
    for entry in &operations {
        if let Some((name, rules)) = operation::read(entry, &entities, text, problems) {
            schema.operations.insert(name, rules);
        }
    }
    for entry in &entities {
        rule::read_of_entity(&mut schema, entry, &entities, text, problems);
    }
    cross::check(&schema, &entities, &sequences, problems);
    schema
}

fn read_version(keys: &Keys<'_>, problems: &mut Problems) -> u64 {
    if keys.find("version").is_none() {
        problems.add_with(0, "version", Code::MissingKey, "the version is missing", "begin with version = 1");
        return u64::MAX;
    }
    match keys.count("version", problems) {
        Some(0) => {
            let at = keys.find("version").map_or(0, |entry| entry.item.at);
            problems.add_with(at, "version", Code::OutOfRange, "the version cannot be 0", "begin with version = 1");
            u64::MAX
        }
        Some(version) => version,
        // Nothing is later than a version that could not be read.
        None => u64::MAX,
    }
}
