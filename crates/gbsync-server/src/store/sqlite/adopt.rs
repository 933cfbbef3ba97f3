//! What a new schema asks of the store: index lists built anew, record by record.

use super::row::id;
use crate::store::StoreError;
use gbsync_core::change::Payload;
use gbsync_core::decide::entries;
use gbsync_core::id::{Entity, RecordId, RecordKey};
use gbsync_core::schema::Schema;
use rusqlite::{Connection, params};

/// Builds the lists of an entity's records anew; how many records were read.
pub(super) fn rebuild_index(
    connection: &Connection,
    space_no: i64,
    schema: &Schema,
    entity: &Entity,
) -> Result<u64, StoreError> {
    connection
        .prepare_cached("DELETE FROM index_entries WHERE space_no = ?1 AND entity = ?2")?
        .execute(params![space_no, entity.as_str()])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO index_entries (space_no, entity, fields, value, id) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?;
    let mut select = connection.prepare_cached(
        "SELECT id, payload FROM records WHERE space_no = ?1 AND entity = ?2 AND payload IS NOT NULL ORDER BY id",
    )?;
    let mut rows = select.query(params![space_no, entity.as_str()])?;
    let mut read = 0;
    while let Some(row) = rows.next()? {
        read += 1;
        let key = RecordKey { entity: entity.clone(), id: id(row, 0, RecordId::new)? };
        let payload = Payload::from_stored(row.get::<_, Box<str>>(1)?);
        for list in entries(schema, &key, &payload) {
            insert.execute(params![space_no, entity.as_str(), &*list.fields, &*list.value, key.id.as_str()])?;
        }
    }
    Ok(read)
}
