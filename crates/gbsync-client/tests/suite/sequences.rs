//! Numbers that are allotted when an operation is sealed: never one twice.

use crate::common::{Device, World};
use gbsync_client::Error;
use std::collections::BTreeSet;

const SCHEMA: &str = r#"
version = 1
[entities.receipts]
unique = [["no"]]
fields.no = { type = "text", required = true, sequence = "receiptNo" }
fields.total = "text"
[sequences.receiptNo]
per = "device"
format = "{device}-{n:06}"
"#;

fn sell(device: &Device, id: &str) -> String {
    device.client.operation::<Error>("sale", id, |op| op.upsert("receipts", id, r#"{"total":"1"}"#)).unwrap();
    no(device, id)
}

fn no(device: &Device, id: &str) -> String {
    let payload: serde_json::Value = serde_json::from_str(&device.read("receipts", id).unwrap()).unwrap();
    payload["no"].as_str().unwrap().to_owned()
}

#[test]
fn a_record_that_an_operation_makes_without_its_number_gets_the_next_one() {
    let world = World::under(SCHEMA);
    let (a, b) = (world.device_under("a", SCHEMA), world.device_under("b", SCHEMA));
    let first = sell(&a, "r1");
    assert_eq!((first.len(), first.ends_with("-000001")), (13, true), "{first}");
    assert_eq!(sell(&a, "r2"), format!("{}-000002", &first[..6]));
    assert_ne!(sell(&b, "r3")[..6], first[..6]);
    a.client.operation::<Error>("sale", "r4", |op| op.upsert("receipts", "r4", r#"{"no":"by hand"}"#)).unwrap();
    a.client.operation::<Error>("edit", "r1", |op| op.patch("receipts", "r1", r#"{"total":"2"}"#)).unwrap();
    assert_eq!((no(&a, "r4"), no(&a, "r1")), ("by hand".to_owned(), first));
    a.sync();
    b.sync();
    assert_eq!(a.states().len() + b.states().len(), 5);
    assert_eq!(no(&b, "r2"), no(&a, "r2"));
}

#[test]
fn an_operation_that_is_not_sealed_takes_no_number_and_a_refused_one_keeps_its_own() {
    let world = World::under(SCHEMA);
    let (a, b) = (world.device_under("a", SCHEMA), world.device_under("b", SCHEMA));
    let write = |op: &mut gbsync_client::Operation| {
        op.upsert("receipts", "r0", r#"{"total":"1"}"#)?;
        op.upsert("unknown", "u", "{}")
    };
    a.client.operation::<Error>("sale", "r0", write).unwrap_err();
    sell(&b, "r1");
    b.sync();
    // Two devices make the same record: the later one is refused, and its number is gone with it.
    let first = sell(&a, "r1");
    assert!(first.ends_with("-000001"));
    assert_eq!(a.sync().parked.len(), 1);
    assert!(sell(&a, "r2").ends_with("-000002"));
}

#[test]
fn a_tablet_restored_from_yesterdays_copy_reuses_no_number_offline_or_online() {
    let world = World::under(SCHEMA);
    let path = world.path("a");
    let a = world.device_under("a", SCHEMA);
    sell(&a, "r1");
    a.sync();
    drop(a);
    std::fs::copy(&path, world.path("yesterday")).unwrap();
    let a = world.reopen_under("a", SCHEMA);
    let mut printed: BTreeSet<String> = ["r2", "r3"].map(|id| sell(&a, id)).into();
    a.sync();
    printed.insert(sell(&a, "r4"));
    drop(a);
    // Put in the place of the old file, which keeps its inode.
    std::fs::copy(world.path("yesterday"), &path).unwrap();
    let a = world.reopen_under("a", SCHEMA);
    for id in ["r5", "r6", "r7"] {
        assert!(printed.insert(sell(&a, id)), "{printed:?}");
    }
    a.sync();
    assert!(printed.insert(sell(&a, "r8")), "{printed:?}");
    a.sync();
    assert!(a.states().iter().all(|(state, _)| *state == gbsync_client::GroupState::Accepted), "{:?}", a.states());
    assert_eq!(a.query::<i64>("SELECT count(DISTINCT json_extract(payload, '$.no')) FROM gbsync_base"), 7);
    assert_eq!(a.digest(), world.digest());
}

#[test]
fn a_copy_beside_the_original_gives_numbers_of_its_own() {
    let world = World::under(SCHEMA);
    let a = world.device_under("a", SCHEMA);
    let first = sell(&a, "r1");
    drop(a);
    std::fs::copy(world.path("a"), world.path("b")).unwrap();
    let (a, b) = (world.reopen_under("a", SCHEMA), world.reopen_under("b", SCHEMA));
    assert_eq!(sell(&a, "r2")[..6], first[..6]);
    assert_ne!(sell(&b, "r3")[..6], first[..6]);
    a.sync();
    b.sync();
    a.sync();
    assert_eq!((a.digest(), b.digest()), (world.digest(), world.digest()));
}

#[test]
fn a_file_that_is_only_opened_again_keeps_its_epoch() {
    let world = World::under(SCHEMA);
    let a = world.device_under("a", SCHEMA);
    let (first, epoch) = (sell(&a, "r1"), a.client.status().unwrap().epoch);
    for id in ["r2", "r3"] {
        let again = world.reopen_under("a", SCHEMA);
        assert_eq!(sell(&again, id)[..6], first[..6]);
        again.sync();
        assert_eq!(again.client.status().unwrap().epoch, epoch);
    }
}

#[test]
fn numbers_go_on_above_what_the_server_knows_of_the_device() {
    let world = World::under(SCHEMA);
    let a = world.device_under("a", SCHEMA);
    for id in ["r1", "r2"] {
        sell(&a, id);
    }
    a.sync();
    rusqlite::Connection::open(world.path("a")).unwrap().execute("DELETE FROM gbsync_sequence", []).unwrap();
    a.sync();
    assert!(sell(&a, "r3").ends_with("-000003"));
}
