//! Shops of one space that is divided: what each device and each route shows is held against what its token may see.
//!
//! A judge of its own beside the worlds, because there everybody sees everything. Devices sell, move receipts to other shops
//! and become devices of other shops; requests and answers get lost. Judged after every round, by reading: no device, page or
//! stream shows a record of another shop (P9), no payment is without its receipt (P2), and at rest those who see the same hold
//! the same, which is the part of the whole that is theirs (P6).

mod till;
mod world;

use anyhow::Result;
use std::time::Instant;

/// Actions of a seed.
const ACTIONS: usize = 50;

/// Judge a divided space: who sees which records
#[derive(clap::Args)]
pub struct Arguments {
    /// Seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the verb; `false` when a promise was broken.
///
/// # Errors
/// When a world could not be made.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    let (first, seeds) = arguments.seed.map_or((1, arguments.seeds), |seed| (seed, 1));
    let mut happened = world::Happened::default();
    for seed in first..first + seeds {
        if let Err(broken) = one(seed, &mut happened) {
            println!("FAILED seed {seed}: {broken:#}");
            println!("again: cargo run --release -p gbsync-sim -- shops --seed {seed}");
            return Ok(false);
        }
    }
    for (what, times) in &happened {
        println!("{times:>8}  {what}");
    }
    let missing: Vec<_> = world::MUST_HAPPEN.iter().filter(|what| !happened.contains_key(**what)).collect();
    if seeds > 10 && !missing.is_empty() {
        println!("FAILED: in {seeds} seeds never: {missing:?}");
        return Ok(false);
    }
    println!("{seeds} seeds, everybody saw their part and nothing else, {:.1} s", started.elapsed().as_secs_f64());
    Ok(true)
}

/// Runs one seed.
///
/// # Errors
/// The promise that was broken, or why the world could not go on.
pub fn one(seed: u64, happened: &mut world::Happened) -> Result<()> {
    let mut world = world::World::new(seed)?;
    let ran = world.run(ACTIONS, happened);
    world.end()?;
    ran
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sees_their_part_and_nothing_else() {
        let mut happened = world::Happened::default();
        for seed in 1..=3 {
            one(seed, &mut happened).unwrap_or_else(|broken| panic!("seed {seed}: {broken:#}"));
        }
        assert!(happened.contains_key("a receipt was sold"), "{happened:?}");
    }
}
