//! A watch that listens: what others do arrives by itself, through streams that are lost, cut, buffered and forged.

use crate::common::*;
use gbsync_client::*;
use gbsync_core::id::{Actor, Scope};
use gbsync_core::scope::ScopeSet;
use gbsync_server::{NewToken, Tokens};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of a stream.
#[derive(Debug, Clone)]
enum Way {
    Pass,
    /// A proxy waits for the end of the answer, which never comes.
    Buffer,
    /// A proxy passes the head on and keeps the body.
    BufferBody,
    /// So many bytes, then the connection breaks off.
    Cut(usize),
    /// Something else than a stream, in the guise of one.
    Say(&'static str),
    /// A text stands for another one.
    Replace(&'static str, &'static str),
    /// Every chain is another one.
    OtherChain,
    /// The server knows no streams.
    Unknown,
}

/// HTTP whose streams go the ways that a test says, and then as they should; questions are counted.
struct Ways {
    http: HttpTransport,
    ways: Mutex<VecDeque<Way>>,
    opened: AtomicU64,
    asked: AtomicU64,
}

impl Transport for Ways {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.http.send(request)
    }

    fn open(&self, request: Request) -> BoxFuture<'_, Result<Streamed, TransportError>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let way = self.ways.lock().unwrap().pop_front().unwrap_or(Way::Pass);
        Box::pin(async move {
            if matches!(way, Way::Buffer) {
                std::future::pending::<()>().await;
            }
            let mut streamed = self.http.open(request).await?;
            if matches!(way, Way::Unknown) {
                (streamed.status, streamed.content_type) = (404, Some("application/problem+json".into()));
            }
            streamed.body = Box::new(Meddled { body: streamed.body, way, passed: 0 });
            Ok(streamed)
        })
    }
}

struct Meddled {
    body: Box<dyn Pieces>,
    way: Way,
    passed: usize,
}

impl Pieces for Meddled {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, TransportError>> {
        Box::pin(async {
            match self.way {
                Way::BufferBody => std::future::pending().await,
                Way::Say(text) if self.passed == 0 => {
                    self.passed = text.len();
                    return Ok(Some(text.into()));
                }
                Way::Cut(bytes) if self.passed >= bytes => return Err(TransportError { message: "reset".into() }),
                _ => {}
            }
            let Some(mut piece) = self.body.next().await? else { return Ok(None) };
            match self.way {
                Way::Cut(bytes) => piece.truncate(bytes - self.passed),
                Way::OtherChain => piece = other_chain(String::from_utf8(piece).unwrap()).into(),
                Way::Replace(from, to) => piece = String::from_utf8(piece).unwrap().replace(from, to).into(),
                _ => {}
            }
            self.passed += piece.len();
            Ok(Some(piece))
        })
    }
}

fn other_chain(text: String) -> String {
    let mut parts = text.split("\"chain\":\"");
    let before = parts.next().unwrap().to_owned();
    parts.fold(before, |text, part| {
        let digit = if part.starts_with('0') { '1' } else { '0' };
        format!("{text}\"chain\":\"{digit}{}", &part[1..])
    })
}

/// A clock by which twenty seconds pass in one.
struct Hurried(Environment);

impl Timer for Hurried {
    fn sleep(&self, wait_ms: u64) -> BoxFuture<'_, ()> {
        self.0.timer.sleep(wait_ms.div_ceil(20))
    }
}

impl Clock for Hurried {
    fn now_ms(&self) -> u64 {
        // Only how much of it passes matters here.
        1_780_000_000_000 + (self.0.clock.now_ms() - 1_780_000_000_000) * 20
    }
}

/// Hears what a watch does.
#[derive(Default)]
struct Log(Mutex<Vec<Following>>);

impl SyncObserver for Log {
    fn round(&self, _: &SyncReport) {}
    fn failed(&self, _: &SyncError) {}
    fn following(&self, how: Following) {
        self.0.lock().unwrap().push(how);
    }
}

/// A device that watches on a thread of its own.
struct Watcher {
    client: Client,
    ways: Arc<Ways>,
    log: Arc<Log>,
    watching: JoinHandle<()>,
}

impl Watcher {
    fn start(world: &World, name: &str, ways: &[Way]) -> Self {
        Self::with(world, name, ways, SyncOptions::default())
    }

    fn with(world: &World, name: &str, ways: &[Way], options: SyncOptions) -> Self {
        let remote = Remote { server: world.url.clone(), space: space() };
        let hurried = Arc::new(Hurried(Environment::default()));
        let environment = Environment { clock: hurried.clone(), timer: hurried, ..Environment::default() };
        let client = Client::create(Config { environment, ..Config::new(world.path(name)) }, &remote).unwrap();
        let http = HttpTransport::new(&world.url, Arc::new(FixedToken(world.token.clone()))).unwrap();
        let (opened, asked) = (AtomicU64::new(0), AtomicU64::new(0));
        let ways = Arc::new(Ways { http, ways: Mutex::new(ways.iter().cloned().collect()), opened, asked });
        let log = Arc::new(Log::default());
        let (watched, through, heard) = (client.clone(), ways.clone(), log.clone());
        let watching = world.runtime.spawn(async move {
            let error = watched.watch_sync(through.as_ref(), &options, heard.as_ref()).await;
            panic!("{error}");
        });
        Self { client, ways, log, watching }
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(!self.watching.is_finished(), "the watch ended");
            assert!(Instant::now() < deadline, "{what} does not come; {:?}", self.log.0.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for(&self, cursor: u64) {
        self.wait(&format!("cursor {cursor}"), |watcher| watcher.client.status().unwrap().cursor.0 >= cursor);
    }

    fn wait_for_live(&self) {
        self.wait("the stream", |watcher| watcher.log.0.lock().unwrap().last() == Some(&Following::Live));
    }

    fn asked(&self) -> u64 {
        self.ways.asked.load(Ordering::Relaxed)
    }

    fn opened(&self) -> u64 {
        self.ways.opened.load(Ordering::Relaxed)
    }

    fn digest(&self) -> (u64, u64, String) {
        let digest = self.client.digest().unwrap();
        (digest.cursor.0, digest.records, digest.digest.to_string())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[test]
fn what_others_do_arrives_without_a_question() {
    let world = beating();
    let watchers: Vec<_> = (0..5).map(|n| Watcher::start(&world, &format!("w{n}"), &[])).collect();
    let till = world.device("till");
    watchers.iter().for_each(Watcher::wait_for_live);
    let before: Vec<_> = watchers.iter().map(Watcher::asked).collect();
    for n in 1..=10 {
        till.receipt(&format!("r{n}"), "1.00");
        till.sync();
        watchers.iter().for_each(|watcher| watcher.wait_for(n));
    }
    assert_eq!(watchers.iter().map(Watcher::asked).collect::<Vec<_>>(), before);
    assert!(watchers.iter().all(|watcher| watcher.digest() == world.digest() && watcher.opened() == 1));
}

#[test]
fn devices_that_sell_and_listen_at_once_agree() {
    let world = beating();
    let watchers: Vec<_> = (0..4).map(|n| Watcher::start(&world, &format!("w{n}"), &[])).collect();
    for n in 0..40 {
        let client = &watchers[n % 4].client;
        let sold: Result<_, Error> = client.operation("sale", &format!("s{n}"), |op| {
            op.upsert("sales", &format!("s{n}"), r#"{"total":"1.00"}"#)?;
            op.upsert("payments", &format!("p{n}"), r#"{"amount":"1.00"}"#)
        });
        sold.unwrap();
    }
    watchers.iter().for_each(|watcher| watcher.wait_for(40));
    assert!(watchers.iter().all(|watcher| watcher.digest() == world.digest()));
    let undecided = |watcher: &Watcher| watcher.client.status().unwrap().pending_groups;
    watchers.iter().for_each(|watcher| watcher.wait("the end of the outbox", |watcher| undecided(watcher) == 0));
}

#[test]
fn a_group_in_parts_is_fetched_and_applied_whole() {
    let world = World::with(|config| (config.live.heartbeat_ms, config.limits.request_bytes) = (200, 300 * 1024));
    let watcher = Watcher::start(&world, "watcher", &[]);
    watcher.wait_for_live();
    let till = world.device("till");
    let text = "x".repeat(1_000);
    let written: Result<_, Error> = till.client.operation("import", "all", |op| {
        (0..1_000).try_for_each(|n| op.upsert("lines", &format!("l{n}"), format!(r#"{{"text":"{text}"}}"#)))
    });
    written.unwrap();
    assert_eq!(till.sync().accepted, 1);
    watcher.wait_for(1);
    assert_eq!(watcher.digest(), world.digest());
}

/// A server whose heart beats in time for hurried clocks.
fn beating() -> World {
    World::with(|config| config.live.heartbeat_ms = 200)
}

/// Whatever becomes of the first stream: what others do arrives, and nothing else.
fn arrives_through(ways: &[Way], opens_again: bool) -> Watcher {
    let world = beating();
    let till = world.device("till");
    till.receipt("r0", "1.00");
    till.sync();
    let watcher = Watcher::start(&world, "watcher", ways);
    for n in 1..=5 {
        till.receipt(&format!("r{n}"), "1.00");
        till.sync();
        watcher.wait_for(n + 1);
    }
    assert_eq!(watcher.digest(), world.digest(), "{ways:?}");
    if opens_again {
        watcher.wait("another stream", |watcher| watcher.opened() as usize > ways.len());
        watcher.wait_for_live();
    }
    till.receipt("last", "1.00");
    till.sync();
    watcher.wait_for(7);
    assert_eq!(watcher.digest(), world.digest(), "{ways:?}");
    watcher
}

#[test]
fn a_stream_that_breaks_off_anywhere_is_taken_up_again() {
    arrives_through(&[Way::Cut(0), Way::Cut(1), Way::Cut(150), Way::Cut(700)], true);
}

#[test]
fn behind_a_proxy_that_buffers_the_log_is_asked() {
    for way in [Way::Buffer, Way::BufferBody] {
        let watcher = arrives_through(std::slice::from_ref(&way), false);
        assert_eq!(watcher.opened(), 1, "{way:?}");
        watcher.wait("giving up", |watcher| watcher.log.0.lock().unwrap().last() == Some(&Following::Asking));
    }
}

#[test]
fn where_the_server_knows_no_streams_the_log_is_asked() {
    let watcher = arrives_through(&[Way::Unknown], false);
    assert_eq!((watcher.opened(), &watcher.log.0.lock().unwrap()[..]), (1, &[Following::Asking][..]));
}

#[test]
fn a_watch_that_wants_no_stream_opens_none() {
    let world = beating();
    let till = world.device("till");
    let watcher = Watcher::with(&world, "watcher", &[], SyncOptions { live: false, ..SyncOptions::default() });
    till.receipt("r1", "1.00");
    till.sync();
    watcher.wait_for(1);
    assert_eq!(watcher.opened(), 0);
}

#[test]
fn what_is_no_stream_changes_nothing() {
    for text in
        ["<html>Sign in to the hotel's network</html>\n\n", "event: group\nid: 1\ndata: {\n\n", "event: head\ndata: {}\n\n"]
    {
        arrives_through(&[Way::Say(text)], false);
    }
}

#[test]
fn pages_of_another_space_or_log_or_place_are_never_applied() {
    for (from, to) in [
        ("\"space\":\"shop\"", "\"space\":\"other\""),
        ("\"log\":\"", "\"log\":\"x"),
        ("\"after\":1,\"next\":1", "\"after\":2,\"next\":2"),
        ("\"after\":", "\"after\":9"),
        ("\"chain\":\"", "\"chain\":\"00"),
    ] {
        arrives_through(&[Way::Replace(from, to)], false);
    }
}

#[test]
fn another_chain_at_the_cursor_is_found_out() {
    let watcher = arrives_through(&[Way::OtherChain], true);
    assert_eq!(watcher.client.status().unwrap().cursor.0, 7);
}

#[test]
fn a_server_that_stops_and_comes_back_is_heard_again() {
    let mut world = beating();
    let watchers: Vec<_> = (0..3).map(|n| Watcher::start(&world, &format!("w{n}"), &[])).collect();
    watchers.iter().for_each(Watcher::wait_for_live);
    for n in 1..=3 {
        world.restart();
        let till = world.reopen_or_make("till");
        till.receipt(&format!("r{n}"), "1.00");
        till.sync();
        watchers.iter().for_each(|watcher| watcher.wait_for(n));
        watchers.iter().for_each(Watcher::wait_for_live);
    }
    assert!(watchers.iter().all(|watcher| watcher.digest() == world.digest()));
}

const SHOPS: &str = r#"
version = 1
[entities.receipts]
scope = "storeId"
fields.storeId = { type = "text", required = true }
"#;

/// A token of somebody who sees these shops.
fn sees(world: &World, name: &str, shops: &[&str]) -> (Actor, Arc<FixedToken>) {
    let (name, shops) = (Actor::new(name).unwrap(), shops.iter().map(|shop| Scope::new(*shop).unwrap()).collect());
    let tokens = Tokens::open(world.folder.path().join("server")).unwrap();
    let new = NewToken { actor: Some(name.clone()), scopes: ScopeSet::These(shops), ..NewToken::new(space()) };
    (name, Arc::new(FixedToken(tokens.create(new).unwrap().token)))
}

#[test]
fn a_stream_tells_whoever_signs_in_nothing_of_what_only_the_one_before_may_see() {
    let world = World::with(|config| {
        (config.live.heartbeat_ms, config.schema) = (200, Some(gbsync_core::schema::Schema::parse(SHOPS).unwrap()));
    });
    let till = world.device_under("till", SHOPS);
    let sell = |id: &str, store: &str| {
        till.client.upsert("receipts", id, format!(r#"{{"storeId":"{store}"}}"#)).unwrap();
        till.sync();
    };
    let watcher = Watcher::start(&world, "watcher", &[]);
    let (mia, of_both) = sees(&world, "mia", &["north", "south"]);
    watcher.client.sign_in(mia, of_both);
    watcher.wait_for_live();
    sell("s-1", "south");
    let shows = |id: &str| watcher.client.read("receipts", id).unwrap().is_some();
    watcher.wait("the south's receipt", |_| shows("s-1"));
    let (bo, of_the_north) = sees(&world, "bo", &["north"]);
    watcher.client.sign_in(bo, of_the_north);
    // Nobody seals anything: only the other one's sign-in calls for a round.
    watcher.wait("that the south's receipt leaves", |_| !shows("s-1"));
    for n in 2..6 {
        sell(&format!("s-{n}"), "south");
        sell(&format!("n-{n}"), "north");
        watcher.wait("the north's receipt", |_| shows(&format!("n-{n}")));
        assert!(!shows(&format!("s-{n}")), "bo sees what only mia may");
    }
}
