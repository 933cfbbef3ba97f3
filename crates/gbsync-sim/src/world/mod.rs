//! The world: one thread, devices and a server with real files, a network and a clock that it moves.
//!
//! Each step draws from streams of its own, one for what people do and one for what goes wrong, so that a step can be left
//! out without changing the others. Invariant: the same seed gives the same trace, byte for byte.

mod anew;
mod coupon;
pub mod device;
mod event;
mod faults;
mod lineage;
mod mishap;
pub mod network;
mod office;
mod party;
mod people;
mod rest;
pub mod server;
mod shift;
pub mod sights;
pub mod staff;
mod stranger;
mod template;
pub mod time;
#[cfg(test)]
mod unsynced;
mod upgrade;
mod violation;
mod wire;

use crate::action;
use crate::disk;
use crate::invariant;
use crate::model::{Author, Model};
use crate::names;
use crate::random::Random;
use anyhow::{Context, Result};
use device::{Beginning, DeviceParty};
use event::Event;
pub use event::Profile;
use gbsync_core::schema::Schema;
use network::Network;
use server::ServerParty;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;
use time::Time;
use tokio::runtime::Runtime;

/// The spaces that a world may have.
pub const SPACES: [&str; 2] = ["shop", "market"];
/// Steps of the shortest world.
const FEWEST_STEPS: u64 = 12;
/// How many more the longest may have.
const MORE_STEPS: usize = 49;
/// And how many more where the server is put back: what that does to a sale takes several turns of everybody.
const STEPS_OF_A_LINEAGE: u64 = 16;
/// One in so many worlds has seven devices or eight.
const CROWDED_ONE_IN: usize = 24;
/// Devices at most.
const DEVICES: usize = 8;

/// One run.
pub struct World {
    seed: u64,
    profile: Profile,
    schema: Option<Schema>,
    scratch: TempDir,
    runtime: Runtime,
    time: Time,
    network: Network,
    /// What devices sent, in each space.
    wires: Vec<wire::Wire>,
    server: Option<ServerParty>,
    devices: Vec<DeviceParty>,
    /// The reference, of each space.
    models: Vec<Model>,
    /// Copies of devices' files, with what had been saved by then.
    backups: Vec<(usize, PathBuf, device::Tokens)>,
    /// What was kept of the server's past, and lost.
    lineage: lineage::Lineage,
    /// Who shares the devices, in some worlds.
    staff: Option<staff::Staff>,
    /// Devices that have reason to read the log anew.
    anew: BTreeSet<usize>,
    /// Groups that a person retried or amended, by device.
    decided: BTreeSet<(usize, String)>,
    made: u64,
    /// What happened, a line a step.
    pub trace: Vec<String>,
    /// How often each thing happened.
    pub happened: BTreeMap<&'static str, u64>,
}

impl World {
    /// How many steps a seed has.
    pub fn steps(seed: u64) -> u64 {
        let more = if lineage::is_put_back(seed) { STEPS_OF_A_LINEAGE } else { 0 };
        FEWEST_STEPS + more + Random::of(mix(seed, 4)).below(MORE_STEPS) as u64
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
        let is_shared = shift::is_shared(seed);
        let schema = if seed.is_multiple_of(2) { Some(rules_of(seed, names::FIRST)?) } else { None };
        let mut shape = Random::of(mix(seed, 2));
        let spaces = if shape.below(5) == 0 { 2 } else { 1 };
        let server = ServerParty::start(scratch.path(), spaces, &time, mix(seed, 1), schema.clone(), &runtime)?;
        let mut world = Self {
            seed,
            profile,
            scratch,
            runtime,
            time,
            network,
            wires: (0..spaces).map(|_| wire::Wire::default()).collect(),
            server: Some(server),
            devices: Vec::new(),
            models: vec![Model::new(schema.is_some()); spaces],
            schema,
            backups: Vec::new(),
            lineage: lineage::Lineage::default(),
            staff: None,
            anew: BTreeSet::new(),
            decided: BTreeSet::new(),
            made: 0,
            trace: Vec::new(),
            happened: BTreeMap::new(),
        };
        world.note(if world.schema.is_some() { "a world with rules" } else { "a world without rules" });
        let devices = if shape.below(CROWDED_ONE_IN) == 0 { 7 + shape.below(2) } else { 2 + shape.below(2) }.max(2 * spaces);
        for place in 0..devices {
            world.add_device(place % spaces, world.schema.clone(), true)?;
        }
        if spaces == 2 {
            world.note("a world of two spaces");
        }
        if devices >= 7 {
            world.note("a world of seven devices or more");
        }
        if is_shared {
            world.open_shop()?;
        }
        for space in 0..spaces {
            let opening = action::opening(&format!("opening{space}"), world.schema.is_some());
            world.save(space, opening)?;
        }
        // Everybody begins with the same: what is done from then on meets.
        for place in 0..devices {
            world.devices[place].begin_round()?;
            world.finish_round(place)?;
        }
        world.check()?;
        Ok(world)
    }

    fn beginning(&self, space: usize, schema: Option<Schema>) -> Beginning<'_> {
        let place = self.devices.len();
        Beginning {
            scratch: self.scratch.path(),
            place,
            space,
            time: &self.time,
            seed: mix(self.seed, 100 + place as u64),
            schema,
            network: &self.network,
        }
    }

    fn add_device(&mut self, space: usize, schema: Option<Schema>, is_copied: bool) -> Result<()> {
        self.devices.push(DeviceParty::new(self.beginning(space, schema), is_copied)?);
        Ok(())
    }

    /// The rules of this world.
    fn rules(&self, version: u64) -> Result<Schema> {
        rules_of(self.seed, version)
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
        if self.has_lineage() {
            self.with_failing_disks(&mut schedule, |world, _| world.befall_server(step))?;
        }
        self.say(format!("{step} {event:?}"));
        self.shift(step)?;
        self.read_anew(step)?;
        self.violate(step)?;
        self.mishap(step)?;
        self.give_coupon(step)?;
        self.with_failing_disks(&mut schedule, |world, schedule| world.happen(event, schedule, &mut workload))?;
        self.after_cuts(&mut schedule)?;
        self.with_failing_disks(&mut schedule, |world, _| world.poll_all())?;
        self.after_cuts(&mut schedule)?;
        let checked = self.with_failing_disks(&mut schedule, |world, _| world.check().map(|()| true))?;
        if checked.is_none() {
            // Looking completes what was captured, which is a write: the disk failed right there, as it was told to.
            self.after_cuts(&mut schedule)?;
            self.relieve_disks()?;
            self.check()?;
        }
        self.note_failures()
    }

    /// Runs something; `None` when a disk failed in it that was made to fail.
    fn with_failing_disks<T>(
        &mut self,
        random: &mut Random,
        run: impl FnOnce(&mut Self, &mut Random) -> Result<T>,
    ) -> Result<Option<T>> {
        let before = self.injected()?;
        match run(self, random) {
            Ok(done) => Ok(Some(done)),
            Err(error) if is_of_the_disk(&error) && self.injected()? > before => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every disk has room, and can be read.
    fn relieve_disks(&self) -> Result<()> {
        self.devices.iter().for_each(|device| disk::relieve(&device.folder));
        disk::relieve(&self.server()?.folder);
        Ok(())
    }

    /// How many errors of disks were made so far.
    fn injected(&self) -> Result<u64> {
        let devices: u64 = self.devices.iter().map(|device| disk::errors(&device.folder)).sum();
        Ok(devices + disk::errors(&self.server()?.folder))
    }

    /// Holds everything that changed against the reference.
    fn check(&mut self) -> Result<()> {
        for place in 0..self.devices.len() {
            let device = &self.devices[place];
            if !device.is_changed() {
                continue;
            }
            let space = device.space;
            for (replaced, by) in replacements(device)? {
                let is_new = self.models[space].replaced(replaced.clone(), by, Author::Device(place));
                if is_new && !self.decided.contains(&(place, replaced)) {
                    self.note("what waited for a parked group was sealed anew");
                }
            }
        }
        let heads: Vec<usize> = self.models.iter().map(Model::head).collect();
        let server = self.server.as_mut().context("the world has a server")?;
        let changes = disk::changes(&server.folder);
        if server.checked != Some(changes) {
            let translated = |models: &[Model]| models.iter().map(|model| model.translated).sum::<usize>();
            let before = translated(&self.models);
            for (space, model) in self.models.iter_mut().enumerate() {
                invariant::server(server, SPACES[space], model)?;
            }
            server.checked = Some(changes);
            if let Some(staff) = &mut self.staff {
                staff.p9_accepted_as_its_authors(server.reader()?, self.schema.is_some())?;
            }
            (before..translated(&self.models)).for_each(|_| self.note("a group of an older schema was accepted"));
            self.note_what_came_back(&heads);
        }
        for (wire, model) in self.wires.iter_mut().zip(&self.models) {
            wire.check(model)?;
        }
        for device in self.devices.iter_mut().filter(|device| device.is_changed()) {
            let model = &self.models[device.space];
            invariant::device(device, model).with_context(|| format!("device {}", device.place))?;
            device.checked = Some(disk::changes(&device.folder));
        }
        Ok(())
    }

    /// Lets every running round go on.
    fn poll_all(&mut self) -> Result<()> {
        for place in 0..self.devices.len() {
            let Some(ended) = self.devices[place].poll_round() else { continue };
            match ended {
                Ok(report) => {
                    self.say(format!("  device {place} synced: {} accepted, cursor {}", report.accepted, report.cursor));
                    self.note("a round that ended well");
                    if self.devices[place].badge.as_ref().is_some_and(|badge| badge.wallet.take_renewed()) {
                        self.note("a device asked for another token and went on");
                    }
                }
                Err(error) => {
                    self.say(format!("  device {place} did not sync: {}", error.code()));
                    self.note("a round that failed");
                    self.p10_waits_for_sign_in(place, &error)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the world. Nobody looks at its files any more, so nothing is written to them when they are closed.
    pub fn end(mut self) {
        self.devices.iter().for_each(|device| disk::cut_after(&device.folder, 0));
        self.devices.clear();
        if let Some(server) = &self.server {
            disk::cut_after(&server.folder, 0);
        }
        if let Some(server) = self.server.take() {
            server.stop(&self.runtime);
        }
        disk::forget(self.scratch.path());
    }
}

/// The rules of half of the worlds, before and after an upgrade.
///
/// # Errors
/// When they cannot be read.
pub fn rules(version: u64) -> Result<Schema> {
    static RULES: OnceLock<[Schema; 2]> = OnceLock::new();
    of_version(version, &RULES, |text| Schema::parse(text).map_err(|problems| anyhow::anyhow!("{problems}")))
}

/// The rules of a world that has some. Where people share devices not everybody may do everything, and tables that nobody writes
/// to are left out: whoever opens a file reads their triggers.
fn rules_of(seed: u64, version: u64) -> Result<Schema> {
    static WITH_ROLES: OnceLock<[Schema; 2]> = OnceLock::new();
    let mut rules =
        if shift::is_shared(seed) { of_version(version, &WITH_ROLES, shift::with_roles)? } else { rules(version)? };
    if !coupon::has_coupons(seed) {
        rules.entities.retain(|entity, _| entity.as_str() != coupon::ENTITY);
    }
    Ok(rules)
}

fn of_version(version: u64, known: &OnceLock<[Schema; 2]>, read: fn(&str) -> Result<Schema>) -> Result<Schema> {
    let place = usize::from(version >= names::SECOND);
    if let Some(rules) = known.get() {
        return Ok(rules[place].clone());
    }
    let rules = [read(include_str!("../schema.toml"))?, read(include_str!("../schema-2.toml"))?];
    Ok(known.get_or_init(|| rules)[place].clone())
}

/// Whether a disk failed.
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

/// A seed for one purpose, from the seed of the run.
pub fn mix(seed: u64, purpose: u64) -> u64 {
    let mut random = Random::of(seed ^ purpose.wrapping_mul(0xA24B_AED4_963E_E407));
    random.next()
}
