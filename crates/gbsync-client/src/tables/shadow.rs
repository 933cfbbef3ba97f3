//! Tables beside the tables, filled in small steps while the space is read anew, and exchanged with them in the transaction of
//! the flip: an app that writes never waits for all rows (docs/decisions/0038).
//!
//! Invariant: all shadows are made and dropped together, and each holds what the base that is read anew has of its entity up to
//! the last id that it holds, without the overlay. So what they hold says how far they are filled: a crash needs no note of it.
//!
//! Rejected alternative: `PRAGMA writable_schema` and an exchange of root pages. It would spare the making anew of triggers, and
//! one mistake in it is a damaged file.

use super::plan::quoted;
use super::{Table, ddl, upsert};
use crate::error::{Error, damaged};
use crate::store::Tx;
use gbsync_core::id::{Entity, RecordId, RecordKey};
use gbsync_core::wire::{LogChange, LogState};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeMap;

/// Records that are read in one step, and bytes of their payloads. An app's write waits for a step.
const STEP: (usize, usize) = (500, 128 * 1024);
/// Rows of an old table that go in one step; one with no more is dropped at once.
const OLD_ROWS: usize = 1_000;
/// The names of shadows, and of what the exchange left.
const SHADOWS: &str = "gbsync_*_shadow";
const OLD: &str = "gbsync_*_old";

/// Whether every table has its shadow.
pub(crate) fn are_there(tx: &Tx<'_>) -> Result<bool, Error> {
    let names = names(tx, SHADOWS)?;
    Ok(tx.tables().all(|table| names.contains(&table.shadow())))
}

/// Takes all shadows away: what is read anew begins again, or the tables change.
pub(crate) fn forget(connection: &Connection) -> Result<(), Error> {
    for name in names(connection, SHADOWS)? {
        connection.execute_batch(&format!("DROP TABLE {}", quoted(&name)))?;
    }
    Ok(())
}

/// Takes away all shadows and all that [`sweep`] would, at once: the tables are made anew, and names of indexes must be free.
pub(crate) fn forget_all(connection: &Connection) -> Result<(), Error> {
    forget(connection)?;
    for name in names(connection, OLD)? {
        connection.execute_batch(&format!("DROP TABLE {}", quoted(&name)))?;
    }
    Ok(())
}

fn make(tx: &Tx<'_>) -> Result<(), Error> {
    forget(tx)?;
    let mut taken = tx.prepare("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?1")?;
    for table in tx.tables() {
        // Names of its indexes may be taken still.
        tx.execute_batch(&format!("DROP TABLE IF EXISTS {}", quoted(&table.old())))?;
        let is_taken = taken.exists([ddl::index_name(table, 0, false)])?;
        for statement in ddl::create_shadow(table, is_taken) {
            tx.execute_batch(&statement)?;
        }
    }
    Ok(())
}

/// Fills the shadows behind the record `after`, as much as a step takes. `true`: they hold everything.
pub(crate) fn fill(tx: &Tx<'_>, after: &mut Option<RecordKey>) -> Result<bool, Error> {
    if !are_there(tx)? {
        // None were made yet, or another program gave the file other tables meanwhile.
        *after = None;
        make(tx)?;
    }
    let (mut records, mut bytes) = STEP;
    for table in tx.tables() {
        let from = match after.as_ref() {
            Some(key) if key.entity > table.entity => continue,
            Some(key) if key.entity == table.entity => key.id.to_string(),
            _ => last_id(tx, table)?.unwrap_or_default(),
        };
        let sql = "SELECT id, payload FROM gbsync_base_next WHERE entity = ?1 AND id > ?2 ORDER BY id";
        let (mut read, mut put) = (tx.prepare_cached(sql)?, tx.prepare_cached(&table.fill)?);
        let mut rows = read.query([table.entity.as_str(), from.as_str()])?;
        while let Some(row) = rows.next()? {
            let text = |index| row.get_ref(index)?.as_str_or_null().map_err(|error| damaged("gbsync_base_next", error));
            let id = RecordId::new(text(0)?.unwrap_or_default()).map_err(|error| damaged("gbsync_base_next", error))?;
            let key = RecordKey { entity: table.entity.clone(), id };
            if let Some(payload) = text(1)? {
                upsert(tx, &mut put, table, &key, payload)?;
                bytes = bytes.saturating_sub(payload.len());
            }
            records -= 1;
            if records == 0 || bytes == 0 {
                *after = Some(key);
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn last_id(connection: &Connection, table: &Table) -> Result<Option<String>, Error> {
    let sql = format!("SELECT max(\"id\") FROM {}", quoted(&table.shadow()));
    Ok(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
}

/// What the log brings while the shadows are filled: it goes where they are filled already.
pub(crate) struct Follower<'t> {
    tx: &'t Tx<'t>,
    filled: BTreeMap<Entity, String>,
}

impl<'t> Follower<'t> {
    pub(crate) fn new(tx: &'t Tx<'t>) -> Result<Self, Error> {
        let mut filled = BTreeMap::new();
        if are_there(tx)? {
            for table in tx.tables() {
                filled.extend(last_id(tx, table)?.map(|last| (table.entity.clone(), last)));
            }
        }
        Ok(Self { tx, filled })
    }

    /// Makes a record's row in the shadow what the log says it is.
    pub(crate) fn apply(&self, change: &LogChange) -> Result<(), Error> {
        let key = &change.key;
        let is_filled = self.filled.get(&key.entity).is_some_and(|last| key.id.as_str() <= last.as_str());
        let Some(table) = self.tx.table(&key.entity).filter(|_| is_filled) else { return Ok(()) };
        match &change.state {
            LogState::Live(payload) => {
                let mut put = self.tx.prepare_cached(&table.fill)?;
                upsert(self.tx, &mut put, table, key, payload)
            }
            LogState::Deleted | LogState::Left => {
                let sql = format!("DELETE FROM {} WHERE \"id\" = ?1", quoted(&table.shadow()));
                self.tx.prepare_cached(&sql)?.execute([key.id.as_str()])?;
                Ok(())
            }
        }
    }
}

/// Puts every shadow in the place of its table. What the app made on a table (triggers, indexes, views, foreign keys into it) is
/// there afterwards as it was.
pub(crate) fn exchange(tx: &Tx<'_>) -> Result<(), Error> {
    let _by_name = ByName::begin(tx)?;
    tx.tables().try_for_each(|table| exchange_one(tx, table))
}

/// While this is there, tables get other names and nothing else changes: the app's views and foreign keys mean whatever has the
/// name, where SQLite would let them follow the table that goes, or refuse the renaming while they miss one.
pub(crate) struct ByName<'c>(&'c Connection);

impl<'c> ByName<'c> {
    pub(crate) fn begin(connection: &'c Connection) -> Result<Self, Error> {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, true)?;
        Ok(Self(connection))
    }
}

impl Drop for ByName<'_> {
    fn drop(&mut self) {
        // It sets a flag in memory, which fails for no reason of this connection's.
        let _ = self.0.set_db_config(DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, false);
    }
}

fn exchange_one(tx: &Tx<'_>, table: &Table) -> Result<(), Error> {
    let sql = "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('trigger', 'index')
                  AND sql IS NOT NULL AND NOT (type = 'index' AND name GLOB 'gbsync_*') ORDER BY rowid";
    let mut statement = tx.prepare_cached(sql)?;
    let kept = statement.query_map([table.entity.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let kept: Vec<(String, String, String)> = kept.collect::<Result<_, _>>()?;
    for (kind, name, _) in &kept {
        tx.execute_batch(&format!("DROP {kind} {}", quoted(name)))?;
    }
    put_aside(tx, table.entity.as_str(), &table.old())?;
    tx.execute_batch(&format!("ALTER TABLE {} RENAME TO {}", quoted(&table.shadow()), table.name))?;
    for (.., made) in &kept {
        tx.execute_batch(made)?;
    }
    Ok(())
}

/// Drops a table, or gives it another name where that would take long: [`sweep`] takes it away.
pub(crate) fn put_aside(connection: &Connection, name: &str, old: &str) -> Result<(), Error> {
    let name = quoted(name);
    let few = format!("SELECT count(*) <= {OLD_ROWS} FROM (SELECT 1 FROM {name} LIMIT {})", OLD_ROWS + 1);
    if connection.query_row(&few, [], |row| row.get(0))? {
        connection.execute_batch(&format!("DROP TABLE {name}"))?;
    } else {
        let old = quoted(old);
        connection.execute_batch(&format!("DROP TABLE IF EXISTS {old}; ALTER TABLE {name} RENAME TO {old}"))?;
    }
    Ok(())
}

/// Whether anything is left of tables that were exchanged.
pub(crate) fn has_old(connection: &Connection) -> Result<bool, Error> {
    Ok(!names(connection, OLD)?.is_empty())
}

/// Takes some of it away: an index, some rows, or a table that has no more.
pub(crate) fn sweep(connection: &Connection) -> Result<(), Error> {
    let Some(name) = names(connection, OLD)?.into_iter().next() else { return Ok(()) };
    let sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = ?1";
    let index: Option<String> = connection.query_row(sql, [&name], |row| row.get(0)).optional()?;
    if let Some(index) = index {
        connection.execute_batch(&format!("DROP INDEX {}", quoted(&index)))?;
        return Ok(());
    }
    let sql = "SELECT group_concat('\"' || name || '\"') FROM pragma_table_info(?1) WHERE pk > 0";
    let key: String = connection.query_row(sql, [&name], |row| row.get(0))?;
    let table = quoted(&name);
    let sql = format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} ORDER BY {key} LIMIT {OLD_ROWS})");
    if connection.execute(&sql, [])? < OLD_ROWS {
        connection.execute_batch(&format!("DROP TABLE {table}"))?;
    }
    Ok(())
}

fn names(connection: &Connection, pattern: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB ?1 ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_map(params![pattern], |row| row.get(0))?.collect::<Result<_, _>>()?)
}
