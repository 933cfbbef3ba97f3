//! `sqlite3`, the shell that Debian ships, writes operations with no binding at all.

use super::{converged, init, serve, sync, with_shop_schema};
use crate::shop::{Ran, Shop};
use std::process::Command;

const SALE: &str = "PRAGMA foreign_keys=ON; BEGIN; INSERT INTO gbsync_operation(type,root) VALUES('receipt-create','r9'); INSERT INTO receipts(id,total) VALUES('r9',12.5); INSERT INTO payments(id,receiptId,amount) VALUES('p9','r9',12.5); DELETE FROM gbsync_operation; COMMIT;";

/// Runs the shell on a device's file.
fn sqlite3(shop: &Shop, file: &str, sql: &str) -> Ran {
    let output = Command::new("sqlite3").current_dir(shop.folder.path()).args(["-batch", "-bail", file, sql]).output();
    Ran::of(output.expect("this test runs SQLite's own shell, which is not installed: apt-get install sqlite3"))
}

/// The shell's complaint, which must be there.
#[track_caller]
fn complaint(shop: &Shop, file: &str, sql: &str) -> String {
    let ran = sqlite3(shop, file, sql);
    assert_ne!(ran.code, Some(0), "{}", ran.stdout);
    ran.stderr
}

/// A device that never heard of a server: its tables come from the schema.
fn till() -> Shop {
    let shop = Shop::new();
    let schema = with_shop_schema(&shop);
    init(&shop, "a.db", "http://127.0.0.1:9", schema);
    shop
}

#[track_caller]
fn nothing_was_written(shop: &Shop, file: &str) {
    assert_eq!(shop.run(&["outbox", file, "--json"]).json(), serde_json::json!([]));
    assert_eq!(shop.run(&["status", file, "--json"]).json()["sealedThrough"], 0);
    let rows = "SELECT (SELECT count(*) FROM receipts) + (SELECT count(*) FROM payments)";
    assert_eq!(shop.value(file, rows), 0);
}

#[test]
fn a_sale_in_the_sqlite3_shell_makes_one_group_of_two_changes() {
    let shop = till();
    assert_eq!(sqlite3(&shop, "a.db", SALE).done(), "");
    let outbox = shop.run(&["outbox", "a.db", "--json"]).json();
    assert_eq!(outbox.as_array().unwrap().len(), 1, "{outbox}");
    assert_eq!([&outbox[0]["syncGroupType"], &outbox[0]["root"]], ["receipt-create", "r9"]);
    assert_eq!([&outbox[0]["records"], &outbox[0]["deviceSeq"]], [2, 1]);
    let total = "SELECT total || ' ' || total_minor || ' ' || typeof(total) FROM receipts WHERE id = 'r9'";
    assert_eq!(sqlite3(&shop, "a.db", total).done(), "12.50 1250 text\n");
}

#[test]
fn what_the_shell_wrote_arrives_on_another_device_in_one_position_of_the_log() {
    let shop = Shop::new();
    let schema = with_shop_schema(&shop);
    let server = serve(&shop, schema);
    init(&shop, "a.db", &server.url, schema);
    init(&shop, "b.db", &server.url, schema);
    sqlite3(&shop, "a.db", SALE).done();
    sync(&shop, &["a.db", "b.db"]);
    let places = "SELECT count(*) || ' in ' || count(DISTINCT version) FROM gbsync_records";
    assert_eq!(sqlite3(&shop, "b.db", places).done(), "2 in 1\n");
    assert_eq!(sqlite3(&shop, "b.db", "SELECT no LIKE '______-000001' FROM receipts").done(), "1\n");
    converged(&shop, ["a.db", "b.db"]);
}

#[test]
fn a_sale_that_is_rolled_back_makes_no_group() {
    let shop = till();
    sqlite3(&shop, "a.db", &SALE.replace("COMMIT;", "ROLLBACK;")).done();
    nothing_was_written(&shop, "a.db");
}

#[test]
fn without_the_pragma_the_first_insert_says_what_to_do() {
    let shop = till();
    let said = complaint(&shop, "a.db", &SALE.replace("PRAGMA foreign_keys=ON;", "PRAGMA foreign_keys=OFF;"));
    assert!(said.contains("run PRAGMA foreign_keys=ON before BEGIN"), "{said}");
    nothing_was_written(&shop, "a.db");
}

#[test]
fn a_commit_with_the_bracket_open_fails_and_nothing_is_written() {
    let shop = till();
    let said = complaint(&shop, "a.db", &SALE.replace("DELETE FROM gbsync_operation;", ""));
    assert!(said.contains("FOREIGN KEY constraint failed"), "{said}");
    nothing_was_written(&shop, "a.db");
}
