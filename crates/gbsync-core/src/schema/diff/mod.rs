//! What the next version of a schema means for devices whose apps still have the old one.
//!
//! Invariant: a change that can make the server refuse what an old device accepted is never called harmless.

mod entity;
mod field;
mod operation;

use super::{Schema, Undeclared};
use std::fmt;

/// One change between two schemas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// The keys that lead to it, e.g. `entities.receipts.fields.total`.
    pub path: String,
    /// What it means for old devices.
    pub severity: Severity,
    /// What changed, and why that is so severe.
    pub message: String,
    /// What to do about it, where something can be done.
    pub fix: Option<String>,
}

/// What a change means for devices with the old schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing.
    Harmless,
    /// The server translates what they send.
    Translated,
    /// The server may refuse what they send.
    BreaksOldDevices,
}

impl Severity {
    /// The stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Harmless => "harmless",
            Self::Translated => "translated",
            Self::BreaksOldDevices => "breaks_old_devices",
        }
    }
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::BreaksOldDevices => "breaks old devices",
            other => other.as_str(),
        };
        write!(f, "{}: {word}: {}", self.path, self.message)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// Every change from one schema to the next, by path.
///
/// ```
/// use gbsync_core::schema::{Schema, Severity, diff};
/// let schema = |text: &str| Schema::parse(text).unwrap();
/// let old = schema("version = 1\n[entities.c]\nfields.tel = \"text\"\n");
/// let new = schema("version = 2\n[entities.c]\nfields.phone = { type = \"text\", was = \"tel\" }\n");
/// let changes = diff(&old, &new);
/// assert_eq!(changes.len(), 1);
/// assert_eq!(changes[0].severity, Severity::Translated);
/// ```
pub fn diff(old: &Schema, new: &Schema) -> Vec<SchemaChange> {
    let mut changes = Changes { old_version: old.version, new_version: new.version, list: Vec::new() };
    let equal_but_for_version = Schema { version: new.version, ..old.clone() } == *new;
    if new.version <= old.version && !equal_but_for_version {
        let message =
            format!("the version is {} and was {}: devices take it for the schema they know", new.version, old.version);
        changes.breaks("version", message, format!("set version = {}", old.version + 1));
    } else if new.version < old.version {
        let message = format!("the version went back from {} to {}", old.version, new.version);
        changes.breaks("version", message, "a version only counts up");
    }
    for (name, rules) in &old.entities {
        let path = format!("entities.{name}");
        match new.entities.get(name) {
            Some(new_rules) => entity::compare(rules, new_rules, new, &path, &mut changes),
            None => {
                let message = format!("groups of older devices that change {name} will be refused");
                changes.breaks(&path, message, "keep it declared until no device has the old version");
            }
        }
    }
    for name in new.entities.keys().filter(|name| !old.entities.contains_key(*name)) {
        changes.harmless(&format!("entities.{name}"), "a new kind of record; older devices keep it without a table");
    }
    operation::compare(old, new, &mut changes);
    for name in old.sequences.keys().filter(|name| !new.sequences.contains_key(*name)) {
        changes.harmless(&format!("sequences.{name}"), "no longer there; older devices go on to allot its numbers");
    }
    for (name, sequence) in &new.sequences {
        match old.sequences.get(name) {
            Some(known) if known == sequence => {}
            Some(_) => changes.harmless(&format!("sequences.{name}"), "another format; older devices keep to theirs"),
            None => changes.harmless(&format!("sequences.{name}"), "a new sequence"),
        }
    }
    changes.list.sort_by(|a, b| a.path.cmp(&b.path));
    changes.list
}

/// Collects changes.
struct Changes {
    old_version: u64,
    new_version: u64,
    list: Vec<SchemaChange>,
}

impl Changes {
    fn push(&mut self, path: &str, severity: Severity, message: String, fix: Option<String>) {
        self.list.push(SchemaChange { path: path.to_owned(), severity, message, fix });
    }

    fn harmless(&mut self, path: &str, message: impl Into<String>) {
        self.push(path, Severity::Harmless, message.into(), None);
    }

    fn translated(&mut self, path: &str, message: impl Into<String>) {
        self.push(path, Severity::Translated, message.into(), None);
    }

    fn breaks(&mut self, path: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.push(path, Severity::BreaksOldDevices, message.into(), Some(fix.into()));
    }

    /// A rule that old devices do not check: they seal what the server then refuses.
    fn stricter(&mut self, path: &str, what: &str) {
        self.breaks(
            path,
            format!("{what}; older devices may seal what the server refuses"),
            "bring the apps up to date first",
        );
    }

    /// The same for a rule that can be soft.
    fn stricter_unless_flagged(&mut self, path: &str, what: &str) {
        let message = format!("{what}; older devices may seal what the server refuses");
        self.breaks(path, message, "begin with on_violation = \"flag\", or bring the apps up to date first");
    }

    /// A change between accepting and refusing what is not declared.
    fn undeclared(&mut self, path: &str, old: Undeclared, new: Undeclared, what: &str) {
        match (old, new) {
            (Undeclared::Accept, Undeclared::Refuse) => self.stricter(path, &format!("{what} is refused now")),
            (Undeclared::Refuse, Undeclared::Accept) => self.harmless(path, format!("{what} is accepted now")),
            _ => {}
        }
    }
}
