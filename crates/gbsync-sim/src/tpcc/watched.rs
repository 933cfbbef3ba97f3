//! A database as any reader beside its program sees it: only what is committed, and only looked at when something was.

use anyhow::Result;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// An open reader. To be closed before the files under it are exchanged.
pub struct Watched {
    /// The connection.
    pub db: Connection,
    version: Option<i64>,
    cursor: Option<(u64, u64)>,
}

impl Watched {
    /// The reader of a place, opened if it is not.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn of<'w>(all: &'w mut BTreeMap<usize, Self>, place: usize, file: &Path) -> Result<&'w mut Self> {
        match all.entry(place) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(none) => {
                let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                Ok(none.insert(Self { db, version: None, cursor: None }))
            }
        }
    }

    /// Whether something was committed since it was last asked.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn has_changed(&mut self) -> Result<bool> {
        let now = self.db.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        Ok(self.version.replace(now) != Some(now))
    }

    /// Whether a device's cursor is elsewhere than when it was last asked, or in another reading of the log.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn has_moved(&mut self) -> Result<bool> {
        let sql = "SELECT cursor, generation FROM gbsync_state";
        let now = self.db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(self.cursor.replace(now) != Some(now))
    }
}
