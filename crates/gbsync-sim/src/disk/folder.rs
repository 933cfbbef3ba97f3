//! Folders of the disk: what is on it, what is not yet, and what is to go wrong.
//!
//! Each folder has a lock of its own, so that worlds that run at a time do not wait for each other. A file that is still open
//! when its folder is forgotten goes on in the folder as it was: what was cut stays cut for it.

use super::image::{Loss, OnDisk, write_file};
use super::journal::{Entry, Journal, Mark, Op};
use crate::random::Random;
use rusqlite::ffi;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString, c_int};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a disk fails, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is full.
    Full,
    /// A write fails.
    Write,
    /// A sync fails, and what was not synced is lost.
    Sync,
    /// A read fails.
    Read,
}

impl Failure {
    /// Every way in which a change fails.
    pub const ALL: [Self; 3] = [Self::Full, Self::Write, Self::Sync];

    fn code(self) -> c_int {
        match self {
            Self::Full => ffi::SQLITE_FULL,
            Self::Write => ffi::SQLITE_IOERR_WRITE,
            Self::Sync => ffi::SQLITE_IOERR_FSYNC,
            Self::Read => ffi::SQLITE_IOERR_READ,
        }
    }
}

#[derive(Default)]
struct Folder {
    /// What is on the disk, and what is not yet.
    files: BTreeMap<OsString, OnDisk>,
    /// Changes of its files that still happen before its power is cut.
    left: Option<u64>,
    /// How the next change that can fail in this way fails.
    failure: Option<Failure>,
    /// How many writes still find it full.
    full: u64,
    /// Whether the next read fails.
    unreadable: Option<Unreadable>,
    /// How one failed since that was last asked.
    fired: Option<Failure>,
    /// How many changes happened to its files.
    changes: u64,
    /// How many were made to fail.
    errors: u64,
}

/// Folders in which a read is to fail. While there are none, whoever reads asks for none.
static UNREADABLE: AtomicUsize = AtomicUsize::new(0);

/// That the next read of a folder's files fails.
struct Unreadable;

impl Unreadable {
    fn begin() -> Self {
        UNREADABLE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Unreadable {
    fn drop(&mut self) {
        UNREADABLE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file of a folder that is open.
#[derive(Clone)]
pub(super) struct Place {
    folder: Arc<Mutex<Folder>>,
    path: Arc<Path>,
}

static FOLDERS: Mutex<BTreeMap<PathBuf, Arc<Mutex<Folder>>>> = Mutex::new(BTreeMap::new());
static IS_RECORDING: AtomicBool = AtomicBool::new(false);
static JOURNAL: Mutex<Journal> = Mutex::new(Journal { entries: Vec::new() });

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn folder(path: &Path) -> Arc<Mutex<Folder>> {
    let mut folders = locked(&FOLDERS);
    match folders.get(path) {
        Some(folder) => folder.clone(),
        None => folders.entry(path.to_owned()).or_default().clone(),
    }
}

fn with<T>(path: &Path, look: impl FnOnce(&mut Folder) -> T) -> T {
    look(&mut locked(&folder(path)))
}

impl Place {
    /// A file.
    pub(super) fn of(path: &Path) -> Self {
        Self { folder: folder(path.parent().unwrap_or(Path::new(""))), path: path.into() }
    }

    /// A file that was opened: what was there before anybody looked is on the disk.
    pub(super) fn opened(path: &Path) -> Self {
        let place = Self::of(path);
        if let Some(name) = path.file_name() {
            let mut folder = locked(&place.folder);
            if !folder.files.contains_key(name) {
                let content = std::fs::read(path).unwrap_or_default();
                folder.files.insert(name.to_owned(), OnDisk::there(content));
            }
        }
        place
    }

    /// Whether it lies in a folder.
    pub(super) fn is_in(&self, folder: &Path) -> bool {
        self.path.parent() == Some(folder)
    }

    /// Takes note of a change, or says how it fails.
    pub(super) fn change(&self, op: Op) -> Result<(), c_int> {
        let mut folder = locked(&self.folder);
        let changed = folder.change(&self.path, op);
        folder.errors += u64::from(changed.is_err());
        changed
    }

    /// Says how a read fails, if it is to fail.
    pub(super) fn read(&self) -> Result<(), c_int> {
        let mut folder = locked(&self.folder);
        if folder.unreadable.take().is_none() {
            return Ok(());
        }
        (folder.fired, folder.errors) = (Some(Failure::Read), folder.errors + 1);
        Err(Failure::Read.code())
    }
}

/// Whether a read of any file is to fail.
pub(super) fn is_any_unreadable() -> bool {
    UNREADABLE.load(Ordering::Relaxed) > 0
}

impl Folder {
    fn change(&mut self, path: &Path, op: Op) -> Result<(), c_int> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(ffi::SQLITE_IOERR)?;
        }
        let is_met = |failure: &mut Failure| *failure != Failure::Sync || matches!(op, Op::Sync);
        let name = path.file_name().unwrap_or(OsStr::new(""));
        if let Some(failure) = self.failure.take_if(is_met) {
            self.fired = Some(failure);
            if let (Failure::Sync, Some(file)) = (failure, self.files.get_mut(name)) {
                file.fail_sync();
            }
            return Err(failure.code());
        }
        if self.full > 0 && matches!(op, Op::Write { .. }) {
            (self.full, self.fired) = (self.full - 1, Some(Failure::Full));
            return Err(Failure::Full.code());
        }
        if IS_RECORDING.load(Ordering::Relaxed) {
            locked(&JOURNAL).entries.push(Entry::File { path: path.to_owned(), op: op.clone() });
        }
        self.changes += 1;
        match self.files.get_mut(name) {
            Some(file) => file.note(op),
            None => self.files.entry(name.to_owned()).or_default().note(op),
        }
        Ok(())
    }
}

/// How many changes happened to the files of a folder: two equal answers say that nothing was written between them.
pub fn changes(folder: &Path) -> u64 {
    with(folder, |folder| folder.changes)
}

/// Whether a change of a folder's files failed, as [`fail_next`] asked, since this was last asked, and how.
pub fn take_failure(folder: &Path) -> Option<Failure> {
    with(folder, |folder| folder.fired.take())
}

/// How many changes of a folder's files were made to fail.
pub fn errors(folder: &Path) -> u64 {
    with(folder, |folder| folder.errors)
}

/// Cuts the power of a folder after so many more changes of its files: from then on every change fails.
pub fn cut_after(folder: &Path, changes: u64) {
    with(folder, |folder| folder.left = Some(changes));
}

/// Whether a folder's power is cut by now.
pub fn is_cut(folder: &Path) -> bool {
    with(folder, |folder| folder.left == Some(0))
}

/// Makes the next change of a folder's files that can fail in this way fail once.
pub fn fail_next(folder: &Path, failure: Failure) {
    with(folder, |folder| folder.failure = Some(failure));
}

/// Makes a folder's disk full for so many writes.
pub fn fill(folder: &Path, writes: u64) {
    with(folder, |folder| folder.full = writes);
}

/// Makes the next read of a folder's files fail once.
pub fn fail_read(folder: &Path) {
    with(folder, |folder| folder.unreadable = Some(Unreadable::begin()));
}

/// Whether a folder's disk is full for some writes yet.
pub fn is_full(folder: &Path) -> bool {
    with(folder, |folder| folder.full > 0)
}

/// A folder's disk has room, and can be read.
pub fn relieve(folder: &Path) {
    with(folder, |folder| (folder.full, folder.unreadable) = (0, None));
}

/// Takes back cuts and failures that have not come yet.
pub fn heal(folder: &Path) {
    with(folder, |folder| (folder.left, folder.failure, folder.full, folder.unreadable) = (None, None, 0, None));
}

/// Writes a folder's files as a loss of power now leaves them, into another folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write_image(from: &Path, loss: Loss, random: &mut Random, to: &Path) -> std::io::Result<()> {
    let folder = folder(from);
    let folder = locked(&folder);
    folder.files.iter().try_for_each(|(name, file)| write_file(file, loss, random, &to.join(name)))
}

/// Forgets a folder and those below it, and everything about their files but how often they failed.
pub fn forget(folder: &Path) {
    let mut folders = locked(&FOLDERS);
    let below: Vec<PathBuf> = folders.keys().filter(|path| path.starts_with(folder)).cloned().collect();
    for path in below {
        let Some(old) = folders.remove(&path) else { continue };
        let Folder { errors, fired, .. } = *locked(&old);
        if path == folder && errors > 0 {
            let new = Folder { errors, fired, ..Folder::default() };
            folders.insert(path, Arc::new(Mutex::new(new)));
        }
    }
}

/// Keeps a journal from now on, or no longer.
pub fn record(is_recording: bool) {
    IS_RECORDING.store(is_recording, Ordering::Relaxed);
}

/// Notes that somebody was told something.
pub fn tell(mark: Mark) {
    locked(&JOURNAL).entries.push(Entry::Told(mark));
}

/// The journal up to now; a new one begins.
pub fn take() -> Journal {
    std::mem::take(&mut locked(&JOURNAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_for_so_many_writes_and_a_read_fails_once() {
        let folder = Path::new("/nowhere/full");
        let place = Place::of(&folder.join("a"));
        let write = || place.change(Op::Write { offset: 0, bytes: b"a".as_slice().into() });
        fill(folder, 2);
        assert_eq!((write(), is_full(folder)), (Err(ffi::SQLITE_FULL), true));
        assert_eq!((place.change(Op::Sync), write(), write()), (Ok(()), Err(ffi::SQLITE_FULL), Ok(())));
        assert_eq!((take_failure(folder), errors(folder)), (Some(Failure::Full), 2));
        fail_read(folder);
        assert!(is_any_unreadable());
        assert_eq!((place.read(), place.read()), (Err(ffi::SQLITE_IOERR_READ), Ok(())));
        assert_eq!((take_failure(folder), errors(folder)), (Some(Failure::Read), 3));
    }
}
