//! Worlds that once broke a promise, replayed.

use super::one;
use crate::world::{Profile, World};
use anyhow::{Context, Result};
use clap::ValueEnum as _;
use std::collections::BTreeSet;

const WORLDS: &str = include_str!("../../regressions/worlds.txt");

/// One of them.
struct Regression {
    seed: u64,
    /// Steps of the world. A seed may have others by now, and its failure came at the end of these.
    steps: u64,
    profile: Profile,
    without: BTreeSet<u64>,
    found: &'static str,
}

/// Replays all; `false` when one breaks a promise.
///
/// # Errors
/// When a line cannot be read.
pub(super) fn replay() -> Result<bool> {
    let all = all()?;
    let mut holds = true;
    for Regression { seed, steps, profile, without, found } in &all {
        if let Some(broken) = one(*seed, *profile, *steps, without).broken {
            println!("FAILED seed {seed} {profile}, which once found \"{found}\": {broken}");
            holds = false;
        }
    }
    println!("{} regressions replayed{}", all.len(), if holds { ", every promise held" } else { "" });
    Ok(holds)
}

/// The line that keeps a failure.
pub(super) fn line(seed: u64, profile: Profile, without: &BTreeSet<u64>, broken: &str) -> String {
    let left_out: Vec<String> = without.iter().map(u64::to_string).collect();
    let left_out = if left_out.is_empty() { "-".to_owned() } else { left_out.join(",") };
    format!("{seed} {profile} {} {left_out} {broken}", World::steps(seed))
}

fn all() -> Result<Vec<Regression>> {
    let lines = WORLDS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| parse(line).with_context(|| format!("regressions/worlds.txt: {line}"))).collect()
}

fn parse(line: &'static str) -> Result<Regression> {
    let mut words = line.splitn(5, ' ');
    let mut word = || words.next().context("a line has five parts");
    let (seed, profile, steps) = (word()?.parse()?, word()?, word()?.parse()?);
    let (without, found) = (word()?, word()?);
    let profile = Profile::from_str(profile, false).map_err(anyhow::Error::msg)?;
    let without = match without {
        "-" => BTreeSet::new(),
        left_out => left_out.split(',').map(str::parse).collect::<Result<_, _>>()?,
    };
    Ok(Regression { seed, steps, profile, without, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_that_broke_a_promise_do_not_any_more() {
        assert!(replay().expect("every line can be read"));
    }

    #[test]
    fn the_line_of_a_failure_can_be_read() {
        let without = BTreeSet::from([1, 5]);
        let line = line(7, Profile::Storm, &without, "P4: t1 was saved and is gone");
        let read = parse(line.leak()).expect("it is a line");
        assert_eq!((read.seed, read.steps), (7, World::steps(7)));
        assert_eq!((read.profile, read.without), (Profile::Storm, without));
        assert_eq!(read.found, "P4: t1 was saved and is gone");
    }
}
