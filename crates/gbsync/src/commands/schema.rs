//! `gbsync schema`: a first schema from data, and what the next version of one means for devices.
//!
//! Invariant: what `infer` writes is read again before it is handed out, so that it is a schema; memory is bounded by the
//! number of entities and fields, not by the length of the file.

use super::apply::Stop;
use super::apply::lines::Lines;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, counted, shell_word};
use anyhow::{Context, Result};
use gbsync_core::schema::{Inference, Schema, SchemaChange, Severity, diff};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "\
Examples:
  gbsync schema infer operations.ndjson --out gbsync.toml
  gbsync schema diff gbsync.toml gbsync-2.toml";

const INFER_EXAMPLE: &str = "\
Examples:
  gbsync schema infer operations.ndjson --out gbsync.toml
  gbsync schema infer catalog.ndjson invoices.ndjson
  produce-operations | gbsync schema infer -

Types, references, counters and the shapes of operations are taken from what the file shows; policies, bounds and rules \
are for you to add. References are found by their names, where every value is an id.";

const DIFF_EXAMPLE: &str = "\
Examples:
  gbsync schema diff gbsync.toml gbsync-2.toml
  gbsync schema diff gbsync.toml gbsync-2.toml --fail-on-break

Each change is harmless, translated (the server understands older devices), or breaks old devices: the server may refuse \
what they send.";

/// Infer a schema from data, and compare two
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Write a first schema from operations files
    #[command(after_help = INFER_EXAMPLE)]
    Infer(Infer),
    /// Say what a new version means for devices that have the old one
    #[command(after_help = DIFF_EXAMPLE)]
    Diff(Diff),
}

#[derive(clap::Args)]
struct Infer {
    /// Operations, one JSON object a line; - reads standard input
    #[arg(value_name = "OPERATIONS.ndjson", required = true)]
    operations: Vec<PathBuf>,
    /// Write the schema to this new file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Diff {
    /// The schema that devices have
    old: PathBuf,
    /// The schema to come
    new: PathBuf,
    /// End with 1 when a change breaks old devices
    #[arg(long)]
    fail_on_break: bool,
}

/// Runs the verb.
///
/// # Errors
/// A failure that names file and line.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    match &arguments.verb {
        Verb::Infer(arguments) => infer(arguments, output),
        Verb::Diff(arguments) => compare(arguments, output),
    }
}

fn infer(arguments: &Infer, output: &Output) -> Result<Exit> {
    // Before the work: a file that is there already would otherwise be noticed after it.
    if let Some(out) = arguments.out.as_deref().filter(|out| out.exists()) {
        let failure = Failure::new("file_exists", format!("{} exists already", out.display()));
        return Err(failure.help("name another file, or remove that one").into());
    }
    let mut inference = Inference::default();
    let mut lines = 0;
    for path in &arguments.operations {
        lines += read(path, &mut inference, output)?;
    }
    let inferred = inference.finish();
    let toml = inferred.to_toml();
    Schema::parse(&toml).context("the inferred schema does not read back; this is a bug")?;
    let text = if output.is_json() { inferred.schema.to_json() + "\n" } else { toml };
    let Some(out) = &arguments.out else {
        output.line(text.trim_end());
        return Ok(Exit::Done);
    };
    let file = std::fs::File::create_new(out).and_then(|mut file| file.write_all(text.as_bytes()));
    file.map_err(|error| Failure::new("file", format!("{} cannot be written: {error}", out.display())))?;
    let entities = match inferred.schema.entities.len() {
        1 => "1 entity".to_owned(),
        count => format!("{count} entities"),
    };
    let lines = counted(lines, "line");
    let operations = counted(inferred.schema.operations.len() as u64, "operation type");
    let name = shell_word(&out.display().to_string());
    output.note(format_args!("{name}: {entities} and {operations} inferred from {lines}; gbsync check {name} sums it up"));
    Ok(Exit::Done)
}

/// Looks at every line of a file; answers how many there were.
fn read(path: &Path, inference: &mut Inference, output: &Output) -> Result<u64> {
    let mut lines = Lines::open(path, 1)?;
    let progress = lines.length_bytes().and_then(|bytes| output.progress_bytes(bytes));
    let mut count = 0;
    let stop = loop {
        let mut chunk = lines.next_chunk();
        chunk.operations.iter().for_each(|line| inference.add(line));
        count += chunk.operations.len() as u64;
        if let Some(progress) = &progress {
            progress.set_position(lines.position_bytes());
        }
        match chunk.stop.take() {
            Some(stop) => break Some(stop),
            None if chunk.operations.is_empty() => break None,
            None => {}
        }
    };
    if let Some(progress) = progress {
        progress.finish_and_clear();
    }
    match stop {
        None => Ok(count),
        Some(Stop::Whole(failure)) => Err(failure.into()),
        Some(Stop::Line { line, code, reason }) => {
            let failure = Failure::new(code, format!("{}:{line}: {reason}", path.display()));
            Err(failure.help("mend the line; nothing was written").into())
        }
    }
}

fn compare(arguments: &Diff, output: &Output) -> Result<Exit> {
    let (old, new) = (config::schema_file(&arguments.old)?, config::schema_file(&arguments.new)?);
    let changes = diff(&old, &new);
    let breaks = changes.iter().filter(|change| change.severity == Severity::BreaksOldDevices).count();
    if output.is_json() {
        let change = |change: &SchemaChange| {
            let SchemaChange { path, severity, message, fix } = change;
            json!({ "path": path, "severity": severity.as_str(), "message": message, "fix": fix })
        };
        let changes: Vec<_> = changes.iter().map(change).collect();
        output.json(&json!({ "from": old.version, "to": new.version, "changes": changes }));
    } else if changes.is_empty() {
        output.line("nothing changes");
    } else {
        changes.iter().for_each(|change| output.line(change));
        let total = counted(changes.len() as u64, "change");
        output
            .line(format_args!("\nversion {} to {}: {total}, {breaks} of them break old devices", old.version, new.version));
    }
    if arguments.fail_on_break && breaks > 0 {
        let message = format!("{} would break devices with version {}", counted(breaks as u64, "change"), old.version);
        return Err(Failure::new("breaks_old_devices", message).into());
    }
    Ok(Exit::Done)
}
