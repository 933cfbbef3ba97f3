//! What a failed sync dropped from a write-ahead log is written again before anything is committed behind it.
//!
//! Linux takes pages whose sync failed for clean: they are read as they were written, and never reach the disk. A process that
//! goes on overwrites them with its next COMMIT. One that ends before it does not, and the next one takes the failed
//! transaction for committed: what it then saves stands behind a hole, and is gone with the power.
//!
//! Invariant: whoever finds the mark beside a database commits nothing before the whole log is written and synced again. The mark
//! need not be durable: the hole is hidden only for as long as the system runs.
//!
//! Rejected alternative: a checkpoint on opening. Power lost in the middle of it leaves pages of both states in the main file.

mod file;

use file::Wal;
use rusqlite::config::DbConfig;
use rusqlite::ffi::SQLITE_IOERR_FSYNC;
use rusqlite::{Connection, Result, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};

/// Bytes that are read and written at a time.
const PIECE: usize = 64 * 1024;

/// Commits, and marks the database if the disk did not sync it.
///
/// # Errors
/// What SQLite says; the transaction is rolled back.
pub fn commit(transaction: Transaction<'_>) -> Result<()> {
    let database = transaction.path().map(PathBuf::from);
    transaction.commit().inspect_err(|error| mark(database.as_deref(), error))
}

/// Marks the database of a connection if this is why it could not commit: the disk did not sync it.
pub fn note(connection: &Connection, error: &rusqlite::Error) {
    mark(connection.path().map(Path::new), error);
}

fn mark(database: Option<&Path>, error: &rusqlite::Error) {
    let code = error.sqlite_error().map(|error| error.extended_code);
    let Some(database) = database.filter(|path| !path.as_os_str().is_empty() && code == Some(SQLITE_IOERR_FSYNC)) else {
        return;
    };
    // A file system that takes no name any more takes no COMMIT either: then nothing comes to stand behind the hole.
    drop(std::fs::OpenOptions::new().create(true).append(true).open(marker(database)));
}

/// The mark beside a database.
fn marker(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-unsynced");
    path.into()
}

/// Before anything is committed on a connection that was opened: writes the whole log again, if a sync of it failed. Costs one
/// look at the folder if none did. The connection may not be `query_only`.
///
/// # Errors
/// What SQLite or the disk says. The mark stays, nothing may be committed, and closing the connection moves nothing into the
/// main file.
pub fn mend(connection: &Connection) -> Result<()> {
    let Some(marker) = connection.path().map(|path| marker(Path::new(path))).filter(|marker| marker.exists()) else {
        return Ok(());
    };
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Nobody else writes or begins the log anew meanwhile.
    let held = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    if let Some(wal) = Wal::of(&held)? {
        write_again(&wal)?;
    }
    // Under the lock: a mark that another process makes later stays. One that cannot be removed has this done once more.
    let _ = std::fs::remove_file(marker);
    drop(held);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(drop)
}

/// Writes what the file reads as, where it stands: what is on the disk already does not change, so that power may be lost at
/// any moment of it.
fn write_again(wal: &Wal<'_>) -> Result<()> {
    let bytes = wal.size()?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).map_or(PIECE, |left| left.min(PIECE));
        wal.read(&mut piece[..length], at)?;
        wal.write(&piece[..length], at)?;
        at += length as u64;
    }
    wal.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    fn database() -> (tempfile::TempDir, PathBuf, Connection) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let connection = Connection::open(&path).expect("a file");
        connection.pragma_update(None, "journal_mode", "WAL").expect("a log");
        connection.execute_batch("CREATE TABLE t (x BLOB); INSERT INTO t VALUES (zeroblob(200000))").expect("a row");
        (folder, path, connection)
    }

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_failed_sync_alone_leaves_a_mark() {
        let (_folder, path, connection) = database();
        for code in [ffi::SQLITE_IOERR, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_FULL, ffi::SQLITE_BUSY] {
            note(&connection, &failure(code));
        }
        assert!(!marker(&path).exists());
        note(&connection, &failure(ffi::SQLITE_IOERR_FSYNC));
        assert!(marker(&path).exists());
    }

    #[test]
    fn a_log_is_written_again_as_it_is_and_the_mark_goes() {
        let (_folder, path, connection) = database();
        let log = path.with_extension("db-wal");
        let before = std::fs::read(&log).expect("a log");
        assert!(before.len() > 2 * PIECE && !before.len().is_multiple_of(PIECE), "{}", before.len());
        note(&connection, &failure(ffi::SQLITE_IOERR_FSYNC));
        mend(&connection).expect("it is written");
        assert_eq!(std::fs::read(&log).expect("a log"), before);
        assert!(!marker(&path).exists());
        connection.execute_batch("INSERT INTO t VALUES (1)").expect("nobody holds the lock");
    }

    #[test]
    fn a_log_that_another_writes_to_is_left_and_the_mark_stays() {
        let (_folder, path, connection) = database();
        note(&connection, &failure(ffi::SQLITE_IOERR_FSYNC));
        connection.busy_timeout(std::time::Duration::ZERO).expect("no patience");
        let other = Connection::open(&path).expect("a file");
        other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        assert!(mend(&connection).is_err());
        assert!(marker(&path).exists());
    }

    #[test]
    fn a_file_without_a_log_has_nothing_to_write() {
        let (_folder, path, connection) = database();
        connection.pragma_update(None, "journal_mode", "DELETE").expect("no log");
        note(&connection, &failure(ffi::SQLITE_IOERR_FSYNC));
        mend(&connection).expect("nothing to do");
        assert!(!marker(&path).exists());
    }
}
