//! Who edits what others use or edit.

use super::{change, converged, init, operation, sale, serve, shelf, sync, with_shop_schema};
use crate::shop::Shop;

fn shop_with_two_tills() -> (Shop, crate::shop::Serving) {
    let shop = Shop::new();
    let schema = with_shop_schema(&shop);
    let server = serve(&shop, schema);
    init(&shop, "a.db", &server.url, schema);
    init(&shop, "b.db", &server.url, schema);
    shop.apply("a.db", &shelf(&[("roll", 500)]));
    sync(&shop, &["a.db", "b.db"]);
    (shop, server)
}

#[test]
fn a_till_renames_a_product_while_others_sell_it_and_nothing_conflicts() {
    let (shop, _server) = shop_with_two_tills();
    let sales: String = (0..100).map(|number| sale(&format!("r-{number}"), "roll", "2.50")).collect();
    shop.apply("b.db", &sales);
    let rename = change("products", "roll", "patch", r#"{"name":"Paper roll"}"#);
    shop.apply("a.db", &format!("{{\"changes\":[{rename}]}}\n"));
    shop.apply("a.db", &sale("r-a", "roll", "2.50"));
    sync(&shop, &["a.db", "b.db", "a.db"]);
    for device in ["a.db", "b.db"] {
        assert_eq!(shop.run(&["status", device, "--json"]).json()["parked"], 0);
        assert_eq!(shop.value(device, "SELECT name FROM products"), "Paper roll");
        assert_eq!(shop.value(device, "SELECT quantity FROM stock"), 500 - 101);
    }
    converged(&shop, ["a.db", "b.db"]);
}

#[test]
fn two_tills_edit_one_receipt_and_the_slower_one_is_parked_with_both_versions_shown() {
    let (shop, _server) = shop_with_two_tills();
    shop.apply("a.db", &sale("r-1", "roll", "2.50"));
    sync(&shop, &["a.db", "b.db"]);
    for (device, note) in [("a.db", "from a"), ("b.db", "from b")] {
        let edit = change("receipts", "r-1", "patch", &format!(r#"{{"note":"{note}"}}"#));
        shop.apply(device, &operation("receipt-edit", "r-1", &[edit]));
    }
    sync(&shop, &["a.db", "b.db"]);
    assert_eq!(shop.value("b.db", "SELECT note FROM receipts"), "from a");
    let parked = "SELECT group_id FROM gbsync_group WHERE state = 'parked'";
    let parked = shop.value("b.db", parked);
    let text = shop.run(&["outbox", "show", "b.db", parked.as_str().unwrap()]).done();
    for shown in ["code: conflict", "patch receipts:r-1 {\"note\":\"from b\"}", "server has: {", "\"note\":\"from a\""] {
        assert!(text.contains(shown), "{shown} is not in:\n{text}");
    }
    converged(&shop, ["a.db", "b.db"]);
}
