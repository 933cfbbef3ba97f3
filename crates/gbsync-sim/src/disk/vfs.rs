//! The virtual file system of SQLite: the system's own, with a note of each change before it is made.
//!
//! The system's file system opens the file into SQLite's memory; then its table of methods is exchanged for a copy in which
//! those that change the file are ours. The originals are found by the address of the file, which SQLite does not move.

use super::journal::{Entry, Journal, Mark, Op};
use rusqlite::ffi;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// An open file.
struct Open {
    path: PathBuf,
    methods: &'static ffi::sqlite3_io_methods,
}

#[derive(Default)]
struct State {
    open: BTreeMap<usize, Open>,
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

fn note(file: *mut ffi::sqlite3_file, op: Op) -> Option<&'static ffi::sqlite3_io_methods> {
    let mut state = state();
    let state = state.get_or_insert_default();
    let open = state.open.get(&(file as usize))?;
    let (path, methods) = (open.path.clone(), open.methods);
    state.journal.entries.push(Entry::File { path, op });
    Some(methods)
}

/// Makes the noting file system the default of this process. Done once; doing it again changes nothing.
pub fn install() {
    SYSTEM.get_or_init(|| {
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
    let mut noting = *methods;
    noting.xClose = Some(close);
    noting.xWrite = Some(write);
    noting.xTruncate = Some(truncate);
    noting.xSync = Some(sync);
    state().get_or_insert_default().open.insert(file as usize, Open { path: path.into(), methods });
    // SAFETY: the file is open; the table is leaked, so it outlives it. Few files are opened in a run.
    unsafe { (*file).pMethods = Box::leak(Box::new(noting)) };
    code
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    let Some(system) = SYSTEM.get() else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: the name is a C string.
    let path = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    state().get_or_insert_default().journal.entries.push(Entry::File { path: path.into(), op: Op::Delete });
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
    let Some(methods) = note(file, op) else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: as SQLite would call it.
    unsafe { methods.xWrite.map_or(ffi::SQLITE_IOERR_WRITE, |write| write(file, data, amount, offset)) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let op = Op::Truncate { size: u64::try_from(size).unwrap_or(0) };
    let Some(methods) = note(file, op) else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: as SQLite would call it.
    unsafe { methods.xTruncate.map_or(ffi::SQLITE_IOERR_TRUNCATE, |truncate| truncate(file, size)) }
}

/// Noted and not done: a real fsync would only cost time, because no real power is lost here.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    if note(file, Op::Sync).is_some() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_FSYNC }
}
