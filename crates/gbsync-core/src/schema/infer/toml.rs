//! An inferred schema as a file for a person: TOML with remarks.

use super::Inferred;
use crate::json::push_string;
use crate::schema::{EntityRules, Field, FieldKind, OperationRules};

impl Inferred {
    /// The text of a `gbsync.toml` that reads back as this schema.
    pub fn to_toml(&self) -> String {
        let mut out = String::from(
            "# A first schema, inferred from data: see what it says, and say what the data cannot (docs/schema.md):\n\
             # on_conflict, on_delete, unique, bounds of counters, roles, invariants.\n",
        );
        self.push_notes(&mut out, "");
        out.push_str(&format!("version = {}\n", self.schema.version));
        for (name, rules) in &self.schema.entities {
            out.push_str(&format!("\n[entities.{}]\n", key(name.as_str())));
            self.push_entity(&mut out, name.as_str(), rules);
        }
        for (name, rules) in &self.schema.operations {
            out.push_str(&format!("\n[operations.{}]\n", key(name.as_str())));
            self.push_operation(&mut out, name.as_str(), rules);
        }
        out
    }

    fn push_entity(&self, out: &mut String, name: &str, rules: &EntityRules) {
        let path = format!("entities.{name}");
        self.push_notes(out, &path);
        for (field, rules) in &rules.fields {
            out.push_str(&format!("fields.{} = {}", key(field), field_text(rules)));
            self.push_remark(out, &format!("{path}.fields.{field}"));
            out.push('\n');
        }
    }

    fn push_operation(&self, out: &mut String, name: &str, rules: &OperationRules) {
        let path = format!("operations.{name}");
        self.push_notes(out, &path);
        let Some(shape) = &rules.shape else { return };
        let counts: Vec<String> =
            shape.iter().map(|(entity, count)| format!("{} = \"{count}\"", key(entity.as_str()))).collect();
        out.push_str(&format!("shape = {{ {} }}", counts.join(", ")));
        let remarks = shape.keys().filter_map(|entity| self.notes.get(&format!("{path}.shape.{entity}"))).flatten();
        let remarks: Vec<&str> = remarks.map(String::as_str).collect();
        if !remarks.is_empty() {
            out.push_str(&format!(" # {}", remarks.join(", ")));
        }
        out.push('\n');
    }

    /// Remarks on lines of their own.
    fn push_notes(&self, out: &mut String, path: &str) {
        for note in self.notes.get(path).into_iter().flatten() {
            out.push_str(&format!("# {}\n", note.replace('\n', " ")));
        }
    }

    /// Remarks at the end of a line.
    fn push_remark(&self, out: &mut String, path: &str) {
        if let Some(notes) = self.notes.get(path) {
            out.push_str(&format!(" # {}", notes.join("; ").replace('\n', " ")));
        }
    }
}

fn field_text(rules: &Field) -> String {
    let mut members = vec![format!("type = \"{}\"", rules.kind.as_str())];
    if let FieldKind::Decimal { scale } = rules.kind {
        members.push(format!("scale = {scale}"));
    }
    if rules.required {
        members.push("required = true".to_owned());
    }
    if rules.counter.is_some() {
        members.push("counter = true".to_owned());
    }
    if let Some(reference) = &rules.reference {
        members.push(format!("references = {}", quoted(reference.entity.as_str())));
    }
    if members.len() == 1 { format!("\"{}\"", rules.kind.as_str()) } else { format!("{{ {} }}", members.join(", ")) }
}

/// A key, bare where TOML lets it be.
fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// A basic string: its escapes are JSON's.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    push_string(&mut out, text);
    out
}
