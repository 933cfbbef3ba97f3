//! Two devices that do not know of each other sell the last item.

use super::{change, converged, group_of, init, operation, repository, sale, serve, shelf, sync, with_shop_schema};
use crate::shop::{Serving, Shop};
use serde_json::Value;

/// Devices a and b, both with the last pen on the shelf; both have sold it offline, b has written a note on its receipt, and
/// then a synced before b.
fn both_sold_it(shop: &Shop, schema: &str) -> Serving {
    let server = serve(shop, schema);
    init(shop, "a.db", &server.url, schema);
    init(shop, "b.db", &server.url, schema);
    shop.apply("a.db", &shelf(&[("pen", 1), ("pencil", 5)]));
    sync(shop, &["a.db", "b.db"]);
    shop.apply("a.db", &sale("r-a", "pen", "2.50"));
    shop.apply("b.db", &sale("r-b", "pen", "2.50"));
    shop.apply("b.db", &operation("receipt-edit", "r-b", &[change("receipts", "r-b", "patch", r#"{"note":"gift"}"#)]));
    sync(shop, &["a.db", "b.db", "a.db"]);
    server
}

#[test]
fn one_of_two_who_sold_the_last_item_is_parked_whole_and_gets_through_with_another_item() {
    let shop = Shop::new();
    let schema = with_shop_schema(&shop);
    let _server = both_sold_it(&shop, schema);

    for device in ["a.db", "b.db"] {
        assert_eq!(shop.value(device, "SELECT quantity FROM stock WHERE id = 'pen'"), 0, "{device}");
        assert_eq!(shop.value(device, "SELECT group_concat(id) FROM receipts"), "r-a", "{device}");
        assert_eq!(shop.value(device, "SELECT group_concat(id) FROM payments"), "r-a-p", "{device}");
    }
    converged(&shop, ["a.db", "b.db"]);
    let row =
        shop.run(&["query", "b.db", "SELECT total, sync_state, sync_message FROM receipts_all WHERE id = 'r-b'", "--json"]);
    let row = &row.json()[0];
    assert_eq!([&row["total"], &row["sync_state"]], ["2.50", "parked"]);
    assert!(row["sync_message"].as_str().unwrap().contains("stock:pen"), "{row}");
    assert_eq!(shop.run(&["status", "b.db", "--json"]).json()["parked"], 2, "the note is parked with its receipt");

    let refused = group_of(&shop, "b.db", "r-b");
    let amended = sale("r-b", "pencil", "2.50");
    shop.run_with_input(&["outbox", "amend", "b.db", &refused, "--changes", "-"], &amended).done();
    sync(&shop, &["b.db", "b.db", "a.db"]);
    assert_eq!(shop.run(&["status", "b.db", "--json"]).json()["parked"], 0);
    for device in ["a.db", "b.db"] {
        assert_eq!(shop.value(device, "SELECT note FROM receipts WHERE id = 'r-b'"), "gift", "the edit followed by itself");
        assert_eq!(shop.value(device, "SELECT quantity FROM stock WHERE id = 'pencil'"), 4, "{device}");
        assert_eq!(shop.value(device, "SELECT quantity FROM stock WHERE id = 'pen'"), 0, "{device}");
    }
    converged(&shop, ["a.db", "b.db"]);
}

#[test]
fn with_on_violation_flag_both_who_sold_the_last_item_are_accepted_and_one_carries_a_flag() {
    let shop = Shop::new();
    let hard = std::fs::read_to_string(repository("examples/shop/gbsync.toml")).unwrap();
    let soft = hard.replace("counter = true, min = 0", "counter = true, min = 0, on_violation = \"flag\"");
    assert_ne!(hard, soft);
    shop.write("soft.toml", &soft);
    let _server = both_sold_it(&shop, "soft.toml");

    for device in ["a.db", "b.db"] {
        assert_eq!(shop.value(device, "SELECT quantity FROM stock WHERE id = 'pen'"), -1, "{device}");
        assert_eq!(shop.value(device, "SELECT count(*) FROM receipts"), 2, "{device}");
        let flags = shop.run(&["query", device, "SELECT * FROM gbsync_flag", "--json"]).json();
        let rules: Vec<&Value> = flags.as_array().unwrap().iter().map(|flag| &flag["rule"]).collect();
        assert_eq!(rules, ["stock.quantity"], "{device}: {flags}");
    }
    assert_eq!(shop.run(&["status", "b.db", "--json"]).json()["parked"], 0);
    converged(&shop, ["a.db", "b.db"]);
}
