//! Sixteen devices push at once: beside one, and beside plain SQLite in durable transactions that are as large as those that their
//! pushes share.

mod raw;

use super::push::{fill, finish, push_once, sync_in_thread, transport, wait_for};
use super::pushes::{DEVICES, GROUPS, SPACES, batches, push};
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, sales};
use super::{Folders, Sizes};
use crate::commands::demo::station::Station;
use anyhow::{Context, Result};
use gbsync_client::SyncOptions;
use gbsync_server::StoreLocation;
use std::time::Instant;

/// What sixteen devices did.
struct Together {
    records_a_second: f64,
    transactions_a_push: f64,
}

/// Measures concurrent devices.
pub(super) async fn measure(sizes: &Sizes, folders: &Folders) -> Result<Vec<Figure>> {
    let (mut one, mut all, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..sizes.rounds.min(3) {
        one.push((sizes.push_sales * RECORDS) as f64 / push_once(sizes, folders, None).await?.as_secs_f64());
        let together = push_together(sizes, folders).await?;
        all.push(together.records_a_second);
        shared.push(together.transactions_a_push);
    }
    let sales = sizes.sales_a_device;
    let mut figures = vec![
        Figure::new("devices-16", "records/s")
            .ours(median(&mut all))
            .raw(median(&mut one))
            .bar(Bar::RatioAtLeast(2.0))
            .note(format!("{DEVICES} devices of {sales} operations each, default batches; raw: one device")),
        Figure::new("transactions-a-push", "")
            .ours(median(&mut shared))
            .bar(Bar::AtMost(0.25))
            .note(format!("durable transactions on the server over pushes, {DEVICES} devices")),
    ];
    figures.extend(beside_raw(sizes, folders).await?);
    Ok(figures)
}

/// Pushes made beforehand to a server on SQLite, beside plain SQLite.
async fn beside_raw(sizes: &Sizes, folders: &Folders) -> Result<[Figure; 2]> {
    let (mut ours, mut alone, mut all_rows, mut together) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let pushes = DEVICES * sizes.postgres_pushes;
    let rate = |took: std::time::Duration| (pushes * GROUPS as u64 * RECORDS) as f64 / took.as_secs_f64();
    for _ in 0..sizes.rounds.min(3) {
        let folder = folders.create()?;
        let pushed = push(StoreLocation::from(folder.path()), batches(sizes, SPACES)).await?;
        ours.push(rate(pushed.took));
        let shared = pushes as f64 / pushed.transactions as f64;
        together.push(shared);
        let each = shared.round() as usize;
        let (one, other, batches) = (folders.create()?, folders.create()?, batches(sizes, SPACES));
        let (of_alone, of_all) = tokio::task::spawn_blocking(move || {
            let alone = raw::insert(one.path(), &batches, each)?;
            anyhow::Ok((alone, raw::insert_all(other.path(), &batches, each)?))
        })
        .await
        .context("plain SQLite ended")??;
        alone.push(rate(of_alone));
        all_rows.push(rate(of_all));
    }
    let (ours, together) = (median(&mut ours), median(&mut together));
    let batch = format!(
        "{DEVICES} devices, batches of {GROUPS} operations of {RECORDS} records, {SPACES} spaces, {together:.1} a durable transaction"
    );
    Ok([
        Figure::new("sqlite-16", "records/s")
            .ours(ours)
            .raw(median(&mut alone))
            .note(format!("{batch}; raw: the same records alone, as many a transaction")),
        Figure::new("sqlite-16-all-rows", "records/s").ours(ours).raw(median(&mut all_rows)).bar(Bar::RatioAtLeast(0.5)).note(
            "the same pushes; raw: the same records, log entries, verdicts and numbers into the server's tables, as many a transaction",
        ),
    ])
}

async fn push_together(sizes: &Sizes, folders: &Folders) -> Result<Together> {
    let folder = folders.create()?;
    let station = Station::start(folder.path()).await?;
    let mut devices = Vec::new();
    for till in 1..=DEVICES {
        let device = station.device(&format!("device-{till}.db"))?;
        fill(&device, &sales(till, 1, sizes.sales_a_device))?;
        devices.push((device, transport(&station)?));
    }
    let before = station.counters();
    let started = Instant::now();
    let start = |(device, transport): &(_, _)| sync_in_thread(device, transport, SyncOptions::default());
    let rounds: Vec<_> = devices.iter().map(start).collect();
    let groups = DEVICES * sizes.sales_a_device;
    let seconds = wait_for(&station, groups).await?.duration_since(started).as_secs_f64();
    let after = station.counters();
    for round in rounds {
        finish(round).await?;
    }
    drop(devices);
    station.stop().await?;
    let (pushes, transactions) = (after.pushes - before.pushes, after.transactions - before.transactions);
    Ok(Together {
        records_a_second: (groups * RECORDS) as f64 / seconds,
        transactions_a_push: transactions as f64 / pushes as f64,
    })
}
