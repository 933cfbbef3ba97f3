//! What plain PostgreSQL takes: for the records of a batch alone, and for all rows that the server writes for it.

use crate::commands::bench::pushes::{AT, Batch, GROUPS, SPACES, Written, space_id};
use crate::commands::bench::rows::RECORDS;
use crate::config::server_failure;
use anyhow::{Context, Result};
use gbsync_cluster::Cluster;
use gbsync_server::{NewToken, StoreLocation, Tokens};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

type Value<'v> = &'v (dyn ToSql + Sync);
type Values<'v> = Vec<Value<'v>>;

/// How long plain PostgreSQL takes for the rows of all batches.
pub(super) async fn insert(cluster: &Cluster, batches: Vec<Vec<Batch>>) -> Result<Duration> {
    let url = cluster.url("postgres");
    cluster.say(
        "postgres",
        "DROP TABLE IF EXISTS raw; CREATE TABLE raw (space bigint, entity text COLLATE \"C\", id text COLLATE \"C\", payload text,
           version bigint, PRIMARY KEY (space, entity, id))",
    )?;
    let rows = GROUPS * RECORDS as usize;
    let sql = format!("INSERT INTO raw (space, entity, id, payload, version) VALUES {}", places(rows, 4, ", 1"));
    let mut connections = Vec::new();
    for batches in batches {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        let statement = client.prepare(&sql).await?;
        connections.push((client, statement, batches));
    }
    let started = Instant::now();
    let inserting: Vec<_> = connections
        .into_iter()
        .map(|(client, statement, batches)| {
            tokio::spawn(async move {
                for batch in &batches {
                    let space = i64::try_from(batch.space)?;
                    let mut values: Values<'_> = Vec::with_capacity(rows * 4);
                    for row in batch.sales.iter().flat_map(|sale| &sale.rows) {
                        values.extend([&space as Value<'_>, &row.entity, &row.id, &row.payload]);
                    }
                    client.execute(&statement, &values).await?;
                }
                Ok::<(), anyhow::Error>(())
            })
        })
        .collect();
    for connection in inserting {
        connection.await??;
    }
    Ok(started.elapsed())
}

/// The places of so many rows' values in a statement, each row with `more` behind them.
fn places(rows: usize, columns: usize, more: &str) -> String {
    let row = |row: usize| {
        let places: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({}{more})", places.join(","))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
}

/// How long plain PostgreSQL takes for all rows that the server writes for the batches, in its tables with their indexes.
pub(super) async fn insert_all(cluster: &Cluster, batches: Vec<Vec<Batch>>) -> Result<Duration> {
    let address = cluster.store();
    let (url, schema) = address.split_once("?schema=").context("the address of a store names its schema")?;
    let store = StoreLocation::Postgres(address.clone());
    tokio::task::spawn_blocking(move || {
        let table = Tokens::open(store)?;
        (0..SPACES).try_for_each(|space| table.create(NewToken::new(space_id(space))).map(drop))
    })
    .await?
    .map_err(|error| server_failure(&error))?;
    let heads: Arc<Vec<AtomicI64>> = Arc::new((0..SPACES).map(|_| AtomicI64::new(0)).collect());
    let mut writers = Vec::new();
    for (device, batches) in batches.into_iter().enumerate() {
        let epoch_no = i64::try_from(device)? + 1;
        writers.push((AllRows::new(url, schema, epoch_no).await?, Arc::clone(&heads), batches));
    }
    let started = Instant::now();
    let writing: Vec<_> = writers
        .into_iter()
        .map(|(writer, heads, batches)| {
            tokio::spawn(async move {
                for batch in &batches {
                    let head = &heads[usize::try_from(batch.space)?];
                    writer.write(batch, head.fetch_add(GROUPS as i64, Ordering::Relaxed)).await?;
                }
                Ok::<(), anyhow::Error>(())
            })
        })
        .collect();
    for writer in writing {
        writer.await??;
    }
    Ok(started.elapsed())
}

/// A connection that writes all rows of batches.
struct AllRows {
    client: Client,
    epoch_no: i64,
    space_nos: Vec<i64>,
    records: Statement,
    log: Statement,
    groups: Statement,
    numbers: Statement,
    device: Statement,
    head: Statement,
}

impl AllRows {
    /// One for the device with this number.
    async fn new(url: &str, schema: &str, epoch_no: i64) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(&format!("SET search_path TO {schema}")).await?;
        let device = format!("till-{epoch_no}");
        let sql = "INSERT INTO devices (space_no, device, epoch, epoch_no, highest_seq, first_seen)
                   SELECT space_no, $1, 'e1', $2, 0, $3 FROM spaces";
        client.execute(sql, &[&device, &epoch_no, &AT]).await?;
        let rows = client.query("SELECT space_no FROM spaces ORDER BY space", &[]).await?;
        let space_nos = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let prepare = async |sql: &str, rows: usize, columns: usize| {
            client.prepare(&format!("{sql} VALUES {}", places(rows, columns, ""))).await
        };
        let records = "INSERT INTO records (space_no, entity, id, version, edit_version, payload)";
        let groups = "INSERT INTO groups (space_no, group_id, digest, seq, epoch_no, device_seq, decided_at)";
        Ok(Self {
            records: prepare(records, GROUPS * RECORDS as usize, 6).await?,
            log: prepare("INSERT INTO log (space_no, seq, change_count, chain, entry, parts)", GROUPS, 6).await?,
            groups: prepare(groups, GROUPS, 7).await?,
            numbers: prepare("INSERT INTO numbers (space_no, epoch_no, device_seq, group_id)", GROUPS, 4).await?,
            device: client
                .prepare("UPDATE devices SET highest_seq = $3, pushed_at = $4 WHERE space_no = $1 AND epoch_no = $2")
                .await?,
            head: client.prepare("UPDATE spaces SET head = $2, chain = $3 WHERE space_no = $1").await?,
            epoch_no,
            space_nos,
            client,
        })
    }

    /// Writes a batch behind this place of its log, in one transaction and one message.
    async fn write(&self, batch: &Batch, head: i64) -> Result<()> {
        let space_no = self.space_nos[usize::try_from(batch.space)?];
        let before = i64::try_from(batch.before)?;
        let groups: Vec<Written> =
            (1..).zip(&batch.sales).map(|(place, sale)| Written::new(sale, head + place, before + place)).collect();
        let (mut records, mut log, mut verdicts, mut numbers) = (Values::new(), Values::new(), Values::new(), Values::new());
        for (group, sale) in groups.iter().zip(&batch.sales) {
            for row in &sale.rows {
                records.extend([&space_no as Value<'_>, &row.entity, &row.id, &group.seq, &group.seq, &row.payload]);
            }
            let digest = &group.digest;
            log.extend([&space_no as Value<'_>, &group.seq, &(RECORDS as i64), digest, &group.entry, &0_i64]);
            verdicts.extend([&space_no as Value<'_>, &group.id, digest, &group.seq, &self.epoch_no, &group.device_seq, &AT]);
            numbers.extend([&space_no as Value<'_>, &self.epoch_no, &group.device_seq, &group.id]);
        }
        let last = groups.last().context("a batch has groups")?;
        let device: [Value<'_>; 4] = [&space_no, &self.epoch_no, &last.device_seq, &AT];
        let head: [Value<'_>; 3] = [&space_no, &last.seq, &last.digest];
        let client = &self.client;
        tokio::try_join!(
            client.batch_execute("BEGIN"),
            client.execute(&self.records, &records),
            client.execute(&self.log, &log),
            client.execute(&self.groups, &verdicts),
            client.execute(&self.numbers, &numbers),
            client.execute(&self.device, &device),
            client.execute(&self.head, &head),
            client.batch_execute("COMMIT"),
        )?;
        Ok(())
    }
}
