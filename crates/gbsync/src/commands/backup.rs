//! `gbsync backup`: one committed state of a server's store, while the server runs.

use super::store::StoreArguments;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, counted, table};
use anyhow::{Context, Result};
use gbsync_server::{Environment, Manifest};
use serde::Serialize;
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "\
Examples:
  gbsync backup --data ./server /backup/shop-2026-06-03
  gbsync backup --data ./server /backup/shop-$(date +%F) --json

The server may run meanwhile. The backup is a folder with gbsync.db and manifest.json; it has its name only when everything in \
it was read again and is on the disk. Copy it to another machine; `gbsync restore` takes it. Archives \
of entries that left the logs are not in it: it says where they are. A PostgreSQL database is backed up \
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
    let left_out = archives(&folder.join("archives")).context("the archives")?;
    print(&manifest, left_out.as_ref(), arguments, output);
    Ok(Exit::Done)
}

/// What is told as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    #[serde(skip_serializing_if = "Option::is_none")]
    archives_not_in_backup: Option<&'a Archives>,
}

/// Archives of logs, which no backup holds.
#[derive(Serialize)]
struct Archives {
    folder: PathBuf,
    files: u64,
    bytes: u64,
}

/// The archives beside a store, if there are any.
fn archives(folder: &Path) -> std::io::Result<Option<Archives>> {
    let mut found = Archives { folder: folder.into(), files: 0, bytes: 0 };
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "zst") {
                found.files += 1;
                found.bytes += entry.metadata()?.len();
            }
        }
    }
    Ok((found.files > 0).then_some(found))
}

fn of_postgres() -> Failure {
    let message = "a PostgreSQL database is backed up by PostgreSQL's own tools, which can also go back to any moment";
    let help = "use pg_dump or continuous archiving, and after putting one back run gbsync restore --in-place --store URL before \
                any server starts (docs/operations.md)";
    Failure::new("backup_of_postgres", message).help(help).exit(Exit::Usage)
}

fn print(manifest: &Manifest, left_out: Option<&Archives>, arguments: &Arguments, output: &Output) {
    if output.is_json() {
        return output.json(&Told { manifest, archives_not_in_backup: left_out });
    }
    let size = mebibytes(manifest.bytes);
    let spaces = counted(manifest.spaces.len() as u64, "space");
    output.line(format_args!("backed up to {} ({spaces}, {size}, {})", arguments.to.display(), manifest.made_at));
    let row = |space: &gbsync_server::SpaceInBackup| {
        vec![space.space.clone(), space.head.to_string(), space.records.to_string(), space.digest.clone()]
    };
    let rows: Vec<Vec<String>> = manifest.spaces.iter().map(row).collect();
    output.line(format_args!("\n{}", table(&["SPACE", "HEAD", "RECORDS", "DIGEST"], &rows)));
    if let Some(Archives { folder, files, bytes }) = left_out {
        output.note(format_args!(
            "{} ({}) of entries that left the logs are in {} and not in the backup: copy them as well",
            counted(*files, "archive"),
            mebibytes(*bytes),
            folder.display()
        ));
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}
