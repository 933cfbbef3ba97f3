//! The tables of a device's file show its local view, whoever wrote it.

use crate::common::app::{app, ask, device, refused, rows, shop};
use crate::common::{Fault, World, is_push, problem};
use gbsync_client::{Client, Config, Error, Remote};
use gbsync_core::schema::Schema;

#[test]
fn an_operation_is_a_row_in_each_table_with_typed_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    client
        .operation::<Error>("receipt-create", "r1", |op| {
            op.upsert(
                "receipts",
                "r1",
                r#"{"no":"A-1","total":"12.5","paid":true,"day":"2026-11-25","at":"2026-11-25T10:00:00Z",
                    "extra":{"b":[1,2],"a":null},"weight":1.5,"undeclared":"x"}"#,
            )?;
            op.upsert("payments", "p1", r#"{"receiptId":"r1","amount":12.5}"#)?;
            op.upsert("stock", "s1", r#"{"quantity":7}"#)
        })
        .unwrap();
    let app = app(&path);
    let columns = "id, no, customer, total, total_minor, paid, day, at, extra, weight";
    assert_eq!(
        rows(&app, &format!("SELECT {columns} FROM receipts")),
        [r#"r1|A-1|-|12.50|1250|1|2026-11-25|2026-11-25T10:00:00Z|{"a":null,"b":[1,2]}|1.5"#]
    );
    assert_eq!(rows(&app, "SELECT typeof(total), typeof(paid), typeof(weight) FROM receipts"), ["text|integer|real"]);
    assert_eq!(rows(&app, "SELECT id, receiptId, amount, amount_minor FROM payments"), ["p1|r1|12.50|1250"]);
    client.increment("stock", "s1", r#"{"quantity":-2}"#).unwrap();
    assert_eq!(ask::<i64>(&app, "SELECT quantity FROM stock WHERE id = 's1'"), 5);
    client.delete("stock", "s1").unwrap();
    assert_eq!(ask::<i64>(&app, "SELECT count(*) FROM stock"), 0);
    // What no column shows is in the record still.
    assert!(ask::<String>(&app, "SELECT payload FROM gbsync_records WHERE id = 'r1'").contains("undeclared"));
    assert_eq!(ask::<i64>(&app, "SELECT count(*) FROM gbsync_capture"), 0);
    let plan = rows(&app, "EXPLAIN QUERY PLAN SELECT * FROM receipts WHERE customer = 'x'").join("");
    assert!(plan.contains("USING INDEX"), "{plan}");
    let plan = rows(&app, "EXPLAIN QUERY PLAN SELECT * FROM payments WHERE receiptId = 'x'").join("");
    assert!(plan.contains("USING INDEX"), "{plan}");
}

#[test]
fn what_others_did_is_in_the_tables_after_a_pull_and_a_rejection_leaves_them_whole() {
    let world = World::new();
    let (a, b) = (world.shop("a"), world.shop("b"));
    a.receipt("r1", "10.00");
    a.sync();
    b.sync();
    let seen = app(&world.path("b"));
    assert_eq!(rows(&seen, "SELECT id, total, total_minor FROM receipts"), ["r1|10.00|1000"]);
    b.receipt("r2", "20.00");
    assert_eq!(
        rows(&seen, "SELECT id, total, sync_state, sync_message FROM receipts_all ORDER BY id"),
        ["r1|10.00|-|-", "r2|20.00|sealed|-"]
    );
    // The server refuses the request for this group: it is parked, and its rows are gone from both tables.
    b.transport.plan(|request| match is_push(request) {
        true => Fault::Answer(problem(413, "too_large", Some("/groups/0"))),
        false => Fault::Pass,
    });
    let _ = b.try_sync();
    let _ = b.try_sync();
    assert_eq!(rows(&seen, "SELECT id FROM receipts UNION ALL SELECT id FROM payments"), ["r1", "p-r1"]);
    assert_eq!(
        rows(&seen, "SELECT id, total, total_minor, sync_state FROM receipts_all ORDER BY id"),
        ["r1|10.00|1000|-", "r2|20.00|2000|parked"]
    );
    assert_eq!(ask::<i64>(&seen, "SELECT sync_message IS NOT NULL FROM receipts_all WHERE id = 'r2'"), 1);
    assert_tables_show_the_view(&b.client);
}

#[test]
fn random_work_of_two_devices_leaves_tables_that_show_the_view() {
    let world = World::new();
    let (a, b) = (world.shop("a"), world.shop("b"));
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    for round in 0..60 {
        let device = if random(2) == 0 { &a } else { &b };
        let id = format!("r{}", random(6));
        let _ = device.client.operation::<Error>("receipt-edit", &id, |op| match random(4) {
            0 => op.delete("receipts", &id),
            1 => op.patch("receipts", &id, format!(r#"{{"note":"n{round}"}}"#)),
            2 => op.increment("stock", &id, r#"{"quantity":-1}"#),
            _ => {
                op.upsert("receipts", &id, format!(r#"{{"total":"{round}.50"}}"#))?;
                op.upsert("stock", &id, r#"{"quantity":3}"#)
            }
        });
        if random(3) == 0 {
            device.sync();
        }
        assert_tables_show_the_view(&device.client);
    }
    for device in [&a, &b, &a] {
        device.sync();
        assert_tables_show_the_view(&device.client);
    }
}

#[test]
fn a_program_without_the_schema_uses_the_one_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    drop(device(&path, shop()));
    let client = Client::open(Config::new(&path)).unwrap();
    assert_eq!(client.schema().unwrap().version, 1);
    client.upsert("receipts", "r1", r#"{"total":"1.00"}"#).unwrap();
    assert_eq!(ask::<i64>(&app(&path), "SELECT total_minor FROM receipts"), 100);
}

#[test]
fn a_table_of_the_apps_with_the_name_of_an_entity_is_refused_and_nothing_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let app = app(&path);
    app.execute_batch("CREATE TABLE Receipts(a); CREATE TABLE mine(b); INSERT INTO Receipts VALUES (1);").unwrap();
    let remote = Remote { server: "http://127.0.0.1:1".into(), space: crate::common::space() };
    let error = Client::create(Config { schema: Some(shop()), ..Config::new(&path) }, &remote).err().unwrap();
    assert_eq!(error.code(), "table_taken");
    assert!(error.to_string().contains("\"Receipts\""), "{error}");
    assert_eq!(rows(&app, "SELECT name FROM sqlite_master"), ["Receipts", "mine"]);
    app.execute_batch("ALTER TABLE Receipts RENAME TO old_receipts").unwrap();
    Client::create(Config { schema: Some(shop()), ..Config::new(&path) }, &remote).unwrap();
    assert_eq!(ask::<i64>(&app, "SELECT a FROM old_receipts"), 1);
}

#[test]
fn a_new_schema_version_makes_the_tables_anew_and_keeps_every_group_and_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let client = device(&path, shop());
    for n in 0..50 {
        client.upsert("receipts", &format!("r{n}"), format!(r#"{{"total":"{n}.00","customer":"c{n}"}}"#)).unwrap();
    }
    drop(client);
    let connection = app(&path);
    connection.execute("UPDATE receipts SET note = 'captured' WHERE id = 'r7'", []).unwrap();
    let newer = crate::common::app::SHOP
        .replace("version = 1", "version = 2")
        .replace("fields.customer = \"text\"", "fields.client = { type = \"text\", was = \"customer\" }")
        .replace("[[\"customer\"]]", "[[\"client\"]]")
        .replace(
            "fields.note = \"text\"",
            "fields.note = \"text\"\nfields.kind = { type = \"text\", required = true, default = \"sale\" }",
        );
    let newer = Schema::parse(&newer).unwrap();
    let client = Client::open(Config { schema: Some(newer), ..Config::new(&path) }).unwrap();
    assert_eq!(client.status().unwrap().pending_groups, 51);
    assert_eq!(
        rows(&connection, "SELECT client, kind, note, total_minor FROM receipts WHERE id = 'r7'"),
        ["c7|sale|captured|700"]
    );
    assert_eq!(ask::<i64>(&connection, "SELECT count(*) FROM receipts"), 50);
    // Writing goes on under the new names.
    connection.execute("UPDATE receipts SET client = NULL WHERE id = 'r7'", []).unwrap();
    assert_eq!(client.status().unwrap().pending_groups, 52);
    assert_eq!(rows(&connection, "SELECT client FROM receipts WHERE id = 'r7'"), ["-"]);
    drop(client);
    let error = Client::open(Config { schema: Some(shop()), ..Config::new(&path) }).err().unwrap();
    assert_eq!(error.code(), "older_schema");
    let mut same = shop();
    same.version = 2;
    let error = Client::open(Config { schema: Some(same), ..Config::new(&path) }).err().unwrap();
    assert_eq!(error.code(), "same_schema_version");
    assert_eq!(ask::<i64>(&connection, "SELECT count(*) FROM receipts WHERE kind = 'sale'"), 50);
}

#[test]
fn a_file_that_had_no_schema_gets_tables_with_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let remote = Remote { server: "http://127.0.0.1:1".into(), space: crate::common::space() };
    let client = Client::create(Config::new(&path), &remote).unwrap();
    client.upsert("receipts", "r1", r#"{"total":"1.5"}"#).unwrap();
    client.upsert("elsewhere", "e1", r#"{"total":"1.5"}"#).unwrap();
    let client = Client::open(Config { schema: Some(shop()), ..Config::new(&path) }).unwrap();
    assert_eq!(rows(&app(&path), "SELECT id, total, total_minor FROM receipts"), ["r1|1.50|150"]);
    assert_eq!(client.status().unwrap().pending_groups, 2);
}

#[test]
fn a_schema_change_that_cannot_be_made_leaves_the_old_tables_and_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    drop(device(&path, shop()));
    let app = app(&path);
    app.execute_batch("CREATE TABLE customers(name); INSERT INTO stock(id, quantity) VALUES ('s1', 1)").unwrap();
    let newer =
        crate::common::app::SHOP.replace("version = 1", "version = 2") + "[entities.customers]\nfields.name = \"text\"\n";
    let newer = Schema::parse(&newer).unwrap();
    let error = Client::open(Config { schema: Some(newer), ..Config::new(&path) }).err().unwrap();
    assert_eq!(error.code(), "table_taken");
    app.execute("UPDATE stock SET quantity = quantity + 1", []).unwrap();
    let client = Client::open(Config { schema: Some(shop()), ..Config::new(&path) }).unwrap();
    assert_eq!(client.status().unwrap().pending_groups, 2);
    assert_eq!(rows(&app, "SELECT id, quantity FROM stock"), ["s1|2"]);
}

#[test]
fn a_program_that_brought_an_older_schema_is_told_so_and_one_that_brought_none_follows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("till.db");
    let old = device(&path, shop());
    let follower = Client::open(Config::new(&path)).unwrap();
    let mut newer = shop();
    newer.version = 2;
    let _new = Client::open(Config { schema: Some(newer), ..Config::new(&path) }).unwrap();
    follower.upsert("stock", "s1", r#"{"quantity":1}"#).unwrap();
    assert_eq!(follower.schema().unwrap().version, 2);
    assert_eq!(old.upsert("stock", "s2", r#"{"quantity":1}"#).unwrap_err().code(), "older_schema");
    assert_eq!(rows(&app(&path), "SELECT id FROM stock"), ["s1"]);
    let message = refused(&app(&path), "UPDATE stock SET id = 's9'");
    assert!(message.contains("cannot change"), "{message}");
}

/// Every table row by row against the JSON of the local view.
fn assert_tables_show_the_view(client: &Client) {
    for (table, column) in [("receipts", "total"), ("receipts", "note"), ("stock", "quantity"), ("payments", "amount")] {
        let differ = format!(
            "SELECT count(*) FROM (SELECT id, {column} AS v FROM {table}) AS t
               FULL OUTER JOIN (SELECT id, json_extract(payload, '$.{column}') AS v FROM gbsync_records WHERE entity = '{table}') AS r
                 ON r.id = t.id
              WHERE t.id IS NULL OR r.id IS NULL OR t.v IS NOT r.v"
        );
        let differ: i64 = client.with_reader(|db| db.query_row(&differ, [], |row| row.get(0))).unwrap();
        assert_eq!(differ, 0, "{table}.{column}");
    }
}
