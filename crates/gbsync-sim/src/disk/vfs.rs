//! The virtual file system of SQLite: the system's own, with a note of each change before it is made.
//!
//! The system's file system opens the file into SQLite's memory; then its table of methods is exchanged for a copy in which
//! those that change the file are ours. The originals are found by the address of the file, which SQLite does not move.

use super::image::{Loss, OnDisk};
use super::journal::{Entry, Journal, Mark, Op};
use crate::random::Random;
use rusqlite::ffi;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// An open file.
struct Open {
    path: PathBuf,
    methods: &'static ffi::sqlite3_io_methods,
}

/// A folder whose power was cut, or will be.
struct Cut {
    /// Changes of its files that still happen.
    left: u64,
}

/// How a disk fails, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is full.
    Full,
    /// A write fails.
    Write,
    /// A sync fails, and what was not synced is lost.
    Sync,
}

impl Failure {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Full, Self::Write, Self::Sync];

    fn code(self) -> c_int {
        match self {
            Self::Full => ffi::SQLITE_FULL,
            Self::Write => ffi::SQLITE_IOERR_WRITE,
            Self::Sync => ffi::SQLITE_IOERR_FSYNC,
        }
    }
}

#[derive(Default)]
struct State {
    open: BTreeMap<usize, Open>,
    /// What is on the disk, and what is not yet.
    files: BTreeMap<PathBuf, OnDisk>,
    cuts: BTreeMap<PathBuf, Cut>,
    /// Folders whose next write fails once, and how.
    failures: BTreeMap<PathBuf, Failure>,
    /// Folders where one of those failed, and how.
    fired: BTreeMap<PathBuf, Failure>,
    /// How many changes happened to the files of each folder.
    changes: BTreeMap<PathBuf, u64>,
    /// How many changes of the files of each folder were made to fail.
    errors: BTreeMap<PathBuf, u64>,
    /// Our tables of methods, by the address of the system's.
    tables: BTreeMap<usize, &'static ffi::sqlite3_io_methods>,
    is_recording: bool,
    journal: Journal,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static SYSTEM: OnceLock<System> = OnceLock::new();

/// The system's own file system.
struct System(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite's default file system is a table of functions that any thread may call.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a change of a file is to happen: the system's methods, or the error that SQLite is to see instead.
fn note(file: *mut ffi::sqlite3_file, op: Op) -> Result<&'static ffi::sqlite3_io_methods, c_int> {
    let mut state = state();
    let state = state.get_or_insert_default();
    let open = state.open.get(&(file as usize)).ok_or(ffi::SQLITE_IOERR)?;
    let (path, methods) = (open.path.clone(), open.methods);
    state.change(path, op)?;
    Ok(methods)
}

impl State {
    fn change(&mut self, path: PathBuf, op: Op) -> Result<(), c_int> {
        let folder = path.parent().map(Path::to_owned);
        let changed = self.try_change(path, op);
        if let (Some(folder), Err(_)) = (folder, changed) {
            *self.errors.entry(folder).or_default() += 1;
        }
        changed
    }

    fn try_change(&mut self, path: PathBuf, op: Op) -> Result<(), c_int> {
        for (folder, cut) in &mut self.cuts {
            if path.starts_with(folder) {
                cut.left = cut.left.checked_sub(1).ok_or(ffi::SQLITE_IOERR)?;
            }
        }
        let is_met = |failure: Failure| failure != Failure::Sync || matches!(op, Op::Sync);
        let failing = self.failures.iter().find(|(folder, failure)| path.starts_with(folder) && is_met(**failure));
        let failing = failing.map(|(folder, _)| folder.clone());
        if let Some(failure) = failing.and_then(|folder| self.failures.remove(&folder)) {
            if let Some(folder) = path.parent() {
                self.fired.insert(folder.to_owned(), failure);
            }
            return Err(failure.code());
        }
        if self.is_recording {
            self.journal.entries.push(Entry::File { path: path.clone(), op: op.clone() });
        }
        if let Some(folder) = path.parent() {
            match self.changes.get_mut(folder) {
                Some(changes) => *changes += 1,
                None => drop(self.changes.insert(folder.to_owned(), 1)),
            }
        }
        self.files.entry(path).or_default().note(op);
        Ok(())
    }

    fn noting(&mut self, methods: &'static ffi::sqlite3_io_methods) -> &'static ffi::sqlite3_io_methods {
        self.tables.entry(std::ptr::from_ref(methods) as usize).or_insert_with(|| {
            let mut noting = *methods;
            noting.xClose = Some(close);
            noting.xWrite = Some(write);
            noting.xTruncate = Some(truncate);
            noting.xSync = Some(sync);
            Box::leak(Box::new(noting))
        })
    }
}

/// How many changes happened to the files of a folder: two equal answers say that nothing was written between them.
pub fn changes(folder: &Path) -> u64 {
    state().get_or_insert_default().changes.get(folder).copied().unwrap_or(0)
}

/// Whether a change of a folder's files failed, as [`fail_next`] asked, since this was last asked, and how.
pub fn take_failure(folder: &Path) -> Option<Failure> {
    state().get_or_insert_default().fired.remove(folder)
}

/// How many changes of a folder's files were made to fail since it was last forgotten.
pub fn errors(folder: &Path) -> u64 {
    state().get_or_insert_default().errors.get(folder).copied().unwrap_or(0)
}

/// Keeps a journal from now on, or no longer.
pub fn record(is_recording: bool) {
    state().get_or_insert_default().is_recording = is_recording;
}

/// Cuts the power of a folder after so many more changes of its files: from then on every change fails.
pub fn cut_after(folder: &Path, changes: u64) {
    state().get_or_insert_default().cuts.insert(folder.into(), Cut { left: changes });
}

/// Whether a folder's power is cut by now.
pub fn is_cut(folder: &Path) -> bool {
    state().get_or_insert_default().cuts.get(folder).is_some_and(|cut| cut.left == 0)
}

/// Makes the next change of a folder's files that can fail in this way fail once.
pub fn fail_next(folder: &Path, failure: Failure) {
    state().get_or_insert_default().failures.insert(folder.into(), failure);
}

/// Takes back cuts and failures that have not come yet.
pub fn heal(folder: &Path) {
    let mut state = state();
    let state = state.get_or_insert_default();
    state.cuts.remove(folder);
    state.failures.remove(folder);
}

/// Writes a folder's files as a loss of power now leaves them, into another folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write_image(from: &Path, loss: Loss, random: &mut Random, to: &Path) -> std::io::Result<()> {
    let state = state();
    let Some(state) = state.as_ref() else { return Ok(()) };
    super::image::write_files(&state.files, loss, random, from, to)
}

/// Forgets a folder and everything about its files.
pub fn forget(folder: &Path) {
    let mut state = state();
    let state = state.get_or_insert_default();
    state.files.retain(|path, _| !path.starts_with(folder));
    state.changes.retain(|path, _| !path.starts_with(folder));
    state.errors.retain(|path, _| !path.starts_with(folder) || path == folder);
    state.cuts.remove(folder);
    state.failures.remove(folder);
}

/// Makes the noting file system the default of this process. Done once; doing it again changes nothing.
pub fn install() {
    SYSTEM.get_or_init(|| {
        super::memory::install();
        // SAFETY: nothing of SQLite is in use yet. Its count of memory, which nobody asks for, is behind one lock for all threads.
        unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
        // SAFETY: a null name asks for the default file system, which lives as long as the process.
        let system = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        assert!(!system.is_null(), "SQLite has a default file system");
        // SAFETY: found above and never freed; a copy of it works on the same private data.
        let mut noting = unsafe { *system };
        noting.zName = c"noting".as_ptr();
        noting.pNext = std::ptr::null_mut();
        noting.xOpen = Some(open);
        noting.xDelete = Some(delete);
        // SAFETY: the copy is leaked, so it lives as long as SQLite may call it.
        let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(noting)), 1) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite takes the file system");
        System(system)
    });
}

/// Notes that somebody was told something.
pub fn tell(mark: Mark) {
    state().get_or_insert_default().journal.entries.push(Entry::Told(mark));
}

/// The journal up to now; a new one begins.
pub fn take() -> Journal {
    std::mem::take(&mut state().get_or_insert_default().journal)
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let Some(system) = SYSTEM.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: SQLite calls with what it would call the system's file system with.
    let code = unsafe { (*system.0).xOpen.map_or(ffi::SQLITE_CANTOPEN, |open| open(vfs, name, file, flags, out)) };
    let is_kept = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL;
    if code != ffi::SQLITE_OK || name.is_null() || flags & is_kept == 0 {
        return code;
    }
    // SAFETY: the name is a C string, and the system's xOpen has set the methods.
    let (path, methods) = unsafe { (CStr::from_ptr(name).to_string_lossy().into_owned(), (*file).pMethods) };
    if methods.is_null() {
        return code;
    }
    // SAFETY: tables of methods are constants of the system's file system.
    let methods: &'static ffi::sqlite3_io_methods = unsafe { &*methods };
    let noting = {
        let mut state = state();
        let state = state.get_or_insert_default();
        let path = PathBuf::from(path);
        // What was there before is on the disk.
        state.files.entry(path.clone()).or_insert_with(|| OnDisk::there(std::fs::read(&path).unwrap_or_default()));
        state.open.insert(file as usize, Open { path, methods });
        state.noting(methods)
    };
    // SAFETY: the file is open; the table is leaked once for each of the system's, so it outlives it.
    unsafe { (*file).pMethods = noting };
    code
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    let Some(system) = SYSTEM.get() else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: the name is a C string.
    let path = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    if let Err(code) = state().get_or_insert_default().change(path.into(), Op::Delete) {
        return code;
    }
    // SAFETY: as SQLite would call it.
    unsafe { (*system.0).xDelete.map_or(ffi::SQLITE_IOERR_DELETE, |delete| delete(vfs, name, sync_dir)) }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let Some(open) = state().get_or_insert_default().open.remove(&(file as usize)) else { return ffi::SQLITE_IOERR };
    // SAFETY: the file is open; its own table is put back before its own close is called.
    unsafe {
        (*file).pMethods = open.methods;
        open.methods.xClose.map_or(ffi::SQLITE_OK, |close| close(file))
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, data: *const c_void, amount: c_int, offset: i64) -> c_int {
    let length = usize::try_from(amount).unwrap_or(0);
    // SAFETY: SQLite gives `amount` bytes.
    let bytes: Box<[u8]> = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) }.into();
    let op = Op::Write { offset: u64::try_from(offset).unwrap_or(0), bytes };
    let methods = match note(file, op) {
        Ok(methods) => methods,
        Err(code) => return code,
    };
    // SAFETY: as SQLite would call it.
    unsafe { methods.xWrite.map_or(ffi::SQLITE_IOERR_WRITE, |write| write(file, data, amount, offset)) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let op = Op::Truncate { size: u64::try_from(size).unwrap_or(0) };
    let methods = match note(file, op) {
        Ok(methods) => methods,
        Err(code) => return code,
    };
    // SAFETY: as SQLite would call it.
    unsafe { methods.xTruncate.map_or(ffi::SQLITE_IOERR_TRUNCATE, |truncate| truncate(file, size)) }
}

/// Noted and not done: a real fsync would only cost time, because no real power is lost here.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    match note(file, Op::Sync) {
        Ok(_) => ffi::SQLITE_OK,
        Err(_) => ffi::SQLITE_IOERR_FSYNC,
    }
}
