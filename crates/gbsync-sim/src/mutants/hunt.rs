//! One bug, seed after seed, until a promise's check finds it.

use crate::horizon;
use crate::power;
use crate::run;
use crate::shops;
use crate::streams;
use crate::world::Profile;
use anyhow::Result;
use gbsync_core::mutant::Mutant;
use std::collections::{BTreeMap, BTreeSet};

/// What is printed of a bug that nobody found.
pub(super) const ESCAPED: &str = "escaped";
/// Images of lost power that are opened for a seed.
const IMAGES: u64 = 3_000;

/// Who found a bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// `world`, `power`, `shops`, `streams` or `horizon`.
    pub(super) judge: String,
    /// The seed that found it; the first is 1.
    pub(super) seed: u64,
    /// Such as `P4`.
    pub(super) promise: String,
    /// What its check said.
    pub(super) message: String,
}

impl Found {
    /// One line for the process that started this one.
    pub(super) fn line(&self) -> String {
        format!("{}\t{}\t{}\t{}", self.judge, self.seed, self.promise, self.message.replace(['\n', '\t'], " "))
    }

    /// Reads such a line.
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, '\t');
        let (judge, seed, promise, message) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Self { judge: judge.into(), seed: seed.parse().ok()?, promise: promise.into(), message: message.into() })
    }
}

/// Plants a bug in this process.
pub(super) fn plant(mutant: Option<Mutant>) {
    #[cfg(feature = "mutants")]
    gbsync_core::mutant::plant(mutant);
    let _ = mutant;
}

/// Runs seeds until one finds the bug.
pub(super) fn hunt(mutant: Option<Mutant>, seeds: u64, must_trace: bool) -> Result<Option<Found>> {
    // What only shows at one write in thousands is looked for at every one.
    if matches!(mutant, Some(Mutant::SynchronousNormal | Mutant::CursorInOwnTransaction)) {
        return lost_power(seeds);
    }
    if mutant.is_some_and(is_of_the_horizon) {
        return at_the_horizon(seeds);
    }
    let of_scopes = [Mutant::ScopeFilterMissingLive, Mutant::ScopeFilterMissingLog, Mutant::LeavingRecordKept];
    if mutant.is_some_and(|mutant| of_scopes.contains(&mutant)) {
        return divided(seeds);
    }
    if mutant == Some(Mutant::NotifyLostWithoutPolling) {
        return listening(seeds);
    }
    for seed in 1..=seeds {
        let ran = run::one(seed, Profile::ALL[(seed % 3) as usize], &BTreeSet::new());
        let Some(message) = ran.broken else { continue };
        match promise(&message) {
            Some(promise) => {
                if must_trace {
                    ran.trace.iter().for_each(|line| println!("    {line}"));
                }
                return Ok(Some(Found { judge: "world".into(), seed, promise, message }));
            }
            // Without a bug everything counts.
            None if mutant.is_none() => {
                return Ok(Some(Found { judge: "world".into(), seed, promise: "-".into(), message }));
            }
            // Whatever else a bug does to the world is no check of a promise.
            None => {}
        }
    }
    Ok(None)
}

/// In the worlds everybody sees everything.
fn divided(seeds: u64) -> Result<Option<Found>> {
    for seed in 1..=seeds {
        let Err(broken) = shops::one(seed, &mut BTreeMap::new()) else { continue };
        let message = format!("{broken:#}");
        if let Some(promise) = promise(&message) {
            return Ok(Some(Found { judge: "shops".into(), seed, promise, message }));
        }
    }
    Ok(None)
}

/// In the worlds nobody listens.
fn listening(seeds: u64) -> Result<Option<Found>> {
    for seed in 1..=seeds {
        let Err(broken) = streams::one(seed, &mut BTreeMap::new()) else { continue };
        let message = format!("{broken:#}");
        if let Some(promise) = promise(&message) {
            return Ok(Some(Found { judge: "streams".into(), seed, promise, message }));
        }
    }
    Ok(None)
}

/// Bugs of retention and snapshots, which the worlds do not have.
fn is_of_the_horizon(mutant: Mutant) -> bool {
    matches!(
        mutant,
        Mutant::TombstoneRemovedTooEarly
            | Mutant::SnapshotFlippedUnfinished
            | Mutant::SnapshotCursorWrong
            | Mutant::ForgottenBeforeArchived
    )
}

fn at_the_horizon(seeds: u64) -> Result<Option<Found>> {
    for seed in 1..=seeds {
        let Some(message) = horizon::failure(seed)? else { continue };
        if let Some(promise) = promise(&message) {
            return Ok(Some(Found { judge: "horizon".into(), seed, promise, message }));
        }
    }
    Ok(None)
}

fn lost_power(seeds: u64) -> Result<Option<Found>> {
    for seed in 1..=seeds {
        for message in power::failures(seed, IMAGES)? {
            if let Some(promise) = promise(&message) {
                return Ok(Some(Found { judge: "power".into(), seed, promise, message }));
            }
        }
    }
    Ok(None)
}

/// The promise that a message names first.
fn promise(message: &str) -> Option<String> {
    let words = message.split(|c: char| !c.is_ascii_alphanumeric());
    let is_promise = |word: &&str| {
        let number = word.strip_prefix('P').and_then(|number| number.parse::<u8>().ok());
        number.is_some_and(|number| (1..=11).contains(&number))
    };
    words.into_iter().find(is_promise).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_named_promise_counts() {
        assert_eq!(promise("device 1: P2: at cursor 3 the base's …").as_deref(), Some("P2"));
        assert_eq!(promise("device 1: P2 (view): 1 of 3 records").as_deref(), Some("P2"));
        assert_eq!(promise("no such table: P12, P0, Px"), None);
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let found = Found { judge: "world".into(), seed: 7, promise: "P4".into(), message: "P4: gone\nfor ever".into() };
        assert_eq!(Found::read(&found.line()), Some(Found { message: "P4: gone for ever".into(), ..found }));
        assert_eq!(Found::read(ESCAPED), None);
    }
}
