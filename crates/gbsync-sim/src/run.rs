//! Seeds, one after the other, and what a failing one comes down to.

use crate::world::{Profile, World};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Steps of a seed.
const STEPS: u64 = 120;
/// Runs that shortening a failing schedule may take.
const SHRINK_RUNS: u32 = 400;

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
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened in it
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Steps left out, as a failure prints them
    #[arg(long, value_delimiter = ',', requires = "seed")]
    without: Vec<u64>,
}

/// What one run came to.
struct Ran {
    trace: Vec<String>,
    happened: BTreeMap<&'static str, u64>,
    broken: Option<String>,
}

/// Runs the verb; `false` when a promise was broken.
///
/// # Errors
/// When a world could not be made.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    let profiles = [Profile::Calm, Profile::Rough, Profile::Storm];
    if let Some(seed) = arguments.seed {
        let profile = arguments.profile.unwrap_or(Profile::Storm);
        let ran = one(seed, profile, &arguments.without.iter().copied().collect())?;
        if arguments.trace {
            ran.trace.iter().for_each(|line| println!("{line}"));
        }
        println!("seed {seed} {profile:?}: {}", ran.broken.as_deref().unwrap_or("every promise holds"));
        return Ok(ran.broken.is_none());
    }
    let progress = ProgressBar::new(arguments.seeds)
        .with_style(ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos}/{len} seeds {msg}")?);
    let mut happened: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in arguments.first_seed..arguments.first_seed + arguments.seeds {
        let profile = arguments.profile.unwrap_or(profiles[usize::try_from(seed % 3)?]);
        let ran = one(seed, profile, &BTreeSet::new())?;
        for (what, times) in &ran.happened {
            *happened.entry(what).or_default() += times;
        }
        if let Some(broken) = &ran.broken {
            progress.finish_and_clear();
            return report(seed, profile, broken);
        }
        // One in a hundred is run twice: the same seed is the same run.
        if seed % 100 == 1 && one(seed, profile, &BTreeSet::new())?.trace != ran.trace {
            progress.finish_and_clear();
            println!("FAILED seed {seed} {profile:?}: two runs of it differ");
            return Ok(false);
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    for (what, times) in &happened {
        println!("{times:>8}  {what}");
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = arguments.seeds as f64 / seconds;
    println!("{} seeds, every promise held, {seconds:.1} s, {rate:.1} seeds/s", arguments.seeds);
    Ok(true)
}

fn report(seed: u64, profile: Profile, broken: &str) -> Result<bool> {
    println!("FAILED seed {seed} {profile:?}: {broken}");
    let without = shrink(seed, profile, broken)?;
    let left = STEPS - without.len() as u64;
    let list: Vec<String> = without.iter().map(u64::to_string).collect();
    let ran = one(seed, profile, &without)?;
    ran.trace.iter().for_each(|line| println!("    {line}"));
    println!("{left} steps are enough: {}", ran.broken.unwrap_or_default());
    let word = format!("{profile:?}").to_lowercase();
    println!(
        "again: cargo run --release -p gbsync-sim -- --seed {seed} --profile {word} --trace --without {}",
        list.join(",")
    );
    Ok(false)
}

/// One world, with some steps left out.
fn one(seed: u64, profile: Profile, without: &BTreeSet<u64>) -> Result<Ran> {
    let mut world = World::new(seed, profile)?;
    let mut broken = None;
    for step in (0..STEPS).filter(|step| !without.contains(step)) {
        if let Err(error) = world.step(step) {
            broken = Some(format!("{error:#}"));
            break;
        }
    }
    if broken.is_none() {
        broken = world.rest().err().map(|error| format!("{error:#}"));
    }
    let ran = Ran { trace: world.trace.clone(), happened: world.happened.clone(), broken };
    world.end();
    Ok(ran)
}

/// Steps that can be left out while the same promise is still broken (Zeller and Hildebrandt, "Simplifying and Isolating
/// Failure-Inducing Input", 2002).
fn shrink(seed: u64, profile: Profile, broken: &str) -> Result<BTreeSet<u64>> {
    let promise = broken.split("P").nth(1).and_then(|rest| rest.split([':', ' ']).next()).map(str::to_owned);
    let is_same = |without: &BTreeSet<u64>| -> Result<bool> {
        let again = one(seed, profile, without)?.broken;
        Ok(again.is_some_and(|again| promise.as_ref().is_none_or(|promise| again.contains(&format!("P{promise}")))))
    };
    let mut without = BTreeSet::new();
    let mut runs = 0;
    let mut chunk = STEPS / 2;
    while chunk > 0 && runs < SHRINK_RUNS {
        let mut from = 0;
        while from < STEPS && runs < SHRINK_RUNS {
            let mut more = without.clone();
            more.extend(from..(from + chunk).min(STEPS));
            if more.len() > without.len() {
                runs += 1;
                if is_same(&more)? {
                    without = more;
                }
            }
            from += chunk;
        }
        chunk /= 2;
    }
    Ok(without)
}
