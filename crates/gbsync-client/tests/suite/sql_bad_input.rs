//! What can be no change is refused where it is written, with a sentence, and nothing of it stays.

use crate::common::app::{app, ask, device, refused, rows, shop};
use gbsync_client::GroupFilter;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Every statement that must fail, and words of what it must say.
const REFUSED: &[(&str, &str)] = &[
    ("INSERT INTO receipts(id, total) VALUES (NULL, 1)", "needs an id"),
    ("INSERT INTO receipts(total) VALUES (1)", "needs an id"),
    ("INSERT INTO receipts(id, total) VALUES ('', 1)", "needs an id"),
    ("INSERT INTO receipts(id, total) VALUES ('a' || char(10), 1)", "control characters"),
    ("INSERT INTO receipts(id, total) VALUES ('a' || char(0) || 'b', 1)", "control characters"),
    ("INSERT INTO receipts(id, total) VALUES (printf('%257d', 1), 1)", "needs an id"),
    ("INSERT OR IGNORE INTO receipts(id, total) VALUES (NULL, 1)", "needs an id"),
    ("INSERT OR REPLACE INTO receipts(id, total) VALUES (NULL, 1)", "needs an id"),
    ("INSERT INTO receipts(id) VALUES ('x')", "receipts.total is required"),
    ("UPDATE receipts SET total = NULL", "receipts.total is required"),
    ("UPDATE receipts SET id = 'other' WHERE id = 'r1'", "id of a row of receipts cannot change"),
    ("UPDATE receipts SET id = NULL WHERE id = 'r1'", "id of a row of receipts cannot change"),
    ("UPDATE receipts SET total = '5.125'", "decimal with at most 2 digits"),
    ("INSERT INTO receipts(id, total) VALUES ('x', 'abc')", "decimal with at most 2 digits"),
    ("INSERT INTO receipts(id, total) VALUES ('x', x'3130')", "decimal with at most 2 digits"),
    ("UPDATE receipts SET total = 9e999", "decimal with at most 2 digits"),
    ("UPDATE receipts SET total_minor = 5", "total_minor"),
    ("UPDATE receipts SET paid = 2", "must be 0 or 1"),
    ("UPDATE receipts SET paid = 'yes'", "cannot store TEXT value"),
    ("UPDATE receipts SET day = '25.11.2026'", "must be a date"),
    ("UPDATE receipts SET at = '2026-11-25 10:00:00'", "must be a time in UTC"),
    ("UPDATE receipts SET weight = -9e999", "must be a finite number"),
    ("UPDATE receipts SET note = 'a' || char(0)", "holds a NUL"),
    ("UPDATE receipts SET no = 'taken' WHERE id = 'r1'", "another row of receipts has this no"),
    ("INSERT OR REPLACE INTO receipts(id, total, no) VALUES ('x', 1, 'taken')", "another row of receipts has this no"),
    ("INSERT INTO stock(id, quantity) VALUES ('x', 'many')", "cannot store TEXT value"),
    ("UPDATE stock SET quantity = NULL", "is a counter and cannot become NULL"),
    ("UPDATE stock SET quantity = -9223372036854775807", "more than an integer can hold"),
    ("INSERT INTO ledger(id, amount) VALUES ('x', 1)", "changes only inside an operation"),
    ("INSERT INTO gbsync_operation(type, root) VALUES ('', 'x')", "needs a type"),
    ("INSERT INTO gbsync_operation(type, root) VALUES ('a' || char(7), 'x')", "needs a type"),
    ("INSERT INTO gbsync_operation(type, root, open) VALUES ('a', 'x', 0)", "needs a type"),
    ("INSERT INTO gbsync_operation(type, root) VALUES ('a', 'x'), ('b', 'y')", "already open"),
    ("INSERT INTO gbsync_operation(type, root) VALUES ('a', 'x')", "FOREIGN KEY constraint failed"),
];

fn till() -> (tempfile::TempDir, gbsync_client::Client, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    client.upsert("receipts", "r1", r#"{"total":"1.00"}"#).unwrap();
    client.upsert("receipts", "r2", r#"{"total":"1.00","no":"taken"}"#).unwrap();
    client.upsert("stock", "s1", r#"{"quantity":9223372036854775807}"#).unwrap();
    let app = app(&path);
    (folder, client, app)
}

#[test]
fn what_can_be_no_change_is_refused_with_a_sentence_and_nothing_is_half_written() {
    let (_folder, client, app) = till();
    let all = "SELECT * FROM receipts UNION ALL SELECT id, quantity, name, 0, 0, 0, 0, 0, 0, 0, 0 FROM stock";
    let before = rows(&app, all);
    for recursive in ["ON", "OFF"] {
        for trusted in ["ON", "OFF"] {
            app.execute_batch(&format!("PRAGMA recursive_triggers = {recursive}; PRAGMA trusted_schema = {trusted}"))
                .unwrap();
            for (sql, words) in REFUSED {
                let message = refused(&app, sql);
                assert!(message.contains(words), "{sql}: {message}");
                assert_eq!(rows(&app, all), before, "{sql}");
            }
        }
    }
    assert_eq!(ask::<i64>(&app, "SELECT count(*) FROM gbsync_capture"), 0);
    assert_eq!(client.groups(GroupFilter::All, 99).unwrap().len(), 3);
}

#[test]
fn a_second_bracket_a_changed_one_and_a_commit_with_one_open_fail() {
    let (_folder, client, app) = till();
    app.execute_batch("BEGIN; INSERT INTO gbsync_operation(type, root) VALUES ('a', 'x')").unwrap();
    assert!(refused(&app, "INSERT INTO gbsync_operation(type, root) VALUES ('b', 'y')").contains("already open"));
    assert!(refused(&app, "INSERT OR REPLACE INTO gbsync_operation(type, root) VALUES ('b', 'y')").contains("already open"));
    assert!(refused(&app, "UPDATE gbsync_operation SET open = NULL").contains("cannot be changed"));
    app.execute("INSERT INTO receipts(id, total) VALUES ('r3', 1)", []).unwrap();
    assert!(refused(&app, "COMMIT").contains("FOREIGN KEY constraint failed"));
    app.execute_batch("ROLLBACK").unwrap();
    assert_eq!(client.status().unwrap().sealed_through.0, 3);
    // A savepoint inside does not end it either, and what was rolled back inside is not in the group.
    app.execute_batch(
        "BEGIN; INSERT INTO gbsync_operation(type, root) VALUES ('a', 'x'); INSERT INTO receipts(id, total) VALUES ('r3', 1);
         SAVEPOINT s; INSERT INTO receipts(id, total) VALUES ('r4', 1); ROLLBACK TO s; RELEASE s;
         DELETE FROM gbsync_operation; COMMIT;",
    )
    .unwrap();
    assert_eq!(client.groups(GroupFilter::All, 99).unwrap()[3].records, 1);
}

#[test]
fn a_bracket_needs_foreign_keys_also_under_or_clauses() {
    let (folder, _client, _app) = till();
    let plain = Connection::open(folder.path().join("till.db")).unwrap();
    plain.pragma_update(None, "foreign_keys", false).unwrap();
    for or in ["", "OR IGNORE", "OR REPLACE", "OR FAIL", "OR ROLLBACK"] {
        let message = refused(&plain, &format!("INSERT {or} INTO gbsync_operation(type, root) VALUES ('a', 'x')"));
        assert!(message.contains("run PRAGMA foreign_keys=ON before BEGIN"), "{or}: {message}");
    }
    assert_eq!(ask::<i64>(&plain, "SELECT count(*) FROM gbsync_probe_child"), 0);
}

#[test]
fn a_bracket_that_a_program_left_behind_stops_others_until_the_engine_has_parked_it() {
    let (folder, client, app) = till();
    let plain = Connection::open(folder.path().join("till.db")).unwrap();
    plain.pragma_update(None, "foreign_keys", false).unwrap();
    plain.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    plain.execute("INSERT INTO gbsync_operation(type, root) VALUES ('a', 'x')", []).unwrap();
    let message = refused(&app, "INSERT INTO receipts(id, total) VALUES ('r3', 1)");
    assert!(message.contains("left open by a program"), "{message}");
    assert!(refused(&app, "INSERT INTO gbsync_operation(type, root) VALUES ('b', 'y')").contains("left open by a program"));
    client.status().unwrap();
    app.execute("INSERT INTO receipts(id, total) VALUES ('r3', 1)", []).unwrap();
    assert_eq!(client.status().unwrap().sealed_through.0, 4);
    // One whose end nobody saw is parked with what it wrote.
    plain.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
    plain.pragma_update(None, "foreign_keys", true).unwrap();
    plain
        .execute_batch(
            "BEGIN; INSERT INTO gbsync_operation(type, root) VALUES ('a', 'x'); INSERT INTO stock(id) VALUES ('s9')",
        )
        .unwrap();
    plain.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    plain.execute_batch("DELETE FROM gbsync_operation; COMMIT").unwrap();
    let message = refused(&app, "INSERT INTO receipts(id, total) VALUES ('r5', 1)");
    assert!(message.contains("left open by a program"), "{message}");
    let groups = client.groups(GroupFilter::Parked, 9).unwrap();
    assert_eq!((groups.len(), groups[0].code.as_deref()), (1, Some("operation_left_open")));
    assert_eq!(ask::<i64>(&app, "SELECT count(*) FROM stock WHERE id = 's9'"), 0);
    app.execute("INSERT INTO receipts(id, total) VALUES ('r5', 1)", []).unwrap();
}

#[test]
fn text_that_is_no_utf8_and_json_that_is_too_deep_are_parked_and_the_rows_are_whole_again() {
    let (_folder, client, app) = till();
    app.execute("UPDATE receipts SET note = CAST(x'ff41' AS TEXT) WHERE id = 'r1'", []).unwrap();
    app.execute("INSERT INTO stock(id, quantity) VALUES (CAST(x'ff41' AS TEXT), 1)", []).unwrap();
    app.execute("UPDATE receipts SET extra = ?1 WHERE id = 'r2'", ["[".repeat(70) + &"]".repeat(70)]).unwrap();
    let groups = client.groups(GroupFilter::Parked, 9).unwrap();
    let codes: Vec<_> = groups.iter().map(|group| group.code.as_deref().unwrap()).collect();
    assert_eq!(codes, ["schema_violation"; 3]);
    assert_eq!(rows(&app, "SELECT id, note, extra FROM receipts"), ["r1|-|-", "r2|-|-"]);
    assert_eq!(rows(&app, "SELECT id FROM stock"), ["s1"]);
    assert_eq!(client.status().unwrap().sealed_through.0, 6);
}
