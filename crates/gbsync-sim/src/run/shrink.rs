//! The fewest steps of a failing run that still break the same promise (Zeller and Hildebrandt, "Simplifying and Isolating
//! Failure-Inducing Input", 2002).

use super::{one, regressions};
use crate::world::{Profile, World};
use std::collections::BTreeSet;

/// Runs that shortening a failing schedule may take.
const RUNS: u32 = 400;

/// Prints a failure: the fewest steps that bring it about, what happens in them, and how to see it again.
pub(super) fn report(seed: u64, profile: Profile, broken: &str) {
    println!("FAILED seed {seed} {profile}: {broken}");
    let without = shrink(seed, profile, broken);
    let left = World::steps(seed) - without.len() as u64;
    let list: Vec<String> = without.iter().map(u64::to_string).collect();
    let ran = one(seed, profile, World::steps(seed), &without);
    ran.trace.iter().for_each(|line| println!("    {line}"));
    let broken = ran.broken.unwrap_or_default();
    println!("{left} steps are enough: {broken}");
    let list = if list.is_empty() { String::new() } else { format!(" --without {}", list.join(",")) };
    println!("again: cargo run --release -p gbsync-sim -- --seed {seed} --profile {profile} --trace{list}");
    println!("keep it, in crates/gbsync-sim/regressions/worlds.txt:");
    println!("{}", regressions::line(seed, profile, &without, broken.lines().next().unwrap_or_default()));
}

/// Steps that can be left out while the same promise is still broken.
fn shrink(seed: u64, profile: Profile, broken: &str) -> BTreeSet<u64> {
    let steps = World::steps(seed);
    let promise = promise(broken);
    let is_same = |without: &BTreeSet<u64>| {
        let again = one(seed, profile, steps, without).broken;
        again.is_some_and(|again| promise.is_none() || self::promise(&again) == promise)
    };
    let mut without = BTreeSet::new();
    let (mut runs, mut chunk) = (0, steps / 2);
    while chunk > 0 && runs < RUNS {
        let mut from = 0;
        while from < steps && runs < RUNS {
            let mut more = without.clone();
            more.extend(from..(from + chunk).min(steps));
            if more.len() > without.len() {
                runs += 1;
                if is_same(&more) {
                    without = more;
                }
            }
            from += chunk;
        }
        chunk /= 2;
    }
    without
}

/// The promise that a failure names: `P4` of `device 1: P4: t7 was saved and is gone`.
pub(super) fn promise(broken: &str) -> Option<&str> {
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    broken.split([' ', ':']).find(|word| word.strip_prefix('P').is_some_and(is_number))
}
