//! `gbsync demo`: what the product is for, shown and measured on real processes' parts: server, HTTP, SQLite.
//!
//! Two parts. First one operation and two single changes as batches. Then the same workload over a link that breaks, once
//! through an honest queue keyed by record and once through `gbsync`, with every state of the second device and of the
//! server asked whether an operation is torn.
//!
//! Invariant: nothing printed is written here; it was counted. The verb fails if `gbsync` shows a torn operation.

mod check;
mod grouped;
mod measure;
mod naive;
mod proxy;
mod random;
mod seed;
pub mod station;
mod workload;

use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use crate::trace;
use anyhow::{Result, bail};
use measure::{Kind, Measurement, measure};
use serde_json::json;

const EXAMPLE: &str = "\
Examples:
  gbsync demo
  gbsync demo --seed 7 --operations 500
  gbsync demo --json

Uses 127.0.0.1 and a temporary folder that is removed afterwards. Exits with 1 if gbsync shows an operation in part.";

/// Show an operation staying whole, and measure it against a queue of single records over a link that breaks
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// What the workload and the cuts follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Operations of the workload
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(2..=5_000))]
    operations: u32,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    // A signal ends the work by dropping it, so that its folders are removed.
    let stop = config::stop_signal()?;
    tokio::select! {
        exit = show(arguments, output) => exit,
        () = stop => bail!("interrupted; the temporary folders are removed"),
    }
}

async fn show(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let batches = seed::run().await?;
    if !output.is_json() {
        batches.iter().for_each(|batch| output.line(trace::batch_text(batch)));
        output.note(format_args!(
            "\nnow {} operations over a link that breaks, twice; some seconds each",
            arguments.operations
        ));
    }
    let operations = workload::operations(arguments.seed, usize::try_from(arguments.operations)?);
    let naive = measure(Kind::Naive, arguments.seed, &operations).await?;
    let grouped = measure(Kind::Grouped, arguments.seed, &operations).await?;
    if output.is_json() {
        let batches: Vec<_> = batches.iter().map(trace::batch_json).collect();
        output.json(&json!({ "batches": batches, "seed": arguments.seed, "measurements": [&naive, &grouped] }));
    } else {
        output.line("");
        output.line(measurements(&[&naive, &grouped]));
        output.line("");
        output.line(LEGEND);
    }
    if grouped.is_torn() {
        let failure = Failure::new("torn", "gbsync showed an operation in part, or lost one: see the table");
        let help =
            format!("this is a defect; report it with --seed {} --operations {}", arguments.seed, arguments.operations);
        return Err(failure.help(help).into());
    }
    Ok(Exit::Done)
}

const LEGEND: &str = "\
orphan: a payment or entry without its receipt, or a receipt without all of its payments and its entry,
seen by SQL on the second device, after every change of it and every millisecond.
stock off: stock and the sales on the same device do not add up. incomplete: receipts of which the server has a part,
added up over all cuts (the most at one cut), and when everything was sent. complete: all rows arrived, everywhere.";

fn measurements(measured: &[&Measurement]) -> String {
    let headings = [
        "queue",
        "operations",
        "requests",
        "cuts",
        "observations",
        "with an orphan",
        "stock off",
        "incomplete at cuts",
        "at the end",
        "complete",
    ];
    let row = |m: &&Measurement| {
        vec![
            m.queue.to_owned(),
            m.operations.to_string(),
            m.requests.to_string(),
            m.cuts.to_string(),
            m.observations.to_string(),
            m.observations_with_an_orphan.to_string(),
            m.observations_with_wrong_stock.to_string(),
            format!("{} (most {})", m.incomplete_at_cuts, m.most_incomplete_at_a_cut),
            m.incomplete_at_the_end.to_string(),
            if m.complete_at_the_end { "yes" } else { "no" }.to_owned(),
        ]
    };
    table(&headings, &measured.iter().map(row).collect::<Vec<_>>())
}
