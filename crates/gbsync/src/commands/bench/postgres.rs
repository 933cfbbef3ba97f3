//! Sixteen devices push to a server on PostgreSQL, beside raw PostgreSQL inserting the same rows: over fifty spaces, and to one.
//!
//! PostgreSQL is the bench's own, with its settings as they come: every COMMIT is durable on both sides.

mod raw;

use super::Sizes;
use super::processor::Worked;
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
    /// Operations of the device before these.
    before: usize,
}

/// Measures pushing to PostgreSQL.
pub(super) async fn measure(sizes: &Sizes) -> Result<Vec<Figure>> {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(&[])).await??;
    let pushes = DEVICES * sizes.postgres_pushes;
    let (mut many, mut one) = (Course::default(), Course::default());
    let (mut raw, mut all_rows) = (Course::default(), Course::default());
    for _ in 0..sizes.rounds.min(3) {
        raw.add(&cluster, pushes, raw::insert(&cluster, batches(sizes, SPACES))).await?;
        all_rows.add(&cluster, pushes, raw::insert_all(&cluster, batches(sizes, SPACES))).await?;
        many.add(&cluster, pushes, push(&cluster, batches(sizes, SPACES))).await?;
        one.add(&cluster, pushes, push(&cluster, batches(sizes, 1))).await?;
    }
    let (raw_rate, many_rate) = (median(&mut raw.records_per_s), median(&mut many.records_per_s));
    let batch = format!("{DEVICES} devices, batches of {GROUPS} operations of {RECORDS} records");
    let of_all_rows = "the same records, log entries, verdicts and numbers into the server's tables, one commit a batch";
    let mut figures = vec![
        Figure::new("postgres", "records/s").ours(many_rate).raw(raw_rate).bar(Bar::RatioAtLeast(0.3)).note(format!(
            "{batch}, {SPACES} spaces; raw: the same rows, one INSERT and one commit a batch, {DEVICES} connections"
        )),
        Figure::new("postgres-all-rows", "records/s")
            .ours(many_rate)
            .raw(median(&mut all_rows.records_per_s))
            .note(format!("the same pushes; raw: {of_all_rows}, without a look at anything")),
        Figure::new("postgres-one-space", "records/s")
            .ours(median(&mut one.records_per_s))
            .raw(many_rate)
            .bar(Bar::RatioAtLeast(0.5))
            .note(format!("{batch}, all in one space; raw: over {SPACES} spaces")),
    ];
    if let (Some(ours), Some(of_raw), Some(of_all)) = (many.worked(), raw.worked(), all_rows.worked()) {
        let split = |worked: Worked| format!("{:.2} PostgreSQL's and {:.2} other", worked.database_ms, worked.here_ms);
        let figure = |name, raw: Worked, what: &str| {
            let note = format!("processors' time of a push: {}; raw: of {what}, {}", split(ours), split(raw));
            Figure::new(name, "ms/push").ours(ours.total_ms()).raw(raw.total_ms()).note(note)
        };
        figures.push(figure("postgres-processor", of_raw, "an INSERT and its commit"));
        figures.push(figure("postgres-processor-all-rows", of_all, of_all_rows));
    }
    Ok(figures)
}

/// Rounds of one kind.
#[derive(Default)]
struct Course {
    records_per_s: Vec<f64>,
    worked: Vec<Worked>,
}

impl Course {
    /// Measures one more round.
    async fn add(&mut self, cluster: &Cluster, pushes: u64, round: impl Future<Output = Result<Duration>>) -> Result<()> {
        let until_now = || cluster.postmaster().and_then(Worked::until_now);
        let before = until_now();
        let took = round.await?;
        self.records_per_s.push((pushes * GROUPS as u64 * RECORDS) as f64 / took.as_secs_f64());
        self.worked.extend(until_now().zip(before).map(|(after, before)| after.each(before, pushes as f64)));
        Ok(())
    }

    /// The middle of what processors worked for a push.
    fn worked(&self) -> Option<Worked> {
        let middle = |of: fn(&Worked) -> f64| median(&mut self.worked.iter().map(of).collect::<Vec<_>>());
        let worked = Worked { here_ms: middle(|worked| worked.here_ms), database_ms: middle(|worked| worked.database_ms) };
        (!self.worked.is_empty()).then_some(worked)
    }
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
            let before = number * GROUPS;
            Batch { space, body: body(device, before, sales), sales: sales.to_vec(), before }
        };
        sales.chunks(GROUPS).enumerate().map(batch).collect()
    };
    (1..=DEVICES).map(of_device).collect()
}

fn body(device: u64, before: usize, sales: &[Sale]) -> Vec<u8> {
    let group = |(number, sale): (usize, &Sale)| {
        let changes = changes(sale);
        let (id, digest) = (&sale.root, Digest::of(changes.as_bytes()));
        format!(
            r#"{{"syncGroupId":"receipt-create:{id}:1","syncGroupType":"receipt-create","deviceSeq":{},"createdAt":"2026-06-03T20:00:00.000Z","changeCount":{RECORDS},"digest":"{digest}","changes":{changes}}}"#,
            before + number + 1
        )
    };
    let groups = sales.iter().enumerate().map(group).collect::<Vec<_>>().join(",");
    format!(r#"{{"device":"till-{device}","epoch":"e1","batch":"b","groups":[{groups}]}}"#).into_bytes()
}

/// What a sale changes, as it is sent.
fn changes(sale: &Sale) -> String {
    let change = |row: &super::rows::Row| {
        let (entity, id, payload) = (row.entity, &row.id, &row.payload);
        format!(r#"{{"entity":"{entity}","id":"{id}","action":"upsert","baseVersion":0,"payload":{payload}}}"#)
    };
    format!("[{}]", sale.rows.iter().map(change).collect::<Vec<_>>().join(","))
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
