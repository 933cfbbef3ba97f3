//! `gbsync status`: where a device stands, without asking the server.

use crate::config::{DeviceFile, client_failure};
use crate::exit::Exit;
use crate::output::Output;
use anyhow::Result;
use gbsync_client::{Status, WaitsFor};
use gbsync_core::id::{Actor, Seq};
use gbsync_core::time::Timestamp;
use serde_json::{Value, json};
use std::path::PathBuf;

const EXAMPLE: &str = "\
Examples:
  gbsync status till.db
  gbsync status till.db --json";

/// Show where a device stands: cursor, outbox, last error; works offline
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The device's database
    file: PathBuf,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let device = DeviceFile::open(&arguments.file)?;
    let status = device.client.status().map_err(|error| client_failure(&error))?;
    if output.is_json() {
        output.json(&status_json(&status));
    } else {
        print(&status, output);
    }
    Ok(Exit::Done)
}

fn status_json(status: &Status) -> Value {
    let error = status.last_error.as_ref();
    json!({
        "device": status.device.as_str(),
        "epoch": status.epoch.as_str(),
        "server": status.remote.server,
        "space": status.remote.space.as_str(),
        "cursor": status.cursor.0,
        "head": status.head.map(|head| head.0),
        "sealedThrough": status.sealed_through.0,
        "pending": status.pending_groups,
        "inFlight": status.in_flight_groups,
        "accepted": status.accepted_groups,
        "parked": status.parked_groups,
        "waitingForSignIn": status.waiting_for_sign_in.iter().map(waits_for_json).collect::<Vec<_>>(),
        "oldestPendingAt": status.oldest_pending_at.as_ref().map(Timestamp::as_str),
        "nextAttemptAt": status.next_attempt_at.as_ref().map(Timestamp::as_str),
        "lastError": error.map(|error| json!({ "code": error.code, "message": error.message, "at": error.at.as_str() })),
        "isStopped": status.is_stopped,
    })
}

fn waits_for_json(waits_for: &WaitsFor) -> Value {
    let WaitsFor { actor, groups, oldest_at } = waits_for;
    json!({ "actor": actor.as_ref().map(Actor::as_str), "groups": groups, "oldestAt": oldest_at.as_str() })
}

fn print(status: &Status, output: &Output) {
    let or_dash = |time: &Option<Timestamp>| time.as_ref().map_or("-".to_owned(), Timestamp::to_string);
    let head = status.head.map_or("never asked".to_owned(), |Seq(head)| format!("{head} when last asked"));
    output.line(format_args!("space      {} on {}", status.remote.space, status.remote.server));
    output.line(format_args!("device     {} (epoch {})", status.device, status.epoch));
    output.line(format_args!("cursor     {} (head {head})", status.cursor));
    output.line(format_args!("sealed     {} groups", status.sealed_through));
    output.line(format_args!("pending    {} (oldest {})", status.pending_groups, or_dash(&status.oldest_pending_at)));
    for WaitsFor { actor, groups, oldest_at } in &status.waiting_for_sign_in {
        let who = actor.as_ref().map_or("anybody", Actor::as_str);
        output.line(format_args!("waiting    {groups} for {who} to sign in (oldest {oldest_at})"));
    }
    output.line(format_args!("in flight  {}", status.in_flight_groups));
    output.line(format_args!("accepted   {} not pulled yet", status.accepted_groups));
    output.line(format_args!("parked     {}", status.parked_groups));
    output.line(format_args!("next try   {}", or_dash(&status.next_attempt_at)));
    match &status.last_error {
        Some(error) => output.line(format_args!("last error {} [{}] {}", error.at, error.code, error.message)),
        None => output.line("last error -"),
    }
    if status.is_stopped {
        output.line(
            "the queue is stopped: nothing is sent until the cause of the last error is mended and gbsync sync runs again",
        );
    }
}
