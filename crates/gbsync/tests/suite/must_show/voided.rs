//! A receipt is deleted, and the books still name it.

use super::{change, converged, init, operation, sale, serve, shelf, sync, with_shop_schema};
use crate::shop::Shop;

fn entry(id: &str, amount: &str) -> String {
    change("entries", id, "upsert", &format!(r#"{{"receiptId":"r-1","amount":"{amount}"}}"#))
}

#[test]
fn a_voided_receipt_takes_its_payments_along_and_leaves_no_orphan_although_its_entries_still_name_it() {
    let shop = Shop::new();
    let schema = with_shop_schema(&shop);
    let server = serve(&shop, schema);
    init(&shop, "a.db", &server.url, schema);
    init(&shop, "b.db", &server.url, schema);
    shop.apply("a.db", &(shelf(&[("roll", 10)]) + &sale("r-1", "roll", "2.50")));
    shop.apply("a.db", &operation("receipt-edit", "r-1", &[entry("e-1", "2.50")]));
    let gone = change("receipts", "r-1", "delete", "");
    let back = change("stock", "roll", "increment", r#"{"quantity":1}"#);
    shop.apply("a.db", &operation("receipt-void", "r-1", &[gone, entry("e-2", "-2.50"), back]));
    shop.run(&["orphans", "a.db"]).done();
    sync(&shop, &["a.db", "b.db"]);
    // A correction of the books, days later.
    shop.apply("b.db", &operation("books-correct", "r-1", &[entry("e-3", "0.00")]));
    sync(&shop, &["b.db", "a.db"]);

    for device in ["a.db", "b.db"] {
        assert_eq!(shop.value(device, "SELECT count(*) FROM receipts"), 0);
        assert_eq!(shop.value(device, "SELECT count(*) FROM payments"), 0);
        assert_eq!(shop.value(device, "SELECT count(*) || ' ' || sum(amount_minor) FROM entries"), "3 0");
        assert_eq!(shop.value(device, "SELECT quantity FROM stock"), 10);
        shop.run(&["orphans", device]).done();
    }
    shop.run(&["orphans", "--data", "server"]).done();
    converged(&shop, ["a.db", "b.db"]);
}
