//! Where features meet: plain SQL with rules, cascades, sequences, parked groups, a log that is read anew, and programs
//! that share the file.

use crate::common::app::{app, ask, device, refused, rows, shop};
use crate::common::{Device, Fault, World, is_push, problem};
use gbsync_client::{Client, Error, GroupFilter, GroupState};
use std::time::{Duration, Instant};

const BRACKET: &str = "INSERT INTO gbsync_operation(type, root) VALUES ('receipt-create', 'r9');";

const CHAIN: &str = r#"
version = 1
[entities.receipts]
fields.total = "text"
[entities.lines]
fields.receiptId = { type = "text", references = "receipts", on_delete = "cascade" }
"#;

fn states(client: &Client) -> Vec<String> {
    let groups = client.groups(GroupFilter::All, 100).unwrap();
    groups.into_iter().map(|group| group.code.unwrap_or_else(|| group.state.as_str().to_owned())).collect()
}

fn edits(client: &Client) -> Vec<String> {
    let groups = client.groups(GroupFilter::All, 100).unwrap();
    let edits = groups.iter().map(|group| {
        let changes = client.changes_of(&group.group_id).unwrap();
        let edit = |change: &gbsync_core::change::Change| {
            format!("{} {}", change.edit.action(), change.edit.payload().map_or("-", |payload| payload.as_str()))
        };
        changes.iter().map(edit).collect::<Vec<_>>().join(", ")
    });
    edits.collect()
}

/// The next page of the log is refused once, so that the device reads it anew.
fn forget_the_log(device: &Device) {
    let mut is_gone = Some(problem(410, "resync_required", None));
    device.transport.plan(move |request| match request.path.contains("/log?") {
        _ if is_push(request) => Fault::DropRequest,
        true => is_gone.take().map_or(Fault::Pass, Fault::Answer),
        false => Fault::Pass,
    });
}

#[test]
fn an_id_of_many_bytes_that_are_no_text_is_parked_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let app = app(&path);
    app.execute(
        "INSERT INTO stock(id, quantity) VALUES (CAST(zeroblob(0) || replace(hex(zeroblob(200)), '00', x'ff') AS TEXT), 1)",
        [],
    )
    .unwrap();
    client.upsert("stock", "s1", r#"{"quantity":1}"#).unwrap();
    assert_eq!(states(&client), ["schema_violation", "sealed"]);
    assert_eq!(rows(&app, "SELECT id FROM stock"), ["s1"]);
}

#[test]
fn a_decimal_from_before_its_rule_survives_an_update_of_another_column() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.shop("b"));
    a.client.upsert("receipts", "r1", r#"{"total":"5.125"}"#).unwrap();
    a.client.upsert("receipts", "r2", r#"{"total":5}"#).unwrap();
    a.sync();
    b.sync();
    let app = app(&world.path("b"));
    app.execute("UPDATE receipts SET note = 'n'", []).unwrap();
    assert_eq!(rows(&app, "SELECT total, note FROM receipts"), ["5.125|n", "5.00|n"]);
    assert_eq!(edits(&b.client), [r#"patch {"note":"n"}"#, r#"patch {"note":"n"}"#]);
}

#[test]
fn tables_of_the_app_that_refer_to_an_entity_lose_nothing_and_stop_nothing() {
    let mut world = World::under(crate::common::app::SHOP);
    let (a, b) = (world.shop("a"), world.shop("b"));
    a.client.upsert("receipts", "r1", r#"{"total":"1.00"}"#).unwrap();
    a.sync();
    b.sync();
    let connection = app(&world.path("b"));
    connection
        .execute_batch(
            "CREATE TABLE prints(receipt TEXT REFERENCES receipts(id)); INSERT INTO prints VALUES ('r1');
             CREATE TABLE scans(receipt TEXT REFERENCES receipts(id) ON DELETE CASCADE); INSERT INTO scans VALUES ('r1');",
        )
        .unwrap();
    let newer = crate::common::app::SHOP.replace("version = 1", "version = 2");
    world.renew(&newer);
    drop(b);
    let b = world.reopen_under("b", &newer);
    assert_eq!(rows(&connection, "SELECT (SELECT count(*) FROM prints), (SELECT count(*) FROM scans)"), ["1|1"]);
    forget_the_log(&b);
    b.sync();
    assert_eq!(rows(&connection, "SELECT (SELECT count(*) FROM prints), (SELECT count(*) FROM scans)"), ["1|1"]);
    b.client.delete("receipts", "r1").unwrap();
    assert_eq!(ask::<i64>(&connection, "SELECT count(*) FROM receipts"), 0);
}

#[test]
fn a_log_that_is_read_anew_brings_a_record_that_a_waiting_delete_takes_along() {
    let world = World::under(CHAIN);
    let (a, b) = (world.device_under("a", CHAIN), world.device_under("b", CHAIN));
    a.client.upsert("receipts", "r1", r#"{"total":"1"}"#).unwrap();
    a.client.upsert("lines", "l1", r#"{"receiptId":"r1"}"#).unwrap();
    a.sync();
    b.sync();
    b.client.delete("receipts", "r1").unwrap();
    a.client.upsert("lines", "l2", r#"{"receiptId":"r1"}"#).unwrap();
    a.sync();
    forget_the_log(&b);
    b.try_sync().unwrap_err();
    assert_eq!((b.read("lines", "l1"), b.read("lines", "l2")), (None, None));
    let app = app(&world.path("b"));
    assert_eq!(ask::<i64>(&app, "SELECT count(*) FROM lines"), 0);
    b.transport.heal();
    b.sync();
    assert_eq!(b.digest(), world.digest());
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_overlay"), 0);
}

#[test]
fn a_newer_schema_lets_a_waiting_delete_take_along_what_it_says() {
    let before = CHAIN.replace(r#", on_delete = "cascade""#, r#", on_delete = "ignore""#);
    let world = World::under(&before);
    let a = world.device_under("a", &before);
    a.client.upsert("receipts", "r1", r#"{"total":"1"}"#).unwrap();
    a.client.upsert("lines", "l1", r#"{"receiptId":"r1"}"#).unwrap();
    a.sync();
    a.client.delete("receipts", "r1").unwrap();
    assert!(a.read("lines", "l1").is_some());
    drop(a);
    let a = world.reopen_under("a", &CHAIN.replace("version = 1", "version = 2"));
    assert_eq!(a.read("lines", "l1"), None);
    assert_eq!(ask::<i64>(&app(&world.path("a")), "SELECT count(*) FROM lines"), 0);
}

#[test]
fn a_record_of_two_parked_groups_has_one_state_and_it_is_that_of_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let app = app(&path);
    app.execute_batch(
        "INSERT INTO receipts(id, total, extra) VALUES ('r1', 1, 'no json');
         UPDATE receipts SET note = 'n'; UPDATE receipts SET note = 'm';",
    )
    .unwrap();
    assert_eq!(states(&client), ["schema_violation", "dependency_rejected", "dependency_rejected"]);
    assert_eq!(
        rows(
            &app,
            "SELECT s.id, s.state, g.device_seq FROM gbsync_record_state AS s JOIN gbsync_group AS g USING (group_id)"
        ),
        ["r1|parked|3"]
    );
    assert_eq!(
        rows(&app, "SELECT id, note, sync_state FROM receipts_all ORDER BY note"),
        ["r1|-|parked", "r1|m|parked", "r1|n|parked"]
    );
    assert_eq!(ask::<i64>(&app, "SELECT count(*) FROM gbsync_parked_change"), 3);
}

#[test]
fn what_refers_to_a_record_of_an_undone_operation_waits_for_that_operation() {
    let world = World::new();
    let a = world.shop("a");
    let app = app(&world.path("a"));
    app.execute_batch(
        "INSERT INTO receipts(id, total, extra) VALUES ('r1', 1, 'no json');
         INSERT INTO payments(id, receiptId, amount) VALUES ('p1', 'r1', 1);
         INSERT INTO payments(id, receiptId, amount) VALUES ('p2', 'nowhere', 1);",
    )
    .unwrap();
    assert_eq!(states(&a.client), ["schema_violation", "dependency_rejected", "dangling_reference"]);
    let first = a.client.groups(GroupFilter::Parked, 1).unwrap()[0].group_id.clone();
    a.client.amend::<Error>(&first, |op| op.upsert("receipts", "r1", r#"{"total":"1.00"}"#)).unwrap();
    a.sync();
    assert!(a.read("payments", "p1").is_some());
}

#[test]
fn a_reader_does_not_wait_for_a_program_that_holds_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    let app = app(&path);
    app.execute("INSERT INTO stock(id, quantity) VALUES ('s1', 1)", []).unwrap();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    assert_eq!(client.status().unwrap().pending_groups, 0);
    assert_eq!(client.read("stock", "s1").unwrap(), None);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    app.execute_batch("COMMIT").unwrap();
    assert_eq!(client.status().unwrap().pending_groups, 1);
}

#[test]
fn a_row_that_is_deleted_and_inserted_again_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    client.upsert("stock", "s1", r#"{"quantity":10,"name":"roll","hidden":1}"#).unwrap();
    let app = app(&path);
    app.execute_batch("DELETE FROM stock; INSERT INTO stock(id, quantity) VALUES ('s1', 3);").unwrap();
    assert_eq!(client.read("stock", "s1").unwrap().unwrap().as_str(), r#"{"quantity":3}"#);
    app.execute_batch(&format!(
        "BEGIN; {BRACKET} DELETE FROM stock; INSERT INTO stock(id, quantity) VALUES ('s1', 5);
         DELETE FROM gbsync_operation; COMMIT;"
    ))
    .unwrap();
    assert_eq!(client.read("stock", "s1").unwrap().unwrap().as_str(), r#"{"quantity":5}"#);
    assert_eq!(edits(&client)[1..], ["delete -", r#"upsert {"quantity":3}"#, r#"delete -, upsert {"quantity":5}"#]);
    app.execute_batch("PRAGMA recursive_triggers = ON; REPLACE INTO stock(id, quantity) VALUES ('s1', 6);").unwrap();
    app.execute_batch("DELETE FROM stock; INSERT INTO stock(id, quantity) VALUES ('s1', 7);").unwrap();
    assert_eq!(edits(&client)[4..], [r#"upsert {}, increment {"quantity":1}"#, "delete -", r#"upsert {"quantity":7}"#]);
}

#[test]
fn an_operation_is_held_against_what_was_there_before_those_written_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    client.upsert("receipts", "r1", r#"{"total":"1.00","no":"A"}"#).unwrap();
    client.upsert("receipts", "r2", r#"{"total":"1.00"}"#).unwrap();
    client.upsert("payments", "p1", r#"{"receiptId":"r1","amount":"1.00"}"#).unwrap();
    let app = app(&path);
    // The delete takes the payment along, so there is none to move.
    app.execute_batch("DELETE FROM receipts WHERE id = 'r1'; UPDATE payments SET receiptId = 'r2';").unwrap();
    assert_eq!(states(&client)[3..], ["sealed", "missing"]);
    assert_eq!(rows(&app, "SELECT id FROM payments"), Vec::<String>::new());
    // What gave the number away is undone, so the number is not free.
    client.upsert("receipts", "r3", r#"{"total":"1.00","no":"B"}"#).unwrap();
    app.execute_batch(
        "UPDATE receipts SET no = 'C', extra = 'no json' WHERE id = 'r3'; INSERT INTO receipts(id, total, no) VALUES ('r4', 1, 'B');",
    )
    .unwrap();
    assert_eq!(states(&client)[6..], ["schema_violation", "duplicate_value"]);
    assert_eq!(rows(&app, "SELECT id, no FROM receipts"), ["r2|-", "r3|B"]);
}

#[test]
fn a_revised_operation_still_clears_its_flag() {
    let world = World::under(CHAIN);
    let (a, b) = (world.device_under("a", CHAIN), world.device_under("b", CHAIN));
    a.client.upsert("receipts", "r1", r#"{"total":"1"}"#).unwrap();
    a.sync();
    b.sync();
    a.client.patch("receipts", "r1", r#"{"total":"2"}"#).unwrap();
    a.sync();
    let parked = b.client.operation::<Error>("edit", "r1", |op| {
        op.clears("1.0")?;
        op.patch("receipts", "r1", r#"{"total":"3"}"#)
    });
    assert_eq!(b.sync().parked.len(), 1);
    let sealed = b.client.revise::<Error>(&parked.unwrap().group_id, |_| Ok(())).unwrap();
    let sql = format!("SELECT clears FROM gbsync_outbox WHERE group_id = '{}'", sealed.group_id);
    assert_eq!(b.query::<Option<String>>(&sql).as_deref(), Some(r#"["1.0"]"#));
}

#[test]
fn ids_of_any_text_savepoints_and_empty_brackets_are_taken_as_they_are() {
    let world = World::new();
    let (a, b) = (world.shop("a"), world.shop("b"));
    let app = app(&world.path("a"));
    let long = "ü".repeat(128);
    for id in ["it's", "\"q\"", "a]b[c*?%_", "日本", "\u{1f600}", " x ", "-- ;", long.as_str()] {
        app.execute("INSERT INTO stock(id, quantity) VALUES (?1, 1)", [id]).unwrap();
        app.execute("UPDATE stock SET quantity = 5, name = ?1 WHERE id = ?1", [id]).unwrap();
    }
    app.execute_batch(&format!(
        "BEGIN; {BRACKET} DELETE FROM gbsync_operation; COMMIT;
         BEGIN; {BRACKET} INSERT INTO receipts(id, total) VALUES ('r1', 1); SAVEPOINT s; UPDATE receipts SET total = 2;
         DELETE FROM gbsync_operation; ROLLBACK TO s; RELEASE s; UPDATE receipts SET note = 'kept';
         DELETE FROM gbsync_operation; COMMIT;"
    ))
    .unwrap();
    a.sync();
    b.sync();
    assert!(a.states().iter().all(|(state, _)| *state == GroupState::Accepted), "{:?}", a.states());
    assert_eq!(a.states().len(), 17);
    assert_eq!((a.digest(), a.digest().1), (b.digest(), 9));
    assert_eq!(b.read("receipts", "r1").unwrap(), r#"{"note":"kept","total":"1.00"}"#);
    assert_eq!(b.read("stock", &long).unwrap(), format!(r#"{{"name":"{long}","quantity":5}}"#));
}

#[test]
fn a_decimal_counter_of_more_digits_than_sqlite_can_add_is_not_changed_by_a_wrong_amount() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    client
        .operation::<Error>("open", "cash", |op| {
            op.upsert("ledger", "big", r#"{"amount":"20000000000000000000.00"}"#)?;
            op.upsert("ledger", "cash", r#"{"amount":"1.00"}"#)
        })
        .unwrap();
    let app = app(&path);
    let change = |id: &str, to: &str| {
        format!(
            "BEGIN; {BRACKET} UPDATE ledger SET amount = '{to}' WHERE id = '{id}'; DELETE FROM gbsync_operation; COMMIT;"
        )
    };
    assert!(refused(&app, &change("big", "20000000000000000001.00")).contains("too many digits"));
    app.execute_batch("ROLLBACK").unwrap();
    app.execute_batch(&change("cash", "9.5")).unwrap();
    assert_eq!(edits(&client)[1..], [r#"increment {"amount":8.50}"#]);
}
