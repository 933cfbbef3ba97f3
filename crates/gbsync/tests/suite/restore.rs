//! A server that loses what its devices saw accepted, with real processes: restored from a backup, rolled back behind
//! everybody's back, restored twice; and the devices that bring everything back.

use crate::shop::{Serving, Shop, gbsync, receipt, single};
use gbsync_cluster::{Cluster, ask};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TILLS: [&str; 3] = ["a.db", "b.db", "c.db"];
/// How long devices may take to bring everything back.
const PATIENCE: Duration = Duration::from_secs(60);

struct Chain {
    shop: Shop,
    server: Option<Serving>,
    address: String,
}

impl Chain {
    /// Three tills that know one product.
    fn open() -> Self {
        let shop = Shop::new();
        let server = shop.serve();
        for till in TILLS {
            shop.init(till, &server.url);
        }
        let address = server.address().to_owned();
        let chain = Self { shop, server: Some(server), address };
        chain.shop.apply("a.db", &single("products", "roll", "new"));
        chain.sync_all();
        chain
    }

    fn sync_all(&self) {
        for till in TILLS {
            self.shop.run(&["sync", till]).done();
        }
    }

    fn sell(&self, till: &str, from: u32, to: u32) {
        let lines: String = (from..to).map(|number| receipt(&format!("{}-{number}", &till[..1]))).collect();
        self.shop.apply(till, &lines);
    }

    /// Stops the server as a crash would.
    fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }

    fn start(&mut self, arguments: &[&str]) {
        self.server = Some(Serving::start_with(&self.shop.data(), &self.address, arguments));
    }

    fn backup(&self, name: &str) -> Value {
        self.shop.run(&["backup", "--data", "server", name, "--json"]).json()
    }

    fn lose_the_disk(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.shop.data()).unwrap();
    }

    /// Syncs all tills until none has anything to send; then all of them hold what the server holds.
    fn settle(&self, tills: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let waiting: Vec<Value> = tills
                .iter()
                .map(|till| {
                    self.shop.run(&["sync", till]).done();
                    self.shop.run(&["status", till, "--json"]).json()["pending"].clone()
                })
                .collect();
            if waiting.iter().all(|count| *count == json!(0)) {
                break;
            }
            assert!(Instant::now() < deadline, "tills still have {waiting:?} groups to send");
            std::thread::sleep(Duration::from_millis(300));
        }
        for till in tills {
            self.shop.run(&["sync", till]).done();
        }
        let server = self.shop.server_digest();
        for till in tills {
            assert_eq!(self.shop.digest(till), server, "{till}");
        }
    }

    fn count(&self, till: &str, sql: &str) -> u64 {
        self.shop.value(till, sql).as_u64().unwrap()
    }

    /// Every receipt is there once and has its payment and its entry, on every till and in the log, and nothing is parked.
    fn assert_whole(&self, tills: &[&str], receipts: u64) {
        self.assert_sold(tills, receipts);
        for till in tills {
            assert_eq!(self.count(till, "SELECT count(*) FROM gbsync_group WHERE state = 'parked'"), 0, "{till}");
        }
    }

    /// The same, whatever is parked.
    fn assert_sold(&self, tills: &[&str], receipts: u64) {
        for till in tills {
            let of =
                |entity: &str| self.count(till, &format!("SELECT count(*) FROM gbsync_records WHERE entity = '{entity}'"));
            assert_eq!((of("receipts"), of("payments"), of("entries")), (receipts, receipts, receipts), "{till}");
        }
        let log = rusqlite::Connection::open(self.shop.data().join("gbsync.db")).unwrap();
        let sql = "SELECT count(*), count(DISTINCT json_extract(entry, '$.syncGroupId')) FROM log
                    WHERE json_extract(entry, '$.syncGroupType') = 'receipt-create'";
        let found: (u64, u64) = log.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(found, (receipts, receipts));
    }

    fn product(&self, till: &str) -> Value {
        self.shop.value(till, "SELECT json_extract(payload, '$.name') FROM gbsync_records WHERE entity = 'products'")
    }

    fn lineage(&self) -> (String, Vec<(String, u64)>) {
        let log = rusqlite::Connection::open(self.shop.data().join("gbsync.db")).unwrap();
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?));
        let (log, ancestors) = log.query_row("SELECT log, ancestors FROM spaces", [], read).unwrap();
        let ancestors: Vec<Value> = serde_json::from_str(&ancestors.unwrap_or("[]".into())).unwrap();
        let place = |kept: &Value| (kept["log"].as_str().unwrap().to_owned(), kept["upTo"].as_u64().unwrap());
        (log, ancestors.iter().map(place).collect())
    }
}

#[test]
fn three_tills_bring_back_two_hundred_sales_and_the_edits_between_them() {
    let mut chain = Chain::open();
    chain.sell("a.db", 0, 3);
    chain.sync_all();
    let manifest = chain.backup("backup");
    assert_eq!(manifest["spaces"][0]["head"], 4);

    // All of this is lost: sales of each, and edits of one record, each on the one before.
    for till in TILLS {
        chain.sell(till, 10, 77);
    }
    chain.shop.apply("a.db", &single("products", "roll", "by a"));
    chain.sync_all();
    chain.shop.run(&["sync", "b.db"]).done();
    chain.shop.apply("b.db", &single("products", "roll", "by b, on a's"));
    chain.shop.run(&["sync", "b.db"]).done();
    chain.shop.run(&["sync", "c.db"]).done();
    // And this was never sent.
    chain.shop.apply("c.db", &single("products", "roll", "by c, on b's"));
    chain.sell("c.db", 100, 102);
    let before: Vec<u64> = TILLS.map(|till| chain.count(till, "SELECT max(device_seq) FROM gbsync_group")).into();

    chain.lose_the_disk();
    let restored = chain.shop.run(&["restore", "backup", "--data", "server", "--json"]).json();
    assert_eq!(restored["spaces"][0]["upTo"], 4);
    chain.start(&[]);

    // The last comes first: what it made on others' edits waits for them, and nobody sees anything vanish.
    chain.shop.run(&["sync", "c.db"]).done();
    assert_eq!(chain.product("c.db"), "by c, on b's");
    assert_eq!(chain.count("c.db", "SELECT count(*) FROM gbsync_group WHERE code = 'blocked'"), 1);
    chain.shop.run(&["sync", "b.db"]).done();
    assert_eq!(chain.product("b.db"), "by b, on a's");
    chain.settle(&TILLS);
    chain.assert_whole(&TILLS, 3 + 3 * 67 + 2);
    for till in TILLS {
        assert_eq!(chain.product(till), "by c, on b's");
    }
    // Numbers are the same: a server that knows fewer of them than the device is no reason for a new epoch.
    let after: Vec<u64> = TILLS.map(|till| chain.count(till, "SELECT max(device_seq) FROM gbsync_group")).into();
    assert_eq!(before, after);
    let sql = "SELECT count(*) FROM (SELECT 1 FROM gbsync_group GROUP BY device_seq HAVING count(*) > 1)";
    TILLS.iter().for_each(|till| assert_eq!(chain.count(till, sql), 0));
}

/// An edit of a receipt's total.
fn correction(receipt: &str, total: &str) -> String {
    let change = json!({"entity": "receipts", "id": receipt, "action": "patch", "payload": {"total": total}});
    format!("{}\n", json!({"type": "receipt-edit", "root": receipt, "changes": [change]}))
}

#[test]
fn two_hundred_sales_come_back_also_when_others_edit_the_same_records_after_the_restore() {
    let mut chain = Chain::open();
    chain.sell("a.db", 0, 3);
    chain.sync_all();
    chain.shop.init("d.db", &chain.server.as_ref().unwrap().url);
    chain.shop.run(&["sync", "d.db"]).done();
    chain.backup("backup");

    // All of this is lost, and till d has seen nothing of it.
    for till in TILLS {
        chain.sell(till, 10, 77);
    }
    let renamed = json!({"type": "rename", "root": "roll", "changes": [
        {"entity": "products", "id": "roll", "action": "upsert", "payload": {"name": "by a"}},
        {"entity": "notes", "id": "n-1", "action": "upsert", "payload": {"text": "why"}}]});
    chain.shop.apply("a.db", &format!("{renamed}\n"));
    chain.sync_all();
    chain.sync_all();
    chain.shop.apply("b.db", &single("products", "roll", "by b, on a's"));
    chain.sync_all();
    chain.lose_the_disk();
    chain.shop.run(&["restore", "backup", "--data", "server"]).done();
    chain.start(&[]);

    // After the restore one edits what it knows from before, and is the first; another edits a sale that is not back yet.
    chain.shop.apply("d.db", &single("products", "roll", "by d"));
    chain.shop.apply("d.db", &correction("a-0", "7.00"));
    chain.shop.run(&["sync", "d.db"]).done();
    chain.shop.apply("c.db", &correction("a-10", "9.00"));
    chain.shop.run(&["sync", "c.db"]).done();
    assert_eq!(chain.count("c.db", "SELECT count(*) FROM gbsync_group WHERE code = 'blocked'"), 1);
    let all = ["a.db", "b.db", "c.db", "d.db"];
    chain.settle(&all);

    chain.assert_sold(&all, 3 + 3 * 67);
    for till in all {
        let total = |receipt: &str| {
            chain.shop.value(
                till,
                &format!("SELECT json_extract(payload, '$.total') FROM gbsync_records WHERE entity = 'receipts' AND id = '{receipt}'"),
            )
        };
        assert_eq!(
            (chain.product(till), total("a-0"), total("a-10")),
            (json!("by d"), json!("7.00"), json!("9.00")),
            "{till}"
        );
        assert_eq!(
            chain.count(till, "SELECT count(*) FROM gbsync_records WHERE entity = 'notes'"),
            0,
            "{till}: undone whole"
        );
    }
    // What lost against the newer edit is kept whole where it was made, and so is what was made on it.
    let parked = |till: &str| {
        let codes = "SELECT group_concat(code) FROM gbsync_group WHERE state = 'parked'";
        let kept = "SELECT group_concat(entity || ' ' || coalesce(json_extract(payload, '$.name'), json_extract(payload, '$.text')), '; ')
                      FROM (SELECT * FROM gbsync_parked_change ORDER BY entity DESC)";
        (chain.shop.value(till, codes), chain.shop.value(till, kept))
    };
    assert_eq!(parked("a.db"), (json!("conflict"), json!("products by a; notes why")));
    assert_eq!(parked("b.db"), (json!("base_lost"), json!("products by b, on a's")));
    assert_eq!([parked("c.db").0, parked("d.db").0], [Value::Null, Value::Null]);
}

#[test]
fn what_was_made_on_the_sales_of_a_till_that_is_gone_waits_and_is_then_parked_whole() {
    let mut chain = Chain::open();
    chain.backup("backup");
    chain.shop.apply("a.db", &single("products", "roll", "by a"));
    chain.sync_all();
    chain.shop.apply("b.db", &single("products", "roll", "by b, on a's"));
    chain.sell("b.db", 0, 2);
    chain.shop.run(&["sync", "b.db"]).done();
    chain.lose_the_disk();
    chain.shop.run(&["restore", "backup", "--data", "server"]).done();
    chain.shop.write("short.toml", "heal_window_ms = 6000\n");
    let config = chain.shop.path("short.toml").display().to_string();
    chain.start(&["--config", &config]);
    // Till a fell into the harbour.
    chain.shop.run(&["sync", "b.db"]).done();
    let state = "SELECT state || ' ' || coalesce(code, '') FROM gbsync_group WHERE type IS NULL";
    assert_eq!(chain.shop.value("b.db", state), "sealed blocked");
    assert_eq!(chain.product("b.db"), "by b, on a's");
    std::thread::sleep(Duration::from_secs(6));
    chain.settle(&["b.db", "c.db"]);
    assert_eq!(chain.shop.value("b.db", state), "parked base_lost");
    let kept = "SELECT json_extract(payload, '$.name') FROM gbsync_parked_change";
    assert_eq!(chain.shop.value("b.db", kept), "by b, on a's");
    assert_eq!(chain.product("b.db"), "new");
    assert_eq!(chain.count("c.db", "SELECT count(*) FROM gbsync_records WHERE entity = 'receipts'"), 2);
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_folder_that_was_copied_back_is_noticed_by_the_chain_and_healed() {
    let mut chain = Chain::open();
    chain.sell("a.db", 0, 3);
    chain.sync_all();
    assert_eq!(chain.server.take().unwrap().terminate().code, Some(0));
    copy(&chain.shop.data(), &chain.shop.path("copy"));
    chain.start(&[]);
    for till in TILLS {
        chain.sell(till, 10, 20);
    }
    chain.shop.apply("a.db", &single("products", "roll", "by a"));
    chain.sync_all();
    chain.sync_all();
    chain.shop.apply("b.db", &single("products", "roll", "by b, on a's"));
    let (log, _) = chain.lineage();
    chain.lose_the_disk();
    copy(&chain.shop.path("copy"), &chain.shop.data());
    chain.start(&[]);
    // A device that never saw what was lost writes first, under the same numbers of the log.
    chain.shop.init("d.db", &chain.server.as_ref().unwrap().url);
    chain.sell("d.db", 0, 12);
    chain.shop.run(&["sync", "d.db"]).done();
    let all = ["a.db", "b.db", "c.db", "d.db"];
    chain.settle(&all);
    chain.assert_whole(&all, 3 + 30 + 12);
    assert_eq!(chain.product("d.db"), "by b, on a's");
    let (now, ancestors) = chain.lineage();
    assert_ne!(now, log);
    assert_eq!(ancestors.len(), 1);
    assert_eq!(ancestors[0].0, log);
    assert!(ancestors[0].1 <= 4, "{ancestors:?}");
}

#[test]
fn one_backup_restored_twice_is_healed_twice() {
    let mut chain = Chain::open();
    chain.backup("backup");
    chain.sell("a.db", 0, 5);
    chain.shop.apply("a.db", &single("products", "roll", "by a"));
    chain.sync_all();
    chain.sync_all();
    for round in 1..=2 {
        chain.lose_the_disk();
        chain.shop.run(&["restore", "backup", "--data", "server"]).done();
        chain.start(&[]);
        chain.sell("b.db", round * 10, round * 10 + 4);
        chain.shop.apply("b.db", &single("products", "roll", &format!("by b in round {round}")));
        chain.settle(&TILLS);
        chain.assert_whole(&TILLS, 5 + u64::from(round) * 4);
        assert_eq!(chain.product("c.db"), format!("by b in round {round}"));
    }
}

#[test]
fn an_empty_server_in_the_place_of_a_lost_one_gets_everything_back_that_devices_keep() {
    let mut chain = Chain::open();
    chain.sell("a.db", 0, 5);
    chain.sync_all();
    chain.shop.apply("a.db", &single("products", "roll", "by a"));
    chain.shop.run(&["sync", "a.db"]).done();
    chain.lose_the_disk();
    let token = chain.shop.token();
    chain.start(&[]);
    for till in TILLS {
        let ran = Command::new(env!("CARGO_BIN_EXE_gbsync"))
            .current_dir(chain.shop.folder.path())
            .args(["sync", till])
            .env("GBSYNC_TOKEN", &token)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }
    assert_eq!(chain.count("a.db", "SELECT count(*) FROM gbsync_group WHERE state = 'accepted'"), 7);
    assert_eq!(chain.count("a.db", "SELECT count(*) FROM gbsync_group WHERE state <> 'accepted'"), 0);
    assert_eq!(chain.product("c.db"), "by a", "what it was made on came back before it");
    assert_eq!(chain.count("c.db", "SELECT count(*) FROM gbsync_records WHERE entity = 'receipts'"), 5);
}

#[test]
fn what_backup_and_restore_refuse_says_what_to_do() {
    let chain = Chain::open();
    chain.backup("backup");
    let refused = |arguments: &[&str], code, word: &str| {
        let error = chain.shop.run(&[arguments, &["--json"]].concat()).json_error(code);
        assert_eq!(error["code"], word, "{error}");
    };
    refused(&["backup", "--data", "server", "backup"], 1, "backup");
    refused(&["backup", "--data", "nowhere", "b2"], 1, "folder_not_found");
    refused(&["backup", "--store", "postgres://db/shops", "b2"], 2, "backup_of_postgres");
    refused(&["restore", "backup", "--data", "server"], 1, "locked");
    refused(&["restore", "--in-place", "--data", "server"], 1, "locked");
    refused(&["restore", "nothing", "--data", "other"], 1, "backup");
    refused(&["restore", "backup", "--store", "postgres://db/shops"], 2, "restore_into_postgres");
    let told = chain.shop.run(&["restore", "backup", "--data", "other"]).done();
    assert!(told.contains("begins a new log"), "{told}");
}

#[test]
fn a_postgresql_database_that_was_put_back_is_marked_and_healed() {
    let cluster = Cluster::shared().unwrap_or_else(|error| panic!("{error}"));
    let store = cluster.store();
    let shop = Shop::new();
    let serve = |listen: &str| {
        let mut command = gbsync();
        command.args(["serve", "--listen", listen]).env("GBSYNC_STORE", &store);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Serving { child, url, stdout }
    };
    let server = serve("127.0.0.1:0");
    let (url, address) = (server.url.clone(), server.address().to_owned());
    for till in TILLS {
        let create = ["token", "create", "--store", &store, "--space", "shop"];
        let token = shop.run(&create).done().trim().to_owned();
        shop.run(&["init", till, "--server", &url, "--space", "shop", "--token", &token]).done();
    }
    let sync_all = || TILLS.iter().for_each(|till| drop(shop.run(&["sync", till]).done()));
    shop.apply("a.db", &receipt("a-1"));
    sync_all();
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'";
    let tables: Vec<String> = ask(&store, tables).unwrap().into_iter().map(|row| row[0].clone().unwrap()).collect();
    let kept = |table: &String| format!("CREATE TABLE kept_{table} AS TABLE {table};");
    ask(&store, &tables.iter().map(kept).collect::<String>()).unwrap();
    shop.apply("a.db", &receipt("a-2"));
    shop.apply("b.db", &single("products", "roll", "by b"));
    sync_all();
    sync_all();
    shop.apply("c.db", &single("products", "roll", "by c, on b's"));
    server.kill();
    let put_back = |table: &String| {
        format!(
            "DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept_{table}; DROP TABLE kept_{table};"
        )
    };
    ask(&store, &tables.iter().map(put_back).collect::<String>()).unwrap();
    let marked = shop.run(&["restore", "--in-place", "--store", &store, "--json"]).json();
    assert_eq!(marked["spaces"][0]["upTo"], 1);
    let server = serve(&address);
    let deadline = Instant::now() + PATIENCE;
    let pending = |till: &str| shop.run(&["status", till, "--json"]).json()["pending"].clone();
    while {
        sync_all();
        TILLS.iter().any(|till| pending(till) != json!(0))
    } {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(300));
    }
    sync_all();
    let of_server = shop.run(&["digest", "--store", &store, "--space", "shop"]).done();
    for till in TILLS {
        assert_eq!(shop.digest(till), of_server);
        let name = "SELECT json_extract(payload, '$.name') FROM gbsync_records WHERE entity = 'products'";
        assert_eq!(shop.value(till, name), "by c, on b's");
    }
    drop(server);
}
