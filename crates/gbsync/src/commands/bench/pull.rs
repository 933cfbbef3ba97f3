//! A second device: how fast it pulls what the first one pushed, and how soon it has it when it watches.

use super::push::{fill, finish, sync_in_thread, transport, wait_for};
use super::raw::Raw;
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, Sale, sales};
use super::{Folders, Sizes};
use crate::commands::demo::station::Station;
use crate::config::client_failure;
use anyhow::{Result, bail};
use gbsync_client::{Client, Durability, SyncError, SyncObserver, SyncOptions, SyncReport};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the watching device is asked how far it is.
const POLL: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures pulling and watching.
pub(super) async fn measure(sizes: &Sizes, folders: &Folders) -> Result<Vec<Figure>> {
    let sales = sales(1, 1, sizes.push_sales);
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    pull(sizes, folders, &sales, &mut ours, &mut raw).await?;
    let mut delays = Vec::new();
    for _ in 0..sizes.rounds.min(3) {
        delays.push(watch(folders, &sales).await?.as_secs_f64());
    }
    let records = sizes.push_sales * RECORDS;
    Ok(vec![
        Figure::new("pull", "records/s")
            .ours(median(&mut ours))
            .raw(median(&mut raw))
            .bar(Bar::RatioAtLeast(0.3))
            .note(format!("{records} records into a second device; raw: in one transaction")),
        Figure::new("watch-delay", "s")
            .ours(median(&mut delays))
            .bar(Bar::AtMost(0.5))
            .note("from the server having all of a push to the watching device having all of it"),
    ])
}

async fn pull(sizes: &Sizes, folders: &Folders, sales: &[Sale], ours: &mut Vec<f64>, raw: &mut Vec<f64>) -> Result<()> {
    let folder = folders.create()?;
    let station = Station::start(folder.path()).await?;
    let first = station.device("first.db")?;
    fill(&first, sales)?;
    finish(sync_in_thread(&first, &transport(&station)?, SyncOptions::default())).await?;
    let records = sales.len() as u64 * RECORDS;
    for round in 0..sizes.rounds {
        let second = station.device(&format!("second-{round}.db"))?;
        let transport = transport(&station)?;
        let started = Instant::now();
        let report = finish(sync_in_thread(&second, &transport, SyncOptions::default())).await?;
        ours.push(records as f64 / started.elapsed().as_secs_f64());
        if report.pulled_records != records {
            bail!("{} of {records} records arrived", report.pulled_records);
        }
        let mut baseline = Raw::create(&folder.path().join(format!("raw-{round}.db")), Durability::Full)?;
        raw.push(records as f64 / baseline.insert(sales, sales.len())?.as_secs_f64());
    }
    drop(first);
    station.stop().await
}

/// How long after the server a watching device has everything.
async fn watch(folders: &Folders, sales: &[Sale]) -> Result<Duration> {
    let folder = folders.create()?;
    let station = Station::start(folder.path()).await?;
    let (first, second) = (station.device("first.db")?, station.device("second.db")?);
    fill(&first, sales)?;
    let failure = Arc::new(Failure::default());
    let (watching, through, heard) = (second.clone(), transport(&station)?, failure.clone());
    let watching = tokio::spawn(async move {
        let error = watching.watch_sync(through.as_ref(), &SyncOptions::default(), heard.as_ref()).await;
        heard.failed(&error);
    });
    // The second device is there and idle before the first one begins.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let groups = sales.len() as u64;
    let syncing = sync_in_thread(&first, &transport(&station)?, SyncOptions::default());
    let (at_server, at_second) = tokio::join!(wait_for(&station, groups), wait_for_cursor(&second, groups));
    let delay = at_second?.saturating_duration_since(at_server?);
    finish(syncing).await?;
    watching.abort();
    // It was aborted, so how it ended says nothing.
    let _ = watching.await;
    if let Some(failure) = failure.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bail!("the watching device failed: {failure}");
    }
    drop((first, second));
    station.stop().await?;
    Ok(delay)
}

/// When the device had `groups` groups.
async fn wait_for_cursor(device: &Client, groups: u64) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let cursor = device.status().map_err(|error| client_failure(&error))?.cursor.0;
        if cursor >= groups {
            return Ok(Instant::now());
        }
        if Instant::now() > deadline {
            bail!("the watching device has {cursor} of {groups} operations after {PATIENCE:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Keeps the last failure of a watch.
#[derive(Default)]
struct Failure(Mutex<Option<String>>);

impl SyncObserver for Failure {
    fn round(&self, _: &SyncReport) {}

    fn failed(&self, error: &SyncError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
}
