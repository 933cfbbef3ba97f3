//! A server and devices to throw things at. Their clock stands still and their randomness counts, so that one input is one
//! run.

use gbsync_client::{
    BoxFuture, Client, Clock, Config, Environment, Random, Remote, Request, Response, Shared, Timer, Transport,
    TransportError,
};
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq, SpaceId};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use gbsync_core::wire::Handshake;
use gbsync_server::{LocalAnswer, LocalServer, NewToken, ServerConfig, Tokens};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// 2026-06-03, in milliseconds after 1970.
pub(crate) const NOW_MS: u64 = 1_780_500_000_000;

/// The space of every stand.
pub(crate) fn space() -> SpaceId {
    SpaceId::new("shop").expect("a name")
}

/// A folder, in memory where the system has such.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for temporary files")
}

/// A server without a socket, and a token for its space.
pub(crate) struct Stand {
    // Before the folder: what is open in it goes first.
    local: LocalServer,
    runtime: Runtime,
    pub(crate) token: String,
    _folder: TempDir,
}

impl Stand {
    pub(crate) fn new(limits: Limits, schema: Option<Schema>) -> Self {
        let folder = scratch();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let tokens = Tokens::open(folder.path()).expect("a store of tokens");
        let new = NewToken::new(space());
        let token = tokens.create(new).expect("a token").token.to_string();
        let counter = Counter::default();
        let environment = gbsync_server::Environment::new(|| NOW_MS, move |bytes| counter.count_into(bytes));
        let config = ServerConfig { environment, limits, schema, ..ServerConfig::new(folder.path()) };
        let local = runtime.block_on(LocalServer::open(config)).expect("the server opens its store");
        Self { local, runtime, token, _folder: folder }
    }

    /// Asks with the token and exactly these other headers.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &[u8])], body: Vec<u8>) -> LocalAnswer {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", bearer.as_bytes())];
        all.extend_from_slice(headers);
        self.ask_bare(method, path, &all, body)
    }

    /// Asks with exactly these headers.
    pub(crate) fn ask_bare(&self, method: &str, path: &str, headers: &[(&str, &[u8])], body: Vec<u8>) -> LocalAnswer {
        self.runtime.block_on(self.local.answer_with(method, path, headers, body))
    }

    /// Asks with a JSON body.
    pub(crate) fn post(&self, path: &str, body: Vec<u8>) -> LocalAnswer {
        self.ask("POST", path, &[("content-type", b"application/json")], body)
    }

    pub(crate) fn get(&self, path: &str) -> LocalAnswer {
        self.ask("GET", path, &[], Vec::new())
    }
}

/// The configuration of a device.
pub(crate) fn config(path: PathBuf, schema: Option<Schema>) -> Config {
    let counter = Arc::new(Counter::default());
    let environment = Environment { clock: counter.clone(), random: counter.clone(), timer: counter };
    Config { schema, ..Config::in_environment(path, environment) }
}

/// A new device.
///
/// # Errors
/// What the client says of the schema.
pub(crate) fn device(folder: &Path, schema: Option<Schema>) -> Result<Client, gbsync_client::Error> {
    let remote = Remote { server: "http://stand".into(), space: space() };
    Client::create(config(folder.join("till.db"), schema), &remote)
}

/// Drives a future that never really waits.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..1_000_000 {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
    panic!("P10: it waits for ever");
}

/// A clock that stands still, randomness that counts, and waiting that takes no time.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn count_into(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            chunk.copy_from_slice(&count.to_be_bytes()[..chunk.len()]);
        }
    }
}

impl Clock for Counter {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
}

impl Random for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        self.count_into(bytes);
    }
}

impl Timer for Counter {
    fn sleep(&self, _: u64) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A server that a function plays.
pub(crate) struct Played<F>(pub(crate) F);

impl<F: Fn(&Request) -> Option<Response> + Shared> Transport for Played<F> {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let answer = (self.0)(&request).ok_or(TransportError { message: "the connection was reset".into() });
        Box::pin(std::future::ready(answer))
    }
}

/// An answer of the protocol.
pub(crate) fn answered(status: u16, body: impl Into<Vec<u8>>) -> Response {
    Response { status, content_type: Some("application/json".into()), retry_after_ms: None, body: body.into() }
}

/// The answer to a handshake of a server without a schema whose log ends at `head`.
pub(crate) fn handshake(log: &str, head: Seq) -> Response {
    let shake = Handshake {
        space: space(),
        log: LogId::new(log).expect("an id"),
        ancestors: Vec::new(),
        schema_version: 0,
        head,
        chain: Digest::of(b""),
        agrees_up_to: None,
        agrees: None,
        horizon: Seq(0),
        server_time: Timestamp::from_unix_ms(NOW_MS),
        device: None,
        token: None,
        scopes: Default::default(),
        scope_set: None,
        limits: Limits::default(),
    };
    answered(200, shake.to_json())
}
