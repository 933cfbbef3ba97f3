//! The virtual file system of SQLite: the system's own, with a note of each change before it is made.
//!
//! The system's file system opens the file into SQLite's memory; then its table of methods is exchanged for a copy in which
//! those that change the file are ours. The originals are found by the address of the file, which SQLite does not move.

use super::folder::{Place, is_any_unreadable, locked};
use super::journal::Op;
use rusqlite::ffi;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// An open file.
struct Open {
    place: Place,
    methods: &'static ffi::sqlite3_io_methods,
}

/// The open files, by address.
static OPEN: Mutex<BTreeMap<usize, Open>> = Mutex::new(BTreeMap::new());
/// Our tables of methods, by the address of the system's.
static TABLES: Mutex<BTreeMap<usize, &'static ffi::sqlite3_io_methods>> = Mutex::new(BTreeMap::new());
static SYSTEM: OnceLock<System> = OnceLock::new();
/// How the system reads a file: one function for all of its tables.
static READ: OnceLock<Read> = OnceLock::new();

type Read = unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, i64) -> c_int;

/// The system's own file system.
struct System(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite's default file system is a table of functions that any thread may call.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

/// Whether a change of a file is to happen: the system's methods, or the error that SQLite is to see instead.
fn note(file: *mut ffi::sqlite3_file, op: Op) -> Result<&'static ffi::sqlite3_io_methods, c_int> {
    let (place, methods) = {
        let open = locked(&OPEN);
        let open = open.get(&(file as usize)).ok_or(ffi::SQLITE_IOERR)?;
        (open.place.clone(), open.methods)
    };
    place.change(op)?;
    Ok(methods)
}

fn noting(methods: &'static ffi::sqlite3_io_methods) -> &'static ffi::sqlite3_io_methods {
    locked(&TABLES).entry(std::ptr::from_ref(methods) as usize).or_insert_with(|| {
        let mut noting = *methods;
        if let Some(system) = noting.xRead {
            READ.get_or_init(|| system);
        }
        noting.xRead = Some(read);
        noting.xClose = Some(close);
        noting.xWrite = Some(write);
        noting.xTruncate = Some(truncate);
        noting.xSync = Some(sync);
        Box::leak(Box::new(noting))
    })
}

/// Waits until nothing of a folder is open any more: a thread of a party that was killed may take a moment to end, and the index
/// of a WAL lives in memory for as long as anybody has the file open.
///
/// # Errors
/// When something stays open.
pub fn wait_until_closed(folder: &Path) -> std::io::Result<()> {
    const LONGEST: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    while locked(&OPEN).values().any(|open| open.place.is_in(folder)) {
        if begun.elapsed() > LONGEST {
            return Err(std::io::Error::other(format!("{} is still open", folder.display())));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Makes the noting file system the default of this process. Done once; doing it again changes nothing.
pub fn install() {
    SYSTEM.get_or_init(|| {
        super::memory::install();
        // SAFETY: nothing of SQLite is in use yet. Its count of memory, which nobody asks for, is behind one lock for all threads.
        unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
        // Worlds are of one process: their files are locked once, and the index of a WAL is in memory.
        // SAFETY: the name is a C string; a file system that is found lives as long as the process.
        let system = unsafe { ffi::sqlite3_vfs_find(c"unix-excl".as_ptr()) };
        assert!(!system.is_null(), "SQLite has the system's file system");
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

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let Some(system) = SYSTEM.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: SQLite calls with what it would call the system's file system with, which goes by its own name.
    let code = unsafe { (*system.0).xOpen.map_or(ffi::SQLITE_CANTOPEN, |open| open(system.0, name, file, flags, out)) };
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
    let place = Place::opened(Path::new(&path));
    locked(&OPEN).insert(file as usize, Open { place, methods });
    let noting = noting(methods);
    // SAFETY: the file is open; the table is leaked once for each of the system's, so it outlives it.
    unsafe { (*file).pMethods = noting };
    code
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    let Some(system) = SYSTEM.get() else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: the name is a C string.
    let path = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    if let Err(code) = Place::of(Path::new(&path)).change(Op::Delete) {
        return code;
    }
    // SAFETY: as SQLite would call it.
    unsafe { (*system.0).xDelete.map_or(ffi::SQLITE_IOERR_DELETE, |delete| delete(vfs, name, sync_dir)) }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let Some(open) = locked(&OPEN).remove(&(file as usize)) else { return ffi::SQLITE_IOERR };
    // SAFETY: the file is open; its own table is put back before its own close is called.
    unsafe {
        (*file).pMethods = open.methods;
        open.methods.xClose.map_or(ffi::SQLITE_OK, |close| close(file))
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, data: *mut c_void, amount: c_int, offset: i64) -> c_int {
    if is_any_unreadable() {
        let place = locked(&OPEN).get(&(file as usize)).map(|open| open.place.clone());
        if let Some(Err(code)) = place.map(|place| place.read()) {
            return code;
        }
    }
    // SAFETY: as SQLite would call it.
    READ.get().map_or(ffi::SQLITE_IOERR_READ, |read| unsafe { read(file, data, amount, offset) })
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
        Err(code) => code,
    }
}
