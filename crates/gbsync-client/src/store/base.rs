//! `gbsync_base`: what the server confirmed.

use crate::error::{Error, damaged};
use crate::tables;
use gbsync_core::change::Payload;
use gbsync_core::digest::{Digest, RowsDigest};
use gbsync_core::id::{RecordKey, Seq};
use gbsync_core::wire::{LogChange, LogState};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

/// A confirmed record.
#[derive(Debug, Clone)]
pub(crate) struct BaseRow {
    pub(crate) edit_version: Seq,
    pub(crate) payload: Option<Payload>,
}

/// Which of the two tables: the one in use, or the one being filled while the log is read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaseTable {
    Current,
    Next,
}

/// Reads one confirmed record.
pub(crate) fn read(connection: &Connection, key: &RecordKey) -> Result<Option<BaseRow>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT edit_version, payload FROM gbsync_base WHERE entity = ?1 AND id = ?2")?;
    let row = statement.query_row([key.entity.as_str(), key.id.as_str()], |row| {
        let payload: Option<Box<str>> = row.get(1)?;
        Ok(BaseRow { edit_version: Seq(row.get(0)?), payload: payload.map(Payload::from_stored) })
    });
    Ok(row.optional()?)
}

/// Reads one confirmed record, and whether a group of the overlay lies over it.
pub(crate) fn read_covered(connection: &Connection, key: &RecordKey) -> Result<(Option<BaseRow>, bool), Error> {
    let sql = "SELECT edit_version, payload, EXISTS (SELECT 1 FROM gbsync_overlay WHERE entity = ?1 AND id = ?2)
                 FROM (SELECT 1) LEFT JOIN gbsync_base ON entity = ?1 AND id = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row([key.entity.as_str(), key.id.as_str()], |row| {
        let (edit_version, payload): (Option<u64>, Option<Box<str>>) = (row.get(0)?, row.get(1)?);
        let of = |edit_version| BaseRow { edit_version: Seq(edit_version), payload: payload.map(Payload::from_stored) };
        Ok((edit_version.map(of), row.get(2)?))
    });
    Ok(row?)
}

/// Applies changes of the log to one of the tables.
pub(crate) struct Applier<'c> {
    put: CachedStatement<'c>,
    remove: CachedStatement<'c>,
}

impl<'c> Applier<'c> {
    pub(crate) fn new(connection: &'c Connection, table: BaseTable) -> Result<Self, Error> {
        let (put, remove) = match table {
            BaseTable::Current => (
                "INSERT INTO gbsync_base(entity, id, version, edit_version, payload) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET version = ?3, edit_version = ?4, payload = ?5",
                "DELETE FROM gbsync_base WHERE entity = ?1 AND id = ?2",
            ),
            BaseTable::Next => (
                "INSERT INTO gbsync_base_next(entity, id, version, edit_version, payload) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET version = ?3, edit_version = ?4, payload = ?5",
                "DELETE FROM gbsync_base_next WHERE entity = ?1 AND id = ?2",
            ),
        };
        Ok(Self { put: connection.prepare_cached(put)?, remove: connection.prepare_cached(remove)? })
    }

    /// Makes one record what the log says it is.
    pub(crate) fn apply(&mut self, change: &LogChange) -> Result<(), Error> {
        let (entity, id) = (change.key.entity.as_str(), change.key.id.as_str());
        let payload = match &change.state {
            LogState::Live(payload) => Some(payload),
            LogState::Deleted => None,
            LogState::Left => {
                self.remove.execute([entity, id])?;
                return Ok(());
            }
        };
        self.put.execute(params![entity, id, change.version.0, change.edit_version.0, payload])?;
        Ok(())
    }
}

/// Makes an empty table to read the log into anew.
pub(crate) fn create_next(connection: &Connection) -> Result<(), Error> {
    let columns = super::schema::BASE_COLUMNS;
    connection.execute_batch(&format!("DROP TABLE IF EXISTS gbsync_base_next; CREATE TABLE gbsync_base_next{columns};"))?;
    Ok(())
}

/// Puts the table that was filled anew in the place of the current one.
pub(crate) fn flip(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(super::schema::DROP_VIEWS)?;
    // The app's own views may stand on ours.
    let by_name = tables::ByName::begin(connection)?;
    tables::put_aside(connection, "gbsync_base", "gbsync_base_old")?;
    connection.execute_batch("ALTER TABLE gbsync_base_next RENAME TO gbsync_base")?;
    drop(by_name);
    connection.execute_batch(super::schema::VIEWS)?;
    Ok(())
}

/// Count and digest of the live rows.
pub(crate) fn digest(connection: &Connection) -> Result<(u64, Digest), Error> {
    let sql = "SELECT entity, id, version, payload FROM gbsync_base WHERE payload IS NOT NULL ORDER BY entity, id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut digest = RowsDigest::default();
    while let Some(row) = rows.next()? {
        let text = |index| row.get_ref(index)?.as_str().map_err(|error| damaged("gbsync_base", error));
        let key = RecordKey::new(text(0)?, text(1)?).map_err(|error| damaged("gbsync_base", error))?;
        digest.add(&key, Seq(row.get(2)?), text(3)?);
    }
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    #[test]
    fn a_flip_that_fails_leaves_no_setting_on_the_connection() {
        let mut connection = Connection::open_in_memory().expect("a database");
        schema::migrate(&connection, 0).expect("its tables");
        let tx = connection.transaction().expect("a transaction");
        assert!(flip(&tx).is_err(), "nothing was read anew");
        drop(tx);
        let is_legacy: bool = connection.query_row("PRAGMA legacy_alter_table", [], |row| row.get(0)).expect("the setting");
        assert!(!is_legacy);
        create_next(&connection).expect("a table to read into");
        flip(&connection).expect("the next one goes through");
    }
}
