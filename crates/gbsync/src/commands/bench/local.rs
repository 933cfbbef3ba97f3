//! Operations on one device, each durable by itself, beside raw SQLite writing the same rows in one transaction each.

use super::raw::Raw;
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, Sale, sales};
use super::{Folders, Sizes};
use crate::commands::demo::station::new_device;
use crate::config::client_failure;
use anyhow::Result;
use gbsync_client::{Client, Durability, Error, Remote};
use gbsync_core::id::SpaceId;
use std::time::{Duration, Instant};

/// Measures local operations.
pub(super) fn measure(sizes: &Sizes, folders: &Folders) -> Result<Vec<Figure>> {
    let kinds = [
        ("local-full", Durability::Full, sizes.local_full, 0.7, "synchronous=FULL"),
        ("local-normal", Durability::Normal, sizes.local_normal, 0.35, "synchronous=NORMAL"),
    ];
    kinds.into_iter().map(|kind| figure(sizes, folders, kind)).collect()
}

fn figure(
    sizes: &Sizes,
    folders: &Folders,
    (name, durability, operations, bar, setting): (&'static str, Durability, u64, f64, &str),
) -> Result<Figure> {
    let folder = folders.create()?;
    let remote = Remote { server: "http://127.0.0.1:1".into(), space: SpaceId::new("bench")? };
    let device = new_device(&folder.path().join("ours.db"), &remote, durability)?;
    let mut raw = Raw::create(&folder.path().join("raw.db"), durability)?;
    let (mut ours_rates, mut raw_rates) = (Vec::new(), Vec::new());
    for round in 0..sizes.rounds as u64 {
        let sales = sales(1, 1 + round * operations, operations);
        let rate = |spent: Duration| operations as f64 / spent.as_secs_f64();
        // In turns, and each goes first as often as the other.
        if round % 2 == 0 {
            ours_rates.push(rate(save_all(&device, &sales)?));
            raw_rates.push(rate(raw.insert(&sales, 1)?));
        } else {
            raw_rates.push(rate(raw.insert(&sales, 1)?));
            ours_rates.push(rate(save_all(&device, &sales)?));
        }
    }
    Ok(Figure::new(name, "operations/s")
        .ours(median(&mut ours_rates))
        .raw(median(&mut raw_rates))
        .bar(Bar::RatioAtLeast(bar))
        .note(format!("{RECORDS} records each, durable one by one, {setting}")))
}

fn save_all(device: &Client, sales: &[Sale]) -> Result<Duration> {
    let started = Instant::now();
    for sale in sales {
        save(device, sale).map_err(|error| client_failure(&error))?;
    }
    Ok(started.elapsed())
}

fn save(device: &Client, sale: &Sale) -> Result<(), Error> {
    device.operation("receipt-create", &sale.root, |operation| {
        sale.rows.iter().try_for_each(|row| operation.upsert(row.entity, &row.id, row.payload.as_str()))
    })?;
    Ok(())
}
