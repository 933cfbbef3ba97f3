//! Seeds on all cores, and what a failing one comes down to.
//!
//! A world is one run of one thread of steps; worlds share nothing. What is printed depends on the seeds alone, in their order,
//! and not on how many worlds ran at a time.

mod pool;
mod regressions;
mod shrink;

use crate::world::{Profile, World, sights};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use pool::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Which worlds to run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seeds to run
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// How hard the worlds are; all three in turn when absent
    #[arg(long)]
    profile: Option<Profile>,
    /// Worlds at a time; as many as there are cores when absent
    #[arg(long)]
    jobs: Option<usize>,
    /// Replay the worlds that once broke a promise, and nothing else
    #[arg(long)]
    regressions: bool,
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Its steps, where they are to be others than the seed has
    #[arg(long, requires = "seed")]
    steps: Option<u64>,
    /// Print what happened in it
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Steps left out, as a failure prints them
    #[arg(long, value_delimiter = ',', requires = "seed")]
    without: Vec<u64>,
}

/// What one run came to.
pub struct Ran {
    /// What happened, a line a step.
    pub trace: Vec<String>,
    /// How often each thing happened.
    pub happened: BTreeMap<&'static str, u64>,
    /// The promise that was broken, and how.
    pub broken: Option<String>,
}

/// How often each thing happened, in the worlds of each profile, and how many there were of them.
#[derive(Default)]
struct Tally {
    worlds: BTreeMap<Profile, u64>,
    happened: BTreeMap<(Profile, &'static str), u64>,
}

/// Runs the verb; `false` when a promise was broken.
///
/// # Errors
/// When the terminal cannot be written to.
pub fn run(arguments: &Arguments) -> Result<bool> {
    match arguments.seed {
        _ if arguments.regressions => regressions::replay(),
        Some(seed) => Ok(run_one(seed, arguments)),
        None => run_many(arguments),
    }
}

fn run_one(seed: u64, arguments: &Arguments) -> bool {
    let profile = arguments.profile.unwrap_or(Profile::Storm);
    let steps = arguments.steps.unwrap_or_else(|| World::steps(seed));
    let ran = one(seed, profile, steps, &arguments.without.iter().copied().collect());
    if arguments.trace {
        ran.trace.iter().for_each(|line| println!("{line}"));
    }
    println!("seed {seed} {profile}: {}", ran.broken.as_deref().unwrap_or("every promise holds"));
    ran.broken.is_none()
}

fn run_many(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let progress = ProgressBar::new(arguments.seeds)
        .with_style(ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos}/{len} seeds {msg}")?);
    let seeds = arguments.first_seed..arguments.first_seed + arguments.seeds;
    let profile_of = |seed: u64| arguments.profile.unwrap_or(Profile::ALL[(seed % 3) as usize]);
    let mut tally = Tally::default();
    let failed = pool::each(seeds, jobs, profile_of, |seed, profile, outcome| {
        progress.inc(1);
        *tally.worlds.entry(profile).or_default() += 1;
        for (what, times) in &outcome.ran.happened {
            *tally.happened.entry((profile, what)).or_default() += times;
        }
        match outcome {
            Outcome { ran: Ran { broken: Some(broken), .. }, .. } => Some((seed, profile, broken)),
            Outcome { is_repeatable: false, .. } => Some((seed, profile, "two runs of it differ".into())),
            _ => None,
        }
    });
    progress.finish_and_clear();
    if let Some((seed, profile, broken)) = failed {
        shrink::report(seed, profile, &broken);
        return Ok(false);
    }
    tally.print();
    let missing = sights::missing(&tally.worlds, &tally.happened);
    missing.iter().for_each(|what| println!("FAILED: it never happened: {what}"));
    if !missing.is_empty() {
        return Ok(false);
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = arguments.seeds as f64 / seconds;
    println!("{} seeds, every promise held, {seconds:.1} s, {rate:.1} seeds/s with {jobs} at a time", arguments.seeds);
    if let Some(busy_s) = busy_s() {
        println!("{:.1} seeds for each second of a core", arguments.seeds as f64 / busy_s);
    }
    Ok(true)
}

/// For how many seconds a core worked for this process; `None` where the system does not tell.
fn busy_s() -> Option<f64> {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let numbers: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: f64 = numbers.get(11)?.parse::<f64>().ok()? + numbers.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_S)
}

impl Tally {
    fn print(&self) {
        let mut all: BTreeMap<&str, u64> = BTreeMap::new();
        for ((_, what), times) in &self.happened {
            *all.entry(what).or_default() += times;
        }
        for (what, times) in all {
            println!("{times:>8}  {what}");
        }
    }
}

/// The whole world of a seed.
pub fn seeded(seed: u64, profile: Profile) -> Ran {
    one(seed, profile, World::steps(seed), &BTreeSet::new())
}

/// One world of so many steps, with some left out. The same arguments give the same run, to the letter of its trace.
fn one(seed: u64, profile: Profile, steps: u64, without: &BTreeSet<u64>) -> Ran {
    let mut trace = Vec::new();
    let mut happened = BTreeMap::new();
    let ran = catch_unwind(AssertUnwindSafe(|| whole(seed, profile, steps, without, &mut trace, &mut happened)));
    let broken = match ran {
        Ok(ran) => ran.err().map(|error| format!("{error:#}")),
        Err(_) => Some("the engine panicked".into()),
    };
    Ran { trace, happened, broken }
}

fn whole(
    seed: u64,
    profile: Profile,
    steps: u64,
    without: &BTreeSet<u64>,
    trace: &mut Vec<String>,
    happened: &mut BTreeMap<&'static str, u64>,
) -> Result<()> {
    let mut world = World::new(seed, profile)?;
    let steps = (0..steps).filter(|step| !without.contains(step));
    let ran = steps.into_iter().try_for_each(|step| world.step(step)).and_then(|()| world.rest());
    *trace = std::mem::take(&mut world.trace);
    *happened = std::mem::take(&mut world.happened);
    world.end();
    ran
}
