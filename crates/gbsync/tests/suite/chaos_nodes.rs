//! Three nodes on one PostgreSQL and twenty devices under load, while nodes and PostgreSQL are killed and started again.
//!
//! All the while two checkers look for receipts without their payments in the database itself, one of them with `psql` in a loop:
//! no reader ever sees half a group (P1).
//! At the end every operation took effect exactly once, all digests are equal and no device is stuck (P3, P4, P6, P10).

use crate::shop::{Dice, Serving, gbsync};
use gbsync_client::{Client, Config, FixedToken, HttpTransport, Operation, Remote, SyncOptions};
use gbsync_cluster::{Cluster, ask};
use gbsync_core::id::SpaceId;
use gbsync_server::{NewToken, StoreLocation, Tokens, space_digest};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NODES: usize = 3;
const DEVICES: usize = 20;
const KILLS: u64 = 30;
/// What is in stock at first.
const STOCK: u64 = 1_000_000;
/// Of so many kills one is PostgreSQL's.
const POSTGRES_EVERY: u64 = 4;
/// Which node is killed when; `KILL_SEED` runs another course. The moments also depend on the machine.
const SEED: u64 = 20_261_125;
/// How long everything may take to settle at the end.
const PATIENCE: Duration = Duration::from_secs(240);

fn space() -> SpaceId {
    SpaceId::new("shop").unwrap()
}

/// Starts a node and waits until it listens; `None` when PostgreSQL was not there for it.
fn serve(store: &str, listen: &str) -> Option<Serving> {
    let mut command = gbsync();
    command.args(["serve", "--listen", listen]).env("GBSYNC_STORE", store);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
    let Some(url) = url else {
        child.wait().unwrap();
        return None;
    };
    Some(Serving { child, url, stdout })
}

/// What all threads look at.
struct Scene {
    store: String,
    token: String,
    urls: Vec<String>,
    is_over: AtomicBool,
    sold: AtomicU64,
    looks: AtomicU64,
    looks_of_psql: AtomicU64,
}

#[test]
fn three_nodes_and_postgresql_are_killed_under_twenty_devices_and_nothing_is_lost_or_halved() {
    let seed = std::env::var("KILL_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut cluster = Cluster::start(&["max_connections = 200"]).unwrap_or_else(|error| panic!("{error}"));
    let store = cluster.store();
    let new = NewToken::new(space());
    let token = Tokens::open(StoreLocation::Postgres(store.clone())).unwrap().create(new).unwrap().token;
    let mut nodes: Vec<Option<Serving>> = (0..NODES).map(|_| serve(&store, "127.0.0.1:0")).collect();
    let urls: Vec<String> = nodes.iter().map(|node| node.as_ref().unwrap().url.clone()).collect();
    let scene = Arc::new(Scene {
        store,
        token,
        urls,
        is_over: AtomicBool::new(false),
        sold: AtomicU64::new(0),
        looks: AtomicU64::new(0),
        looks_of_psql: AtomicU64::new(0),
    });
    let folder = tempfile::tempdir().unwrap();
    let devices: Vec<Client> = (0..DEVICES)
        .map(|device| {
            let remote = Remote { server: scene.urls[device % NODES].clone(), space: space() };
            Client::create(Config::new(folder.path().join(format!("{device}.db"))), &remote).unwrap()
        })
        .collect();
    devices[0]
        .operation::<gbsync_client::Error>("stock-take", "roll", |operation| {
            operation.upsert("stock", "roll", format!(r#"{{"quantity":{STOCK}}}"#))
        })
        .unwrap();
    for device in &devices {
        device.sync_blocking(&transport(&scene, &scene.urls[0]), &options()).unwrap();
    }
    let halves = Arc::new(Mutex::new(Vec::new()));
    let working: Vec<_> = devices
        .iter()
        .cloned()
        .enumerate()
        .map(|(number, device)| {
            let scene = Arc::clone(&scene);
            std::thread::spawn(move || work(&scene, number, &device, seed))
        })
        .collect();
    let checking = [check, check_with_psql].map(|check| {
        let (scene, halves) = (Arc::clone(&scene), Arc::clone(&halves));
        std::thread::spawn(move || check(&scene, &halves))
    });
    let mut dice = Dice(seed);
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(300 + dice.below(700)));
        if kill % POSTGRES_EVERY == POSTGRES_EVERY - 1 {
            cluster.kill();
            std::thread::sleep(Duration::from_millis(dice.below(500)));
            cluster.restart().unwrap();
        } else {
            let number = usize::try_from(dice.below(NODES as u64)).unwrap();
            if let Some(node) = nodes[number].take() {
                node.kill();
            }
            nodes[number] = start_again(&scene, number);
        }
    }
    scene.is_over.store(true, Ordering::SeqCst);
    working.into_iter().for_each(|thread| thread.join().unwrap());
    checking.into_iter().for_each(|thread| thread.join().unwrap());
    settle(&scene, &devices);
    assert_eq!(*halves.lock().unwrap(), Vec::<String>::new());
    for looks in [&scene.looks, &scene.looks_of_psql] {
        let looks = looks.load(Ordering::SeqCst);
        assert!(looks > KILLS, "a checker could look only {looks} times");
    }
    account(&scene, &devices);
    // A half would have been seen.
    ask(&scene.store, "DELETE FROM records WHERE entity = 'payments' AND id = 'p-0-0-0'").unwrap();
    assert_eq!(halves_by_psql(&scene.store), Ok(Some(vec!["r-0-0-0".to_owned()])));
}

fn start_again(scene: &Scene, number: usize) -> Option<Serving> {
    let listen = scene.urls[number].strip_prefix("http://").unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(node) = serve(&scene.store, listen) {
            return Some(node);
        }
        assert!(Instant::now() < deadline, "node {number} does not start any more");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sells and syncs with whichever node, whatever becomes of it.
fn work(scene: &Scene, number: usize, device: &Client, seed: u64) {
    let mut dice = Dice(seed ^ (number as u64 + 1));
    let transports: Vec<HttpTransport> = scene.urls.iter().map(|url| transport(scene, url)).collect();
    for sale in 0.. {
        if scene.is_over.load(Ordering::SeqCst) {
            return;
        }
        for half in 0..1 + dice.below(3) {
            sell(device, &format!("{number}-{sale}-{half}")).unwrap();
            scene.sold.fetch_add(1, Ordering::SeqCst);
        }
        let node = usize::try_from(dice.below(NODES as u64)).unwrap();
        // It may be dead: that is the point.
        let _ = device.sync_blocking(&transports[node], &options());
        std::thread::sleep(Duration::from_millis(dice.below(200)));
    }
}

fn options() -> SyncOptions {
    SyncOptions { attempts: 1, request_timeout_ms: 20_000, ..SyncOptions::default() }
}

fn transport(scene: &Scene, url: &str) -> HttpTransport {
    HttpTransport::new(url, Arc::new(FixedToken(scene.token.clone()))).unwrap()
}

fn sell(device: &Client, name: &str) -> Result<(), gbsync_client::Error> {
    let (receipt, payment) = (format!("r-{name}"), format!("p-{name}"));
    device.operation::<gbsync_client::Error>("receipt-create", &receipt, |operation: &mut Operation| {
        operation.upsert("receipts", &receipt, r#"{"total":"12.00"}"#)?;
        operation.upsert("payments", &payment, format!(r#"{{"receiptId":"{receipt}"}}"#))?;
        operation.increment("stock", "roll", r#"{"quantity":-1}"#)?;
        Ok(())
    })?;
    Ok(())
}

/// What any program sees in the database: receipts and payments that are not both there.
const HALVES: &str = "
SELECT id FROM records r WHERE entity = 'receipts'
   AND NOT EXISTS (SELECT 1 FROM records p WHERE p.space_no = r.space_no AND p.entity = 'payments' AND p.id = 'p' || substr(r.id, 2))
UNION ALL
SELECT id FROM records p WHERE entity = 'payments'
   AND NOT EXISTS (SELECT 1 FROM records r WHERE r.space_no = p.space_no AND r.entity = 'receipts' AND r.id = 'r' || substr(p.id, 2))";

fn check(scene: &Scene, halves: &Mutex<Vec<String>>) {
    while !scene.is_over.load(Ordering::SeqCst) {
        // PostgreSQL may be dead just now.
        if let Ok(rows) = ask(&scene.store, HALVES) {
            halves.lock().unwrap().extend(rows.into_iter().flatten().flatten());
            scene.looks.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn check_with_psql(scene: &Scene, halves: &Mutex<Vec<String>>) {
    while !scene.is_over.load(Ordering::SeqCst) {
        match halves_by_psql(&scene.store) {
            Ok(None) => {}
            Ok(Some(found)) => {
                halves.lock().unwrap().extend(found);
                scene.looks_of_psql.fetch_add(1, Ordering::SeqCst);
            }
            Err(text) => halves.lock().unwrap().push(text),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `psql` finds; `None` where PostgreSQL is dead just now, which is its code 2.
fn halves_by_psql(store: &str) -> Result<Option<Vec<String>>, String> {
    let (url, schema) = store.split_once("?schema=").unwrap();
    let mut command = Command::new(psql());
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", HALVES, url]);
    let ran = command.env("PGOPTIONS", format!("-c search_path={schema}")).output().unwrap();
    match ran.status.code() {
        Some(0) => Ok(Some(String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned).collect())),
        Some(2) => Ok(None),
        _ => Err(format!("{ran:?}")),
    }
}

/// The program in the path, or beside PostgreSQL's own.
fn psql() -> PathBuf {
    let in_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = in_path.into_iter().chain(versions.map(|version| version.path().join("bin")));
    let found = folders.map(|folder| folder.join("psql")).find(|program| program.is_file());
    found.expect("psql is in PATH or /usr/lib/postgresql/*/bin; on Debian: apt-get install postgresql-client")
}

/// Every device sends and pulls what is left.
fn settle(scene: &Scene, devices: &[Client]) {
    let deadline = Instant::now() + PATIENCE;
    for (number, device) in devices.iter().enumerate() {
        let transport = transport(scene, &scene.urls[number % NODES]);
        loop {
            let synced = device.sync_blocking(&transport, &options());
            let status = device.status().unwrap();
            if synced.is_ok() && status.pending_groups == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "device {number} is stuck: {synced:?} {status:?}");
        }
    }
    // What others sent after a device was settled.
    for (number, device) in devices.iter().enumerate() {
        device.sync_blocking(&transport(scene, &scene.urls[(number + 1) % NODES]), &options()).unwrap();
    }
}

fn account(scene: &Scene, devices: &[Client]) {
    let sold = scene.sold.load(Ordering::SeqCst);
    let theirs = space_digest(StoreLocation::Postgres(scene.store.clone()), &space()).unwrap();
    assert_eq!((theirs.head.0, theirs.records), (sold + 1, 2 * sold + 1), "every sale once");
    let stock = ask(&scene.store, "SELECT payload FROM records WHERE entity = 'stock'").unwrap();
    assert_eq!(stock, [[Some(format!(r#"{{"quantity":{}}}"#, STOCK - sold))]]);
    let gaps = "SELECT count(*) - max(seq) FROM log";
    assert_eq!(ask(&scene.store, gaps).unwrap(), [[Some("0".to_owned())]]);
    for (number, device) in devices.iter().enumerate() {
        let status = device.status().unwrap();
        assert_eq!((status.pending_groups, status.parked_groups), (0, 0), "device {number}");
        let ours = device.digest().unwrap();
        assert_eq!(
            (ours.cursor, ours.records, ours.digest),
            (theirs.head, theirs.records, theirs.digest),
            "device {number}"
        );
    }
    assert!(sold > 500, "only {sold} sales: the devices hardly worked");
}
