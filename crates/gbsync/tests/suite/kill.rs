//! `kill -9` of `gbsync apply`, `gbsync sync` and `gbsync serve` at random moments, with two devices.
//!
//! After every cycle: what was printed as applied is in the device's file (P4), no operation is there in part, in the local
//! view, in what the server confirmed, and on the server (P1, P2), and the numbers have no gap (P11). At the end everything
//! has taken effect exactly once, and the digests are equal (P3, P6, P10).

use crate::shop::{Dice, Serving, Shop, single};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

const CYCLES: u64 = 50;
/// What is written and when is killed; `KILL_SEED` runs another one. The moments also depend on the machine.
const SEED: u64 = 20_260_603;
const DEVICES: [&str; 2] = ["a.db", "b.db"];
const STOCK: u64 = 1_000_000;

#[test]
fn kill_9_of_apply_sync_and_serve_at_random_moments_loses_and_halves_nothing() {
    let mut scene = Scene::open();
    for cycle in 0..CYCLES {
        let device = scene.dice.below(2) as usize;
        match scene.dice.below(3) {
            0 => scene.kill_apply(device),
            1 => scene.kill_sync(device),
            _ => scene.kill_serve(device),
        }
        scene.check(cycle);
    }
    scene.settle();
}

/// One line of an operations file, and whether it was acknowledged.
struct Line {
    id: String,
    text: String,
    is_acknowledged: bool,
}

struct Scene {
    shop: Shop,
    dice: Dice,
    server: Option<Serving>,
    address: String,
    lines: [Vec<Line>; 2],
    /// Kills that hit work under way; the others came after it was done.
    hits: u64,
}

impl Scene {
    /// A server, two devices, and a stock that both know.
    fn open() -> Self {
        let shop = Shop::new();
        let server = shop.serve();
        for device in DEVICES {
            shop.init(device, &server.url);
        }
        let stock = format!(
            r#"{{"changes":[{{"entity":"stock","id":"roll","action":"upsert","payload":{{"quantity":{STOCK}}}}}]}}"#
        );
        shop.apply("a.db", &(stock + "\n" + &single("notes", "n-1", "first")));
        for device in DEVICES {
            shop.run(&["sync", device]).done();
        }
        let address = server.address().to_owned();
        let seed = std::env::var("KILL_SEED").map_or(SEED, |seed| seed.parse().unwrap());
        Self { shop, dice: Dice(seed), server: Some(server), address, lines: [Vec::new(), Vec::new()], hits: 0 }
    }

    /// Writes new operations, half of them also editing an earlier one of the same device.
    fn write_lines(&mut self, device: usize) {
        for _ in 0..10 + self.dice.below(30) {
            let number = self.lines[device].len();
            let (name, parts) = (format!("{device}-{number}"), 1 + self.dice.below(6));
            let mut changes = vec![format!(
                r#"{{"entity":"witness","id":"{name}","action":"upsert","payload":{{"parts":{parts},"touched":0}}}}"#
            )];
            changes.extend((0..parts).map(|part| {
                format!(r#"{{"entity":"part","id":"{name}-{part}","action":"upsert","payload":{{"of":"{name}"}}}}"#)
            }));
            changes.push(r#"{"entity":"stock","id":"roll","action":"increment","payload":{"quantity":-1}}"#.into());
            if number > 0 && self.dice.below(2) == 0 {
                let earlier = self.dice.below(number as u64);
                changes.push(format!(
                    r#"{{"entity":"witness","id":"{device}-{earlier}","action":"patch","payload":{{"touched":{number}}}}}"#
                ));
            }
            let id = format!("work:{name}:given");
            let changes = changes.join(",");
            let text = format!(r#"{{"syncGroupId":"{id}","type":"work","root":"{name}","changes":[{changes}]}}"#) + "\n";
            self.lines[device].push(Line { id, text, is_acknowledged: false });
        }
    }

    /// Feeds everything not acknowledged to `apply`, slowly, and kills it some time later.
    fn kill_apply(&mut self, device: usize) {
        self.write_lines(device);
        let mut apply = self.spawn(&["apply", DEVICES[device], "-", "--json"]);
        let mut input = apply.stdin.take().unwrap();
        let output = BufReader::new(apply.stdout.take().unwrap());
        let sent: Vec<usize> =
            (0..self.lines[device].len()).filter(|index| !self.lines[device][*index].is_acknowledged).collect();
        let texts: Vec<String> = sent.iter().map(|index| self.lines[device][*index].text.clone()).collect();
        let feeder = thread::spawn(move || {
            for text in texts {
                // The reader dies in the middle: that is the point.
                if input.write_all(text.as_bytes()).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let reader = thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
        self.kill_later(&mut apply, 100);
        feeder.join().unwrap();
        for line in reader.join().unwrap() {
            // The last line may be cut: what was not printed whole was not acknowledged.
            let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
            if let (Some(number), true) = (line["line"].as_u64(), line["groups"].is_array()) {
                self.lines[device][sent[number as usize - 1]].is_acknowledged = true;
            }
        }
    }

    fn kill_sync(&mut self, device: usize) {
        self.write_lines(device);
        self.apply_rest(device);
        let mut sync = self.spawn(&["sync", DEVICES[device], "--batch-records", "7"]);
        self.kill_later(&mut sync, 150);
    }

    /// Kills the server while one device syncs, then starts it again on the same address.
    fn kill_serve(&mut self, device: usize) {
        self.write_lines(device);
        self.apply_rest(device);
        let sync = self.spawn(&["sync", DEVICES[device], "--batch-records", "7"]);
        thread::sleep(Duration::from_millis(self.dice.below(150)));
        self.server.take().unwrap().kill();
        let sync = crate::shop::Ran::of(sync.wait_with_output().unwrap());
        assert!(matches!(sync.code, Some(0 | 4)), "{sync:?}");
        self.hits += u64::from(sync.code == Some(4));
        self.server = Some(Serving::start(&self.shop.data(), &self.address));
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.shop.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn kill_later(&mut self, child: &mut Child, within_ms: u64) {
        thread::sleep(Duration::from_millis(self.dice.below(within_ms)));
        child.kill().unwrap();
        self.hits += u64::from(child.wait().unwrap().signal() == Some(9));
    }

    /// Applies what is not acknowledged yet; lines that were stored unacknowledged are skipped by their id.
    fn apply_rest(&mut self, device: usize) {
        let rest = self.lines[device].iter().filter(|line| !line.is_acknowledged);
        self.shop.apply(DEVICES[device], &rest.map(|line| line.text.as_str()).collect::<String>());
        self.lines[device].iter_mut().for_each(|line| line.is_acknowledged = true);
    }

    fn check(&self, cycle: u64) {
        for (device, lines) in DEVICES.iter().zip(&self.lines) {
            let connection = self.connect(device);
            let kept = texts(&connection, "SELECT group_id FROM gbsync_group");
            for line in lines.iter().filter(|line| line.is_acknowledged) {
                assert!(kept.contains(&line.id), "cycle {cycle}: {} is lost on {device}", line.id);
            }
            for relation in ["gbsync_records", "gbsync_base"] {
                assert_eq!(halves(&connection, relation), 0, "cycle {cycle}: halves in {relation} of {device}");
            }
            let gaps = "SELECT coalesce(max(device_seq), 0) - count(DISTINCT device_seq) FROM gbsync_group";
            assert_eq!(number(&connection, gaps), 0, "cycle {cycle}: a gap in the numbers of {device}");
            let accepted = texts(&connection, "SELECT group_id FROM gbsync_group WHERE state = 'accepted'");
            let logged = texts(&self.connect("server/gbsync.db"), LOGGED);
            let missing: Vec<_> = accepted.difference(&logged).collect();
            assert!(missing.is_empty(), "cycle {cycle}: accepted, but not in the log: {missing:?}");
        }
        assert_eq!(halves(&self.connect("server/gbsync.db"), SERVER_RECORDS), 0, "cycle {cycle}: halves on the server");
    }

    fn connect(&self, name: &str) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open_with_flags(self.shop.path(name), flags).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }

    /// Everything is applied and synced without a person: exactly once, equal everywhere.
    fn settle(mut self) {
        for (device, file) in DEVICES.iter().enumerate() {
            self.apply_rest(device);
            self.shop.run(&["sync", file]).done();
        }
        self.shop.run(&["sync", DEVICES[0]]).done();
        self.check(CYCLES);
        let operations: usize = self.lines.iter().map(Vec::len).sum();
        assert!(operations as u64 > CYCLES * 5 && self.hits > CYCLES / 2, "{} hits, {operations} operations", self.hits);
        for device in DEVICES {
            let status = self.shop.run(&["status", device, "--json"]).json();
            assert_eq!([&status["pending"], &status["parked"]], [0, 0], "{device}");
            let witnesses = "SELECT count(*) FROM gbsync_records WHERE entity = 'witness'";
            assert_eq!(self.shop.value(device, witnesses), operations, "{device}");
            let stock = "SELECT payload ->> 'quantity' FROM gbsync_records WHERE entity = 'stock'";
            assert_eq!(self.shop.value(device, stock), STOCK - operations as u64, "{device}: each sale exactly once");
        }
        let digest = self.shop.digest("a.db");
        assert_eq!(digest, self.shop.digest("b.db"));
        assert_eq!(digest, self.shop.server_digest());
    }
}

const LOGGED: &str = "SELECT group_id FROM groups WHERE seq IS NOT NULL";
const SERVER_RECORDS: &str = "records";

/// How many operations are there in part: witnesses without all their parts, and parts without a witness.
fn halves(connection: &Connection, relation: &str) -> i64 {
    let sql = format!(
        "WITH live AS (SELECT entity, id, payload FROM {relation} WHERE payload IS NOT NULL),
              part AS (SELECT payload ->> 'of' AS of, count(*) AS n FROM live WHERE entity = 'part' GROUP BY 1),
              witness AS (SELECT id, payload ->> 'parts' AS parts FROM live WHERE entity = 'witness')
         SELECT (SELECT count(*) FROM witness LEFT JOIN part ON part.of = witness.id WHERE part.n IS NOT witness.parts)
              + (SELECT count(*) FROM part WHERE of NOT IN (SELECT id FROM witness))"
    );
    number(connection, &sql)
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn texts(connection: &Connection, sql: &str) -> BTreeSet<String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}
