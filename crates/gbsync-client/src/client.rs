//! What an app sees of a device's database.

use crate::capture;
use crate::environment::Environment;
use crate::error::Error;
use crate::operation::staging::Staging;
use crate::operation::{IntoPayload, Operation, Sealed, Written, in_scope, seal};
use crate::resolver::Resolver;
use crate::schemas::Schemas;
use crate::session::Session;
use crate::store::state::{self, NewDevice};
use crate::store::{Durability, Opening, Store};
use crate::view;
#[cfg(feature = "native")]
use crate::watch::others;
use gbsync_core::change::Payload;
use gbsync_core::id::{Actor, GroupId, GroupType, RecordKey, SpaceId};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// How long accepted groups are kept, so that a server restored from a backup can be given them again: 7 days.
const RETAIN_ACCEPTED_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How to open a database.
#[derive(Clone)]
pub struct Config {
    /// The SQLite file; the app may share it.
    pub path: PathBuf,
    /// Who makes the groups while nobody is signed in, unless an operation says otherwise.
    pub actor: Option<Actor>,
    /// How long accepted groups are kept, in milliseconds.
    pub retain_accepted_ms: u64,
    /// What a sealed group survives.
    pub durability: Durability,
    /// The rules that the app brings: its tables and what an operation must look like. Without one, the file keeps those
    /// it has.
    pub schema: Option<Schema>,
    /// Clock, randomness and timer.
    pub environment: Environment,
    /// Decides about refused groups before a person is asked.
    pub resolver: Option<Arc<dyn Resolver>>,
}

impl Config {
    /// A configuration with the system's clock, randomness and timer.
    #[cfg(feature = "native")]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::in_environment(path, Environment::default())
    }

    /// A configuration with an environment of the caller's.
    pub fn in_environment(path: impl Into<PathBuf>, environment: Environment) -> Self {
        let path = path.into();
        let durability = Durability::default();
        let retain_accepted_ms = RETAIN_ACCEPTED_MS;
        Self { path, actor: None, retain_accepted_ms, durability, schema: None, environment, resolver: None }
    }
}

/// Where a device syncs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The server's URL.
    pub server: String,
    /// The space.
    pub space: SpaceId,
}

/// One device's database. Cheap to clone; all clones are the same client.
///
/// ```
/// use gbsync_client::{Client, Config, Error, Remote};
/// use gbsync_core::id::SpaceId;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("till.db");
/// let remote = Remote { server: "https://sync.example.com".into(), space: SpaceId::new("shop").unwrap() };
/// let client = Client::create(Config::new(path), &remote)?;
/// let sealed = client.operation("receipt-create", "receipt-001", |op| {
///     op.upsert("receipts", "receipt-001", r#"{"total":"120.00"}"#)?;
///     op.upsert("payments", "payment-001", r#"{"receiptId":"receipt-001","amount":"120.00"}"#)
/// })?;
/// assert!(sealed.group_id.as_str().starts_with("receipt-create:receipt-001:"));
/// assert!(client.read("payments", "payment-001")?.is_some());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// That an operation is open, for as long as this is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenOperation(Arc<()>);

pub(crate) struct Inner {
    store: Store,
    environment: Environment,
    actor: Option<Actor>,
    /// Who is signed in, and how often that changed.
    session: Mutex<(u64, Option<Session>)>,
    retain_accepted_ms: u64,
    resolver: Option<Arc<dyn Resolver>>,
    limits: Mutex<Limits>,
    round: tokio::sync::Mutex<()>,
    /// Held by this and by every operation that is open.
    operations: OpenOperation,
    changed: watch::Sender<u64>,
    #[cfg(feature = "native")]
    pub(crate) listening: others::Listening,
}

impl Client {
    /// Sets a file up for a space: a new one, or an SQLite file of the app's, whose own tables are left alone.
    ///
    /// # Errors
    /// [`Error::AlreadyInitialized`], [`Error::NotSqlite`], [`Error::ReadOnly`] and [`Error::NewerFormat`] leave the file
    /// untouched.
    pub fn create(mut config: Config, remote: &Remote) -> Result<Self, Error> {
        let device = seal::new_device(&config.environment);
        let epoch = config.environment.new_epoch();
        let first = NewDevice { server: &remote.server, space: &remote.space, device: &device, epoch: &epoch };
        let store = Store::create(opening(&mut config), &first)?;
        Self::with_store(store, config)
    }

    /// Opens a file that was set up before.
    ///
    /// # Errors
    /// [`Error::NotInitialized`], [`Error::NotSqlite`], [`Error::ReadOnly`] and [`Error::NewerFormat`] leave the file
    /// untouched.
    pub fn open(mut config: Config) -> Result<Self, Error> {
        let store = Store::open(opening(&mut config))?;
        Self::with_store(store, config)
    }

    fn with_store(store: Store, config: Config) -> Result<Self, Error> {
        let limits = state::read(&store.writer())?.limits;
        let inner = Inner {
            store,
            environment: config.environment,
            actor: config.actor,
            session: Mutex::default(),
            retain_accepted_ms: config.retain_accepted_ms,
            resolver: config.resolver,
            limits: Mutex::new(limits),
            round: tokio::sync::Mutex::new(()),
            operations: OpenOperation::default(),
            changed: watch::channel(0).0,
            #[cfg(feature = "native")]
            listening: others::Listening::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Writes one operation: what `write` stages becomes one durable group when it answers `Ok`, and nothing when it
    /// answers `Err` or panics.
    ///
    /// # Errors
    /// What `write` answers, or why sealing failed ([`Operation::seal`]); nothing is stored then.
    pub fn operation<E: From<Error>>(
        &self,
        group_type: &str,
        root: &str,
        write: impl FnOnce(&mut Operation) -> Result<(), E>,
    ) -> Result<Sealed, E> {
        let mut operation = self.begin(group_type, root)?;
        write(&mut operation)?;
        Ok(operation.seal()?)
    }

    /// Opens an operation on the record `root` is about. Nothing exists of it until [`Operation::seal`].
    ///
    /// # Errors
    /// [`Error::InvalidId`] when the type is none or the root is empty.
    pub fn begin(&self, group_type: &str, root: &str) -> Result<Operation, Error> {
        let group_type = GroupType::new(group_type)?;
        // The id that sealing will mint: refused now, where the caller can see why.
        GroupId::mint(&group_type, root, "")?;
        let staging = Staging::new(Some(group_type), Some(root.to_owned()), self.actor(), self.terms());
        Ok(Operation::new(self.clone(), staging))
    }

    /// An operation without a type, for a change that stands alone.
    fn single(&self) -> Operation {
        Operation::new(self.clone(), Staging::new(None, None, self.actor(), self.terms()))
    }

    fn write(&self, stage: impl Fn(&mut Operation) -> Result<(), Error>) -> Result<Written, Error> {
        if let Some(staged) = in_scope(self, &stage) {
            return staged.map(|()| Written::Staged);
        }
        let mut operation = self.single();
        stage(&mut operation)?;
        operation.seal().map(Written::Sealed)
    }

    /// The record shall be this: in the scope around the call, or as a group of one.
    ///
    /// # Errors
    /// As [`Operation::upsert`] and [`Operation::seal`].
    pub fn upsert(&self, entity: &str, id: &str, payload: impl IntoPayload) -> Result<Written, Error> {
        let payload = json(entity, id, payload)?;
        self.write(|operation| operation.upsert(entity, id, payload.as_str()))
    }

    /// Merges members into a record: in the scope around the call, or as a group of one.
    ///
    /// # Errors
    /// As [`Operation::patch`] and [`Operation::seal`].
    pub fn patch(&self, entity: &str, id: &str, payload: impl IntoPayload) -> Result<Written, Error> {
        let payload = json(entity, id, payload)?;
        self.write(|operation| operation.patch(entity, id, payload.as_str()))
    }

    /// Adds numbers to fields of a record: in the scope around the call, or as a group of one.
    ///
    /// # Errors
    /// As [`Operation::increment`] and [`Operation::seal`].
    pub fn increment(&self, entity: &str, id: &str, deltas: impl IntoPayload) -> Result<Written, Error> {
        let deltas = json(entity, id, deltas)?;
        self.write(|operation| operation.increment(entity, id, deltas.as_str()))
    }

    /// The record shall be gone: in the scope around the call, or as a group of one.
    ///
    /// # Errors
    /// As [`Operation::delete`] and [`Operation::seal`].
    pub fn delete(&self, entity: &str, id: &str) -> Result<Written, Error> {
        self.write(|operation| operation.delete(entity, id))
    }

    /// The record as the scope around the call sees it, or as the local view shows it.
    ///
    /// # Errors
    /// [`Error`] when an id is none or the database fails.
    pub fn read(&self, entity: &str, id: &str) -> Result<Option<Payload>, Error> {
        if let Some(read) = in_scope(self, |operation| operation.read(entity, id)) {
            return read;
        }
        let key = RecordKey::new(entity, id)?;
        self.complete_captured()?;
        let mut reader = self.inner.store.reader();
        let tx = reader.transaction()?;
        let payload = view::of(&tx, &key)?.payload;
        let schemas = self.inner.store.schemas();
        Ok(payload.map(|payload| Payload::from_stored(schemas.in_apps_names(&key.entity, payload.as_str()))))
    }

    /// Whether this device knows that the record was there and was deleted.
    ///
    /// # Errors
    /// [`Error`] when an id is none or the database fails.
    pub fn was_deleted(&self, entity: &str, id: &str) -> Result<bool, Error> {
        let key = RecordKey::new(entity, id)?;
        let mut reader = self.inner.store.reader();
        let tx = reader.transaction()?;
        Ok(view::of(&tx, &key)?.was_deleted())
    }

    pub(crate) fn seal(&self, staging: &Staging) -> Result<Sealed, Error> {
        let sealed = self.inner.store.write(|tx| {
            let is_current = staging.is_current(tx.stamp());
            seal::seal(tx, &self.inner.environment, staging, is_current)
        })?;
        gbsync_core::fault::point("a group was sealed");
        self.notify();
        Ok(sealed)
    }

    /// Runs `read` on a connection that cannot write: every table and view of the file.
    ///
    /// # Errors
    /// What SQLite says.
    ///
    /// ```
    /// fn receipts(client: &gbsync_client::Client) -> Result<i64, gbsync_client::Error> {
    ///     let sql = "SELECT count(*) FROM gbsync_records WHERE entity = 'receipts'";
    ///     client.with_reader(|db| db.query_row(sql, [], |row| row.get(0)))
    /// }
    /// ```
    pub fn with_reader<T>(&self, read: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.complete_captured()?;
        Ok(read(&self.inner.store.reader())?)
    }

    /// Makes groups of what programs captured through SQL, so that whoever reads finds them. While another process holds the
    /// file, they stay what they are.
    pub(crate) fn complete_captured(&self) -> Result<(), Error> {
        if !capture::is_waiting(&self.inner.store.reader())? {
            return Ok(());
        }
        match self.inner.store.complete_if_free() {
            Err(Error::Locked) => Ok(()),
            completed => {
                self.notify();
                completed
            }
        }
    }

    /// Hears of every change of the file: a sealed group, a verdict, a page of the log, and what other processes write. The
    /// value only counts; what changed is in [`Client::status`] and in the tables. Changes in quick succession are heard of
    /// once.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        let changes = self.inner.changed.subscribe();
        #[cfg(feature = "native")]
        others::listen(self);
        changes
    }

    #[cfg(feature = "native")]
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    #[cfg(feature = "native")]
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    #[cfg(feature = "native")]
    pub(crate) fn has_no_subscriber(&self) -> bool {
        self.inner.changed.receiver_count() == 0
    }

    /// Waits until a group is decided: accepted, parked or closed. `None` when it is not kept, because it is unknown or long
    /// accepted. Something else must sync meanwhile.
    ///
    /// # Errors
    /// [`Error`] when the database fails.
    pub async fn decided(&self, id: &GroupId) -> Result<Option<crate::GroupInfo>, Error> {
        let mut changes = self.subscribe();
        loop {
            changes.borrow_and_update();
            match self.group(id)? {
                Some(group) if group.state.is_undecided() => {}
                decided => return Ok(decided),
            }
            if changes.changed().await.is_err() {
                return self.group(id);
            }
        }
    }

    /// A setting of the program that opened the file; it has no meaning here.
    ///
    /// # Errors
    /// [`Error`] when the database fails.
    pub fn setting(&self, key: &str) -> Result<Option<String>, Error> {
        state::setting(&self.inner.store.reader(), key)
    }

    /// Keeps a setting, or removes it.
    ///
    /// # Errors
    /// [`Error`] when the database fails.
    pub fn set_setting(&self, key: &str, value: Option<&str>) -> Result<(), Error> {
        self.inner.store.write(|tx| state::set_setting(tx, key, value))
    }

    /// Where the device syncs.
    ///
    /// # Errors
    /// [`Error`] when the database fails.
    pub fn remote(&self) -> Result<Remote, Error> {
        let state = state::read(&self.inner.store.reader())?;
        Ok(Remote { server: state.server, space: state.space })
    }

    /// The rules that the file is kept under: those that the app brought, or those that it has from before.
    pub fn schema(&self) -> Option<Arc<Schema>> {
        self.inner.store.schema()
    }

    /// The limits that the server told at the last handshake, or the defaults.
    pub fn limits(&self) -> Limits {
        *self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an operation is written under.
    pub(crate) fn terms(&self) -> (Limits, Schemas) {
        (self.limits(), self.inner.store.schemas())
    }

    pub(crate) fn open_operation(&self) -> OpenOperation {
        self.inner.operations.clone()
    }

    /// Whether somebody is at an operation that is not sealed. It may name any group that was there when it was begun.
    pub(crate) fn has_open_operation(&self) -> bool {
        Arc::strong_count(&self.inner.operations.0) > 1
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.inner.environment
    }

    /// Who makes operations that do not say otherwise.
    pub(crate) fn actor(&self) -> Option<Actor> {
        self.signed_in().or_else(|| self.inner.actor.clone())
    }

    pub(crate) fn session(&self) -> Option<Session> {
        self.inner.session.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Another number whenever somebody signed in or out.
    pub(crate) fn session_no(&self) -> u64 {
        self.inner.session.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn set_session(&self, session: Option<Session>) {
        {
            let mut present = self.inner.session.lock().unwrap_or_else(PoisonError::into_inner);
            *present = (present.0 + 1, session);
        }
        self.notify();
    }

    pub(crate) fn retain_accepted_ms(&self) -> u64 {
        self.inner.retain_accepted_ms
    }

    pub(crate) fn resolver(&self) -> Option<Arc<dyn Resolver>> {
        self.inner.resolver.clone()
    }

    pub(crate) fn round(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.round
    }

    pub(crate) fn notify(&self) {
        self.inner.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn opening(config: &mut Config) -> Opening<'_> {
    let Config { path, durability, schema, environment, .. } = config;
    Opening { path, durability: *durability, schema: schema.take(), environment }
}

fn json(entity: &str, id: &str, payload: impl IntoPayload) -> Result<String, Error> {
    let key = RecordKey::new(entity, id)?;
    payload.into_json().map_err(|message| Error::NotJson { key, message })
}
