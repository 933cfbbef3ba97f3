//! `index_entries`: which records refer to which, and which hold a unique value.

use super::row::id;
use crate::store::StoreError;
use gbsync_core::decide::{Facts, IndexKey, IndexMoves};
use gbsync_core::id::RecordId;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

/// Loads lists of indexes.
pub(super) fn learn_index(
    connection: &Connection,
    space_no: i64,
    keys: &BTreeSet<IndexKey>,
    facts: &mut Facts,
) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT id FROM index_entries WHERE space_no = ?1 AND entity = ?2 AND fields = ?3 AND value = ?4")?;
    for key in keys {
        let mut rows = statement.query(params![space_no, key.entity.as_str(), &*key.fields, &*key.value])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            ids.push(id(row, 0, RecordId::new)?);
        }
        facts.learn_index(key.clone(), ids);
    }
    Ok(())
}

/// Writes what joined (`true`) and left lists.
pub(super) fn write_index(connection: &Connection, space_no: i64, moved: &IndexMoves) -> Result<(), StoreError> {
    let mut join = connection.prepare_cached(
        "INSERT INTO index_entries (space_no, entity, fields, value, id) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?;
    let mut leave = connection.prepare_cached(
        "DELETE FROM index_entries WHERE space_no = ?1 AND entity = ?2 AND fields = ?3 AND value = ?4 AND id = ?5",
    )?;
    for (key, ids) in moved {
        for (id, is_added) in ids {
            let statement = if *is_added { &mut join } else { &mut leave };
            statement.execute(params![space_no, key.entity.as_str(), &*key.fields, &*key.value, id.as_str()])?;
        }
    }
    Ok(())
}
