//! Taking entries out of logs: one process at a time, by an advisory lock that ends with its connection. Each transaction holds the
//! space's row, as every other that writes to it, and is as short as a push's.

use super::PostgresStore;
use super::engine::Engine;
use super::lock::Lock;
use super::read::SPACE;
use super::row::{count, digest, id, space as space_row, stored};
use crate::store::{KeptEntry, Retainer, SpaceState, StoreError};
use gbsync_core::id::{LogId, Seq, SpaceId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// Entries that are read at a time, at most.
const ENTRIES: i64 = 500;

/// Takes entries out of the logs of a database.
pub(super) struct PostgresRetainer {
    engine: Arc<Engine>,
    client: Client,
}

impl PostgresStore {
    pub(super) fn open_retainer(&self) -> Result<Option<PostgresRetainer>, StoreError> {
        let engine = Arc::clone(&self.engine);
        let client = engine.elsewhere(|| {
            engine.wait(async {
                let client = self.address.connect().await?;
                let schema = self.address.schema();
                let set_up = format!(
                    "SET search_path TO \"{schema}\"; SET enable_seqscan TO off; SET lock_timeout TO 5000;
                     SET idle_in_transaction_session_timeout TO 30000"
                );
                client.batch_execute(&set_up).await?;
                let sql = "SELECT pg_try_advisory_lock($1, hashtext(current_schema()))";
                let is_held: bool = client.query_one(sql, &[&Lock::Retain.key()]).await?.try_get(0)?;
                Ok::<_, StoreError>(is_held.then_some(client))
            })
        })?;
        Ok(client.map(|client| PostgresRetainer { engine, client }))
    }
}

impl PostgresRetainer {
    fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let rows = self.engine.elsewhere(|| self.engine.wait(self.client.query(sql, values)));
        Ok(rows?)
    }

    /// In one transaction that holds the space; what fails is undone.
    fn write<T: Send>(
        &mut self,
        space: &SpaceId,
        write: impl AsyncFnOnce(&Client, i64, SpaceState) -> Result<T, StoreError> + Send,
    ) -> Result<Option<T>, StoreError> {
        let (engine, client) = (Arc::clone(&self.engine), &self.client);
        engine.elsewhere(|| {
            let in_transaction = async {
                client.batch_execute("BEGIN").await?;
                let row = client.query_opt(&format!("{SPACE} FOR UPDATE"), &[&space.as_str()]).await?;
                let Some((space_no, state)) = row.as_ref().map(space_row).transpose()? else { return Ok(None) };
                let answer = write(client, space_no, state).await?;
                client.batch_execute("COMMIT").await?;
                Ok(Some(answer))
            };
            engine.wait(async {
                let written = in_transaction.await;
                if !matches!(written, Ok(Some(_))) {
                    drop(client.batch_execute("ROLLBACK").await);
                }
                written
            })
        })
    }
}

impl Retainer for PostgresRetainer {
    fn spaces(&mut self) -> Result<BTreeSet<SpaceId>, StoreError> {
        self.query("SELECT space FROM spaces", &[])?.iter().map(|row| id(row, 0, SpaceId::new)).collect()
    }

    fn state(&mut self, space: &SpaceId) -> Result<Option<SpaceState>, StoreError> {
        let rows = self.query(SPACE, &[&space.as_str()])?;
        Ok(rows.first().map(space_row).transpose()?.map(|(_, state)| state))
    }

    fn entries(&mut self, space: &SpaceId, after: Seq, bytes: u64) -> Result<Vec<KeptEntry>, StoreError> {
        let rows = self.query(
            "SELECT seq, chain, entry, parts FROM (
               SELECT seq, chain, entry, parts, row_number() OVER w AS place, sum(octet_length(entry)) OVER w AS bytes
                 FROM (SELECT seq, chain, entry, parts FROM log
                        WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND seq > $2
                        ORDER BY seq LIMIT $4) AS l
               WINDOW w AS (ORDER BY seq ROWS UNBOUNDED PRECEDING)) AS s
              WHERE place = 1 OR bytes <= $3::bigint ORDER BY seq",
            &[&space.as_str(), &stored(after.0), &stored(bytes), &ENTRIES],
        )?;
        let entry = |row: &Row| {
            Ok(KeptEntry { seq: Seq(count(row, 0)?), chain: digest(row, 1)?, entry: row.try_get(2)?, parts: count(row, 3)? })
        };
        rows.iter().map(entry).collect()
    }

    fn part(&mut self, space: &SpaceId, seq: Seq, part: u64) -> Result<String, StoreError> {
        let rows = self.query(
            "SELECT body FROM log_parts WHERE space_no = (SELECT space_no FROM spaces WHERE space = $1) AND seq = $2 AND part = $3",
            &[&space.as_str(), &stored(seq.0), &stored(part)],
        )?;
        let body = rows.first().map(|row| row.try_get(0)).transpose()?;
        body.ok_or_else(|| StoreError::Damaged(format!("entry {seq} of the log has no part {part}")))
    }

    fn forget(&mut self, space: &SpaceId, log: &LogId, from: Seq, to: Seq) -> Result<bool, StoreError> {
        let forgotten = self.write(space, async |client, space_no, state| {
            if state.log != *log || state.horizon != from || to > state.head || to <= from {
                return Ok(false);
            }
            let (from, to) = (stored(from.0), stored(to.0));
            let sql =
                "UPDATE spaces SET horizon = $2, horizon_chain = (SELECT chain FROM log WHERE space_no = $1 AND seq = $2)
                        WHERE space_no = $1";
            client.execute(sql, &[&space_no, &to]).await?;
            for sql in [
                "DELETE FROM log_parts WHERE space_no = $1 AND seq > $2 AND seq <= $3",
                "DELETE FROM log WHERE space_no = $1 AND seq > $2 AND seq <= $3",
            ] {
                client.execute(sql, &[&space_no, &from, &to]).await?;
            }
            Ok(true)
        })?;
        Ok(forgotten.unwrap_or(false))
    }

    fn bury(&mut self, space: &SpaceId, most: u64) -> Result<u64, StoreError> {
        let buried = self.write(space, async |client, space_no, state| {
            let sql = "DELETE FROM records WHERE (space_no, entity, id) IN
                         (SELECT space_no, entity, id FROM records WHERE space_no = $1 AND payload IS NULL AND version <= $2
                           LIMIT $3)";
            Ok(client.execute(sql, &[&space_no, &stored(state.horizon.0), &stored(most)]).await?)
        })?;
        Ok(buried.unwrap_or(0))
    }
}
