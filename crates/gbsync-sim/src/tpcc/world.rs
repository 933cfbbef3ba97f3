//! Devices that order, pay and deliver offline, a server, and a network and power that fail; the conditions are judged at
//! every cursor of every device and at every commit of the server.

use super::conditions::{Condition, Rows, judge};
use super::log::Log;
use super::watched::Watched;
use super::workload::{self, Outcome, Transaction};
use crate::disk::{self, Loss};
use crate::random::Random;
use crate::seeds::scratch_folder;
use crate::world::device::{Beginning, DeviceParty};
use crate::world::network::{Message, Network};
use crate::world::server::{ServerParty, space_id};
use crate::world::time::Time;
use crate::world::{SPACES, mix};
use anyhow::{Context, Result, bail, ensure};
use gbsync_client::{GroupFilter, Method, Response};
use gbsync_core::schema::Schema;
use rusqlite::Connection;
use std::collections::BTreeMap;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The rules of every device and of the server.
pub const RULES: &str = include_str!("schema.toml");
/// Rounds of every device in which a healed world must come to rest.
const ROUNDS_TO_REST: u64 = 12;
/// The place of the server among what is watched.
const SERVER: usize = usize::MAX;

/// What happens in a step.
#[derive(Debug, Clone, Copy)]
enum Event {
    Transaction,
    Sync,
    Deliver,
    Lose,
    LoseAnswer,
    Double,
    Cut,
    Refuse,
    Retry,
    Discard,
    KillDevice,
    KillServer,
    PowerDevice,
    PowerServer,
}

/// How often each happens.
const EVENTS: &[(usize, Event)] = &[
    (30, Event::Transaction),
    (20, Event::Sync),
    (70, Event::Deliver),
    (3, Event::Lose),
    (5, Event::LoseAnswer),
    (3, Event::Double),
    (3, Event::Cut),
    (2, Event::Refuse),
    (4, Event::Retry),
    (2, Event::Discard),
    (2, Event::KillDevice),
    (2, Event::KillServer),
    (2, Event::PowerDevice),
    (2, Event::PowerServer),
];

/// One run.
pub struct World {
    seed: u64,
    scratch: TempDir,
    runtime: Runtime,
    time: Time,
    network: Network,
    server: Option<ServerParty>,
    /// The devices.
    pub devices: Vec<DeviceParty>,
    conditions: Vec<Condition>,
    log: Log,
    /// The databases as a reader beside client and server sees them, by the place of the device; the server is the last.
    watched: BTreeMap<usize, Watched>,
    made: u64,
    /// What happened, a line a step.
    pub trace: Vec<String>,
    /// How often each thing happened.
    pub happened: BTreeMap<&'static str, u64>,
}

impl World {
    /// A world with a server, devices and the first population.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(seed: u64, devices: usize) -> Result<Self> {
        disk::install();
        let scratch = scratch_folder()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (time, network) = (Time::new(), Network::default());
        let schema = Schema::parse(RULES).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let server = ServerParty::start(scratch.path(), 1, &time, mix(seed, 1), Some(schema.clone()), &runtime)?;
        let device = |place| {
            let seed = mix(seed, 100 + place as u64);
            let (scratch, schema) = (scratch.path(), Some(schema.clone()));
            let beginning = Beginning { scratch, place, space: 0, time: &time, seed, schema, network: &network };
            DeviceParty::new(beginning, false)
        };
        let devices = (0..devices).map(device).collect::<Result<Vec<_>>>()?;
        let mut world = Self {
            seed,
            runtime,
            time,
            network,
            server: Some(server),
            devices,
            conditions: Condition::all(),
            log: Log::new()?,
            watched: BTreeMap::new(),
            made: 0,
            trace: Vec::new(),
            happened: BTreeMap::new(),
            scratch,
        };
        workload::load(world.devices[0].client()?).context("the first population")?;
        // Everybody begins with it, so that there is something to do from the first step on.
        for place in 0..world.devices.len() {
            world.devices[place].begin_round()?;
            world.finish_round(place)?;
        }
        world.check()?;
        Ok(world)
    }

    fn note(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// Steps until so many transactions were begun.
    ///
    /// # Errors
    /// The condition or promise that was broken.
    pub fn run(&mut self, operations: u64) -> Result<()> {
        let mut step = 0;
        while self.made < operations {
            self.step(step).with_context(|| format!("step {step}"))?;
            step += 1;
        }
        self.rest().context("at rest")
    }

    fn step(&mut self, step: u64) -> Result<()> {
        let mut random = Random::of(mix(self.seed, 1_000 + step));
        let mut drawn = random.below(EVENTS.iter().map(|(weight, _)| weight).sum());
        let event = EVENTS.iter().find(|(weight, _)| match drawn.checked_sub(*weight) {
            Some(rest) => {
                drawn = rest;
                false
            }
            None => true,
        });
        let event = event.map_or(Event::Deliver, |(_, event)| *event);
        self.trace.push(format!("{step} {event:?}"));
        let place = random.below(self.devices.len());
        match event {
            Event::Transaction => self.transact(place, &mut random)?,
            Event::Sync => {
                self.devices[place].begin_round()?;
            }
            Event::Retry | Event::Discard => self.close(event, place, &mut random)?,
            Event::KillDevice => self.crash_device(place, Loss::None, &mut random)?,
            Event::KillServer => self.crash_server(Loss::None, &mut random)?,
            Event::PowerDevice => disk::cut_after(&self.devices[place].folder, random.below(40) as u64),
            Event::PowerServer => disk::cut_after(&self.server()?.folder, random.below(40) as u64),
            network => self.network_event(network, &mut random)?,
        }
        self.after_cuts(&mut random)?;
        self.poll_all()?;
        self.after_cuts(&mut random)?;
        self.check()
    }

    fn server(&self) -> Result<&ServerParty> {
        self.server.as_ref().context("the world has a server")
    }

    fn transact(&mut self, place: usize, random: &mut Random) -> Result<()> {
        self.made += 1;
        let token = format!("t{:04}", self.made);
        let transaction = Transaction::draw(random);
        let device = &self.devices[place];
        let db = if random.below(4) == 0 { Some(Connection::open(device.file())?) } else { None };
        let written = workload::write(device.client()?, db.as_ref(), transaction, &token, random);
        let what = match (&written, transaction) {
            (Ok(Outcome::Saved), Transaction::NewOrder) if db.is_some() => "a New-Order was saved by SQL",
            (Ok(Outcome::Saved), Transaction::NewOrder) => "a New-Order was saved",
            (Ok(Outcome::Saved), Transaction::Payment) => "a Payment was saved",
            (Ok(Outcome::Saved), Transaction::Delivery) => "a Delivery was saved",
            (Ok(Outcome::RolledBack), _) => "a New-Order was rolled back",
            (Ok(Outcome::Nothing), _) => "there was nothing to deliver",
            (Err(_), _) => "a transaction that could not be saved",
        };
        self.note(what);
        let why = written.err().map(|error| format!(": {error:#}")).unwrap_or_default();
        self.trace.push(format!("  device {place}: {token}: {what}{why}"));
        Ok(())
    }

    /// A person looks at a refused transaction and decides.
    fn close(&mut self, event: Event, place: usize, random: &mut Random) -> Result<()> {
        let client = self.devices[place].client()?.clone();
        let parked = client.groups(GroupFilter::Parked, usize::MAX)?;
        let Some(group) = parked.get(random.below(parked.len())) else { return Ok(()) };
        let closed = match event {
            Event::Retry => client.retry(&group.group_id).map(drop),
            _ => client.discard(&group.group_id, "the customer left"),
        };
        self.note(match (event, closed) {
            (_, Err(_)) => "a refused transaction that could not be closed",
            (Event::Retry, Ok(())) => "a refused transaction was retried",
            _ => "a refused transaction was discarded",
        });
        Ok(())
    }

    fn network_event(&mut self, event: Event, random: &mut Random) -> Result<()> {
        for _ in 0..if matches!(event, Event::Deliver) { 1 + random.below(6) } else { 1 } {
            let Some((message, _)) = self.network.draw(random, self.time.now_ms()) else { return Ok(()) };
            self.pass_on(event, message, random)?;
            self.poll_all()?;
            // A device may take another page with the next one.
            self.check()?;
        }
        Ok(())
    }

    fn pass_on(&mut self, event: Event, mut message: Message, random: &mut Random) -> Result<()> {
        match (event, message.answer.take()) {
            (Event::Lose, None) => {
                self.note("a request was lost");
                message.settle(Err("the connection was reset"));
            }
            (Event::LoseAnswer, None) => {
                self.answer(&mut message)?;
                self.note("an answer was lost after the commit");
                message.settle(Err("the connection timed out"));
            }
            (Event::Double, None) => {
                self.note("a request arrived twice");
                self.answer(&mut message.clone())?;
                self.network.put(message);
            }
            (Event::Refuse, _) => {
                self.note("a proxy's error");
                let body = b"<html><body>Service unavailable</body></html>".to_vec();
                message.settle(Ok(Response {
                    status: 503,
                    content_type: Some("text/html".into()),
                    retry_after_ms: None,
                    body,
                }));
            }
            (Event::Cut, Some(mut answer)) => {
                self.note("an answer was cut");
                answer.body.truncate(random.below(answer.body.len()));
                message.settle(Ok(answer));
            }
            (_, Some(answer)) => message.settle(Ok(answer)),
            (_, None) => {
                // Nobody hears the answer of a server that dies.
                match self.answer(&mut message)? {
                    true => self.network.put(message),
                    false => message.settle(Err("the connection was reset")),
                }
            }
        }
        Ok(())
    }

    fn answer(&self, message: &mut Message) -> Result<bool> {
        let method = match message.request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
        };
        let server = self.server()?;
        let (path, body) = (message.request.path.clone(), message.request.body.clone());
        let answer = server.answer(&self.runtime, method, &path, &server.tokens[0].device, body)?;
        let Some(answer) = answer else { return Ok(false) };
        message.answer = Some(Response {
            status: answer.status,
            content_type: answer.content_type,
            retry_after_ms: answer.retry_after_s.map(|seconds| seconds * 1000),
            body: answer.body,
        });
        Ok(true)
    }

    fn after_cuts(&mut self, random: &mut Random) -> Result<()> {
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
        self.watched.remove(&place);
        self.devices[place].crash(loss, random, None)
    }

    fn crash_server(&mut self, loss: Loss, random: &mut Random) -> Result<()> {
        self.note(if loss == Loss::None { "the server was killed" } else { "the server lost power" });
        self.watched.remove(&SERVER);
        match &mut self.server {
            Some(server) => server.crash(loss, random, &self.runtime),
            None => Ok(()),
        }
    }

    fn poll_all(&mut self) -> Result<()> {
        for place in 0..self.devices.len() {
            let Some(ended) = self.devices[place].poll_round() else { continue };
            self.note(if ended.is_ok() { "a round that ended well" } else { "a round that failed" });
            if ended.is_ok_and(|report| !report.parked.is_empty()) {
                self.note("a transaction was refused");
            }
        }
        Ok(())
    }

    /// Judges whatever changed.
    fn check(&mut self) -> Result<()> {
        self.check_server()?;
        (0..self.devices.len()).try_for_each(|place| self.check_device(place).with_context(|| format!("device {place}")))
    }

    /// The log entry by entry, and the server's records at each commit.
    fn check_server(&mut self) -> Result<()> {
        let Some(server) = self.server.as_ref().filter(|server| !disk::is_cut(&server.folder)) else { return Ok(()) };
        let watched = Watched::of(&mut self.watched, SERVER, &server.folder.join("gbsync.db"))?;
        if !watched.has_changed()? {
            return Ok(());
        }
        judge(&watched.db, Rows::Payloads("records"), &self.conditions).context("on the server")?;
        let entries = self.log.follow(server, &self.runtime, &self.conditions)?;
        *self.happened.entry("an entry of the log was judged").or_default() += entries;
        self.note("a commit of the server was judged");
        Ok(())
    }

    /// What the device shows and what it holds as confirmed, where anything changed.
    fn check_device(&mut self, place: usize) -> Result<()> {
        let device = &self.devices[place];
        if disk::is_cut(&device.folder) {
            return Ok(());
        }
        let watched = Watched::of(&mut self.watched, place, &device.file())?;
        if !watched.has_changed()? {
            return Ok(());
        }
        // What is confirmed changes with the cursor, and when the log was read anew.
        if watched.has_moved()? {
            judge(&watched.db, Rows::Payloads("gbsync_base"), &self.conditions).context("in what is confirmed")?;
            *self.happened.entry("a cursor of a device was judged").or_default() += 1;
        }
        judge(&watched.db, Rows::Tables, &self.conditions).context("in what is shown")?;
        self.note("a state of a device was judged");
        Ok(())
    }

    fn finish_round(&mut self, place: usize) -> Result<()> {
        for _ in 0..10_000 {
            self.poll_all()?;
            self.check()?;
            if self.devices[place].round.is_none() {
                return Ok(());
            }
            match self.network.oldest() {
                None => self.time.pass(1_000),
                Some(message) => self.pass_on(Event::Deliver, message, &mut Random::of(0))?,
            }
        }
        bail!("P10: a round of device {place} does not end");
    }

    /// Heals everything; then every group is decided, and everybody shows the same.
    fn rest(&mut self) -> Result<()> {
        self.after_cuts(&mut Random::of(mix(self.seed, 3)))?;
        disk::heal(&self.server()?.folder);
        self.devices.iter().for_each(|device| disk::heal(&device.folder));
        // Whoever is in the middle of a round comes to its end.
        for place in 0..self.devices.len() {
            if self.devices[place].round.is_some() {
                self.note("a round went on when all was healed");
                self.finish_round(place)?;
            }
        }
        for _ in 0..ROUNDS_TO_REST {
            self.time.pass(2 * 60 * 60 * 1000);
            for place in 0..self.devices.len() {
                self.devices[place].begin_round()?;
                self.finish_round(place)?;
            }
            if self.is_resting()? {
                break;
            }
        }
        let theirs = gbsync_server::space_digest(&self.server()?.folder, &space_id(SPACES[0]))?;
        for device in &self.devices {
            let (client, place) = (device.client()?, device.place);
            let (ours, pending) = (client.digest()?, client.status()?.pending_groups);
            ensure!(pending == 0, "P10: device {place} still has {pending} undecided groups");
            ensure!(
                (ours.cursor, ours.records, ours.digest) == (theirs.head, theirs.records, theirs.digest),
                "P6: device {place} has another digest than the server at {}",
                theirs.head
            );
        }
        Ok(())
    }

    fn is_resting(&self) -> Result<bool> {
        for device in &self.devices {
            let status = device.client()?.status()?;
            if status.pending_groups > 0 || status.cursor.0 != self.log.entries.len() as u64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The state that the log leaves, and its entries.
    #[cfg(test)]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Ends the world.
    pub fn end(mut self) {
        self.watched.clear();
        self.devices.clear();
        if let Some(server) = self.server.take() {
            server.stop(&self.runtime);
        }
        disk::forget(self.scratch.path());
    }
}
