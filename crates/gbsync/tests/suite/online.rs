//! The verbs around a server: serve, token, sync, and digest on both sides.

use crate::shop::{Ran, Serving, Shop, receipt, signal, single};
use expect_test::expect;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn serve_on_an_empty_folder_says_what_to_do_next_and_the_commands_work_when_pasted() {
    let shop = Shop::new();
    let server = shop.serve();
    let url = server.url.clone();
    let ran = {
        // The commands stand on standard error while the server runs; ask for them by a second one on another folder.
        let other = Serving::start(&shop.path("it's new"), "127.0.0.1:0");
        other.terminate()
    };
    assert_eq!(ran.code, Some(0));
    let (first, commands) = ran.stderr.split_once('\n').unwrap();
    assert_eq!(first, "the folder is new; to go on, paste this into another terminal:");
    assert!(commands.contains(r"it'\''s new"), "{commands}");

    let commands: String =
        commands.lines().take_while(|line| line.starts_with("  ")).map(|line| line.to_owned() + "\n").collect();
    let stopped = commands.split("--server ").nth(1).unwrap().split(' ').next().unwrap();
    let pasted = commands.replace(stopped, &url).replace(r"it'\''s new", "server");
    let output = std::process::Command::new("sh").args(["-ec", &pasted]).current_dir(shop.folder.path()).output().unwrap();
    let ran = Ran::of(output);
    assert_eq!(ran.code, Some(0), "{pasted}\n{}", ran.stderr);
    assert_eq!(shop.digest("till.db"), shop.server_digest());
}

#[test]
fn serve_ends_with_0_on_ctrl_c_and_sigterm_and_says_nothing_to_do_on_a_folder_in_use() {
    let shop = Shop::new();
    shop.serve().terminate();
    let server = shop.serve();
    signal(&server.child, "INT");
    let ran = server.terminate();
    assert_eq!((ran.code, ran.stderr.contains("paste")), (Some(0), false), "{}", ran.stderr);
}

#[test]
fn serve_under_json_prints_its_address_as_an_object() {
    let shop = Shop::new();
    let mut command = shop.command(&["serve", "--data", "server", "--listen", "127.0.0.1:0", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address: Value = serde_json::from_str(&line).unwrap();
    assert!(address["listening"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn serve_refuses_a_taken_address_and_a_folder_that_another_server_holds() {
    let shop = Shop::new();
    let server = shop.serve();
    let taken = shop.run(&["serve", "--data", "other", "--listen", server.address(), "--json"]).json_error(1);
    assert_eq!(taken["code"], "address_in_use");
    let held = shop.run(&["serve", "--data", "server", "--listen", "127.0.0.1:0", "--json"]).json_error(1);
    assert_eq!(held["code"], "locked");
}

#[test]
fn a_token_is_printed_alone_listed_without_its_secret_and_refused_once_revoked() {
    let shop = Shop::new();
    let server = shop.serve();
    let create = ["token", "create", "--data", "server", "--space", "shop", "--role", "cashier", "--role", "manager"];
    let created = shop.run(&[&create[..], &["--json"]].concat()).json();
    let (id, token) = (created["id"].as_str().unwrap(), created["token"].as_str().unwrap());
    assert_eq!(created, json!({"token": token, "id": id, "space": "shop"}));
    let alone = shop.run(&create).done();
    assert_eq!(alone.lines().count(), 1);

    let list = shop.run(&["token", "list", "--data", "server", "--json"]).json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!([&list[0]["id"], &list[0]["roles"][1]], [id, "manager"]);
    assert!(list[0]["revokedAt"].is_null());
    assert!(!list.to_string().contains(token));
    let text = shop.run(&["token", "list", "--data", "server"]).done();
    assert!(text.starts_with("ID") && text.contains("cashier,manager") && !text.contains(token), "{text}");

    shop.run(&["init", "till.db", "--server", &server.url, "--space", "shop", "--token", token]).done();
    shop.run(&["sync", "till.db"]).done();
    shop.run(&["token", "revoke", "--data", "server", id]).done();
    shop.apply("till.db", &receipt("r-1"));
    let error = shop.run(&["sync", "till.db", "--json"]).json_error(1);
    assert_eq!(error["code"], "sign_in");
    assert_eq!(
        shop.run(&["token", "revoke", "--data", "server", "nobody", "--json"]).json_error(1)["code"],
        "token_not_found"
    );
    assert_eq!(shop.run(&["token", "list", "--data", "nowhere", "--json"]).json_error(1)["code"], "folder_not_found");
    assert!(!shop.path("nowhere").exists());

    // The environment beats the file, and what waited goes out.
    let synced = shop.command(&["sync", "till.db", "--json"]).env("GBSYNC_TOKEN", alone.trim()).output().unwrap();
    assert_eq!(Ran::of(synced).json()["accepted"], 1);
}

#[test]
fn a_token_file_is_read_at_each_sync() {
    let shop = Shop::new();
    let server = shop.serve();
    shop.write("secret", "not yet");
    shop.run(&["init", "till.db", "--server", &server.url, "--space", "shop", "--token-file", "secret"]).done();
    assert_eq!(shop.run(&["sync", "till.db"]).code, Some(1));
    shop.write("secret", &(shop.token() + "\n"));
    shop.run(&["sync", "till.db"]).done();
    let missing = ["init", "x.db", "--server", &server.url, "--space", "shop", "--token-file", "nowhere", "--json"];
    assert_eq!(shop.run(&missing).json_error(1)["code"], "token_file");
}

#[test]
fn sync_carries_groups_from_one_device_to_another_and_says_what_it_did() {
    let shop = Shop::new();
    let server = shop.serve();
    shop.init("a.db", &server.url);
    shop.init("b.db", &server.url);
    shop.apply("a.db", &(receipt("r-1") + &single("notes", "n-1", "text")));
    expect![[r#"
        2 groups pushed, 2 accepted, 0 parked, 2 groups (4 records) pulled; cursor 2
    "#]]
    .assert_eq(&shop.run(&["sync", "a.db"]).done());
    let report = shop.run(&["sync", "b.db", "--json"]).json();
    let requests = report["requests"].as_u64().unwrap();
    assert_eq!(
        report,
        json!({"pushed": 0, "accepted": 0, "parked": [], "waiting": 0, "pulledGroups": 2, "pulledRecords": 4, "cursor": 2,
               "requests": requests})
    );
    assert_eq!(shop.digest("a.db"), shop.digest("b.db"));
    assert_eq!(shop.digest("a.db"), shop.server_digest());
    let server_json = shop.run(&["digest", "--data", "server", "--space", "shop", "--json"]).json();
    assert_eq!(server_json, shop.run(&["digest", "b.db", "--json"]).json());
}

#[test]
fn trace_prints_each_batch_as_it_is_sent() {
    let shop = Shop::new();
    let server = shop.serve();
    shop.init("a.db", &server.url);
    shop.apply("a.db", &(receipt("r-1") + &single("products", "p-1", "Roll") + &single("customers", "c-1", "Ada")));
    let trace = shop.run(&["sync", "a.db", "--batch-size", "2", "--trace"]).done();
    let uuid = trace.split("receipt-create:r-1:").nth(1).unwrap().split('\n').next().unwrap();
    assert_eq!(uuid.len(), 36);
    expect![[r#"
        Batch 1 (3 records)
        - receipts:r-1 action=upsert group=receipt-create / receipt-create:r-1:<uuid>
        - payments:p-r-1 action=upsert group=receipt-create / receipt-create:r-1:<uuid>
        - entries:e-r-1 action=upsert group=receipt-create / receipt-create:r-1:<uuid>

        Batch 2 (2 records)
        - products:p-1 action=upsert group=no-group
        - customers:c-1 action=upsert group=no-group
        3 groups pushed, 3 accepted, 0 parked, 3 groups (5 records) pulled; cursor 3
    "#]]
    .assert_eq(&trace.replace(uuid, "<uuid>"));
}

#[test]
fn a_refused_group_is_reported_whole_and_exit_code_3_is_asked_for() {
    let shop = Shop::new();
    let server = shop.serve();
    shop.init("a.db", &server.url);
    shop.init("b.db", &server.url);
    shop.apply("a.db", &receipt("r-1"));
    shop.apply("b.db", &receipt("r-1"));
    shop.run(&["sync", "a.db"]).done();
    let ran = shop.run(&["sync", "b.db"]);
    expect![[r#"
        error[conflict]: receipt-create r-1 refused whole (3 records)
          receipts:r-1 upsert: exists; the server holds version 1: {"total":"1.00"}
          payments:p-r-1 upsert: exists; the server holds version 1: {"amount":"1.00","receiptId":"r-1"}
          entries:e-r-1 upsert: exists; the server holds version 1: {"receiptId":"r-1"}
          help: gbsync outbox b.db
    "#]]
    .assert_eq(&ran.stderr);
    assert_eq!(ran.done(), "1 group pushed, 0 accepted, 1 parked, 1 group (3 records) pulled; cursor 1\n");
    assert_eq!(shop.run(&["sync", "b.db", "--fail-on-parked"]).code, Some(3));
    let outbox = shop.run(&["outbox", "b.db", "--json"]).json();
    assert_eq!([&outbox[0]["state"], &outbox[0]["code"]], ["parked", "conflict"]);
    assert_eq!(shop.digest("a.db"), shop.digest("b.db"));
}

#[test]
fn a_server_that_is_not_there_ends_with_4_and_everything_is_kept() {
    let shop = Shop::new();
    let server = shop.serve();
    shop.init("a.db", &server.url);
    shop.apply("a.db", &receipt("r-1"));
    let address = server.address().to_owned();
    server.kill();
    let error = shop.run(&["sync", "a.db", "--json"]).json_error(4);
    assert_eq!(error["code"], "not_reached");
    assert_eq!(shop.run(&["status", "a.db", "--json"]).json()["pending"], 1);
    let _server = Serving::start(&shop.data(), &address);
    assert_eq!(shop.run(&["sync", "a.db", "--json"]).json()["accepted"], 1, "one shot ignores the backoff");
}

#[test]
fn watch_tells_of_what_happens_survives_the_server_and_ends_with_0() {
    let shop = Shop::new();
    let server = shop.serve();
    shop.init("a.db", &server.url);
    shop.init("b.db", &server.url);
    let mut command = shop.command(&["sync", "b.db", "--watch", "--json"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut pulled = move || -> Value {
        loop {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if line["pulledGroups"].as_u64() > Some(0) {
                return line;
            }
        }
    };
    shop.apply("a.db", &receipt("r-1"));
    shop.run(&["sync", "a.db"]).done();
    assert_eq!(pulled()["cursor"], 1);
    let address = server.address().to_owned();
    server.kill();
    let _server = Serving::start(&shop.data(), &address);
    shop.apply("a.db", &receipt("r-2"));
    shop.run(&["sync", "a.db"]).done();
    assert_eq!(pulled()["cursor"], 2);
    signal(&watch, "TERM");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
