//! What happens in a step, and what goes wrong.

use super::party::DeviceParty;
use super::{DEVICES, World, mix};
use crate::action;
use crate::disk::{self, Loss};
use crate::model::Author;
use crate::random::Random;
use anyhow::Result;
use gbsync_client::{Method, Response};
use std::sync::atomic::Ordering;

/// Eight days.
const HOLIDAYS_MS: u64 = 8 * 24 * 60 * 60 * 1000;

/// How hard a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Profile {
    /// Requests are delivered in any order; nothing is lost.
    Calm,
    /// Requests and answers are lost, doubled, delayed, cut and exchanged; processes are killed.
    Rough,
    /// And power is lost in the middle of a write, disks are full, clocks jump, files are copied and put back.
    Storm,
}

impl Profile {
    /// All of them, each harder than the one before.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Rough, Self::Storm];
}

impl std::fmt::Display for Profile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Calm => "calm",
            Self::Rough => "rough",
            Self::Storm => "storm",
        })
    }
}

/// What happens in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Save,
    Begin,
    Stranger,
    Retry,
    Amend,
    Discard,
    Office,
    Sync,
    Deliver,
    DropRequest,
    DropAnswer,
    DoubleRequest,
    CutAnswer,
    Html,
    Status(u16),
    WrongSpace,
    Pass,
    KillDevice,
    KillServer,
    PowerDevice,
    PowerServer,
    DiskDevice,
    DiskServer,
    Clock,
    NewDevice,
    Backup,
    Restore,
    Clone,
}

impl Event {
    pub(super) fn draw(profile: Profile, random: &mut Random) -> Self {
        use Event::{
            Amend, Backup, Begin, Clock, Clone, CutAnswer, Deliver, Discard, DiskDevice, DiskServer, DoubleRequest,
            DropAnswer, DropRequest, Html, KillDevice, KillServer, NewDevice, Office, Pass, PowerDevice, PowerServer,
            Restore, Retry, Save, Status, Stranger, Sync, WrongSpace,
        };
        let calm: &[(usize, Self)] = &[
            (40, Save),
            (8, Begin),
            (2, Stranger),
            (6, Retry),
            (6, Amend),
            (1, Discard),
            (10, Office),
            (22, Sync),
            (60, Deliver),
            (4, Pass),
            (1, NewDevice),
        ];
        let rough: &[(usize, Self)] = &[
            (3, DropRequest),
            (5, DropAnswer),
            (3, DoubleRequest),
            (3, CutAnswer),
            (2, Html),
            (1, Status(429)),
            (1, Status(500)),
            (1, Status(503)),
            (2, WrongSpace),
            (3, KillDevice),
            (3, KillServer),
        ];
        let storm: &[(usize, Self)] = &[
            (4, PowerDevice),
            (4, PowerServer),
            (2, DiskDevice),
            (2, DiskServer),
            (2, Clock),
            (1, Backup),
            (1, Restore),
            (1, Clone),
        ];
        let tables = match profile {
            Profile::Calm => vec![calm],
            Profile::Rough => vec![calm, rough],
            Profile::Storm => vec![calm, rough, storm],
        };
        let total: usize = tables.iter().flat_map(|table| table.iter()).map(|(weight, _)| weight).sum();
        let mut drawn = random.below(total);
        for (weight, event) in tables.into_iter().flatten() {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return *event,
            }
        }
        Save
    }
}

impl World {
    pub(super) fn happen(&mut self, event: Event, schedule: &mut Random, workload: &mut Random) -> Result<()> {
        let place = schedule.below(self.devices.len());
        match event {
            Event::Save => {
                self.made += 1;
                let token = format!("t{}", self.made);
                let view = self.view(place)?;
                let operation = action::next(&token, &view, workload);
                self.model.begun(&operation, &view);
                if self.schema.is_some() && schedule.below(3) == 0 {
                    self.save_by_sql(place, operation, schedule.below(8) > 0)?;
                } else {
                    self.save(place, operation)?;
                }
            }
            Event::Begin => self.begin_or_save(place, workload)?,
            Event::Stranger => self.stranger(schedule)?,
            Event::Office => self.office(schedule)?,
            Event::Retry | Event::Amend | Event::Discard => self.close_parked(event, place, schedule)?,
            Event::Sync => {
                self.devices[place].begin_round()?;
            }
            // Now and then a shop is closed for longer than accepted groups are kept.
            Event::Pass if schedule.below(4) == 0 => self.time.pass(HOLIDAYS_MS),
            Event::Pass => self.time.pass(1 + schedule.below(60_000) as u64),
            Event::NewDevice if self.devices.len() < DEVICES => {
                self.add_device(false)?;
                self.note("a new device");
            }
            Event::KillDevice => self.crash_device(place, Loss::None, schedule)?,
            Event::KillServer => self.crash_server(Loss::None, schedule)?,
            Event::PowerDevice => disk::cut_after(&self.devices[place].folder, schedule.below(40) as u64),
            Event::PowerServer => disk::cut_after(&self.server()?.folder, schedule.below(40) as u64),
            Event::DiskDevice => {
                disk::fail_next(&self.devices[place].folder, disk::Failure::ALL[schedule.below(3)]);
                self.note("a device's disk failed");
            }
            Event::DiskServer => {
                disk::fail_next(&self.server()?.folder, disk::Failure::ALL[schedule.below(3)]);
                self.note("the server's disk failed");
            }
            Event::Clock => self.turn_clock(place, schedule),
            Event::Backup => self.backup(place)?,
            Event::Restore => self.restore(schedule)?,
            Event::Clone if self.devices.len() < DEVICES => self.clone_device(place)?,
            Event::NewDevice | Event::Clone => {}
            Event::Deliver => {
                for _ in 0..1 + schedule.below(6) {
                    self.network_event(Event::Deliver, schedule)?;
                    self.poll_all()?;
                }
            }
            network => self.network_event(network, schedule)?,
        }
        Ok(())
    }

    /// A person looks at a parked group and decides.
    fn close_parked(&mut self, event: Event, place: usize, schedule: &mut Random) -> Result<()> {
        let client = self.devices[place].client()?.clone();
        let parked = client.parked()?;
        let Some(group) = parked.get(schedule.below(parked.len())) else { return Ok(()) };
        let id = &group.group.group_id;
        let Some(operation) = self.model.operation(id.as_str()).cloned() else {
            anyhow::bail!("P7: nobody made the parked {id}")
        };
        // What a person wanted once is wanted again when nobody knows whether it was saved.
        let wanted = (id.to_string(), Author::Device(place));
        let is_amended = self.model.amended.contains_key(&wanted);
        let closed = match event {
            Event::Discard if !is_amended => client.discard(id, "nobody wants it any more"),
            Event::Retry if !is_amended => client.retry(id).map(drop),
            _ => {
                let amended = action::amended(&operation);
                self.model.amended.insert(wanted, amended.clone());
                client.amend(id, |context| action::stage(context, &amended)).map(drop)
            }
        };
        match closed {
            Ok(()) => self.note(match event {
                Event::Discard => "a group was discarded",
                Event::Retry => "a group was retried",
                _ => "a group was amended",
            }),
            Err(_) => self.note("a parked group that could not be closed"),
        }
        self.say(format!(
            "  device {place}: {}, {}",
            operation.token,
            if closed.is_ok() { "closed" } else { "still parked" }
        ));
        Ok(())
    }

    fn network_event(&mut self, event: Event, schedule: &mut Random) -> Result<()> {
        if self.network.len() == 0 {
            return Ok(());
        }
        let mut message = self.network.take(schedule.below(self.network.len()));
        let is_request = message.answer.is_none();
        match event {
            Event::DropRequest if is_request => {
                self.note("a request was lost");
                message.settle(Err("the connection was reset"));
            }
            Event::DropAnswer if is_request => {
                self.answer(&mut message)?;
                self.note("an answer was lost after the commit");
                message.settle(Err("the connection was reset"));
            }
            Event::DropAnswer => {
                self.note("an answer was lost after the commit");
                message.settle(Err("the connection timed out"));
            }
            Event::DoubleRequest if is_request => {
                self.note("a request arrived twice");
                let mut again = message.clone();
                self.answer(&mut again)?;
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
                self.note("a proxy's error");
                message.settle(Ok(Response { retry_after_ms: Some(1_000), ..html(status) }));
            }
            Event::WrongSpace if is_request => {
                self.note("a request for another space");
                message.request.path = message.request.path.replace("/spaces/shop", "/spaces/other");
                self.answer(&mut message)?;
                let answer = message.answer.take().unwrap_or_else(|| html(500));
                anyhow::ensure!(answer.status == 404, "P9: a request for another space was answered {}", answer.status);
                // The device must not take it for an answer about its own space.
                message.settle(Err("the connection was reset"));
            }
            _ if is_request => {
                self.answer(&mut message)?;
                self.network.put(message);
            }
            _ => {
                let answer = message.answer.take().unwrap_or_else(|| html(500));
                message.settle(Ok(answer));
            }
        }
        Ok(())
    }

    /// Takes the oldest message one step further, and nothing goes wrong.
    pub(super) fn deliver_fairly(&mut self) -> Result<()> {
        let mut message = self.network.take(0);
        match message.answer.take() {
            None => {
                self.answer(&mut message)?;
                self.network.put(message);
            }
            Some(answer) => message.settle(Ok(answer)),
        }
        Ok(())
    }

    /// Lets the server answer a request.
    fn answer(&mut self, message: &mut super::network::Message) -> Result<()> {
        let method = match message.request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
        };
        if message.request.path.contains("/parts/") {
            self.note(if message.request.method == Method::Put { "a part was sent" } else { "a part was fetched" });
        }
        let (path, body) = (message.request.path.clone(), message.request.body.clone());
        self.wire.note(&path, body.as_deref().unwrap_or_default())?;
        let server = self.server()?;
        let answer = self.runtime.block_on(server.local()?.answer(method, &path, Some(&server.token), body));
        message.answer = Some(Response {
            status: answer.status,
            content_type: answer.content_type,
            retry_after_ms: answer.retry_after_s.map(|seconds| seconds * 1000),
            body: answer.body,
        });
        Ok(())
    }

    /// A party whose power is cut by now comes back.
    pub(super) fn after_cuts(&mut self, random: &mut Random) -> Result<()> {
        let loss = Loss::ALL[random.below(4)];
        if disk::is_cut(&self.server()?.folder) {
            self.crash_server(loss, random)?;
        }
        for place in 0..self.devices.len() {
            if disk::is_cut(&self.devices[place].folder) {
                self.crash_device(place, loss, random)?;
            }
        }
        Ok(())
    }

    fn crash_device(&mut self, place: usize, loss: Loss, random: &mut Random) -> Result<()> {
        self.note(if loss == Loss::None { "a device was killed" } else { "a device lost power" });
        if self.devices[place].round.is_some() {
            self.note("a device crashed in a round");
        }
        self.say(format!("  device {place} crashes, {loss:?}"));
        self.devices[place].crash(loss, random)
    }

    fn crash_server(&mut self, loss: Loss, random: &mut Random) -> Result<()> {
        self.note(if loss == Loss::None { "the server was killed" } else { "the server lost power" });
        self.say(format!("  the server crashes, {loss:?}"));
        if let Some(server) = &mut self.server {
            server.crash(loss, random, &self.runtime)?;
        }
        Ok(())
    }

    fn turn_clock(&mut self, place: usize, schedule: &mut Random) {
        const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
        let off_ms = [0, TEN_YEARS_MS, -TEN_YEARS_MS, -60_000, 3_600_000][schedule.below(5)];
        self.devices[place].party.off_ms.store(off_ms, Ordering::Relaxed);
        self.note("a clock was turned");
    }

    fn backup(&mut self, place: usize) -> Result<()> {
        let to = self.scratch.path().join(format!("backup-{}", self.backups.len()));
        self.devices[place].backup(&to)?;
        self.backups.push((place, to, self.devices[place].saved.clone()));
        Ok(())
    }

    fn restore(&mut self, schedule: &mut Random) -> Result<()> {
        let Some((place, from, saved)) = self.backups.get(schedule.below(self.backups.len())).cloned() else {
            return Ok(());
        };
        self.note("an old copy was put back");
        self.say(format!("  device {place} is put back to {} saved operations", saved.len()));
        self.devices[place].restore(&from, saved)
    }

    fn clone_device(&mut self, place: usize) -> Result<()> {
        let copy = self.devices.len();
        let seed = mix(self.seed, 100 + copy as u64);
        let device = DeviceParty::copy_of(&self.devices[place], self.scratch.path(), copy, &self.time, seed, &self.network)?;
        self.devices.push(device);
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
