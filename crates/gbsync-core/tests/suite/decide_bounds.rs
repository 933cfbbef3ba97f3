//! Deciding costs no more than its limits say, whatever rules and records look like.

use crate::space::Space;
use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::decide::Decision;
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{DeviceSeq, GroupId, GroupType, RecordKey, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::{Rejection, RejectionCode};
use std::time::{Duration, Instant};

const SHOP: &str = r#"
version = 1
[entities.receipts]
fields.lines = "json"
[entities.payments]
fields.receiptId = { type = "text", references = "receipts", on_delete = "cascade" }
[operations.void]
shape = { receipts = "1" }
[operations.scan]
[[operations.scan.invariants]]
name = "known-lines"
cel = "receipts.all(r, r.lines.all(x, r.lines[0] == 'a'))"
"#;

fn change(entity: &str, id: &str, edit: Edit, base: u64) -> Change {
    Change::new(RecordKey::new(entity, id).unwrap(), edit, Base { version: Seq(base), group: None }).unwrap()
}

fn group(id: &str, group_type: &str, changes: Vec<Change>) -> Group {
    let header = Header {
        id: GroupId::new(id).unwrap(),
        group_type: Some(GroupType::new(group_type).unwrap()),
        device_seq: DeviceSeq(1),
        actor: None,
        created_at: Timestamp::from_unix_ms(0),
        schema_version: 1,
        depends_on: Vec::new(),
        replaces: None,
        family: None,
        log: None,
        hlc: None,
        clears: Vec::new(),
    };
    Group::seal(header, changes, &Limits::default()).unwrap()
}

fn push(space: &mut Space, group: &Group) -> Decision {
    let standing = space.standing(group, None, 0);
    space.push(group, &standing)
}

/// A receipt with so many payments.
fn with_payments(count: usize) -> Space {
    let mut space = Space::new(Schema::parse(SHOP).unwrap());
    let receipt = change("receipts", "r", Edit::Upsert(Payload::from_stored("{}")), 0);
    let payment = |n| change("payments", &format!("p{n}"), Edit::Upsert(Payload::from_stored(r#"{"receiptId":"r"}"#)), 0);
    let changes = std::iter::once(receipt).chain((0..count).map(payment)).collect();
    assert!(matches!(push(&mut space, &group("made", "other", changes)), Decision::Accept(_)));
    // As after a restart: nothing is learnt yet.
    let mut restarted = Space::new(Schema::parse(SHOP).unwrap());
    (restarted.records, restarted.groups, restarted.head) = (space.records, space.groups, space.head);
    restarted
}

#[test]
fn a_delete_that_would_take_too_many_records_is_refused_before_they_are_loaded() {
    let mut space = with_payments(9);
    space.limits.group_records = 5;
    let delete = group("g", "void", vec![change("receipts", "r", Edit::Delete, 1)]);
    let Decision::Reject(Rejection { code, message, .. }) = push(&mut space, &delete) else { panic!("refused") };
    assert_eq!((code, message.contains("more than 5 records")), (RejectionCode::TooLarge, true), "{message}");
    assert_eq!(space.facts.record(&RecordKey::new("payments", "p1").unwrap()), None, "nobody asked for it");
    space.limits.group_records = 10;
    assert!(matches!(push(&mut space, &delete), Decision::Accept(_)));
}

/// Each look at a field makes its value of JSON: a rule that looks often at a large one must not take its time for free.
#[test]
fn a_rule_pays_for_the_size_of_what_it_looks_at() {
    let mut space = Space::new(Schema::parse(SHOP).unwrap());
    let lines = format!(r#"{{"lines":[{}"a"]}}"#, r#""a","#.repeat(60_000));
    let scan = |id: &str, lines: &str| {
        group(id, "scan", vec![change("receipts", id, Edit::Upsert(Payload::from_stored(lines)), 0)])
    };
    assert!(matches!(push(&mut space, &scan("few", r#"{"lines":["a","a","b"]}"#)), Decision::Accept(_)));
    let began = Instant::now();
    let Decision::Reject(Rejection { code, message, .. }) = push(&mut space, &scan("many", &lines)) else {
        panic!("cut off")
    };
    assert_eq!((code, message.contains("cut off")), (RejectionCode::InvariantViolation, true), "{message}");
    // Without that it would be minutes in a debug build.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
