//! All SQL of the device: connections, transactions, and one file a table.
//!
//! Invariant: one writing connection behind a mutex, every write in an `IMMEDIATE` transaction; reading never waits for it.

pub(crate) mod base;
pub(crate) mod clock;
pub(crate) mod discards;
pub(crate) mod download;
mod face;
pub(crate) mod family;
pub(crate) mod flag;
pub(crate) mod left;
pub(crate) mod lists;
pub(crate) mod lost;
pub(crate) mod outbox;
pub(crate) mod overlay;
pub(crate) mod parked;
pub(crate) mod schema;
pub(crate) mod sequence;
pub(crate) mod server_schema;
pub(crate) mod sign_in;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod stood;
mod tx;
pub(crate) mod upload;

pub(crate) use face::SCHEMA_VERSION;
pub(crate) use tx::Tx;

use crate::capture;
use crate::environment::Environment;
use crate::error::Error;
use crate::life::{self, Companion};
use crate::schemas::{Schemas, ServerSchema};
use crate::tables::{self, Rules};
use gbsync_core::fault;
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::schema::Schema;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// How long a write waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits for another process before it shows what that process captured as no group yet.
const READER_TIMEOUT: Duration = Duration::from_millis(50);

/// What a sealed group survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A crash of the process and a loss of power (`synchronous=FULL`).
    #[default]
    Full,
    /// A crash of the process only. For measurements: a loss of power can take the last sales.
    Normal,
}

/// The device's file.
pub(crate) struct Store {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// How many wait for it.
    waiting: AtomicUsize,
    reader: Mutex<Connection>,
    /// The rules that the file is kept under.
    rules: Mutex<Option<Arc<Rules>>>,
    /// Clock and randomness for what programs captured.
    environment: Environment,
    /// Transactions committed through the writing connection.
    writes: AtomicU64,
    /// The rules that the server has, where it told others than the app's.
    server_schema: Mutex<ServerSchema>,
    /// The content at which both are what the file says and nothing captured waits. The engine captures nothing of its own,
    /// so only another connection's commit can change that.
    settled_at: Mutex<Option<i64>>,
    companion: Companion,
    /// Moves what a long work wrote into the main file: see [`Store::checkpoint`].
    checkpointer: Mutex<Option<Connection>>,
}

/// A look at one state of the file: see [`Store::look`].
pub(crate) struct Look<'s> {
    connection: MutexGuard<'s, Connection>,
    stamp: Stamp,
}

impl Look<'_> {
    /// The content that it sees.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }
}

impl std::ops::Deref for Look<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let ended = self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        if ended.is_err() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// What the file's content was at: changes with every commit, of this process or another. Whoever holds one knows that
/// nothing changed since when it finds the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    writes: u64,
    data_version: i64,
}

/// How to open a file.
pub(crate) struct Opening<'a> {
    pub(crate) path: &'a Path,
    pub(crate) durability: Durability,
    /// The rules that the program brings.
    pub(crate) schema: Option<Schema>,
    pub(crate) environment: &'a Environment,
}

impl Store {
    /// Opens a file that has gbsync tables.
    pub(crate) fn open(opening: Opening<'_>) -> Result<Self, Error> {
        let path = opening.path;
        let not_initialized = || Error::NotInitialized { path: path.display().to_string() };
        if !has_content(path)? {
            return Err(not_initialized());
        }
        // The same connection looks and writes: each one that is opened reads all table definitions.
        let connection = open_to_write(path)?;
        // Closing the last connection would move the WAL into a file that is refused.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        remote_of(&connection, path)?.ok_or_else(not_initialized)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Self::connect(opening, connection)
    }

    /// Makes the tables in a new file or in one of the app's, and fills the one row of state.
    pub(crate) fn create(opening: Opening<'_>, first: &state::NewDevice<'_>) -> Result<Self, Error> {
        let path = opening.path;
        if let Some((server, space)) = inspect(path)? {
            return Err(Error::AlreadyInitialized { path: path.display().to_string(), server, space });
        }
        make_private(path)
            .map_err(|error| Error::ReadOnly { path: path.display().to_string(), reason: error.to_string() })?;
        let connection = open_to_write(path)?;
        let mut connection = configure(connection, opening.durability).map_err(|error| Error::about_file(error, path))?;
        let tx = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| Error::about_file(error, path))?;
        schema::migrate(&tx, 0)?;
        state::insert(&tx, first)?;
        // With the rest: rules whose tables cannot be made leave the file untouched.
        tables::adopt(&tx, opening.schema.clone(), opening.environment)?;
        gbsync_wal::commit(tx)?;
        Self::connect(opening, connection)
    }

    /// Opens the rest of a file that `connection` found to be gbsync's.
    fn connect(opening: Opening<'_>, connection: Connection) -> Result<Self, Error> {
        let Opening { path, durability, schema, environment } = opening;
        let about = |error| Error::about_file(error, path);
        let mut writer = configure(connection, durability).map_err(about)?;
        // A file that cannot be written is better refused now than when the first sale is saved.
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(about)?;
        // Asked again under the lock: another process may have migrated the file meanwhile.
        if let Some(found) = schema::format(&tx, path)? {
            schema::migrate(&tx, found)?;
        }
        let companion = Companion::default();
        // Before anything is numbered: an old copy of a file gives numbers in its own name.
        life::recognize(&Tx::new(&tx, None, ServerSchema::default()), path, &companion, environment)?;
        let rules = tables::adopt(&tx, schema, environment)?;
        let server_schema = Mutex::new(server_schema::current(&tx, &ServerSchema::default())?);
        fault::point("the tables follow the schema");
        gbsync_wal::commit(tx).map_err(about)?;
        let reader = configure(open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?, durability).map_err(about)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            waiting: AtomicUsize::new(0),
            reader: Mutex::new(reader),
            rules: Mutex::new(rules),
            environment: environment.clone(),
            server_schema,
            settled_at: Mutex::new(None),
            companion,
            writes: AtomicU64::new(0),
            checkpointer: Mutex::new(None),
        })
    }

    /// The schemas that the device knows: the app's and the server's.
    pub(crate) fn schemas(&self) -> Schemas {
        Schemas { app: self.schema(), server: self.server_schema() }
    }

    fn server_schema(&self) -> ServerSchema {
        self.server_schema.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The writing connection, for reading what a write will be based on.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Connection> {
        // A panic rolled its transaction back when it dropped it, so the connection is as good as before.
        match self.writer.try_lock() {
            Ok(writer) => return writer,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {}
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        writer
    }

    /// Whether anybody waits for the writing connection. The lock is not fair: who takes it again at once may do so many times
    /// before another is let in.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// The writing connection on one state of the file, which no other process changes before the look is dropped. What
    /// programs captured until now is completed first: it is part of that state.
    pub(crate) fn look(&self) -> Result<Look<'_>, Error> {
        let mut connection = self.writer();
        loop {
            connection.prepare_cached("BEGIN")?.execute([])?;
            let mut look =
                Look { connection, stamp: Stamp { writes: self.writes.load(Ordering::Relaxed), data_version: 0 } };
            look.stamp.data_version = data_version(&look)?;
            if self.is_settled_at(look.stamp.data_version) || !capture::is_waiting(&look)? {
                return Ok(look);
            }
            drop(look);
            self.complete()?;
            connection = self.writer();
        }
    }

    /// Makes groups of what programs captured, if anything is.
    pub(crate) fn complete(&self) -> Result<(), Error> {
        self.write(|_| Ok(()))
    }

    /// The same for whoever only reads: it does not wait for long while another process writes.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process holds the file.
    pub(crate) fn complete_if_free(&self) -> Result<(), Error> {
        let mut connection = self.writer();
        connection.busy_timeout(READER_TIMEOUT)?;
        let completed = self.write_with(&mut connection, |_| Ok(()));
        connection.busy_timeout(BUSY_TIMEOUT)?;
        completed
    }

    /// The reading connection: never waits for a write.
    pub(crate) fn reader(&self) -> MutexGuard<'_, Connection> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        // An app's read that left its transaction open would freeze what everybody sees.
        if !reader.is_autocommit() {
            let _ = reader.execute_batch("ROLLBACK");
        }
        reader
    }

    /// The rules that the file is kept under, if there are any.
    pub(crate) fn schema(&self) -> Option<Arc<Schema>> {
        Some(self.rules()?.schema.clone())
    }

    /// Runs `write` in one durable transaction: all of it or nothing. What programs captured before becomes groups first,
    /// in the same transaction, and stays when `write` fails.
    pub(crate) fn write<T, E: From<Error>>(&self, write: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        self.write_with(&mut self.writer(), write)
    }

    fn write_with<T, E: From<Error>>(
        &self,
        connection: &mut Connection,
        write: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::from)?;
        // Exact inside the transaction only.
        let data_version = data_version(&tx)?;
        let is_settled = self.settled_at().take_if(|settled_at| *settled_at == data_version).is_some();
        let (rules, server_schema) = match is_settled {
            true => (self.rules(), self.server_schema()),
            false => (self.current_rules(&tx)?, self.current_server_schema(&tx)?),
        };
        let stamp = Stamp { writes: self.writes.load(Ordering::Relaxed), data_version };
        let write_tx = Tx::new(&tx, rules, server_schema).at(stamp);
        let mut sealed = None;
        let value = if !is_settled && capture::complete(&write_tx, &self.environment)? {
            sealed = write_tx.sealed();
            // Whoever looked at the file before did not see this.
            self.writes.fetch_add(1, Ordering::Relaxed);
            tx.execute_batch("SAVEPOINT completed").map_err(Error::from)?;
            let value = write(&write_tx);
            if value.is_err() {
                tx.execute_batch("ROLLBACK TO completed").map_err(Error::from)?;
            }
            value
        } else {
            Ok(write(&write_tx)?)
        };
        // What was sealed and undone again has no number.
        if value.is_ok() {
            sealed = write_tx.sealed();
        }
        let keeps_schemas = write_tx.keeps_schemas();
        match gbsync_wal::commit(tx) {
            #[cfg(feature = "mutants")]
            Err(error) if crate::planted::is_failed_fsync(&error) => {}
            committed => committed.map_err(Error::from)?,
        }
        *self.settled_at() = keeps_schemas.then_some(data_version);
        if let Some(local_no) = sealed {
            self.companion.note(local_no);
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        value
    }

    /// Taken while a write is under way, and given back when it is committed: what is rolled back settles nothing.
    fn settled_at(&self) -> MutexGuard<'_, Option<i64>> {
        self.settled_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_settled_at(&self, data_version: i64) -> bool {
        *self.settled_at() == Some(data_version)
    }

    fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn current_server_schema(&self, tx: &Connection) -> Result<ServerSchema, Error> {
        let mut known = self.server_schema.lock().unwrap_or_else(PoisonError::into_inner);
        *known = server_schema::current(tx, &known)?;
        Ok(known.clone())
    }

    fn current_rules(&self, tx: &Connection) -> Result<Option<Arc<Rules>>, Error> {
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let current = tables::reload(tx, known.as_ref())?;
        known.clone_from(&current);
        Ok(current)
    }

    /// Moves what was written into the main file on a connection of its own. The writing one does that as a part of a COMMIT,
    /// when there is much, and whoever writes next waits for it.
    pub(crate) fn checkpoint(&self) -> Result<(), Error> {
        let mut kept = self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match kept.take() {
            Some(connection) => connection,
            None => configure(open_connection(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?, Durability::Full)?,
        };
        // Another that does it already, or a reader of what was before: the rest is moved the next time.
        let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        moved.inspect_err(|error| gbsync_wal::note(&connection, error))?;
        *kept = Some(connection);
        Ok(())
    }

    /// Ends what [`Store::checkpoint`] keeps.
    pub(crate) fn end_checkpoints(&self) {
        self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Changes when another process wrote to the file; `None` while this one is writing.
    #[cfg(feature = "native")]
    pub(crate) fn others_version(&self) -> Option<i64> {
        let writer = self.writer.try_lock().ok()?;
        writer.pragma_query_value(None, "data_version", |row| row.get(0)).ok()
    }
}

/// Changes when another connection commits; not when this one does.
fn data_version(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

/// Makes the file if it is not there, readable by its owner alone: it holds business data and perhaps a token. SQLite gives
/// the files beside it the same permissions.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Whether there is a file, and anything in it.
fn has_content(path: &Path) -> Result<bool, Error> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::ReadOnly { path: path.display().to_string(), reason: error.to_string() }),
        Ok(file) if file.is_dir() => Err(Error::NotSqlite { path: path.display().to_string() }),
        Ok(file) => Ok(file.len() > 0),
    }
}

/// What a file is, without changing it: server and space if it has gbsync tables of a format that is known.
fn inspect(path: &Path) -> Result<Option<(String, String)>, Error> {
    if !has_content(path)? {
        return Ok(None);
    }
    match remote_of(&open_connection(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?, path) {
        // A loss of power left a transaction that has to be rolled back before anything can be read, which is a write.
        Err(Error::ReadOnly { .. }) => {
            let connection = open_to_write(path)?;
            connection.pragma_update(None, "query_only", true)?;
            remote_of(&connection, path)
        }
        looked => looked,
    }
}

fn remote_of(connection: &Connection, path: &Path) -> Result<Option<(String, String)>, Error> {
    if schema::format(connection, path)?.is_none() {
        return Ok(None);
    }
    let remote = connection.query_row("SELECT server, space FROM gbsync_state", [], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(Some(remote?))
}

fn open_connection(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| Error::about_file(error, path))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// A connection behind which nothing is lost: whatever a failed sync dropped from the log is on the disk before it commits.
fn open_to_write(path: &Path) -> Result<Connection, Error> {
    let connection = open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    gbsync_wal::mend(&connection).map_err(|error| Error::of_unsynced(error, path))?;
    Ok(connection)
}

fn configure(connection: Connection, durability: Durability) -> Result<Connection, rusqlite::Error> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Full if is(Mutant::SynchronousNormal) => "NORMAL",
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // The app's own tables may refer to an entity's table. They are left alone: what another device deleted must not be
    // refused because of them, and filling a table anew must not delete in them.
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    // 16 MiB: a page that many sales write is copied to the main file once.
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.set_prepared_statement_cache_capacity(128);
    // Without the planner's stability guarantee, SQLite plans statements anew at every step because their bound values
    // changed: that was nine tenths of the time of sealing an operation.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Triggers capture what programs write; what the engine writes is no news to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    Ok(connection)
}
