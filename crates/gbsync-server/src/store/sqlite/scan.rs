//! A look through what is stored, for what broke rules before there were any. Reads one committed state, beside a running
//! server.
//!
//! Memory is that of one record or one log entry at a time; unique values are compared in a temporary file.

use super::open;
use super::row::{place, record, seq_at, space as space_row};
use crate::error::ServerError;
use crate::store::StoreError;
use gbsync_core::change::Payload;
use gbsync_core::decide::{broken_shape, entries, may_refer_to_deleted, referents};
use gbsync_core::id::{Entity, GroupType, RecordId, RecordKey, Seq, SpaceId};
use gbsync_core::json::{self, Node};
use gbsync_core::limits::PAYLOAD_DEPTH;
use gbsync_core::schema::Schema;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Levels of an entry around a payload: entry, changes, change.
const ENTRY_DEPTH: usize = PAYLOAD_DEPTH + 4;

/// Something in a store that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A reference points nowhere.
    Orphan {
        /// The record that refers.
        key: RecordKey,
        /// Its field.
        field: String,
        /// The record that is not there.
        referent: RecordKey,
        /// Whether it was there once.
        was_deleted: bool,
    },
    /// Several records have a value that must be unique.
    Double {
        /// The kind of records.
        entity: Entity,
        /// The fields, joined by `+`.
        fields: String,
        /// The values, as a JSON array.
        value: String,
        /// How many records have it.
        records: u64,
    },
    /// An operation in the log has not the shape that its kind has.
    Shape {
        /// Its place in the log.
        seq: Seq,
        /// Its group.
        group_id: String,
        /// The rule.
        rule: String,
        /// What is wrong.
        message: String,
    },
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scanned {
    /// Live records.
    pub records: u64,
    /// Entries of the log.
    pub groups: u64,
}

/// Looks through a space, or all of them, by `schema` or by the one in force. Each finding is handed to `found`, with its
/// space, as it is made.
///
/// # Errors
/// [`ServerError::NoStore`], [`ServerError::NoSpace`], [`ServerError::NoSchema`]; [`ServerError::Store`] when the file cannot
/// be read.
pub fn scan(
    data: &Path,
    space: Option<&SpaceId>,
    schema: Option<&Schema>,
    found: &mut dyn FnMut(&SpaceId, Finding),
) -> Result<Scanned, ServerError> {
    let path = open::file(data);
    if !path.is_file() {
        return Err(ServerError::NoStore { path: data.into() });
    }
    open::prepare_read(&path)?;
    let connection = open::reader(&path, Duration::from_secs(5))?;
    let transaction = connection.unchecked_transaction().map_err(StoreError::from)?;
    let kept = if schema.is_none() { in_force(&transaction)? } else { None };
    let schema = schema.or(kept.as_ref()).ok_or(ServerError::NoSchema)?;
    let spaces = spaces(&transaction)?;
    if let Some(space) = space.filter(|space| !spaces.contains(space)) {
        return Err(ServerError::NoSpace { space: space.to_string() });
    }
    let mut scanned = Scanned::default();
    for space in spaces.iter().filter(|name| space.is_none_or(|space| space == *name)) {
        let Some((space_no, _)) = space_row(&transaction, space)? else { continue };
        let mut found = |finding| found(space, finding);
        for (entity, rules) in &schema.entities {
            if rules.references().next().is_some() || !rules.unique.is_empty() {
                scanned.records += scan_records(&transaction, space_no, schema, entity, &mut found)?;
            }
        }
        scanned.groups += scan_log(&transaction, space_no, schema, &mut found)?;
    }
    Ok(scanned)
}

/// The schema that a store keeps.
fn in_force(transaction: &Transaction<'_>) -> Result<Option<Schema>, StoreError> {
    let text: Option<String> = transaction
        .query_row("SELECT text FROM schemas WHERE in_force ORDER BY version DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let read =
        |text: String| Schema::parse(&text).map_err(|problems| StoreError::Damaged(format!("its schema: {problems}")));
    text.map(read).transpose()
}

fn spaces(transaction: &Transaction<'_>) -> Result<BTreeSet<SpaceId>, StoreError> {
    let mut statement = transaction.prepare("SELECT space FROM spaces")?;
    let mut rows = statement.query([])?;
    let mut spaces = BTreeSet::new();
    while let Some(row) = rows.next()? {
        spaces.insert(super::row::id(row, 0, SpaceId::new)?);
    }
    Ok(spaces)
}

fn scan_records(
    connection: &Connection,
    space_no: i64,
    schema: &Schema,
    entity: &Entity,
    found: &mut dyn FnMut(Finding),
) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT version, edit_version, payload, NULL, id FROM records
         WHERE space_no = ?1 AND entity = ?2 AND payload IS NOT NULL ORDER BY id",
    )?;
    let mut target =
        connection.prepare_cached("SELECT payload IS NULL FROM records WHERE space_no = ?1 AND entity = ?2 AND id = ?3")?;
    let mut values = UniqueValues::new()?;
    let mut rows = statement.query(params![space_no, entity.as_str()])?;
    let mut records = 0;
    while let Some(row) = rows.next()? {
        records += 1;
        let key = RecordKey { entity: entity.clone(), id: super::row::id(row, 4, RecordId::new)? };
        let Some(payload) = record(row)?.payload else { continue };
        for (field, referent) in referents(schema, &key, &payload) {
            let is_deleted: Option<bool> = target
                .query_row(params![space_no, referent.entity.as_str(), referent.id.as_str()], |row| row.get(0))
                .optional()?;
            // The reversal of a voided receipt is no orphan: the schema lets it name the receipt for ever.
            let is_allowed = is_deleted == Some(true) && may_refer_to_deleted(schema, entity, &field);
            if is_deleted != Some(false) && !is_allowed {
                let was_deleted = is_deleted.is_some();
                found(Finding::Orphan { key: key.clone(), field, referent, was_deleted });
            }
        }
        values.add(schema, &key, &payload)?;
    }
    values.doubles(entity, found)?;
    Ok(records)
}

/// The values of unique fields, in a temporary file that goes with its connection.
struct UniqueValues {
    file: Connection,
}

impl UniqueValues {
    fn new() -> Result<Self, StoreError> {
        let file = Connection::open("")?;
        file.execute_batch("CREATE TABLE held (fields TEXT, value TEXT); BEGIN")?;
        Ok(Self { file })
    }

    fn add(&mut self, schema: &Schema, key: &RecordKey, payload: &Payload) -> Result<(), StoreError> {
        let Some(rules) = schema.entity(&key.entity).filter(|rules| !rules.unique.is_empty()) else { return Ok(()) };
        for fields in &rules.unique {
            let joined = fields.join(",");
            // A reference of the same name stands on a list of the same fields, but its value is no array.
            let is_of = |list: &&gbsync_core::decide::IndexKey| *list.fields == *joined && list.value.starts_with('[');
            if let Some(list) = entries(schema, key, payload).iter().find(is_of) {
                let mut insert = self.file.prepare_cached("INSERT INTO held (fields, value) VALUES (?1, ?2)")?;
                insert.execute([fields.join("+").as_str(), &list.value])?;
            }
        }
        Ok(())
    }

    fn doubles(&self, entity: &Entity, found: &mut dyn FnMut(Finding)) -> Result<(), StoreError> {
        let mut statement = self.file.prepare(
            "SELECT fields, value, count(*) FROM held GROUP BY fields, value HAVING count(*) > 1 ORDER BY fields, value",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (fields, value, records) = (row.get(0)?, row.get(1)?, super::row::count(row, 2)?);
            found(Finding::Double { entity: entity.clone(), fields, value, records });
        }
        Ok(())
    }
}

fn scan_log(
    connection: &Connection,
    space_no: i64,
    schema: &Schema,
    found: &mut dyn FnMut(Finding),
) -> Result<u64, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT place, entry FROM log WHERE place > ?1 AND place < ?2 ORDER BY place")?;
    let mut rows = statement.query([place(space_no, Seq(0))?, place(space_no + 1, Seq(0))?])?;
    let mut groups = 0;
    while let Some(row) = rows.next()? {
        groups += 1;
        let (seq, entry): (Seq, String) = (seq_at(row.get(0)?), row.get(1)?);
        let damaged = || StoreError::Damaged(format!("entry {seq} of the log cannot be read"));
        let node = json::parse(entry.as_bytes(), ENTRY_DEPTH).map_err(|_| damaged())?;
        let text = |name: &str| node.member(name).and_then(Node::as_str);
        let Some(group_id) = text("syncGroupId") else { continue };
        let group_type = text("syncGroupType").map(GroupType::new).transpose().map_err(|_| damaged())?;
        let mut records = Vec::new();
        match node.member("changes") {
            Some(changes) => named(changes, &mut records).ok_or_else(damaged)?,
            // Its changes are stored beside it.
            None => {
                let mut parts = connection.prepare_cached("SELECT body FROM log_parts WHERE place = ?1 ORDER BY part")?;
                let mut rows = parts.query([place(space_no, seq)?])?;
                while let Some(row) = rows.next()? {
                    let body: String = row.get(0)?;
                    let part = json::parse(body.as_bytes(), ENTRY_DEPTH).map_err(|_| damaged())?;
                    named(part.member("changes").unwrap_or(&part), &mut records).ok_or_else(damaged)?;
                }
            }
        }
        if let Some(broken) = broken_shape(schema, group_type.as_ref(), &records) {
            let (group_id, rule, message) = (group_id.to_owned(), broken.rule, broken.message);
            found(Finding::Shape { seq, group_id, rule, message });
        }
    }
    Ok(groups)
}

/// The records that changes name; cascades were not named.
fn named(changes: &Node<'_>, records: &mut Vec<RecordKey>) -> Option<()> {
    for change in changes.as_array()?.iter().filter(|change| change.member("cause").is_none()) {
        let text = |name| change.member(name).and_then(Node::as_str);
        records.push(RecordKey::new(text("entity")?, text("id")?).ok()?);
    }
    Some(())
}
