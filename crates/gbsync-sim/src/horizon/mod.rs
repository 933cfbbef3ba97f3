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

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Instant;

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
    let started = Instant::now();
    let seeds = match arguments.seed {
        Some(seed) => seed..=seed,
        None => 1..=arguments.seeds,
    };
    let bar = ProgressBar::new(arguments.seeds)
        .with_style(ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos}/{len} seeds")?);
    let (mut broken, mut ran, mut tally) = (0, 0, run::Tally::default());
    for seed in seeds {
        let course = run::Course::run(seed)?;
        if arguments.seed.is_some() {
            course.trace.iter().for_each(|line| println!("{line}"));
        }
        if let Some(message) = &course.broken {
            broken += 1;
            bar.suspend(|| println!("FAILED seed {seed}: {message}"));
        }
        (ran, tally) = (ran + 1, tally.and(&course.tally));
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{tally}");
    println!("{ran} seeds, {broken} failed, in {:.1} s", started.elapsed().as_secs_f64());
    Ok(broken == 0)
}

/// The promise that a seed breaks, if it breaks one.
///
/// # Errors
/// When the run could not be made.
pub fn failure(seed: u64) -> Result<Option<String>> {
    Ok(run::Course::run(seed)?.broken)
}
