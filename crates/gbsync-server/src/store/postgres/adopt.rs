//! `schemas` and `upgrades`: which schema is in force, and how far records were brought to the next one.

use super::engine::Engine;
use super::index::Entries;
use super::lock::Lock;
use super::row::{count, id, record, stored, time};
use super::writer::PostgresWriter;
use crate::store::{SchemaWriter, StoreError, StoredSchema, UpgradeStep};
use deadpool_postgres::ClientWrapper;
use gbsync_core::change::Payload;
use gbsync_core::decide::{Record, entries};
use gbsync_core::id::{Entity, RecordId, RecordKey, SpaceId};
use gbsync_core::schema::Schema;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::Row;

/// How long one process waits for another that puts a schema in force, and how long between two looks.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_millis(50));
/// Records whose lists are built at a time.
const REBUILT: i64 = 500;
/// Records of an upgrade that are looked at together: a step holds as many as fit its bytes.
const STEP_RECORDS: i64 = 512;

const SCHEMAS: &str = "SELECT version, text, since, in_force FROM schemas ORDER BY version";

fn schema(row: &Row) -> Result<StoredSchema, StoreError> {
    let since = time(row, 2)?.ok_or_else(|| StoreError::Damaged("a schema has no time".into()))?;
    Ok(StoredSchema { version: count(row, 0)?, text: row.try_get(1)?, since, is_in_force: row.try_get(3)? })
}

/// The schema in force.
pub(super) async fn in_force(client: &ClientWrapper) -> Result<Option<StoredSchema>, StoreError> {
    let statement = client
        .prepare_cached("SELECT version, text, since, in_force FROM schemas WHERE in_force ORDER BY version DESC LIMIT 1")
        .await?;
    client.query_opt(&statement, &[]).await?.as_ref().map(schema).transpose()
}

impl PostgresWriter {
    fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }
}

impl SchemaWriter for PostgresWriter {
    fn reserve(&mut self) -> Result<(), StoreError> {
        let deadline = Instant::now() + PATIENCE.0;
        loop {
            let row = self.engine.wait(
                self.client()
                    .query_one("SELECT pg_try_advisory_lock($1, hashtext(current_schema()))", &[&Lock::Adopt.key()]),
            )?;
            if row.try_get(0)? {
                self.is_reserved = true;
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(StoreError::Collided("another process is putting a schema in force".into()));
            }
            std::thread::sleep(PATIENCE.1);
        }
    }

    fn release(&mut self) -> Result<(), StoreError> {
        self.engine.wait(
            self.client().execute("SELECT pg_advisory_unlock($1, hashtext(current_schema()))", &[&Lock::Adopt.key()]),
        )?;
        self.is_reserved = false;
        Ok(())
    }

    fn schemas(&mut self) -> Result<Vec<StoredSchema>, StoreError> {
        self.engine.wait(self.client().query(SCHEMAS, &[]))?.iter().map(schema).collect()
    }

    fn propose(&mut self, schema: &StoredSchema) -> Result<(), StoreError> {
        self.engine().wait(async {
            self.open().await?;
            let sql = "INSERT INTO schemas (version, text, since, in_force) VALUES ($1, $2, $3, false)";
            self.client().execute(sql, &[&stored(schema.version), &schema.text, &schema.since.as_str()]).await?;
            Ok(())
        })
    }

    fn next_step(
        &mut self,
        version: u64,
        entities: &BTreeSet<Entity>,
        bytes: (u64, u64),
    ) -> Result<Option<UpgradeStep>, StoreError> {
        self.engine().wait(next_step(self, version, entities, bytes))
    }

    fn advance(&mut self, space: &SpaceId, version: u64, to: Option<&RecordKey>) -> Result<(), StoreError> {
        self.engine().wait(async {
            let space_no = self.inside(space).await?;
            let (entity, id) = (to.map(|key| key.entity.as_str()), to.map(|key| key.id.as_str()));
            let sql = "INSERT INTO upgrades (space_no, version, entity, id, is_done) VALUES ($1, $2, $3, $4, $5)
                       ON CONFLICT (space_no, version) DO UPDATE
                       SET entity = excluded.entity, id = excluded.id, is_done = excluded.is_done";
            let statement = self.client().prepare_cached(sql).await?;
            self.client().execute(&statement, &[&space_no, &stored(version), &entity, &id, &to.is_none()]).await?;
            Ok(())
        })
    }

    fn rebuild_index(&mut self, space: &SpaceId, schema: &Schema, entities: &BTreeSet<Entity>) -> Result<u64, StoreError> {
        self.engine().wait(async {
            let space_no = self.inside(space).await?;
            let mut doubles = 0;
            for entity in entities {
                doubles += rebuild_entity(self.client(), space_no, schema, entity).await?;
            }
            Ok(doubles)
        })
    }

    fn put_in_force(&mut self, version: u64) -> Result<(), StoreError> {
        self.engine().wait(async {
            self.open().await?;
            self.client().execute("UPDATE schemas SET in_force = true WHERE version = $1", &[&stored(version)]).await?;
            self.client().execute("DELETE FROM upgrades WHERE version <= $1", &[&stored(version)]).await?;
            Ok(())
        })
    }
}

async fn next_step(
    writer: &mut PostgresWriter,
    version: u64,
    entities: &BTreeSet<Entity>,
    bytes: (u64, u64),
) -> Result<Option<UpgradeStep>, StoreError> {
    writer.open().await?;
    let next = writer
        .client()
        .prepare_cached(
            "SELECT s.space, u.entity, u.id FROM spaces s LEFT JOIN upgrades u ON u.space_no = s.space_no AND u.version = $1
              WHERE NOT coalesce(u.is_done, false) ORDER BY s.space_no LIMIT 1",
        )
        .await?;
    let Some(row) = writer.client().query_opt(&next, &[&stored(version)]).await? else { return Ok(None) };
    let space = id(&row, 0, SpaceId::new)?;
    let after_entity: &str = row.try_get::<_, Option<&str>>(1)?.unwrap_or_default();
    let after_id: &str = row.try_get::<_, Option<&str>>(2)?.unwrap_or_default();
    let space_no = writer.inside(&space).await?;
    let state = state(writer.client(), space_no).await?;
    for entity in entities.iter().filter(|entity| entity.as_str() >= after_entity) {
        let after_id = if entity.as_str() == after_entity { after_id } else { "" };
        let records = records_after(writer.client(), space_no, entity, after_id, bytes).await?;
        if !records.is_empty() {
            return Ok(Some(UpgradeStep { space, state, records }));
        }
    }
    Ok(Some(UpgradeStep { space, state, records: Vec::new() }))
}

async fn state(client: &ClientWrapper, space_no: i64) -> Result<crate::store::SpaceState, StoreError> {
    let sql = "SELECT space_no, log, head, chain, horizon, horizon_chain, ancestors FROM spaces WHERE space_no = $1";
    let statement = client.prepare_cached(sql).await?;
    Ok(super::row::space(&client.query_one(&statement, &[&space_no]).await?)?.1)
}

/// Live records of an entity behind an id: at least one if there is one, then no more than so many bytes, of which each
/// record counts `record_bytes` beside its payload.
async fn records_after(
    client: &ClientWrapper,
    space_no: i64,
    entity: &Entity,
    after: &str,
    (most_bytes, record_bytes): (u64, u64),
) -> Result<Vec<(RecordKey, Record)>, StoreError> {
    let statement = client
        .prepare_cached(
            "SELECT version, edit_version, payload, marks, scopes, id FROM (
               SELECT version, edit_version, payload, marks, scopes, id, row_number() OVER w AS place,
                      sum(octet_length(payload) + $4::bigint) OVER w AS bytes
                 FROM (SELECT version, edit_version, payload, marks, scopes, id FROM records
                        WHERE space_no = $1 AND entity = $2 AND id > $3 AND payload IS NOT NULL ORDER BY id LIMIT $6) AS r
               WINDOW w AS (ORDER BY id ROWS UNBOUNDED PRECEDING)) AS s
              WHERE place = 1 OR bytes <= $5::bigint ORDER BY id",
        )
        .await?;
    let (most, each) = (stored(most_bytes), stored(record_bytes));
    let rows = client.query(&statement, &[&space_no, &entity.as_str(), &after, &each, &most, &STEP_RECORDS]).await?;
    let keyed = |row: &Row| Ok((RecordKey { entity: entity.clone(), id: id(row, 5, RecordId::new)? }, record(row, 0)?));
    rows.iter().map(keyed).collect()
}

/// Builds the lists of an entity's records anew; how many unique values several of them have.
async fn rebuild_entity(client: &ClientWrapper, space_no: i64, schema: &Schema, entity: &Entity) -> Result<u64, StoreError> {
    let name = entity.as_str();
    client.execute("DELETE FROM index_entries WHERE space_no = $1 AND entity = $2", &[&space_no, &name]).await?;
    if schema.entity(entity).is_none() {
        return Ok(0);
    }
    let sql = "SELECT id, payload FROM records WHERE space_no = $1 AND entity = $2 AND id > $3 AND payload IS NOT NULL
                ORDER BY id LIMIT $4";
    let statement = client.prepare_cached(sql).await?;
    let mut after = String::new();
    loop {
        let rows = client.query(&statement, &[&space_no, &name, &after, &REBUILT]).await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get(0)?;
        let mut lists = Vec::new();
        for row in &rows {
            let key = RecordKey { entity: entity.clone(), id: id(row, 0, RecordId::new)? };
            let payload = Payload::from_stored(row.try_get::<_, &str>(1)?);
            lists.extend(entries(schema, &key, &payload).into_iter().map(|list| (list, key.id.clone())));
        }
        let mut joined = Entries::default();
        lists.iter().for_each(|(list, id)| joined.add(list, id.as_str()));
        joined.join(client, space_no).await?;
    }
    let sql = "SELECT count(*) FROM (SELECT 1 FROM index_entries WHERE space_no = $1 AND entity = $2 AND is_unique
                GROUP BY list HAVING count(*) > 1) AS d";
    count(&client.query_one(sql, &[&space_no, &name]).await?, 0)
}
