//! A writer: one connection, one transaction at a time, in one space or in several.
//!
//! Invariant: a space's row is locked before anything else of the space is read or written, and until the COMMIT. Whoever holds a
//! space waits for no other: several are locked together, without those that others hold. A connection that is in the middle of a
//! transaction, or may be, never goes back to the pool.

use super::engine::Engine;
use super::flight::Flight;
use super::row::space as space_row;
use super::{learn, lineage, load, parts, write};
use crate::config::FaultPoint;
use crate::store::{
    EpochKey, Held, KeptAncestor, Loaded, Staged, Staging, StoreError, ToldEpoch, UploadedPart, Wanted, Writer, Written,
};
use deadpool_postgres::{ClientWrapper, Object};
use gbsync_core::decide::{Facts, Needs};
use gbsync_core::id::{DeviceId, GroupId, LogId, RecordKey, SpaceId};
use gbsync_core::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Each statement sees what was committed before it: also what was committed while it waited for the space.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE";
const COMMIT: &str = "COMMIT";
/// A transaction of nothing: a standby refuses it.
const PROBE: &str = "BEGIN READ WRITE; COMMIT";
/// The space's counter. Held to the COMMIT.
const LOCK: &str =
    "SELECT space_no, log, head, chain, horizon, horizon_chain, ancestors FROM spaces WHERE space = $1 FOR UPDATE";

/// The same of several, and the place of each among those asked for: of those that nobody else holds.
pub(super) const LOCK_FREE: &str = "
SELECT s.space_no, s.log, s.head, s.chain, s.horizon, s.horizon_chain, s.ancestors, w.place
  FROM unnest($1::text[]) WITH ORDINALITY AS w(space, place)
 CROSS JOIN LATERAL (SELECT * FROM spaces WHERE space = w.space FOR UPDATE SKIP LOCKED) AS s";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[LOCK, LOCK_FREE];

/// The same without the lock: numbers from a counter that every transaction draws from, so that no key stops two at once, and
/// some time until they are used.
#[cfg(feature = "mutants")]
const UNLOCKED: &str = "
WITH drawn AS MATERIALIZED (SELECT 1000 * pg_current_xact_id()::text::bigint AS head)
SELECT space_no, log, drawn.head, chain, horizon, horizon_chain, ancestors
  FROM drawn CROSS JOIN LATERAL pg_sleep(0.02 * random() + 0 * drawn.head) CROSS JOIN spaces WHERE space = $1";

/// The statement that locks a space. A test that must fail without the lock is shown to: see `tests/nodes/naive.rs`.
pub(super) fn lock() -> &'static str {
    #[cfg(feature = "mutants")]
    if is_unlocked() {
        return UNLOCKED;
    }
    LOCK
}

/// Whether the lock is left out.
#[cfg(feature = "mutants")]
pub(super) fn is_unlocked() -> bool {
    std::env::var_os("GBSYNC_PLANT_UNLOCKED").is_some()
}

/// The numbers of spaces, which they have for good. A store that was put back under a running process may number them anew, so that
/// each is held against the number that comes with its lock.
pub(super) type SpaceNumbers = Arc<Mutex<HashMap<SpaceId, i64>>>;

/// A space that is locked.
#[derive(Default)]
pub(super) struct Entered {
    pub(super) space_no: i64,
    /// The numbers of epochs that were looked up since, and records that were not there.
    pub(super) epochs: BTreeMap<EpochKey, i64>,
    pub(super) absent: BTreeSet<RecordKey>,
}

/// A connection that writes.
pub(super) struct PostgresWriter {
    pub(super) engine: Arc<Engine>,
    connection: Option<Object>,
    fault: Option<FaultPoint>,
    /// Whether BEGIN was sent and nothing ended it.
    pub(super) is_open: bool,
    /// Whether it keeps others from putting schemas in force.
    pub(super) is_reserved: bool,
    /// The spaces that it has locked.
    pub(super) entered: BTreeMap<SpaceId, Entered>,
    numbers: SpaceNumbers,
}

impl PostgresWriter {
    pub(super) fn new(engine: Arc<Engine>, connection: Object, fault: Option<FaultPoint>, numbers: SpaceNumbers) -> Self {
        Self {
            engine,
            connection: Some(connection),
            fault,
            is_open: false,
            is_reserved: false,
            entered: BTreeMap::new(),
            numbers,
        }
    }

    /// The number of a space, if it was seen before.
    pub(super) fn number(&self, space: &SpaceId) -> Option<i64> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).get(space).copied()
    }

    pub(super) fn client(&self) -> &ClientWrapper {
        self.connection.as_ref().expect("it is taken when the writer is dropped")
    }

    /// Sends BEGIN if it was not.
    pub(super) async fn open(&mut self) -> Result<(), StoreError> {
        if !self.is_open {
            self.is_open = true;
            self.client().batch_execute(BEGIN).await?;
        }
        Ok(())
    }

    /// Locks the space, if it is not locked; its number.
    pub(super) async fn enter(&mut self, space: &SpaceId) -> Result<Option<i64>, StoreError> {
        if let Some(entered) = self.entered.get(space) {
            return Ok(Some(entered.space_no));
        }
        let lock = self.client().prepare_cached(lock()).await?;
        let (name, begins) = (space.as_str(), !self.is_open);
        self.is_open = true;
        let mut flight = Flight::new(self.client());
        if begins {
            flight.say(BEGIN);
        }
        let at_lock = flight.add(&lock, vec![&name]);
        let rows = flight.land().await?;
        let Some(row) = rows[at_lock].first() else { return Ok(None) };
        let (space_no, _) = space_row(row)?;
        self.stand_in(space, Entered { space_no, ..Entered::default() });
        Ok(Some(space_no))
    }

    /// Forgets a space's number, which is another one now.
    pub(super) fn forget(&self, space: &SpaceId) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).remove(space);
    }

    /// Notes that a space is locked.
    pub(super) fn stand_in(&mut self, space: &SpaceId, entered: Entered) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).insert(space.clone(), entered.space_no);
        self.entered.insert(space.clone(), entered);
    }

    /// The transaction has ended.
    pub(super) fn leave(&mut self) {
        self.is_open = false;
        self.entered.clear();
    }

    /// All of it travels with the COMMIT: after a statement that failed, PostgreSQL takes that for a ROLLBACK.
    async fn write_and_commit(&mut self, written: &[(SpaceId, Written)]) -> Result<(), StoreError> {
        if written.is_empty() {
            return Ok(self.client().batch_execute(COMMIT).await?);
        }
        let written: Vec<_> = written.iter().map(|(space, written)| (space, written)).collect();
        write::write(self, &written).await?.send(self.client(), Some(COMMIT)).await
    }

    /// The number of a space that is there.
    pub(super) async fn inside(&mut self, space: &SpaceId) -> Result<i64, StoreError> {
        self.enter(space).await?.ok_or_else(|| StoreError::Damaged("a space vanished inside a transaction".into()))
    }
}

impl Drop for PostgresWriter {
    fn drop(&mut self) {
        if self.is_open || self.is_reserved {
            drop(self.connection.take().map(Object::take));
        }
    }
}

impl Writer for PostgresWriter {
    fn begin(&mut self) -> Result<(), StoreError> {
        if self.is_open {
            return Err(StoreError::Lost("the transaction before could not be ended".into()));
        }
        self.entered.clear();
        Ok(())
    }

    fn load(&mut self, space: &SpaceId, wanted: &Wanted<'_>) -> Result<Option<Held>, StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(load::load(self, space, wanted))
    }

    fn load_all(&mut self, wanted: &[(&SpaceId, Wanted<'_>)]) -> Result<Vec<Loaded>, StoreError> {
        if let [(space, wanted)] = wanted {
            return Ok(vec![Loaded::of(self.load(space, wanted)?)]);
        }
        let engine = Arc::clone(&self.engine);
        engine.wait(load::load_free(self, wanted))
    }

    fn learn(&mut self, space: &SpaceId, needs: &Needs, facts: &mut Facts) -> Result<(), StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(learn::learn(self, space, needs, facts))
    }

    fn write(&mut self, space: &SpaceId, written: &Written) -> Result<(), StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(async { write::write(self, &[(space, written)]).await?.send(self.client(), None).await })
    }

    fn fork(&mut self, space: &SpaceId, log: &LogId, ancestors: &[KeptAncestor]) -> Result<(), StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(async {
            let space_no = self.inside(space).await?;
            lineage::fork(self.client(), space_no, log, ancestors).await
        })
    }

    fn tell(&mut self, told: &ToldEpoch, at: &Timestamp) -> Result<(), StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(async {
            let Some(space_no) = self.enter(&told.space).await? else { return Ok(()) };
            write::tell(self.client(), space_no, told, at).await
        })
    }

    fn stage(&mut self, part: &UploadedPart, group_bytes: u64, now_ms: u64) -> Result<Staging, StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(async {
            let Some(space_no) = self.enter(&part.space).await? else { return Ok(Staging::NoSpace) };
            parts::stage(self.client(), space_no, part, group_bytes, now_ms).await
        })
    }

    fn staged(
        &mut self,
        space: &SpaceId,
        device: &DeviceId,
        group: &GroupId,
        parts: u64,
        take: &mut dyn FnMut(&str) -> Result<bool, StoreError>,
    ) -> Result<Staged, StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(async {
            let Some(space_no) = self.enter(space).await? else { return Ok(Staged::Missing(vec![0])) };
            parts::staged(self.client(), (space_no, device, group), parts, take).await
        })
    }

    fn unstage(&mut self, space: &SpaceId, device: &DeviceId, group: &GroupId) -> Result<(), StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(async {
            match self.enter(space).await? {
                Some(space_no) => parts::remove(self.client(), space_no, device.as_str(), &[group.as_str()]).await,
                None => Ok(()),
            }
        })
    }

    fn expire_uploads(&mut self, before_ms: u64) -> Result<(), StoreError> {
        let engine = Arc::clone(&self.engine);
        engine.wait(async {
            for space in parts::spaces_with_expired(self.client(), before_ms).await? {
                let Some(space_no) = self.enter(&space).await? else { continue };
                parts::expire(self.client(), space_no, before_ms).await?;
                self.client().batch_execute("COMMIT").await?;
                self.leave();
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.finish(&[])
    }

    fn finish(&mut self, written: &[(SpaceId, Written)]) -> Result<(), StoreError> {
        if let Some(FaultPoint(is_faulty)) = &self.fault
            && is_faulty()
        {
            return Err(StoreError::Postgres("the COMMIT was made to fail".into()));
        }
        let engine = Arc::clone(&self.engine);
        if !self.is_open {
            // Whoever asked for nothing asks whether anything could be written.
            return Ok(engine.wait(self.client().batch_execute(PROBE))?);
        }
        engine.wait(self.write_and_commit(written)).map_err(|error| match error {
            StoreError::Lost(text) => StoreError::Uncertain(text),
            other => other,
        })?;
        self.leave();
        Ok(())
    }

    fn rollback(&mut self) {
        if !self.is_open {
            return;
        }
        match self.engine.wait(self.client().batch_execute("ROLLBACK")) {
            Ok(()) => self.leave(),
            Err(error) => tracing::debug!(%error, "a transaction could not be rolled back; its connection is closed"),
        }
    }
}
