//! Shops of one space that is divided: what each device and each route shows is held against what its token may see.
//!
//! A judge of its own beside the worlds, because there everybody sees everything. Devices sell, move receipts to other shops
//! and become devices of other shops; requests and answers get lost. Judged after every round, by reading: no device, page or
//! stream shows a record of another shop (P9), no payment is without its receipt (P2), and at rest those who see the same hold
//! the same, which is the part of the whole that is theirs (P6).

mod till;
mod world;

use crate::seeds::{Happened, Seeds};
use anyhow::Result;

/// So many seeds show everything that must happen.
const ENOUGH: u64 = 11;

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
    let seeds = Seeds { verb: "shops", count: arguments.seeds, only: arguments.seed };
    let mut happened = Happened::default();
    let is_kept = seeds.run(|seed| Ok(one(seed, &mut happened).err().map(|broken| format!("{broken:#}"))))?;
    Ok(seeds.saw_all(&happened, world::MUST_HAPPEN, ENOUGH) && is_kept)
}

/// Runs one seed.
///
/// # Errors
/// The promise that was broken, or why the world could not go on.
pub fn one(seed: u64, happened: &mut Happened) -> Result<()> {
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
        let mut happened = Happened::default();
        for seed in 1..=3 {
            one(seed, &mut happened).unwrap_or_else(|broken| panic!("seed {seed}: {broken:#}"));
        }
        assert!(happened.contains_key("a receipt was sold"), "{happened:?}");
    }
}
