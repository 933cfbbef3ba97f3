//! Two thousand who listen to one server, a process of its own, on a folder and on PostgreSQL: what each costs it, and how soon
//! after the commit each hears.
//!
//! Load and listeners share this machine with the server, so the figures are worse than where each has a machine of its own.

use super::memory::{end, resident_mib, serve};
use super::report::{Bar, Figure};
use super::rows::{RECORDS, Sale, sales};
use super::{Folders, Sizes};
use crate::config::server_failure;
use crate::output::Output;
use anyhow::{Context, Result, anyhow, bail};
use gbsync_client::{FixedToken, HttpTransport, Method, Request, Transport};
use gbsync_cluster::Cluster;
use gbsync_core::digest::Digest;
use gbsync_core::id::SpaceId;
use gbsync_core::time::Timestamp;
use gbsync_server::{NewToken, StoreLocation, Tokens};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const SPACES: usize = 50;
const DEVICES: usize = 16;
/// Groups in a push.
const GROUPS: u64 = 8;
/// Of the listeners, every so many notes when a group arrives; all of them read.
const SAMPLED: usize = 20;
/// Files that a process has open beside its connections.
const FILES: usize = 500;
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    address: SocketAddr,
    /// A token a space, and what its devices push through.
    tokens: Vec<String>,
    transports: Vec<HttpTransport>,
    /// Groups pushed to each space.
    pushed: Vec<AtomicU64>,
}

/// What a listener notes.
#[derive(Default)]
struct Ear {
    /// The last `seq` heard, and delays in milliseconds.
    heard: AtomicU64,
    delays_ms: std::sync::Mutex<Vec<u64>>,
}

/// Measures listeners of a server on a folder.
pub(super) async fn measure(sizes: &Sizes, folders: &Folders, output: &Output) -> Result<Vec<Figure>> {
    let folder = folders.create()?;
    let store = StoreLocation::Folder(folder.path().join("server"));
    listeners_of(&store, ["live-memory", "live-p99"], fitting(sizes.listeners, output)?, sizes).await
}

/// Measures listeners of a server on PostgreSQL, which is the bench's own. What another process commits reaches them by the same
/// way as what this one does: `NOTIFY`, or a look at the heads.
pub(super) async fn measure_postgres(sizes: &Sizes, output: &Output) -> Result<Vec<Figure>> {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(&[])).await??;
    let store = StoreLocation::Postgres(cluster.store());
    let names = ["live-postgres-memory", "live-postgres-p99"];
    listeners_of(&store, names, fitting(sizes.listeners, output)?, sizes).await
}

async fn listeners_of(
    store: &StoreLocation,
    [memory, p99]: [&'static str; 2],
    listeners: usize,
    sizes: &Sizes,
) -> Result<Vec<Figure>> {
    let (server, url) = serve(store).await?;
    let tokens = make_tokens(store.clone()).await?;
    let address = url.trim_start_matches("http://").parse().context("the server's address")?;
    let transport = |token: &String| HttpTransport::new(&url, Arc::new(FixedToken(token.clone())));
    let transports = tokens.iter().map(transport).collect::<Result<_, _>>()?;
    let bench = Arc::new(Bench { address, tokens, transports, pushed: (0..SPACES).map(|_| AtomicU64::new(0)).collect() });
    let full = push_for(&bench, sizes.push_seconds, None, 1).await?;
    let before = resident_mib(&server)?.ok_or_else(|| anyhow!("the server ended early"))?;
    let mut reading = JoinSet::new();
    let mut ears = Vec::new();
    for number in 0..listeners {
        let ear = Arc::new(Ear::default());
        let stream = listen(&bench, number % SPACES).await?;
        reading.spawn(read(stream, Arc::clone(&ear), number % SAMPLED == 0));
        ears.push(ear);
    }
    // Allocators give back and take anew when things calm down; a heartbeat has reached everybody by then.
    tokio::time::sleep(Duration::from_secs(if listeners > 100 { 12 } else { 1 })).await;
    let idle = resident_mib(&server)?.ok_or_else(|| anyhow!("the server ended early"))?;
    let half = push_for(&bench, sizes.push_seconds, Some(full / 2.0), 2).await?;
    wait_until_heard(&bench, &ears).await?;
    let busy = resident_mib(&server)?.ok_or_else(|| anyhow!("the server ended early"))?;
    reading.abort_all();
    end(server).await?;
    let mut delays: Vec<u64> =
        ears.iter().flat_map(|ear| ear.delays_ms.lock().map(|d| d.clone()).unwrap_or_default()).collect();
    delays.sort_unstable();
    let quantile = |part: f64| delays.get(((delays.len() as f64 - 1.0) * part) as usize).map_or(f64::NAN, |ms| *ms as f64);
    // A few listeners may fit what the server has already.
    let kib = |mib: f64| ((mib - before) * 1024.0 / listeners as f64).max(0.0);
    let groups = |pushes: f64| pushes * GROUPS as f64;
    Ok(vec![
        Figure::new(memory, "KiB").ours(kib(idle)).bar(Bar::AtMost(20.0)).note(format!(
            "resident memory of the server a listener, {listeners} of them at rest; while groups come {:.1}",
            kib(busy)
        )),
        Figure::new(p99, "ms").ours(quantile(0.99)).bar(Bar::AtMost(250.0)).note(format!(
            "from a group's commit (its committedAt, which is before) to {listeners} listeners in {SPACES} spaces, at {:.0} groups of \
             {RECORDS} a second of the {:.0} that {DEVICES} devices push without listeners; half of them within {:.0} ms",
            groups(half),
            groups(full),
            quantile(0.5)
        )),
    ])
}

/// How many of so many listeners this process, and the server that it starts, may have files for. Raises the limit where it has to
/// and may.
fn fitting(wanted: usize, output: &Output) -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let files = |limit: Option<u64>| limit.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let (soft, hard) = (files(limit.current), files(limit.maximum));
    if soft.saturating_sub(FILES) >= wanted {
        return Ok(wanted);
    }
    if soft < hard {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).context("the limit of open files cannot be raised")?;
        output.note(format_args!("raised the limit of open files from {soft} to {hard}"));
    }
    let fitting = hard.saturating_sub(FILES).min(wanted);
    if fitting < wanted {
        output
            .note(format_args!("{fitting} listeners instead of {wanted}: this process may open {hard} files (ulimit -Hn)"));
    }
    Ok(fitting)
}

/// A token of each space. Not on a thread of the runtime, because the table of a database has one of its own.
async fn make_tokens(store: StoreLocation) -> Result<Vec<String>> {
    let making = tokio::task::spawn_blocking(move || {
        let tokens = Tokens::open(store).map_err(|error| server_failure(&error))?;
        let make = |number| {
            let space = SpaceId::new(format!("space-{number:02}"))?;
            let new = NewToken::new(space);
            Ok(tokens.create(new).map_err(|error| server_failure(&error))?.token)
        };
        (0..SPACES).map(make).collect()
    });
    making.await?
}

/// Sixteen devices push for so long, as fast as they can or at `rate` pushes a second. Answers how many pushes a second.
async fn push_for(bench: &Arc<Bench>, seconds: f64, rate: Option<f64>, round: u64) -> Result<f64> {
    let started = Instant::now();
    let mut pushing = JoinSet::new();
    for device in 0..DEVICES {
        let bench = Arc::clone(bench);
        let every = rate.map(|rate| Duration::from_secs_f64(DEVICES as f64 / rate));
        pushing.spawn(async move {
            let mut pushes = 0_u64;
            let mut due = tokio::time::Instant::now() + every.unwrap_or_default().mul_f64(device as f64 / DEVICES as f64);
            while started.elapsed().as_secs_f64() < seconds {
                if let Some(every) = every {
                    tokio::time::sleep_until(due).await;
                    due += every;
                }
                let place = (device + usize::try_from(pushes)? * 7) % SPACES;
                push(&bench, place, device as u64, round * 10_000_000 + pushes * GROUPS).await?;
                pushes += 1;
            }
            Ok::<u64, anyhow::Error>(pushes)
        });
    }
    let mut pushes = 0;
    while let Some(done) = pushing.join_next().await {
        pushes += done.context("a device's task ended")??;
    }
    Ok(pushes as f64 / started.elapsed().as_secs_f64())
}

async fn push(bench: &Bench, place: usize, device: u64, from: u64) -> Result<()> {
    let groups: Vec<String> =
        sales(device, from + 1, GROUPS).iter().zip(from + 1..).map(|(sale, seq)| group(sale, device, seq)).collect();
    let body = format!(r#"{{"device":"d-{device}","epoch":"e-{device}","batch":"b","groups":[{}]}}"#, groups.join(","));
    let (path, body) = (format!("/v1/spaces/space-{place:02}/push"), Some(body.into_bytes()));
    let request = Request { method: Method::Post, path, body, timeout_ms: 30_000, token: None };
    let response = bench.transports[place].send(request).await?;
    let (status, text) = (response.status, String::from_utf8_lossy(&response.body));
    let accepted = text.matches("\"accepted\"").count() as u64;
    if accepted != GROUPS {
        bail!("a push was answered {status}: {text}");
    }
    bench.pushed[place].fetch_add(GROUPS, Ordering::Relaxed);
    Ok(())
}

fn group(sale: &Sale, device: u64, seq: u64) -> String {
    let change = |row: &super::rows::Row| {
        format!(
            r#"{{"entity":"{}","id":"{}","action":"upsert","baseVersion":0,"payload":{}}}"#,
            row.entity, row.id, row.payload
        )
    };
    let changes = format!("[{}]", sale.rows.iter().map(change).collect::<Vec<_>>().join(","));
    format!(
        r#"{{"syncGroupId":"sale:{}:{device}-{seq}","syncGroupType":"receipt-create","deviceSeq":{seq},"createdAt":"2026-06-03T20:52:59.123Z","changeCount":{RECORDS},"digest":"{}","changes":{changes}}}"#,
        sale.root,
        Digest::of(changes.as_bytes())
    )
}

async fn listen(bench: &Bench, place: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(bench.address).await.context("a listener cannot connect")?;
    let after = bench.pushed[place].load(Ordering::Relaxed);
    let head = format!(
        "GET /v1/spaces/space-{place:02}/live?after={after} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
        bench.address, bench.tokens[place]
    );
    stream.write_all(head.as_bytes()).await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    if &first != b"HTTP/1.1 200" {
        bail!("a listener was answered {:?}", String::from_utf8_lossy(&first));
    }
    Ok(stream)
}

async fn read(mut stream: TcpStream, ear: Arc<Ear>, is_sampled: bool) {
    const COMMITTED: &[u8] = b"\"committedAt\":\"";
    const NEXT: &[u8] = b"\"next\":";
    let mut text: Vec<u8> = Vec::with_capacity(32 * 1024);
    while let Ok(1..) = stream.read_buf(&mut text).await {
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
        if is_sampled {
            let mut delays = ear.delays_ms.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            delays.extend(texts_after(&text, COMMITTED, 24).filter_map(|at| {
                let at = Timestamp::new(std::str::from_utf8(at).ok()?).ok()?;
                Some(now_ms.saturating_sub(u64::try_from(at.unix_ms()).ok()?))
            }));
        }
        let digits =
            |next: &[u8]| next.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + u64::from(b - b'0'));
        if let Some(next) = texts_after(&text, NEXT, 12).last() {
            ear.heard.store(digits(next), Ordering::Relaxed);
        }
        // What is not complete is looked at again with what follows it.
        let rest = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        text.drain(..rest);
    }
}

/// The `length` bytes behind each `name`.
fn texts_after<'t>(text: &'t [u8], name: &'t [u8], length: usize) -> impl Iterator<Item = &'t [u8]> {
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (text, mut from) = (&text[..end], 0);
    std::iter::from_fn(move || {
        loop {
            let at = from + text[from..].iter().position(|byte| *byte == b'"')?;
            from = at + 1;
            if text[at..].starts_with(name) {
                return text.get(at + name.len()..at + name.len() + length);
            }
        }
    })
}

/// Everybody heard everything.
async fn wait_until_heard(bench: &Bench, ears: &[Arc<Ear>]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut behind: BTreeMap<usize, u64> = BTreeMap::new();
        for (number, ear) in ears.iter().enumerate() {
            let place = number % SPACES;
            let missing = bench.pushed[place].load(Ordering::Relaxed).saturating_sub(ear.heard.load(Ordering::Relaxed));
            if missing > 0 {
                behind.insert(number, missing);
            }
        }
        if behind.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} of {} listeners have not heard everything after {PATIENCE:?}", behind.len(), ears.len());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
