//! Where refused groups meet plain SQL, sequences, large groups, newer schemas and new epochs.

use crate::common::app::{app, rows};
use crate::common::{Device, World, group, is_push, problem, state};
use gbsync_client::{Error, GroupFilter, GroupState, ParkedGroup, Sealed};

const SHOP: &str = r#"
version = 1
[entities.receipts]
fields.no = { type = "text", sequence = "receiptNo" }
fields.total = { type = "text", required = true }
fields.note = "text"
fields.extra = "json"
[entities.stock]
fields.quantity = { type = "integer", counter = true, min = 0 }
fields.name = "text"
[sequences.receiptNo]
per = "device"
format = "{device}-{n:06}"
"#;

fn parked(device: &Device) -> Vec<ParkedGroup> {
    device.client.parked().unwrap()
}

fn words(device: &Device) -> Vec<String> {
    device.states().into_iter().map(|(state, code)| code.unwrap_or_else(|| state.as_str().to_owned())).collect()
}

/// How many numbers of the device the server can account for.
fn accounted(world: &World, device: &Device) -> i64 {
    let server = rusqlite::Connection::open(world.folder.path().join("server/gbsync.db")).unwrap();
    let sql = "SELECT count(*) FROM numbers AS n JOIN devices AS d USING (space_no, epoch_no) WHERE d.device = ?1";
    server.query_row(sql, [device.client.status().unwrap().device.as_str()], |row| row.get(0)).unwrap()
}

fn no(device: &Device, id: &str) -> String {
    let payload: serde_json::Value = serde_json::from_str(&device.read("receipts", id).unwrap()).unwrap();
    payload["no"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_written_and_refused_while_a_page_is_on_its_way_is_parked_over_what_the_page_brings() {
    let world = World::under(SHOP);
    let (a, b) = (world.device_under("a", SHOP), world.device_under("b", SHOP));
    a.client.upsert("receipts", "r1", r#"{"total":"1"}"#).unwrap();
    a.sync();
    b.sync();
    a.client.patch("receipts", "r1", r#"{"note":"a"}"#).unwrap();
    a.sync();
    let writer = std::sync::Mutex::new(app(&world.path("b")));
    let mut is_written = false;
    b.transport.plan(move |request| {
        if request.path.contains("/log?") && !std::mem::replace(&mut is_written, true) {
            let bad = "UPDATE receipts SET note = 'b', extra = 'no json'; UPDATE receipts SET total = '2';
                       INSERT INTO stock(id, quantity) VALUES ('s1', 3);";
            writer.lock().unwrap().execute_batch(bad).unwrap();
        }
        crate::common::Fault::Pass
    });
    b.sync();
    b.transport.heal();
    b.sync();
    let seen = app(&world.path("b"));
    assert_eq!(words(&b), ["schema_violation", "dependency_rejected", "accepted"]);
    assert_eq!(rows(&seen, "SELECT total, note FROM receipts"), ["1|a"]);
    assert_eq!(rows(&seen, "SELECT total, note, sync_state FROM receipts_all"), ["1|a|-", "1|b|parked", "2|-|parked"]);
    assert_eq!(parked(&b)[0].changes[0].base.as_ref().map(|base| base.as_str().contains("note")), Some(false));
    b.client.amend::<Error>(&parked(&b)[0].group.group_id, |op| op.patch("receipts", "r1", r#"{"note":"b"}"#)).unwrap();
    b.sync();
    b.sync();
    assert_eq!(rows(&seen, "SELECT total, note, sync_state FROM receipts_all"), ["2|b|-"]);
    assert_eq!((b.digest(), accounted(&world, &b)), (world.digest(), 5));
}

#[test]
fn a_number_is_taken_when_a_captured_sale_is_amended_and_kept_when_it_is_retried() {
    let world = World::under(SHOP);
    let (a, b) = (world.device_under("a", SHOP), world.device_under("b", SHOP));
    a.client.upsert("stock", "roll", r#"{"quantity":1}"#).unwrap();
    a.sync();
    b.sync();
    let writer = app(&world.path("b"));
    let sale = |id: &str, extra: &str| {
        format!(
            "BEGIN; INSERT INTO gbsync_operation(type, root) VALUES ('sale', '{id}');
             INSERT INTO receipts(id, total, extra) VALUES ('{id}', '1', '{extra}');
             UPDATE stock SET quantity = quantity - 1; DELETE FROM gbsync_operation; COMMIT;"
        )
    };
    writer.execute_batch(&sale("r1", "no json")).unwrap();
    assert_eq!(parked(&b).len(), 1);
    let write = |op: &mut gbsync_client::Operation| {
        op.upsert("receipts", "r1", r#"{"total":"1"}"#)?;
        op.increment("stock", "roll", r#"{"quantity":-1}"#)
    };
    b.client.amend::<Error>(&parked(&b)[0].group.group_id, write).unwrap();
    let first = no(&b, "r1");
    assert!(first.ends_with("-000001"), "{first}");
    // Somebody else sold the last one.
    a.client.increment("stock", "roll", r#"{"quantity":-1}"#).unwrap();
    a.sync();
    assert_eq!(b.sync().parked[0].code.as_deref(), Some("bound_violation"));
    a.client.increment("stock", "roll", r#"{"quantity":5}"#).unwrap();
    a.sync();
    b.sync();
    writer.execute_batch(&sale("r2", "{}")).unwrap();
    assert!(no(&b, "r2").ends_with("-000002"));
    b.client.retry(&parked(&b)[0].group.group_id).unwrap();
    b.sync();
    assert_eq!(no(&b, "r1"), first);
    assert_eq!(rows(&writer, "SELECT quantity FROM stock"), ["3"]);
    b.sync();
    assert_eq!((b.digest(), accounted(&world, &b)), (world.digest(), 4));
}

#[test]
fn a_discarded_captured_operation_is_accounted_for_under_its_number_also_in_a_new_epoch() {
    let world = World::under(SHOP);
    let b = world.device_under("b", SHOP);
    let writer = app(&world.path("b"));
    writer
        .execute_batch(
            "INSERT INTO receipts(id, total, extra) VALUES ('r1', '1', 'no json'); UPDATE receipts SET note = 'n';
             INSERT INTO stock(id, quantity) VALUES ('s1', 3);",
        )
        .unwrap();
    let (first, second) = (parked(&b)[0].clone(), parked(&b)[1].clone());
    b.client.discard(&first.group.group_id, "a slip").unwrap();
    b.client.discard(&second.group.group_id, "a slip").unwrap();
    let mut refusal = Some(problem(409, "epoch_reused", None));
    b.transport.plan(move |request| match is_push(request) || request.path.ends_with("/discard") {
        true if is_push(request) => refusal.take().map_or(crate::common::Fault::Pass, crate::common::Fault::Answer),
        true if refusal.is_some() => crate::common::Fault::DropRequest,
        _ => crate::common::Fault::Pass,
    });
    b.sync();
    b.sync();
    assert_eq!(words(&b), ["schema_violation", "dependency_rejected", "accepted"]);
    assert_eq!(
        group(&b, &Sealed { group_id: first.group.group_id, device_seq: first.group.device_seq }).state,
        GroupState::Discarded
    );
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_discard"), 0);
    // Two numbers of the old epoch and one of the new.
    let server = rusqlite::Connection::open(world.folder.path().join("server/gbsync.db")).unwrap();
    let known: i64 = server.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)).unwrap();
    assert_eq!(known, 3);
}

#[test]
fn dependents_of_an_older_schema_come_back_in_the_names_of_the_newer_one() {
    let newer = SHOP
        .replace("version = 1", "version = 2")
        .replace("fields.note = \"text\"", "fields.remark = { type = \"text\", was = \"note\" }");
    let mut world = World::under(SHOP);
    let b = world.device_under("b", SHOP);
    let writer = app(&world.path("b"));
    writer
        .execute_batch(
            "INSERT INTO receipts(id, total, extra) VALUES ('r1', '1', 'no json'); UPDATE receipts SET note = 'n';
             UPDATE receipts SET total = '2';",
        )
        .unwrap();
    b.sync();
    drop(b);
    world.renew(&newer);
    let b = world.reopen_under("b", &newer);
    assert_eq!(
        rows(&writer, "SELECT total, remark, sync_state FROM receipts_all ORDER BY 1, 2"),
        ["-|n|parked", "1|-|parked", "2|-|parked"]
    );
    b.client.amend::<Error>(&parked(&b)[0].group.group_id, |op| op.upsert("receipts", "r1", r#"{"total":"1"}"#)).unwrap();
    b.sync();
    b.sync();
    assert_eq!(rows(&writer, "SELECT total, remark FROM receipts"), ["2|n"]);
    assert_eq!((b.digest(), parked(&b).len()), (world.digest(), 0));
}

#[test]
fn a_large_group_that_is_refused_is_retried_in_parts_and_its_dependents_follow() {
    let world = World::with(|config| {
        config.limits.request_bytes = 4_000;
        config.limits.batch_bytes = 1_000;
        config.schema = Some(gbsync_core::schema::Schema::parse(SHOP).unwrap());
    });
    let (a, b) = (world.device_under("a", SHOP), world.device_under("b", SHOP));
    a.client.upsert("receipts", "r7", r#"{"total":"7"}"#).unwrap();
    a.sync();
    b.sync();
    a.client.patch("receipts", "r7", r#"{"note":"a"}"#).unwrap();
    let writer = app(&world.path("b"));
    let values: Vec<String> = (0..200).map(|n| format!("('r{n}', '{n}', 'a rather long note of this receipt')")).collect();
    writer
        .execute_batch(&format!(
            "BEGIN; INSERT INTO gbsync_operation(type, root) VALUES ('import', 'all');
             INSERT INTO receipts(id, total, note) VALUES {} ON CONFLICT(id) DO UPDATE SET note = excluded.note;
             DELETE FROM gbsync_operation; COMMIT; UPDATE receipts SET note = 'after' WHERE id = 'r9';",
            values.join(", ")
        ))
        .unwrap();
    a.sync();
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len()), (0, 2));
    assert_eq!(b.query::<i64>("SELECT (SELECT count(*) FROM receipts) + 1000 * (SELECT count(*) FROM gbsync_upload)"), 1);
    assert_eq!(rows(&writer, "SELECT count(*), count(DISTINCT sync_state) FROM receipts_all"), ["202|1"]);
    let groups = b.client.groups(GroupFilter::Parked, 9).unwrap();
    assert_eq!(groups[0].code.as_deref(), Some("conflict"));
    b.client.retry(&groups[0].group_id).unwrap();
    b.sync();
    b.sync();
    assert_eq!((parked(&b).len(), b.digest()), (0, world.digest()));
    assert_eq!(rows(&writer, "SELECT note FROM receipts_all WHERE id = 'r9'"), ["after"]);
    assert_eq!(accounted(&world, &b), 4);
}

#[test]
fn a_verdict_that_comes_while_a_program_writes_on_top_parks_what_it_wrote() {
    let world = World::under(SHOP);
    let (a, b) = (world.device_under("a", SHOP), world.device_under("b", SHOP));
    for (device, total) in [(&a, "1"), (&b, "2")] {
        device.client.upsert("receipts", "r1", format!(r#"{{"total":"{total}","no":"{total}"}}"#)).unwrap();
    }
    a.sync();
    let writer = std::sync::Mutex::new(app(&world.path("b")));
    let mut is_written = false;
    b.transport.plan(move |request| {
        if is_push(request) && !std::mem::replace(&mut is_written, true) {
            let on_top = "UPDATE receipts SET note = 'on top'; INSERT INTO stock(id, quantity) VALUES ('s' || random(), 1);";
            writer.lock().unwrap().execute_batch(on_top).unwrap();
        }
        crate::common::Fault::Pass
    });
    b.try_sync().unwrap();
    b.transport.heal();
    b.sync();
    let words = words(&b);
    assert_eq!((words[0].as_str(), words[1].as_str(), words[2].as_str()), ("conflict", "dependency_rejected", "accepted"));
    assert_eq!(
        b.read("receipts", "r1").unwrap(),
        r#"{"no":"1","note":"on top","total":"1"}"#.replace(r#""note":"on top","#, "")
    );
    assert_eq!(b.digest(), world.digest());
    let first = b.client.groups(GroupFilter::All, 1).unwrap().remove(0);
    assert_eq!(state(&b, &Sealed { group_id: first.group_id, device_seq: first.device_seq }), GroupState::Parked);
}
