//! The verbs that need no server: init, apply, query, status, outbox, digest.

use crate::shop::{Shop, receipt, single};
use expect_test::expect;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

#[test]
fn init_makes_a_device_without_a_server_and_may_be_repeated() {
    let shop = Shop::new();
    let init = ["init", "till.db", "--server", "http://127.0.0.1:9/", "--space", "shop"];
    let ran = shop.run(&init);
    assert!(ran.stdout.is_empty());
    expect![[r#"
        till.db is now a device of space shop on http://127.0.0.1:9
        no token yet: set GBSYNC_TOKEN at sync, or run this again with --token or --token-file
    "#]]
    .assert_eq(&ran.stderr);
    ran.done();
    let again = shop.run(&[&init[..], &["--token", "T"]].concat());
    assert_eq!(again.stderr, "till.db already is a device of space shop on http://127.0.0.1:9; its token is renewed\n");
    again.done();
    let error = shop.run(&["init", "till.db", "--server", "http://127.0.0.1:9", "--space", "other", "--json"]).json_error(1);
    assert_eq!(error["code"], "already_initialized");
    assert_eq!(error["message"], "till.db already belongs to space shop on http://127.0.0.1:9");
    let answer = shop.run(&["init", "new.db", "--server", "http://127.0.0.1:9", "--space", "shop", "--json"]).json();
    assert_eq!(answer, json!({"file": "new.db", "server": "http://127.0.0.1:9", "space": "shop", "isNew": true}));
}

#[test]
fn init_takes_the_apps_own_database_and_leaves_its_tables_alone() {
    let shop = Shop::new();
    let app = rusqlite::Connection::open(shop.path("app.db")).unwrap();
    app.execute_batch("CREATE TABLE setting(name TEXT, value TEXT); INSERT INTO setting VALUES ('theme', 'dark')").unwrap();
    drop(app);
    shop.init_offline("app.db");
    assert_eq!(shop.value("app.db", "SELECT value FROM setting"), "dark");
}

#[test]
fn apply_stores_each_operation_as_a_group_and_each_single_change_as_one() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    shop.write("ops.ndjson", &format!("{}\n   \n{}", receipt("r-1"), single("notes", "n-1", "text").trim_end()));
    assert_eq!(
        shop.run(&["apply", "till.db", "ops.ndjson"]).done(),
        "ops.ndjson: 2 lines applied (1 operation, 4 changes)\n"
    );
    let sql = "SELECT device_seq, coalesce(type, 'none') AS type, root, state FROM gbsync_group ORDER BY device_seq";
    expect![[r#"
        device_seq  type            root  state
        ----------  --------------  ----  ------
        1           receipt-create  r-1   sealed
        2           none            NULL  sealed
    "#]]
    .assert_eq(&shop.run(&["query", "till.db", sql]).done());
}

#[test]
fn apply_prints_a_line_of_json_for_every_durable_line_then_a_summary() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    let given = r#"{"syncGroupId":"mine","changes":[{"entity":"notes","id":"g","action":"upsert","payload":{}}]}"#;
    let input = format!("{}\n{given}\n{given}\n", receipt("r-1"));
    let ran = shop.run_with_input(&["apply", "till.db", "-", "--json"], &input).done();
    let lines: Vec<Value> = ran.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["line"], 1);
    assert_eq!(lines[0]["groups"][0]["deviceSeq"], 1);
    assert!(lines[0]["groups"][0]["syncGroupId"].as_str().unwrap().starts_with("receipt-create:r-1:"));
    assert_eq!(lines[1], json!({"line": 3, "groups": [{"syncGroupId": "mine", "deviceSeq": 2}]}));
    assert_eq!(lines[2], json!({"line": 4, "groups": [], "skipped": true}));
    assert_eq!(lines[3], json!({"lines": 3, "operations": 1, "changes": 4, "skipped": 1}));
}

#[test]
fn apply_acknowledges_a_line_of_a_stream_before_the_next_one_arrives() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    let mut command = shop.command(&["apply", "till.db", "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for number in 1..=3 {
        input.write_all(single("notes", &number.to_string(), "text").as_bytes()).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["line"], number);
        assert_eq!(shop.value("till.db", "SELECT count(*) FROM gbsync_records"), number);
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn query_answers_values_of_every_kind_as_text_and_as_json() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    let sql = "SELECT 1 AS number, 0.5 AS real, 'a' || char(10) || 'ä' AS text, x'00ff' AS blob, NULL AS none, 2 AS number";
    expect![[r#"
        number  real  text  blob  none  number
        ------  ----  ----  ----  ----  ------
        1       0.5   a\nä  00ff  NULL  2
    "#]]
    .assert_eq(&shop.run(&["query", "till.db", sql]).done());
    expect![[r#"
        [{"number":1,"real":0.5,"text":"a\nä","blob":"00ff","none":null,"number:6":2}
        ]
    "#]]
    .assert_eq(&shop.run(&["query", "till.db", sql, "--json"]).done());
    assert_eq!(shop.run(&["query", "till.db", "SELECT 1 WHERE 0", "--json"]).json(), json!([]));
}

#[test]
fn query_only_reads_and_repeats_what_sqlite_says() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    for sql in ["DELETE FROM gbsync_base", "CREATE TABLE x(y)", "PRAGMA user_version = 7"] {
        assert_eq!(shop.run(&["query", "till.db", sql, "--json"]).json_error(1)["code"], "query", "{sql}");
    }
    let ran = shop.run(&["query", "till.db", "SELECT * FROM nowhere"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "error[query]: no such table: nowhere\n"));
    assert_eq!(shop.run(&["query", "till.db", "  "]).code, Some(1));
    assert_eq!(shop.value("till.db", "SELECT user_version FROM pragma_user_version"), 0);
}

#[test]
fn status_and_outbox_tell_of_waiting_groups() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    assert_eq!(shop.run(&["outbox", "till.db", "--json"]).json(), json!([]));
    shop.apply("till.db", &(receipt("r-1") + &single("notes", "n-1", "text")));
    let status = shop.run(&["status", "till.db", "--json"]).json();
    let fields: Vec<&String> = status.as_object().unwrap().keys().collect();
    expect![[r#"["device", "epoch", "server", "space", "cursor", "head", "sealedThrough", "pending", "inFlight", "accepted", "parked", "waitingForSignIn", "oldestPendingAt", "nextAttemptAt", "lastError", "isStopped"]"#]]
        .assert_eq(&format!("{fields:?}"));
    assert_eq!([&status["cursor"], &status["sealedThrough"], &status["pending"], &status["parked"]], [0, 2, 2, 0]);
    assert!(shop.run(&["status", "till.db"]).done().contains("pending    2 (oldest 20"));

    let outbox = shop.run(&["outbox", "till.db", "--json"]).json();
    assert_eq!(outbox[0]["syncGroupType"], "receipt-create");
    assert_eq!([&outbox[0]["records"], &outbox[0]["deviceSeq"], &outbox[1]["deviceSeq"]], [3, 1, 2]);
    assert_eq!([&outbox[0]["state"], &outbox[1]["state"]], ["sealed", "sealed"]);
    let text = shop.run(&["outbox", "till.db"]).done();
    assert!(text.starts_with("NO  STATE   TYPE            ROOT  RECORDS  AGE"), "{text}");
    assert!(text.contains("1   sealed  receipt-create  r-1   3"), "{text}");
    let cut = shop.run(&["outbox", "till.db", "--limit", "1"]);
    assert_eq!(cut.stderr, "only the first 1 are listed; --limit N lists more\n");
    assert_eq!(cut.done().lines().count(), 2);
}

#[test]
fn digest_of_a_device_without_rows_is_that_of_an_empty_space() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    shop.apply("till.db", &receipt("r-1"));
    expect![[r#"
        cursor=0 records=0 sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    "#]]
    .assert_eq(&shop.digest("till.db"));
    let digest = shop.run(&["digest", "till.db", "--json"]).json();
    assert_eq!([&digest["cursor"], &digest["records"]], [0, 0]);
    assert!(digest["sha256"].as_str().unwrap().starts_with("e3b0c442"));
}
