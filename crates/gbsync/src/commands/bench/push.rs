//! One device pushes what it saved offline, until the server has it durably, beside raw SQLite inserting the same rows.

use super::raw::Raw;
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, Sale, sales};
use super::{Folders, Sizes};
use crate::commands::demo::station::Station;
use crate::config::client_failure;
use anyhow::{Context, Result, anyhow, bail};
use gbsync_client::{Client, Durability, HttpTransport, SyncOptions, SyncReport};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sales applied in one transaction when an outbox is filled.
const FILL: usize = 2_000;
/// When a push that does not end is given up.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the server is asked how much it has.
const POLL: Duration = Duration::from_micros(200);

/// Measures pushing by one device.
pub(super) async fn measure(sizes: &Sizes, folders: &Folders) -> Result<Vec<Figure>> {
    let kinds = [("push", None, 8, 0.25), ("push-batch-500", Some(500), 100, 0.35)];
    let mut rates: [(Vec<f64>, Vec<f64>); 2] = Default::default();
    for _ in 0..sizes.rounds {
        for ((_, batch_records, sales_each, _), (ours, raw)) in kinds.iter().zip(&mut rates) {
            let records = (sizes.push_sales * RECORDS) as f64;
            ours.push(records / push_once(sizes, folders, *batch_records).await?.as_secs_f64());
            raw.push(records / raw_once(sizes, folders, *sales_each)?.as_secs_f64());
        }
    }
    let figure =
        |((name, batch_records, sales_each, bar), (mut ours, mut raw)): ((_, Option<u64>, _, _), (Vec<_>, Vec<_>))| {
            let batches =
                batch_records.map_or("default batches".to_owned(), |records| format!("batches of {records} records"));
            Figure::new(name, "records/s")
                .ours(median(&mut ours))
                .raw(median(&mut raw))
                .bar(Bar::RatioAtLeast(bar))
                .note(format!("{} operations of {RECORDS} in {batches}; raw: {sales_each} a transaction", sizes.push_sales))
        };
    Ok(kinds.into_iter().zip(rates).map(figure).collect())
}

/// How long one device takes until the server has all its sales.
pub(super) async fn push_once(sizes: &Sizes, folders: &Folders, batch_records: Option<u64>) -> Result<Duration> {
    let folder = folders.create()?;
    let station = Station::start(folder.path()).await?;
    let device = station.device("device.db")?;
    fill(&device, &sales(1, 1, sizes.push_sales))?;
    let options = SyncOptions { batch_records, ..SyncOptions::default() };
    let transport = transport(&station)?;
    let started = Instant::now();
    let syncing = sync_in_thread(&device, &transport, options);
    let arrived = wait_for(&station, sizes.push_sales).await?;
    let report = finish(syncing).await?;
    if report.accepted != sizes.push_sales {
        bail!("{} of {} operations were accepted", report.accepted, sizes.push_sales);
    }
    drop(device);
    station.stop().await?;
    Ok(arrived.duration_since(started))
}

fn raw_once(sizes: &Sizes, folders: &Folders, sales_each: usize) -> Result<Duration> {
    let folder = folders.create()?;
    Raw::create(&folder.path().join("raw.db"), Durability::Full)?.insert(&sales(1, 1, sizes.push_sales), sales_each)
}

/// Saves sales as groups, many in a transaction.
pub(super) fn fill(device: &Client, sales: &[Sale]) -> Result<()> {
    for chunk in sales.chunks(FILL) {
        let lines: Vec<_> = chunk.iter().map(Sale::operation_line).collect();
        let applied = device.apply(&lines).map_err(|error| client_failure(&error))?;
        if let Some((_, error)) = applied.failed {
            return Err(client_failure(&error).into());
        }
    }
    Ok(())
}

/// A round of syncing on a thread and runtime of its own, as a device has it.
type Syncing = tokio::task::JoinHandle<Result<SyncReport>>;

/// What a device reaches the server with; an app makes it once, so making it is not measured.
pub(super) fn transport(station: &Station) -> Result<Arc<HttpTransport>> {
    Ok(Arc::new(station.transport(station.url())?))
}

/// Starts a round.
pub(super) fn sync_in_thread(device: &Client, transport: &Arc<HttpTransport>, options: SyncOptions) -> Syncing {
    let (device, transport) = (device.clone(), transport.clone());
    tokio::task::spawn_blocking(move || {
        let report = device.sync_blocking(transport.as_ref(), &options);
        report.map_err(|error| anyhow!("[{}] {error}", error.code()))
    })
}

/// Waits for a round to end.
pub(super) async fn finish(syncing: Syncing) -> Result<SyncReport> {
    syncing.await.context("the syncing thread ended")?
}

/// When the server had `groups` groups durably.
pub(super) async fn wait_for(station: &Station, groups: u64) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    while station.counters().groups_accepted < groups {
        if Instant::now() > deadline {
            bail!("the server has {} of {groups} operations after {PATIENCE:?}", station.counters().groups_accepted);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(Instant::now())
}
