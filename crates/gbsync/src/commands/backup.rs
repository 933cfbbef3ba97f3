//! `gbsync backup`: one committed state of a server's store, while the server runs.

use super::store::StoreArguments;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, counted, table};
use anyhow::Result;
use gbsync_server::{Environment, Manifest};
use std::path::PathBuf;

const EXAMPLE: &str = "\
Examples:
  gbsync backup --data ./server /backup/shop-2026-06-03
  gbsync backup --data ./server /backup/shop-$(date +%F) --json

The server may run meanwhile. The backup is a folder with gbsync.db and manifest.json; it has its name only when everything in \
it was read again and is on the disk. Copy it to another machine; `gbsync restore` takes it. A PostgreSQL database is backed up \
by its own tools: docs/operations.md says how.";

/// Back up a server's store, while the server runs
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    #[command(flatten)]
    store: StoreArguments,
    /// The folder to make; nothing may have this name yet
    to: PathBuf,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let location = arguments.store.existing()?;
    let Some(folder) = location.folder() else { return Err(of_postgres().into()) };
    let bar = output.progress_bytes(0);
    let shown = bar.clone();
    let told = move |written: u64, bytes: u64| {
        if let Some(bar) = &shown {
            bar.set_length(bytes);
            bar.set_position(written.min(bytes));
        }
    };
    let made = gbsync_server::backup(folder, &arguments.to, &Environment::system(), told);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let manifest = made.map_err(|error| config::server_failure(&error))?;
    print(&manifest, arguments, output);
    Ok(Exit::Done)
}

fn of_postgres() -> Failure {
    let message = "a PostgreSQL database is backed up by PostgreSQL's own tools, which can also go back to any moment";
    let help = "use pg_dump or continuous archiving, and after putting one back run gbsync restore --in-place --store URL before \
                any server starts (docs/operations.md)";
    Failure::new("backup_of_postgres", message).help(help).exit(Exit::Usage)
}

fn print(manifest: &Manifest, arguments: &Arguments, output: &Output) {
    if output.is_json() {
        return output.json(manifest);
    }
    let size = format!("{:.1} MiB", manifest.bytes as f64 / (1024.0 * 1024.0));
    let spaces = counted(manifest.spaces.len() as u64, "space");
    output.line(format_args!("backed up to {} ({spaces}, {size}, {})", arguments.to.display(), manifest.made_at));
    let row = |space: &gbsync_server::SpaceInBackup| {
        vec![space.space.clone(), space.head.to_string(), space.records.to_string(), space.digest.clone()]
    };
    let rows: Vec<Vec<String>> = manifest.spaces.iter().map(row).collect();
    output.line(format_args!("\n{}", table(&["SPACE", "HEAD", "RECORDS", "DIGEST"], &rows)));
}
