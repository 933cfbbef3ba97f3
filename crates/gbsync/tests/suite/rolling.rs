//! A rolling restart of two nodes behind a balancer, under load: SIGTERM, and `drain_delay_ms` so that the balancer sees it coming.
//!
//! Whoever sends is sent elsewhere in time: no sync fails, nothing is lost, and nothing is there twice.

use crate::shop::{Serving, gbsync};
use gbsync_client::{Client, Config, FixedToken, HttpTransport, Operation, Remote, SyncOptions};
use gbsync_cluster::{Cluster, ask};
use gbsync_core::id::SpaceId;
use gbsync_server::{NewToken, StoreLocation, Tokens, space_digest};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const NODES: usize = 2;
const DEVICES: usize = 6;
/// How often the balancer asks.
const LOOK: Duration = Duration::from_millis(100);

/// What all threads look at.
struct Scene {
    token: String,
    addresses: Vec<String>,
    /// Which nodes the balancer sends to.
    ready: Vec<AtomicBool>,
    is_over: AtomicBool,
    sold: AtomicU64,
}

fn space() -> SpaceId {
    SpaceId::new("shop").unwrap()
}

fn serve(store: &str, listen: &str, file: &Path) -> Serving {
    let mut command = gbsync();
    command.args(["serve", "--listen", listen, "--config"]).arg(file).env("GBSYNC_STORE", store);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    Serving { child, url, stdout }
}

/// Asks each node whether it is ready, as a balancer does.
fn balance(scene: &Scene) {
    let is_ready = |address: &String| {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    };
    while !scene.is_over.load(Ordering::SeqCst) {
        for (address, ready) in scene.addresses.iter().zip(&scene.ready) {
            ready.store(is_ready(address).is_some(), Ordering::SeqCst);
        }
        std::thread::sleep(LOOK);
    }
}

/// Sells and syncs with a node that the balancer chooses; how often that failed.
fn work(scene: &Scene, number: usize, device: &Client) -> Vec<String> {
    let mut failures = Vec::new();
    for sale in 0.. {
        if scene.is_over.load(Ordering::SeqCst) {
            break;
        }
        sell(device, &format!("{number}-{sale}"));
        scene.sold.fetch_add(1, Ordering::SeqCst);
        let is_ready = |node: &usize| scene.ready[*node].load(Ordering::SeqCst);
        let node = (0..NODES).map(|step| (number + sale + step) % NODES).find(is_ready).expect("one of them is ready");
        if let Err(error) = sync(scene, node, device) {
            failures.push(error);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    failures
}

fn sync(scene: &Scene, node: usize, device: &Client) -> Result<(), String> {
    let options = SyncOptions { attempts: 1, request_timeout_ms: 20_000, ..SyncOptions::default() };
    let url = format!("http://{}", scene.addresses[node]);
    let transport = HttpTransport::new(&url, Arc::new(FixedToken(scene.token.clone()))).unwrap();
    device.sync_blocking(&transport, &options).map(drop).map_err(|error| error.to_string())
}

fn sell(device: &Client, name: &str) {
    let (receipt, payment) = (format!("r-{name}"), format!("p-{name}"));
    let sold = device.operation::<gbsync_client::Error>("receipt-create", &receipt, |operation: &mut Operation| {
        operation.upsert("receipts", &receipt, r#"{"total":"12.00"}"#)?;
        operation.upsert("payments", &payment, format!(r#"{{"receiptId":"{receipt}"}}"#))
    });
    sold.map(drop).unwrap();
}

#[test]
fn nodes_are_restarted_one_after_the_other_and_no_request_is_lost() {
    let cluster = Cluster::shared().unwrap_or_else(|error| panic!("{error}"));
    let (store, folder) = (cluster.store(), tempfile::tempdir().unwrap());
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "drain_delay_ms = 3000\nwriters = 4\n").unwrap();
    let location = StoreLocation::Postgres(store.clone());
    let token = Tokens::open(location.clone()).unwrap().create(NewToken::new(space())).unwrap().token;
    let mut nodes: Vec<_> = (0..NODES).map(|_| serve(&store, "127.0.0.1:0", &file)).collect();
    let scene = Arc::new(Scene {
        token,
        addresses: nodes.iter().map(|node| node.address().to_owned()).collect(),
        ready: (0..NODES).map(|_| AtomicBool::new(true)).collect(),
        is_over: AtomicBool::new(false),
        sold: AtomicU64::new(0),
    });
    let devices: Vec<Client> = (0..DEVICES)
        .map(|device| {
            let remote = Remote { server: nodes[device % NODES].url.clone(), space: space() };
            Client::create(Config::new(folder.path().join(format!("{device}.db"))), &remote).unwrap()
        })
        .collect();
    let balancing = std::thread::spawn({
        let scene = Arc::clone(&scene);
        move || balance(&scene)
    });
    let begin = |(number, device): (usize, Client)| {
        let scene = Arc::clone(&scene);
        std::thread::spawn(move || work(&scene, number, &device))
    };
    let working: Vec<_> = devices.iter().cloned().enumerate().map(begin).collect();
    for number in 0..NODES {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(nodes.remove(0).terminate_quietly(), Some(0));
        nodes.push(serve(&store, &scene.addresses[number], &file));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !scene.ready[number].load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "node {number} is not ready any more");
            std::thread::sleep(LOOK);
        }
    }
    scene.is_over.store(true, Ordering::SeqCst);
    let failures: Vec<String> = working.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    balancing.join().unwrap();
    assert_eq!(failures, Vec::<String>::new(), "of {} syncs", scene.sold.load(Ordering::SeqCst));
    account(&scene, &store, &location, &devices);
}

/// Every sale is there once, and every device has all of them.
fn account(scene: &Scene, store: &str, location: &StoreLocation, devices: &[Client]) {
    for (number, device) in devices.iter().enumerate() {
        sync(scene, number % NODES, device).unwrap();
    }
    let (sold, theirs) = (scene.sold.load(Ordering::SeqCst), space_digest(location.clone(), &space()).unwrap());
    assert_eq!((theirs.head.0, theirs.records), (sold, 2 * sold), "every sale once");
    assert_eq!(ask(store, "SELECT count(*) - max(seq) FROM log").unwrap(), [[Some("0".to_owned())]]);
    assert!(sold > 50, "only {sold} sales: the devices hardly worked");
    for (number, device) in devices.iter().enumerate() {
        sync(scene, (number + 1) % NODES, device).unwrap();
        let (status, ours) = (device.status().unwrap(), device.digest().unwrap());
        assert_eq!((status.pending_groups, status.parked_groups), (0, 0), "device {number}");
        assert_eq!((ours.cursor, ours.digest), (theirs.head, theirs.digest), "device {number}");
    }
}
