//! `gbsync apply`: operations of a file into a device's database, offline.
//!
//! Invariant: what is printed as applied is durable; an invalid line stops the run with everything before it stored and
//! nothing of itself. Memory is bounded by one chunk of lines ([`lines`]). Rejected: one transaction for the whole file,
//! which would bind the memory and the writer lock to the file's length and lose all of it to one bad line.

pub(super) mod lines;

use self::lines::{Chunk, Lines};
use crate::config::{DeviceFile, client_failure};
use crate::exit::{Exit, Failure};
use crate::output::{Output, counted, shell_word};
use anyhow::Result;
use gbsync_client::{LineResult, Sealed};
use gbsync_core::wire::OperationLine;
use indicatif::ProgressBar;
use serde_json::json;
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "\
Examples:
  gbsync apply till.db operations.ndjson
  produce-operations | gbsync apply till.db - --json
  gbsync apply till.db operations.ndjson --from-line 7

One JSON object a line; without a type each change is a group of one:
  {\"type\":\"receipt-create\",\"root\":\"r-1\",\"changes\":[{\"entity\":\"receipts\",\"id\":\"r-1\",\"action\":\"upsert\",\"payload\":{\"total\":\"1.00\"}}]}
Actions: upsert, patch, increment, delete. A syncGroupId makes a line idempotent. With --json a line is printed for every \
line that is durable, then a summary.";

/// Store the operations of a file as groups, offline
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The device's database
    file: PathBuf,
    /// The operations, one JSON object a line; - reads standard input
    #[arg(value_name = "OPERATIONS.ndjson")]
    operations: PathBuf,
    /// Begin with this line, to go on after one that was mended
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
}

/// What was applied so far.
#[derive(Default)]
struct Summary {
    lines: u64,
    operations: u64,
    changes: u64,
    skipped: u64,
}

/// Runs the verb.
///
/// # Errors
/// A failure that names file, line and reason; the lines before it are stored.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let device = DeviceFile::open(&arguments.file)?;
    let mut lines = Lines::open(&arguments.operations, arguments.from_line)?;
    let progress = lines.length_bytes().and_then(|bytes| output.progress_bytes(bytes));
    let mut summary = Summary::default();
    let outcome = apply_all(&device, &mut lines, &mut summary, progress.as_ref(), output);
    if let Some(progress) = progress {
        progress.finish_and_clear();
    }
    if let Err(stop) = outcome {
        output.flush();
        return Err(stop.failure(arguments, &summary).into());
    }
    summary.print(arguments, output);
    Ok(Exit::Done)
}

/// Why not every line was taken.
pub(super) enum Stop {
    /// A line is at fault.
    Line { line: u64, code: String, reason: String },
    /// The file or the database is.
    Whole(Failure),
}

fn apply_all(
    device: &DeviceFile,
    lines: &mut Lines,
    summary: &mut Summary,
    progress: Option<&ProgressBar>,
    output: &Output,
) -> Result<(), Stop> {
    loop {
        let mut chunk = lines.next_chunk();
        apply_chunk(device, &chunk, summary, output)?;
        if let Some(progress) = progress {
            progress.set_position(lines.position_bytes());
        }
        match chunk.stop.take() {
            Some(stop) => return Err(stop),
            None if chunk.operations.is_empty() => return Ok(()),
            None => {}
        }
    }
}

/// Applies a chunk in one durable transaction, then tells of each line of it.
fn apply_chunk(device: &DeviceFile, chunk: &Chunk, summary: &mut Summary, output: &Output) -> Result<(), Stop> {
    let Some(first) = chunk.numbers.first() else { return Ok(()) };
    let applied = device.client.apply(&chunk.operations).map_err(|error| {
        Stop::Whole(client_failure(&error).help(format!("when that is mended, go on with --from-line {first}")))
    })?;
    for ((line, operation), result) in chunk.numbers.iter().zip(&chunk.operations).zip(&applied.results) {
        summary.add(operation, result);
        if output.is_json() {
            output.json(&line_json(*line, result));
        }
    }
    output.flush();
    match applied.failed {
        None => Ok(()),
        Some((index, error)) => {
            let line = chunk.numbers[index];
            Err(Stop::Line { line, code: error.code().to_owned(), reason: error.to_string() })
        }
    }
}

fn line_json(line: u64, result: &LineResult) -> serde_json::Value {
    let group = |sealed: &Sealed| json!({ "syncGroupId": sealed.group_id.as_str(), "deviceSeq": sealed.device_seq.0 });
    match result {
        LineResult::Sealed(groups) => json!({ "line": line, "groups": groups.iter().map(group).collect::<Vec<_>>() }),
        LineResult::AlreadyApplied => json!({ "line": line, "groups": [], "skipped": true }),
    }
}

impl Summary {
    fn add(&mut self, operation: &OperationLine, result: &LineResult) {
        self.lines += 1;
        match result {
            LineResult::AlreadyApplied => self.skipped += 1,
            LineResult::Sealed(_) => {
                self.operations += u64::from(operation.group_type.is_some());
                self.changes += operation.edits.len() as u64;
            }
        }
    }

    fn print(&self, arguments: &Arguments, output: &Output) {
        let Self { lines, operations, changes, skipped } = self;
        if output.is_json() {
            let summary = json!({ "lines": lines, "operations": operations, "changes": changes, "skipped": skipped });
            return output.json(&summary);
        }
        let skipped =
            if *skipped > 0 { format!(", {skipped} skipped because they were applied before") } else { String::new() };
        let (lines, operations) = (counted(*lines, "line"), counted(*operations, "operation"));
        let (path, changes) = (name_of(&arguments.operations), counted(*changes, "change"));
        output.line(format_args!("{path}: {lines} applied ({operations}, {changes}{skipped})"));
    }
}

impl Stop {
    fn failure(self, arguments: &Arguments, summary: &Summary) -> Failure {
        let (line, code, reason) = match self {
            Self::Line { line, code, reason } => (line, code, reason),
            Self::Whole(failure) => {
                return failure.detail(format!("{} were applied before and are stored", counted(summary.lines, "line")));
            }
        };
        let operations = name_of(&arguments.operations);
        let failure = Failure::new(code, format!("{operations}:{line}: {reason}"));
        let failure =
            failure.detail(format!("the lines before it are stored ({} in this run), nothing of it is", summary.lines));
        let path = |path: &Path| shell_word(&path.display().to_string());
        let (file, path) = (path(&arguments.file), path(&arguments.operations));
        failure.help(format!("mend line {line}, then go on with: gbsync apply {file} {path} --from-line {line}"))
    }
}

/// How the operations are named in a message.
fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}
