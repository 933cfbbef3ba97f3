//! `schemas` and `upgrades`: which schema is in force, and how far records were brought to the next one.

use super::row::{count, id, record, space as space_row, stored};
use super::write::SqliteWriter;
use crate::store::{SchemaMark, SchemaWriter, StoreError, StoredSchema, UpgradeStep};
use gbsync_core::change::Payload;
use gbsync_core::decide::{Record, entries};
use gbsync_core::id::{Entity, RecordId, RecordKey, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;

impl SchemaWriter for SqliteWriter {
    fn schemas(&mut self) -> Result<Vec<StoredSchema>, StoreError> {
        schemas(self.connection())
    }

    fn propose(&mut self, schema: &StoredSchema) -> Result<(), StoreError> {
        self.connection().execute(
            "INSERT INTO schemas (version, text, since, in_force) VALUES (?1, ?2, ?3, 0)",
            params![stored(schema.version), schema.text, schema.since.as_str()],
        )?;
        Ok(())
    }

    fn next_step(
        &mut self,
        version: u64,
        entities: &BTreeSet<Entity>,
        (most_bytes, record_bytes): (u64, u64),
    ) -> Result<Option<UpgradeStep>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT space, entity, id FROM spaces LEFT JOIN upgrades ON upgrades.space_no = spaces.space_no AND version = ?1
             WHERE is_done IS NULL OR is_done = 0 ORDER BY spaces.space_no LIMIT 1",
        )?;
        let mut rows = statement.query([stored(version)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let space = id(row, 0, SpaceId::new)?;
        let after: Option<(String, String)> = row.get::<_, Option<String>>(1)?.zip(row.get(2)?);
        let (space_no, state) = space_row(connection, &space)?.ok_or_else(vanished)?;
        let (after_entity, after_id) = after.unwrap_or_default();
        for entity in entities.iter().filter(|entity| entity.as_str() >= after_entity.as_str()) {
            let after_id = if entity.as_str() == after_entity { after_id.as_str() } else { "" };
            let records = records_after(connection, space_no, entity, after_id, (most_bytes, record_bytes))?;
            if !records.is_empty() {
                return Ok(Some(UpgradeStep { space, state, records }));
            }
        }
        Ok(Some(UpgradeStep { space, state, records: Vec::new() }))
    }

    fn advance(&mut self, space: &SpaceId, version: u64, to: Option<&RecordKey>) -> Result<(), StoreError> {
        let (space_no, _) = space_row(self.connection(), space)?.ok_or_else(vanished)?;
        let (entity, id) = (to.map(|key| key.entity.as_str()), to.map(|key| key.id.as_str()));
        self.connection()
            .prepare_cached(
                "INSERT INTO upgrades (space_no, version, entity, id, is_done) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (space_no, version) DO UPDATE
                 SET entity = excluded.entity, id = excluded.id, is_done = excluded.is_done",
            )?
            .execute(params![space_no, stored(version), entity, id, to.is_none()])?;
        Ok(())
    }

    fn rebuild_index(&mut self, space: &SpaceId, schema: &Schema, entities: &BTreeSet<Entity>) -> Result<u64, StoreError> {
        let (space_no, _) = space_row(self.connection(), space)?.ok_or_else(vanished)?;
        let mut doubles = 0;
        for entity in entities {
            doubles += rebuild_entity(self.connection(), space_no, schema, entity)?;
        }
        Ok(doubles)
    }

    fn put_in_force(&mut self, version: u64) -> Result<(), StoreError> {
        self.connection().execute("UPDATE schemas SET in_force = 1 WHERE version = ?1", [stored(version)])?;
        self.connection().execute("DELETE FROM upgrades WHERE version <= ?1", [stored(version)])?;
        Ok(())
    }
}

fn vanished() -> StoreError {
    StoreError::Damaged("a space vanished inside a transaction".into())
}

/// Every schema that was stored, by version.
pub(super) fn schemas(connection: &Connection) -> Result<Vec<StoredSchema>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT version, text, since, in_force FROM schemas ORDER BY version")?;
    let mut rows = statement.query([])?;
    let mut schemas = Vec::new();
    while let Some(row) = rows.next()? {
        let since = Timestamp::new(&row.get::<_, String>(2)?).map_err(|error| StoreError::Damaged(error.to_string()))?;
        schemas.push(StoredSchema { version: count(row, 0)?, text: row.get(1)?, since, is_in_force: row.get(3)? });
    }
    Ok(schemas)
}

/// Which schema is in force.
pub(super) fn schema_mark(connection: &Connection) -> Result<SchemaMark, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT coalesce(max(version), 0), coalesce(max(version) FILTER (WHERE in_force), 0) FROM schemas",
    )?;
    let mut rows = statement.query([])?;
    match rows.next()? {
        Some(row) => Ok(SchemaMark { latest: count(row, 0)?, in_force: count(row, 1)? }),
        None => Ok(SchemaMark::default()),
    }
}

/// Live records of an entity behind an id: at least one if there is one, then no more than so many bytes, of which each
/// record counts `record_bytes` beside its payload.
fn records_after(
    connection: &Connection,
    space_no: i64,
    entity: &Entity,
    after: &str,
    (most_bytes, record_bytes): (u64, u64),
) -> Result<Vec<(RecordKey, Record)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT version, edit_version, payload, marks, scopes, id FROM records
         WHERE space_no = ?1 AND entity = ?2 AND id > ?3 AND payload IS NOT NULL ORDER BY id",
    )?;
    let mut rows = statement.query(params![space_no, entity.as_str(), after])?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let record = record(row)?;
        bytes += record_bytes + record.payload.as_ref().map_or(0, |payload| payload.as_str().len() as u64);
        if bytes > most_bytes && !records.is_empty() {
            break;
        }
        records.push((RecordKey { entity: entity.clone(), id: id(row, 5, RecordId::new)? }, record));
    }
    Ok(records)
}

/// Builds the lists of an entity's records anew; how many unique values several of them have.
fn rebuild_entity(connection: &Connection, space_no: i64, schema: &Schema, entity: &Entity) -> Result<u64, StoreError> {
    connection
        .prepare_cached("DELETE FROM index_entries WHERE space_no = ?1 AND entity = ?2")?
        .execute(params![space_no, entity.as_str()])?;
    let Some(rules) = schema.entity(entity) else { return Ok(0) };
    let mut insert = connection.prepare_cached(
        "INSERT INTO index_entries (space_no, entity, fields, value, id) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?;
    let mut select = connection.prepare_cached(
        "SELECT id, payload FROM records WHERE space_no = ?1 AND entity = ?2 AND payload IS NOT NULL ORDER BY id",
    )?;
    let mut rows = select.query(params![space_no, entity.as_str()])?;
    while let Some(row) = rows.next()? {
        let key = RecordKey { entity: entity.clone(), id: id(row, 0, RecordId::new)? };
        let payload = Payload::from_stored(row.get::<_, Box<str>>(1)?);
        for list in entries(schema, &key, &payload) {
            insert.execute(params![space_no, entity.as_str(), &*list.fields, &*list.value, key.id.as_str()])?;
        }
    }
    let mut doubles = 0;
    for fields in &rules.unique {
        let doubled: Option<i64> = connection
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM index_entries WHERE space_no = ?1 AND entity = ?2 AND fields = ?3
                 AND value LIKE '[%' GROUP BY value HAVING count(*) > 1)",
            )?
            .query_row(params![space_no, entity.as_str(), fields.join(",")], |row| row.get(0))
            .optional()?;
        doubles += doubled.unwrap_or(0).unsigned_abs();
    }
    Ok(doubles)
}
