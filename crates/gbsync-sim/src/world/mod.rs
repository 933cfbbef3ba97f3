//! The world: one thread, devices and a server with real files, a network and a clock that it moves.
//!
//! Each step draws from streams of its own, one for what people do and one for what goes wrong, so that a step can be left
//! out without changing the others. Invariant: the same seed gives the same trace, byte for byte.

mod begun;
mod faults;
pub mod network;
mod office;
pub mod party;
mod stranger;
mod template;
pub mod time;
mod wire;

use crate::action;
use crate::disk;
use crate::invariant;
use crate::model::{Author, Model, State};
use crate::random::Random;
use anyhow::{Context, Result, bail};
use faults::Event;
pub use faults::Profile;
use gbsync_core::schema::Schema;
use network::Network;
use party::{DeviceParty, ServerParty};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use time::Time;
use tokio::runtime::Runtime;

/// Rounds of every device in which a healed world must come to rest.
const ROUNDS_TO_REST: u64 = 12;
/// Steps of the shortest world.
const FEWEST_STEPS: u64 = 30;
/// How many more the longest may have.
const MORE_STEPS: usize = 70;
/// Devices at most.
const DEVICES: usize = 6;

/// One run.
pub struct World {
    seed: u64,
    profile: Profile,
    schema: Option<Schema>,
    scratch: TempDir,
    runtime: Runtime,
    time: Time,
    network: Network,
    wire: wire::Wire,
    server: Option<ServerParty>,
    devices: Vec<DeviceParty>,
    model: Model,
    /// Copies of devices' files, with what had been saved by then.
    backups: Vec<(usize, PathBuf, Vec<String>)>,
    made: u64,
    /// What happened, a line a step.
    pub trace: Vec<String>,
    /// How often each thing happened.
    pub happened: BTreeMap<&'static str, u64>,
}

impl World {
    /// How many steps a seed has.
    pub fn steps(seed: u64) -> u64 {
        FEWEST_STEPS + Random::of(mix(seed, 4)).below(MORE_STEPS) as u64
    }

    /// A world with a server, devices, and something to sell.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(seed: u64, profile: Profile) -> Result<Self> {
        disk::install();
        let memory = Path::new("/dev/shm");
        let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let scratch = scratch.context("no folder for temporary files")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (time, network) = (Time::new(), Network::default());
        // Every other world has rules.
        let schema = match seed % 2 {
            0 => Some(Schema::parse(include_str!("../schema.toml")).map_err(|problems| anyhow::anyhow!("{problems}"))?),
            _ => None,
        };
        let server = ServerParty::start(scratch.path(), &time, mix(seed, 1), schema.clone(), &runtime)?;
        let mut world = Self {
            seed,
            profile,
            scratch,
            runtime,
            time,
            network,
            wire: wire::Wire::default(),
            server: Some(server),
            devices: Vec::new(),
            model: Model::new(schema.is_some()),
            schema,
            backups: Vec::new(),
            made: 0,
            trace: Vec::new(),
            happened: BTreeMap::new(),
        };
        let devices = 2 + Random::of(mix(seed, 2)).below(2);
        for _ in 0..devices {
            world.add_device(true)?;
        }
        let opening = action::opening("opening");
        world.save(0, opening)?;
        // In two of three worlds everybody has something to sell from the start.
        if !seed.is_multiple_of(3) {
            for place in 0..world.devices.len() {
                world.devices[place].begin_round()?;
                world.finish_round(place)?;
            }
        }
        Ok(world)
    }

    fn add_device(&mut self, is_copied: bool) -> Result<()> {
        let place = self.devices.len();
        let seed = mix(self.seed, 100 + place as u64);
        self.devices.push(DeviceParty::new(
            self.scratch.path(),
            place,
            &self.time,
            seed,
            self.schema.clone(),
            &self.network,
            is_copied,
        )?);
        Ok(())
    }

    fn server(&self) -> Result<&ServerParty> {
        self.server.as_ref().context("the world has a server")
    }

    fn note(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    fn say(&mut self, line: String) {
        self.trace.push(line);
    }

    /// Step number `step`.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn step(&mut self, step: u64) -> Result<()> {
        let mut schedule = Random::of(mix(self.seed, 1_000 + 2 * step));
        let mut workload = Random::of(mix(self.seed, 1_001 + 2 * step));
        let event = Event::draw(self.profile, &mut schedule);
        self.say(format!("{step} {event:?}"));
        self.happen(event, &mut schedule, &mut workload)?;
        self.after_cuts(&mut schedule)?;
        self.poll_all()?;
        self.after_cuts(&mut schedule)?;
        match self.check() {
            // Looking completes what was captured, which is a write: the disk may fail right there.
            Err(error) if is_of_the_disk(&error) => {
                self.after_cuts(&mut schedule)?;
                self.check()
            }
            checked => checked,
        }
    }

    /// Holds everything against the reference.
    fn check(&mut self) -> Result<()> {
        for device in self.devices.iter().filter(|device| device.is_changed()) {
            for (replaced, by) in replacements(device)? {
                self.model.replaced(replaced, by, Author::Device(device.place));
            }
        }
        let server = self.server.as_mut().context("the world has a server")?;
        let changes = disk::changes(&server.folder);
        if server.checked != Some(changes) {
            invariant::server(server, &mut self.model)?;
            server.checked = Some(changes);
        }
        self.wire.check(&self.model)?;
        for device in self.devices.iter_mut().filter(|device| device.is_changed()) {
            invariant::device(device, &self.model).with_context(|| format!("device {}", device.place))?;
            device.checked = Some(disk::changes(&device.folder));
        }
        Ok(())
    }

    /// Saves an operation on a device with plain SQL.
    fn save_by_sql(&mut self, place: usize, operation: crate::model::Operation, is_closed: bool) -> Result<()> {
        let token = operation.token.clone();
        self.model.operations.insert(token.clone(), operation.clone());
        if !is_closed {
            self.model.abandoned.insert(token.clone());
        }
        let device = &mut self.devices[place];
        match action::write_sql(device.app()?, &operation, is_closed) {
            Ok(()) => {
                device.saved.push(token.clone());
                self.note(if is_closed { "an operation was saved by SQL" } else { "a bracket was left behind" });
                self.say(format!("  device {place} saved {token} ({}) by SQL", operation.kind));
            }
            Err(_) => {
                self.note("an operation that SQL refused");
                self.say(format!("  device {place} could not save {token} by SQL"));
            }
        }
        Ok(())
    }

    /// Saves an operation on a device.
    fn save(&mut self, place: usize, operation: crate::model::Operation) -> Result<()> {
        let token = operation.token.clone();
        self.model.operations.insert(token.clone(), operation.clone());
        let device = &mut self.devices[place];
        match action::write(device.client()?, &operation) {
            Ok(()) => {
                device.saved.push(token.clone());
                self.say(format!("  device {place} saved {token} ({})", operation.kind));
            }
            Err(error) => {
                self.note("a save that failed");
                self.say(format!("  device {place} could not save {token}: {}", error.code()));
            }
        }
        Ok(())
    }

    /// What a device shows, for somebody who looks at it.
    fn view(&self, place: usize) -> Result<State> {
        let rows = self.devices[place].client()?.with_reader(|db| {
            let mut statement = db.prepare_cached("SELECT entity, id, payload FROM gbsync_records")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, String, String)>>>()
        })?;
        let mut state = State::new(self.schema.is_some());
        for (entity, id, payload) in rows {
            state.put(&entity, &id, serde_json::from_str(&payload)?);
        }
        Ok(state)
    }

    /// Lets every running round go on.
    fn poll_all(&mut self) -> Result<()> {
        for place in 0..self.devices.len() {
            let Some(ended) = self.devices[place].poll_round() else { continue };
            match ended {
                Ok(report) => {
                    self.say(format!("  device {place} synced: {} accepted, cursor {}", report.accepted, report.cursor));
                    self.note("a round that ended well");
                    if !report.parked.is_empty() {
                        self.note("a group was parked");
                    }
                }
                Err(error) => {
                    self.say(format!("  device {place} did not sync: {}", kind_of(&error)));
                    self.note("a round that failed");
                }
            }
        }
        Ok(())
    }

    /// Heals everything and lets every device sync until nothing is left to do.
    ///
    /// # Errors
    /// When the world does not come to rest, or rests on something broken.
    pub fn rest(&mut self) -> Result<()> {
        self.say("rest".into());
        self.after_cuts(&mut Random::of(mix(self.seed, 3)))?;
        disk::heal(&self.server()?.folder);
        self.devices.iter().for_each(|device| disk::heal(&device.folder));
        while self.network.len() > 0 {
            self.deliver_fairly()?;
        }
        for device in &mut self.devices {
            device.round = None;
            device.begun = None;
            device.party.off_ms.store(0, std::sync::atomic::Ordering::Relaxed);
        }
        for _ in 0..ROUNDS_TO_REST {
            self.time.pass(2 * 60 * 60 * 1000);
            for place in 0..self.devices.len() {
                self.devices[place].begin_round()?;
                self.finish_round(place)?;
            }
            self.check()?;
            if self.is_resting()? {
                break;
            }
        }
        for device in &self.devices {
            invariant::p10_live(device, &self.model)?;
        }
        invariant::p6_convergent(self.server()?, &self.devices)
    }

    fn is_resting(&self) -> Result<bool> {
        for device in &self.devices {
            let status = device.client()?.status()?;
            if status.pending_groups > 0 || status.cursor.0 != self.model.head() as u64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn finish_round(&mut self, place: usize) -> Result<()> {
        for _ in 0..10_000 {
            self.poll_all()?;
            if self.devices[place].round.is_none() {
                return Ok(());
            }
            if self.network.len() > 0 {
                self.deliver_fairly()?;
            } else {
                self.time.pass(1_000);
            }
        }
        bail!("P10: a round of device {place} does not end");
    }

    /// Ends the world.
    pub fn end(mut self) {
        self.devices.clear();
        if let Some(server) = self.server.take() {
            server.stop(&self.runtime);
        }
        disk::forget(self.scratch.path());
    }
}

/// Whether a disk failed that was made to fail.
fn is_of_the_disk(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.contains("disk I/O error") || text.contains("database or disk is full")
}

/// Which groups of a device were sealed in the place of which.
fn replacements(device: &DeviceParty) -> Result<Vec<(String, String)>> {
    let pairs = device.client()?.with_reader(|db| {
        let mut statement = db.prepare_cached("SELECT replaces, group_id FROM gbsync_outbox WHERE replaces IS NOT NULL")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    })?;
    Ok(pairs)
}

fn kind_of(error: &gbsync_client::SyncError) -> String {
    format!("{error:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// A seed for one purpose, from the seed of the run.
pub fn mix(seed: u64, purpose: u64) -> u64 {
    let mut random = Random::of(seed ^ purpose.wrapping_mul(0xA24B_AED4_963E_E407));
    random.next()
}
