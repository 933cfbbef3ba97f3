//! A tablet comes back from the repair shop with yesterday's copy of its file.

use super::{converged, init, sale, serve, shelf, sync, with_shop_schema};
use crate::shop::Shop;
use std::collections::BTreeSet;

/// The numbers of all receipts on a device.
fn numbers(shop: &Shop, device: &str) -> Vec<String> {
    let rows = shop.run(&["query", device, "SELECT no FROM receipts", "--json"]).json();
    rows.as_array().unwrap().iter().map(|row| row["no"].as_str().unwrap().to_owned()).collect()
}

fn copy(shop: &Shop, from: &str, to: &str) {
    for more in ["", "-wal", "-shm"] {
        let (from, to) = (shop.path(&format!("{from}{more}")), shop.path(&format!("{to}{more}")));
        let _ = std::fs::remove_file(&to);
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn a_tablet_restored_from_yesterdays_copy_reuses_no_receipt_number() {
    let shop = Shop::new();
    let schema = with_shop_schema(&shop);
    let server = serve(&shop, schema);
    init(&shop, "tablet.db", &server.url, schema);
    init(&shop, "other.db", &server.url, schema);
    shop.apply("tablet.db", &shelf(&[("roll", 100)]));
    shop.apply("tablet.db", &sale("monday-1", "roll", "2.50"));
    sync(&shop, &["tablet.db"]);
    copy(&shop, "tablet.db", "yesterday.db");

    // Three more, of which the server has two when the tablet breaks.
    shop.apply("tablet.db", &(sale("tuesday-1", "roll", "2.50") + &sale("tuesday-2", "roll", "2.50")));
    sync(&shop, &["tablet.db"]);
    shop.apply("tablet.db", &sale("tuesday-lost", "roll", "2.50"));
    let printed = numbers(&shop, "tablet.db");
    copy(&shop, "yesterday.db", "tablet.db");

    // The first one is sold before the server could say anything.
    shop.apply("tablet.db", &sale("wednesday-0", "roll", "2.50"));
    sync(&shop, &["tablet.db"]);
    shop.apply("tablet.db", &(sale("wednesday-1", "roll", "2.50") + &sale("wednesday-2", "roll", "2.50")));
    sync(&shop, &["tablet.db", "other.db"]);
    assert_eq!(shop.run(&["status", "tablet.db", "--json"]).json()["parked"], 0);
    let new: Vec<String> = numbers(&shop, "tablet.db").into_iter().filter(|number| !printed.contains(number)).collect();
    assert_eq!(new.len(), 3, "three new numbers, none of those that were printed before: {printed:?}");
    let all: BTreeSet<String> = numbers(&shop, "other.db").into_iter().chain(printed).collect();
    assert_eq!(all.len(), 4 + 3, "{all:?}");
    converged(&shop, ["tablet.db", "other.db"]);
}
