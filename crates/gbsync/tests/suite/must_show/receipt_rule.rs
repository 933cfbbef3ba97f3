//! A rule of a record holds whatever touches it, also an operation that only adds what refers to it.

use super::{change, converged, init, operation, sale, serve, shelf, sync, with_shop_schema};
use crate::shop::Shop;

/// Adds a payment to a receipt; nothing else.
fn payment(id: &str, receipt: &str, amount: &str) -> String {
    let payment = change("payments", id, "upsert", &format!(r#"{{"receiptId":"{receipt}","amount":"{amount}"}}"#));
    operation("receipt-edit", receipt, &[payment])
}

/// Takes from the first payment what the second one brings.
fn split(receipt: &str, first: &str, second: &str) -> String {
    let less = change("payments", &format!("{receipt}-p"), "patch", &format!(r#"{{"amount":"{first}"}}"#));
    let more = change(
        "payments",
        &format!("{receipt}-q"),
        "upsert",
        &format!(r#"{{"receiptId":"{receipt}","amount":"{second}"}}"#),
    );
    operation("receipt-edit", receipt, &[less, more])
}

#[test]
fn adding_a_payment_to_an_existing_receipt_satisfies_or_breaks_the_receipts_rule_although_it_is_not_in_the_group() {
    let shop = Shop::new();
    let schema = with_shop_schema(&shop);
    let server = serve(&shop, schema);
    init(&shop, "a.db", &server.url, schema);
    shop.run(&["init", "b.db", "--server", &server.url, "--space", "shop", "--token", &cashier(&shop)]).done();
    shop.apply("a.db", &shelf(&[("roll", 10)]));
    shop.apply("a.db", &sale("r-1", "roll", "2.50"));
    sync(&shop, &["a.db"]);

    // On the device, at once: too much is refused and named, and nothing of it is kept.
    let error = shop.run_with_input(&["apply", "a.db", "-", "--json"], &payment("r-1-q", "r-1", "0.01")).json_error(1);
    assert!(error["message"].as_str().unwrap().contains("payments-cover-total"), "{error}");
    assert_eq!(shop.value("a.db", "SELECT count(*) FROM payments"), 1);

    // On the server, for a device that has not heard of rules, nor of the receipt.
    shop.apply("b.db", &payment("r-1-q", "r-1", "0.01"));
    sync(&shop, &["b.db"]);
    let outbox = shop.run(&["outbox", "b.db", "--json"]).json();
    assert_eq!([&outbox[0]["state"], &outbox[0]["code"]], ["parked", "invariant_violation"], "{outbox}");
    assert!(outbox[0]["message"].as_str().unwrap().contains("payments-cover-total"), "{outbox}");

    // What fits goes through, decimals exact: 0.10 + 2.40.
    shop.apply("a.db", &split("r-1", "0.10", "2.40"));
    sync(&shop, &["a.db", "b.db"]);
    assert_eq!(shop.value("a.db", "SELECT sum(amount_minor) FROM payments"), 250);
    assert_eq!(shop.run(&["status", "a.db", "--json"]).json()["parked"], 0);
    converged(&shop, ["a.db", "b.db"]);
}

fn cashier(shop: &Shop) -> String {
    let ran = shop.run(&["token", "create", "--data", "server", "--space", "shop", "--role", "cashier"]);
    ran.done().trim().to_owned()
}
