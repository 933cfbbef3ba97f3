//! Copies of a store's file: made beside a running server, looked through, and marked as restored.

use super::row::{count, digest, id, space as space_row};
use super::{lineage, open, schema};
use crate::store::backup::LogInFile;
use crate::store::{RestoredSpace, StoreError, descend};
use gbsync_core::id::{LogId, Seq, SpaceId};
use rusqlite::{Connection, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Steps of SQLite's machine between two looks at how far a copy is.
const STEPS: i32 = 200_000;
/// How long a copy waits for another process's lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file of a folder.
pub(crate) fn store_file(data: &Path) -> PathBuf {
    open::file(data)
}

/// Copies one committed state of a file into a new one. The server that runs on it goes on writing meanwhile.
pub(crate) fn copy_into(
    source: &Path,
    copy: &Path,
    mut told: impl FnMut(u64, u64) + Send + 'static,
) -> Result<(), StoreError> {
    open::prepare_read(source)?;
    open::make_private(copy);
    let mut connection = open::writer(source, PATIENCE)?;
    // Indexes of a large store need no memory of their own.
    connection.pragma_update(None, "temp_store", "FILE")?;
    let size = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let bytes = size("PRAGMA page_count")?.saturating_mul(size("PRAGMA page_size")?).unsigned_abs();
    let written = copy.to_owned();
    let look = move || {
        told(std::fs::metadata(&written).map_or(0, |copy| copy.len()), bytes);
        false
    };
    connection.progress_handler(STEPS, Some(look))?;
    connection.execute("VACUUM INTO ?1", [copy.display().to_string()])?;
    Ok(())
}

/// Reads a whole file again: that SQLite finds nothing wrong in it, its format, and the logs in it by the names of spaces.
pub(crate) fn verified(path: &Path) -> Result<(i64, Vec<LogInFile>), StoreError> {
    open::prepare_read(path)?;
    let connection = open::reader(path, PATIENCE)?;
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(StoreError::Damaged(format!("SQLite finds: {found}")));
    }
    let format = schema::format(&connection)?.unwrap_or(0);
    let mut statement = connection.prepare("SELECT space, log, head, chain FROM spaces ORDER BY space")?;
    let mut rows = statement.query([])?;
    let mut logs = Vec::new();
    while let Some(row) = rows.next()? {
        logs.push((id(row, 0, SpaceId::new)?, id(row, 1, LogId::new)?, Seq(count(row, 2)?), digest(row, 3)?));
    }
    Ok((format, logs))
}

/// Brings a file that nobody else uses to the newest format, and gives every space of it a new log, whose ancestor is the one
/// that it had.
pub(crate) fn mark(path: &Path, now_ms: u64, mut new_log: impl FnMut() -> LogId) -> Result<Vec<RestoredSpace>, StoreError> {
    open::prepare(path, PATIENCE)?;
    let mut connection = open::writer(path, PATIENCE)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut restored = Vec::new();
    for space in spaces(&transaction)? {
        let Some((_, state)) = space_row(&transaction, &space)? else { continue };
        let log = new_log();
        lineage::fork(&transaction, &space, &log, &descend(&state.log, state.head, &state.ancestors, now_ms))?;
        restored.push(RestoredSpace { space, ancestor: state.log, up_to: state.head, log });
    }
    gbsync_wal::commit(transaction)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    // With the last connection its helper files go.
    connection.close().map_err(|(_, error)| StoreError::from(error))?;
    Ok(restored)
}

fn spaces(connection: &Connection) -> Result<Vec<SpaceId>, StoreError> {
    let mut statement = connection.prepare("SELECT space FROM spaces ORDER BY space")?;
    let mut rows = statement.query([])?;
    let mut spaces = Vec::new();
    while let Some(row) = rows.next()? {
        spaces.push(id(row, 0, SpaceId::new)?);
    }
    Ok(spaces)
}
