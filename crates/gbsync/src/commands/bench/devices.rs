//! Sixteen devices push at once, beside one: concurrent pushes share durable transactions.

use super::push::{fill, finish, push_once, sync_in_thread, transport, wait_for};
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, sales};
use super::{Folders, Sizes};
use crate::commands::demo::station::Station;
use anyhow::Result;
use gbsync_client::SyncOptions;
use std::time::Instant;

const DEVICES: u64 = 16;

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
    Ok(vec![
        Figure::new("devices-16", "records/s")
            .ours(median(&mut all))
            .raw(median(&mut one))
            .bar(Bar::RatioAtLeast(2.0))
            .note(format!("{DEVICES} devices of {sales} operations each, default batches; raw: one device")),
        Figure::new("transactions-a-push", "")
            .ours(median(&mut shared))
            .bar(Bar::AtMost(0.25))
            .note(format!("durable transactions on the server over pushes, {DEVICES} devices")),
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
