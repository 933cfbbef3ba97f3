//! What breaks the rules on a device: in the records that it shows, and in operations that the server has not decided.

use super::Found;
use crate::config::{DeviceFile, client_failure};
use crate::exit::Failure;
use crate::output::counted;
use anyhow::Result;
use gbsync_client::Client;
use gbsync_core::change::Payload;
use gbsync_core::decide::{broken_shape, may_refer_to_deleted, referents};
use gbsync_core::id::{GroupId, GroupType, InvalidId, RecordKey};
use gbsync_core::schema::Schema;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;
use std::path::Path;

/// Groups that are named at a time.
const PAGE: i64 = 500;

/// Looks through a device's file; says how much that was.
///
/// # Errors
/// A failure that says what to do.
pub(super) fn scan(file: &Path, schema: Option<Schema>, found: &mut dyn FnMut(Found)) -> Result<String> {
    let device = DeviceFile::open(file)?;
    let kept = device.client.schema();
    let schema = match (&schema, &kept) {
        (Some(schema), _) => schema,
        (None, Some(kept)) => kept.as_ref(),
        (None, None) => {
            let failure = Failure::new("no_schema", "the file keeps no schema");
            return Err(failure.help("give one with --schema FILE").into());
        }
    };
    let mut ignored = Vec::new();
    let records = read(&device.client, |connection| scan_records(connection, schema, found, &mut ignored))?;
    for Ignored { key, field, referent } in ignored {
        let was_deleted = device.client.was_deleted(referent.entity.as_str(), referent.id.as_str());
        if !was_deleted.map_err(|error| client_failure(&error))? {
            found(Found::orphan(&key, &field, &referent, "is not there"));
        }
    }
    let groups = scan_groups(&device.client, schema, found)?;
    Ok(format!("{} and {}", counted(records, "record"), counted(groups, "undecided group")))
}

/// A reference to a record that is not there and may have been deleted.
struct Ignored {
    key: RecordKey,
    field: String,
    referent: RecordKey,
}

/// Why a scan stops.
enum Problem {
    Sqlite(rusqlite::Error),
    Damaged(InvalidId),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<InvalidId> for Problem {
    fn from(error: InvalidId) -> Self {
        Self::Damaged(error)
    }
}

fn read<T>(client: &Client, read: impl FnOnce(&Connection) -> Result<T, Problem>) -> Result<T> {
    let outcome = client.with_reader(|connection| match read(connection) {
        Ok(answer) => Ok(Ok(answer)),
        Err(Problem::Sqlite(error)) => Err(error),
        Err(Problem::Damaged(error)) => Ok(Err(error)),
    });
    let damaged = |error: InvalidId| Failure::new("damaged", format!("the file holds an id that is none: {error}"));
    Ok(outcome.map_err(|error| client_failure(&error))?.map_err(damaged)?)
}

fn scan_records(
    connection: &Connection,
    schema: &Schema,
    found: &mut dyn FnMut(Found),
    ignored: &mut Vec<Ignored>,
) -> Result<u64, Problem> {
    let mut records = 0;
    let mut statement = connection.prepare("SELECT id, payload FROM gbsync_records WHERE entity = ?1 ORDER BY id")?;
    let mut target = connection.prepare("SELECT 1 FROM gbsync_records WHERE entity = ?1 AND id = ?2")?;
    for (entity, _) in schema.entities.iter().filter(|(_, rules)| rules.references().next().is_some()) {
        let mut rows = statement.query([entity.as_str()])?;
        while let Some(row) = rows.next()? {
            records += 1;
            let (id, payload): (String, String) = (row.get(0)?, row.get(1)?);
            let key = RecordKey::new(entity.as_str(), &id)?;
            for (field, referent) in referents(schema, &key, &Payload::from_stored(payload)) {
                let values = params![referent.entity.as_str(), referent.id.as_str()];
                if target.query_row(values, |_| Ok(())).optional()?.is_some() {
                    continue;
                }
                if may_refer_to_deleted(schema, entity, &field) {
                    ignored.push(Ignored { key: key.clone(), field, referent });
                } else {
                    found(Found::orphan(&key, &field, &referent, "is not there"));
                }
            }
        }
    }
    Ok(records)
}

fn scan_groups(client: &Client, schema: &Schema, found: &mut dyn FnMut(Found)) -> Result<u64> {
    let (mut groups, mut after) = (0, 0);
    loop {
        let page = read(client, |connection| undecided(connection, after))?;
        let Some((last, ..)) = page.last() else { return Ok(groups) };
        after = *last;
        for (_, id, group_type) in &page {
            groups += 1;
            let changes = client.changes_of(id).map_err(|error| client_failure(&error))?;
            // A record that several changes touch is one record.
            let records: BTreeSet<RecordKey> = changes.into_iter().map(|change| change.key).collect();
            let records: Vec<RecordKey> = records.into_iter().collect();
            if let Some(broken) = broken_shape(schema, group_type.as_ref(), &records) {
                let members = serde_json::json!({ "group": id.as_str() });
                found(Found::shape(id.as_str(), &broken.rule, &broken.message, members));
            }
        }
    }
}

type Named = (i64, GroupId, Option<GroupType>);

/// Undecided groups behind a number, in order.
fn undecided(connection: &Connection, after: i64) -> Result<Vec<Named>, Problem> {
    let mut statement = connection.prepare(
        "SELECT device_seq, group_id, type FROM gbsync_group
         WHERE state IN ('sealed', 'in_flight', 'waiting_for_sign_in') AND device_seq > ?1 ORDER BY device_seq LIMIT ?2",
    )?;
    let mut rows = statement.query([after, PAGE])?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, group_type): (String, Option<String>) = (row.get(1)?, row.get(2)?);
        groups.push((row.get(0)?, GroupId::new(id)?, group_type.map(GroupType::new).transpose()?));
    }
    Ok(groups)
}
