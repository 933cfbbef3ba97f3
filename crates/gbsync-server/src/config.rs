//! What a server is started with.

use crate::auth::AuthConfig;
use crate::limit::{QuotaConfig, RateConfig};
use crate::net::peer::Proxies;
use crate::store::StoreLocation;
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The port that a server listens on when nothing else is said.
const DEFAULT_PORT: u16 = 4680;

/// What a server is started with.
///
/// ```
/// let config = gbsync_server::ServerConfig::new(std::path::Path::new("/var/lib/gbsync"));
/// assert_eq!(config.listen.to_string(), "127.0.0.1:4680");
/// ```
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where the store is: a folder, which is made if it is not there, or a database.
    pub store: StoreLocation,
    /// The address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The bounds that the server sets and reports at the handshake.
    pub limits: Limits,
    /// What operations must look like, in every space; without one the server keeps the one that it has, if any.
    pub schema: Option<Schema>,
    /// What those who listen to the log may take.
    pub live: LiveConfig,
    /// An address on which metrics are told to whoever asks; `None` tells them to nobody.
    pub metrics_listen: Option<SocketAddr>,
    /// Where snapshots are kept, and how many.
    pub snapshots: SnapshotConfig,
    /// How long logs are kept; `None`: for ever.
    pub retention: Option<RetentionConfig>,
    /// What connections may take.
    pub net: NetConfig,
    /// The certificate of its own; without one it speaks plain HTTP, for a proxy in front of it.
    pub tls: Option<TlsConfig>,
    /// Which proxies it believes for whom they ask.
    pub proxies: Proxies,
    /// How often somebody may ask.
    pub rates: RateConfig,
    /// How much a space may hold.
    pub quotas: QuotaConfig,
    /// Whom it lets in beside the bearers of its own tokens.
    pub auth: AuthConfig,
    /// How long a server that is told to stop goes on taking connections while `/readyz` says 503, in milliseconds: so that
    /// whoever deals out connections sends nobody any more before it stops.
    pub drain_delay_ms: u64,
    /// How long a stopping server waits for the requests in flight, in milliseconds.
    pub drain_ms: u64,
    /// How long an unfinished upload of a group in parts is kept untouched, in milliseconds.
    pub upload_expiry_ms: u64,
    /// How long groups that were made on an earlier log wait, after a restore, for those that other devices bring back, in
    /// milliseconds. Then what is still missing is lost for good.
    pub heal_window_ms: u64,
    /// How long a connection to the store waits for another process's lock, in milliseconds.
    pub busy_timeout_ms: u64,
    /// Transactions at a time, each on a connection of its own, where the store is a database. What waits meanwhile shares the next.
    pub writers: usize,
    /// Where time and randomness come from.
    pub environment: Environment,
    /// Makes COMMITs fail; for tests alone.
    #[doc(hidden)]
    pub fault: Option<FaultPoint>,
}

impl ServerConfig {
    /// The defaults on a folder or a database: loopback, port 4680, the limits of docs/protocol.md.
    pub fn new(store: impl Into<StoreLocation>) -> Self {
        Self {
            store: store.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            limits: Limits::default(),
            schema: None,
            live: LiveConfig::default(),
            metrics_listen: None,
            snapshots: SnapshotConfig::default(),
            retention: None,
            net: NetConfig::default(),
            tls: None,
            proxies: Proxies::default(),
            rates: RateConfig::default(),
            quotas: QuotaConfig::default(),
            auth: AuthConfig::default(),
            drain_delay_ms: 0,
            drain_ms: 10_000,
            upload_expiry_ms: 24 * 60 * 60 * 1000,
            heal_window_ms: 7 * 24 * 60 * 60 * 1000,
            busy_timeout_ms: 5_000,
            writers: 4,
            environment: Environment::system(),
            fault: None,
        }
    }
}

/// What those who listen to the log may take.
///
/// ```
/// assert!(gbsync_server::LiveConfig::default().heartbeat_ms < 15_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveConfig {
    /// How many may listen at a time; the next one is answered 503.
    pub listeners: usize,
    /// How often an idle stream is sent an empty page, in milliseconds. The protocol promises one every 15 s.
    pub heartbeat_ms: u64,
    /// How often a stream's token is looked at again, in milliseconds.
    pub recheck_ms: u64,
    /// Pages of a space that are kept for listeners that are behind; one that is further behind is dropped.
    pub buffered_pages: usize,
    /// Bytes after which such a page closes, between groups.
    pub page_bytes: u64,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self { listeners: 20_000, heartbeat_ms: 10_000, recheck_ms: 5_000, buffered_pages: 64, page_bytes: 128 * 1024 }
    }
}

/// Where snapshots are kept, and how many.
///
/// ```
/// assert!(gbsync_server::SnapshotConfig::default().folder.is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotConfig {
    /// The folder; `None`: `snapshots` in the folder of the store, or one in the system's temporary folder where the store is a
    /// database. Two processes must not share one.
    pub folder: Option<PathBuf>,
    /// How many entries a kept one may be behind the log and still be served.
    pub lag_groups: u64,
    /// How many of each space are kept.
    pub keep: usize,
    /// Bytes of all of them together, above which the oldest are removed.
    pub bytes: u64,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { folder: None, lag_groups: 1_000, keep: 2, bytes: 8 * 1024 * 1024 * 1024 }
    }
}

/// The files of a server's certificate. They are read again when they change.
///
/// ```
/// let files = gbsync_server::TlsConfig { certificate: "server.crt".into(), key: "server.key".into() };
/// let tls = Some(files);
/// let config = gbsync_server::ServerConfig { tls, ..gbsync_server::ServerConfig::new(std::path::Path::new("data")) };
/// assert!(config.proxies.trusted.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, and those that signed it, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// How long logs are kept. An entry leaves when it is older than the age, or when as many as the number are behind it, whichever
/// is said.
///
/// ```
/// let config = gbsync_server::RetentionConfig::default();
/// assert_eq!((config.age_ms, config.entries), (None, None));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionConfig {
    /// How old an entry may become, in milliseconds.
    pub age_ms: Option<u64>,
    /// How many entries of a space are kept.
    pub entries: Option<u64>,
    /// The folder of the archives; `None`: `archives` in the folder of the store. A store in a database needs one.
    pub archives: Option<PathBuf>,
    /// Bytes after which an archive closes, not compressed.
    pub archive_bytes: u64,
    /// How often a server looks, in milliseconds.
    pub every_ms: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        let every_ms = 60 * 60 * 1000;
        Self { age_ms: None, entries: None, archives: None, archive_bytes: 256 * 1024 * 1024, every_ms }
    }
}

/// What connections may take.
///
/// ```
/// // Devices keep an idle connection for a minute; the server must not close it first.
/// assert!(gbsync_server::NetConfig::default().header_timeout_ms > 60_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetConfig {
    /// How many connections there may be at a time; more wait to be accepted.
    pub connections: usize,
    /// How long a connection may take to send the headers of a request, idle time before it included, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a peer may take none of what is sent to it, in milliseconds. Then the connection is closed.
    pub stall_timeout_ms: u64,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self { connections: 30_000, header_timeout_ms: 75_000, stall_timeout_ms: 30_000 }
    }
}

type FillRandom = dyn Fn(&mut [u8]) + Send + Sync;

/// Where time and randomness come from, so that a simulator can bring its own.
#[derive(Clone)]
pub struct Environment {
    now_unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    fill_random: Arc<FillRandom>,
}

impl Environment {
    /// The system's clock and its source of randomness.
    pub fn system() -> Self {
        Self::new(
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(0)),
            |bytes| getrandom::fill(bytes).expect("the operating system gives random bytes"),
        )
    }

    /// A clock in milliseconds after 1970 and a source of random bytes. Tokens are only as secret as those bytes.
    pub fn new(
        now_unix_ms: impl Fn() -> u64 + Send + Sync + 'static,
        fill_random: impl Fn(&mut [u8]) + Send + Sync + 'static,
    ) -> Self {
        Self { now_unix_ms: Arc::new(now_unix_ms), fill_random: Arc::new(fill_random) }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.now_unix_ms)()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.now_ms())
    }

    /// A UUID version 7.
    pub(crate) fn uuid(&self) -> String {
        let uuid = uuid::Builder::from_unix_timestamp_millis(self.now_ms(), &self.random::<10>());
        uuid.into_uuid().to_string()
    }

    pub(crate) fn random<const BYTES: usize>(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        (self.fill_random)(&mut bytes);
        bytes
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

/// A named point at which a test makes the store fail: asked at every COMMIT of the writer, `true` makes it fail.
#[doc(hidden)]
#[derive(Clone)]
pub struct FaultPoint(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for FaultPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultPoint")
    }
}
