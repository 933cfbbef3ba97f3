//! The same two devices with `gbsync`: the whole of what an app has to write.

use super::check::Observer;
use super::measure::{Receiver, Sender};
use crate::config::client_failure;
use anyhow::{Result, bail};
use gbsync_client::{Client, HttpTransport, SyncError, SyncOptions, SyncReport};
use gbsync_core::wire::OperationLine;

/// The relation that holds a device's rows.
pub(super) const ROWS: &str = "gbsync_records";

/// The device that writes and pushes.
pub(super) struct GroupedSender {
    client: Client,
    transport: HttpTransport,
}

impl GroupedSender {
    /// A device with a database.
    pub(super) fn new(client: Client, transport: HttpTransport) -> Self {
        Self { client, transport }
    }
}

impl Sender for GroupedSender {
    fn save(&mut self, operation: &OperationLine) -> Result<()> {
        let applied = self.client.apply(std::slice::from_ref(operation)).map_err(|error| client_failure(&error))?;
        match applied.failed {
            Some((_, error)) => Err(client_failure(&error).into()),
            None => Ok(()),
        }
    }

    async fn send(&mut self) -> Result<bool> {
        let report = sync(&self.client, &self.transport).await?;
        Ok(report.is_some_and(|report| report.waiting == 0))
    }
}

/// The device that pulls.
pub(super) struct GroupedReceiver {
    client: Client,
    transport: HttpTransport,
}

impl GroupedReceiver {
    /// A device with a database.
    pub(super) fn new(client: Client, transport: HttpTransport) -> Self {
        Self { client, transport }
    }
}

impl Receiver for GroupedReceiver {
    async fn receive(&mut self, observer: &Observer) -> Result<bool> {
        let mut changes = self.client.subscribe();
        let round = sync(&self.client, &self.transport);
        let mut round = std::pin::pin!(round);
        let report = loop {
            tokio::select! {
                biased;
                Ok(()) = changes.changed() => observer.observe(),
                report = &mut round => break report?,
            }
        };
        observer.observe();
        Ok(report.is_some())
    }
}

/// One round; `None` when the connection broke. A round that ends well has pulled to the head of the log.
async fn sync(client: &Client, transport: &HttpTransport) -> Result<Option<SyncReport>> {
    // One attempt a request: the next round is the next attempt, for this queue as for the other.
    let options = SyncOptions { attempts: 1, ignores_backoff: true, ..SyncOptions::default() };
    match client.sync(transport, &options).await {
        Ok(report) if report.parked.is_empty() => Ok(Some(report)),
        Ok(report) => bail!("{} of the workload's operations were refused", report.parked.len()),
        Err(SyncError::NotReached { .. }) => Ok(None),
        Err(error) => bail!("[{}] {error}", error.code()),
    }
}
