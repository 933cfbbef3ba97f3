//! `gbsync digest`: one line that is equal wherever the same part of the log was applied.

use super::store::StoreArguments;
use crate::config::{self, DeviceFile};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use anyhow::Result;
use gbsync_core::digest::Digest;
use gbsync_core::id::{Seq, SpaceId};
use serde::Serialize;
use std::path::PathBuf;

const EXAMPLE: &str = "\
Examples:
  gbsync digest till.db
  gbsync digest --data ./server --space shop

The two lines are equal when the device has applied the whole log of the space.";

/// Print cursor, number of records and digest of the confirmed rows, of a device or of a server's space
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The device's database
    #[arg(conflicts_with_all = ["data", "store", "space"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArguments,
    /// The space of a server's store
    #[arg(long, value_parser = config::space)]
    space: Option<SpaceId>,
}

#[derive(Serialize)]
struct Line {
    cursor: u64,
    records: u64,
    sha256: String,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let line = match (&arguments.file, arguments.store.given(), &arguments.space) {
        (Some(file), _, _) => {
            let device = DeviceFile::open(file)?;
            let digest = device.client.digest().map_err(|error| config::client_failure(&error))?;
            line(digest.cursor, digest.records, digest.digest)
        }
        (None, Some(store), Some(space)) => {
            let digest = gbsync_server::space_digest(store, space).map_err(|error| config::server_failure(&error))?;
            line(digest.head, digest.records, digest.digest)
        }
        _ => return Err(Failure::new("usage", "give a FILE, or --space with --data or --store").exit(Exit::Usage).into()),
    };
    if output.is_json() {
        output.json(&line);
    } else {
        output.line(format_args!("cursor={} records={} sha256={}", line.cursor, line.records, line.sha256));
    }
    Ok(Exit::Done)
}

fn line(cursor: Seq, records: u64, digest: Digest) -> Line {
    Line { cursor: cursor.0, records, sha256: digest.to_string() }
}
