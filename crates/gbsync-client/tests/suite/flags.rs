//! Soft rules that accepted groups broke: shown on every device until an operation clears them.

use crate::common::{Device, World};
use gbsync_client::Error;

const SCHEMA: &str = r#"
version = 1
[entities.stock]
fields.quantity = { type = "integer", counter = true, min = 0, on_violation = "flag" }
[entities.notes]
fields.text = "text"
"#;

fn sell(device: &Device, root: &str) {
    device.client.operation::<Error>("sale", root, |op| op.increment("stock", "roll", r#"{"quantity":-1}"#)).unwrap();
}

fn flags(device: &Device) -> Vec<(String, String, String, String)> {
    let sql = "SELECT flag_id, code, rule, entity || ':' || id FROM gbsync_flag ORDER BY seq";
    let rows = |db: &rusqlite::Connection| {
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        rows.collect::<Result<Vec<_>, _>>()
    };
    device.client.with_reader(rows).unwrap()
}

#[test]
fn of_two_offline_sales_of_the_last_item_both_are_accepted_and_one_carries_a_flag_everywhere() {
    let world = World::under(SCHEMA);
    let [a, b, c] = ["a", "b", "c"].map(|name| world.device_under(name, SCHEMA));
    a.client.upsert("stock", "roll", r#"{"quantity":1}"#).unwrap();
    a.sync();
    b.sync();
    sell(&a, "s-a");
    sell(&b, "s-b");
    a.sync();
    assert_eq!(b.sync().accepted, 1);
    a.sync();
    c.sync();
    let flag =
        |name: &str| (name.to_owned(), "bound_violation".to_owned(), "stock.quantity".to_owned(), "stock:roll".to_owned());
    for device in [&a, &b, &c] {
        assert_eq!(flags(device), [flag("3.0")]);
        assert_eq!(device.read("stock", "roll").unwrap(), r#"{"quantity":-1}"#);
    }
    assert!(b.query::<String>("SELECT group_id FROM gbsync_flag").starts_with("sale:s-b:"));

    a.client
        .operation::<Error>("count", "roll", |op| {
            op.increment("stock", "roll", r#"{"quantity":1}"#)?;
            op.clears("3.0")
        })
        .unwrap();
    for device in [&a, &b, &c] {
        device.sync();
        assert_eq!(flags(device), []);
    }
}

#[test]
fn a_device_that_loads_a_snapshot_has_the_open_flags_also_those_behind_the_horizon() {
    let world = World::under(SCHEMA);
    let a = world.device_under("a", SCHEMA);
    a.client.upsert("stock", "roll", r#"{"quantity":0}"#).unwrap();
    for sale in ["s1", "s2", "s3"] {
        sell(&a, sale);
    }
    a.sync();
    a.client
        .operation::<Error>("count", "roll", |op| {
            op.increment("stock", "roll", r#"{"quantity":1}"#)?;
            op.clears("3.0")
        })
        .unwrap();
    a.sync();
    assert_eq!(flags(&a).len(), 2);
    let config = gbsync_server::RetentionConfig { entries: Some(1), ..gbsync_server::RetentionConfig::default() };
    gbsync_server::retain(&world.folder.path().join("server").into(), &config, None, false).unwrap().unwrap();
    let new = world.device_under("new", SCHEMA);
    new.sync();
    assert_eq!((flags(&new), new.digest()), (flags(&a), a.digest()));
    let groups = "SELECT group_concat(group_id, ',' ORDER BY seq) FROM gbsync_flag";
    assert_eq!(new.query::<String>(groups), a.query::<String>(groups));
}

#[test]
fn a_flag_is_known_from_the_verdict_before_the_log_is_read_and_after_it_is_read_anew() {
    let world = World::under(SCHEMA);
    let a = world.device_under("a", SCHEMA);
    a.client.upsert("stock", "roll", r#"{"quantity":0}"#).unwrap();
    sell(&a, "s1");
    a.transport.plan(|request| match request.path.contains("/log?") {
        true => crate::common::Fault::DropRequest,
        false => crate::common::Fault::Pass,
    });
    a.try_sync().unwrap_err();
    assert_eq!(flags(&a).len(), 1);
    a.transport.heal();
    let mut is_gone = Some(crate::common::problem(410, "resync_required", None));
    a.transport.plan(move |request| match request.path.contains("/log?after=0&") {
        true => is_gone.take().map_or(crate::common::Fault::Pass, crate::common::Fault::Answer),
        false => crate::common::Fault::Pass,
    });
    a.sync();
    assert_eq!(flags(&a).len(), 1);
    assert_eq!(a.query::<i64>("SELECT count(*) FROM gbsync_open_flag"), 1);
}

#[test]
fn a_text_that_names_no_flag_clears_nothing() {
    let world = World::under(SCHEMA);
    let a = world.device_under("a", SCHEMA);
    let mut operation = a.client.begin("count", "roll").unwrap();
    for text in ["", "42", "42.", ".0", "-1.0", "4.x"] {
        assert_eq!(operation.clears(text).unwrap_err().code(), "invalid_flag");
    }
}
