//! What the command line answers to bad files and bad moments: one clear sentence, the right exit code, nothing changed.

use crate::shop::{Ran, Shop, gbsync, receipt, single};
use expect_test::expect;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn seven_lines(seventh: &str) -> String {
    let mut lines: Vec<String> = (1..=8).map(|n| single("notes", &n.to_string(), "text")).collect();
    lines[6] = format!("{seventh}\n");
    lines.concat()
}

#[test]
fn a_bad_line_7_stops_with_file_line_and_reason_and_the_lines_before_it_are_stored() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    let half = r#"{"type":"t","root":"r","changes":[{"entity":"notes","id":"x","action":"upsert","payload":{}},{"entity":"notes","id":"y","action":"upsert"}]}"#;
    shop.write("ops.ndjson", &seven_lines(half));
    let ran = shop.run(&["apply", "till.db", "ops.ndjson"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    expect![[r#"
        error[malformed]: ops.ndjson:7: change 1: is required (at /changes/1/payload)
          the lines before it are stored (6 in this run), nothing of it is
          help: mend line 7, then go on with: gbsync apply till.db ops.ndjson --from-line 7
    "#]]
    .assert_eq(&ran.stderr);
    let notes = "SELECT count(*) FROM gbsync_records WHERE entity = 'notes'";
    assert_eq!(shop.value("till.db", notes), 6);

    shop.write("ops.ndjson", &seven_lines(single("notes", "7", "mended").trim()));
    shop.run(&["apply", "till.db", "ops.ndjson", "--from-line", "7"]).done();
    assert_eq!(shop.value("till.db", notes), 8);
}

#[test]
fn every_kind_of_bad_line_is_named_and_leaves_nothing() {
    let one = |text: &str| format!(r#"{{"changes":[{{"entity":"notes","id":"x","action":"upsert","payload":{text}}}]}}"#);
    let bad = [
        ("not json", "null".to_owned()),
        ("an array", "[]".to_owned()),
        ("cut off", r#"{"changes":["#.to_owned()),
        ("no change", r#"{"changes":[]}"#.to_owned()),
        ("unknown action", r#"{"changes":[{"entity":"notes","id":"x","action":"put","payload":{}}]}"#.to_owned()),
        ("empty id", r#"{"changes":[{"entity":"notes","id":"","action":"delete"}]}"#.to_owned()),
        ("no root", r#"{"type":"t","changes":[{"entity":"notes","id":"x","action":"upsert","payload":{}}]}"#.to_owned()),
        ("payload no object", one("[1]")),
        ("duplicate key", one(r#"{"a":1,"\u0061":2}"#)),
        ("infinite", one(r#"{"a":1e999}"#)),
        ("beyond i64", one(r#"{"a":9223372036854775808}"#)),
        ("NUL", one(r#"{"a":"\u0000"}"#)),
        ("lone surrogate", one(r#"{"a":"\ud800"}"#)),
        ("too deep", one(&(r#"{"a":"#.repeat(65) + "1" + &"}".repeat(65)))),
        ("too large", one(&format!(r#"{{"a":"{}"}}"#, "x".repeat(300_000)))),
        (
            "patch of nothing",
            r#"{"changes":[{"entity":"notes","id":"none","action":"patch","payload":{"a":1}}]}"#.to_owned(),
        ),
        ("BOM", format!("\u{feff}{}", one("{}"))),
    ];
    let shop = Shop::new();
    shop.init_offline("till.db");
    for (what, line) in bad {
        let ran = shop.run_with_input(&["apply", "till.db", "-"], &format!("\n{line}\n"));
        assert_eq!(ran.code, Some(1), "{what}: {ran:?}");
        assert!(ran.stderr.contains("standard input:2: "), "{what}: {}", ran.stderr);
    }
    assert_eq!(shop.run(&["status", "till.db", "--json"]).json()["sealedThrough"], 0);
    let mut latin1 = one("{}").into_bytes();
    latin1.insert(13, 0xe4);
    std::fs::write(shop.path("latin1.ndjson"), latin1).unwrap();
    let ran = shop.run(&["apply", "till.db", "latin1.ndjson"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("latin1.ndjson:1: byte 14 of the line is not UTF-8"), "{ran:?}");
    let missing = shop.run(&["apply", "till.db", "nowhere.ndjson", "--json"]).json_error(1);
    assert_eq!(missing["code"], "operations_file");
}

#[test]
fn numbers_are_kept_as_written_on_both_ends() {
    let shop = Shop::new();
    let server = shop.serve();
    shop.init("a.db", &server.url);
    shop.init("b.db", &server.url);
    let payload = r#"{"a":9007199254740993,"b":120.0,"c":1e2}"#;
    shop.apply("a.db", &format!(r#"{{"changes":[{{"entity":"n","id":"1","action":"upsert","payload":{payload}}}]}}"#));
    for device in ["a.db", "b.db"] {
        shop.run(&["sync", device]).done();
        assert_eq!(shop.value(device, "SELECT payload FROM gbsync_base"), payload);
    }
}

#[test]
fn a_file_that_is_not_sqlite_is_refused_untouched_by_every_verb() {
    let shop = Shop::new();
    shop.write("letter.txt", &"Dear reader, this is a letter and no database.\n".repeat(200));
    shop.write("ops.ndjson", &receipt("r-1"));
    let before = bytes(&shop.path("letter.txt"));
    for arguments in [
        &["init", "letter.txt", "--server", "http://127.0.0.1:9", "--space", "shop"][..],
        &["apply", "letter.txt", "ops.ndjson"],
        &["sync", "letter.txt"],
        &["query", "letter.txt", "SELECT 1"],
        &["status", "letter.txt"],
        &["outbox", "letter.txt"],
        &["digest", "letter.txt"],
    ] {
        let ran = shop.run(arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}");
        assert_eq!(
            ran.stderr, "error[not_sqlite]: letter.txt is not an SQLite database; name another file\n",
            "{arguments:?}"
        );
    }
    assert_eq!(bytes(&shop.path("letter.txt")), before);
    let beside = std::fs::read_dir(shop.folder.path()).unwrap().count();
    assert_eq!(beside, 2, "nothing was left beside the file");
}

#[test]
fn an_sqlite_file_without_gbsync_tables_says_how_to_set_it_up() {
    let shop = Shop::new();
    rusqlite::Connection::open(shop.path("app.db")).unwrap().execute_batch("CREATE TABLE x(y)").unwrap();
    let before = bytes(&shop.path("app.db"));
    let error = shop.run(&["sync", "app.db", "--json"]).json_error(1);
    assert_eq!(error["code"], "not_initialized");
    assert_eq!(bytes(&shop.path("app.db")), before);
}

#[test]
fn a_file_of_a_newer_version_is_refused_untouched() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    let connection = rusqlite::Connection::open(shop.path("till.db")).unwrap();
    let changed = connection.execute("UPDATE gbsync_meta SET value = '99' WHERE key = 'format'", []).unwrap();
    assert_eq!(changed, 1);
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let before = bytes(&shop.path("till.db"));
    shop.write("ops.ndjson", &receipt("r-1"));
    for arguments in
        [&["apply", "till.db", "ops.ndjson", "--json"][..], &["sync", "till.db", "--json"], &["status", "till.db", "--json"]]
    {
        assert_eq!(shop.run(arguments).json_error(1)["code"], "newer_format", "{arguments:?}");
    }
    assert_eq!(bytes(&shop.path("till.db")), before);
}

#[test]
fn a_file_that_may_not_be_written_is_refused_untouched() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    shop.write("ops.ndjson", &receipt("r-1"));
    let before = bytes(&shop.path("till.db"));
    let allow = |name: &str, mode| std::fs::set_permissions(shop.path(name), PermissionsExt::from_mode(mode)).unwrap();
    allow("ops.ndjson", 0o444);
    allow("till.db", 0o444);
    allow("", 0o555);
    let is_root = std::fs::File::options().write(true).open(shop.path("till.db")).is_ok();
    let mut command = gbsync();
    command.args(["apply", "till.db", "ops.ndjson"]).current_dir(shop.folder.path());
    if is_root {
        // Permissions bind everybody but root: ask as nobody, through a copy of the binary that nobody may run.
        allow("", 0o755);
        std::fs::copy(env!("CARGO_BIN_EXE_gbsync"), shop.path("gbsync")).unwrap();
        command = std::process::Command::new(shop.path("gbsync"));
        command.args(["apply", "till.db", "ops.ndjson"]).current_dir(shop.folder.path()).uid(65_534).gid(65_534);
    }
    let ran = Ran::of(command.output().unwrap());
    allow("", 0o755);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with("error[read_only]: till.db cannot be written"), "{}", ran.stderr);
    assert_eq!(bytes(&shop.path("till.db")), before);
}

#[test]
fn two_syncs_of_one_database_at_once_take_effect_once() {
    let shop = Shop::new();
    let server = shop.serve();
    shop.init("a.db", &server.url);
    let lines: String = (0..200).map(|n| receipt(&format!("r-{n}"))).collect();
    let stock = r#"{"changes":[{"entity":"stock","id":"roll","action":"upsert","payload":{"quantity":200}}]}"#;
    let sale = r#"{"changes":[{"entity":"stock","id":"roll","action":"increment","payload":{"quantity":-1}}]}"#;
    shop.apply("a.db", &format!("{lines}{stock}\n{}", format!("{sale}\n").repeat(200)));
    let sync = || {
        let mut command = shop.command(&["sync", "a.db", "--batch-records", "3"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [sync(), sync()].map(|child| Ran::of(child.wait_with_output().unwrap()));
    for ran in &both {
        assert!(ran.code == Some(0) || ran.stderr.contains("error[busy]: process "), "{ran:?}");
    }
    assert!(both.iter().any(|ran| ran.code == Some(0)), "{both:?}");
    assert_eq!(shop.value("a.db", "SELECT payload ->> 'quantity' FROM gbsync_base WHERE entity = 'stock'"), 0);
    assert_eq!(shop.run(&["status", "a.db", "--json"]).json()["cursor"], 401);
    assert_eq!(shop.digest("a.db"), shop.server_digest());
}

#[test]
fn a_space_or_folder_that_is_not_there_is_named() {
    let shop = Shop::new();
    shop.token();
    let digest = |data: &str, space: &str| shop.run(&["digest", "--data", data, "--space", space, "--json"]).json_error(1);
    assert_eq!(digest("server", "other")["code"], "no_space");
    assert_eq!(digest("nowhere", "shop")["code"], "no_store");
    assert!(!shop.path("nowhere").exists());
    let foreign = shop.token();
    let server = shop.serve();
    shop.run(&["init", "till.db", "--server", &server.url, "--space", "other", "--token", &foreign]).done();
    assert_eq!(shop.run(&["sync", "till.db", "--json"]).json_error(1)["code"], "sign_in");
}
