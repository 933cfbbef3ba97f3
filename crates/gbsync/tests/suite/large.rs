//! A group of 50,000 records through requests of 256 KiB, while client and server are killed again and again in the middle.
//!
//! A second device is asked all the time by plain SQL and must never see a part of the group (P2), nor may anybody find one on
//! the server (P1). At the end everything has taken effect once, digests are equal (P3, P6, P8), and no process held more
//! than 300 MiB.

#![cfg(target_os = "linux")]

use crate::shop::{Dice, Serving, Shop};
use rusqlite::{Connection, OpenFlags};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const RECORDS: u64 = 50_000;
const KILLS: u32 = 10;
const MOST_KIB: u64 = 300 * 1024;
const LIMITS: &[&str] = &["--request-bytes", "262144", "--group-records", "50000"];

#[test]
fn a_group_of_50_000_records_survives_kills_in_the_middle_and_is_never_seen_in_part() {
    let mut scene = Scene::open();
    scene.apply_stock_take();
    let watch = Watch::over(&scene);
    let mut kills = 0;
    while kills < KILLS / 2 {
        kills += scene.kill_in_the_middle("a.db", "gbsync_upload_part");
    }
    scene.kill_at_the_end("a.db", "SELECT in_flight IS NOT NULL FROM gbsync_state", Victim::Server);
    scene.sync("a.db");
    while kills < KILLS {
        kills += scene.kill_in_the_middle("b.db", "gbsync_download_part");
    }
    let is_fetched = "SELECT (SELECT count(*) FROM gbsync_download_part) = (SELECT parts FROM gbsync_download)";
    scene.kill_at_the_end("b.db", is_fetched, Victim::Client);
    scene.sync("b.db");
    let looks = watch.end();
    assert!(looks > 20, "{looks} looks at the second device");
    assert_eq!(number(&scene.shop.path("b.db"), SEEN), RECORDS);
    let digest = scene.shop.digest("a.db");
    assert_eq!(digest, scene.shop.digest("b.db"));
    assert_eq!(digest, scene.shop.server_digest());
    let status = scene.shop.run(&["status", "a.db", "--json"]).json();
    assert_eq!([&status["pending"], &status["parked"]], [0, 0]);
    scene.note_peak("the server", scene.server.as_ref().unwrap().child.id());
    for (who, kib) in &scene.peaks {
        assert!(*kib < MOST_KIB, "{who} held {} MiB", kib / 1024);
    }
}

#[test]
fn limits_under_which_a_change_could_be_written_and_never_sent_are_refused() {
    let shop = Shop::new();
    for limits in [["--request-bytes", "4096"], ["--payload-bytes", "1048576"]] {
        let refused = shop.run(&[&["serve", "--data", "server", "--listen", "127.0.0.1:0", "--json"], &limits[..]].concat());
        assert_eq!(refused.json_error(1)["code"], "limits", "{limits:?}");
    }
    assert_eq!(shop.run(&["serve", "--data", "server", "--group-records", "0"]).code, Some(2));
}

/// What the group's records are in the local view, and nothing else is.
const SEEN: &str = "SELECT count(*) FROM gbsync_records";
/// What is there of the group on the server, in the records and in the log.
const STORED: &str = "SELECT count(*) FROM records";

struct Scene {
    shop: Shop,
    dice: Dice,
    server: Option<Serving>,
    address: String,
    /// The most memory that each kind of process held, in KiB.
    peaks: Vec<(String, u64)>,
}

impl Scene {
    fn open() -> Self {
        let shop = Shop::new();
        let server = Serving::start_with(&shop.data(), "127.0.0.1:0", LIMITS);
        for device in ["a.db", "b.db"] {
            shop.init(device, &server.url);
            shop.run(&["sync", device]).done();
        }
        let address = server.address().to_owned();
        Self { shop, dice: Dice(20_260_603), server: Some(server), address, peaks: Vec::new() }
    }

    /// One operation on all records, written while nobody is online.
    fn apply_stock_take(&mut self) {
        let changes = (0..RECORDS).map(|n| {
            format!(
                r#"{{"entity":"items","id":"item-{n:05}","action":"upsert","payload":{{"name":"Article number {n}, in aisle {}","counted":{n},"price":"{}.99","shelf":"s-{}","note":"counted twice, by two people, at night"}}}}"#,
                n % 7,
                n % 100,
                n % 321
            )
        });
        let changes = changes.collect::<Vec<_>>().join(",");
        self.shop.write("take.ndjson", &format!("{{\"type\":\"stock-take\",\"root\":\"t1\",\"changes\":[{changes}]}}\n"));
        let apply = self.spawn(&["apply", "a.db", "take.ndjson"]);
        self.watched("apply", apply);
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.shop.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a process to its end, which must be a good one, and notes what it held.
    fn watched(&mut self, who: &str, mut child: Child) {
        while child.try_wait().unwrap().is_none() {
            self.note_peak(who, child.id());
            thread::sleep(Duration::from_millis(5));
        }
        crate::shop::Ran::of(child.wait_with_output().unwrap()).done();
    }

    fn sync(&mut self, device: &str) {
        let sync = self.spawn(&["sync", device]);
        self.watched(&format!("sync {device}"), sync);
    }

    fn note_peak(&mut self, who: &str, process: u32) {
        let Some(kib) = peak_kib(process) else { return };
        match self.peaks.iter_mut().find(|(known, _)| known == who) {
            Some((_, most)) => *most = kib.max(*most),
            None => self.peaks.push((who.to_owned(), kib)),
        }
    }

    /// Lets a device go on until some more parts have arrived, then kills it, or the server. Answers how many kills hit.
    fn kill_in_the_middle(&mut self, device: &str, parts: &str) -> u32 {
        let file = self.shop.path(device);
        let arrived = || number(&file, &format!("SELECT count(*) FROM {parts}"));
        let wanted = arrived() + 1 + self.dice.below(5);
        let victim = if self.dice.below(2) == 0 { Victim::Client } else { Victim::Server };
        self.kill_when(device, victim, || arrived() >= wanted);
        assert!(arrived() >= wanted, "what had arrived is still there");
        1
    }

    /// Lets a device go on until all parts have arrived and the one transaction that takes them is under way.
    fn kill_at_the_end(&mut self, device: &str, is_near: &str, victim: Victim) {
        let file = self.shop.path(device);
        self.kill_when(device, victim, || number(&file, is_near) == 1);
    }

    fn kill_when(&mut self, device: &str, victim: Victim, is_time: impl Fn() -> bool) {
        let mut sync = self.spawn(&["sync", device]);
        let begun = Instant::now();
        while !is_time() {
            assert!(sync.try_wait().unwrap().is_none() && begun.elapsed().as_secs() < 60, "it ended before it was killed");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(self.dice.below(5)));
        self.note_peak(&format!("sync {device}"), sync.id());
        match victim {
            Victim::Client => {
                sync.kill().unwrap();
                assert_eq!(sync.wait().unwrap().signal(), Some(9), "it ended before it was killed");
            }
            Victim::Server => {
                let server = self.server.take().unwrap();
                self.note_peak("the server", server.child.id());
                server.kill();
                let sync = crate::shop::Ran::of(sync.wait_with_output().unwrap());
                assert_eq!(sync.code, Some(4), "{sync:?}");
                self.server = Some(Serving::start_with(&self.shop.data(), &self.address, LIMITS));
            }
        }
        let stored = number(&self.shop.path("server/gbsync.db"), STORED);
        assert!(stored == 0 || stored == RECORDS, "{stored} records on the server");
    }
}

/// Who is killed.
#[derive(Clone, Copy)]
enum Victim {
    Client,
    Server,
}

/// Looks at the second device all the time.
struct Watch {
    is_over: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Watch {
    fn over(scene: &Scene) -> Self {
        let file: PathBuf = scene.shop.path("b.db");
        let (is_over, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counted) = (Arc::clone(&is_over), Arc::clone(&looks));
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let seen = number(&file, SEEN);
                assert!(seen == 0 || seen == RECORDS, "{seen} records in sight");
                counted.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { is_over, looks, thread }
    }

    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.looks.load(Ordering::Relaxed)
    }
}

fn number(file: &Path, sql: &str) -> u64 {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The most memory that a process ever held; `None` when it has ended.
fn peak_kib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
