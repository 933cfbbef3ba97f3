//! Retention past cursors, and devices that load snapshots: seeded runs of a real server, devices with real files and a link that
//! cuts downloads and drops requests, in which retention and devices are killed at their fault points.
//!
//! What is held: every entry that was ever in the log is in the log or in an archive (P4); a deletion that was acknowledged stays one
//! (P4); a device at a cursor has the rows that the server had there (P6); whoever has a network comes to rest (P10), and every group
//! ever sealed is kept and decided (P11).
//!
//! Rejected alternative: an action of the worlds. Their reference holds every entry of the log, which retention takes away.

mod check;
mod link;
mod run;

use crate::seeds::{Happened, Seeds};
use anyhow::Result;

/// So many seeds show everything that must happen.
const ENOUGH: u64 = 10;

/// Let logs be retained past cursors, and devices load snapshots, while links break and processes die
#[derive(clap::Args)]
pub struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// This seed alone, with what happened
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the verb; `false` when a promise was broken.
///
/// # Errors
/// When a run could not be made.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let seeds = Seeds { verb: "horizon", count: arguments.seeds, only: arguments.seed };
    let mut happened = Happened::default();
    let is_kept = seeds.run(|seed| {
        let course = run::Course::run(seed)?;
        if arguments.seed.is_some() {
            course.trace.iter().for_each(|line| println!("{line}"));
        }
        course.happened.iter().for_each(|(what, times)| *happened.entry(what).or_default() += times);
        Ok(course.broken)
    })?;
    Ok(seeds.saw_all(&happened, run::MUST_HAPPEN, ENOUGH) && is_kept)
}

/// The promise that a seed breaks, if it breaks one.
///
/// # Errors
/// When the run could not be made.
pub fn failure(seed: u64) -> Result<Option<String>> {
    Ok(run::Course::run(seed)?.broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_loses_anything_that_leaves_the_log() {
        for seed in 1..=2 {
            let broken = failure(seed).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
            assert_eq!(broken, None, "seed {seed}");
        }
    }
}
