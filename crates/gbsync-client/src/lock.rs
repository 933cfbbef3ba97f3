//! Who syncs a database: one process at a time. The lock is the operating system's, so it dies with its holder.
//!
//! Correctness does not rest on it, because the server takes every group once; it keeps two processes from sending the
//! same bytes twice.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Held while one round of syncing runs.
pub(crate) struct SyncLock {
    _file: File,
}

/// Somebody else holds the lock.
pub(crate) struct Held {
    pub(crate) by: String,
}

impl SyncLock {
    /// Takes the lock beside the database, or says who holds it.
    pub(crate) fn take(database: &Path) -> std::io::Result<Result<Self, Held>> {
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path(database))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "process {}", std::process::id())?;
                Ok(Ok(Self { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut by = String::new();
                file.read_to_string(&mut by)?;
                Ok(Err(Held { by: if by.is_empty() { "another process".into() } else { by } }))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-gbsync-lock");
    path.into()
}
