//! SQLite's memory, from the allocator of this program: worlds open and close databases all the time, and the system's own
//! gives pages back to the kernel and asks for them again at each. Ours keeps what it once had.
//!
//! It is asked itself and not by way of Rust's allocator, which cannot say how large a piece is and wants to be told.

use rusqlite::ffi;
use std::ffi::{c_int, c_long, c_void};

/// The option of mimalloc that says after how many milliseconds unused pages go back to the kernel.
const PURGE_DELAY: c_int = 15;
/// Its value for never.
const NEVER: c_long = -1;

// SAFETY: as mimalloc's header declares them. It is linked because it is this program's allocator.
unsafe extern "C" {
    fn mi_malloc(bytes: usize) -> *mut c_void;
    fn mi_free(piece: *mut c_void);
    fn mi_realloc(piece: *mut c_void, bytes: usize) -> *mut c_void;
    fn mi_usable_size(piece: *const c_void) -> usize;
    fn mi_good_size(bytes: usize) -> usize;
    fn mi_option_set(option: c_int, value: c_long);
}

/// Makes SQLite take its memory from here. Must come before anything else of SQLite.
pub(super) fn install() {
    let methods = ffi::sqlite3_mem_methods {
        xMalloc: Some(take),
        xFree: Some(give_back),
        xRealloc: Some(change),
        xSize: Some(size),
        xRoundup: Some(round_up),
        xInit: Some(begin),
        xShutdown: Some(end),
        pAppData: std::ptr::null_mut(),
    };
    // SAFETY: an option may be set at any time.
    unsafe { mi_option_set(PURGE_DELAY, NEVER) };
    // SAFETY: nothing of SQLite is in use yet; it copies the table.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) };
}

unsafe extern "C" fn take(bytes: c_int) -> *mut c_void {
    let Ok(bytes) = usize::try_from(bytes) else { return std::ptr::null_mut() };
    // SAFETY: any size may be asked for.
    unsafe { mi_malloc(bytes) }
}

unsafe extern "C" fn give_back(piece: *mut c_void) {
    // SAFETY: the piece came from `take` or `change`, or is null, which is nothing to free.
    unsafe { mi_free(piece) };
}

unsafe extern "C" fn change(piece: *mut c_void, bytes: c_int) -> *mut c_void {
    let Ok(bytes) = usize::try_from(bytes) else { return std::ptr::null_mut() };
    // SAFETY: as in `give_back`.
    unsafe { mi_realloc(piece, bytes) }
}

unsafe extern "C" fn size(piece: *mut c_void) -> c_int {
    // SAFETY: as in `give_back`; nothing has no bytes.
    let bytes = unsafe { mi_usable_size(piece) };
    c_int::try_from(bytes).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn round_up(bytes: c_int) -> c_int {
    // SAFETY: it only counts.
    let rounded = usize::try_from(bytes).map(|bytes| unsafe { mi_good_size(bytes) });
    rounded.ok().and_then(|rounded| c_int::try_from(rounded).ok()).unwrap_or(bytes)
}

unsafe extern "C" fn begin(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn end(_: *mut c_void) {}
