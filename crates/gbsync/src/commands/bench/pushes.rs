//! Pushes made beforehand, so that sixteen devices cost the bench as little as they can: what is measured is the server.

use super::Sizes;
use super::rows::{RECORDS, Sale, sales};
use crate::config::server_failure;
use anyhow::{Context, Result, bail, ensure};
use gbsync_client::{BoxFuture, HttpTransport, Method, Request, TokenProvider, Transport};
use gbsync_core::digest::Digest;
use gbsync_core::id::SpaceId;
use gbsync_server::{NewToken, Server, ServerConfig, StoreLocation, Tokens};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) const DEVICES: u64 = 16;
pub(super) const SPACES: u64 = 50;
/// Operations of a push.
pub(super) const GROUPS: usize = 8;
/// What stands in every row of a raw baseline as the time.
pub(super) const AT: &str = "2026-06-03T20:00:00.000Z";
/// When a push is given up, in milliseconds.
const TIMEOUT_MS: u64 = 60_000;

/// A push as it is sent, and where to.
pub(super) struct Batch {
    pub(super) space: u64,
    body: Vec<u8>,
    pub(super) sales: Vec<Sale>,
    /// Operations of the device before these.
    pub(super) before: usize,
}

/// What pushing came to.
pub(super) struct Pushed {
    pub(super) took: Duration,
    /// Durable transactions of the server.
    pub(super) transactions: u64,
}

/// What each device pushes.
pub(super) fn batches(sizes: &Sizes, spaces: u64) -> Vec<Vec<Batch>> {
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

/// Lets a new server on this store have all batches.
pub(super) async fn push(store: StoreLocation, batches: Vec<Vec<Batch>>) -> Result<Pushed> {
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
    Ok(Pushed { took, transactions: counters.transactions })
}

pub(super) fn space_id(space: u64) -> SpaceId {
    SpaceId::new(format!("shop-{space:02}")).expect("a short name")
}

/// What is written of a sale beside its records.
pub(super) struct Written {
    pub(super) id: String,
    pub(super) seq: i64,
    pub(super) device_seq: i64,
    pub(super) digest: Vec<u8>,
    pub(super) entry: String,
}

impl Written {
    /// Of a sale that is the next at this place of its log, and of its device.
    pub(super) fn new(sale: &Sale, seq: i64, device_seq: i64) -> Self {
        let (id, changes) = (format!("receipt-create:{}:1", sale.root), changes(sale));
        let entry = format!(
            r#"{{"seq":{seq},"syncGroupId":"{id}","syncGroupType":"receipt-create","device":"till-1","epoch":"e1","deviceSeq":{device_seq},"createdAt":"{AT}","committedAt":"{AT}","changeCount":{RECORDS},"changes":{changes}}}"#
        );
        Self { id, seq, device_seq, digest: Digest::of(changes.as_bytes()).as_bytes().to_vec(), entry }
    }
}
