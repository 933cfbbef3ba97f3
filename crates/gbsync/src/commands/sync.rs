//! `gbsync sync`: push what is sealed, pull to the head, say what happened.
//!
//! Invariant: nothing is ever dropped here; what could not be sent is still in the outbox when the verb ends, and exit code 4
//! says that it is.

mod followed;
mod report;
mod transfer;

use crate::config::{self, DeviceFile};
use crate::exit::{Exit, Failure};
use crate::log;
use crate::output::Output;
use crate::telemetry::Telemetry;
use crate::trace;
use anyhow::Result;
use followed::Followed;
use gbsync_client::{SentBatch, SyncError, SyncObserver, SyncOptions, SyncReport};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::Instrument;

/// What collectors call a device.
const SERVICE: &str = "gbsync-device";

const EXAMPLE: &str = "\
Examples:
  gbsync sync till.db
  gbsync sync till.db --trace --batch-size 2
  gbsync sync till.db --watch                # stays, reconnects by itself, ends on Ctrl-C
  GBSYNC_TOKEN=TOKEN gbsync sync till.db --fail-on-parked

Exit codes: 0 done, also with parked groups; 3 with them under --fail-on-parked; 4 server not reached, everything kept.";

/// Push, pull to the head of the log, and exit
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The device's database
    file: PathBuf,
    /// Records after which a batch closes; a group is never split
    #[arg(long, visible_alias = "batch-size", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch_records: Option<u64>,
    /// Bytes after which a batch closes; a group is never split
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch_bytes: Option<u64>,
    /// Print each batch that is sent
    #[arg(long)]
    trace: bool,
    /// Stay and sync whenever there is something to
    #[arg(long)]
    watch: bool,
    /// Exit with 3 when groups are parked
    #[arg(long)]
    fail_on_parked: bool,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do; everything is kept.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let telemetry = Telemetry::of_environment(None, SERVICE, output);
    log::start(log::FILTER, false, telemetry.as_ref());
    let ended = sync(arguments, output).await;
    if let Some(telemetry) = telemetry {
        telemetry.end();
    }
    ended
}

async fn sync(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let device = DeviceFile::open(&arguments.file)?;
    let transport = Followed(device.transport()?);
    let options = options(arguments, output);
    if arguments.watch {
        let stop = config::stop_signal()?;
        let observer = Watcher { device: &device, output, is_lost: AtomicBool::new(false) };
        return tokio::select! {
            error = device.client.watch_sync(&transport, &options, &observer) => Err(sync_failure(&error).into()),
            () = stop => Ok(Exit::Done),
        };
    }
    let report = device
        .client
        .sync(&transport, &options)
        .instrument(followed::round())
        .await
        .map_err(|error| sync_failure(&error))?;
    report::print(&device, &report, output);
    let parked = device.client.status().map_err(|error| config::client_failure(&error))?.parked_groups;
    if arguments.fail_on_parked && parked > 0 {
        return Ok(Exit::Parked);
    }
    Ok(Exit::Done)
}

fn options(arguments: &Arguments, output: &Output) -> SyncOptions {
    let printer = output.clone();
    let on_batch = move |batch: &SentBatch| {
        if printer.is_json() {
            printer.json(&trace::batch_json(batch));
        } else {
            printer.line(trace::batch_text(batch));
        }
        printer.flush();
    };
    SyncOptions {
        batch_records: arguments.batch_records,
        batch_bytes: arguments.batch_bytes,
        ignores_backoff: true,
        on_batch: if arguments.trace { Some(Arc::new(on_batch)) } else { None },
        on_transfer: transfer::shown_on(output),
        ..SyncOptions::default()
    }
}

/// Tells of each round of `--watch` in which something happened, and once of every time the server is lost.
struct Watcher<'a> {
    device: &'a DeviceFile,
    output: &'a Output,
    is_lost: AtomicBool,
}

impl SyncObserver for Watcher<'_> {
    fn round(&self, report: &SyncReport) {
        if self.is_lost.swap(false, Ordering::Relaxed) {
            self.output.note("the server is back");
        }
        if report.pushed > 0 || report.pulled_groups > 0 || !report.parked.is_empty() {
            report::print(self.device, report, self.output);
        }
    }

    fn failed(&self, error: &SyncError) {
        if !self.is_lost.swap(true, Ordering::Relaxed) {
            self.output.failure(&sync_failure(error).help("nothing to do: it is tried again and again"));
        }
    }
}

/// What ended a round early, as a failure: the client's sentences say what to do.
fn sync_failure(error: &SyncError) -> Failure {
    let failure = Failure::new(error.code(), error.to_string());
    match error {
        SyncError::NotReached { .. } | SyncError::BackingOff { .. } => {
            failure.help("run gbsync sync again, or leave gbsync sync --watch running").exit(Exit::NotReached)
        }
        SyncError::SignIn { .. } => {
            failure.help("gbsync token create --data DIR --space SPACE makes a token; give it in GBSYNC_TOKEN")
        }
        _ => failure,
    }
}
