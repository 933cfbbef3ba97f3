//! Buckets that fill by time, one a name, in bounded memory.
//!
//! Of each only the time is kept at which it will be full again (the generic cell rate algorithm of ATM). One that is full is
//! as good as none, so those make room first; when there is still none, all names without a bucket share one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Names that are told apart at a time.
const MOST_NAMES: usize = 50_000;
/// The name of all others.
const OTHERS: &str = "";
/// How often full ones make room, in milliseconds.
const SWEEP_MS: u64 = 1_000;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Buckets of one kind.
pub(super) struct Buckets {
    /// What drips in each period; 0: there is no bound.
    rate: u64,
    period: Duration,
    /// What a bucket holds.
    burst: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// When each is full again, in nanoseconds.
    full_at: BTreeMap<String, u128>,
    /// When full ones last made room, in milliseconds.
    swept_at_ms: u64,
}

impl Buckets {
    /// So much a second.
    pub(super) fn new(rate: u64, burst: u64) -> Self {
        Self { rate, period: SECOND, burst: burst.max(1), kept: Mutex::default() }
    }

    /// So much a day, of which all may be taken at once.
    pub(super) fn daily(rate: u64) -> Self {
        Self { period: DAY, ..Self::new(rate, rate) }
    }

    pub(super) fn are_off(&self) -> bool {
        self.rate == 0
    }

    fn time_of(&self, amount: u64) -> u128 {
        u128::from(amount) * self.period.as_nanos() / u128::from(self.rate.max(1))
    }

    /// Takes so much from a bucket, or says how long it takes until there is enough. What is more than a bucket holds takes all
    /// of it.
    pub(super) fn take(&self, name: String, amount: u64, now_ms: u64) -> Result<(), Duration> {
        let (now, holds) = (u128::from(now_ms) * 1_000_000, self.time_of(self.burst));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { full_at, swept_at_ms } = &mut *kept;
        let has_room = full_at.len() < MOST_NAMES || full_at.contains_key(&name);
        // Seldom: strangers without end must not make every request look through all names.
        if !has_room && swept_at_ms.abs_diff(now_ms) >= SWEEP_MS {
            full_at.retain(|_, full_at| *full_at > now);
            *swept_at_ms = now_ms;
        }
        let name = match full_at.len() < MOST_NAMES || full_at.contains_key(&name) {
            true => name,
            false => OTHERS.to_owned(),
        };
        // A clock that was put back makes nobody wait longer than an empty bucket does.
        let before = full_at.get(&name).copied().unwrap_or(0).clamp(now, now + holds);
        let after = before + self.time_of(amount.min(self.burst));
        match (after - now).checked_sub(holds).filter(|wait| *wait > 0) {
            Some(wait) => {
                full_at.insert(name, before);
                Err(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
            }
            None => {
                full_at.insert(name, after);
                Ok(())
            }
        }
    }

    /// Puts back what was taken for something that was refused elsewhere.
    pub(super) fn give_back(&self, name: &str, amount: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = kept.full_at.get_mut(name) {
            *full_at = full_at.saturating_sub(self.time_of(amount.min(self.burst)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_day_has_may_be_taken_at_once_and_comes_back_over_the_day() {
        let (buckets, day_ms) = (Buckets::daily(24), 24 * 60 * 60 * 1_000);
        assert_eq!(take(&buckets, "a", 24, day_ms), Ok(()));
        assert_eq!(take(&buckets, "a", 1, day_ms), Err(60 * 60 * 1_000));
        assert_eq!(take(&buckets, "a", 1, day_ms + 60 * 60 * 1_000), Ok(()));
        buckets.give_back("a", 3);
        assert_eq!(take(&buckets, "a", 3, day_ms + 60 * 60 * 1_000), Ok(()));
        assert_eq!(take(&buckets, "a", 24, 3 * day_ms), Ok(()));
    }

    fn take(buckets: &Buckets, name: &str, amount: u64, now_ms: u64) -> Result<(), u128> {
        buckets.take(name.into(), amount, now_ms).map_err(|wait| wait.as_millis())
    }

    #[test]
    fn a_burst_is_let_through_and_then_what_drips_in() {
        let buckets = Buckets::new(10, 5);
        for _ in 0..5 {
            assert_eq!(take(&buckets, "a", 1, 1_000), Ok(()));
        }
        assert_eq!(take(&buckets, "a", 1, 1_000), Err(100));
        assert_eq!(take(&buckets, "b", 1, 1_000), Ok(()), "another's bucket is full");
        assert_eq!(take(&buckets, "a", 1, 1_099), Err(1));
        assert_eq!(take(&buckets, "a", 1, 1_100), Ok(()));
        assert_eq!(take(&buckets, "a", 1, 1_100), Err(100));
        assert_eq!(take(&buckets, "a", 5, 60_000), Ok(()));
    }

    #[test]
    fn what_is_larger_than_a_bucket_passes_when_it_is_full_and_a_clock_may_be_put_back() {
        let buckets = Buckets::new(10, 5);
        assert_eq!(take(&buckets, "a", 1_000_000, 100_000), Ok(()));
        assert_eq!(take(&buckets, "a", 1, 100_000), Err(100));
        assert_eq!(take(&buckets, "a", 1, 10_000), Err(100));
        assert_eq!(take(&buckets, "a", 1, 10_600), Ok(()));
    }

    #[test]
    fn names_without_end_take_bounded_room_and_busy_ones_keep_theirs() {
        let buckets = Buckets::new(1, 2);
        assert_eq!(take(&buckets, "busy", 2, 0), Ok(()));
        let through = (0..MOST_NAMES * 2).filter(|n| take(&buckets, &format!("n{n}"), 2, 0).is_ok()).count();
        assert_eq!(through, MOST_NAMES, "the others share one bucket");
        assert!(take(&buckets, "busy", 2, 0).is_err());
        assert_eq!(take(&buckets, "later", 2, 10_000), Ok(()));
        assert!(buckets.kept.lock().expect("nobody panicked").full_at.len() <= MOST_NAMES + 1);
    }
}
