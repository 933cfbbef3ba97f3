//! Devices that have reason to read the log anew: their files were put back or copied, or the server's were. Now and then the network
//! is good for a moment, so that such a device comes far with it, and dies on its way.
//!
//! Drawn from streams of its own and beside the other events of a step, so that the other worlds are what they were.

use super::sights::REBASE_POINTS;
use super::{Profile, World, mix};
use crate::disk;
use crate::random::Random;
use anyhow::Result;

/// Messages that are delivered in such a moment, at most.
const MOST_DELIVERIES: usize = 40;

impl World {
    /// A device has reason to read the log anew, and may die while it does.
    pub(super) fn has_to_read_anew(&mut self, place: usize) {
        if self.profile != Profile::Calm {
            self.anew.insert(place);
        }
    }

    /// A moment of a good network, for one of them.
    pub(super) fn read_anew(&mut self, step: u64) -> Result<()> {
        let mut random = Random::of(mix(self.seed, 2_000_000 + step));
        if self.anew.is_empty() || random.below(3) == 0 {
            return Ok(());
        }
        let Some(place) = self.anew.pop_first() else { return Ok(()) };
        let (point, _) = REBASE_POINTS[random.below(REBASE_POINTS.len())];
        self.with_failing_disks(&mut random, |world, _| world.read_until(place, point))?;
        self.after_cuts(&mut random)
    }

    fn read_until(&mut self, place: usize, point: &'static str) -> Result<()> {
        self.say(format!("  the network of device {place} is good"));
        self.devices[place].mortal.fate().armed = Some(point);
        self.devices[place].begin_round()?;
        for _ in 0..MOST_DELIVERIES {
            self.poll_all()?;
            if disk::is_cut(&self.devices[place].folder) || !self.deliver_fairly()? {
                return Ok(());
            }
        }
        Ok(())
    }
}
