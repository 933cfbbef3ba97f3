//! What goes wrong: on the way, with processes, disks, clocks and files.

use super::device::DeviceParty;
use super::event::{Event, Profile};
use super::network::Message;
use super::sights::{DEVICE_POINTS, RARE_POINTS, REBASE_POINTS, SERVER_POINTS};
use super::{DEVICES, SPACES, World};
use crate::disk::{self, Failure, Loss};
use crate::invariant;
use crate::random::Random;
use anyhow::Result;
use gbsync_client::{Method, Response, Token};

/// Messages that go a step further in one step of the world, at most.
const MOST_DELIVERIES: usize = 24;
/// Eight days.
const HOLIDAYS_MS: u64 = 8 * 24 * 60 * 60 * 1000;
/// How long a message is held up at most.
pub(super) const LONGEST_DELAY_MS: usize = 10 * 60 * 1000;

impl World {
    pub(super) fn happen(&mut self, event: Event, schedule: &mut Random, workload: &mut Random) -> Result<()> {
        let place = schedule.below(self.devices.len());
        match event {
            Event::Save => {
                self.write(place, schedule, workload)?;
                // Others work at the same time.
                let other = schedule.below(2 * self.devices.len());
                if other < self.devices.len() && other != place {
                    self.write(other, schedule, workload)?;
                }
            }
            Event::Stage => self.stage(place, workload)?,
            Event::Stranger => self.stranger(schedule)?,
            Event::Office => self.office(schedule)?,
            Event::Retry | Event::Amend | Event::Discard => {
                // Few discards have anything to be told: whoever comes there dies often.
                if event == Event::Discard && self.profile != Profile::Calm {
                    let fates = self.devices.iter().map(|device| device.mortal.fate());
                    fates.for_each(|mut fate| fate.armed = fate.armed.or(Some("a discard was noted")));
                }
                self.close_parked(event, place, schedule)?;
            }
            Event::Sync => {
                self.devices[place].begin_round()?;
            }
            // Now and then a shop is closed for longer than accepted groups are kept, and then everybody syncs.
            Event::Pass if schedule.below(3) == 0 => {
                self.note("a shop was closed for a week");
                self.time.pass(HOLIDAYS_MS);
                for device in &mut self.devices {
                    device.begin_round()?;
                }
            }
            Event::Pass => self.time.pass(1 + schedule.below(60_000) as u64),
            Event::NewDevice if self.devices.len() < DEVICES => {
                let schema = self.devices[place].schema().cloned();
                self.add_device(self.devices[place].space, schema, false)?;
                self.note("a new device");
            }
            Event::KillDevice => self.crash_device(place, Loss::None, schedule)?,
            Event::KillServer => self.crash_server(Loss::None, schedule)?,
            Event::KillDeviceAtPoint => {
                // Those that few worlds come to stand first, and are chosen as often as all together.
                let among = [RARE_POINTS, DEVICE_POINTS.len()][schedule.below(2)];
                let (point, _) = DEVICE_POINTS[schedule.below(among)];
                // Whoever comes there dies.
                self.devices.iter().for_each(|device| device.mortal.fate().armed = Some(point));
            }
            Event::KillServerAtPoint => {
                let (point, _) = SERVER_POINTS[schedule.below(SERVER_POINTS.len())];
                self.server()?.mortal.fate().armed = Some(point);
            }
            Event::PowerDevice => disk::cut_after(&self.devices[place].folder, schedule.below(40) as u64),
            Event::PowerServer => disk::cut_after(&self.server()?.folder, schedule.below(40) as u64),
            Event::DiskDevice => disk::fail_next(&self.devices[place].folder, Failure::ALL[schedule.below(3)]),
            Event::DiskServer => disk::fail_next(&self.server()?.folder, Failure::ALL[schedule.below(3)]),
            Event::Clock => self.turn_clock(place, schedule),
            Event::Backup => self.backup(place)?,
            Event::Restore => self.restore(schedule)?,
            Event::Clone if self.devices.len() < DEVICES => self.clone_device(place, schedule)?,
            Event::NewDevice | Event::Clone => {}
            Event::UpgradeApp => self.upgrade_app(place, schedule)?,
            Event::UpgradeServer => {
                self.upgrade_server(schedule, self.profile == Profile::Storm)?;
            }
            Event::Deliver => {
                for _ in 0..1 + schedule.below(MOST_DELIVERIES) {
                    self.network_event(Event::Deliver, schedule)?;
                    self.poll_all()?;
                }
            }
            network => self.network_event(network, schedule)?,
        }
        Ok(())
    }

    fn network_event(&mut self, event: Event, schedule: &mut Random) -> Result<()> {
        let Some((mut message, overtakes)) = self.network.draw(schedule, self.time.now_ms()) else { return Ok(()) };
        let is_request = message.answer.is_none();
        if overtakes {
            self.note("a message overtook another");
        }
        match event {
            Event::DropRequest if is_request => {
                self.note("a request was lost");
                message.settle(Err("the connection was reset"));
            }
            Event::DropAnswer => {
                if is_request {
                    self.answer(&mut message)?;
                }
                self.note("an answer was lost after the commit");
                message.settle(Err("the connection was reset"));
            }
            Event::DoubleRequest if is_request => self.double(message)?,
            Event::Delay => {
                self.note("a message was delayed");
                message.held_until_ms = self.time.now_ms() + 1 + schedule.below(LONGEST_DELAY_MS) as u64;
                self.network.put(message);
            }
            Event::CutAnswer if !is_request => {
                self.note("an answer was cut");
                let mut answer = message.answer.take().unwrap_or_else(|| html(200));
                answer.body.truncate(schedule.below(answer.body.len().max(1)));
                message.settle(Ok(answer));
            }
            Event::Html => {
                self.note("a page of a hotel's network");
                message.settle(Ok(html(200)));
            }
            Event::Status(status) => {
                self.note(match status {
                    429 => "a proxy's error: 429",
                    500 => "a proxy's error: 500",
                    _ => "a proxy's error: 503",
                });
                message.settle(Ok(Response { retry_after_ms: Some(1_000), ..html(status) }));
            }
            Event::WrongSpace if is_request => self.send_to_another_space(message)?,
            Event::WrongAnswer if is_request && self.models.len() > 1 => self.answer_of_another_space(message)?,
            _ => self.go_on(message)?,
        }
        Ok(())
    }

    /// Takes a message one step further: the server answers it, or the device has the answer.
    fn go_on(&mut self, mut message: Message) -> Result<()> {
        match message.answer.take() {
            None => match self.answer(&mut message)? {
                true => self.network.put(message),
                false => message.settle(Err("the connection was reset")),
            },
            Some(answer) => message.settle(Ok(answer)),
        }
        Ok(())
    }

    /// Takes the oldest message one step further, and nothing goes wrong; `false` when there is none.
    pub(super) fn deliver_fairly(&mut self) -> Result<bool> {
        let Some(message) = self.network.oldest() else { return Ok(false) };
        self.go_on(message)?;
        Ok(true)
    }

    /// The request arrives twice, and the second time is answered as the first.
    fn double(&mut self, message: Message) -> Result<()> {
        self.note("a request arrived twice");
        let (mut first, mut second) = (message.clone(), message.clone());
        if self.answer(&mut first)? && self.answer(&mut second)? {
            invariant::p3_answered_alike(first.answer.as_ref(), second.answer.as_ref())?;
        }
        self.network.put(message);
        Ok(())
    }

    /// The request arrives at the address of another space, with the token of its own.
    fn send_to_another_space(&mut self, mut message: Message) -> Result<()> {
        self.note("a request for another space");
        let (own, other) = (SPACES[message.space], SPACES[1 - message.space]);
        message.request.path = message.request.path.replace(&format!("/spaces/{own}"), &format!("/spaces/{other}"));
        let token = self.token_of(&message)?;
        let is_let_in = self.staff.as_ref().is_none_or(|staff| staff.is_welcome(&token, self.time.now_ms()));
        let before = self.injected()?;
        let is_answered = self.answer(&mut message)?;
        // Who cannot be looked up because the disk failed is told nothing either.
        let is_disk_failed = self.injected()? > before && message.answer.as_ref().is_some_and(|answer| answer.status == 503);
        if is_answered && is_let_in && !is_disk_failed {
            invariant::p9_isolated(message.answer.as_ref())?;
        }
        // The device must not take it for an answer about its own space.
        message.settle(Err("the connection was reset"));
        Ok(())
    }

    /// A front of the server mixes up two spaces: what one asks to be told is answered out of the other's log. What changes
    /// something arrives where it should.
    fn answer_of_another_space(&mut self, message: Message) -> Result<()> {
        if message.request.method != Method::Get {
            return self.go_on(message);
        }
        self.note("an answer of another space");
        let (own, other) = (message.space, 1 - message.space);
        let mut mixed_up = message.clone();
        mixed_up.space = other;
        mixed_up.request.token = Some(Token(self.server()?.tokens[other].device.clone()));
        mixed_up.request.path =
            message.request.path.replace(&format!("/spaces/{}", SPACES[own]), &format!("/spaces/{}", SPACES[other]));
        self.say(format!("  {} is answered as {}", message.request.path, mixed_up.request.path));
        match self.answer(&mut mixed_up)? {
            true => message.settle(mixed_up.answer.ok_or("the connection was reset")),
            false => message.settle(Err("the connection was reset")),
        }
        Ok(())
    }

    /// Lets the server answer a request; `false` when it died meanwhile. Where a disk fails while somebody looks, nobody hears of the
    /// request any more.
    pub(super) fn answer(&mut self, message: &mut Message) -> Result<bool> {
        let answered = self.ask(message);
        if answered.is_err() {
            message.clone().settle(Err("the connection was reset"));
        }
        answered
    }

    fn ask(&mut self, message: &mut Message) -> Result<bool> {
        let method = match message.request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
        };
        if message.is_late_copy {
            self.note("a copy of a request arrived late");
        }
        if message.request.path.contains("/parts/") {
            self.note(if message.request.method == Method::Put { "a part was sent" } else { "a part was fetched" });
        }
        let (path, body) = (&message.request.path, message.request.body.as_deref().unwrap_or_default());
        self.wires[message.space].note(path, body)?;
        self.note_old_bases(message)?;
        let server = self.server()?;
        let (path, body) = (message.request.path.clone(), message.request.body.clone());
        invariant::p8_bounded(body.as_deref(), server.request_bytes())?;
        let token = self.token_of(message)?;
        let (is_for_another, now_ms) = (self.is_sent_for_another(message, &token)?, self.time.now_ms());
        if is_for_another {
            self.note("a till sent what somebody else sealed");
        }
        let Some(answer) = self.server()?.answer(&self.runtime, method, &path, &token, body)? else { return Ok(false) };
        if let Some(refused) = self.is_refused(&token, now_ms, answer.status)? {
            self.note(refused);
        }
        message.answer = Some(Response {
            status: answer.status,
            content_type: answer.content_type,
            retry_after_ms: answer.retry_after_s.map(|seconds| seconds * 1000),
            body: answer.body,
        });
        Ok(true)
    }

    /// A party that was killed, or whose power is cut by now, comes back.
    pub(super) fn after_cuts(&mut self, random: &mut Random) -> Result<()> {
        let loss = Loss::ALL[random.below(4)];
        let server = self.server()?;
        let died_at = server.mortal.fate().died_at.take();
        if disk::is_cut(&server.folder) {
            self.note_death(died_at, SERVER_POINTS);
            self.crash_server(if died_at.is_some() { Loss::None } else { loss }, random)?;
        }
        for place in 0..self.devices.len() {
            let died_at = self.devices[place].mortal.fate().died_at.take();
            if disk::is_cut(&self.devices[place].folder) {
                self.note_death(died_at, DEVICE_POINTS);
                self.crash_device(place, if died_at.is_some() { Loss::None } else { loss }, random)?;
            }
        }
        Ok(())
    }

    fn note_death(&mut self, died_at: Option<&'static str>, points: &[(&'static str, &'static str)]) {
        if let Some((_, what)) = points.iter().chain(&REBASE_POINTS).find(|(point, _)| Some(*point) == died_at) {
            self.note(what);
        }
    }

    fn crash_device(&mut self, place: usize, loss: Loss, random: &mut Random) -> Result<()> {
        self.note(match loss {
            Loss::None => "a device was killed",
            Loss::All => "a device lost power: all",
            Loss::Prefix => "a device lost power: prefix",
            Loss::Subset => "a device lost power: subset",
            Loss::Torn => "a device lost power: torn",
        });
        if self.devices[place].round.is_some() {
            self.note("a device crashed in a round");
        }
        self.say(format!("  device {place} crashes, {loss:?}"));
        let dies_again = (random.below(8) == 0).then_some("the tables follow the schema");
        let device = &mut self.devices[place];
        device.crash(loss, random, dies_again)?;
        let died_again = device.mortal.fate().died_at.take();
        self.note_death(died_again, DEVICE_POINTS);
        Ok(())
    }

    fn crash_server(&mut self, loss: Loss, random: &mut Random) -> Result<()> {
        self.note(match loss {
            Loss::None => "the server was killed",
            Loss::All => "the server lost power: all",
            Loss::Prefix => "the server lost power: prefix",
            Loss::Subset => "the server lost power: subset",
            Loss::Torn => "the server lost power: torn",
        });
        self.say(format!("  the server crashes, {loss:?}"));
        if let Some(server) = &mut self.server {
            server.crash(loss, random, &self.runtime)?;
        }
        Ok(())
    }

    /// Counts failures of disks that took place.
    pub(super) fn note_failures(&mut self) -> Result<()> {
        match disk::take_failure(&self.server()?.folder) {
            Some(Failure::Full) if disk::is_full(&self.server()?.folder) => self.note("the server's disk stayed full"),
            Some(Failure::Full) => self.note("the server's disk was full"),
            Some(Failure::Write) => self.note("the server's disk failed: write"),
            Some(Failure::Sync) => self.note("the server's disk failed: sync"),
            Some(Failure::Read) => self.note("the server's disk failed: read"),
            None => {}
        }
        for place in 0..self.devices.len() {
            match disk::take_failure(&self.devices[place].folder) {
                Some(Failure::Full) if disk::is_full(&self.devices[place].folder) => {
                    self.note("a device's disk stayed full");
                }
                Some(Failure::Full) => self.note("a device's disk was full"),
                Some(Failure::Write) => self.note("a device's disk failed: write"),
                Some(Failure::Sync) => self.note("a device's disk failed: sync"),
                Some(Failure::Read) => self.note("a device's disk failed: read"),
                None => {}
            }
        }
        Ok(())
    }

    fn turn_clock(&mut self, place: usize, schedule: &mut Random) {
        const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
        let party = &self.devices[place].party;
        let what = match schedule.below(6) {
            0 => {
                party.set_off(0);
                "a clock was set right"
            }
            1 => {
                party.set_off(TEN_YEARS_MS);
                "a clock went ten years ahead"
            }
            2 => {
                party.set_off(-TEN_YEARS_MS);
                "a clock went ten years back"
            }
            3 => {
                party.freeze();
                "a clock stood still"
            }
            way => {
                party.set_off(if way == 4 { -60_000 } else { 3_600_000 });
                "a clock was off"
            }
        };
        self.note(what);
    }

    fn backup(&mut self, place: usize) -> Result<()> {
        let to = self.scratch.path().join(format!("backup-{}", self.backups.len()));
        self.devices[place].backup(&to)?;
        let device = &self.devices[place];
        self.backups.push((place, to, (device.saved.clone(), device.closed.clone())));
        Ok(())
    }

    fn restore(&mut self, schedule: &mut Random) -> Result<()> {
        let Some((place, from, saved)) = self.backups.get(schedule.below(self.backups.len())).cloned() else {
            return Ok(());
        };
        self.note("an old copy was put back");
        self.say(format!("  device {place} is put back to {} saved operations", saved.0.len()));
        self.devices[place].restore(&from, saved)?;
        self.excuse_what_nobody_has()?;
        self.kill_while_reading_anew(place, schedule);
        Ok(())
    }

    /// Who has an old copy reads the log anew, and may die in it.
    fn kill_while_reading_anew(&mut self, place: usize, schedule: &mut Random) {
        if schedule.below(3) < 2 {
            self.devices[place].mortal.fate().armed = Some("a page was read anew");
        }
        self.has_to_read_anew(place);
    }

    fn clone_device(&mut self, place: usize, schedule: &mut Random) -> Result<()> {
        let device = DeviceParty::copy_of(&self.devices[place], self.beginning(self.devices[place].space, None))?;
        self.devices.push(device);
        self.kill_while_reading_anew(self.devices.len() - 1, schedule);
        self.note("a device was cloned");
        Ok(())
    }
}

fn html(status: u16) -> Response {
    Response {
        status,
        content_type: Some("text/html".into()),
        retry_after_ms: None,
        body: b"<html><body>Welcome! Please accept our terms.</body></html>".to_vec(),
    }
}
