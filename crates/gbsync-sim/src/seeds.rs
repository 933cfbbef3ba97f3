//! The seeds of the judges beside the worlds: which are run, one after the other, and what must have happened in them.

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// How often each thing happened.
pub type Happened = BTreeMap<&'static str, u64>;

/// A folder for the files of a run: in memory where the system has such a one, for nothing here needs a real disk.
///
/// # Errors
/// When there is no room for it.
pub fn scratch_folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.context("no folder for temporary files")
}

/// The seeds that a verb was asked for.
pub struct Seeds {
    /// The verb, to run a seed again.
    pub verb: &'static str,
    /// How many, from 1 on.
    pub count: u64,
    /// This one alone.
    pub only: Option<u64>,
}

impl Seeds {
    /// Runs them all. `judge` answers the promise that a seed breaks, if it breaks one; the answer here is whether none did.
    ///
    /// # Errors
    /// What `judge` fails with.
    pub fn run(&self, mut judge: impl FnMut(u64) -> Result<Option<String>>) -> Result<bool> {
        let started = Instant::now();
        let seeds = self.only.map_or(1..=self.count, |seed| seed..=seed);
        let bar = ProgressBar::new(self.only.map_or(self.count, |_| 1))
            .with_style(ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos}/{len} seeds")?);
        let (mut ran, mut broken) = (0, 0);
        for seed in seeds {
            if let Some(promise) = judge(seed)? {
                broken += 1;
                bar.suspend(|| {
                    println!("FAILED seed {seed}: {promise}");
                    println!("again: cargo run --release -p gbsync-sim -- {} --seed {seed}", self.verb);
                });
            }
            ran += 1;
            bar.inc(1);
        }
        bar.finish_and_clear();
        println!("{ran} seeds, {broken} failed, in {:.1} s", started.elapsed().as_secs_f64());
        Ok(broken == 0)
    }

    /// Says what happened, and whether all of it did that must, where there were at least `enough` seeds.
    pub fn saw_all(&self, happened: &Happened, must_happen: &[&str], enough: u64) -> bool {
        for (what, times) in happened {
            println!("{times:>8}  {what}");
        }
        let missing: Vec<_> = must_happen.iter().filter(|what| !happened.contains_key(**what)).collect();
        if self.only.is_some() || self.count < enough || missing.is_empty() {
            return true;
        }
        println!("FAILED: in {} seeds never: {missing:?}", self.count);
        false
    }
}
