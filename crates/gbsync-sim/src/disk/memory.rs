//! SQLite's memory, from the allocator of this program: worlds open and close databases all the time, and the system's own
//! gives pages back to the kernel and asks for them again at each.
//!
//! SQLite asks how large a piece is, so each has its size before it.

use rusqlite::ffi;
use std::alloc::{Layout, alloc, dealloc, realloc};
use std::ffi::{c_int, c_void};

/// Bytes before each piece, which keep it aligned as SQLite wants it. More would not fit the sizes that the allocator has.
const HEAD: usize = 8;

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
    // SAFETY: nothing of SQLite is in use yet; it copies the table.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) };
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(HEAD)?, HEAD).ok()
}

unsafe extern "C" fn take(bytes: c_int) -> *mut c_void {
    let Some((bytes, layout)) = usize::try_from(bytes).ok().and_then(|bytes| Some((bytes, layout(bytes)?))) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the layout is not empty; the head is within the piece and aligned for its size.
    unsafe {
        let piece = alloc(layout);
        if piece.is_null() {
            return std::ptr::null_mut();
        }
        piece.cast::<usize>().write(bytes);
        piece.add(HEAD).cast()
    }
}

unsafe extern "C" fn give_back(piece: *mut c_void) {
    if piece.is_null() {
        return;
    }
    // SAFETY: the piece came from `take` or `change`, whose head says its size.
    unsafe {
        let head = piece.cast::<u8>().sub(HEAD);
        if let Some(layout) = layout(head.cast::<usize>().read()) {
            dealloc(head, layout);
        }
    }
}

unsafe extern "C" fn change(piece: *mut c_void, bytes: c_int) -> *mut c_void {
    let Ok(bytes) = usize::try_from(bytes) else { return std::ptr::null_mut() };
    // SAFETY: as in `give_back`; SQLite never changes a null piece.
    unsafe {
        let head = piece.cast::<u8>().sub(HEAD);
        let (Some(before), Some(after)) = (layout(head.cast::<usize>().read()), layout(bytes)) else {
            return std::ptr::null_mut();
        };
        let head = realloc(head, before, after.size());
        if head.is_null() {
            return std::ptr::null_mut();
        }
        head.cast::<usize>().write(bytes);
        head.add(HEAD).cast()
    }
}

unsafe extern "C" fn size(piece: *mut c_void) -> c_int {
    if piece.is_null() {
        return 0;
    }
    // SAFETY: as in `give_back`.
    let bytes = unsafe { piece.cast::<u8>().sub(HEAD).cast::<usize>().read() };
    c_int::try_from(bytes).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn round_up(bytes: c_int) -> c_int {
    bytes.saturating_add(7) & !7
}

unsafe extern "C" fn begin(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn end(_: *mut c_void) {}
