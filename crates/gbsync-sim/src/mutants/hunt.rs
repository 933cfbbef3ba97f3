//! One bug, seed after seed, until a promise's check finds it.

use crate::horizon;
use crate::power;
use crate::run;
use crate::shops;
use crate::streams;
use crate::world::Profile;
use anyhow::Result;
use clap::ValueEnum as _;
use gbsync_core::mutant::Mutant;
use std::collections::BTreeMap;

/// What is printed of a bug that nobody found.
pub(super) const ESCAPED: &str = "escaped";
/// Images of lost power that are opened for a seed.
const IMAGES: u64 = 3_000;

/// Who looks for bugs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Judge {
    /// Worlds in which everything goes wrong.
    World,
    /// The sweep of lost power.
    Power,
    /// Retention and snapshots, which the worlds do not have.
    Horizon,
    /// A divided space; in the worlds everybody sees everything.
    Shops,
    /// Devices that only listen; in the worlds nobody does.
    Streams,
}

impl Judge {
    /// Who looks for a bug.
    pub(super) fn of(mutant: Mutant) -> Self {
        match mutant {
            // What only shows at one write in thousands is looked for at every one.
            Mutant::SynchronousNormal | Mutant::CursorInOwnTransaction => Self::Power,
            Mutant::TombstoneRemovedTooEarly
            | Mutant::SnapshotFlippedUnfinished
            | Mutant::SnapshotCursorWrong
            | Mutant::ForgottenBeforeArchived => Self::Horizon,
            Mutant::ScopeFilterMissingLive | Mutant::ScopeFilterMissingLog | Mutant::LeavingRecordKept => Self::Shops,
            Mutant::NotifyLostWithoutPolling => Self::Streams,
            _ => Self::World,
        }
    }

    /// Its name, as the table and `--judge` have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Power => "power",
            Self::Horizon => "horizon",
            Self::Shops => "shops",
            Self::Streams => "streams",
        }
    }

    /// What is broken in a seed, and what happened in it where that is told.
    fn failures(self, seed: u64) -> Result<(Vec<String>, Vec<String>)> {
        let said = |ran: Result<()>| ran.err().map(|broken| format!("{broken:#}"));
        let broken = match self {
            Self::World => {
                let ran = run::seeded(seed, Profile::ALL[(seed % 3) as usize]);
                return Ok((Vec::from_iter(ran.broken), ran.trace));
            }
            Self::Power => return Ok((power::failures(seed, IMAGES)?, Vec::new())),
            Self::Horizon => horizon::failure(seed)?,
            Self::Shops => said(shops::one(seed, &mut BTreeMap::new())),
            Self::Streams => said(streams::one(seed, &mut BTreeMap::new())),
        };
        Ok((Vec::from_iter(broken), Vec::new()))
    }
}

/// Who found a bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Whose seed it was.
    pub(super) judge: Judge,
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
        let message = self.message.replace(['\n', '\t'], " ");
        format!("{}\t{}\t{}\t{message}", self.judge.name(), self.seed, self.promise)
    }

    /// Reads such a line.
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, '\t');
        let (judge, seed, promise, message) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let judge = Judge::from_str(judge, false).ok()?;
        Some(Self { judge, seed: seed.parse().ok()?, promise: promise.into(), message: message.into() })
    }
}

/// Plants a bug in this process.
pub(super) fn plant(mutant: Option<Mutant>) {
    #[cfg(feature = "mutants")]
    gbsync_core::mutant::plant(mutant);
    let _ = mutant;
}

/// Runs seeds of a judge until one finds the bug. Without a bug everything counts.
pub(super) fn hunt(judge: Judge, mutant: Option<Mutant>, seeds: u64, must_trace: bool) -> Result<Option<Found>> {
    for seed in 1..=seeds {
        let (failures, trace) = judge.failures(seed)?;
        for message in failures {
            let promise = match promise(&message) {
                Some(promise) => promise,
                None if mutant.is_none() => "-".into(),
                // Whatever else a bug does is no check of a promise.
                None => continue,
            };
            if must_trace {
                trace.iter().for_each(|line| println!("    {line}"));
            }
            return Ok(Some(Found { judge, seed, promise, message }));
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
        let found = Found { judge: Judge::World, seed: 7, promise: "P4".into(), message: "P4: gone\nfor ever".into() };
        assert_eq!(Found::read(&found.line()), Some(Found { message: "P4: gone for ever".into(), ..found }));
        assert_eq!(Found::read(ESCAPED), None);
    }
}
