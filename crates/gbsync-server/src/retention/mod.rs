//! How long a log is kept: entries that are old or too many leave it, into archives first, and the horizon moves.
//!
//! Invariant: an entry leaves the log only when the archive that holds it is durable; whatever is killed at whatever moment, it
//! is in the log, in an archive, or in both. Verdicts, numbers and rejections never leave. A tombstone is removed only when the
//! horizon has passed it.
//!
//! Everything happens in transactions as short as a push's, by one process at a time (docs/decisions/0029).
//!
//! Rejected alternative: `DELETE … WHERE age > x` in one statement. It would hold a space for as long as that takes, and what it
//! deleted would be gone.

mod archive;

use crate::config::{Environment, RetentionConfig};
use crate::error::ServerError;
use crate::routes::App;
use crate::store::{KeptEntry, Retainer, SpaceState, StoreError, StoreLocation};
use archive::{Archive, Finished};
use gbsync_core::fault;
use gbsync_core::id::{Seq, SpaceId};
#[cfg(feature = "mutants")]
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::time::Timestamp;
use gbsync_core::wire::committed_at;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Bytes of entries that are read at a time.
const READ_BYTES: u64 = 4 * 1024 * 1024;
/// Entries that leave in one transaction, and tombstones.
const STEP: u64 = 500;

/// What became of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retained {
    /// The space.
    pub space: SpaceId,
    /// Its horizon before.
    pub from: Seq,
    /// Its horizon now, or what it would be.
    pub to: Seq,
    /// The end of its log.
    pub head: Seq,
    /// Tombstones that were removed.
    pub tombstones: u64,
    /// The archives that were written.
    pub archives: Vec<PathBuf>,
}

/// Lets the logs of a store, or of one space, keep what the configuration says. `None` while another process is at it.
///
/// # Errors
/// [`ServerError::Store`] when the store or the folder of the archives fails; what left a log before is in an archive.
/// [`ServerError::NoArchive`] where it is not said where archives are to be. [`ServerError::NoSpace`].
pub fn retain(
    store: &StoreLocation,
    config: &RetentionConfig,
    space: Option<&SpaceId>,
    is_dry_run: bool,
) -> Result<Option<Vec<Retained>>, ServerError> {
    let Some(mut retainer) = store.retainer()? else { return Ok(None) };
    let work = Work::new(store, config, &Environment::system(), is_dry_run)?;
    work.run(retainer.as_mut(), space, &|| false).map(Some)
}

/// What is to be done.
pub(crate) struct Work {
    entries: Option<u64>,
    /// What was committed before this is old.
    before: Option<Timestamp>,
    folder: PathBuf,
    archive_bytes: u64,
    now: Timestamp,
    is_dry_run: bool,
}

/// The folder of a store's archives.
pub(crate) fn folder(store: &StoreLocation, config: &RetentionConfig) -> Result<PathBuf, ServerError> {
    let beside = || store.folder().map(|data| data.join("archives"));
    config.archives.clone().or_else(beside).ok_or(ServerError::NoArchive)
}

impl Work {
    pub(crate) fn new(
        store: &StoreLocation,
        config: &RetentionConfig,
        environment: &Environment,
        is_dry_run: bool,
    ) -> Result<Self, ServerError> {
        let now_ms = environment.now_ms();
        Ok(Self {
            entries: config.entries,
            before: config.age_ms.map(|age_ms| Timestamp::from_unix_ms(now_ms.saturating_sub(age_ms))),
            folder: folder(store, config)?,
            archive_bytes: config.archive_bytes,
            now: Timestamp::from_unix_ms(now_ms),
            is_dry_run,
        })
    }

    /// Does it, space by space, until it is told to stop; what is done then is done.
    pub(crate) fn run(
        &self,
        retainer: &mut dyn Retainer,
        space: Option<&SpaceId>,
        must_stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Retained>, ServerError> {
        let spaces = retainer.spaces()?;
        if let Some(space) = space.filter(|space| !spaces.contains(*space)) {
            return Err(ServerError::NoSpace { space: space.to_string() });
        }
        let mut retained = Vec::new();
        for name in spaces.iter().filter(|name| space.is_none_or(|space| space == *name)) {
            if must_stop() {
                break;
            }
            retained.extend(self.run_space(retainer, name, must_stop)?);
        }
        Ok(retained)
    }

    fn run_space(
        &self,
        retainer: &mut dyn Retainer,
        space: &SpaceId,
        must_stop: &dyn Fn() -> bool,
    ) -> Result<Option<Retained>, StoreError> {
        let Some(first) = retainer.state(space)? else { return Ok(None) };
        let mut retained = Retained {
            space: space.clone(),
            from: first.horizon,
            to: first.horizon,
            head: first.head,
            tombstones: 0,
            archives: Vec::new(),
        };
        if self.is_dry_run {
            retained.to = self.look(retainer, space, &first)?;
            return Ok(Some(retained));
        }
        let mut state = first;
        #[cfg(feature = "mutants")]
        if is(Mutant::ForgottenBeforeArchived) {
            let to = self.look(retainer, space, &state)?;
            self.forget(retainer, space, &mut state.clone(), to)?;
        }
        while !must_stop() {
            let Some(finished) = self.write_archive(retainer, space, &state)? else { break };
            fault::point("an archive is durable");
            retained.archives.push(finished.path);
            let is_undisturbed = self.forget(retainer, space, &mut state, finished.to)?;
            retained.to = state.horizon;
            if !is_undisturbed {
                // Somebody put the space back, or another process is at it after all: the next run looks again.
                break;
            }
        }
        while !must_stop() {
            let buried = retainer.bury(space, STEP)?;
            retained.tombstones += buried;
            if buried < STEP {
                break;
            }
        }
        if retained.to > retained.from || retained.tombstones > 0 {
            let (from, to, tombstones) = (retained.from, retained.to, retained.tombstones);
            tracing::info!(%space, %from, %to, tombstones, "entries left the log for an archive");
        }
        Ok(Some(retained))
    }

    /// How far the horizon would go.
    fn look(&self, retainer: &mut dyn Retainer, space: &SpaceId, state: &SpaceState) -> Result<Seq, StoreError> {
        let mut to = state.horizon;
        loop {
            let entries = retainer.entries(space, to, READ_BYTES)?;
            let leaving = self.leaving(&entries, state.head)?;
            match leaving.last() {
                Some(last) => to = last.seq,
                None => return Ok(to),
            }
            if leaving.len() < entries.len() {
                return Ok(to);
            }
        }
    }

    /// Those of these entries that leave: up to the last one that is over the number, or old. One without a time leaves with what is
    /// behind it.
    fn leaving<'e>(&self, entries: &'e [KeptEntry], head: Seq) -> Result<&'e [KeptEntry], StoreError> {
        let by_number = self.entries.map_or(0, |entries| head.0.saturating_sub(entries));
        let mut leaving = 0;
        for (index, kept) in entries.iter().enumerate() {
            if kept.seq.0 <= by_number {
                leaving = index + 1;
                continue;
            }
            let Some(before) = &self.before else { break };
            let damaged = |error| StoreError::Damaged(format!("entry {} of the log: {error}", kept.seq));
            match committed_at(&kept.entry).map_err(damaged)? {
                Some(at) if at.unix_ms() < before.unix_ms() => leaving = index + 1,
                Some(_) => break,
                None => {}
            }
        }
        Ok(&entries[..leaving])
    }

    /// Writes what leaves into an archive of bounded size and makes that durable; `None` when nothing leaves.
    fn write_archive(
        &self,
        retainer: &mut dyn Retainer,
        space: &SpaceId,
        state: &SpaceState,
    ) -> Result<Option<Finished>, StoreError> {
        let (mut archive, mut at) = (None, state.horizon);
        loop {
            let entries = retainer.entries(space, at, READ_BYTES)?;
            let leaving = self.leaving(&entries, state.head)?;
            let Some(last) = leaving.last() else { break };
            at = last.seq;
            let archive = match &mut archive {
                Some(archive) => archive,
                none => none.insert(Archive::create(&self.folder, space, state).map_err(StoreError::Archive)?),
            };
            for kept in leaving {
                archive.add(kept).map_err(StoreError::Archive)?;
                for part in 0..kept.parts {
                    let body = retainer.part(space, kept.seq, part)?;
                    archive.add_part(kept.seq, part, &body).map_err(StoreError::Archive)?;
                }
            }
            if leaving.len() < entries.len() || archive.bytes() >= self.archive_bytes {
                break;
            }
        }
        archive.map(|archive| archive.finish(&self.now)).transpose().map_err(StoreError::Archive)
    }

    /// Moves the horizon in small steps; `false` when the space is not as it was any more.
    fn forget(
        &self,
        retainer: &mut dyn Retainer,
        space: &SpaceId,
        state: &mut SpaceState,
        to: Seq,
    ) -> Result<bool, StoreError> {
        while state.horizon < to {
            let next = Seq((state.horizon.0 + STEP).min(to.0));
            if !retainer.forget(space, &state.log, state.horizon, next)? {
                return Ok(false);
            }
            fault::point("entries left the log");
            match retainer.state(space)? {
                Some(now) if now.log == state.log && now.horizon == next => *state = now,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Looks again and again, beside a server, until that stops.
pub(crate) async fn keep_up(
    app: Arc<App>,
    store: StoreLocation,
    config: RetentionConfig,
    environment: Environment,
    mut is_draining: watch::Receiver<bool>,
) {
    let every = Duration::from_millis(config.every_ms.max(1));
    loop {
        let (app, store, config, environment) = (Arc::clone(&app), store.clone(), config.clone(), environment.clone());
        let draining = is_draining.clone();
        let working = tokio::task::spawn_blocking(move || {
            let Some(mut retainer) = app.store.retainer()? else { return Ok(()) };
            let work = Work::new(&store, &config, &environment, false)?;
            work.run(retainer.as_mut(), None, &|| *draining.borrow()).map(drop)
        });
        match working.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "what is old cannot leave the logs; it stays, and is looked at again"),
            Err(error) => tracing::error!(%error, "what is old cannot leave the logs; it stays, and is looked at again"),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = is_draining.wait_for(|is_draining| *is_draining) => return,
        }
    }
}

/// Where an archive of a space is, of this folder.
pub fn archives_of(folder: &Path, space: &SpaceId) -> PathBuf {
    archive::folder_of(folder, space)
}
