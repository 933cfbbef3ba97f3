//! Snapshots: the full state of a space at one `seq`, made once into a compressed file and served from it with resume.
//!
//! A file is made from one committed state, read on a connection of its own (docs/decisions/0028). What it holds follows from
//! space, log, part, `seq` and horizon alone, so that every process makes the same bytes and a broken download goes on at
//! another one.
//!
//! Invariant: a file has its name only when all of it is durable, and is served only while the log still has the chain that
//! the file was made at.
//!
//! Rejected alternative: writing the answer while the store is read. A slow device would hold a transaction for minutes, and
//! two hundred shops that come back at once would read the store two hundred times.

mod folder;
mod frames;
mod shelf;

use crate::config::SnapshotConfig;
use crate::error::{Refusal, ServerError};
use crate::routes::App;
use crate::store::{EachRecord, Page, PageRequest, SnapshotOf, SpaceState, StoreError, StoreLocation};
use frames::Frames;
use gbsync_core::wire::{SnapshotFlag, SnapshotHead, SnapshotRow};
use shelf::Shelf;
pub(crate) use shelf::{Key, Named, make_private};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// How long a request waits for a file that is being made. Then the device is asked to come again, and it goes on being made.
const PATIENCE: Duration = Duration::from_secs(20);
/// Records between two looks at whether the server stops.
const LOOK_RECORDS: u64 = 4_096;

/// The snapshots of a server.
pub(crate) struct Snapshots {
    shelf: Shelf,
    lag_groups: u64,
    /// Held while a file is made: one at a time, however many ask.
    making: Mutex<()>,
    /// Holds the folder, where that is one of several that a machine has.
    _lock: Option<File>,
}

/// What a request for a snapshot comes to.
pub(crate) enum Offer {
    File(Named, File),
    NoSpace,
}

impl Snapshots {
    /// Takes the folder of a server, and removes what a crash left unfinished there.
    pub(crate) fn open(config: &SnapshotConfig, store: &StoreLocation) -> Result<Self, ServerError> {
        let (folder, lock) = folder::folder(config, store)?;
        let path = folder.clone().unwrap_or_default();
        let shelf =
            Shelf::open(folder, config.keep, config.bytes).map_err(|source| ServerError::SnapshotFolder { path, source })?;
        Ok(Self { shelf, lag_groups: config.lag_groups, making: Mutex::new(()), _lock: lock })
    }

    /// A file to serve: the one that a download began with where `begun` says its name and it is still there, else one that
    /// is not too old, else one that is made now.
    pub(crate) async fn offer(app: &Arc<App>, of: SnapshotOf, begun: Option<String>) -> Result<Offer, Refusal> {
        let space = of.space.clone();
        let Some(view) = app.read(move |store| store.space(&space, None, None)).await? else { return Ok(Offer::NoSpace) };
        let key = Key::of(&of, &view.state.log);
        let kept = app.snapshots.shelf.of(&key)?;
        let begun = kept.iter().find(|named| begun.as_ref().is_some_and(|begun| named.is_called(begun)));
        let recent = kept.iter().rfind(|named| app.snapshots.is_recent(named, &view.state));
        for named in begun.into_iter().chain(recent) {
            if let Some(file) = usable(app, &of, &view.state, named).await? {
                return Ok(Offer::File(named.clone(), file));
            }
        }
        let making = tokio::spawn(make(Arc::clone(app), of, key));
        match tokio::time::timeout(PATIENCE, making).await {
            Ok(made) => made.map_err(|_| Refusal::unavailable())?,
            Err(_) => Err(Refusal::unavailable()),
        }
    }

    /// A device that loads it has not far to go, and may go there.
    fn is_recent(&self, named: &Named, state: &SpaceState) -> bool {
        named.seq <= state.head && named.seq >= state.horizon && state.head.0 - named.seq.0 <= self.lag_groups
    }
}

/// The file, if the log still is what it was made from.
async fn usable(app: &Arc<App>, of: &SnapshotOf, state: &SpaceState, named: &Named) -> Result<Option<File>, Refusal> {
    let request = PageRequest {
        space: of.space.clone(),
        after: named.seq,
        log: Some(state.log.clone()),
        chain: Some(named.chain),
        max_records: 1,
        max_bytes: 1,
        sight: Arc::default(),
    };
    let is_same = matches!(app.read(move |store| store.page(&request)).await?, Page::Entries { .. });
    // Between the look at the folder and now it may have been removed.
    Ok(if is_same { app.snapshots.shelf.take(named) } else { None })
}

/// Makes a file, unless another request made one meanwhile.
async fn make(app: Arc<App>, of: SnapshotOf, key: Key) -> Result<Offer, Refusal> {
    let _turn = app.snapshots.making.lock().await;
    let is_draining = app.is_draining.clone();
    let app_too = Arc::clone(&app);
    let made = app.read(move |store| {
        let mut making = Making { snapshots: &app_too.snapshots, key: &key, is_draining, begun: None, found: None };
        if !store.each_record(&of, &mut making)? {
            return Ok(None);
        }
        making.finish().map(Some)
    });
    match made.await? {
        Some((named, file)) => Ok(Offer::File(named, file)),
        None => Ok(Offer::NoSpace),
    }
}

/// A file that is being made.
struct Making<'m> {
    snapshots: &'m Snapshots,
    key: &'m Key,
    is_draining: watch::Receiver<bool>,
    begun: Option<(SpaceState, u64, Frames)>,
    /// One that another request made meanwhile.
    found: Option<(Named, File)>,
}

impl EachRecord for Making<'_> {
    fn begin(&mut self, state: &SpaceState, schema_version: u64) -> Result<bool, StoreError> {
        let shelf = &self.snapshots.shelf;
        let kept = shelf.of(self.key).map_err(StoreError::Snapshot)?;
        let is_same = |named: &&Named| {
            (named.seq, named.chain, named.horizon) == (state.head, state.chain, state.horizon)
                && named.schema_version == schema_version
        };
        if let Some(named) = kept.iter().rfind(is_same)
            && let Some(file) = shelf.take(named)
        {
            self.found = Some((named.clone(), file));
            return Ok(false);
        }
        let frames = Frames::create(shelf.unfinished(self.key)?).map_err(StoreError::Snapshot)?;
        self.begun = Some((state.clone(), schema_version, frames));
        Ok(true)
    }

    fn record(&mut self, row: &SnapshotRow<'_>) -> Result<(), StoreError> {
        let Some((.., frames)) = &mut self.begun else { return Ok(()) };
        if frames.records().is_multiple_of(LOOK_RECORDS) && *self.is_draining.borrow() {
            return Err(StoreError::Snapshot(std::io::Error::other("the server stops")));
        }
        frames.add(row).map_err(StoreError::Snapshot)
    }

    fn flag(&mut self, flag: &SnapshotFlag) -> Result<(), StoreError> {
        let Some((.., frames)) = &mut self.begun else { return Ok(()) };
        frames.add_flag(flag).map_err(StoreError::Snapshot)
    }
}

impl Making<'_> {
    fn finish(self) -> Result<(Named, File), StoreError> {
        if let Some(found) = self.found {
            return Ok(found);
        }
        let (state, schema_version, frames) =
            self.begun.ok_or_else(|| StoreError::Damaged("a snapshot did not begin".into()))?;
        let head = SnapshotHead {
            seq: state.head,
            log: state.log.clone(),
            chain: state.chain,
            records: frames.records(),
            horizon: state.horizon,
            schema_version,
        };
        let (path, length) = frames.finish(&head).map_err(StoreError::Snapshot)?;
        let named = Named::new(self.key, &head, length);
        self.snapshots.shelf.put(&path, named).map_err(StoreError::Snapshot)
    }
}
