//! Worlds on several threads, heard of in the order of their seeds.

use super::{Ran, seeded};
use crate::world::Profile;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;

/// One in so many seeds is run twice: the same seed is the same run.
const TWICE_EVERY: u64 = 100;

/// What became of a seed.
pub(super) struct Outcome {
    /// Its run.
    pub(super) ran: Ran,
    /// Whether a second run, where there was one, was the same.
    pub(super) is_repeatable: bool,
}

/// Runs every seed and calls `hear` with each outcome in the order of the seeds, until it answers something.
pub(super) fn each<T>(
    seeds: Range<u64>,
    jobs: usize,
    profile_of: impl Fn(u64) -> Profile + Sync,
    mut hear: impl FnMut(u64, Profile, Outcome) -> Option<T>,
) -> Option<T> {
    let (next, is_over) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (sender, outcomes) = channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.clone();
            let (next, is_over, profile_of) = (&next, &is_over, &profile_of);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    if sender.send((seed, outcome(seed, profile_of(seed)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut heard = seeds.start;
        for (seed, outcome) in outcomes {
            waiting.insert(seed, outcome);
            while let Some(outcome) = waiting.remove(&heard) {
                if let Some(answer) = hear(heard, profile_of(heard), outcome) {
                    is_over.store(true, Ordering::Relaxed);
                    return Some(answer);
                }
                heard += 1;
            }
        }
        None
    })
}

fn outcome(seed: u64, profile: Profile) -> Outcome {
    let mut ran = seeded(seed, profile);
    let is_repeatable = seed % TWICE_EVERY != 1 || seeded(seed, profile).trace == ran.trace;
    // Of thousands of worlds only what happened is kept.
    ran.trace = Vec::new();
    Outcome { ran, is_repeatable }
}
