//! A device of a shop: what its people do, and what its file shows.

use crate::world::server::space_id;
use crate::world::time::Party;
use anyhow::{Context, Result, ensure};
use gbsync_client::{
    BoxFuture, Client, Config, Error, Method, Remote, Request, Response, SyncError, SyncOptions, Transport, TransportError,
};
use gbsync_core::schema::Schema;
use gbsync_server::LocalServer;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Runtime;

/// Records by entity and id, as canonical JSON.
pub type Rows = BTreeMap<(String, String), String>;

/// What a token may see: the names of shops, or everything.
pub type Sees = Option<&'static [&'static str]>;

/// Whether a record is one that may be seen.
pub fn may_see(sees: Sees, payload: &str) -> bool {
    let store =
        serde_json::from_str::<Value>(payload).ok().and_then(|payload| Some(payload["storeId"].as_str()?.to_owned()));
    store.is_none_or(|store| sees.is_none_or(|shops| shops.contains(&store.as_str())))
}

/// A way to the server that loses what it is told to.
pub struct Wire {
    local: Arc<LocalServer>,
    token: Mutex<String>,
    /// How many requests pass before an answer is lost; 0: none is.
    losing: AtomicU64,
}

impl Transport for Wire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let method = match request.method {
                Method::Get => "GET",
                Method::Post => "POST",
                Method::Put => "PUT",
            };
            let answer = self.local.answer(method, &request.path, Some(&token), request.body).await;
            let is_lost = self.losing.load(Ordering::Relaxed) > 0 && self.losing.fetch_sub(1, Ordering::Relaxed) == 1;
            if is_lost {
                return Err(TransportError { message: "the answer was lost".into() });
            }
            let retry_after_ms = answer.retry_after_s.map(|seconds| seconds * 1_000);
            Ok(Response { status: answer.status, content_type: answer.content_type, retry_after_ms, body: answer.body })
        })
    }
}

/// A device of a shop.
pub struct Till {
    /// Its place among the devices.
    pub place: usize,
    /// What it may see now.
    pub sees: Sees,
    client: Client,
    wire: Wire,
    made: u64,
}

impl Till {
    /// A new device.
    pub fn new(
        place: usize,
        folder: &Path,
        (schema, party): (&Schema, &Party),
        local: &Arc<LocalServer>,
        (sees, token): (Sees, String),
    ) -> Result<Self> {
        let config = Config {
            schema: Some(schema.clone()),
            environment: party.environment(),
            ..Config::new(folder.join(format!("till-{place}.db")))
        };
        let remote = Remote { server: "http://shops.test".into(), space: space_id("main") };
        let client = Client::create(config, &remote)?;
        let wire = Wire { local: Arc::clone(local), token: Mutex::new(token), losing: AtomicU64::new(0) };
        Ok(Self { place, sees, client, wire, made: 0 })
    }

    /// From now on it is a device of another shop.
    pub fn becomes(&mut self, sees: Sees, token: String) {
        self.sees = sees;
        *self.wire.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// The token it has.
    pub fn token(&self) -> String {
        self.wire.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sells something in a shop.
    pub fn sell(&mut self, shop: &str) -> Result<(), Error> {
        self.made += 1;
        let id = format!("{}-{}", self.place, self.made);
        let sealed = self.client.operation::<Error>("sale", &id, |op| {
            op.upsert("receipts", &id, format!(r#"{{"storeId":"{shop}","total":"{}"}}"#, self.made))?;
            op.upsert("payments", &format!("p-{id}"), format!(r#"{{"receiptId":"{id}","storeId":"{shop}"}}"#))?;
            op.increment("products", "roll", r#"{"sold":1}"#)
        });
        sealed.map(drop)
    }

    /// Moves a receipt with its payments to a shop.
    pub fn move_to(&self, receipt: &str, shop: &str) -> Result<(), Error> {
        let store = format!(r#"{{"storeId":"{shop}"}}"#);
        let payments = self.payments_of(receipt)?;
        let sealed = self.client.operation::<Error>("move", receipt, |op| {
            op.patch("receipts", receipt, store.clone())?;
            payments.iter().try_for_each(|payment| op.patch("payments", payment, store.clone()))
        });
        sealed.map(drop)
    }

    /// Corrects a receipt.
    pub fn correct(&self, receipt: &str, total: u64) -> Result<(), Error> {
        let patch = format!(r#"{{"total":"{total}"}}"#);
        self.client.operation::<Error>("correct", receipt, |op| op.patch("receipts", receipt, patch)).map(drop)
    }

    /// Voids a receipt, with its payments.
    pub fn void(&self, receipt: &str) -> Result<(), Error> {
        self.client.operation::<Error>("void", receipt, |op| op.delete("receipts", receipt)).map(drop)
    }

    /// The receipts that its people see.
    pub fn receipts(&self) -> Result<Vec<String>, Error> {
        self.texts("SELECT id FROM receipts ORDER BY id")
    }

    fn payments_of(&self, receipt: &str) -> Result<Vec<String>, Error> {
        let ids = self.texts("SELECT receiptId || char(9) || id FROM payments ORDER BY id")?;
        let of = |line: String| Some(line.split_once('\t').filter(|(of, _)| *of == receipt)?.1.to_owned());
        Ok(ids.into_iter().filter_map(of).collect())
    }

    fn texts(&self, sql: &str) -> Result<Vec<String>, Error> {
        self.client.with_reader(|db| db.prepare(sql)?.query_map([], |row| row.get(0))?.collect())
    }

    /// One round, perhaps with a lost answer; whether it reached its end.
    pub fn sync(&self, runtime: &Runtime, losing: u64) -> Result<bool> {
        self.wire.losing.store(losing, Ordering::Relaxed);
        let options = SyncOptions { attempts: 1, ignores_backoff: true, ..SyncOptions::default() };
        let synced = runtime.block_on(self.client.sync(&self.wire, &options));
        let was_lost = losing > 0 && self.wire.losing.swap(0, Ordering::Relaxed) == 0;
        match synced {
            Ok(_) => Ok(true),
            Err(SyncError::NotReached { .. }) if was_lost => Ok(false),
            Err(error) => Err(error).with_context(|| format!("P10: till {} cannot sync", self.place)),
        }
    }

    /// What the server confirmed to it.
    pub fn base(&self) -> Result<Rows> {
        let sql = "SELECT entity, id, payload FROM gbsync_base WHERE payload IS NOT NULL";
        let rows = self.client.with_reader(|db| {
            let mut statement = db.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Rows>>()
        });
        Ok(rows?)
    }

    /// Cursor and digest of that.
    pub fn digest(&self) -> Result<String> {
        let digest = self.client.digest()?;
        Ok(format!("{} {} {}", digest.cursor, digest.records, digest.digest))
    }

    /// Groups that nobody decided.
    pub fn pending(&self) -> Result<u64> {
        Ok(self.client.status()?.pending_groups)
    }

    /// Holds what it shows against what it may see. Only after a round under its present token: until then it has what it had.
    pub fn judge(&self) -> Result<()> {
        let (base, place) = (self.base()?, self.place);
        let receipts: BTreeSet<&str> =
            base.keys().filter(|(entity, _)| entity == "receipts").map(|(_, id)| id.as_str()).collect();
        for ((entity, id), payload) in &base {
            ensure!(
                may_see(self.sees, payload),
                "P9: till {place}, which sees {:?}, holds {entity}:{id} {payload}",
                self.sees
            );
            if entity == "payments" {
                let payload: Value = serde_json::from_str(payload)?;
                let receipt = payload["receiptId"].as_str().unwrap_or_default();
                ensure!(receipts.contains(receipt), "P2: till {place} holds the payment {id} without its receipt {receipt}");
            }
        }
        Ok(())
    }
}
