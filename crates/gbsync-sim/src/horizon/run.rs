//! One seeded run: what people do, what syncs, what is retained, and what goes wrong with it.

use super::check;
use super::link::Link;
use crate::random::Random;
use crate::seeds::{Happened, scratch_folder};
use anyhow::{Context, Result, anyhow};
use gbsync_client::{Client, Config, Error, FixedToken, HttpTransport, Operation, Remote, SyncOptions};
use gbsync_core::fault;
use gbsync_core::id::SpaceId;
use gbsync_server::{
    NewToken, RetentionConfig, Server, ServerConfig, StoreLocation, Tokens, archives_of, retain, space_digest,
};
use rusqlite::Connection;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Steps of a run.
const STEPS: usize = 60;
/// Devices at most.
const DEVICES: usize = 5;
/// Rounds in which everybody with a network comes to rest.
const ROUNDS: usize = 8;

/// What unwinds through a party that is killed.
struct Killed;

/// What must happen at some time, or a run shows less than it says.
pub(super) const MUST_HAPPEN: &[&str] = &[
    "a group was sealed",
    "a note was deleted",
    "a round ended well",
    "a round failed",
    "a device was killed in a round",
    "a device was opened again",
    "a device came later",
    "a snapshot was asked for",
    "a download ended early",
    "a device behind the horizon came to the head",
    "entries left the log",
    "retention was killed",
    "a run came to rest",
];

/// The server's store, seen from outside.
pub(super) struct Store {
    folder: PathBuf,
    space: SpaceId,
}

impl Store {
    fn open(&self) -> Result<Connection> {
        Ok(Connection::open(self.folder.join("gbsync.db"))?)
    }

    /// Head and horizon, and which entries the log has.
    pub(super) fn log(&self) -> Result<(u64, u64, BTreeSet<u64>)> {
        let store = self.open()?;
        let (head, horizon) =
            store.query_row("SELECT head, horizon FROM spaces", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut statement = store.prepare("SELECT place & 0xffffffffff FROM log")?;
        let log = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok((head, horizon, log))
    }

    /// What the log says behind a place of notes that were deleted: their ids, with the entries.
    fn deleted_after(&self, seq: u64) -> Result<Vec<(String, u64)>> {
        let store = self.open()?;
        let sql = "SELECT c.value ->> '$.id', l.place & 0xffffffffff FROM log AS l, json_each(l.entry, '$.changes') AS c
                    WHERE l.place & 0xffffffffff > ?1 AND c.value ->> '$.action' = 'delete'";
        let mut statement = store.prepare(sql)?;
        Ok(statement.query_map([seq], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
    }

    /// The notes that are there.
    pub(super) fn live(&self) -> Result<Vec<String>> {
        let store = self.open()?;
        let mut statement = store.prepare("SELECT id FROM records WHERE entity = 'notes' AND payload IS NOT NULL")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// The entries of all archives that have their name.
    pub(super) fn archived(&self) -> Result<BTreeSet<u64>> {
        let folder = archives_of(&self.folder.join("archives"), &self.space);
        let mut archived = BTreeSet::new();
        let Ok(files) = std::fs::read_dir(folder) else { return Ok(archived) };
        for file in files {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "zst") {
                continue;
            }
            let text = zstd::stream::decode_all(std::fs::read(&path)?.as_slice())?;
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                archived.extend(serde_json::from_slice::<Value>(line)?["entry"]["seq"].as_u64());
            }
        }
        Ok(archived)
    }
}

/// A device, open or killed a moment ago.
pub(super) struct Device {
    pub(super) place: usize,
    /// Groups that were sealed here.
    pub(super) sealed: usize,
    client: Option<Client>,
    path: PathBuf,
    link: Arc<Link>,
}

impl Device {
    pub(super) fn client(&self) -> Result<&Client> {
        self.client.as_ref().context("the device is off")
    }

    fn reopen(&mut self) -> Result<()> {
        self.client = None;
        self.client = Some(Client::open(Config::new(&self.path))?);
        Ok(())
    }
}

/// A run, while it goes on.
struct World {
    random: Random,
    runtime: Runtime,
    scratch: TempDir,
    store: Store,
    location: StoreLocation,
    server: Option<Server>,
    url: String,
    token: String,
    devices: Vec<Device>,
    /// The rows that the server had at a place of its log.
    known: BTreeMap<u64, String>,
    deleted: BTreeMap<String, u64>,
    noted: u64,
    made: usize,
    happened: Happened,
    trace: Vec<String>,
}

/// A run that has ended.
pub(super) struct Course {
    pub(super) trace: Vec<String>,
    pub(super) broken: Option<String>,
    pub(super) happened: Happened,
}

impl Course {
    /// Runs a seed.
    pub(super) fn run(seed: u64) -> Result<Self> {
        let mut world = World::new(seed)?;
        let ran = world.live();
        let broken = ran.err().map(|error| format!("{error:#}"));
        if let Some(server) = world.server.take() {
            world.devices.clear();
            world.runtime.block_on(server.stop())?;
        }
        Ok(Self { trace: world.trace, broken, happened: world.happened })
    }
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let (scratch, mut random) = (scratch_folder()?, Random::of(seed));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let folder = scratch.path().join("server");
        let (space, location) = (SpaceId::new("shop")?, StoreLocation::from(folder.as_path()));
        let token = Tokens::open(&folder)?.create(NewToken::new(space.clone()))?.token.to_string();
        let mut config = ServerConfig::new(&folder);
        config.listen = ([127, 0, 0, 1], 0).into();
        config.snapshots.lag_groups = random.below(4) as u64;
        let server = runtime.block_on(Server::start(config))?;
        let url = server.url();
        let mut world = Self {
            random,
            runtime,
            scratch,
            store: Store { folder, space },
            location,
            server: Some(server),
            url,
            token,
            devices: Vec::new(),
            known: BTreeMap::new(),
            deleted: BTreeMap::new(),
            noted: 0,
            made: 0,
            happened: Happened::default(),
            trace: Vec::new(),
        };
        for _ in 0..3 {
            world.add_device()?;
        }
        Ok(world)
    }

    fn add_device(&mut self) -> Result<()> {
        let place = self.devices.len();
        let path = self.scratch.path().join(format!("device-{place}.db"));
        let remote = Remote { server: self.url.clone(), space: self.store.space.clone() };
        let client = Some(Client::create(Config::new(&path), &remote)?);
        let link = Arc::new(Link::new(HttpTransport::new(&self.url, Arc::new(FixedToken(self.token.clone())))?));
        self.devices.push(Device { place, sealed: 0, client, path, link });
        Ok(())
    }

    fn note(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.happened.entry(what).or_default() += times;
        }
    }

    fn live(&mut self) -> Result<()> {
        for step in 0..STEPS {
            let place = self.random.below(self.devices.len());
            let what = self.random.below(20);
            self.trace.push(format!("{step} {what} at device {place}"));
            match what {
                0..=9 => self.operate(place)?,
                10..=14 => self.sync_badly(place)?,
                15..=17 => self.retain()?,
                18 if self.devices.len() < DEVICES => {
                    self.add_device()?;
                    self.note("a device came later", 1);
                }
                _ => {
                    self.devices[place].reopen()?;
                    self.note("a device was opened again", 1);
                }
            }
        }
        self.rest()
    }

    /// Makes, edits or deletes a note; nobody makes one anew.
    fn operate(&mut self, place: usize) -> Result<()> {
        self.made += 1;
        let (made, what, pick) = (self.made, self.random.below(6), self.random.next());
        let device = &mut self.devices[place];
        let notes: Vec<String> = device.client()?.with_reader(|db| {
            let mut statement = db.prepare("SELECT id FROM gbsync_records WHERE entity = 'notes' ORDER BY id")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })?;
        let note = notes.get(usize::try_from(pick % notes.len().max(1) as u64)?).cloned();
        let write = |op: &mut Operation| match (what, &note) {
            (1 | 2, Some(note)) => op.upsert("notes", note, format!(r#"{{"w":{made}}}"#)),
            (3, Some(note)) => op.patch("notes", note, format!(r#"{{"p":{made}}}"#)),
            (4, Some(note)) => op.delete("notes", note),
            _ => op.upsert("notes", &format!("n{made:04}"), format!(r#"{{"w":{made}}}"#)),
        };
        device.client()?.operation::<Error>("note", &format!("o{made}"), write)?;
        device.sealed += 1;
        self.note("a group was sealed", 1);
        self.note("a note was deleted", u64::from(what == 4 && note.is_some()));
        Ok(())
    }

    /// A round in which something may go wrong with the link, or the device is killed.
    fn sync_badly(&mut self, place: usize) -> Result<()> {
        let passing = (self.random.below(4) == 0).then(|| 1 + self.random.below(6) as i64);
        let cut_at = (self.random.below(2) == 0).then(|| 1 + self.random.below(1_600) as u64);
        let kills = (self.random.below(4) == 0).then(|| self.random.below(3));
        self.devices[place].link.fail(passing, cut_at);
        self.sync(place, kills)?;
        self.devices[place].link.fail(None, None);
        check::rows_are_the_servers(&self.devices[place], &self.known)
    }

    /// A round; killed at the place with this number, if it comes so far. Answers whether it ended well.
    fn sync(&mut self, place: usize, kills: Option<usize>) -> Result<bool> {
        let device = &self.devices[place];
        let (client, link) = (device.client()?.clone(), device.link.clone());
        let options = SyncOptions { attempts: 1, ignores_backoff: true, snapshot_groups: 8, ..SyncOptions::default() };
        let round = || self.runtime.block_on(client.sync(link.as_ref(), &options));
        let (_, horizon, _) = self.store.log()?;
        let is_behind = client.status()?.cursor.0 < horizon;
        let (downloads, cut) = (link.downloads(), link.cut());
        let ended = mortal(kills, round);
        drop(client);
        let (downloads, cut) = (link.downloads() - downloads, link.cut() - cut);
        self.note("a snapshot was asked for", downloads);
        self.note("a download ended early", cut);
        let is_well = match ended {
            None => {
                self.note("a device was killed in a round", 1);
                self.trace.push("  killed".into());
                self.devices[place].reopen()?;
                false
            }
            Some(Ok(report)) => {
                self.note("a round ended well", 1);
                self.note("a device behind the horizon came to the head", u64::from(is_behind));
                self.trace.push(format!("  synced: {} accepted, cursor {}", report.accepted, report.cursor));
                true
            }
            Some(Err(error)) => {
                self.note("a round failed", 1);
                self.trace.push(format!("  did not sync: {error}"));
                false
            }
        };
        self.note_head()?;
        Ok(is_well)
    }

    /// Notes what the server has now, and what was deleted since.
    fn note_head(&mut self) -> Result<()> {
        let digest = space_digest(&self.location, &self.store.space)?;
        self.known.insert(digest.head.0, format!("{} {}", digest.records, digest.digest));
        for (id, seq) in self.store.deleted_after(self.noted)? {
            self.deleted.entry(id).or_insert(seq);
        }
        self.noted = digest.head.0;
        check::deletions_stay(&self.store, &self.deleted)
    }

    /// Lets entries leave the log, and may be killed in it.
    fn retain(&mut self) -> Result<()> {
        let entries = Some(self.random.below(12) as u64);
        let config = RetentionConfig { entries, ..RetentionConfig::default() };
        let kills = (self.random.below(2) == 0).then(|| self.random.below(3));
        let (_, before, _) = self.store.log()?;
        let location = self.location.clone();
        match mortal(kills, || retain(&location, &config, None, false)) {
            None => self.note("retention was killed", 1),
            Some(retained) => drop(retained?.ok_or_else(|| anyhow!("somebody else retains"))?),
        }
        let (head, horizon, _) = self.store.log()?;
        self.note("entries left the log", horizon - before);
        self.trace.push(format!("  the horizon is {horizon} of {head}"));
        check::nothing_left_the_log_alone(&self.store)
    }

    /// Everybody has a network: all comes to rest, and everybody has the same.
    fn rest(&mut self) -> Result<()> {
        self.trace.push("rest".into());
        for _ in 0..ROUNDS {
            for place in 0..self.devices.len() {
                self.sync(place, None)?;
                check::rows_are_the_servers(&self.devices[place], &self.known)?;
            }
        }
        let (head, ..) = self.store.log()?;
        for device in &self.devices {
            check::everything_is_decided(device, head)?;
            check::rows_are_the_servers(device, &self.known)?;
        }
        self.note("a run came to rest", 1);
        check::nothing_left_the_log_alone(&self.store)
    }
}

/// Runs something; `None` when it was killed at the place with this number among those that it came to.
fn mortal<T>(kills: Option<usize>, run: impl FnOnce() -> T) -> Option<T> {
    let Some(at) = kills else { return Some(run()) };
    let seen = AtomicUsize::new(0);
    let hook: fault::Hook = Arc::new(move |_| {
        if seen.fetch_add(1, Ordering::SeqCst) == at {
            resume_unwind(Box::new(Killed));
        }
    });
    match catch_unwind(AssertUnwindSafe(|| fault::with_hook(Some(hook), run))) {
        Ok(done) => Some(done),
        Err(unwound) if unwound.is::<Killed>() => None,
        Err(unwound) => resume_unwind(unwound),
    }
}
