//! The store on one SQLite file in WAL mode: one writer connection, a few readers, `synchronous=FULL`.
//!
//! Rejected alternative: a connection a request; opening one costs more than most requests.

mod adopt;
mod backup;
mod flags;
mod index;
mod lineage;
mod open;
mod parts;
mod read;
mod rejections;
mod retain;
mod row;
mod schema;
mod sequences;
mod snapshot;
mod survey;
mod tokens;
mod write;

pub(crate) use backup::{copy_into, mark, store_file, verified};
pub(crate) use retain::SqliteRetainer;
pub(crate) use survey::survey;
pub(crate) use tokens::SqliteTokens;

use super::{
    EachRecord, FlagInfo, FlagsRequest, Grant, LogPart, Page, PageRequest, PartRequest, RejectionsRequest, Retainer,
    SnapshotOf, SpaceView, Store, StoreError, StoredSchema, ToldEpoch, Usage, Writer,
};
use crate::config::FaultPoint;
use futures_util::future::{BoxFuture, ready};
use gbsync_core::id::{Actor, DeviceId, GroupId, Role, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::wire::{GroupResult, RejectedGroup};
use rusqlite::{Connection, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Readers kept open between reads.
const IDLE_READERS: usize = 8;

/// The store in a data folder.
pub(crate) struct SqliteStore {
    path: PathBuf,
    busy_timeout: Duration,
    fault: Option<FaultPoint>,
    idle: Mutex<Vec<Connection>>,
    /// The connection that opened the store, for the first writer.
    opened: Mutex<Option<Connection>>,
    /// The folder's lock, held for as long as anything can write: also by a writer that outlives its server.
    lock: Arc<File>,
}

impl SqliteStore {
    /// Opens the store of a folder that `lock` holds, or makes a new one.
    pub(crate) fn open(
        data: &Path,
        busy_timeout: Duration,
        fault: Option<FaultPoint>,
        lock: Arc<File>,
    ) -> Result<Self, StoreError> {
        let path = open::file(data);
        let opened = Mutex::new(Some(open::prepare(&path, busy_timeout)?));
        Ok(Self { path, busy_timeout, fault, idle: Mutex::new(Vec::new()), opened, lock })
    }

    /// Reads from one committed state.
    fn read<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open::reader(&self.path, self.busy_timeout)?,
        };
        // A reader that failed is closed, not kept.
        let transaction = connection.unchecked_transaction()?;
        let answer = read(&transaction)?;
        transaction.finish()?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_READERS {
            idle.push(connection);
        }
        Ok(answer)
    }
}

impl Store for SqliteStore {
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match opened {
            Some(connection) => connection,
            None => open::writer(&self.path, self.busy_timeout)?,
        };
        if let Some(FaultPoint(is_faulty)) = self.fault.clone() {
            // A COMMIT whose hook says true becomes a ROLLBACK and an error, like one that the disk refused.
            connection.commit_hook(Some(move || is_faulty()))?;
        }
        Ok(Box::new(write::SqliteWriter::new(connection, &self.path)))
    }

    fn grant(&self, token_hash: [u8; 32]) -> BoxFuture<'_, Result<Option<Grant>, StoreError>> {
        // One indexed read of some microseconds: moving it to another thread would cost more than it blocks.
        Box::pin(ready(self.read(|transaction| tokens::grant(transaction, &token_hash))))
    }

    fn usage(&self, space: &SpaceId) -> Result<Option<Usage>, StoreError> {
        self.read(|transaction| read::usage(transaction, space))
    }

    fn is_revoked(&self, jti: &str) -> Result<bool, StoreError> {
        self.read(|transaction| tokens::is_revoked(transaction, jti))
    }

    fn roles_of(&self, space: &SpaceId, actors: &BTreeSet<Actor>) -> Result<BTreeMap<Actor, BTreeSet<Role>>, StoreError> {
        self.read(|transaction| tokens::roles_of(transaction, space, actors))
    }

    fn space(
        &self,
        space: &SpaceId,
        device: Option<&DeviceId>,
        told: Option<&ToldEpoch>,
    ) -> Result<Option<SpaceView>, StoreError> {
        self.read(|transaction| read::space(transaction, space, device, told))
    }

    fn page(&self, request: &PageRequest) -> Result<Page, StoreError> {
        self.read(|transaction| read::page(transaction, request))
    }

    fn each_record(&self, of: &SnapshotOf, take: &mut dyn EachRecord) -> Result<bool, StoreError> {
        self.read(|transaction| snapshot::each_record(transaction, of, take))
    }

    fn log_part(&self, request: &PartRequest) -> Result<LogPart, StoreError> {
        self.read(|transaction| parts::log_part(transaction, request))
    }

    fn verdicts(&self, space: &SpaceId, ids: Vec<GroupId>, scopes: &ScopeSet) -> Result<Vec<GroupResult>, StoreError> {
        self.read(|transaction| read::verdicts(transaction, space, ids, scopes))
    }

    fn flags(&self, request: &FlagsRequest) -> Result<Option<Vec<FlagInfo>>, StoreError> {
        self.read(|transaction| flags::list(transaction, request))
    }

    fn rejections(&self, request: &RejectionsRequest) -> Result<Option<Vec<RejectedGroup>>, StoreError> {
        self.read(|transaction| rejections::list(transaction, request))
    }

    fn rejection(&self, space: &SpaceId, id: &GroupId, scopes: &ScopeSet) -> Result<Option<RejectedGroup>, StoreError> {
        self.read(|transaction| rejections::one(transaction, space, id, scopes))
    }

    fn schema(&self) -> Result<Option<StoredSchema>, StoreError> {
        let schemas = self.read(|transaction| adopt::schemas(transaction))?;
        Ok(schemas.into_iter().rfind(|schema| schema.is_in_force))
    }

    fn retainer(&self) -> Result<Option<Box<dyn Retainer>>, StoreError> {
        let data = self.path.parent().unwrap_or(&self.path);
        let retainer = SqliteRetainer::open(data, self.busy_timeout)?;
        Ok(retainer.map(|retainer| Box::new(retainer) as Box<dyn Retainer>))
    }

    fn close(&self) -> Result<(), StoreError> {
        // Any connection moves the WAL into the file, and one that is opened reads all table definitions.
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner)).pop();
        let connection = match opened.or(idle) {
            Some(connection) => connection,
            None => open::writer(&self.path, self.busy_timeout)?,
        };
        let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        moved.inspect_err(|error| gbsync_wal::note(&connection, error))?;
        // A connection that was cut off may hold the store a moment longer, but nothing writes any more.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the folder's lock is released when the process ends");
        }
        Ok(())
    }
}
