//! The parties: a server and devices, each with its files, which crash and come back.

use super::network::Network;
use super::template;
use super::time::{Party, Time};
use crate::disk::{self, Loss};
use crate::random::Random;
use anyhow::{Context, Result};
use gbsync_client::{Client, Config, Error, SyncError, SyncOptions, SyncReport, Transport};
use gbsync_core::id::{Actor, Role, SpaceId};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_server::{LocalServer, NewToken, ServerConfig, Tokens};
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Bytes of a request that a sale fits into, and a group of fifty records does not.
const SMALL_REQUEST_BYTES: u64 = 4_096;
/// Records of a page that a sale fits into, and a group of fifty records does not.
const SMALL_PAGE_RECORDS: u64 = 10;

type Round = Pin<Box<dyn Future<Output = Result<SyncReport, SyncError>>>>;

/// The server.
pub struct ServerParty {
    /// Its folder.
    pub folder: PathBuf,
    /// Its clock.
    pub party: Party,
    /// The token of the devices.
    pub token: String,
    /// The token of the back office.
    pub admin: String,
    /// The token of another space.
    pub annex: String,
    limits: Limits,
    schema: Option<Schema>,
    local: Option<LocalServer>,
    reader: Option<Connection>,
    /// The changes of its files when it was last held against the reference.
    pub checked: Option<u64>,
}

/// A device.
pub struct DeviceParty {
    /// Its place among the devices.
    pub place: usize,
    /// Its folder.
    pub folder: PathBuf,
    /// Its clock.
    pub party: Party,
    /// Its client; `None` while it is off.
    pub client: Option<Client>,
    /// The round that is running.
    pub round: Option<Round>,
    /// An operation that somebody has begun and not saved.
    pub begun: Option<(gbsync_client::Operation, crate::model::Operation)>,
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
    /// The connection of a program without a binding.
    app: Option<Connection>,
    schema: Option<Schema>,
    transport: Arc<dyn Transport>,
}

/// The space of every world.
pub fn space() -> SpaceId {
    SpaceId::new("shop").expect("a name")
}

impl ServerParty {
    /// Makes the server's folder and starts it.
    pub fn start(scratch: &Path, time: &Time, seed: u64, schema: Option<Schema>, runtime: &Runtime) -> Result<Self> {
        let folder = scratch.join("server");
        let tokens = Tokens::open(&folder)?;
        let new = || NewToken { space: space(), roles: Vec::new(), actor: None, device: None };
        let token = tokens.create(new())?.token.to_string();
        let office = NewToken { roles: vec![Role::new("admin")?], actor: Some(Actor::new("ann")?), ..new() };
        let admin = tokens.create(office)?.token.to_string();
        let annex = tokens.create(NewToken { space: SpaceId::new("annex")?, ..new() })?.token.to_string();
        // In every other world requests are so small that larger groups travel in parts, both ways.
        let request_bytes = if seed.is_multiple_of(2) { SMALL_REQUEST_BYTES } else { Limits::default().request_bytes };
        let limits = Limits { request_bytes, ..Limits::default() };
        let mut server = Self {
            folder,
            party: time.party(seed),
            token,
            admin,
            annex,
            limits,
            schema,
            local: None,
            reader: None,
            checked: None,
        };
        server.open(runtime)?;
        Ok(server)
    }

    fn open(&mut self, runtime: &Runtime) -> Result<()> {
        let (clock, random) = (self.party.clone(), self.party.clone());
        let environment = gbsync_server::Environment::new(move || clock.clock_ms(), move |bytes| random.fill_random(bytes));
        let config = ServerConfig {
            environment,
            limits: self.limits,
            schema: self.schema.clone(),
            ..ServerConfig::new(&self.folder)
        };
        self.local = Some(runtime.block_on(LocalServer::open(config)).context("P4: the server does not open its store")?);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        self.reader = Some(Connection::open_with_flags(self.folder.join("gbsync.db"), flags)?);
        self.checked = None;
        Ok(())
    }

    /// Somebody who looks at its database.
    pub fn reader(&self) -> Result<&Connection> {
        self.reader.as_ref().context("the server is off")
    }

    /// The running server.
    pub fn local(&self) -> Result<&LocalServer> {
        self.local.as_ref().context("the server is off")
    }

    /// Loses power, or is killed, and comes back.
    pub fn crash(&mut self, loss: Loss, random: &mut Random, runtime: &Runtime) -> Result<()> {
        disk::cut_after(&self.folder, 0);
        self.reader = None;
        if let Some(local) = self.local.take() {
            // It cannot close its store properly: that is the point.
            let _ = runtime.block_on(local.close());
        }
        put_image(&self.folder, loss, random)?;
        self.open(runtime)
    }

    /// Stops for good.
    pub fn stop(mut self, runtime: &Runtime) {
        self.reader = None;
        if let Some(local) = self.local.take() {
            let _ = runtime.block_on(local.close());
        }
    }
}

impl DeviceParty {
    /// A new device, by a copy of a template or made by the client itself.
    pub fn new(
        scratch: &Path,
        place: usize,
        time: &Time,
        seed: u64,
        schema: Option<Schema>,
        network: &Network,
        is_copied: bool,
    ) -> Result<Self> {
        let folder = scratch.join(format!("device-{place}"));
        std::fs::create_dir_all(&folder)?;
        let mut device = Self {
            place,
            folder,
            party: time.party(seed),
            client: None,
            round: None,
            begun: None,
            saved: Vec::new(),
            numbers: BTreeMap::new(),
            closed: BTreeSet::new(),
            owners: BTreeMap::new(),
            checked: None,
            app: None,
            schema,
            transport: network.transport(),
        };
        if is_copied {
            let ids = [device.party.id(), device.party.id()];
            template::write(&device.file(), device.schema.as_ref(), &ids)?;
        }
        device.open()?;
        Ok(device)
    }

    /// A device from a copy of another one's files.
    pub fn copy_of(other: &Self, scratch: &Path, place: usize, time: &Time, seed: u64, network: &Network) -> Result<Self> {
        let folder = scratch.join(format!("device-{place}"));
        std::fs::create_dir_all(&folder)?;
        disk::write_image(&other.folder, Loss::None, &mut Random::of(0), &folder)?;
        let mut device = Self {
            place,
            folder,
            party: time.party(seed),
            client: None,
            round: None,
            begun: None,
            saved: other.saved.clone(),
            numbers: other.numbers.clone(),
            closed: BTreeSet::new(),
            owners: BTreeMap::new(),
            checked: None,
            app: None,
            schema: other.schema.clone(),
            transport: network.transport(),
        };
        device.open()?;
        Ok(device)
    }

    fn open(&mut self) -> Result<()> {
        let config =
            || Config { schema: self.schema.clone(), ..Config::in_environment(self.file(), self.party.environment()) };
        let client = match Client::open(config()) {
            // Power was lost before anything was there.
            Err(Error::NotInitialized { .. }) if self.saved.is_empty() => Client::create(config(), &template::remote()),
            opened => opened,
        };
        self.client = Some(client.context("P4: the device does not open its file")?);
        self.checked = None;
        Ok(())
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

    fn close(&mut self) {
        disk::cut_after(&self.folder, 0);
        self.round = None;
        self.begun = None;
        self.app = None;
        self.client = None;
    }

    /// Whether its files changed since they were last held against the reference.
    pub fn is_changed(&self) -> bool {
        self.checked != Some(disk::changes(&self.folder))
    }

    /// Its database.
    pub fn file(&self) -> PathBuf {
        self.folder.join("till.db")
    }

    /// The running client.
    pub fn client(&self) -> Result<&Client> {
        self.client.as_ref().context("the device is off")
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
        let round = self.round.as_mut()?;
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match round.as_mut().poll(&mut context) {
            std::task::Poll::Ready(ended) => {
                self.round = None;
                Some(ended)
            }
            std::task::Poll::Pending => None,
        }
    }

    /// Loses power, or is killed, and comes back.
    pub fn crash(&mut self, loss: Loss, random: &mut Random) -> Result<()> {
        self.close();
        put_image(&self.folder, loss, random)?;
        self.open()
    }

    /// Keeps a copy of the files, as a backup does.
    pub fn backup(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        Ok(disk::write_image(&self.folder, Loss::None, &mut Random::of(0), to)?)
    }

    /// Puts a copy back in the place of the files.
    pub fn restore(&mut self, from: &Path, saved: Vec<String>) -> Result<()> {
        self.close();
        disk::forget(&self.folder);
        put_files(from, &self.folder)?;
        self.saved = saved;
        self.closed.clear();
        self.owners.clear();
        self.open()
    }
}

/// Makes a folder's files what a crash leaves of them, in place: they stay the same files to the system.
fn put_image(folder: &Path, loss: Loss, random: &mut Random) -> Result<()> {
    let image = folder.with_extension("image");
    std::fs::create_dir_all(&image)?;
    disk::write_image(folder, loss, random, &image)?;
    disk::forget(folder);
    put_files(&image, folder)?;
    Ok(std::fs::remove_dir_all(&image)?)
}

fn put_files(from: &Path, folder: &Path) -> Result<()> {
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        let is_sqlite = path.to_str().is_some_and(|path| ["-wal", "-shm", "-journal"].iter().any(|end| path.ends_with(end)));
        if is_sqlite {
            std::fs::remove_file(path)?;
        }
    }
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::write(folder.join(file.file_name()), std::fs::read(file.path())?)?;
    }
    Ok(())
}
