//! TPC-C as a judge: its transactions, offline on several devices, and its consistency conditions in every database.
//!
//! The conditions come from a specification that knows nothing of groups, and hold only if transactions are whole. So they find
//! what a reference written for this product might forgive. docs/tpcc.md says which hold as written.

mod conditions;
mod log;
#[cfg(test)]
mod tests;
mod watched;
mod workload;
mod world;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::time::Instant;
use world::World;

/// Seeds from which on everything on the list must have happened.
const SEEDS_FOR_ALL: u64 = 15;
/// What must happen at some time, or the run shows less than it says.
const MUST_HAPPEN: &[&str] = &[
    "a New-Order was saved",
    "a New-Order was saved by SQL",
    "a New-Order was rolled back",
    "a Payment was saved",
    "a Delivery was saved",
    "a transaction was refused",
    "a refused transaction was retried",
    "a refused transaction was discarded",
    "a request was lost",
    "an answer was lost after the commit",
    "a request arrived twice",
    "an answer was cut",
    "a device was killed",
    "a device lost power",
    "the server was killed",
    "the server lost power",
    "a commit of the server was judged",
    "a state of a device was judged",
    "a cursor of a device was judged",
];

/// Judge gbsync by TPC-C's consistency conditions
#[derive(clap::Args)]
pub struct Arguments {
    /// Seeds to run
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// This seed alone, with what happened in it
    #[arg(long)]
    seed: Option<u64>,
    /// Devices of each world
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    devices: u8,
    /// Transactions begun in each world
    #[arg(long, default_value_t = 60)]
    operations: u64,
}

/// Runs the verb; `false` when a condition or a promise was broken.
///
/// # Errors
/// When a world could not be made.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    let (first, seeds) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.first_seed, arguments.seeds),
    };
    let progress =
        ProgressBar::new(seeds).with_style(ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos}/{len} seeds")?);
    let mut happened: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + seeds {
        let mut world = World::new(seed, arguments.devices.into())?;
        let ran = world.run(arguments.operations);
        let (trace, of_world) = (std::mem::take(&mut world.trace), std::mem::take(&mut world.happened));
        world.end();
        for (what, times) in of_world {
            *happened.entry(what).or_default() += times;
        }
        if arguments.seed.is_some() || ran.is_err() {
            trace.iter().for_each(|line| println!("{line}"));
        }
        if let Err(broken) = ran {
            progress.finish_and_clear();
            let Arguments { devices, operations, .. } = arguments;
            println!("FAILED seed {seed}: {broken:#}");
            println!(
                "again: cargo run --release -p gbsync-sim -- tpcc --seed {seed} --devices {devices} --operations {operations}"
            );
            return Ok(false);
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    happened.iter().for_each(|(what, times)| println!("{times:>8}  {what}"));
    let missing: Vec<_> = MUST_HAPPEN.iter().filter(|what| !happened.contains_key(**what)).collect();
    if seeds >= SEEDS_FOR_ALL && !missing.is_empty() {
        println!("FAILED: in {seeds} seeds never: {missing:?}");
        return Ok(false);
    }
    println!("{seeds} seeds, every condition held, {:.1} s", started.elapsed().as_secs_f64());
    Ok(true)
}
