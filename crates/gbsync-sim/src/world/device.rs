//! A device, with its file, which crashes and comes back.

use super::network::Network;
use super::party::{Mortal, put_files, put_image};
use super::server::space_id;
use super::staff::Badge;
use super::time::{Party, Time};
use super::{SPACES, template};
use crate::disk::{self, Loss};
use crate::model::Operation;
use crate::names;
use crate::random::Random;
use anyhow::{Context, Result};
use gbsync_client::{Client, Config, Error, Remote, SyncError, SyncOptions, SyncReport, Transport};
use gbsync_core::id::Actor;
use gbsync_core::schema::Schema;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, Wake, Waker};

type Round = Pin<Box<dyn Future<Output = Result<SyncReport, SyncError>>>>;

/// Records of a page that a sale fits into, and a group of fifty records does not.
const SMALL_PAGE_RECORDS: u64 = 10;
/// How long accepted groups are kept.
const RETAINED_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How often a device may die while it opens its file, before that is a bug.
const DEATHS_WHILE_OPENING: u32 = 3;

/// Whether a round asked to be polled again while it was polled.
#[derive(Default)]
struct Turn(AtomicBool);

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An operation that is open on a device: somebody looks at a form.
pub struct Staged {
    /// What the client holds of it.
    pub context: gbsync_client::Operation,
    /// What it is.
    pub operation: Operation,
    /// Where the device was in the log when it was opened.
    pub cursor: u64,
}

/// A device.
pub struct DeviceParty {
    /// Its place among the devices.
    pub place: usize,
    /// Its space, by number.
    pub space: usize,
    /// Its folder.
    pub folder: PathBuf,
    /// Its clock.
    pub party: Party,
    /// Where it is killed.
    pub mortal: Mortal,
    /// Its client; `None` while it is off.
    pub client: Option<Client>,
    /// The round that is running.
    pub round: Option<Round>,
    /// The operation that is open.
    pub staged: Option<Staged>,
    /// Tokens of operations that its app was told are saved, in order.
    pub saved: Vec<String>,
    /// The numbers of its groups that were ever seen, by epoch.
    pub numbers: BTreeMap<String, BTreeSet<u64>>,
    /// Tokens of operations that somebody closed, in this life of its file: after a week they leave it.
    pub closed: BTreeSet<String>,
    /// Whose number is which, by epoch, in this life of its file.
    pub owners: BTreeMap<(String, u64), String>,
    /// The changes of its files when it was last held against the reference.
    pub checked: Option<u64>,
    /// Who is signed in.
    pub badge: Option<Badge>,
    /// The connection of a program without a binding.
    app: Option<Connection>,
    schema: Option<Schema>,
    transport: Arc<dyn Transport>,
}

/// What a device begins with.
pub struct Beginning<'a> {
    /// Where the folders are.
    pub scratch: &'a Path,
    /// Its place among the devices.
    pub place: usize,
    /// Its space, by number.
    pub space: usize,
    /// The world's time.
    pub time: &'a Time,
    /// Its seed.
    pub seed: u64,
    /// The rules of its app.
    pub schema: Option<Schema>,
    /// What it sends with.
    pub network: &'a Network,
}

/// Tokens of operations: those that were saved, and those that somebody closed.
pub type Tokens = (Vec<String>, BTreeSet<String>);

impl DeviceParty {
    /// A new device, by a copy of a template or made by the client itself.
    pub fn new(beginning: Beginning<'_>, is_copied: bool) -> Result<Self> {
        let mut device = Self::off(beginning)?;
        if is_copied {
            let ids = [device.party.id(), device.party.id()];
            template::write(&device.file(), &device.remote(), device.schema.as_ref(), &ids)?;
        }
        device.open(&mut Random::of(0))?;
        Ok(device)
    }

    /// A device from a copy of another one's files.
    pub fn copy_of(other: &Self, beginning: Beginning<'_>) -> Result<Self> {
        let mut device = Self::off(beginning)?;
        disk::write_image(&other.folder, Loss::None, &mut Random::of(0), &device.folder)?;
        (device.saved, device.numbers) = (other.saved.clone(), other.numbers.clone());
        // What left the file a week after it was closed is not in the copy either.
        device.closed.clone_from(&other.closed);
        device.schema.clone_from(&other.schema);
        device.badge.clone_from(&other.badge);
        device.open(&mut Random::of(0))?;
        Ok(device)
    }

    fn off(beginning: Beginning<'_>) -> Result<Self> {
        let Beginning { scratch, place, space, time, seed, schema, network } = beginning;
        let folder = scratch.join(format!("device-{place}"));
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            place,
            space,
            folder,
            party: time.party(seed),
            mortal: Mortal::default(),
            client: None,
            round: None,
            staged: None,
            saved: Vec::new(),
            numbers: BTreeMap::new(),
            closed: BTreeSet::new(),
            owners: BTreeMap::new(),
            checked: None,
            badge: None,
            app: None,
            schema,
            transport: network.transport(space),
        })
    }

    fn remote(&self) -> Remote {
        Remote { server: "http://world".into(), space: space_id(SPACES[self.space]) }
    }

    fn open(&mut self, random: &mut Random) -> Result<()> {
        for _ in 0..DEATHS_WHILE_OPENING {
            let config =
                || Config { schema: self.schema.clone(), ..Config::in_environment(self.file(), self.party.environment()) };
            let opening = || match Client::open(config()) {
                // Power was lost before anything was there.
                Err(Error::NotInitialized { .. }) if self.saved.is_empty() => Client::create(config(), &self.remote()),
                opened => opened,
            };
            if let Some(client) = self.mortal.live(&self.folder, opening) {
                self.client = Some(client.context("P4: the device does not open its file")?);
                self.checked = None;
                return self.show_badge();
            }
            put_image(&self.folder, Loss::None, random)?;
        }
        anyhow::bail!("P10: the device dies whenever it opens its file")
    }

    /// Its client knows who is signed in, or that nobody is.
    pub fn show_badge(&self) -> Result<()> {
        let client = self.client()?;
        match &self.badge {
            Some(badge) => client.sign_in(Actor::new(badge.person)?, badge.wallet.clone()),
            None => client.sign_out(),
        }
        Ok(())
    }

    /// Whether its files changed since they were last held against the reference.
    pub fn is_changed(&self) -> bool {
        self.checked != Some(disk::changes(&self.folder))
    }

    /// The version of its app's schema; that of the first ones where it has none.
    pub fn version(&self) -> u64 {
        self.schema.as_ref().map_or(names::FIRST, |schema| schema.version)
    }

    /// The rules of its app.
    pub fn schema(&self) -> Option<&Schema> {
        self.schema.as_ref()
    }

    /// Another version of its app is installed, whose first start may die halfway.
    pub fn upgrade(&mut self, schema: Schema, random: &mut Random, dies: Option<&'static str>) -> Result<()> {
        self.schema = Some(schema);
        self.crash(Loss::None, random, dies)
    }

    /// Its database.
    pub fn file(&self) -> PathBuf {
        self.folder.join("till.db")
    }

    /// The running client.
    pub fn client(&self) -> Result<&Client> {
        self.client.as_ref().context("the device is off")
    }

    /// The connection of a program without a binding, as its driver opens it.
    pub fn app(&mut self) -> Result<&Connection> {
        let app = match self.app.take() {
            Some(app) => app,
            None => {
                let app = Connection::open(self.file())?;
                app.pragma_update(None, "synchronous", "FULL")?;
                app
            }
        };
        Ok(self.app.insert(app))
    }

    /// Begins a round of sync if none runs.
    pub fn begin_round(&mut self) -> Result<bool> {
        if self.round.is_some() {
            return Ok(false);
        }
        let (client, transport) = (self.client()?.clone(), self.transport.clone());
        // Every other device gives up after one answer that is lost, and the log tells it what became of its groups.
        let attempts = if self.place.is_multiple_of(2) { 1 } else { 2 };
        // The others read the log in pages that a large group does not fit into.
        let page_records = if self.place % 2 == 1 { SMALL_PAGE_RECORDS } else { SyncOptions::default().page_records };
        self.round = Some(Box::pin(async move {
            let options = SyncOptions { attempts, page_records, ..SyncOptions::default() };
            client.sync(transport.as_ref(), &options).await
        }));
        Ok(true)
    }

    /// Lets the round go on as far as it can; its end if it came.
    pub fn poll_round(&mut self) -> Option<Result<SyncReport, SyncError>> {
        let mut round = self.round.take()?;
        let turn = Arc::new(Turn::default());
        let waker = Waker::from(turn.clone());
        let mut task = Task::from_waker(&waker);
        loop {
            // Who is killed has no round any more.
            match self.mortal.live(&self.folder, || round.as_mut().poll(&mut task))? {
                Poll::Ready(ended) => return Some(ended),
                // It only let others go first.
                Poll::Pending if turn.0.swap(false, Ordering::Relaxed) => {}
                Poll::Pending => {
                    self.round = Some(round);
                    return None;
                }
            }
        }
    }

    fn close(&mut self) {
        disk::cut_after(&self.folder, 0);
        self.mortal.fate().armed = None;
        self.round = None;
        self.staged = None;
        self.app = None;
        self.client = None;
    }

    /// Loses power, or is killed, and comes back; perhaps it is to die again on its way.
    pub fn crash(&mut self, loss: Loss, random: &mut Random, dies_again: Option<&'static str>) -> Result<()> {
        self.close();
        put_image(&self.folder, loss, random)?;
        self.mortal.fate().armed = dies_again;
        self.open(random)
    }

    /// Is closed as a program ends, and opened again; not opened where power is lost while it is closed.
    pub fn restart(&mut self) -> Result<bool> {
        (self.round, self.staged, self.app, self.client) = (None, None, None, None);
        disk::wait_until_closed(&self.folder)?;
        if disk::is_cut(&self.folder) {
            return Ok(false);
        }
        disk::heal(&self.folder);
        self.open(&mut Random::of(0)).map(|()| true)
    }

    /// Keeps a copy of the files, as a backup does.
    pub fn backup(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        Ok(disk::write_image(&self.folder, Loss::None, &mut Random::of(0), to)?)
    }

    /// The groups that it has, but for those that were accepted so long ago that it may forget them.
    pub fn kept_groups(&self) -> Result<Vec<String>> {
        let before = self.party.clock_ms().saturating_sub(RETAINED_MS);
        Ok(self.client()?.with_reader(|db| {
            let sql = "SELECT group_id FROM gbsync_outbox WHERE state <> 'accepted' OR decided_at > ?1";
            db.prepare_cached(sql)?.query_map([before], |row| row.get(0))?.collect()
        })?)
    }

    /// Puts a copy back in the place of the files.
    pub fn restore(&mut self, from: &Path, (saved, closed): Tokens) -> Result<()> {
        self.close();
        disk::wait_until_closed(&self.folder)?;
        disk::forget(&self.folder);
        put_files(from, &self.folder)?;
        (self.saved, self.closed) = (saved, closed);
        self.owners.clear();
        self.open(&mut Random::of(0))
    }
}
