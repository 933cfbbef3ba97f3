//! Deletes that follow from deletes, in the local view.

use crate::common::{Device, World};
use gbsync_client::Error;

const SCHEMA: &str = r#"
version = 1
[entities.receipts]
fields.total = "text"
[entities.lines]
fields.receiptId = { type = "text", references = "receipts", on_delete = "cascade" }
[entities.notes]
fields.lineId = { type = "text", references = "lines", on_delete = "cascade" }
"#;

fn shop() -> (World, Device, Device) {
    let world = World::under(SCHEMA);
    let (a, b) = (world.device_under("a", SCHEMA), world.device_under("b", SCHEMA));
    a.client
        .operation::<Error>("create", "r1", |op| {
            op.upsert("receipts", "r1", r#"{"total":"1"}"#)?;
            op.upsert("lines", "l1", r#"{"receiptId":"r1"}"#)?;
            op.upsert("notes", "n1", r#"{"lineId":"l1"}"#)
        })
        .unwrap();
    a.sync();
    b.sync();
    (world, a, b)
}

fn is_shown(device: &Device) -> [bool; 3] {
    [("receipts", "r1"), ("lines", "l1"), ("notes", "n1")].map(|(entity, id)| device.read(entity, id).is_some())
}

#[test]
fn a_delete_takes_along_what_refers_to_the_record_before_the_server_says_so() {
    let (world, a, b) = shop();
    a.client.delete("receipts", "r1").unwrap();
    assert_eq!(is_shown(&a), [false; 3]);
    a.sync();
    b.sync();
    assert_eq!((is_shown(&a), is_shown(&b)), ([false; 3], [false; 3]));
    assert_eq!(a.query::<i64>("SELECT count(*) FROM gbsync_overlay"), 0);
    assert_eq!((a.digest(), b.digest()), (world.digest(), world.digest()));
}

#[test]
fn what_was_taken_along_comes_back_with_the_group_that_is_refused() {
    let (world, a, b) = shop();
    b.client.patch("receipts", "r1", r#"{"total":"2"}"#).unwrap();
    b.sync();
    a.client.delete("receipts", "r1").unwrap();
    assert_eq!(is_shown(&a), [false; 3]);
    assert_eq!(a.sync().parked[0].code.as_deref(), Some("conflict"));
    assert_eq!(is_shown(&a), [true; 3]);
    assert_eq!(a.query::<i64>("SELECT count(*) FROM gbsync_overlay"), 0);
    assert_eq!(a.digest(), world.digest());
}

#[test]
fn a_record_that_a_pull_brings_follows_the_delete_that_waits_here() {
    let (world, a, b) = shop();
    a.client.delete("receipts", "r1").unwrap();
    b.client.upsert("lines", "l2", r#"{"receiptId":"r1"}"#).unwrap();
    b.client.upsert("notes", "n2", r#"{"lineId":"l2"}"#).unwrap();
    b.sync();
    // Nothing gets out of this device, and everything in.
    a.transport.plan(|request| match crate::common::is_push(request) {
        true => crate::common::Fault::DropRequest,
        false => crate::common::Fault::Pass,
    });
    a.try_sync().unwrap_err();
    assert_eq!(is_shown(&a), [false; 3]);
    assert_eq!((a.read("lines", "l2"), a.read("notes", "n2")), (None, None));
    a.transport.heal();
    a.sync();
    b.sync();
    assert_eq!((a.read("lines", "l2"), b.read("notes", "n2")), (None, None));
    assert_eq!((a.digest(), b.digest()), (world.digest(), world.digest()));
}

#[test]
fn a_record_that_moved_away_meanwhile_is_there_again() {
    let (world, a, b) = shop();
    b.client.upsert("receipts", "r2", r#"{"total":"2"}"#).unwrap();
    b.client.patch("lines", "l1", r#"{"receiptId":"r2"}"#).unwrap();
    b.sync();
    a.client.delete("receipts", "r1").unwrap();
    a.sync();
    assert_eq!(is_shown(&a), [false, true, true]);
    assert_eq!(a.query::<i64>("SELECT count(*) FROM gbsync_overlay"), 0);
    assert_eq!(a.digest(), world.digest());
}
