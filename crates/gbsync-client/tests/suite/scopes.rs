//! Devices that see a part of a space: two shops, records that move between them, and devices that do.

use crate::common::*;
use gbsync_client::{Error, FixedToken, HttpTransport, SyncOptions};
use gbsync_core::id::Scope;
use gbsync_core::scope::ScopeSet;
use gbsync_server::{NewToken, Tokens};
use std::sync::Arc;

const SCHEMA: &str = r#"
version = 1
[entities.receipts]
scope = "storeId"
fields.storeId = { type = "text", required = true }
fields.total = "text"
[entities.payments]
scope = "storeId"
fields.storeId = { type = "text", required = true }
fields.receiptId = { type = "text", required = true, references = "receipts" }
[entities.products]
fields.name = "text"
fields.sold = { type = "integer", counter = true }
[operations.transfer]
scope = "closure"
"#;

/// A way to the server for who sees these scopes; everything for none.
fn sees(world: &World, scopes: &[&str]) -> HttpTransport {
    let scopes = match scopes {
        [] => ScopeSet::All,
        names => ScopeSet::These(names.iter().map(|name| Scope::new(*name).unwrap()).collect()),
    };
    let tokens = Tokens::open(world.folder.path().join("server")).unwrap();
    let token = tokens.create(NewToken { scopes, ..NewToken::new(space()) }).unwrap().token;
    HttpTransport::new(&world.url, Arc::new(FixedToken(token))).unwrap()
}

fn sync(world: &World, device: &Device, transport: &HttpTransport) {
    let options = SyncOptions { attempts: 1, ..SyncOptions::default() };
    world.runtime.block_on(device.client.sync(transport, &options)).unwrap();
}

/// The same from a snapshot, where nothing was read yet.
fn load(world: &World, device: &Device, transport: &HttpTransport) {
    let options = SyncOptions { attempts: 1, snapshot_groups: 1, ..SyncOptions::default() };
    world.runtime.block_on(device.client.sync(transport, &options)).unwrap();
}

fn sell(device: &Device, id: &str, store: &str) {
    let sealed = device.client.operation::<Error>("sale", id, |op| {
        op.upsert("receipts", id, format!(r#"{{"storeId":"{store}","total":"5.00"}}"#))?;
        op.upsert("payments", &format!("p-{id}"), format!(r#"{{"storeId":"{store}","receiptId":"{id}"}}"#))?;
        op.increment("products", "roll", r#"{"sold":1}"#)
    });
    sealed.unwrap();
}

fn move_to(device: &Device, id: &str, store: &str) {
    let sealed = device.client.operation::<Error>("move", id, |op| {
        op.patch("receipts", id, format!(r#"{{"storeId":"{store}"}}"#))?;
        op.patch("payments", &format!("p-{id}"), format!(r#"{{"storeId":"{store}"}}"#))
    });
    sealed.unwrap();
}

fn count(device: &Device, table: &str) -> i64 {
    device.query(&format!("SELECT count(*) FROM {table}"))
}

#[test]
fn two_shops_share_their_products_and_nothing_else() {
    let world = World::under(SCHEMA);
    let (north, south, office) = (sees(&world, &["north"]), sees(&world, &["south"]), sees(&world, &[]));
    let (one, two, three, all) = (
        world.device_under("one", SCHEMA),
        world.device_under("two", SCHEMA),
        world.device_under("three", SCHEMA),
        world.device_under("all", SCHEMA),
    );
    all.client.upsert("products", "roll", r#"{"name":"Roll"}"#).unwrap();
    sync(&world, &all, &office);
    for (device, transport) in [(&one, &north), (&two, &south), (&three, &north)] {
        sync(&world, device, transport);
    }
    for n in 0..3 {
        sell(&one, &format!("n{n}"), "north");
        sell(&two, &format!("s{n}"), "south");
    }
    for _ in 0..2 {
        for (device, transport) in [(&one, &north), (&two, &south), (&three, &north), (&all, &office)] {
            sync(&world, device, transport);
        }
    }
    // P6: who sees the same holds the same; the server's rows are those of who sees everything.
    assert_eq!(one.digest(), three.digest());
    assert_eq!(all.digest(), world.digest());
    assert_ne!(one.digest().2, two.digest().2);
    assert_eq!(one.digest().0, two.digest().0, "what is not seen is passed over");
    for (device, own, other) in [(&one, "n", "s"), (&two, "s", "n"), (&three, "n", "s")] {
        assert_eq!(count(device, "receipts"), 3);
        assert!(
            device.read("receipts", &format!("{own}0")).is_some() && device.read("receipts", &format!("{other}0")).is_none()
        );
        assert_eq!(device.read("products", "roll").unwrap(), r#"{"name":"Roll","sold":6}"#);
    }
    assert_eq!(count(&all, "receipts"), 6);
}

#[test]
fn a_record_that_moves_disappears_from_one_device_and_arrives_whole_on_the_other() {
    let world = World::under(SCHEMA);
    let (north, south, office) = (sees(&world, &["north"]), sees(&world, &["south"]), sees(&world, &["north", "south"]));
    let (one, two, mover) =
        (world.device_under("one", SCHEMA), world.device_under("two", SCHEMA), world.device_under("mover", SCHEMA));
    one.client.upsert("products", "roll", r#"{"name":"Roll"}"#).unwrap();
    sell(&one, "r1", "north");
    sync(&world, &one, &north);
    sync(&world, &two, &south);
    sync(&world, &mover, &office);
    assert_eq!((count(&one, "receipts"), count(&two, "receipts")), (1, 0));
    // Meanwhile its old shop edits it, offline.
    let edit =
        one.client.operation::<Error>("correct", "r1", |op| op.patch("receipts", "r1", r#"{"total":"6.00"}"#)).unwrap();
    move_to(&mover, "r1", "south");
    sync(&world, &mover, &office);
    sync(&world, &two, &south);
    assert_eq!(two.read("receipts", "r1").unwrap(), r#"{"storeId":"south","total":"5.00"}"#);
    assert_eq!(count(&two, "payments"), 1);
    sync(&world, &one, &north);
    assert_eq!((count(&one, "receipts"), count(&one, "payments")), (0, 0));
    assert_eq!(one.read("products", "roll").unwrap(), r#"{"name":"Roll","sold":1}"#);
    // P7: the edit got its verdict, and is kept for a person.
    let parked = one.client.group(&edit.group_id).unwrap().unwrap();
    assert_eq!(parked.code.as_deref(), Some("scope_violation"));
    // A new device of either shop holds the same as the old one.
    for (name, transport, old) in [("new-n", &north, &one), ("new-s", &south, &two)] {
        let new = world.device_under(name, SCHEMA);
        sync(&world, &new, transport);
        assert_eq!(new.digest(), old.digest(), "{name}");
        let loaded = world.device_under(&format!("{name}-loaded"), SCHEMA);
        load(&world, &loaded, transport);
        assert_eq!(loaded.digest(), old.digest(), "{name} from a snapshot");
    }
}

#[test]
fn a_device_that_moves_to_another_shop_bootstraps_again_and_keeps_its_outbox() {
    let world = World::under(SCHEMA);
    let (north, south, office) = (sees(&world, &["north"]), sees(&world, &["south"]), sees(&world, &[]));
    let (van, two) = (world.device_under("van", SCHEMA), world.device_under("two", SCHEMA));
    van.client.upsert("products", "roll", r#"{"name":"Roll"}"#).unwrap();
    sell(&van, "n1", "north");
    sync(&world, &van, &north);
    sync(&world, &two, &south);
    sell(&two, "s1", "south");
    sync(&world, &two, &south);
    // Sealed under the old shop, sent under the new one's token.
    sell(&van, "n2", "north");
    sell(&van, "s2", "south");
    sync(&world, &van, &south);
    sync(&world, &van, &south);
    assert_eq!(van.read("receipts", "n1"), None);
    assert!(van.read("receipts", "s1").is_some() && van.read("receipts", "s2").is_some());
    let codes: Vec<Option<String>> = van.states().into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes.iter().flatten().collect::<Vec<_>>(), ["scope_violation"], "{codes:?}");
    sync(&world, &two, &south);
    assert_eq!(van.digest(), two.digest());
    // Back again, and to everything.
    sync(&world, &van, &north);
    assert!(van.read("receipts", "n1").is_some() && van.read("receipts", "s1").is_none());
    sync(&world, &van, &office);
    assert_eq!(van.digest(), world.digest());
}

#[test]
fn what_a_closure_brought_along_is_there_on_every_device_that_sees_the_group() {
    let world = World::under(SCHEMA);
    let (north, south, office) = (sees(&world, &["north"]), sees(&world, &["south"]), sees(&world, &["north", "south"]));
    let (one, two, mover) =
        (world.device_under("one", SCHEMA), world.device_under("two", SCHEMA), world.device_under("mover", SCHEMA));
    one.client.upsert("products", "roll", r#"{"name":"Roll"}"#).unwrap();
    sell(&one, "r1", "north");
    sync(&world, &one, &north);
    sync(&world, &mover, &office);
    let sealed = mover
        .client
        .operation::<Error>("transfer", "r1", |op| op.upsert("payments", "late", r#"{"storeId":"south","receiptId":"r1"}"#));
    sealed.unwrap();
    sync(&world, &mover, &office);
    sync(&world, &two, &south);
    sync(&world, &one, &north);
    assert_eq!((count(&two, "payments"), count(&two, "receipts")), (1, 1));
    assert_eq!((count(&one, "payments"), count(&one, "receipts")), (1, 1));
    let edit = one.client.operation::<Error>("correct", "r1", |op| op.patch("receipts", "r1", r#"{"total":"6.00"}"#));
    edit.unwrap();
    sync(&world, &one, &north);
    sync(&world, &two, &south);
    assert!(two.read("receipts", "r1").unwrap().contains("6.00"));
    let fresh = world.device_under("fresh", SCHEMA);
    sync(&world, &fresh, &south);
    assert_eq!(fresh.digest(), two.digest());
    let loaded = world.device_under("loaded", SCHEMA);
    load(&world, &loaded, &south);
    assert_eq!(loaded.digest(), two.digest());
}
