//! More that goes wrong: a device is closed and opened again, a request arrives once more when its sender is long elsewhere, or cut off;
//! a disk is full for a while or cannot be read; the server's clock is wrong.
//!
//! Drawn from a stream of its own and beside the other events of a step, so that the other worlds are what they were.

use super::faults::LONGEST_DELAY_MS;
use super::{Profile, World, mix};
use crate::disk;
use crate::random::Random;
use anyhow::{Result, ensure};

/// Writes that find a disk full, at most.
const MOST_FULL: usize = 60;
/// Ten years.
const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;

impl World {
    /// What goes wrong in a step beside its event.
    pub(super) fn mishap(&mut self, step: u64) -> Result<()> {
        let mut random = Random::of(mix(self.seed, 4_000_000 + step));
        let drawn = random.below(128);
        self.with_failing_disks(&mut random, |world, random| world.go_wrong(drawn, random))?;
        self.after_cuts(&mut random)
    }

    fn go_wrong(&mut self, drawn: usize, random: &mut Random) -> Result<()> {
        let place = random.below(self.devices.len());
        match (drawn, self.profile) {
            (_, Profile::Calm) => Ok(()),
            (0, _) => self.restart(place),
            (3..=7, _) => {
                // It arrives whatever its sender did meanwhile.
                let until_ms = self.time.now_ms() + 1 + random.below(LONGEST_DELAY_MS) as u64;
                self.network.double_late(random, until_ms);
                Ok(())
            }
            (8..=12 | 40..=49, _) => self.cut_request(random),
            (_, Profile::Rough) => Ok(()),
            (13 | 14, _) => {
                disk::fill(&self.devices[place].folder, 2 + random.below(MOST_FULL) as u64);
                self.say(format!("  the disk of device {place} is full"));
                Ok(())
            }
            (15 | 16, _) => {
                disk::fill(&self.server()?.folder, 2 + random.below(MOST_FULL) as u64);
                self.say("  the disk of the server is full".into());
                Ok(())
            }
            (17 | 18, _) => {
                disk::fail_read(&self.devices[place].folder);
                self.say(format!("  the disk of device {place} cannot be read"));
                Ok(())
            }
            (19 | 20, _) => {
                disk::fail_read(&self.server()?.folder);
                self.say("  the disk of the server cannot be read".into());
                Ok(())
            }
            (21..=24, _) => self.turn_the_servers_clock(random),
            _ => Ok(()),
        }
    }

    fn restart(&mut self, place: usize) -> Result<()> {
        self.say(format!("  device {place} is closed and opened"));
        if self.devices[place].restart()? {
            self.note("a device was closed and opened");
        }
        Ok(())
    }

    /// A front of the server passes on the beginning of a request for all of it.
    fn cut_request(&mut self, random: &mut Random) -> Result<()> {
        let Some(mut message) = self.network.draw_upload(random) else { return Ok(()) };
        let whole = message.request.body.take().unwrap_or_default();
        let kept = random.below(whole.len());
        message.request.body = Some(whole[..kept].to_vec());
        self.say(format!("  of {} only {kept} bytes arrive", message.request.path));
        if !self.answer(&mut message)? {
            message.settle(Err("the connection was reset"));
            return Ok(());
        }
        let status = message.answer.as_ref().map_or(503, |answer| answer.status);
        ensure!(status >= 400, "P1: {kept} bytes of {} were answered {status}", message.request.path);
        self.note("a request was cut");
        // Whoever sent all of it is told that it is malformed.
        message.request.body = Some(whole);
        self.network.put(message);
        Ok(())
    }

    /// Where people share devices or the server is put back, the reference goes by its clock: there it is right.
    fn turn_the_servers_clock(&mut self, random: &mut Random) -> Result<()> {
        if self.staff.is_some() || self.has_lineage() {
            return Ok(());
        }
        let party = &self.server()?.party;
        let what = match random.below(5) {
            0 => {
                party.set_off(TEN_YEARS_MS);
                "the server's clock went ten years ahead"
            }
            1 => {
                party.set_off(-TEN_YEARS_MS);
                "the server's clock went ten years back"
            }
            2 => {
                party.freeze();
                "the server's clock stood still"
            }
            3 => {
                party.set_off(0);
                "the server's clock was set right"
            }
            _ => {
                party.set_off(-3_600_000);
                "the server's clock was off"
            }
        };
        self.say(format!("  {what}"));
        self.note(what);
        Ok(())
    }
}
