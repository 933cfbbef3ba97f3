//! The schema of the server, kept in the file: which version it had at the last handshake, and what it says where that is
//! another one than the app's.

use super::Tx;
use crate::error::{Error, damaged};
use crate::schemas::ServerSchema;
use gbsync_core::schema::Schema;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::sync::Arc;

/// The step that keeps it.
pub(super) const SERVER_SCHEMA: &str = "
ALTER TABLE gbsync_state ADD COLUMN server_schema_version INTEGER NOT NULL DEFAULT 0; -- at the last handshake
ALTER TABLE gbsync_state ADD COLUMN laid_under INTEGER NOT NULL DEFAULT 0;            -- the version that the overlay is laid under
CREATE TABLE gbsync_server_schema(
  one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  version INTEGER NOT NULL,
  schema  TEXT NOT NULL             -- as JSON
) STRICT;
";

/// What is kept, read anew only where another program kept another one since.
pub(crate) fn current(connection: &Connection, known: &ServerSchema) -> Result<ServerSchema, Error> {
    let sql = "SELECT server_schema_version, (SELECT version FROM gbsync_server_schema) FROM gbsync_state";
    let found = connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (version, kept): (u64, Option<u64>) = found.unwrap_or_default();
    if kept == known.schema.as_ref().map(|schema| schema.version) {
        return Ok(ServerSchema { schema: known.schema.clone(), version });
    }
    let text: String = connection.query_row("SELECT schema FROM gbsync_server_schema", [], |row| row.get(0))?;
    let schema = Schema::parse(&text).map_err(|error| damaged("gbsync_server_schema", error))?;
    Ok(ServerSchema { schema: Some(Arc::new(schema)), version })
}

/// Keeps what the server's schema says.
pub(crate) fn keep(tx: &Tx<'_>, version: u64, text: &str) -> Result<(), Error> {
    let sql = "INSERT INTO gbsync_server_schema(one, version, schema) VALUES (1, ?1, ?2)
               ON CONFLICT DO UPDATE SET version = ?1, schema = ?2";
    tx.execute(sql, params![version, text])?;
    tx.note_schemas_changed();
    Ok(())
}

/// Keeps which version the server has.
pub(crate) fn set_version(tx: &Tx<'_>, version: u64) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET server_schema_version = ?1 WHERE server_schema_version <> ?1";
    if tx.prepare_cached(sql)?.execute([version])? > 0 {
        tx.note_schemas_changed();
    }
    Ok(())
}

/// Notes under which version the overlay is laid from now on. Answers whether that is another one.
pub(crate) fn set_laid_under(connection: &Connection, version: u64) -> Result<bool, Error> {
    let sql = "UPDATE gbsync_state SET laid_under = ?1 WHERE laid_under <> ?1";
    Ok(connection.prepare_cached(sql)?.execute([version])? > 0)
}
