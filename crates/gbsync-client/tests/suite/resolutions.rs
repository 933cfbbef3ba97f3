//! What the back office decides about a refused group reaches the device that made it, and the first to close stands.

use crate::common::{Fault, World, group, is_push, refused_with_three_dependents, state};
use gbsync_client::{Error, GroupState};

/// Gives the payment of the refused receipt a record to stand on.
const AMENDED: &str = r#"{"changes":[{"entity":"payments","id":"p-r1","action":"upsert","payload":{"amount":"9.00"}}],
    "reason":"the receipt was there already"}"#;

#[test]
fn an_amendment_by_the_back_office_closes_the_copy_of_the_device_and_brings_the_dependents_back() {
    let world = World::new();
    let (a, b, sealed) = refused_with_three_dependents(&world);
    let (status, answer) = world.close(&sealed[0].group_id, "amend", AMENDED);
    assert_eq!(status, 200, "{answer}");
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (3, 0, 0));
    let closed = group(&b, &sealed[0]);
    assert_eq!((closed.state, closed.code.as_deref()), (GroupState::Replaced, Some("conflict")));
    assert_eq!(closed.reason.as_deref(), Some("the receipt was there already"));
    let by: String =
        b.query("SELECT closed_by || replaced_by FROM gbsync_group WHERE replaced_by LIKE 'receipt-create:p-r1:%'");
    assert!(by.starts_with("annreceipt-create:p-r1:"), "{by}");
    assert_eq!(b.client.changes_of(&sealed[0].group_id).unwrap().len(), 2, "its payload stays");
    assert_eq!(b.read("notes", "n1").unwrap(), r#"{"edits":2}"#);
    assert_eq!(b.read("payments", "p-r1").unwrap(), r#"{"amount":"9.00","note":"x"}"#);
    a.sync();
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.digest(), world.digest());
}

#[test]
fn a_discard_by_the_back_office_leaves_the_dependents_to_a_person_and_a_compensation_frees_them() {
    for (verb, body, first, requeued) in [
        ("discard", r#"{"reason":"not ours"}"#.to_owned(), GroupState::Discarded, 0),
        ("compensate", AMENDED.replacen('{', r#"{"type":"payback","root":"r1","#, 1), GroupState::Compensated, 3),
    ] {
        let world = World::new();
        let (_, b, sealed) = refused_with_three_dependents(&world);
        assert_eq!(world.close(&sealed[0].group_id, verb, &body).0, 200);
        assert_eq!(b.sync().accepted, requeued, "{verb}");
        assert_eq!(state(&b, &sealed[0]), first);
        let dependents = if requeued == 0 { GroupState::Parked } else { GroupState::Replaced };
        assert!(sealed[1..].iter().all(|sealed| state(&b, sealed) == dependents), "{verb}");
        assert_eq!(b.client.retry(&sealed[0].group_id).unwrap_err().code(), "not_parked");
        assert_eq!(b.digest(), world.digest());
    }
}

#[test]
fn an_amendment_of_the_device_that_comes_too_late_is_closed_and_kept() {
    let world = World::new();
    let (_, b, sealed) = refused_with_three_dependents(&world);
    let late = b.client.amend::<Error>(&sealed[0].group_id, |op| op.upsert("receipts", "r9", "{}")).unwrap();
    let on_it = b.client.patch("receipts", "r9", r#"{"note":"mine"}"#).unwrap();
    let gbsync_client::Written::Sealed(on_it) = on_it else { panic!("it stands alone") };
    assert_eq!(world.close(&sealed[0].group_id, "amend", AMENDED).0, 200);
    let report = b.sync();
    assert_eq!(report.accepted, 3, "the dependents of the first follow what the back office made");
    let closed = group(&b, &late);
    assert_eq!((closed.state, closed.code.as_deref()), (GroupState::Replaced, Some("already_replaced")));
    assert_eq!((closed.closed_by.unwrap().as_str(), closed.replaced_by), ("ann", group(&b, &sealed[0]).replaced_by));
    assert_eq!(b.client.changes_of(&late.group_id).unwrap().len(), 1, "its payload stays");
    assert_eq!(state(&b, &on_it), GroupState::Parked, "what was made on it cannot be laid without it");
    assert_eq!(b.read("receipts", "r9"), None);
    assert_eq!(b.digest(), world.digest());
    let (status, answer) = world.close(&sealed[0].group_id, "discard", r#"{"reason":"x"}"#);
    assert_eq!(status, 409, "{answer}");
}

#[test]
fn a_device_that_amends_first_leaves_nothing_for_the_back_office() {
    let world = World::new();
    let (_, b, sealed) = refused_with_three_dependents(&world);
    let amended = b.client.amend::<Error>(&sealed[0].group_id, |op| op.upsert("receipts", "r9", "{}")).unwrap();
    b.sync();
    let (status, answer) = world.close(&sealed[0].group_id, "amend", AMENDED);
    assert_eq!(status, 409);
    assert!(answer.contains(r#""code":"already_closed""#) && answer.contains(amended.group_id.as_str()), "{answer}");
    assert_eq!(state(&b, &amended), GroupState::Accepted);
}

#[test]
fn a_resolution_that_arrives_before_the_verdict_closes_the_group_when_that_comes() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.sync();
    let refused = b.receipt("r1", "9.00");
    b.transport.plan(|request| if is_push(request) { Fault::DropAnswer } else { Fault::Pass });
    assert!(b.try_sync().is_err());
    assert_eq!(world.close(&refused.group_id, "discard", r#"{"reason":"not ours"}"#).0, 200);
    assert!(b.try_sync().is_err(), "the log comes through, the verdict does not");
    assert_eq!(state(&b, &refused), GroupState::Sealed, "it may still be on its way");
    b.transport.heal();
    assert_eq!(b.sync().parked.len(), 0);
    let closed = group(&b, &refused);
    assert_eq!((closed.state, closed.reason.as_deref()), (GroupState::Discarded, Some("not ours")));
    assert_eq!(closed.closed_by.unwrap().as_str(), "ann");
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_discard"), 0);
}

#[test]
fn nothing_that_was_ever_sealed_disappears_and_the_server_can_account_for_each_number() {
    let world = World::new();
    let (_, b, sealed) = refused_with_three_dependents(&world);
    // Behind a parked group: never sent under its own number.
    let behind = b
        .client
        .operation::<Error>("note", "n2", |op| {
            op.depends_on(sealed[0].group_id.clone());
            op.upsert("notes", "n2", "{}")
        })
        .unwrap();
    assert_eq!(state(&b, &behind), GroupState::Parked);
    b.client.discard(&sealed[3].group_id, "one edit too many").unwrap();
    assert_eq!(world.close(&sealed[0].group_id, "amend", AMENDED).0, 200);
    b.sync();
    b.sync();
    let through = b.client.status().unwrap().sealed_through.0;
    assert_eq!(b.query::<u64>("SELECT count(DISTINCT device_seq) FROM gbsync_group"), through);
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_group WHERE state IN ('sealed', 'parked')"), 0);
    let server = rusqlite::Connection::open(world.folder.path().join("server/gbsync.db")).unwrap();
    let sql = "SELECT count(*) FROM numbers AS n JOIN devices AS d USING (space_no, epoch_no) WHERE d.device = ?1";
    let device = b.client.status().unwrap().device;
    let known: u64 = server.query_row(sql, [device.as_str()], |row| row.get(0)).unwrap();
    assert_eq!(known, through, "no number is missing there");
}
