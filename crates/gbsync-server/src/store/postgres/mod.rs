//! The store on PostgreSQL, for any number of identical processes.
//!
//! A writer's transaction first locks the space's row, its counter, and holds it to the COMMIT: so numbers become visible in
//! their order, and a reader that asks for what lies behind a number never passes over one. Statements travel together.
//!
//! Invariant: nothing that a process remembers decides; whatever a transaction decides on, it read behind that lock, or its keys hold
//! for it.
//!
//! Rejected alternative: the isolation level SERIALIZABLE. It would make most of what shares a space begin again.

mod adopt;
mod announce;
mod connect;
mod engine;
mod failure;
mod fates;
mod flags;
mod flight;
mod grants;
mod index;
mod learn;
mod lineage;
mod load;
mod lock;
mod migrate;
mod parts;
#[cfg(test)]
mod plans;
mod read;
mod rejections;
mod retain;
mod row;
mod rows;
mod snapshot;
mod survey;
mod tokens;
mod views;
mod write;
mod writer;

use super::{
    EachRecord, FlagInfo, FlagsRequest, Grant, LogPart, Page, PageRequest, PartRequest, RejectionsRequest, Retainer,
    SnapshotOf, SpaceView, Store, StoreError, StoredSchema, ToldEpoch, Usage, Writer,
};
use crate::config::FaultPoint;
use crate::feed::Feed;
use announce::Announcer;
use connect::Address;
use deadpool_postgres::{ClientWrapper, Object, Pool};
use engine::Engine;
use futures_util::future::BoxFuture;
use gbsync_core::id::{Actor, DeviceId, GroupId, Role, Seq, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::wire::{GroupResult, RejectedGroup};
use grants::Grants;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Connections for reads. Each writer has one of its own beside them.
const READERS: usize = 8;
/// How often a read is begun again on another connection.
const READ_ATTEMPTS: usize = 3;

/// The store in a database.
pub(crate) struct PostgresStore {
    engine: Arc<Engine>,
    pool: Pool,
    address: Arc<Address>,
    lock_timeout: Duration,
    writers: usize,
    fault: Option<FaultPoint>,
    numbers: writer::SpaceNumbers,
    grants: Grants,
    announcer: Announcer,
    /// Keeps the views for reports.
    presenting: Mutex<Option<JoinHandle<()>>>,
}

impl PostgresStore {
    /// Opens a database and brings it to the newest format.
    pub(crate) fn open(
        url: &str,
        lock_timeout: Duration,
        writers: usize,
        fault: Option<FaultPoint>,
    ) -> Result<Self, StoreError> {
        let (engine, address) = (Arc::new(Engine::start()?), Arc::new(Address::parse(url)?));
        let writers = writers.max(1);
        let store = super::StoreLocation::Postgres(url.into()).to_string();
        engine.elsewhere(|| {
            engine.wait(async { migrate::migrate(&mut address.connect().await?, address.schema(), &store).await })
        })?;
        let pool = address.pool(READERS, lock_timeout)?;
        let announcer = Announcer::new(address.schema());
        let grants = Grants::start(&pool, |task| drop(engine.spawn(task)));
        Ok(Self {
            engine,
            pool,
            address,
            lock_timeout,
            writers,
            fault,
            numbers: Arc::default(),
            grants,
            announcer,
            presenting: Mutex::default(),
        })
    }

    /// Reads; a second time on another connection if the first is lost.
    fn read<T>(&self, read: impl AsyncFn(&ClientWrapper) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.engine.wait(reading(&self.pool, read))
    }
}

async fn reading<T>(pool: &Pool, read: impl AsyncFn(&ClientWrapper) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut attempts = 1;
    loop {
        let connection = pool.get().await?;
        match read(&connection).await {
            Ok(answer) => return Ok(answer),
            Err(error) => attempts = one_more(connection, attempts, error)?,
        }
    }
}

/// Closes a connection that failed, which may be in the middle of a transaction; the number of the next attempt.
fn one_more(connection: Object, attempts: usize, error: StoreError) -> Result<usize, StoreError> {
    drop(Object::take(connection));
    match attempts < READ_ATTEMPTS && matches!(error, StoreError::Lost(_)) {
        true => Ok(attempts + 1),
        false => Err(error),
    }
}

impl Store for PostgresStore {
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        let engine = Arc::new(Engine::of_one()?);
        let pool = self.address.pool(1, self.lock_timeout)?;
        let connection = engine.wait(pool.get())?;
        let numbers = Arc::clone(&self.numbers);
        Ok(Box::new(writer::PostgresWriter::new(engine, connection, self.fault.clone(), numbers)))
    }

    fn writers(&self) -> usize {
        self.writers.max(2)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn announce(&self, space: &SpaceId, head: Seq) {
        self.announcer.announce(space, head);
    }

    fn follow(&self, feed: &Arc<Feed>) {
        self.announcer.follow(&self.engine, &self.address, &self.pool, feed);
        let presenting = self.engine.spawn(views::keep(self.pool.clone(), self.address.schema().to_owned()));
        *self.presenting.lock().unwrap_or_else(PoisonError::into_inner) = Some(presenting);
    }

    fn schema(&self) -> Result<Option<StoredSchema>, StoreError> {
        self.read(async |client| adopt::in_force(client).await)
    }

    fn grant(&self, token_hash: [u8; 32]) -> BoxFuture<'_, Result<Option<Grant>, StoreError>> {
        Box::pin(self.grants.clone().of(token_hash))
    }

    fn usage(&self, space: &SpaceId) -> Result<Option<Usage>, StoreError> {
        self.read(async |client| read::usage(client, space).await)
    }

    fn is_revoked(&self, jti: &str) -> Result<bool, StoreError> {
        self.read(async |client| tokens::is_revoked(client, jti).await)
    }

    fn roles_of(&self, space: &SpaceId, actors: &BTreeSet<Actor>) -> Result<BTreeMap<Actor, BTreeSet<Role>>, StoreError> {
        self.read(async |client| tokens::roles_of(client, space, actors).await)
    }

    fn space(
        &self,
        space: &SpaceId,
        device: Option<&DeviceId>,
        told: Option<&ToldEpoch>,
    ) -> Result<Option<SpaceView>, StoreError> {
        self.read(async |client| read::space(client, space, device, told).await)
    }

    fn page(&self, request: &PageRequest) -> Result<Page, StoreError> {
        self.read(async |client| read::page(client, request).await)
    }

    fn each_record(&self, of: &SnapshotOf, take: &mut dyn EachRecord) -> Result<bool, StoreError> {
        self.engine.wait(async {
            // Never a second time by itself: what was given is given.
            let connection = self.pool.get().await?;
            let given = snapshot::each_record(&connection, of, take).await;
            if given.is_err() {
                drop(Object::take(connection));
            }
            given
        })
    }

    fn log_part(&self, request: &PartRequest) -> Result<LogPart, StoreError> {
        self.read(async |client| parts::log_part(client, request).await)
    }

    fn verdicts(&self, space: &SpaceId, ids: Vec<GroupId>, scopes: &ScopeSet) -> Result<Vec<GroupResult>, StoreError> {
        self.read(async |client| read::verdicts(client, space, &ids, scopes).await)
    }

    fn flags(&self, request: &FlagsRequest) -> Result<Option<Vec<FlagInfo>>, StoreError> {
        self.read(async |client| flags::list(client, request).await)
    }

    fn rejections(&self, request: &RejectionsRequest) -> Result<Option<Vec<RejectedGroup>>, StoreError> {
        self.read(async |client| rejections::list(client, request).await)
    }

    fn rejection(&self, space: &SpaceId, id: &GroupId, scopes: &ScopeSet) -> Result<Option<RejectedGroup>, StoreError> {
        self.read(async |client| rejections::one(client, space, id, scopes).await)
    }

    fn retainer(&self) -> Result<Option<Box<dyn Retainer>>, StoreError> {
        Ok(self.open_retainer()?.map(|retainer| Box::new(retainer) as Box<dyn Retainer>))
    }

    fn close(&self) -> Result<(), StoreError> {
        if let Some(presenting) = self.presenting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            presenting.abort();
        }
        self.announcer.stop(&self.engine);
        self.pool.close();
        Ok(())
    }
}
