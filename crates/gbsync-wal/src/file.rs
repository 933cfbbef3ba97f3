//! The file of the log, through the file system that SQLite has it open with: the only unsafe code of the product.
//!
//! Rejected alternative: the file by its name. Closing it again would drop the locks that SQLite holds on files of this process, and
//! the simulator's disk would not see it.
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

use rusqlite::{Error, Result, Transaction, ffi};
use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// The open log of a connection, held still by a transaction.
pub(crate) struct Wal<'t> {
    file: NonNull<ffi::sqlite3_file>,
    methods: NonNull<ffi::sqlite3_io_methods>,
    held: PhantomData<&'t Transaction<'t>>,
}

impl<'t> Wal<'t> {
    /// The log; `None` where the database has none that is open. The transaction must be one that writes, so that nobody else does.
    pub(crate) fn of(held: &'t Transaction<'_>) -> Result<Option<Self>> {
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        // SAFETY: the connection is open while `held` is borrowed, the name is a C string, and this request stores one pointer.
        let code = unsafe {
            ffi::sqlite3_file_control(
                held.handle(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_JOURNAL_POINTER,
                (&raw mut file).cast(),
            )
        };
        checked(code)?;
        let Some(file) = NonNull::new(file) else { return Ok(None) };
        // SAFETY: SQLite's object of the log lives until the connection leaves WAL mode, which it cannot do in a transaction.
        let methods = unsafe { (*file.as_ptr()).pMethods };
        // A file that is not open has no methods.
        let methods = NonNull::new(methods.cast_mut());
        Ok(methods.map(|methods| Self { file, methods, held: PhantomData }))
    }

    fn methods(&self) -> &ffi::sqlite3_io_methods {
        // SAFETY: the table belongs to the file system and stays while the file is open.
        unsafe { self.methods.as_ref() }
    }

    /// Its bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        let mut bytes = 0;
        let size = self.methods().xFileSize.ok_or_else(missing)?;
        // SAFETY: the file is open, see `of`, and `bytes` is where the answer goes.
        checked(unsafe { size(self.file.as_ptr(), &raw mut bytes) })?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// Reads what stands at a place; all of it must be there.
    pub(crate) fn read(&self, into: &mut [u8], at: u64) -> Result<()> {
        let read = self.methods().xRead.ok_or_else(missing)?;
        let (length, at) = (length(into)?, offset(at)?);
        // SAFETY: the file is open, see `of`, and `into` has `length` bytes that may be written.
        checked(unsafe { read(self.file.as_ptr(), into.as_mut_ptr().cast(), length, at) })
    }

    /// Writes at a place.
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        let write = self.methods().xWrite.ok_or_else(missing)?;
        let (length, at) = (length(bytes)?, offset(at)?);
        // SAFETY: the file is open, see `of`, and `bytes` has `length` bytes.
        checked(unsafe { write(self.file.as_ptr(), bytes.as_ptr().cast(), length, at) })
    }

    /// Waits until all of it is on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        let sync = self.methods().xSync.ok_or_else(missing)?;
        // SAFETY: the file is open, see `of`.
        checked(unsafe { sync(self.file.as_ptr(), ffi::SQLITE_SYNC_FULL) })
    }
}

fn length(bytes: &[u8]) -> Result<c_int> {
    c_int::try_from(bytes.len()).map_err(|_| missing())
}

fn offset(at: u64) -> Result<i64> {
    i64::try_from(at).map_err(|_| missing())
}

fn checked(code: c_int) -> Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(Error::SqliteFailure(ffi::Error::new(code), None)) }
}

/// What every file system can do, this one cannot.
fn missing() -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None)
}
