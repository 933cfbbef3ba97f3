//! What an entity's table looks like, and the statements that write it, made once for a schema.

use crate::error::Error;
use gbsync_core::id::Entity;
use gbsync_core::schema::{EntityRules, Field, FieldKind, Undeclared};
use std::collections::{BTreeMap, BTreeSet};

/// The table of one entity.
pub(crate) struct Table {
    /// The entity, which is the table's name.
    pub(crate) entity: Entity,
    /// The name, quoted.
    pub(crate) name: String,
    /// The table of its rows as parked groups left them, quoted.
    pub(crate) refused: String,
    pub(crate) columns: Vec<Column>,
    /// Lists of columns that stand for one record together.
    pub(crate) unique: Vec<Vec<String>>,
    /// Lists of columns that have an index.
    pub(crate) indexes: Vec<Vec<String>>,
    /// Whether a change outside any operation is refused.
    pub(crate) needs_operation: bool,
    /// Writes a row: id, then the columns.
    pub(crate) upsert: String,
    /// Takes a row away by its id.
    pub(crate) delete: String,
    /// Writes a row of the shadow: id, then the columns.
    pub(crate) fill: String,
    /// Writes a row as a parked group left it: local number, id, then the columns.
    pub(crate) refuse: String,
}

/// One column of a table, which is one field of the entity.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: FieldKind,
    pub(crate) is_counter: bool,
    /// Whether a row without it is refused when an app writes it. One filled by a sequence may be left out.
    pub(crate) is_required: bool,
    /// The name that records from before a renaming have it under.
    pub(crate) was: Option<String>,
    /// The JSON that older records have in its place, where they must have one.
    pub(crate) default: Option<Box<str>>,
}

impl Column {
    fn of(name: &str, field: &Field) -> Self {
        Self {
            name: name.to_owned(),
            kind: field.kind,
            is_counter: field.counter.is_some(),
            is_required: field.required && field.sequence.is_none(),
            was: field.was.clone(),
            // A record without a field that it must have is older than the field. Where the field may be left out, nobody
            // can tell.
            default: field.default.clone().filter(|_| field.required),
        }
    }

    /// The names that a record may have it under, its own first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.was.as_deref())
    }

    /// The name of the exact integer beside a decimal.
    pub(crate) fn minor(&self) -> Option<String> {
        matches!(self.kind, FieldKind::Decimal { .. }).then(|| format!("{}_minor", self.name))
    }
}

impl Table {
    pub(crate) fn of(entity: &Entity, rules: &EntityRules) -> Self {
        // The record's own id is a column already.
        let fields = rules.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("id"));
        let columns: Vec<Column> = fields.map(|(name, field)| Column::of(name, field)).collect();
        let (name, refused) = (quoted(entity.as_str()), quoted(&format!("gbsync_{entity}_refused")));
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let conflict = match names.is_empty() {
            true => "DO NOTHING".to_owned(),
            false => format!("DO UPDATE SET {}", list(names.iter().map(|name| format!("{name} = excluded.{name}")))),
        };
        let written = list(std::iter::once("\"id\"".to_owned()).chain(names.iter().cloned()));
        let places = |count: usize| list((1..=count).map(|place| format!("?{place}")));
        let upsert = |table: &str| {
            format!("INSERT INTO {table}({written}) VALUES ({}) ON CONFLICT(\"id\") {conflict}", places(columns.len() + 1))
        };
        Self {
            upsert: upsert(&name),
            fill: upsert(&quoted(&shadow(entity))),
            delete: format!("DELETE FROM {name} WHERE \"id\" = ?1"),
            refuse: format!("INSERT OR REPLACE INTO {refused}(local_no, {written}) VALUES ({})", places(columns.len() + 2)),
            unique: rules.unique.clone(),
            indexes: indexes(rules),
            needs_operation: rules.ungrouped == Undeclared::Refuse,
            entity: entity.clone(),
            name,
            refused,
            columns,
        }
    }

    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The name of the table that is filled while the space is read anew.
    pub(crate) fn shadow(&self) -> String {
        shadow(&self.entity)
    }

    /// The name of the table that was exchanged, until its rows are gone.
    pub(crate) fn old(&self) -> String {
        format!("gbsync_{}_old", self.entity)
    }

    /// The name of the view of live and parked rows.
    pub(crate) fn all(&self) -> String {
        format!("{}_all", self.entity)
    }
}

fn shadow(entity: &Entity) -> String {
    format!("gbsync_{entity}_shadow")
}

/// Declared indexes, those that checking `unique` needs, and one a reference: none twice, none for a column that is not
/// there.
fn indexes(rules: &EntityRules) -> Vec<Vec<String>> {
    let references = rules.references().map(|(name, _)| vec![name.to_owned()]);
    let all = rules.indexes.iter().chain(&rules.unique).cloned().chain(references);
    let mut seen = BTreeSet::new();
    all.filter(|columns| columns.iter().all(|name| rules.fields.contains_key(name)) && seen.insert(columns.clone()))
        .collect()
}

/// Refuses names that SQLite cannot keep apart: to it, `No` and `no` are one.
pub(crate) fn check_names(tables: &BTreeMap<Entity, Table>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for table in tables.values() {
        for name in [table.entity.as_str().to_owned(), table.all()] {
            let folded = name.to_ascii_lowercase();
            if folded.starts_with("gbsync_") || folded.starts_with("sqlite_") || !seen.insert(folded) {
                return Err(Error::UnusableSchema(format!(
                    "a table {name:?} cannot be made: the name is taken; rename the entity"
                )));
            }
        }
        let names = table.columns.iter().flat_map(|column| std::iter::once(column.name.clone()).chain(column.minor()));
        let mut columns = BTreeSet::from(["id".to_owned(), "sync_state".to_owned(), "sync_message".to_owned()]);
        for name in names {
            if !columns.insert(name.to_ascii_lowercase()) {
                let message = format!("{:?} would have two columns {name:?}; rename the field", table.entity.as_str());
                return Err(Error::UnusableSchema(message));
            }
        }
    }
    Ok(())
}

/// A name in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Parts with commas between them.
pub(crate) fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
