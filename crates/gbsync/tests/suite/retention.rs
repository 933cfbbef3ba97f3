//! `gbsync retention`, beside a running server: what it says, what it leaves, and a process that is killed in the middle.

use crate::shop::{Dice, Serving, Shop, receipt};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

/// A shop whose device has pushed so many groups.
fn filled(groups: u64) -> (Shop, Serving) {
    let shop = Shop::new();
    let serving = shop.serve();
    shop.init("a.db", &serving.url);
    shop.apply("a.db", &(0..groups).map(|n| receipt(&format!("r{n}"))).collect::<String>());
    shop.run(&["sync", "a.db"]).done();
    (shop, serving)
}

/// The entries of the log, and those of all archives that have their name and their digest.
fn entries(shop: &Shop) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let store = rusqlite::Connection::open(shop.path("server/gbsync.db")).unwrap();
    let mut statement = store.prepare("SELECT place & 0xffffffffff FROM log").unwrap();
    let log = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut archived = BTreeSet::new();
    let Ok(folder) = std::fs::read_dir(shop.path("server/archives/shop")) else { return (log, archived) };
    for file in folder {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "zst") {
            assert!(path.with_extension("zst.sha256").exists(), "{} has no digest", path.display());
            let text = zstd::stream::decode_all(std::fs::read(&path).unwrap().as_slice()).unwrap();
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            archived
                .extend(lines.filter_map(|line| serde_json::from_slice::<Value>(line).unwrap()["entry"]["seq"].as_u64()));
        }
    }
    (log, archived)
}

#[test]
fn it_says_what_would_leave_and_then_lets_it_leave_beside_a_running_server() {
    let (shop, serving) = filled(30);
    let retention = ["retention", "--data", "server", "--entries", "10"];
    let said = shop.run(&[&retention[..], &["--dry-run"]].concat()).done();
    assert_eq!(said, "shop: 20 entries would leave the log, 10 would stay; the horizon would be 20\n");
    let done = shop.run(&[&retention[..], &["--json"]].concat()).json();
    let space = &done["spaces"][0];
    assert_eq!((space["from"].as_u64(), space["to"].as_u64(), space["head"].as_u64()), (Some(0), Some(20), Some(30)));
    assert_eq!(space["archives"].as_array().unwrap().len(), 1);
    let (log, archived) = entries(&shop);
    assert_eq!((log, archived), ((21..=30).collect(), (1..=20).collect()));
    // A device that read all of it goes on, and a new one has everything.
    shop.apply("a.db", &receipt("more"));
    shop.run(&["sync", "a.db"]).done();
    shop.init("b.db", &serving.url);
    shop.run(&["sync", "b.db"]).done();
    assert_eq!(shop.digest("b.db"), shop.server_digest());
    assert_eq!(shop.digest("a.db"), shop.server_digest());
}

#[test]
fn it_wants_to_know_how_long_and_where() {
    let shop = Shop::new();
    shop.serve().terminate();
    assert_eq!(shop.run(&["retention", "--data", "server"]).code, Some(2));
    assert_eq!(shop.run(&["retention", "--data", "server", "--age", "soon"]).code, Some(2));
    let nowhere = shop.run(&["--json", "retention", "--data", "server", "--entries", "1", "--space", "other"]);
    assert_eq!(nowhere.json_error(1)["code"], "no_space");
}

#[test]
fn killed_at_any_moment_every_entry_is_in_the_log_or_in_an_archive() {
    let (shop, serving) = filled(1_500);
    let mut dice = Dice(7);
    let mut left = 0;
    for round in 0..12 {
        let kept = (1_400 - 100 * round).to_string();
        let mut command = shop.command(&["retention", "--data", "server", "--entries", &kept]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(dice.below(120)));
        let _ = child.kill();
        child.wait().unwrap();
        let (log, archived) = entries(&shop);
        let all: BTreeSet<u64> = log.union(&archived).copied().collect();
        assert_eq!(all, (1..=1_500).collect::<BTreeSet<u64>>(), "round {round}");
        let horizon = log.first().unwrap() - 1;
        assert_eq!(log, (horizon + 1..=1_500).collect(), "round {round}");
        left = left.max(horizon);
    }
    shop.run(&["retention", "--data", "server", "--entries", "5"]).done();
    let (log, archived) = entries(&shop);
    assert_eq!((log.len(), archived), (5, (1..=1_495).collect()));
    shop.init("b.db", &serving.url);
    shop.run(&["sync", "b.db"]).done();
    assert_eq!(shop.digest("b.db"), shop.server_digest());
    assert!(left < 1_500);
}
