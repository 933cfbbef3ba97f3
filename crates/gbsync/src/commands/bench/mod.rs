//! `gbsync bench`: every figure of speed and memory beside its raw baseline, measured in the same run.
//!
//! Invariant: ours and raw are measured in turns, on the same rows and the same disk, and the middle of several rounds counts;
//! so a busy machine slows both. Rejected: criterion, which measures functions, where these are processes, disks and networks.

mod devices;
mod live;
mod local;
mod memory;
mod planner;
mod postgres;
mod processor;
mod pull;
mod push;
mod pushes;
mod raw;
mod report;
mod rows;
mod rules;
mod snapshot;
mod typed;

use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use report::Figure;
use serde_json::json;
use std::path::PathBuf;
use tempfile::TempDir;

const EXAMPLE: &str = "\
Examples:
  gbsync bench
  gbsync bench --only push --json
  gbsync bench --folder /mnt/disk            # measures that disk

Uses 127.0.0.1 and temporary folders that are removed afterwards. Exits with 1 if a figure misses its bar.";

/// Measure speed and memory, each figure beside plain SQLite in the same run
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// Measure this part only; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<Part>,
    /// How many listen to the log; raises the soft limit of open files where it has to
    #[arg(long, value_name = "N", default_value_t = FULL.listeners)]
    listeners: usize,
    /// Small sizes and no bars: shows that everything runs
    #[arg(long)]
    quick: bool,
    /// Exit with 0 also when a figure misses its bar
    #[arg(long)]
    no_fail: bool,
    /// Where the databases are made; the system's temporary folder when absent. In memory, a disk costs nothing
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Groups into batches
    Planner,
    /// Operations on a device
    Local,
    /// One device pushes
    Push,
    /// Sixteen devices push at once
    Devices,
    /// A second device pulls, and watches
    Pull,
    /// Deciding with the rules of a schema
    Rules,
    /// Typed tables: saving, reading, pulling
    Typed,
    /// Thousands of listeners to the log
    Live,
    /// The same, of a server on PostgreSQL
    LivePostgres,
    /// Sixteen devices push to PostgreSQL
    Postgres,
    /// A snapshot into a new device
    Snapshot,
    /// Peak memory while a long outbox drains
    Memory,
}

/// How much is measured.
struct Sizes {
    rounds: usize,
    plan_changes: u64,
    scan_changes: u64,
    local_full: u64,
    local_normal: u64,
    push_sales: u64,
    sales_a_device: u64,
    held_records: u64,
    decided_groups: u64,
    postgres_pushes: u64,
    outbox_groups: u64,
    snapshot_records: u64,
    listeners: usize,
    push_seconds: f64,
}

const FULL: Sizes = Sizes {
    rounds: 5,
    plan_changes: 1_000_000,
    scan_changes: 30_000,
    local_full: 400,
    local_normal: 2_000,
    push_sales: 2_000,
    sales_a_device: 500,
    held_records: 1_000_000,
    decided_groups: 100_000,
    postgres_pushes: 150,
    outbox_groups: 100_000,
    snapshot_records: 1_000_000,
    listeners: 2_000,
    push_seconds: 10.0,
};

const QUICK: Sizes = Sizes {
    rounds: 1,
    plan_changes: 10_000,
    scan_changes: 1_500,
    local_full: 20,
    local_normal: 20,
    push_sales: 40,
    sales_a_device: 10,
    held_records: 500,
    decided_groups: 50,
    postgres_pushes: 3,
    outbox_groups: 400,
    snapshot_records: 5_000,
    listeners: 20,
    push_seconds: 0.5,
};

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    // A signal ends the work by dropping it, so that its folders are removed.
    let stop = config::stop_signal()?;
    tokio::select! {
        exit = measure(arguments, output) => exit,
        () = stop => bail!("interrupted; the temporary folders are removed"),
    }
}

async fn measure(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let sizes = if arguments.quick { QUICK } else { Sizes { listeners: arguments.listeners.max(1), ..FULL } };
    let folders = Folders(arguments.folder.clone());
    let (mut figures, mut left_out): (Vec<Figure>, Vec<String>) = (Vec::new(), Vec::new());
    for part in Part::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(part) {
            continue;
        }
        output.note(format_args!(
            "measuring: {}",
            part.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned())
        ));
        figures.extend(match part {
            Part::Planner => planner::measure(&sizes),
            Part::Local => local::measure(&sizes, &folders)?,
            Part::Push => push::measure(&sizes, &folders).await?,
            Part::Devices => devices::measure(&sizes, &folders).await?,
            Part::Pull => pull::measure(&sizes, &folders).await?,
            Part::Rules => rules::measure(&sizes)?,
            Part::Typed => typed::measure(&sizes, &folders).await?,
            Part::Live => live::measure(&sizes, &folders, output).await?,
            Part::LivePostgres => {
                let measured = live::measure_postgres(&sizes, output).await;
                unless_not_installed("live-postgres", measured, arguments, &mut left_out)?
            }
            Part::Postgres => unless_not_installed("postgres", postgres::measure(&sizes).await, arguments, &mut left_out)?,
            Part::Snapshot => snapshot::measure(&sizes, &folders).await?,
            Part::Memory => memory::measure(&sizes, &folders).await?,
        });
    }
    if output.is_json() {
        let figures: Vec<_> = figures.iter().map(Figure::json).collect();
        output.json(&json!({ "quick": arguments.quick, "figures": figures, "leftOut": left_out }));
    } else {
        output.line(report::text(&figures));
        for part in &left_out {
            output.line(format_args!("NOT MEASURED: {part}"));
        }
    }
    let missed = figures.iter().filter(|figure| figure.is_met() == Some(false)).count();
    if missed == 0 || arguments.quick || arguments.no_fail {
        return Ok(Exit::Done);
    }
    let failure = Failure::new("bar_missed", format!("{missed} figures miss their bar: see the table"));
    Err(failure.help("run it again on a machine that does nothing else; --no-fail only reports").into())
}

/// What was measured on PostgreSQL; nothing, with a word, where there is none on this machine. Who asks for it by name wants
/// figures; who asks for everything wants the rest.
fn unless_not_installed(
    part: &str,
    measured: Result<Vec<Figure>>,
    arguments: &Arguments,
    left_out: &mut Vec<String>,
) -> Result<Vec<Figure>> {
    match measured {
        Err(error) if arguments.only.is_empty() && postgres::is_not_installed(&error) => {
            left_out.push(format!("{part}: {error}"));
            Ok(Vec::new())
        }
        measured => measured,
    }
}

/// Where the databases of a round are made.
struct Folders(Option<PathBuf>);

impl Folders {
    /// A new folder, which is removed when it is dropped.
    fn create(&self) -> Result<TempDir> {
        let made = match &self.0 {
            Some(parent) => tempfile::tempdir_in(parent),
            None => tempfile::tempdir(),
        };
        made.context("no folder for temporary files; name one with --folder")
    }
}
