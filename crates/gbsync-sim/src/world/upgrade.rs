//! Another version of the schema comes to apps and to the server, in whatever order.
//!
//! An app is upgraded offline, with all that it sealed still in its outbox; the server starts anew with the schema, and may lose
//! power while it brings its records to it. Whoever is older is translated, and what is newer than the server waits for it.

use super::{World, names};
use crate::random::Random;
use anyhow::Result;

/// Changes of the server's files in which it opens them and brings at least some records to a schema.
const CHANGES: usize = 30;

impl World {
    /// The app of a device is upgraded, where the world has rules.
    pub(super) fn upgrade_app(&mut self, place: usize, random: &mut Random) -> Result<()> {
        let device = &self.devices[place];
        if self.schema.is_none() || device.version() >= names::SECOND {
            return Ok(());
        }
        let pending = device.client()?.status()?.pending_groups;
        let dies = (random.below(3) == 0).then_some("the tables follow the schema");
        let rules = self.rules(names::SECOND)?;
        self.devices[place].upgrade(rules, random, dies)?;
        let died_at = self.devices[place].mortal.fate().died_at.take();
        if died_at.is_some() {
            self.note("killed: the tables follow the schema");
        }
        self.note("an app was upgraded");
        if pending > 0 {
            self.note("an app was upgraded with a full outbox");
        }
        self.say(format!("  the app of device {place} is upgraded, {pending} groups wait"));
        Ok(())
    }

    /// The server gets the newer schema, where the world has rules.
    pub(super) fn upgrade_server(&mut self, random: &mut Random, is_cut: bool) -> Result<()> {
        if self.schema.is_none() || self.server()?.version() >= names::SECOND {
            return Ok(());
        }
        let mut waiting = 0;
        for device in self.devices.iter().filter(|device| device.version() >= names::SECOND) {
            waiting += device.client()?.status()?.pending_groups;
        }
        self.models.iter_mut().for_each(|model| model.may_upgrade = true);
        let cut_after = is_cut.then(|| random.below(CHANGES) as u64);
        let rules = self.rules(names::SECOND)?;
        let Some(server) = &mut self.server else { return Ok(()) };
        let was_cut = server.upgrade(rules, cut_after, random, &self.runtime)?;
        self.note("the server got a newer schema");
        if waiting > 0 {
            self.note("the server got a schema that groups waited for");
        }
        if was_cut {
            self.note("the server lost power while a schema came into force");
        }
        self.say(format!("  the server has the second schema, {waiting} groups wait for it"));
        Ok(())
    }

    /// At the end the server follows the newest app: what that one sealed waits for it.
    pub(super) fn upgrade_server_at_last(&mut self, random: &mut Random) -> Result<()> {
        match self.devices.iter().any(|device| device.version() >= names::SECOND) {
            true => self.upgrade_server(random, false),
            false => Ok(()),
        }
    }
}
