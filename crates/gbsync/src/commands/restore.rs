//! `gbsync restore`: a backup becomes a server's store again, or a store that was put back by other means is told so.

use super::store::{StoreArguments, argument};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use anyhow::Result;
use gbsync_server::{Environment, RestoredSpace, StoreLocation};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "\
Examples:
  gbsync restore /backup/shop-2026-06-03 --data ./server     # into a folder that has no store
  gbsync restore --in-place --data ./server                  # the folder, the disk or the machine was put back to a snapshot
  gbsync restore --in-place --store postgres://db/shops      # pg_restore or point-in-time recovery has been done

Every space gets a new log, which names the one it had as its ancestor. Devices see that at their next sync and bring back what \
the log lost since: nobody has to touch them. What depends on a device that never comes back waits for heal_window_ms and is then \
parked as base_lost. Restoring twice is fine. No server may run on a folder meanwhile.";

/// Restore a server's store from a backup, or mark one that was put back by other means
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The backup
    #[arg(required_unless_present = "in_place", conflicts_with = "in_place")]
    from: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArguments,
    /// The store was put back already: begin a new log in every space
    #[arg(long)]
    in_place: bool,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let location = arguments.store.location()?;
    let restored = match &arguments.from {
        Some(from) => from_backup(from, &location, output)?,
        None => {
            let location = arguments.store.existing()?;
            let marked = gbsync_server::mark_restored(&location, &Environment::system(), |_| ());
            marked.map_err(|error| config::server_failure(&error))?
        }
    };
    print(&restored, &location, output);
    Ok(Exit::Done)
}

fn from_backup(from: &Path, location: &StoreLocation, output: &Output) -> Result<Vec<RestoredSpace>> {
    let Some(folder) = location.folder() else {
        let message = "a backup of a folder cannot be restored into a PostgreSQL database";
        let help = "put the database back with PostgreSQL's own tools, then run gbsync restore --in-place --store URL";
        return Err(Failure::new("restore_into_postgres", message).help(help).exit(Exit::Usage).into());
    };
    let bar = output.progress_bytes(0);
    let told = |written: u64, bytes: u64| {
        if let Some(bar) = &bar {
            bar.set_length(bytes);
            bar.set_position(written);
        }
    };
    let restored = gbsync_server::restore(from, folder, &Environment::system(), told);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let (manifest, restored) = restored.map_err(|error| config::server_failure(&error))?;
    if !output.is_json() {
        output.line(format_args!("restored the backup of {} to {}", manifest.made_at, folder.display()));
    }
    Ok(restored)
}

fn print(restored: &[RestoredSpace], location: &StoreLocation, output: &Output) {
    if output.is_json() {
        let space = |space: &RestoredSpace| {
            json!({
                "space": space.space.as_str(), "ancestor": space.ancestor.as_str(), "upTo": space.up_to.0,
                "log": space.log.as_str(),
            })
        };
        return output.json(&json!({ "spaces": restored.iter().map(space).collect::<Vec<Value>>() }));
    }
    let spaces = match restored.len() {
        1 => "1 space begins a new log".to_owned(),
        many => format!("{many} spaces begin a new log"),
    };
    output.line(format_args!("{spaces}; devices bring back what came after\n"));
    let row = |space: &RestoredSpace| vec![space.space.to_string(), space.up_to.to_string(), space.log.to_string()];
    let rows: Vec<Vec<String>> = restored.iter().map(row).collect();
    output.line(table(&["SPACE", "UP TO", "NEW LOG"], &rows));
    output.note(format_args!("next: gbsync serve {}", argument(location)));
}
