//! Devices that only listen: the real client watches the stream of a real server, and the stream is cut at any byte, read too
//! slowly, ended with its token, given to whoever signs in next, and not woken by a commit.
//!
//! A judge of its own beside the worlds. A server beats and wakes in real time, and a world is one run byte for byte, which that
//! could not be. What is judged does not depend on when something came: no receipt without its payment (P2), nothing that was
//! committed after a token ended on a stream of that token (P9), no heart that beats on while the log is ahead (P10), and in the
//! end one digest everywhere (P6) with everything that was sold in it (P4).

mod line;
mod world;

use crate::seeds::{Happened, Seeds};
use anyhow::Result;

/// So many seeds show everything that must happen.
const ENOUGH: u64 = 20;

/// Judge devices that only listen
#[derive(clap::Args)]
pub struct Arguments {
    /// Seeds to run
    #[arg(long, default_value_t = 30)]
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
    let seeds = Seeds { verb: "streams", count: arguments.seeds, only: arguments.seed };
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
    let ran = world.run(happened);
    world.end()?;
    ran
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_hears_everything() {
        let mut happened = Happened::default();
        for seed in 1..=2 {
            one(seed, &mut happened).unwrap_or_else(|broken| panic!("seed {seed}: {broken:#}"));
        }
        assert!(happened["a stream was opened"] >= 6, "{happened:?}");
    }
}
