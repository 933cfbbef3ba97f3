//! The run: one device under the noting disk sells, edits, voids and syncs, another one sells the same stock and edits the
//! same receipts, so that groups are accepted, rejected, pulled and laid anew. Groups that no request holds travel in parts.
//!
//! Every other run has the rules of the worlds: then a program writes the device's tables with plain SQL too, the server gets a
//! newer schema halfway, and the device's app after it, with its outbox full.
//!
//! Each operation writes its own token into each of its records, so that "all or none of it" can be counted.

use super::Bug;
use super::log::History;
use super::way::Way;
use crate::action;
use crate::disk::{self, Journal, Mark};
use crate::model::{Change, Edit, Operation};
use crate::names;
use crate::random::Random;
use crate::seeds::scratch_folder;
use crate::world::rules;
use anyhow::Result;
use gbsync_client::{Client, Config, Durability, GroupFilter, GroupState, Remote, SyncOptions, Transport};
use gbsync_core::id::SpaceId;
use gbsync_core::schema::Schema;
use gbsync_server::{NewToken, Server, ServerConfig, Tokens};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Steps of a run.
const STEPS: u64 = 40;
/// The step before which the server gets the second schema, and the one before which the app does.
const UPGRADES: [u64; 2] = [15, 25];
/// The stock that everybody sells from.
const PRODUCTS: usize = 3;
/// Records of a large group.
const LARGE: usize = 50;

/// How many records carry a token while its operation is in force.
pub type Witnesses = BTreeMap<String, u64>;

/// A run that is over, with its server still there.
pub struct Course {
    /// Everything that was written.
    pub journal: Journal,
    /// What whoever looks at an image needs to know.
    pub way: Way,
    plant: Option<Bug>,
    folder: TempDir,
    server: Option<Server>,
    runtime: Runtime,
}

/// A device of the run.
struct Till {
    name: &'static str,
    path: PathBuf,
    client: Client,
    transport: Arc<dyn Transport>,
    /// The rules of its app.
    schema: Option<Schema>,
    /// The connection of a program that writes plain SQL.
    app: Option<Connection>,
    /// Receipts in force here, by token.
    receipts: Vec<String>,
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
        let space = SpaceId::new("shop")?;
        disk::record(true);
        let token = Tokens::open(folder.path().join("server"))?.create(NewToken::new(space.clone()))?.token.to_string();
        let schema = if seed.is_multiple_of(2) { Some(rules(names::FIRST)?) } else { None };
        let way = Way {
            records: BTreeMap::new(),
            history: History::default(),
            remote: Remote { server: "http://shop".into(), space },
            address: String::new(),
            token,
            schema,
            folder: folder.path().to_owned(),
            runtime: runtime.handle().clone(),
            syncing: std::sync::Mutex::default(),
        };
        let mut course = Self { journal: Journal::default(), way, plant, folder, server: None, runtime };
        course.start_server()?;
        let ran = course.steps(&mut Random::of(seed));
        course.journal = disk::take();
        disk::record(false);
        ran?;
        course.way.history = History::of(&course.way.server_folder())?;
        Ok(course)
    }

    /// Starts the server, or starts it anew with the present schema.
    fn start_server(&mut self) -> Result<()> {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop())?;
        }
        let config = self.way.server_config(&self.way.server_folder());
        let server = self.runtime.block_on(Server::start(ServerConfig { listen: "127.0.0.1:0".parse()?, ..config }))?;
        self.way.address = server.url();
        self.server = Some(server);
        Ok(())
    }

    fn steps(&mut self, random: &mut Random) -> Result<()> {
        let other = self.folder.path().join("other");
        std::fs::create_dir_all(self.way.device_folder())?;
        std::fs::create_dir_all(&other)?;
        let mut till = self.till("a", self.way.device_folder().join("till.db"))?;
        let mut other = self.till("b", other.join("till.db"))?;
        let stock =
            (0..PRODUCTS).map(|product| put("stock", &format!("p{product}"), json!({"w": "stock", "quantity": 1000})));
        self.save(&mut other, "stock-take", 0, stock.collect())?;
        self.sync(&mut other)?;
        self.sync(&mut till)?;
        for step in 0..STEPS {
            if step == UPGRADES[0] && self.way.schema.is_some() {
                self.way.schema = Some(rules(names::SECOND)?);
                self.start_server()?;
                (till.transport, other.transport) = (self.way.transport()?, self.way.transport()?);
            }
            if step == UPGRADES[1] && self.way.schema.is_some() {
                till = self.upgraded(till, random)?;
            }
            match random.below(12) {
                0..=2 => self.sell(&mut till, random)?,
                3 => self.sell_by_sql(&mut till, random)?,
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
                8 if step % 2 == 0 => self.large(&mut till)?,
                8 => self.large(&mut other)?,
                _ => self.sync(&mut till)?,
            }
        }
        self.sync(&mut till)?;
        self.sync(&mut other)?;
        self.sync(&mut till)
    }

    fn till(&self, name: &'static str, path: PathBuf) -> Result<Till> {
        let schema = self.way.schema.clone();
        let client = Client::create(self.config(&path, schema.clone()), &self.way.remote)?;
        let transport = self.way.transport()?;
        Ok(Till { name, path, client, transport, schema, app: None, receipts: Vec::new(), made: 0 })
    }

    fn config(&self, path: &Path, schema: Option<Schema>) -> Config {
        let durability = match self.plant {
            Some(Bug::SynchronousNormal) => Durability::Normal,
            None => Durability::Full,
        };
        Config { durability, schema, ..Config::new(path) }
    }

    /// The same device with the newer app. What was saved just before waits in its outbox, also what a program captured.
    fn upgraded(&mut self, mut till: Till, random: &mut Random) -> Result<Till> {
        self.sell(&mut till, random)?;
        self.edit(&mut till, random)?;
        self.sell_by_sql(&mut till, random)?;
        let Till { name, path, client, transport, receipts, made, .. } = till;
        drop(client);
        let schema = self.way.schema.clone();
        let client = Client::open(self.config(&path, schema.clone()))?;
        Ok(Till { name, path, client, transport, schema, app: None, receipts, made })
    }

    fn next(till: &mut Till, kind: &str) -> String {
        till.made += 1;
        format!("{}-{}-{kind}", till.name, till.made)
    }

    fn operation(till: &Till, token: &str, kind: &'static str, changes: Vec<Change>) -> Operation {
        let version = till.schema.as_ref().map_or(names::FIRST, |schema| schema.version);
        names::written_on_the_web(Operation { token: token.to_owned(), kind, changes }, version)
    }

    /// Notes that the app was told of an operation with `records` records of its own.
    fn saved(&mut self, till: &Till, token: &str, records: u64) {
        if till.name == "a" {
            disk::tell(Mark::Saved(token.to_owned()));
        }
        self.way.records.insert(token.to_owned(), records);
    }

    fn save(&mut self, till: &mut Till, kind: &'static str, records: u64, changes: Vec<Change>) -> Result<()> {
        let token = Self::next(till, kind);
        self.save_as(till, &token, kind, records, changes)
    }

    fn save_as(&mut self, till: &Till, token: &str, kind: &'static str, records: u64, changes: Vec<Change>) -> Result<()> {
        action::write(&till.client, &Self::operation(till, token, kind, changes))?;
        self.saved(till, token, records);
        Ok(())
    }

    fn sale(token: &str, random: &mut Random) -> Vec<Change> {
        let (product, quantity) = (random.below(PRODUCTS), 1 + random.below(3) as i64);
        vec![
            put("receipts", token, json!({"w": token, "total": "1.00"})),
            put("payments", token, json!({"w": token, "receiptId": token, "amount": "1.00"})),
            put("entries", token, json!({"w": token, "receiptId": token})),
            Change { key: key("stock", &format!("p{product}")), edit: Edit::Add("quantity", -quantity) },
        ]
    }

    fn sell(&mut self, till: &mut Till, random: &mut Random) -> Result<()> {
        let token = Self::next(till, "sale");
        self.save_as(till, &token, "sale", 3, Self::sale(&token, random))?;
        till.receipts.push(token);
        Ok(())
    }

    /// The same by a program that knows the tables alone.
    fn sell_by_sql(&mut self, till: &mut Till, random: &mut Random) -> Result<()> {
        if till.schema.is_none() {
            return self.sell(till, random);
        }
        let token = Self::next(till, "sale");
        let operation = Self::operation(till, &token, "sale", Self::sale(&token, random));
        let app = match till.app.take() {
            Some(app) => app,
            None => {
                let app = Connection::open(&till.path)?;
                app.pragma_update(None, "synchronous", "FULL")?;
                app
            }
        };
        action::write_sql(till.app.insert(app), &operation, None, true)?;
        self.saved(till, &token, 3);
        till.receipts.push(token);
        Ok(())
    }

    /// More records than a request holds.
    fn large(&mut self, till: &mut Till) -> Result<()> {
        let token = Self::next(till, "large");
        let note =
            |line: usize| put("notes", &format!("{token}-{line}"), json!({"w": token, "text": "counted and found right"}));
        self.save_as(till, &token, "large", LARGE as u64, (0..LARGE).map(note).collect())
    }

    fn some_receipt(till: &Till, of: &Till, random: &mut Random) -> Result<Option<String>> {
        let receipt = of.receipts.get(random.below(of.receipts.len())).cloned();
        Ok(match receipt {
            Some(receipt) if till.client.read("receipts", &receipt)?.is_some() => Some(receipt),
            _ => None,
        })
    }

    /// Edits a receipt and books an entry for it.
    fn edit(&mut self, till: &mut Till, random: &mut Random) -> Result<()> {
        let Some(receipt) = Self::some_receipt(till, till, random)? else { return Ok(()) };
        let token = Self::next(till, "edit");
        let note = Change { key: key("receipts", &receipt), edit: Edit::Set(fields(json!({"note": token}))) };
        let entry = put("entries", &token, json!({"w": token, "receiptId": receipt}));
        self.save_as(till, &token, "edit", 1, vec![note, entry])
    }

    /// Deletes a receipt with all that its sale wrote; where there are rules, that goes with it.
    fn void(&mut self, till: &mut Till, random: &mut Random) -> Result<()> {
        let Some(receipt) = Self::some_receipt(till, till, random)? else { return Ok(()) };
        till.receipts.retain(|other| *other != receipt);
        let token = Self::next(till, "void");
        let gone: &[&str] = if till.schema.is_some() { &["receipts"] } else { &["receipts", "payments", "entries"] };
        let gone = gone.iter().map(|entity| Change { key: key(entity, &receipt), edit: Edit::Delete });
        let note = put("notes", &token, json!({"w": token, "receiptId": receipt}));
        self.save_as(till, &token, "void", 1, gone.chain([note]).collect())
    }

    /// The other one edits a receipt of the device under test.
    fn spoil(&mut self, till: &Till, other: &mut Till, random: &mut Random) -> Result<()> {
        let Some(receipt) = Self::some_receipt(other, till, random)? else { return Ok(()) };
        let spoilt = Edit::Set(fields(json!({"spoilt": "by another"})));
        self.save(other, "spoil", 0, vec![Change { key: key("receipts", &receipt), edit: spoilt }])
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

    /// Stops the server.
    pub fn end(mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => Ok(self.runtime.block_on(server.stop())?),
            None => Ok(()),
        }
    }
}

fn key(entity: &str, id: &str) -> crate::model::Key {
    (entity.to_owned(), id.to_owned())
}

fn fields(value: Value) -> crate::model::Fields {
    if let Value::Object(fields) = value { fields } else { crate::model::Fields::new() }
}

fn put(entity: &str, id: &str, value: Value) -> Change {
    Change { key: key(entity, id), edit: Edit::Put(fields(value)) }
}
