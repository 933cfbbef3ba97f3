//! Apps and servers of different schema versions: nothing is dropped, and the view is right before, during and after.

use crate::common::{Device, Fault, World};
use gbsync_client::GroupState;
use gbsync_core::wire::OperationLine;

const ONE: &str = r#"
version = 1
[entities.customers]
fields.tel = "text"
fields.visits = { type = "integer", counter = true }
"#;
const THREE: &str = r#"
version = 3
[entities.customers]
fields.phone = { type = "text", was = "tel", since = 2 }
fields.visits = { type = "integer", counter = true }
fields.active = { type = "boolean", required = true, default = true, since = 3 }
"#;

fn tel(device: &Device, id: &str) -> Option<String> {
    device.query(&format!("SELECT tel FROM customers WHERE id = '{id}'"))
}

fn keep_pushes_back(device: &Device) {
    device.transport.plan(|request| match crate::common::is_push(request) {
        true => Fault::DropRequest,
        false => Fault::Pass,
    });
}

#[test]
fn a_device_on_schema_1_with_a_thousand_groups_meets_a_server_on_schema_3() {
    let mut world = World::under(ONE);
    let a = world.device_under("a", ONE);
    a.client.upsert("customers", "old", r#"{"tel":"1","visits":0}"#).unwrap();
    a.sync();
    drop(a);
    world.renew(THREE);
    let a = world.reopen_under("a", ONE);
    let line = |n: usize| {
        let line = format!(
            r#"{{"type":"visit","root":"c{n}","changes":[{{"entity":"customers","id":"c{n}","action":"upsert","payload":{{"tel":"t{n}"}}}},
               {{"entity":"customers","id":"old","action":"increment","payload":{{"visits":1}}}}]}}"#
        );
        OperationLine::parse(&line, &a.client.limits()).unwrap()
    };
    assert!(a.client.apply(&(0..1_000).map(line).collect::<Vec<_>>()).unwrap().failed.is_none());
    a.client.patch("customers", "old", r#"{"tel":"2"}"#).unwrap();
    let is_right = |device: &Device| {
        assert_eq!((tel(device, "old"), tel(device, "c7")), (Some("2".into()), Some("t7".into())));
        assert_eq!(device.query::<i64>("SELECT visits FROM customers WHERE id = 'old'"), 1_000);
        assert_eq!(device.query::<i64>("SELECT count(*) FROM customers"), 1_001);
        let read = device.read("customers", "old").unwrap();
        assert!(read.contains(r#""tel":"2""#) && !read.contains("phone"), "{read}");
    };
    is_right(&a);
    keep_pushes_back(&a);
    a.try_sync().unwrap_err();
    is_right(&a);
    // Writing goes on in the app's names.
    a.client.patch("customers", "c7", r#"{"tel":"t7"}"#).unwrap();
    is_right(&a);
    a.transport.heal();
    assert_eq!(a.sync().accepted, 1_002);
    is_right(&a);
    assert!(a.states().iter().all(|(state, _)| *state == GroupState::Accepted));
    assert_eq!(a.digest(), world.digest());
    let base: String = a.query("SELECT payload FROM gbsync_base WHERE id = 'c7'");
    assert_eq!(base, r#"{"active":true,"phone":"t7"}"#);
    assert!(a.transport.pushes().concat().contains(r#""payload":{"tel":"t7"}"#), "the bytes are in the app's names");
}

#[test]
fn the_schema_of_the_server_is_fetched_once_a_version() {
    let world = World::under(THREE);
    let a = world.device_under("a", ONE);
    a.sync();
    a.sync();
    world.reopen_under("a", ONE).sync();
    let asked = |device: &Device| {
        let sent = device.transport.sent.lock().unwrap();
        sent.iter().filter(|request| request.path.ends_with("/schema")).count()
    };
    assert_eq!(asked(&a), 1);
    let b = world.device_under("b", THREE);
    b.sync();
    assert_eq!(asked(&b), 0);
}

#[test]
fn an_app_that_is_upgraded_offline_with_a_full_outbox_drops_nothing() {
    let mut world = World::under(ONE);
    let a = world.device_under("a", ONE);
    a.client.upsert("customers", "old", r#"{"tel":"1"}"#).unwrap();
    a.sync();
    for n in 0..20 {
        a.client.upsert("customers", &format!("c{n}"), format!(r#"{{"tel":"t{n}"}}"#)).unwrap();
    }
    a.client.patch("customers", "old", r#"{"tel":"2"}"#).unwrap();
    drop(a);
    let a = world.reopen_under("a", THREE);
    let is_right = |device: &Device| {
        for (id, phone) in [("old", "3"), ("c7", "t7")] {
            let sql = format!("SELECT phone || ' ' || active FROM customers WHERE id = '{id}'");
            assert_eq!(device.query::<String>(&sql), format!("{phone} 1"));
        }
        let read = device.read("customers", "old").unwrap();
        assert!(read.contains(r#""phone":"3""#) && !read.contains("tel"), "{read}");
    };
    a.client.patch("customers", "old", r#"{"phone":"3"}"#).unwrap();
    is_right(&a);
    // The server is older: what the old app made is accepted, what the new one made waits for it.
    let report = a.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (21, 0, 1));
    is_right(&a);
    drop(a);
    world.renew(THREE);
    let a = world.reopen_under("a", THREE);
    is_right(&a);
    assert_eq!(a.sync().accepted, 1);
    is_right(&a);
    assert_eq!(a.digest(), world.digest());
}

/// The round shook hands before the server got its schema, and reads the log after.
#[test]
fn a_page_in_new_names_waits_until_the_device_knows_them() {
    let mut world = World::under(ONE);
    let a = world.device_under("a", ONE);
    a.client.upsert("customers", "old", r#"{"tel":"1","visits":0}"#).unwrap();
    a.sync();
    let log: String = a.query("SELECT log FROM gbsync_state");
    let handshake = include_str!("../../../../vectors/wire/handshake-of-an-actor.json");
    let before = gbsync_client::Response {
        status: 200,
        content_type: Some("application/json".into()),
        retry_after_ms: None,
        body: handshake
            .replace("log-1", &log)
            .replace(r#""schemaVersion":0,"head":0"#, r#""schemaVersion":1,"head":1"#)
            .into(),
    };
    drop(a);
    world.renew(THREE);
    let a = world.reopen_under("a", ONE);
    a.client.patch("customers", "old", r#"{"tel":"2"}"#).unwrap();
    let mut is_first = true;
    a.transport.plan(move |request| match request.path.contains("?device=") && std::mem::take(&mut is_first) {
        true => Fault::Answer(before.clone()),
        false => Fault::Pass,
    });
    a.sync();
    assert_eq!(tel(&a, "old").as_deref(), Some("2"));
    assert_eq!(a.digest(), world.digest());
}

/// The same, where the records come as a snapshot: the device's handshake was before the server got its schema.
#[test]
fn a_snapshot_in_new_names_waits_until_the_device_knows_them() {
    let mut world = World::under(ONE);
    let author = world.device_under("author", ONE);
    author.client.upsert("customers", "old", r#"{"tel":"1","visits":0}"#).unwrap();
    author.sync();
    let log: String = author.query("SELECT log FROM gbsync_state");
    drop(author);
    world.renew(THREE);
    let handshake = include_str!("../../../../vectors/wire/handshake-of-an-actor.json");
    let before = gbsync_client::Response {
        status: 200,
        content_type: Some("application/json".into()),
        retry_after_ms: None,
        body: handshake
            .replace("log-1", &log)
            .replace(r#""schemaVersion":0,"head":0"#, r#""schemaVersion":1,"head":1"#)
            .into(),
    };
    let mut a = world.device_under("a", ONE);
    a.options.snapshot_groups = 1;
    let mut is_first = true;
    a.transport.plan(move |request| match request.path.contains("?device=") && std::mem::take(&mut is_first) {
        true => Fault::Answer(before.clone()),
        false => Fault::Pass,
    });
    // Nothing of it shows; the next round shakes hands and goes on with what was loaded.
    let error = a.try_sync().unwrap_err();
    assert!(matches!(error, gbsync_client::SyncError::NotReached { .. }), "{error}");
    assert_eq!(a.query::<u64>("SELECT count(*) FROM customers"), 0);
    a.sync();
    assert_eq!(tel(&a, "old").as_deref(), Some("1"));
    assert_eq!(a.transport.downloads.lock().unwrap().len(), 1);
    assert_eq!(a.digest(), world.digest());
}
