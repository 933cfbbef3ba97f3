//! The server, with its files, which crashes and comes back.

use super::lineage::Way;
use super::party::{Mortal, put_files, put_image};
use super::template::{self, ServerTemplate};
use super::time::{Party, Time};
use crate::disk::{self, Loss};
use crate::names;
use crate::random::Random;
use anyhow::{Context, Result};
use gbsync_core::fault;
use gbsync_core::id::SpaceId;
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_server::{LocalAnswer, LocalServer, ServerConfig, Tokens};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// Bytes of a request that a sale fits into, and a group of fifty records does not.
const SMALL_REQUEST_BYTES: u64 = 4_096;

/// How long groups wait for what devices bring back after the server was put back: over before anybody comes to rest, or after
/// everybody came.
const HEAL_WINDOWS_MS: [u64; 2] = [60 * 60 * 1000, 5 * 60 * 60 * 1000];

/// The tokens of a space.
#[derive(Clone)]
pub struct SpaceTokens {
    /// Of its devices.
    pub device: String,
    /// Of its back office.
    pub admin: String,
}

/// The server.
pub struct ServerParty {
    /// Its folder.
    pub folder: PathBuf,
    /// Where it is killed.
    pub mortal: Mortal,
    /// The changes of its files when it was last held against the reference.
    pub checked: Option<u64>,
    /// The tokens of each space.
    pub tokens: Vec<SpaceTokens>,
    /// The token of a space that has no devices.
    pub annex: String,
    /// Its clock.
    pub party: Party,
    limits: Limits,
    heal_window_ms: u64,
    schema: Option<Schema>,
    local: Option<LocalServer>,
    reader: Option<Connection>,
    office: Option<Tokens>,
}

impl ServerParty {
    /// Makes the server's folder with some spaces and starts it.
    pub fn start(
        scratch: &Path,
        spaces: usize,
        time: &Time,
        seed: u64,
        schema: Option<Schema>,
        runtime: &Runtime,
    ) -> Result<Self> {
        let folder = scratch.join("server");
        let ServerTemplate { bytes, tokens, annex } = template::server(spaces)?;
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("gbsync.db"), bytes)?;
        // In every other world requests are so small that larger groups travel in parts, both ways.
        let request_bytes = if seed.is_multiple_of(2) { SMALL_REQUEST_BYTES } else { Limits::default().request_bytes };
        let limits = Limits { request_bytes, ..Limits::default() };
        let mut server = Self {
            folder,
            mortal: Mortal::default(),
            checked: None,
            tokens,
            annex,
            party: time.party(seed),
            limits,
            heal_window_ms: HEAL_WINDOWS_MS[usize::from(seed % 4 < 2)],
            schema,
            local: None,
            reader: None,
            office: None,
        };
        server.open(runtime)?;
        Ok(server)
    }

    /// Whoever makes and revokes tokens, beside the running server.
    pub fn office(&mut self) -> Result<&Tokens> {
        let office = match self.office.take() {
            Some(office) => office,
            None => Tokens::open_in(self.folder.as_path(), self.party.server_environment())?,
        };
        Ok(self.office.insert(office))
    }

    fn open(&mut self, runtime: &Runtime) -> Result<()> {
        let config = ServerConfig {
            environment: self.party.server_environment(),
            heal_window_ms: self.heal_window_ms,
            limits: self.limits,
            schema: self.schema.clone(),
            ..ServerConfig::new(&self.folder)
        };
        let opened = fault::with_hook(self.mortal.hook(&self.folder), || runtime.block_on(LocalServer::open(config)));
        self.local = Some(opened.context("P4: the server does not open its store")?);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        self.reader = Some(Connection::open_with_flags(self.folder.join("gbsync.db"), flags)?);
        self.checked = None;
        Ok(())
    }

    /// Somebody who looks at its database.
    pub fn reader(&self) -> Result<&Connection> {
        self.reader.as_ref().context("the server is off")
    }

    /// Most bytes of a request's body.
    pub fn request_bytes(&self) -> u64 {
        self.limits.request_bytes
    }

    /// Answers a request; `None` when it died meanwhile.
    pub fn answer(
        &self,
        runtime: &Runtime,
        method: &str,
        path: &str,
        token: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Option<LocalAnswer>> {
        let local = self.local.as_ref().context("the server is off")?;
        let answering = || runtime.block_on(local.answer(method, path, Some(token), body));
        let answer = self.mortal.live(&self.folder, answering);
        Ok(answer.filter(|_| !disk::is_cut(&self.folder)))
    }

    fn close(&mut self, runtime: &Runtime) {
        disk::cut_after(&self.folder, 0);
        (self.reader, self.office) = (None, None);
        self.mortal.fate().armed = None;
        if let Some(local) = self.local.take() {
            // It cannot close its store properly: that is the point.
            let _ = runtime.block_on(local.close());
        }
    }

    /// Loses power, or is killed, and comes back.
    pub fn crash(&mut self, loss: Loss, random: &mut Random, runtime: &Runtime) -> Result<()> {
        self.close(runtime);
        put_image(&self.folder, loss, random)?;
        self.open(runtime)
    }

    /// Keeps its state while it runs.
    pub fn copy(&self, to: &Path, way: Way) -> Result<()> {
        if way == Way::Backup {
            gbsync_server::backup(&self.folder, to, &self.party.server_environment(), |_, _| ())?;
            return Ok(());
        }
        std::fs::create_dir_all(to)?;
        Ok(disk::write_image(&self.folder, Loss::None, &mut Random::of(0), to)?)
    }

    /// Stops, is put back to a state that was kept, and comes back.
    pub fn put_back(&mut self, from: &Path, way: Way, runtime: &Runtime) -> Result<()> {
        self.close(runtime);
        disk::wait_until_closed(&self.folder)?;
        disk::forget(&self.folder);
        if way == Way::Backup {
            for end in ["", "-wal", "-shm"] {
                let file = self.folder.join(format!("gbsync.db{end}"));
                file.exists().then(|| std::fs::remove_file(file)).transpose()?;
            }
            gbsync_server::restore(from, &self.folder, &self.party.server_environment(), |_, _| ())?;
        } else {
            put_files(from, &self.folder)?;
        }
        if way == Way::ByHandAndTold {
            gbsync_server::mark_restored(self.folder.as_path(), &self.party.server_environment(), |_| ())?;
        }
        // The file has another name by now than it was written under.
        disk::wait_until_closed(&self.folder)?;
        disk::forget(&self.folder);
        self.open(runtime)
    }

    /// The version of its schema; that of the first ones where it has none.
    pub fn version(&self) -> u64 {
        self.schema.as_ref().map_or(names::FIRST, |schema| schema.version)
    }

    /// Starts anew with another schema; its power is cut after so many changes of its files, perhaps before it is up: answers
    /// whether that was so.
    pub fn upgrade(
        &mut self,
        schema: Schema,
        cut_after: Option<u64>,
        random: &mut Random,
        runtime: &Runtime,
    ) -> Result<bool> {
        self.schema = Some(schema);
        self.close(runtime);
        put_image(&self.folder, Loss::None, random)?;
        if let Some(changes) = cut_after {
            disk::cut_after(&self.folder, changes);
        }
        match self.open(runtime) {
            Err(_) if disk::is_cut(&self.folder) => {
                let loss = Loss::ALL[random.below(4)];
                put_image(&self.folder, loss, random)?;
                self.open(runtime).map(|()| true)
            }
            opened => opened.map(|()| false),
        }
    }

    /// Stops for good.
    pub fn stop(mut self, runtime: &Runtime) {
        (self.reader, self.office) = (None, None);
        if let Some(local) = self.local.take() {
            let _ = runtime.block_on(local.close());
        }
    }
}

/// The id of a space.
pub fn space_id(space: &str) -> SpaceId {
    SpaceId::new(space).expect("a name")
}
