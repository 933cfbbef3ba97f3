//! The run: one device under the noting disk sells, edits, voids and syncs, another one sells the same stock and edits the
//! same receipts, so that groups are accepted, rejected, pulled and laid anew.
//!
//! Each operation writes its own token into each of its records, so that "all or none of it" can be counted.

use super::Bug;
use crate::disk::{self, Journal, Mark};
use crate::random::Random;
use anyhow::{Context, Result};
use gbsync_client::{
    Client, Config, Durability, FixedToken, GroupFilter, GroupState, HttpTransport, Operation, Remote, SyncOptions,
    Transport,
};
use gbsync_core::id::SpaceId;
use gbsync_server::{NewToken, Server, ServerConfig, Tokens};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Steps of a run.
const STEPS: u64 = 40;
/// The stock that everybody sells from.
const PRODUCTS: usize = 3;

/// How many records carry a token while its operation is in force.
pub type Witnesses = BTreeMap<String, u64>;

/// A run that is over, with its server still there.
pub struct Course {
    /// Everything that was written.
    pub journal: Journal,
    /// The records of each operation of the device.
    pub records: Witnesses,
    plant: Option<Bug>,
    remote: Remote,
    token: String,
    folder: TempDir,
    server: Option<Server>,
    runtime: Runtime,
}

/// A device of the run.
struct Till {
    name: &'static str,
    client: Client,
    transport: Arc<dyn Transport>,
    /// Receipts in force here: the receipt, its token, how often it was edited.
    receipts: Vec<(String, String)>,
    made: u64,
}

impl Course {
    /// Runs the script of a seed.
    ///
    /// # Errors
    /// When a device or the server fails.
    pub fn run(seed: u64, plant: Option<Bug>) -> Result<Self> {
        let folder = scratch_folder()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let data = folder.path().join("server");
        let space = SpaceId::new("shop")?;
        disk::record(true);
        let new = NewToken::new(space.clone());
        let token = Tokens::open(&data)?.create(new)?.token.to_string();
        let mut config = ServerConfig::new(&data);
        config.listen = "127.0.0.1:0".parse()?;
        let server = runtime.block_on(Server::start(config))?;
        let remote = Remote { server: server.url(), space };
        let mut course = Self {
            journal: Journal::default(),
            records: BTreeMap::new(),
            plant,
            remote,
            token,
            folder,
            server: Some(server),
            runtime,
        };
        course.steps(&mut Random::of(seed))?;
        course.journal = disk::take();
        disk::record(false);
        Ok(course)
    }

    fn steps(&mut self, random: &mut Random) -> Result<()> {
        std::fs::create_dir_all(self.device_folder())?;
        std::fs::create_dir_all(self.folder.path().join("other"))?;
        let mut till = self.till("a", &self.device_folder().join("till.db"))?;
        let mut other = self.till("b", &self.folder.path().join("other").join("till.db"))?;
        self.stock(&mut other)?;
        self.sync(&mut other)?;
        self.sync(&mut till)?;
        for _ in 0..STEPS {
            match random.below(10) {
                0..=3 => self.sell(&mut till, random)?,
                4 => self.edit(&mut till, random)?,
                5 => self.void(&mut till, random)?,
                6 => self.sell(&mut other, random)?,
                7 => {
                    // The other one has what this one made, edits it first, and this one's edit comes too late.
                    self.sync(&mut till)?;
                    self.sync(&mut other)?;
                    self.spoil(&till, &mut other, random)?;
                    self.sync(&mut other)?;
                }
                _ => self.sync(&mut till)?,
            }
        }
        self.sync(&mut till)?;
        self.sync(&mut other)?;
        self.sync(&mut till)
    }

    fn till(&self, name: &'static str, path: &Path) -> Result<Till> {
        let durability = match self.plant {
            Some(Bug::SynchronousNormal) => Durability::Normal,
            None => Durability::Full,
        };
        let client = Client::create(Config { durability, ..Config::new(path) }, &self.remote)?;
        Ok(Till { name, client, transport: self.transport()?, receipts: Vec::new(), made: 0 })
    }

    fn stock(&mut self, till: &mut Till) -> Result<()> {
        self.save(till, "stock-take", 0, |operation, token| {
            (0..PRODUCTS).try_for_each(|product| {
                operation.upsert("stock", &format!("p{product}"), format!(r#"{{"quantity":1000,"w":"{token}"}}"#))
            })
        })?;
        Ok(())
    }

    /// Saves an operation of `records` records of its own and notes that the app was told.
    fn save(
        &mut self,
        till: &mut Till,
        kind: &str,
        records: u64,
        write: impl FnOnce(&mut Operation, &str) -> Result<(), gbsync_client::Error>,
    ) -> Result<String> {
        till.made += 1;
        let token = format!("{}-{}-{kind}", till.name, till.made);
        till.client.operation::<gbsync_client::Error>(kind, &token, |operation| write(operation, &token))?;
        if till.name == "a" {
            disk::tell(Mark::Saved(token.clone()));
            self.records.insert(token.clone(), records);
        }
        Ok(token)
    }

    fn sell(&mut self, till: &mut Till, random: &mut Random) -> Result<()> {
        let product = random.below(PRODUCTS);
        let quantity = 1 + random.below(3);
        let token = self.save(till, "sale", 3, |operation, token| {
            let own = |more: &str| format!(r#"{{"w":"{token}"{more}}}"#);
            operation.upsert("receipts", token, own(r#","total":"1.00""#))?;
            operation.upsert("payments", token, own(&format!(r#","receiptId":"{token}""#)))?;
            operation.upsert("entries", token, own(&format!(r#","receiptId":"{token}""#)))?;
            operation.increment("stock", &format!("p{product}"), format!(r#"{{"quantity":-{quantity}}}"#))
        })?;
        till.receipts.push((token.clone(), token));
        Ok(())
    }

    /// Edits a receipt and books an entry for it.
    fn edit(&mut self, till: &mut Till, random: &mut Random) -> Result<()> {
        let Some((receipt, _)) = till.receipts.get(random.below(till.receipts.len())).cloned() else { return Ok(()) };
        if till.client.read("receipts", &receipt)?.is_none() {
            return Ok(());
        }
        self.save(till, "edit", 1, |operation, token| {
            operation.patch("receipts", &receipt, format!(r#"{{"note":"{token}"}}"#))?;
            operation.upsert("entries", token, format!(r#"{{"w":"{token}","of":"{receipt}"}}"#))
        })?;
        Ok(())
    }

    /// Deletes a receipt with all that its sale wrote.
    fn void(&mut self, till: &mut Till, random: &mut Random) -> Result<()> {
        if till.receipts.is_empty() {
            return Ok(());
        }
        let (receipt, token) = till.receipts.remove(random.below(till.receipts.len()));
        if till.client.read("receipts", &receipt)?.is_none() {
            return Ok(());
        }
        self.save(till, "void", 1, |operation, own| {
            operation.delete("receipts", &token)?;
            operation.delete("payments", &token)?;
            operation.delete("entries", &token)?;
            operation.upsert("voids", own, format!(r#"{{"w":"{own}","of":"{receipt}"}}"#))
        })?;
        Ok(())
    }

    /// The other one edits a receipt of the device under test.
    fn spoil(&mut self, till: &Till, other: &mut Till, random: &mut Random) -> Result<()> {
        let Some((receipt, _)) = till.receipts.get(random.below(till.receipts.len())).cloned() else { return Ok(()) };
        if other.client.read("receipts", &receipt)?.is_none() {
            return Ok(());
        }
        self.save(other, "spoil", 0, |operation, token| {
            operation.patch("receipts", &receipt, format!(r#"{{"spoilt":"{token}"}}"#))
        })?;
        Ok(())
    }

    fn sync(&mut self, till: &mut Till) -> Result<()> {
        self.runtime.block_on(till.client.sync(till.transport.as_ref(), &SyncOptions::default()))?;
        if till.name == "a" {
            let groups = till.client.groups(GroupFilter::All, usize::MAX >> 1)?;
            let accepted = groups.into_iter().filter(|group| group.state == GroupState::Accepted);
            disk::tell(Mark::Acknowledged(accepted.map(|group| group.group_id.to_string()).collect()));
        }
        Ok(())
    }

    /// A way to the server.
    pub fn transport(&self) -> Result<Arc<dyn Transport>> {
        let http = HttpTransport::new(&self.remote.server, Arc::new(FixedToken(self.token.clone())));
        Ok(Arc::new(http.context("HTTP cannot be set up")?))
    }

    /// Runs a round of a client.
    pub fn sync_client(&self, client: &Client) -> Result<()> {
        let transport = self.transport()?;
        self.runtime.block_on(client.sync(transport.as_ref(), &SyncOptions::default()))?;
        Ok(())
    }

    /// The space of the run.
    pub fn space(&self) -> &SpaceId {
        &self.remote.space
    }

    /// Where the device under test has its file.
    pub fn device_folder(&self) -> PathBuf {
        self.folder.path().join("device")
    }

    /// Where the server has its file.
    pub fn server_folder(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    /// Where images may be made.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the server.
    pub fn end(mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => Ok(self.runtime.block_on(server.stop())?),
            None => Ok(()),
        }
    }
}

/// In memory where the system has such a folder: nothing here needs a real disk.
fn scratch_folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.context("no folder for temporary files")
}
