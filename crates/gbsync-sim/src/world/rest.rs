//! The end of a run: everything is healed, and within a bounded time every group must be decided or parked with a reason.

use super::event::Event;
use super::staff::PEOPLE;
use super::{SPACES, World, mix};
use crate::disk;
use crate::invariant;
use crate::random::Random;
use anyhow::{Result, bail};

/// Rounds of every device in which a healed world must come to rest.
const ROUNDS: u64 = 12;
/// How much time passes between them, in milliseconds.
const PAUSE_MS: u64 = 2 * 60 * 60 * 1000;

/// What a device shows of what it went through.
const TRACES: &[(&str, &str)] = &[
    ("a group was parked: conflict", "SELECT count(*) FROM gbsync_outbox WHERE code = 'conflict'"),
    ("a group was parked: bound_violation", "SELECT count(*) FROM gbsync_outbox WHERE code = 'bound_violation'"),
    ("a group was parked: duplicate_value", "SELECT count(*) FROM gbsync_outbox WHERE code = 'duplicate_value'"),
    ("a group was parked: dependency_rejected", "SELECT count(*) FROM gbsync_outbox WHERE code = 'dependency_rejected'"),
    ("a group was parked: base_lost", "SELECT count(*) FROM gbsync_outbox WHERE code = 'base_lost'"),
    ("a lost group was offered again", "SELECT count(*) FROM gbsync_outbox WHERE accepted_as IS NOT NULL"),
    ("a group was parked: not_permitted", "SELECT count(*) FROM gbsync_outbox WHERE code = 'not_permitted'"),
    ("the log was read anew", "SELECT generation FROM gbsync_state"),
    ("a soft rule was flagged", "SELECT count(*) FROM gbsync_flag"),
];

impl World {
    /// Heals everything and lets every device sync until nothing is left to do.
    ///
    /// # Errors
    /// When the world does not come to rest, or rests on something broken.
    pub fn rest(&mut self) -> Result<()> {
        self.say("rest".into());
        self.after_cuts(&mut Random::of(mix(self.seed, 3)))?;
        let server = self.server()?;
        disk::heal(&server.folder);
        server.mortal.fate().armed = None;
        server.party.set_off(0);
        for device in &mut self.devices {
            disk::heal(&device.folder);
            device.mortal.fate().armed = None;
            device.party.set_off(0);
        }
        while self.deliver_fairly()? {}
        self.end_rounds()?;
        self.upgrade_server_at_last(&mut Random::of(mix(self.seed, 6)))?;
        self.devices.iter_mut().for_each(|device| device.staged = None);
        for round in 0..ROUNDS {
            self.time.pass(PAUSE_MS);
            for place in 0..self.devices.len() {
                self.sync_at_rest(place)?;
            }
            self.check()?;
            if round == 0 {
                self.tidy_up()?;
            } else if self.is_resting()? {
                break;
            }
        }
        for device in &self.devices {
            invariant::p10_live(device, &self.models[device.space])?;
        }
        for (space, name) in SPACES.iter().enumerate().take(self.models.len()) {
            let devices = self.devices.iter().filter(|device| device.space == space);
            invariant::p6_convergent(self.server()?, name, devices.clone())?;
            invariant::p4_healed(devices, &self.models[space])?;
        }
        for device in &self.devices {
            invariant::p11_accounted_on_the_server(device, self.server()?, self.has_lineage())?;
        }
        self.ask_for_lost_places()?;
        self.p9_at_rest()?;
        self.look_back()
    }

    /// Now that everything works, people look at what was refused.
    fn tidy_up(&mut self) -> Result<()> {
        let mut random = Random::of(mix(self.seed, 5));
        for _ in 0..2 {
            self.office(&mut random)?;
            let event = [Event::Amend, Event::Retry, Event::Discard][random.below(3)];
            let place = random.below(self.devices.len());
            self.close_parked(event, place, &mut random)?;
        }
        self.check()
    }

    /// Everybody comes back to their devices in turn.
    fn sync_at_rest(&mut self, place: usize) -> Result<()> {
        let people: &[&str] = if self.staff.is_some() { &PEOPLE } else { &[""] };
        for person in people {
            if self.staff.is_some() {
                self.sign_in(place, person, None)?;
            }
            self.devices[place].begin_round()?;
            self.finish_round(place)?;
        }
        Ok(())
    }

    fn is_resting(&self) -> Result<bool> {
        for device in &self.devices {
            let status = device.client()?.status()?;
            if status.pending_groups > 0 || status.cursor.0 != self.models[device.space].head() as u64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// P10: whoever is in the middle of a round when everything works again comes to its end, for good or not.
    fn end_rounds(&mut self) -> Result<()> {
        for place in 0..self.devices.len() {
            if self.devices[place].round.is_some() {
                self.note("a round went on when all was healed");
                self.finish_round(place)?;
            }
        }
        self.check()
    }

    pub(super) fn finish_round(&mut self, place: usize) -> Result<()> {
        for _ in 0..10_000 {
            self.poll_all()?;
            if self.devices[place].round.is_none() {
                return Ok(());
            }
            if !self.deliver_fairly()? {
                self.time.pass(1_000);
            }
        }
        bail!("P10: a round of device {place} does not end");
    }

    /// Counts what devices went through.
    fn look_back(&mut self) -> Result<()> {
        for place in 0..self.devices.len() {
            let device = &self.devices[place];
            let counts = device.client()?.with_reader(|db| {
                let counts = TRACES.iter().map(|(_, sql)| db.query_row(sql, [], |row| row.get(0)));
                counts.collect::<rusqlite::Result<Vec<u64>>>()
            })?;
            let epochs = device.numbers.len();
            for ((what, _), count) in TRACES.iter().zip(counts) {
                (0..count).for_each(|_| self.note(what));
            }
            (1..epochs).for_each(|_| self.note("a device began another epoch"));
        }
        let judged: usize = self.models.iter().map(|model| model.refused.judged).sum();
        (0..judged).for_each(|_| self.note("a conflict was held against what its author had seen"));
        Ok(())
    }
}
