//! Start, drain, stop.
//!
//! Invariant: one server runs on a data folder, held by a lock that ends with the process, and any number on a database; what
//! was acknowledged before a stop, however it comes about, is stored.

use crate::auth::JwtGate;
use crate::commit::{Committer, Shared, Tally};
use crate::config::{NetConfig, ServerConfig};
use crate::error::ServerError;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::net::{self, tls::Tls};
use crate::retention;
use crate::routes::{self, App, Gates, router};
use crate::rules::Rules;
use crate::snapshot::Snapshots;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long whoever reads the metrics of a server that has stopped may take.
const LAST_METRICS: Duration = Duration::from_secs(1);

/// A running server. Dropping it stops it without draining: whoever waits for an answer gets none.
pub struct Server {
    address: SocketAddr,
    app: Arc<App>,
    tls: Option<Arc<Tls>>,
    drain: watch::Sender<bool>,
    drain_delay: Duration,
    drain_timeout: Duration,
    serving: JoinHandle<()>,
    watched: Option<Watched>,
    retaining: Option<JoinHandle<()>>,
}

/// What tells the metrics, and how it is told to stop.
struct Watched {
    address: SocketAddr,
    end: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// What a server did since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Requests of every kind.
    pub requests: u64,
    /// Pushes that were well-formed and queued for the writer.
    pub pushes: u64,
    /// Durable transactions that those pushes shared.
    pub transactions: u64,
    /// Transactions that failed and left nothing.
    pub failed_transactions: u64,
    /// Groups accepted for the first time.
    pub groups_accepted: u64,
    /// Groups rejected for the first time.
    pub groups_rejected: u64,
}

impl Server {
    /// Opens the store, binds the address and serves.
    ///
    /// # Errors
    /// [`ServerError`] says in a sentence what is in the way: the address is taken, the folder cannot be written, another
    /// server runs on it, or its file is no store or a newer one.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let (listen, store, net) = (config.listen, config.store.clone(), config.net);
        let metrics_listen = config.metrics_listen;
        let (drain_delay, drain_timeout) =
            (Duration::from_millis(config.drain_delay_ms), Duration::from_millis(config.drain_ms));
        let tls = config.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
        let retention =
            config.retention.clone().map(|retention| (config.store.clone(), retention, config.environment.clone()));
        if let Some((store, retention, _)) = &retention {
            retention::folder(store, retention)?;
        }
        let Opened { app, drain } = open(config).await?;
        let (listener, address) = bind(listen).await?;
        let watched = match metrics_listen {
            Some(listen) => Some(Watched::start(listen, &app, net).await?),
            None => None,
        };
        let serving = net::serve(listener, router(Arc::clone(&app)), net, tls.clone(), drain.subscribe());
        let serving = tokio::spawn(serving);
        if let Some(tls) = &tls {
            tokio::spawn(Arc::clone(tls).watch(drain.subscribe()));
        }
        let retaining = retention.map(|(store, retention, environment)| {
            tokio::spawn(retention::keep_up(Arc::clone(&app), store, retention, environment, drain.subscribe()))
        });
        tracing::info!(%address, %store, "serving");
        Ok(Self { address, app, tls, drain, drain_delay, drain_timeout, serving, watched, retaining })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it tells its metrics, if it does.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.watched.as_ref().map(|watched| watched.address)
    }

    /// What devices are told to connect to.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Reads the certificate and its key again; without TLS it does nothing. New connections get the new ones.
    ///
    /// # Errors
    /// [`ServerError::Certificate`]: those before stay in use.
    pub fn reload_tls(&self) -> Result<(), ServerError> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload())
    }

    /// The version of the schema in force and since when; `None` without one.
    pub fn schema(&self) -> Option<(u64, Timestamp)> {
        self.app.rules.current().map(|rules| (rules.schema.version, rules.since.clone()))
    }

    /// Puts a newer schema in force while the server runs. Pushes wait meanwhile; every record is brought to it first.
    ///
    /// # Errors
    /// [`ServerError::SchemaOlder`] and [`ServerError::SchemaChanged`]: nothing has changed. [`ServerError::Store`] when
    /// the store fails in the middle: nothing is decided until it was finished, which is tried again with each push.
    pub async fn adopt_schema(&self, schema: Schema) -> Result<(), ServerError> {
        self.app.committer.adopt(schema).await
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let Tally { queued: _, pushes, transactions, failed_transactions, groups_accepted, groups_rejected } =
            self.app.committer.tally.as_ref();
        Counters {
            requests: load(&self.app.requests),
            pushes: load(pushes),
            transactions: load(transactions),
            failed_transactions: load(failed_transactions),
            groups_accepted: load(groups_accepted),
            groups_rejected: load(groups_rejected),
        }
    }

    /// Says at `/readyz` that it is about to stop, and goes on answering for as long as the configuration says. Then it takes
    /// no new connection, lets the requests in flight finish, decides what is queued, and moves the write-ahead log into the
    /// main file. Metrics are told to the end.
    ///
    /// # Errors
    /// [`ServerError`] when the store could not be closed properly; what was acknowledged is stored all the same.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.app.is_leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(self.drain_delay).await;
        self.drain.send_replace(true);
        let mut serving = self.serving;
        if tokio::time::timeout(self.drain_timeout, &mut serving).await.is_err() {
            tracing::warn!("requests in flight took too long and are cut off");
            serving.abort();
        }
        if let Some(retaining) = self.retaining {
            // It was told to stop, and does between two short steps.
            let _ = retaining.await;
        }
        let closed = close(self.app).await;
        if let Some(watched) = self.watched {
            watched.stop().await;
        }
        closed
    }
}

impl Watched {
    /// Binds the address and answers there.
    async fn start(listen: SocketAddr, app: &Arc<App>, net: NetConfig) -> Result<Self, ServerError> {
        let (listener, address) = bind(listen).await?;
        let (end, is_ending) = watch::channel(false);
        let router = routes::metrics::router(Arc::clone(app));
        Ok(Self { address, end, serving: tokio::spawn(net::serve(listener, router, net, None, is_ending)) })
    }

    async fn stop(mut self) {
        self.end.send_replace(true);
        if tokio::time::timeout(LAST_METRICS, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}

/// A store that is open and what answers from it, before anybody can reach it.
pub(crate) struct Opened {
    pub(crate) app: Arc<App>,
    pub(crate) drain: watch::Sender<bool>,
}

/// Opens the store and starts the writers.
pub(crate) async fn open(config: ServerConfig) -> Result<Opened, ServerError> {
    let (location, busy_timeout) = (config.store.clone(), Duration::from_millis(config.busy_timeout_ms));
    let (fault, schema, limits, writers) = (config.fault.clone(), config.schema.clone(), config.limits, config.writers);
    let (environment, kept) = (config.environment.clone(), config.snapshots.clone());
    let jwt = match config.auth.jwt.clone() {
        Some(jwt) => Some(JwtGate::open(jwt, environment.clone()).await?),
        None => None,
    };
    let opening = tokio::task::spawn_blocking(move || {
        let store = location.open(busy_timeout, writers, fault)?;
        let rules = Rules::open(store.as_ref(), schema.as_ref(), &environment, &limits)?;
        // After the store: who has that has the folder.
        let snapshots = Snapshots::open(&kept, &location)?;
        Ok::<_, ServerError>((store, rules, snapshots))
    });
    let (store, rules, snapshots) = opening.await.map_err(|error| ServerError::Broken(error.to_string()))??;
    let feed = Arc::new(Feed::default());
    store.follow(&feed);
    let shared = Shared {
        store,
        feed,
        metrics: Arc::new(Metrics::new()),
        rules: Arc::new(rules),
        limits: config.limits,
        environment: config.environment,
        upload_expiry_ms: config.upload_expiry_ms,
        heal_window_ms: config.heal_window_ms,
    };
    let committer = Committer::start(shared.clone())
        .map_err(|error| ServerError::Broken(format!("a writer's thread cannot be started: {error}")))?;
    let (drain, is_draining) = watch::channel(false);
    let gates = Gates { jwt, proxies: config.proxies, rates: config.rates, quotas: config.quotas };
    let app = Arc::new(App::new(shared, Arc::new(committer), config.live, snapshots, gates, is_draining));
    Ok(Opened { app, drain })
}

/// Decides what is queued, ends the writers, and leaves the store in order.
pub(crate) async fn close(app: Arc<App>) -> Result<(), ServerError> {
    let closing = tokio::task::spawn_blocking(move || {
        app.committer.close().map_err(ServerError::Broken)?;
        Ok(app.store.close()?)
    });
    closing.await.map_err(|error| ServerError::Broken(error.to_string()))?
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let bound = TcpListener::bind(address).await;
    let bound = bound.and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    bound.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => ServerError::AddressInUse { address },
        _ => ServerError::Listen { address, source },
    })
}
