//! Coupons, in some of the worlds with rules: records of which no two may have one code. Whoever sees that a code is taken is refused
//! at once; of two who cannot see each other, one is parked.
//!
//! Drawn from streams of its own and beside the other events of a step, so that the other worlds are what they were.

use super::{World, mix};
use crate::action;
use crate::random::Random;
use anyhow::{Result, ensure};

/// One in so many worlds has coupons.
const ONE_IN: usize = 4;
/// How many codes there are.
const CODES: usize = 12;

/// The entity.
pub(super) const ENTITY: &str = "coupons";

/// Whether a world has coupons.
pub(super) fn has_coupons(seed: u64) -> bool {
    Random::of(mix(seed, 21)).below(ONE_IN) == 0
}

impl World {
    /// Somebody gives a coupon away, in some steps.
    pub(super) fn give_coupon(&mut self, step: u64) -> Result<()> {
        let mut random = Random::of(mix(self.seed, 5_000_000 + step));
        if self.schema.is_none() || !has_coupons(self.seed) || random.below(3) > 0 {
            return Ok(());
        }
        let (place, code) = (random.below(self.devices.len()), format!("code{}", random.below(CODES)));
        self.with_failing_disks(&mut random, |world, _| world.give(place, step, &code))?;
        self.after_cuts(&mut random)
    }

    fn give(&mut self, place: usize, step: u64, code: &str) -> Result<()> {
        let token = format!("coupon{step}");
        let is_taken = self.view(place)?.of(ENTITY).any(|(_, fields)| fields["code"] == code);
        self.save(place, action::coupon(&token, code))?;
        let is_saved = self.devices[place].saved.contains(&token);
        ensure!(!is_taken || !is_saved, "P1: device {place} saved a coupon with {code}, which it shows on another one");
        if is_taken || is_saved {
            self.note(if is_taken { "a code that is taken was refused" } else { "a coupon was given away" });
        }
        Ok(())
    }
}
