//! What programs write through plain SQL becomes groups.

use crate::common::World;
use crate::common::app::{SHOP, app, ask, device, refused, rows, shop};
use gbsync_client::{Client, Config, Error, GroupFilter, GroupState};
use gbsync_core::schema::Schema;
use std::process::Command;

/// The groups of a device: type, root, actor, state, and the bytes of the changes without their bases.
fn groups(client: &Client) -> Vec<String> {
    let groups = client.groups(GroupFilter::All, 1_000).unwrap();
    let shown = groups.into_iter().map(|group| {
        let changes = client.changes_of(&group.group_id).unwrap();
        let changes = changes.iter().map(|change| {
            let payload = change.edit.payload().map_or("", |payload| payload.as_str());
            format!("{} {} {payload}", change.edit.action(), change.key)
        });
        let name = group.group_type.map_or("-".into(), |name| name.as_str().to_owned());
        let state = group.code.unwrap_or_else(|| group.state.as_str().to_owned());
        format!("{name} {} [{}]", state, changes.collect::<Vec<_>>().join(", "))
    });
    shown.collect()
}

const BRACKET: &str = "INSERT INTO gbsync_operation(type, root) VALUES ('receipt-create', 'r9');";

#[test]
fn a_bracket_is_one_group_and_a_row_outside_any_is_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let app = app(&path);
    app.execute_batch(&format!(
        "BEGIN; {BRACKET} INSERT INTO receipts(id, total) VALUES ('r9', 12.5);
         INSERT INTO payments(id, receiptId, amount) VALUES ('p9', 'r9', '12.5'); DELETE FROM gbsync_operation; COMMIT;"
    ))
    .unwrap();
    app.execute_batch(&format!("BEGIN; {BRACKET} INSERT INTO receipts(id, total) VALUES ('r0', 1); ROLLBACK;")).unwrap();
    app.execute_batch(
        "INSERT INTO stock(id, quantity) VALUES ('a', 5), ('b', 6); UPDATE stock SET quantity = quantity - 1;",
    )
    .unwrap();
    assert_eq!(
        groups(&client),
        [
            r#"receipt-create sealed [upsert receipts:r9 {"total":"12.50"}, upsert payments:p9 {"amount":"12.50","receiptId":"r9"}]"#,
            r#"- sealed [upsert stock:a {"quantity":5}]"#,
            r#"- sealed [upsert stock:b {"quantity":6}]"#,
            r#"- sealed [increment stock:a {"quantity":-1}]"#,
            r#"- sealed [increment stock:b {"quantity":-1}]"#,
        ]
    );
    assert_eq!(client.status().unwrap().sealed_through.0, 5);
    assert_eq!(rows(&app, "SELECT id, total, total_minor FROM receipts"), ["r9|12.50|1250"]);
    assert_eq!(rows(&app, "SELECT id, quantity FROM stock"), ["a|4", "b|5"]);
    assert_eq!(rows(&app, "SELECT count(*) FROM gbsync_capture"), ["0"]);
}

#[test]
fn every_statement_of_an_orm_is_captured_as_what_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    client.upsert("receipts", "r1", r#"{"total":"1.00","note":"a","extra":{"x":1,"y":{"z":2}},"hidden":7}"#).unwrap();
    client.upsert("stock", "s1", r#"{"quantity":10,"name":"roll"}"#).unwrap();
    let app = app(&path);
    let upsert =
        "INSERT INTO receipts(id, total, note) VALUES ('r1', 2, 'b') ON CONFLICT(id) DO UPDATE SET note = excluded.note";
    assert_eq!(app.execute(upsert, []).unwrap(), 1);
    app.execute("UPDATE receipts SET note = NULL, paid = 1, day = '2026-11-25'", []).unwrap();
    app.execute(r#"UPDATE receipts SET extra = '{"y": {}, "new": [1, 2]}'"#, []).unwrap();
    app.execute(r#"UPDATE receipts SET extra = '{"y": {"n": null}}'"#, []).unwrap();
    app.execute("UPDATE receipts SET total = '1.00', note = note", []).unwrap();
    app.execute("INSERT OR REPLACE INTO stock(id, quantity, name) VALUES ('s1', 7, 'new')", []).unwrap();
    app.execute_batch("PRAGMA recursive_triggers = ON").unwrap();
    app.execute("INSERT OR REPLACE INTO stock(id, quantity, name) VALUES ('s1', 6, 'again')", []).unwrap();
    app.execute("UPDATE stock SET quantity = quantity + 1, name = 'newer'", []).unwrap();
    app.execute("DELETE FROM stock", []).unwrap();
    let groups = groups(&client);
    assert_eq!(
        groups[2..],
        [
            r#"- sealed [patch receipts:r1 {"note":"b"}]"#,
            r#"- sealed [patch receipts:r1 {"day":"2026-11-25","note":null,"paid":true}]"#,
            r#"- sealed [patch receipts:r1 {"extra":{"new":[1,2],"x":null,"y":{"z":null}}}]"#,
            r#"- sealed [upsert receipts:r1 {"day":"2026-11-25","extra":{"y":{"n":null}},"hidden":7,"paid":true,"total":"1.00"}]"#,
            r#"- sealed [upsert stock:s1 {"name":"new"}, increment stock:s1 {"quantity":-3}]"#,
            r#"- sealed [upsert stock:s1 {"name":"again"}, increment stock:s1 {"quantity":-1}]"#,
            r#"- sealed [patch stock:s1 {"name":"newer"}, increment stock:s1 {"quantity":1}]"#,
            r#"- sealed [delete stock:s1 ]"#,
        ]
    );
    assert!(client.read("receipts", "r1").unwrap().unwrap().as_str().contains(r#""hidden":7"#));
    assert_eq!(ask::<i64>(&app, "SELECT count(*) FROM stock"), 0);
}

#[test]
fn a_decimal_written_in_another_way_is_no_change() {
    for recursive in ["OFF", "ON"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("till.db");
        let client = device(&path, shop());
        let app = app(&path);
        app.execute_batch(&format!("PRAGMA recursive_triggers = {recursive}")).unwrap();
        for total in ["'1'", "1", "1.0", "'1.0'"] {
            app.execute("DELETE FROM receipts", []).unwrap();
            app.execute(&format!("INSERT INTO receipts(id, total) VALUES ('r1', {total})"), []).unwrap();
            let before = groups(&client);
            assert_eq!(before.last().unwrap(), r#"- sealed [upsert receipts:r1 {"total":"1.00"}]"#, "{total}");
            app.execute(&format!("UPDATE receipts SET total = {total}"), []).unwrap();
            assert_eq!(groups(&client), before, "{total}, recursive triggers {recursive}");
            assert_eq!(ask::<String>(&app, "SELECT total FROM receipts"), "1.00");
        }
        app.execute("UPDATE receipts SET total = 1, note = 'n'", []).unwrap();
        app.execute("UPDATE receipts SET total = 1.1", []).unwrap();
        let groups = groups(&client);
        let last = groups[groups.len() - 2..].join("; ");
        let expected = r#"- sealed [patch receipts:r1 {"note":"n"}]; - sealed [patch receipts:r1 {"total":"1.10"}]"#;
        assert_eq!(last, expected, "recursive triggers {recursive}");
    }
}

#[test]
fn several_statements_on_a_row_in_one_bracket_are_one_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let app = app(&path);
    app.execute_batch(&format!(
        "BEGIN; {BRACKET}
         INSERT INTO receipts(id, total) VALUES ('r9', '1'); UPDATE receipts SET total = total + 0.5, note = 'n';
         INSERT INTO payments(id, receiptId, amount) VALUES ('gone', 'r9', 1); DELETE FROM payments;
         INSERT INTO ledger(id, amount) VALUES ('cash', '10'); UPDATE ledger SET amount = '9.45';
         DELETE FROM gbsync_operation; COMMIT;
         BEGIN; {BRACKET} INSERT INTO stock(id) VALUES ('x'); DELETE FROM stock; DELETE FROM gbsync_operation; COMMIT;
         BEGIN; {BRACKET} UPDATE ledger SET amount = amount - 0.5; DELETE FROM gbsync_operation; COMMIT;"
    ))
    .unwrap();
    assert_eq!(
        groups(&client),
        [
            r#"receipt-create sealed [upsert receipts:r9 {"note":"n","total":"1.50"}, upsert ledger:cash {"amount":"9.45"}]"#,
            r#"receipt-create sealed [increment ledger:cash {"amount":-0.50}]"#,
        ]
    );
    assert_eq!(rows(&app, "SELECT amount, amount_minor FROM ledger"), ["8.95|895"]);
}

#[test]
fn what_cannot_be_sealed_is_undone_and_parked_whole_with_what_was_written_on_top_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    client.upsert("receipts", "r1", r#"{"total":"1.00"}"#).unwrap();
    let app = app(&path);
    app.execute_batch(&format!(
        "BEGIN; {BRACKET} UPDATE receipts SET extra = 'no json', note = 'bad' WHERE id = 'r1';
         INSERT INTO stock(id, quantity) VALUES ('s1', 1); DELETE FROM gbsync_operation; COMMIT;
         UPDATE stock SET name = 'on top' WHERE id = 's1'; INSERT INTO stock(id, quantity) VALUES ('s2', 2);"
    ))
    .unwrap();
    let groups = groups(&client);
    assert_eq!(
        groups[1..],
        [
            r#"receipt-create schema_violation [patch receipts:r1 {"extra":"no json","note":"bad"}, upsert stock:s1 {"quantity":1}]"#,
            r#"- dependency_rejected [patch stock:s1 {"name":"on top"}]"#,
            r#"- sealed [upsert stock:s2 {"quantity":2}]"#,
        ]
    );
    assert_eq!(rows(&app, "SELECT id, note, extra FROM receipts"), ["r1|-|-"]);
    assert_eq!(rows(&app, "SELECT id FROM stock"), ["s2"]);
    let status = client.status().unwrap();
    assert_eq!((status.sealed_through.0, status.parked_groups, status.pending_groups), (4, 2, 2));
    assert_eq!(
        rows(&app, "SELECT id, note, sync_state FROM receipts_all ORDER BY sync_state"),
        ["r1|bad|parked", "r1|-|sealed"]
    );
}

#[test]
fn a_deleted_row_takes_along_what_refers_to_it_and_a_row_that_refers_to_none_is_parked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let app = app(&path);
    app.execute_batch(
        "INSERT INTO receipts(id, total) VALUES ('r1', 1); INSERT INTO payments(id, receiptId, amount) VALUES ('p1', 'r1', 1);
         INSERT INTO payments(id, receiptId, amount) VALUES ('p2', 'nowhere', 1); DELETE FROM receipts;",
    )
    .unwrap();
    assert_eq!(client.status().unwrap().parked_groups, 1);
    let parked = &client.groups(GroupFilter::Parked, 9).unwrap()[0];
    assert_eq!(parked.code.as_deref(), Some("dangling_reference"));
    assert_eq!(ask::<i64>(&app, "SELECT (SELECT count(*) FROM receipts) + (SELECT count(*) FROM payments)"), 0);
    assert_eq!(rows(&app, "SELECT id, receiptId, sync_state FROM payments_all"), ["p2|nowhere|parked"]);
}

#[test]
fn a_sync_sends_what_another_program_wrote_and_other_devices_have_it() {
    let world = World::new();
    let (a, b) = (world.shop("a"), world.shop("b"));
    let (writes, reads) = (app(&world.path("a")), app(&world.path("b")));
    writes.execute("INSERT INTO receipts(id, total, no) VALUES ('r1', '3.5', 'A-1')", []).unwrap();
    a.sync();
    b.sync();
    assert_eq!(rows(&reads, "SELECT id, total, total_minor, no FROM receipts"), ["r1|3.50|350|A-1"]);
    // An edit on both sides: the base is what the device had when the row was written.
    writes.execute("UPDATE receipts SET note = 'a'", []).unwrap();
    reads.execute("UPDATE receipts SET note = 'b'", []).unwrap();
    a.sync();
    b.sync();
    assert_eq!(b.client.status().unwrap().parked_groups, 1);
    assert_eq!(rows(&reads, "SELECT note FROM receipts"), ["a"]);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn an_operation_of_the_client_sees_what_was_captured_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let app = app(&path);
    let mut operation = client.begin("receipt-edit", "r1").unwrap();
    assert_eq!(operation.read("receipts", "r1").unwrap(), None);
    app.execute("INSERT INTO receipts(id, total) VALUES ('r1', 1)", []).unwrap();
    operation.upsert("receipts", "r1", r#"{"total":"2.00"}"#).unwrap();
    operation.seal().unwrap();
    client.patch("receipts", "r1", r#"{"note":"n"}"#).unwrap();
    assert_eq!(client.status().unwrap().sealed_through.0, 3);
    assert_eq!(rows(&app, "SELECT total, note FROM receipts"), ["2.00|n"]);
}

#[test]
fn what_programs_write_between_operations_is_found_also_after_one_that_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let app = app(&path);
    let mut expected = Vec::new();
    for n in 0..4 {
        app.execute("INSERT INTO receipts(id, total) VALUES (?1, 1)", [format!("p{n}")]).unwrap();
        expected.push(format!(r#"- sealed [upsert receipts:p{n} {{"total":"1.00"}}]"#));
        // It refers to nothing: what it finds waiting is made a group, and it is not.
        client.upsert("payments", "x", r#"{"receiptId":"none","amount":"1.00"}"#).unwrap_err();
        client.upsert("stock", &format!("a{n}"), r#"{"quantity":1}"#).unwrap();
        expected.push(format!(r#"- sealed [upsert stock:a{n} {{"quantity":1}}]"#));
        client.upsert("stock", &format!("b{n}"), r#"{"quantity":1}"#).unwrap();
        expected.push(format!(r#"- sealed [upsert stock:b{n} {{"quantity":1}}]"#));
    }
    assert_eq!(groups(&client), expected);
    assert_eq!(rows(&app, "SELECT count(*) FROM gbsync_capture"), ["0"]);
}

#[test]
fn newer_rules_of_another_program_stop_every_write_of_an_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let old = device(&path, shop());
    old.upsert("stock", "a", r#"{"quantity":1}"#).unwrap();
    let newer = Schema::parse(&SHOP.replace("version = 1", "version = 2")).unwrap();
    let new = Client::open(Config { schema: Some(newer), ..Config::new(&path) }).unwrap();
    for _ in 0..2 {
        let refused = old.upsert("stock", "b", r#"{"quantity":1}"#).unwrap_err();
        assert!(matches!(refused, Error::OlderSchema { brought: 1, stored: 2 }), "{refused}");
        new.upsert("stock", "c", r#"{"quantity":1}"#).unwrap();
    }
    assert_eq!(new.status().unwrap().sealed_through.0, 3);
}

#[test]
fn a_shell_and_python_write_groups_with_the_sqlite_that_they_bring() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let line = "PRAGMA foreign_keys=ON; BEGIN; INSERT INTO gbsync_operation(type,root) VALUES('receipt-create','r9'); \
                INSERT INTO receipts(id,total) VALUES('r9',12.5); \
                INSERT INTO payments(id,receiptId,amount) VALUES('p9','r9',12.5); DELETE FROM gbsync_operation; COMMIT;";
    let shell = Command::new("sqlite3").arg(&path).arg(line).output();
    let shell = shell.expect("this test needs the program sqlite3: install the package sqlite3");
    assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
    let script = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
try:
    db.execute("INSERT INTO gbsync_operation(type, root) VALUES ('receipt-create', 'r10')")
except sqlite3.IntegrityError as error:
    print(error)
db.execute("PRAGMA foreign_keys = ON")
db.execute("PRAGMA trusted_schema = OFF")
db.execute("BEGIN")
db.execute("INSERT INTO gbsync_operation(type, root, actor) VALUES ('receipt-create', 'r10', 'ann')")
db.execute("INSERT INTO receipts(id, total) VALUES (?, ?)", ("r10", "7"))
try:
    db.execute("COMMIT")
except sqlite3.IntegrityError as error:
    print(error)
db.execute("DELETE FROM gbsync_operation")
db.execute("COMMIT")
print(db.execute("SELECT id, total, total_minor, sync_state FROM receipts_all WHERE id = 'r10'").fetchall())
"#;
    let python = Command::new("python3").args(["-c", script]).arg(&path).output();
    let python = python.expect("this test needs the program python3: install the package python3");
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    assert_eq!(
        String::from_utf8_lossy(&python.stdout),
        "gbsync: run PRAGMA foreign_keys=ON before BEGIN\nFOREIGN KEY constraint failed\n[('r10', '7.00', 700, None)]\n"
    );
    assert_eq!(
        groups(&client),
        [
            r#"receipt-create sealed [upsert receipts:r9 {"total":"12.50"}, upsert payments:p9 {"amount":"12.50","receiptId":"r9"}]"#,
            r#"receipt-create sealed [upsert receipts:r10 {"total":"7.00"}]"#,
        ]
    );
    let group = &client.groups(GroupFilter::All, 9).unwrap()[1];
    assert_eq!(
        (group.actor.as_ref().unwrap().as_str(), group.root.as_deref(), group.state),
        ("ann", Some("r10"), GroupState::Sealed)
    );
}

#[test]
fn a_program_killed_in_the_middle_of_a_bracket_leaves_nothing_and_an_engine_killed_while_it_completes_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let script = r#"
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA foreign_keys = ON")
db.execute("BEGIN")
db.execute("INSERT INTO gbsync_operation(type, root) VALUES ('receipt-create', 'r10')")
db.execute("INSERT INTO receipts(id, total) VALUES ('r10', '7')")
os.kill(os.getpid(), signal.SIGKILL)
"#;
    let python = Command::new("python3").args(["-c", script]).arg(&path).status();
    assert!(!python.expect("this test needs the program python3: install the package python3").success());
    assert_eq!(client.status().unwrap().sealed_through.0, 0);
    let app = app(&path);
    assert_eq!(rows(&app, "SELECT (SELECT count(*) FROM receipts), (SELECT count(*) FROM gbsync_operation)"), ["0|0"]);
    for n in 0..200 {
        app.execute("INSERT INTO receipts(id, total) VALUES (?1, 1)", [format!("r{n}")]).unwrap();
    }
    drop(client);
    // A copy of the file and its WAL as a kill in the middle of completion leaves them: the captured rows are durable, the
    // transaction that completes them is not.
    let copy = folder.path().join("copy.db");
    for suffix in ["", "-wal"] {
        let name = |path: &std::path::Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(&path), name(&copy)).unwrap();
    }
    let client = Client::open(Config::new(&copy)).unwrap();
    assert_eq!(client.status().unwrap().sealed_through.0, 200);
    assert_eq!(client.status().unwrap().sealed_through.0, 200);
    assert!(
        refused(&app, "DELETE FROM gbsync_operation; INSERT INTO gbsync_operation(type, root) VALUES (NULL, 'x')")
            .contains("needs a type")
    );
}

#[test]
fn a_watch_answers_at_once_and_again_when_another_program_wrote() {
    let world = World::new();
    let device = world.shop("a");
    let app = app(&world.path("a"));
    world.runtime.block_on(async {
        let mut watch = device.client.watch("SELECT id, total, sync_state FROM receipts_all").unwrap();
        assert!(watch.next().await.unwrap().is_empty());
        app.execute_batch("INSERT INTO receipts(id, total) VALUES ('r1', 2)").unwrap();
        let next = tokio::time::timeout(std::time::Duration::from_secs(30), watch.next()).await;
        let rows = next.expect("the write of the other program is heard of").unwrap();
        assert_eq!(serde_json::to_string(&rows).unwrap(), r#"[{"id":"r1","total":"2.00","sync_state":"sealed"}]"#);
        // Nothing that the query does not show wakes it.
        app.execute_batch("INSERT INTO stock(id, quantity) VALUES ('s1', 2)").unwrap();
        let quiet = tokio::time::timeout(std::time::Duration::from_millis(500), watch.next()).await;
        assert!(quiet.is_err());
        assert_eq!(device.client.watch("SELECT nonsense").err().unwrap().code(), "database");
    });
}

#[test]
fn a_watching_sync_sends_what_another_program_writes() {
    struct Quiet;
    impl gbsync_client::SyncObserver for Quiet {
        fn round(&self, _: &gbsync_client::SyncReport) {}
        fn failed(&self, _: &gbsync_client::SyncError) {}
    }
    let world = World::new();
    let (a, b) = (world.shop("a"), world.shop("b"));
    let app = app(&world.path("a"));
    world.runtime.block_on(async {
        let watching = a.client.watch_sync(a.transport.as_ref(), &a.options, &Quiet);
        let work = async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            app.execute_batch("INSERT INTO receipts(id, total) VALUES ('r1', 2)").unwrap();
            let mut changes = a.client.subscribe();
            while a.states().iter().all(|(state, _)| *state != GroupState::Accepted) {
                changes.changed().await.unwrap();
            }
        };
        let done = async {
            tokio::select! { _ = watching => unreachable!(), () = work => () }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), done).await.expect("the group is sent");
    });
    b.sync();
    assert_eq!(b.read("receipts", "r1").as_deref(), Some(r#"{"total":"2.00"}"#));
}
