//! How connections are opened, and with which settings.

use super::schema;
use crate::store::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Statements a connection keeps prepared.
const STATEMENTS: usize = 64;
/// What every SQLite file that is not empty begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// The file of a folder.
pub(super) fn file(data: &Path) -> PathBuf {
    data.join("gbsync.db")
}

/// Makes the file, checks it and brings it to the newest format; answers the connection that writes, as [`writer`] does: each
/// opening reads all table definitions. What is refused is left untouched.
pub(super) fn prepare(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    refuse_other_files(path)?;
    make_private(path);
    let mut connection = mended(path, busy_timeout)?;
    // Closing the last connection would move the WAL into a file that is refused.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    schema::check(&connection, path)?;
    set_up_writer(&connection)?;
    schema::migrate(&mut connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

/// Makes the file if it is not there, readable by its owner alone: it holds everybody's business data. SQLite gives the
/// files beside it the same permissions, and says why if the file cannot be made.
pub(super) fn make_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(path));
}

/// Checks a file that is there and writes nothing to it; answers a connection that reads.
pub(super) fn prepare_read(path: &Path) -> Result<Connection, StoreError> {
    refuse_other_files(path)?;
    let connection = mended(path, Duration::from_secs(5))?;
    set_up_reader(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if !schema::check(&connection, path)? {
        return Err(StoreError::NotAStore { path: path.into(), reason: "it is empty".into() });
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

fn refuse_other_files(path: &Path) -> Result<(), StoreError> {
    let mut start = Vec::new();
    // A file that cannot be opened here gets its sentence from SQLite.
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MAGIC.len() as u64).read_to_end(&mut start);
    }
    if start.is_empty() || start == MAGIC {
        return Ok(());
    }
    Err(StoreError::NotAStore { path: path.into(), reason: "it is not a SQLite file".into() })
}

/// The connection that writes. WAL and FULL: a COMMIT that returned survives power loss.
pub(super) fn writer(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let connection = mended(path, busy_timeout)?;
    set_up_writer(&connection)?;
    Ok(connection)
}

/// A connection that reads and cannot write.
pub(super) fn reader(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let connection = existing(path, busy_timeout)?;
    set_up_reader(&connection)?;
    Ok(connection)
}

/// A connection behind which nothing is lost: whatever a failed sync dropped from the log is on the disk before it commits.
fn mended(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let connection = existing(path, busy_timeout)?;
    gbsync_wal::mend(&connection).map_err(|error| unsynced(path, error))?;
    Ok(connection)
}

fn unsynced(path: &Path, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull) => StoreError::Unsynced { path: path.into(), source },
        _ => source.into(),
    }
}

fn existing(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Without it SQLite plans some statements anew whenever their bound values change.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

fn set_up_reader(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -2_048)
}

fn set_up_writer(connection: &Connection) -> Result<(), StoreError> {
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Damaged(format!("journal_mode is {mode} and cannot be made WAL")));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A WAL that a long read let grow is cut back to this when it begins anew.
    connection.query_row("PRAGMA journal_size_limit=67108864", [], |_| Ok(()))?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    // 16 MiB: a page that many transactions write is copied to the main file once.
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    Ok(())
}
