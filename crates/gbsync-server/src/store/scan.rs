//! A look through what is stored, for what broke rules before there were any. Reads one committed state, beside a running
//! server.
//!
//! Memory is that of a few records or log entries at a time; unique values are compared in a temporary file.

use super::survey::{Survey, each_record};
use super::{StoreError, StoreLocation};
use crate::error::ServerError;
use gbsync_core::change::Payload;
use gbsync_core::decide::{broken_shape, entries, may_refer_to_deleted, referents};
use gbsync_core::id::{Entity, GroupType, RecordKey, Seq, SpaceId};
use gbsync_core::json::{self, Node};
use gbsync_core::limits::PAYLOAD_DEPTH;
use gbsync_core::schema::Schema;
use rusqlite::Connection;

/// Entries of the log that are read at a time.
const ENTRIES: u64 = 8;
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
/// [`ServerError::NoStore`], [`ServerError::NoSpace`], [`ServerError::NoSchema`]; [`ServerError::Store`] when the store cannot
/// be read.
pub fn scan(
    store: impl Into<StoreLocation>,
    space: Option<&SpaceId>,
    schema: Option<&Schema>,
    found: &mut dyn FnMut(&SpaceId, Finding),
) -> Result<Scanned, ServerError> {
    store.into().survey(|survey| {
        let kept = if schema.is_none() { in_force(survey)? } else { None };
        let schema = schema.or(kept.as_ref()).ok_or(ServerError::NoSchema)?;
        let spaces = survey.spaces()?;
        if let Some(space) = space.filter(|space| !spaces.contains(space)) {
            return Err(ServerError::NoSpace { space: space.to_string() });
        }
        let mut scanned = Scanned::default();
        for space in spaces.iter().filter(|name| space.is_none_or(|space| space == *name)) {
            let mut found = |finding| found(space, finding);
            for (entity, rules) in &schema.entities {
                if rules.references().next().is_some() || !rules.unique.is_empty() {
                    scanned.records += scan_records(survey, space, schema, entity, &mut found)?;
                }
            }
            scanned.groups += scan_log(survey, space, schema, &mut found)?;
        }
        Ok(scanned)
    })
}

/// The schema that a store keeps.
fn in_force(survey: &mut dyn Survey) -> Result<Option<Schema>, StoreError> {
    let read =
        |text: String| Schema::parse(&text).map_err(|problems| StoreError::Damaged(format!("its schema: {problems}")));
    survey.schema()?.map(read).transpose()
}

fn scan_records(
    survey: &mut dyn Survey,
    space: &SpaceId,
    schema: &Schema,
    entity: &Entity,
    found: &mut dyn FnMut(Finding),
) -> Result<u64, StoreError> {
    let (mut values, mut count) = (UniqueValues::new()?, 0);
    each_record(survey, space, Some(entity), &mut |survey, records| {
        count += records.len() as u64;
        let refers = |(key, _, payload): &(RecordKey, Seq, Payload)| {
            let referents = referents(schema, key, payload).into_iter();
            referents.map(|(field, referent)| (key.clone(), field, referent)).collect::<Vec<_>>()
        };
        let references: Vec<_> = records.iter().flat_map(refers).collect();
        let referents: Vec<RecordKey> = references.iter().map(|(.., referent)| referent.clone()).collect();
        for ((key, field, referent), is_deleted) in references.into_iter().zip(survey.deleted(space, &referents)?) {
            // The reversal of a voided receipt is no orphan: the schema lets it name the receipt for ever.
            let is_allowed = is_deleted == Some(true) && may_refer_to_deleted(schema, entity, &field);
            if is_deleted != Some(false) && !is_allowed {
                found(Finding::Orphan { key, field, referent, was_deleted: is_deleted.is_some() });
            }
        }
        records.iter().try_for_each(|(key, _, payload)| values.add(schema, key, payload))
    })?;
    values.doubles(entity, found)?;
    Ok(count)
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
            let (fields, value, records) = (row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs());
            found(Finding::Double { entity: entity.clone(), fields, value, records });
        }
        Ok(())
    }
}

fn scan_log(
    survey: &mut dyn Survey,
    space: &SpaceId,
    schema: &Schema,
    found: &mut dyn FnMut(Finding),
) -> Result<u64, StoreError> {
    let (mut groups, mut after) = (0, Seq(0));
    loop {
        let entries = survey.entries(space, after, ENTRIES)?;
        let Some((last, _)) = entries.last() else { return Ok(groups) };
        after = *last;
        for (seq, entry) in entries {
            groups += 1;
            if let Some(finding) = scan_entry(survey, space, schema, seq, &entry)? {
                found(finding);
            }
        }
    }
}

fn scan_entry(
    survey: &mut dyn Survey,
    space: &SpaceId,
    schema: &Schema,
    seq: Seq,
    entry: &str,
) -> Result<Option<Finding>, StoreError> {
    let damaged = || StoreError::Damaged(format!("entry {seq} of the log cannot be read"));
    let node = json::parse(entry.as_bytes(), ENTRY_DEPTH).map_err(|_| damaged())?;
    let text = |name: &str| node.member(name).and_then(Node::as_str);
    let Some(group_id) = text("syncGroupId") else { return Ok(None) };
    let group_type = text("syncGroupType").map(GroupType::new).transpose().map_err(|_| damaged())?;
    let mut records = Vec::new();
    match node.member("changes") {
        Some(changes) => named(changes, &mut records).ok_or_else(damaged)?,
        // Its changes are stored beside it.
        None => {
            for number in 0.. {
                let Some(body) = survey.entry_part(space, seq, number)? else { break };
                let part = json::parse(body.as_bytes(), ENTRY_DEPTH).map_err(|_| damaged())?;
                named(part.member("changes").unwrap_or(&part), &mut records).ok_or_else(damaged)?;
            }
        }
    }
    let broken = broken_shape(schema, group_type.as_ref(), &records);
    let group_id = group_id.to_owned();
    Ok(broken.map(|broken| Finding::Shape { seq, group_id, rule: broken.rule, message: broken.message }))
}

/// The records that changes name; cascades were not named.
fn named(changes: &Node<'_>, records: &mut Vec<RecordKey>) -> Option<()> {
    for change in changes.as_array()?.iter().filter(|change| change.member("cause").is_none()) {
        let text = |name| change.member(name).and_then(Node::as_str);
        records.push(RecordKey::new(text("entity")?, text("id")?).ok()?);
    }
    Some(())
}
