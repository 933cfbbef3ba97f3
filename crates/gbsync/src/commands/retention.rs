//! `gbsync retention`: lets what is old leave the logs of a store, once, into archives.
//!
//! Invariant: what it prints has left a log is in an archive that is durable. `--dry-run` changes nothing.

use super::store::StoreArguments;
use crate::config::{self, duration_ms};
use crate::exit::{Exit, Failure};
use crate::output::{Output, counted};
use anyhow::Result;
use gbsync_core::id::SpaceId;
use gbsync_server::{Retained, RetentionConfig, retain};
use serde_json::json;
use std::path::PathBuf;

const EXAMPLE: &str = "\
Examples:
  gbsync retention --data ./server --age 90d --dry-run
  gbsync retention --data ./server --age 90d
  gbsync retention --store postgres://gbsync@db.example.com/shops --entries 1000000 --archives /srv/archives

An entry of a log leaves when it is older than --age, or when --entries are behind it. It goes to an archive first, dated, \
one JSON object a line, compressed with zstd, with its SHA-256 beside it: nothing is only deleted. Devices that have not \
read so far load a snapshot and keep their outbox. Verdicts, numbers and rejections stay for ever.

It may run beside servers, which do the same by themselves when their configuration says so (docs/operations.md).";

/// Let what is old leave the logs, into archives
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    #[command(flatten)]
    store: StoreArguments,
    /// Of this space alone
    #[arg(long, value_name = "SPACE", value_parser = |text: &str| SpaceId::new(text))]
    space: Option<SpaceId>,
    /// How old an entry may become, like 90d
    #[arg(long, value_name = "DURATION", value_parser = duration_ms, required_unless_present = "entries")]
    age: Option<u64>,
    /// How many entries of a space are kept
    #[arg(long, value_name = "COUNT")]
    entries: Option<u64>,
    /// The folder of the archives [default: archives in the folder of the store]
    #[arg(long, value_name = "DIR")]
    archives: Option<PathBuf>,
    /// Say what would leave, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the verb.
///
/// # Errors
/// A failure when the store or the folder of the archives cannot be used, or another process is at it.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let store = arguments.store.existing()?;
    let config = RetentionConfig {
        age_ms: arguments.age,
        entries: arguments.entries,
        archives: arguments.archives.clone(),
        ..RetentionConfig::default()
    };
    let retained = retain(&store, &config, arguments.space.as_ref(), arguments.dry_run);
    let Some(retained) = retained.map_err(|error| config::server_failure(&error))? else {
        let failure = Failure::new("busy", "another process lets entries leave these logs now");
        return Err(failure.help("wait until it is done").into());
    };
    if output.is_json() {
        let spaces: Vec<_> = retained.iter().map(as_json).collect();
        output.json(&json!({ "dryRun": arguments.dry_run, "spaces": spaces }));
        return Ok(Exit::Done);
    }
    for space in &retained {
        output.line(sentence(space, arguments.dry_run));
        for archive in &space.archives {
            output.line(format_args!("  {}", archive.display()));
        }
    }
    Ok(Exit::Done)
}

fn as_json(retained: &Retained) -> serde_json::Value {
    let archives: Vec<String> = retained.archives.iter().map(|path| path.display().to_string()).collect();
    json!({
        "space": retained.space.as_str(), "from": retained.from.0, "to": retained.to.0, "head": retained.head.0,
        "tombstones": retained.tombstones, "archives": archives,
    })
}

fn sentence(retained: &Retained, is_dry_run: bool) -> String {
    let Retained { space, from, to, head, tombstones, .. } = retained;
    let left = counted(to.0 - from.0, "entry").replace("entrys", "entries");
    let kept = head.0 - to.0;
    match is_dry_run {
        true => format!("{space}: {left} would leave the log, {kept} would stay; the horizon would be {to}"),
        false => {
            let tombstones = counted(*tombstones, "tombstone");
            format!("{space}: {left} left the log, {kept} stay, {tombstones} removed; the horizon is {to}")
        }
    }
}
