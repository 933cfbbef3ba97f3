//! Which rules a file is kept under, and the tables made and filled when they change.
//!
//! Invariant: rules, tables, triggers, views and rows change in one transaction, after everything that programs captured
//! under the old rules has become groups. No group and no record is touched by it.

use super::{Rules, Table, ddl, shadow};
use crate::capture;
use crate::environment::Environment;
use crate::error::{Error, damaged};
use crate::pull;
use crate::schemas::ServerSchema;
use crate::store::{Tx, server_schema};
use gbsync_core::change::Payload;
use gbsync_core::id::RecordKey;
use gbsync_core::schema::Schema;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::sync::Arc;

/// Settles, inside a transaction, under which rules the file is kept from now on: those that the program brings, or those
/// that it has.
pub(crate) fn adopt(
    connection: &Connection,
    brought: Option<Schema>,
    environment: &Environment,
) -> Result<Option<Arc<Rules>>, Error> {
    // As they mostly are what they were, and as text they are compared without being read.
    if let Some(brought) = &brought
        && stored_text(connection)?.is_some_and(|stored| stored == brought.to_json())
    {
        return Ok(Some(Arc::new(Rules::new(brought.clone(), true)?)));
    }
    let stored = stored(connection)?;
    let Some(brought) = brought else {
        return stored.map(|schema| Rules::new(schema, false).map(Arc::new)).transpose();
    };
    if let Some(stored) = &stored {
        if brought == *stored {
            return Ok(Some(Arc::new(Rules::new(brought, true)?)));
        }
        if brought.version < stored.version {
            return Err(Error::OlderSchema { brought: brought.version, stored: stored.version });
        }
        if brought.version == stored.version {
            return Err(Error::SameSchemaVersion { version: stored.version });
        }
    }
    let rules = Arc::new(Rules::new(brought, true)?);
    let old = stored.map(|schema| Rules::new(schema, false).map(Arc::new)).transpose()?;
    let server = server_schema::current(connection, &ServerSchema::default())?;
    capture::complete(&Tx::new(connection, old.clone(), server.clone()), environment)?;
    shadow::forget_all(connection)?;
    for table in old.iter().flat_map(|old| old.tables.values()) {
        connection.execute_batch(&ddl::drop(table))?;
    }
    for table in rules.tables.values() {
        check_free(connection, table)?;
        for statement in ddl::create(table) {
            connection.execute_batch(&statement)?;
        }
    }
    let sql = "INSERT INTO gbsync_schema(one, version, schema) VALUES (1, ?1, ?2)
               ON CONFLICT DO UPDATE SET version = ?1, schema = ?2";
    connection.execute(sql, params![rules.schema.version, rules.schema.to_json()])?;
    let tx = Tx::new(connection, Some(rules.clone()), server);
    if !pull::lay_under_newest(&tx)? {
        refill(&tx)?;
    }
    Ok(Some(rules))
}

/// The rules again, where another program gave the file newer ones since they were read.
pub(crate) fn reload(connection: &Connection, known: Option<&Arc<Rules>>) -> Result<Option<Arc<Rules>>, Error> {
    let mut statement = connection.prepare_cached(crate::store::SCHEMA_VERSION)?;
    let version: Option<u64> = statement.query_row([], |row| row.get(0)).optional()?;
    match known {
        Some(known) if Some(known.schema.version) == version => Ok(Some(known.clone())),
        None if version.is_none() => Ok(None),
        Some(known) if known.are_brought => {
            Err(Error::OlderSchema { brought: known.schema.version, stored: version.unwrap_or_default() })
        }
        _ => stored(connection)?.map(|schema| Rules::new(schema, false).map(Arc::new)).transpose(),
    }
}

fn stored(connection: &Connection) -> Result<Option<Schema>, Error> {
    let text = stored_text(connection)?;
    text.map(|text| Schema::parse(&text).map_err(|error| damaged("gbsync_schema", error))).transpose()
}

fn stored_text(connection: &Connection) -> Result<Option<String>, Error> {
    Ok(connection.query_row("SELECT schema FROM gbsync_schema", [], |row| row.get(0)).optional()?)
}

/// Refuses to take a name that something of the app's has in this file.
fn check_free(connection: &Connection, table: &Table) -> Result<(), Error> {
    let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE";
    for name in [table.entity.as_str(), &table.all()] {
        let taken: Option<String> = connection.query_row(sql, [name], |row| row.get(0)).optional()?;
        if let Some(name) = taken {
            return Err(Error::TableTaken { name });
        }
    }
    Ok(())
}

/// Empties the tables and fills them from base and overlay.
pub(crate) fn refill(tx: &Tx<'_>) -> Result<(), Error> {
    for table in tx.tables() {
        tx.execute_batch(&format!("DELETE FROM {}; DELETE FROM {};", table.name, table.refused))?;
        let mut statement = tx.prepare("SELECT id, payload FROM gbsync_records WHERE entity = ?1")?;
        let mut rows = statement.query([table.entity.as_str()])?;
        while let Some(row) = rows.next()? {
            let (key, payload) = record(table, &row.get::<_, String>(0)?, row.get(1)?)?;
            super::write(tx, &key, Some(payload.as_str()))?;
        }
        let mut statement = tx.prepare("SELECT id, payload, local_no FROM gbsync_refused_row WHERE entity = ?1")?;
        let mut rows = statement.query([table.entity.as_str()])?;
        while let Some(row) = rows.next()? {
            let (key, payload) = record(table, &row.get::<_, String>(0)?, row.get(1)?)?;
            super::write_refused(tx, row.get(2)?, &key, &payload)?;
        }
    }
    Ok(())
}

fn record(table: &Table, id: &str, payload: Box<str>) -> Result<(RecordKey, Payload), Error> {
    let key = RecordKey::new(table.entity.as_str(), id).map_err(|error| damaged("gbsync_records", error))?;
    Ok((key, Payload::from_stored(payload)))
}
