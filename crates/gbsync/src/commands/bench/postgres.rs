//! Sixteen devices push to a server on PostgreSQL, beside raw PostgreSQL inserting the same rows: over fifty spaces, and to one.
//!
//! PostgreSQL is the bench's own, with its settings as they come: every COMMIT is durable on both sides.

use super::Sizes;
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, Sale, sales};
use crate::config::server_failure;
use anyhow::{Context, Result, bail, ensure};
use gbsync_client::{BoxFuture, HttpTransport, Method, Request, TokenProvider, Transport};
use gbsync_cluster::{Cluster, ClusterError};
use gbsync_core::digest::Digest;
use gbsync_core::id::SpaceId;
use gbsync_server::{NewToken, Server, ServerConfig, StoreLocation, Tokens};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

const DEVICES: u64 = 16;
const SPACES: u64 = 50;
/// Operations of a push.
const GROUPS: usize = 8;
/// Seconds after which a push is given up, in milliseconds.
const TIMEOUT_MS: u64 = 60_000;

/// A push as it is sent, and where to.
struct Batch {
    space: u64,
    body: Vec<u8>,
    sales: Vec<Sale>,
}

/// Measures pushing to PostgreSQL.
pub(super) async fn measure(sizes: &Sizes) -> Result<Vec<Figure>> {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(&[])).await??;
    let (mut many, mut one, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let records = (DEVICES * sizes.postgres_pushes * GROUPS as u64 * RECORDS) as f64;
    for _ in 0..sizes.rounds.min(3) {
        raw.push(records / insert(&cluster, batches(sizes, SPACES)).await?.as_secs_f64());
        many.push(records / push(&cluster, batches(sizes, SPACES)).await?.as_secs_f64());
        one.push(records / push(&cluster, batches(sizes, 1)).await?.as_secs_f64());
    }
    let (raw, many, one) = (median(&mut raw), median(&mut many), median(&mut one));
    let batch = format!("{DEVICES} devices, batches of {GROUPS} operations of {RECORDS} records");
    Ok(vec![
        Figure::new("postgres", "records/s").ours(many).raw(raw).bar(Bar::RatioAtLeast(0.3)).note(format!(
            "{batch}, {SPACES} spaces; raw: the same rows, one INSERT and one commit a batch, {DEVICES} connections"
        )),
        Figure::new("postgres-one-space", "records/s")
            .ours(one)
            .raw(many)
            .bar(Bar::RatioAtLeast(0.5))
            .note(format!("{batch}, all in one space; raw: over {SPACES} spaces")),
    ])
}

/// Whether the reason is that there is no PostgreSQL on this machine.
pub(super) fn is_not_installed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClusterError::NotInstalled))
}

/// What each device pushes.
fn batches(sizes: &Sizes, spaces: u64) -> Vec<Vec<Batch>> {
    let of_device = |device: u64| {
        let sales = sales(device, 1, sizes.postgres_pushes * GROUPS as u64);
        let batch = |(number, sales): (usize, &[Sale])| {
            let space = (device * 3 + number as u64 * 7) % spaces;
            Batch { space, body: body(device, number * GROUPS, sales), sales: sales.to_vec() }
        };
        sales.chunks(GROUPS).enumerate().map(batch).collect()
    };
    (1..=DEVICES).map(of_device).collect()
}

fn body(device: u64, before: usize, sales: &[Sale]) -> Vec<u8> {
    let group = |(number, sale): (usize, &Sale)| {
        let change = |row: &super::rows::Row| {
            let (entity, id, payload) = (row.entity, &row.id, &row.payload);
            format!(r#"{{"entity":"{entity}","id":"{id}","action":"upsert","baseVersion":0,"payload":{payload}}}"#)
        };
        let changes = format!("[{}]", sale.rows.iter().map(change).collect::<Vec<_>>().join(","));
        let (id, digest) = (&sale.root, Digest::of(changes.as_bytes()));
        format!(
            r#"{{"syncGroupId":"receipt-create:{id}:1","syncGroupType":"receipt-create","deviceSeq":{},"createdAt":"2026-06-03T20:00:00.000Z","changeCount":{RECORDS},"digest":"{digest}","changes":{changes}}}"#,
            before + number + 1
        )
    };
    let groups = sales.iter().enumerate().map(group).collect::<Vec<_>>().join(",");
    format!(r#"{{"device":"till-{device}","epoch":"e1","batch":"b","groups":[{groups}]}}"#).into_bytes()
}

/// The token of the space that a device speaks to next.
#[derive(Default)]
struct NextToken(Mutex<String>);

impl TokenProvider for NextToken {
    fn token(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { Some(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()) })
    }
}

/// How long a new server takes for all batches.
async fn push(cluster: &Cluster, batches: Vec<Vec<Batch>>) -> Result<Duration> {
    let store = StoreLocation::Postgres(cluster.store());
    let config = ServerConfig { listen: "127.0.0.1:0".parse()?, ..ServerConfig::new(&store) };
    let server = Server::start(config).await.map_err(|error| server_failure(&error))?;
    let tokens = tokio::task::spawn_blocking(move || {
        let table = Tokens::open(store)?;
        let new = NewToken::new;
        let token = |space: u64| Ok(table.create(new(space_id(space)))?.token);
        (0..SPACES).map(token).collect::<Result<Vec<String>, gbsync_server::ServerError>>()
    });
    let tokens = Arc::new(tokens.await?.map_err(|error| server_failure(&error))?);
    let mut devices = Vec::new();
    for batches in batches {
        let token = Arc::new(NextToken::default());
        let transport = HttpTransport::new(&server.url(), Arc::clone(&token) as Arc<dyn TokenProvider>)?;
        devices.push((transport, token, batches));
    }
    let started = Instant::now();
    let pushing: Vec<_> = devices
        .into_iter()
        .map(|(transport, token, batches)| {
            let tokens = Arc::clone(&tokens);
            tokio::spawn(async move {
                for Batch { space, body, .. } in batches {
                    let secret = tokens.get(usize::try_from(space)?).context("a token of each space")?;
                    token.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(secret);
                    let path = format!("/v1/spaces/{}/push", space_id(space));
                    let request =
                        Request { method: Method::Post, path, body: Some(body), timeout_ms: TIMEOUT_MS, token: None };
                    let answer = transport.send(request).await?;
                    ensure!(answer.status == 200, "a push was answered {}", answer.status);
                }
                Ok::<(), anyhow::Error>(())
            })
        })
        .collect();
    for device in pushing {
        device.await??;
    }
    let took = started.elapsed();
    let counters = server.counters();
    if counters.groups_rejected > 0 || counters.failed_transactions > 0 {
        bail!("{} operations were refused, {} transactions failed", counters.groups_rejected, counters.failed_transactions);
    }
    server.stop().await.map_err(|error| server_failure(&error))?;
    Ok(took)
}

fn space_id(space: u64) -> SpaceId {
    SpaceId::new(format!("shop-{space:02}")).expect("a short name")
}

/// How long plain PostgreSQL takes for the rows of all batches.
async fn insert(cluster: &Cluster, batches: Vec<Vec<Batch>>) -> Result<Duration> {
    let url = cluster.url("postgres");
    cluster.say(
        "postgres",
        "DROP TABLE IF EXISTS raw; CREATE TABLE raw (space bigint, entity text COLLATE \"C\", id text COLLATE \"C\", payload text,
           version bigint, PRIMARY KEY (space, entity, id))",
    )?;
    let rows = GROUPS * RECORDS as usize;
    let places: Vec<String> = (0..rows)
        .map(|row| {
            let first = row * 4;
            format!("(${}, ${}, ${}, ${}, 1)", first + 1, first + 2, first + 3, first + 4)
        })
        .collect();
    let sql = format!("INSERT INTO raw (space, entity, id, payload, version) VALUES {}", places.join(","));
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
                    let mut values: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(rows * 4);
                    for row in batch.sales.iter().flat_map(|sale| &sale.rows) {
                        values.extend([&space as &(dyn ToSql + Sync), &row.entity, &row.id, &row.payload]);
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
