//! One committed state of a database, for administrators: a read-only transaction on a connection of its own.

use super::PostgresStore;
use super::engine::Engine;
use super::read::SNAPSHOT;
use super::row::{count, id, stored};
use crate::store::{StoreError, Survey};
use gbsync_core::change::Payload;
use gbsync_core::id::{Entity, RecordId, RecordKey, Seq, SpaceId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// A transaction that ends when it is dropped, with its connection.
pub(in crate::store) struct PostgresSurvey {
    engine: Arc<Engine>,
    client: Client,
}

impl PostgresStore {
    pub(in crate::store) fn survey(&self) -> Result<PostgresSurvey, StoreError> {
        let engine = Arc::clone(&self.engine);
        let client = engine.elsewhere(|| {
            engine.wait(async {
                let client = self.address.connect().await?;
                let schema = self.address.schema();
                client.batch_execute(&format!("SET search_path TO \"{schema}\"; SET enable_seqscan TO off")).await?;
                client.batch_execute(SNAPSHOT).await?;
                Ok::<_, StoreError>(client)
            })
        })?;
        Ok(PostgresSurvey { engine, client })
    }
}

impl PostgresSurvey {
    fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let rows = self.engine.elsewhere(|| self.engine.wait(self.client.query(sql, values)));
        Ok(rows?)
    }

    fn text(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<String>, StoreError> {
        Ok(self.query(sql, values)?.first().map(|row| row.try_get(0)).transpose()?)
    }
}

impl Survey for PostgresSurvey {
    fn spaces(&mut self) -> Result<BTreeSet<SpaceId>, StoreError> {
        self.query("SELECT space FROM spaces", &[])?.iter().map(|row| id(row, 0, SpaceId::new)).collect()
    }

    fn schema(&mut self) -> Result<Option<String>, StoreError> {
        self.text("SELECT text FROM schemas WHERE in_force ORDER BY version DESC LIMIT 1", &[])
    }

    fn head(&mut self, space: &SpaceId) -> Result<Option<Seq>, StoreError> {
        let rows = self.query("SELECT head FROM spaces WHERE space = $1", &[&space.as_str()])?;
        rows.first().map(|row| count(row, 0).map(Seq)).transpose()
    }

    fn records(
        &mut self,
        space: &SpaceId,
        entity: Option<&Entity>,
        after: Option<&RecordKey>,
        most: u64,
    ) -> Result<Vec<(RecordKey, Seq, Payload)>, StoreError> {
        let after_entity = after.map(|key| key.entity.as_str()).or(entity.map(Entity::as_str)).unwrap_or_default();
        let after_id = after.map(|key| key.id.as_str()).unwrap_or_default();
        let rows = self.query(
            "SELECT entity, id, version, payload FROM records
              WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND (entity, id) > ($2, $3)
                AND ($4::text IS NULL OR entity = $4) AND payload IS NOT NULL ORDER BY entity, id LIMIT $5",
            &[&space.as_str(), &after_entity, &after_id, &entity.map(Entity::as_str), &stored(most)],
        )?;
        let record = |row: &Row| {
            let key = RecordKey { entity: id(row, 0, Entity::new)?, id: id(row, 1, RecordId::new)? };
            Ok((key, Seq(count(row, 2)?), Payload::from_stored(row.try_get::<_, &str>(3)?)))
        };
        rows.iter().map(record).collect()
    }

    fn deleted(&mut self, space: &SpaceId, keys: &[RecordKey]) -> Result<Vec<Option<bool>>, StoreError> {
        let entities: Vec<&str> = keys.iter().map(|key| key.entity.as_str()).collect();
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        let rows = self.query(
            "SELECT CASE WHEN r.id IS NOT NULL THEN r.payload IS NULL END
               FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS k(entity, id, place)
               LEFT JOIN records r ON r.space_no = (SELECT space_no FROM spaces WHERE space = $1)
                                  AND r.entity = k.entity AND r.id = k.id ORDER BY k.place",
            &[&space.as_str(), &entities, &ids],
        )?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    fn entries(&mut self, space: &SpaceId, after: Seq, most: u64) -> Result<Vec<(Seq, String)>, StoreError> {
        let rows = self.query(
            "SELECT seq, entry FROM log WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND seq > $2
              ORDER BY seq LIMIT $3",
            &[&space.as_str(), &stored(after.0), &stored(most)],
        )?;
        rows.iter().map(|row| Ok((Seq(count(row, 0)?), row.try_get(1)?))).collect()
    }

    fn entry_part(&mut self, space: &SpaceId, seq: Seq, part: u64) -> Result<Option<String>, StoreError> {
        self.text(
            "SELECT body FROM log_parts WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND seq = $2 AND part = $3",
            &[&space.as_str(), &stored(seq.0), &stored(part)],
        )
    }
}
