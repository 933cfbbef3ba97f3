//! Changes of shift, in some of the worlds: people sign in and out of devices whose outboxes are full, and their tokens end.
//!
//! Drawn from a stream of its own and beside the other events of a step, so that the other worlds are what they were.

use super::network::Message;
use super::staff::{self, Badge, Issued, OF_THE_MANAGER, PEOPLE, Staff, Wallet};
use super::{Profile, World, lineage, mix};
use crate::disk;
use crate::random::Random;
use anyhow::{Result, ensure};
use gbsync_client::SyncError;
use gbsync_core::id::{Actor, Role};
use gbsync_core::schema::Schema;
use gbsync_core::wire::ActAs;
use gbsync_server::NewToken;
use std::sync::Arc;

/// One in so many worlds has people who share its devices.
const ONE_IN: usize = 6;
/// How long tokens last at most, in hours.
const LONGEST_SHIFT_H: usize = 8;
/// An hour.
const HOUR_MS: u64 = 60 * 60 * 1000;
/// Whether people share the devices of a world; in none whose server is put back, which would forget tokens that were revoked.
pub(super) fn is_shared(seed: u64) -> bool {
    !lineage::is_put_back(seed) && Random::of(mix(seed, 18)).below(ONE_IN) == 0
}

/// The rules of such a world.
///
/// # Errors
/// When they cannot be read.
pub(super) fn with_roles(text: &str) -> Result<Schema> {
    let roles: String =
        OF_THE_MANAGER.iter().map(|kind| format!("\n[operations.{kind}]\nroles = [\"manager\"]\n")).collect();
    Schema::parse(&format!("{text}{roles}")).map_err(|problems| anyhow::anyhow!("{problems}"))
}

impl World {
    /// What people do about who is signed in, in this step.
    pub(super) fn shift(&mut self, step: u64) -> Result<()> {
        if self.staff.is_none() {
            return Ok(());
        }
        let mut random = Random::of(mix(self.seed, 10_000 + step));
        self.with_failing_disks(&mut random, Self::change_shift)?;
        Ok(())
    }

    fn change_shift(&mut self, random: &mut Random) -> Result<()> {
        let place = self.whose_outbox_is_full(random.below(self.devices.len()))?;
        match random.below(16) {
            0..=4 => self.sign_in(place, PEOPLE[random.below(2)], Some(1 + random.below(LONGEST_SHIFT_H) as u64)),
            5 => self.sign_out(place),
            6 | 7 => self.let_token_end(place),
            8 => self.revoke_token(place),
            9 | 10 => self.put_into_wallet(place, 1 + random.below(LONGEST_SHIFT_H) as u64),
            _ => Ok(()),
        }
    }

    /// The first device from this one on that has something to send; this one if there is none.
    fn whose_outbox_is_full(&self, from: usize) -> Result<usize> {
        for place in (from..self.devices.len()).chain(0..from) {
            if self.has_full_outbox(place)? {
                return Ok(place);
            }
        }
        Ok(from)
    }

    fn has_full_outbox(&self, place: usize) -> Result<bool> {
        Ok(self.devices[place].client()?.status()?.pending_groups > 0)
    }

    /// Every other device of a space has tokens that act for everybody.
    fn is_till(&self, place: usize) -> bool {
        (place / self.models.len()).is_multiple_of(2)
    }

    /// The office makes a token, for so many hours or for ever.
    fn issue(&mut self, place: usize, person: &'static str, hours: Option<u64>) -> Result<String> {
        let (is_tills, space) = (self.is_till(place), self.devices[place].space);
        let role = if person == staff::MANAGER { "manager" } else { "cashier" };
        let actors = PEOPLE.iter().map(|person| Actor::new(*person)).collect::<Result<_, _>>()?;
        let new = NewToken::new(super::server::space_id(super::SPACES[space]));
        let lifetime_ms = hours.map(|hours| hours * HOUR_MS);
        let new = match is_tills {
            true => {
                NewToken { actor: Some(Actor::new(staff::TILL)?), act_as: Some(ActAs::These(actors)), lifetime_ms, ..new }
            }
            false => NewToken { actor: Some(Actor::new(person)?), roles: vec![Role::new(role)?], lifetime_ms, ..new },
        };
        let now_ms = self.time.now_ms();
        let made = self.server.as_mut().ok_or_else(|| anyhow::anyhow!("the world has a server"))?.office()?.create(new)?;
        let expires_ms = lifetime_ms.map(|lifetime_ms| now_ms + lifetime_ms);
        let issued = Issued { id: made.id, person, is_tills, expires_ms, is_revoked: false };
        if let Some(staff) = &mut self.staff {
            staff.tokens.insert(made.token.clone(), issued);
        }
        Ok(made.token)
    }

    /// Everybody is known to the server before a till acts for them, and somebody is signed in on each device.
    pub(super) fn open_shop(&mut self) -> Result<()> {
        let server = self.server.as_mut().ok_or_else(|| anyhow::anyhow!("the world has a server"))?;
        for space in super::SPACES.iter().take(self.models.len()) {
            for (person, role) in PEOPLE.iter().zip(["cashier", "manager"]) {
                let (actor, roles) = (Some(Actor::new(*person)?), vec![Role::new(role)?]);
                server.office()?.create(NewToken { actor, roles, ..NewToken::new(super::server::space_id(space)) })?;
            }
        }
        self.staff = Some(Staff::default());
        self.note("a world of people who share devices");
        for place in 0..self.devices.len() {
            self.sign_in(place, PEOPLE[place % 2], Some(LONGEST_SHIFT_H as u64))?;
        }
        Ok(())
    }

    /// Somebody signs in, instead of whoever is.
    pub(super) fn sign_in(&mut self, place: usize, person: &'static str, hours: Option<u64>) -> Result<()> {
        let token = self.issue(place, person, hours)?;
        let before = self.devices[place].badge.as_ref().map(|badge| badge.person);
        if before.is_some_and(|before| before != person) && self.has_full_outbox(place)? {
            self.note("somebody else signed in with a full outbox");
        }
        self.say(format!("  {person} signs in on device {place}"));
        self.devices[place].badge = Some(Badge { person, wallet: Arc::new(Wallet::new(token)) });
        self.devices[place].show_badge()
    }

    fn sign_out(&mut self, place: usize) -> Result<()> {
        if self.has_full_outbox(place)? {
            self.note("everybody signed out with a full outbox");
        }
        self.say(format!("  everybody signs out of device {place}"));
        self.devices[place].badge = None;
        self.devices[place].show_badge()
    }

    fn present(&self, place: usize) -> Option<String> {
        self.devices[place].badge.as_ref().map(|badge| badge.wallet.present())
    }

    /// Time passes until the very moment in which the token of a device ends.
    fn let_token_end(&mut self, place: usize) -> Result<()> {
        let (Some(token), Some(staff)) = (self.present(place), &self.staff) else { return Ok(()) };
        let ends_ms = staff.tokens.get(&token).and_then(|issued| issued.expires_ms);
        let Some(left_ms) = ends_ms.and_then(|ends_ms| ends_ms.checked_sub(self.time.now_ms())) else { return Ok(()) };
        if self.has_full_outbox(place)? {
            self.note("a token ended with a full outbox");
        }
        self.say(format!("  the token of device {place} ends"));
        self.time.pass(left_ms);
        self.devices[place].begin_round()?;
        Ok(())
    }

    fn revoke_token(&mut self, place: usize) -> Result<()> {
        let Some(token) = self.present(place) else { return Ok(()) };
        let Some(staff) = &self.staff else { return Ok(()) };
        let Some(id) = staff.tokens.get(&token).map(|issued| issued.id.clone()) else { return Ok(()) };
        let is_full = self.has_full_outbox(place)?;
        if let Some(server) = &mut self.server
            && server.office()?.revoke(&id)?
        {
            self.say(format!("  the token of device {place} is revoked"));
            if let Some(issued) = self.staff.as_mut().and_then(|staff| staff.tokens.get_mut(&token)) {
                issued.is_revoked = true;
            }
            if is_full {
                self.note("a token was revoked with a full outbox");
            }
        }
        Ok(())
    }

    /// Whoever is signed in has another token, for when the present one is refused.
    fn put_into_wallet(&mut self, place: usize, hours: u64) -> Result<()> {
        let Some(person) = self.devices[place].badge.as_ref().map(|badge| badge.person) else { return Ok(()) };
        let token = self.issue(place, person, Some(hours))?;
        self.say(format!("  device {place} will get another token"));
        if let Some(badge) = &self.devices[place].badge {
            badge.wallet.put(token);
        }
        Ok(())
    }

    /// P10: where the server knows nobody by a token, everything waits until somebody signs in, and says so.
    pub(super) fn p10_waits_for_sign_in(&mut self, place: usize, error: &SyncError) -> Result<()> {
        let device = &self.devices[place];
        if self.staff.is_none() || !matches!(error, SyncError::SignIn { .. }) || disk::is_cut(&device.folder) {
            return Ok(());
        }
        let sql = "SELECT count(*) FILTER (WHERE state = 'sealed'), count(*) FILTER (WHERE state = 'waiting_for_sign_in')
                     FROM gbsync_outbox";
        let (sealed, waiting) = device
            .client()?
            .with_reader(|db| db.query_row(sql, [], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))))?;
        ensure!(sealed == 0, "P10: nobody is signed in on device {place}, and {sealed} groups do not say so");
        if waiting > 0 {
            self.note("everything waited for a sign-in");
        }
        Ok(())
    }

    /// What was refused because of the roles of who sealed it, and never because of those of another.
    pub(super) fn p9_at_rest(&mut self) -> Result<()> {
        if self.staff.is_none() {
            return Ok(());
        }
        for device in &self.devices {
            let wrong = device.client()?.with_reader(staff::p9_own_roles_decide)?;
            ensure!(wrong.is_none(), "P9: {wrong:?} of the manager was refused for somebody else's roles");
        }
        Ok(())
    }

    /// The token that a request bears: in worlds where nobody signs in, that of its device.
    pub(super) fn token_of(&self, message: &Message) -> Result<String> {
        Ok(match (&message.request.token, &self.staff) {
            (Some(token), _) => token.0.clone(),
            (None, Some(_)) => String::new(),
            (None, None) => self.server()?.tokens[message.space].device.clone(),
        })
    }

    /// Whether a till sends something for somebody else than who is signed in; P9 where anybody else does.
    pub(super) fn is_sent_for_another(&self, message: &Message, token: &str) -> Result<bool> {
        self.staff.as_ref().map_or(Ok(false), |staff| staff.p9_sent_under_its_author(&message.request, token))
    }

    /// What was refused that is no token any more; P9 where it was let in, P10 where one was refused that still is.
    pub(super) fn is_refused(&self, token: &str, now_ms: u64, status: u16) -> Result<Option<&'static str>> {
        let Some(staff) = &self.staff else { return Ok(None) };
        // What a disk that was cut off swallowed, the office does not know.
        let is_sure = self.profile != Profile::Storm && staff.is_welcome(token, now_ms);
        ensure!(status != 401 || !is_sure, "P10: a token that was neither revoked nor has ended was refused");
        staff.p9_let_in(token, now_ms, status)
    }
}
