//! The first part: one operation of three records and two single changes, flushed with at most two records a batch, through
//! a real server. The operation travels whole although it is larger than a batch.

use super::station::Station;
use crate::config::client_failure;
use anyhow::{Context, Result, anyhow};
use gbsync_client::{Client, Error, SentBatch, SyncOptions};
use std::sync::{Arc, Mutex, PoisonError};

/// The batches that were sent.
pub(super) async fn run() -> Result<Vec<SentBatch>> {
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    let station = Station::start(folder.path()).await?;
    let device = station.device("device.db")?;
    save(&device).map_err(|error| client_failure(&error))?;
    let sent: Arc<Mutex<Vec<SentBatch>>> = Arc::default();
    let seen = sent.clone();
    let on_batch = move |batch: &SentBatch| seen.lock().unwrap_or_else(PoisonError::into_inner).push(batch.clone());
    let options = SyncOptions { batch_records: Some(2), on_batch: Some(Arc::new(on_batch)), ..SyncOptions::default() };
    let transport = station.transport(station.url())?;
    let report = device.sync(&transport, &options).await.map_err(|error| anyhow!("[{}] {error}", error.code()))?;
    station.stop().await?;
    if report.accepted != 3 || !report.parked.is_empty() {
        return Err(anyhow!("the server accepted {} groups of 3", report.accepted));
    }
    let sent = sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(sent)
}

fn save(device: &Client) -> Result<(), Error> {
    device.operation("receipt-create", "receipt-001", |receipt| {
        receipt.upsert("receipts", "receipt-001", r#"{"no":"R-001","total":"120.00"}"#)?;
        receipt.upsert("payments", "payment-001", r#"{"receiptId":"receipt-001","amount":"120.00"}"#)?;
        receipt.upsert("financial_entries", "entry-001", r#"{"receiptId":"receipt-001","amount":"120.00"}"#)
    })?;
    device.upsert("products", "product-001", r#"{"name":"Paper roll"}"#)?;
    device.upsert("customers", "customer-001", r#"{"name":"Ada"}"#)?;
    Ok(())
}
