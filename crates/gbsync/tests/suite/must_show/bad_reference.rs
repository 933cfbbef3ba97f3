//! One operation that points nowhere, among others.

use super::{change, converged, group_of, init, operation, serve, sync, with_shop_schema};
use crate::shop::Shop;

fn payment(id: &str, receipt: &str) -> String {
    change("payments", id, "upsert", &format!(r#"{{"receiptId":"{receipt}","amount":"2.50"}}"#))
}

/// A sale whose payment names that receipt as its own.
fn paid_by(receipt: &str, paid: &str) -> String {
    let sold = change("receipts", receipt, "upsert", r#"{"total":"2.50"}"#);
    operation("receipt-create", receipt, &[sold, payment(&format!("{receipt}-p"), paid)])
}

#[test]
fn a_group_with_one_bad_reference_is_refused_alone_with_its_dependents_and_they_come_back_when_it_is_amended() {
    let shop = Shop::new();
    let schema = with_shop_schema(&shop);
    let server = serve(&shop, schema);
    // Without a schema, and before it met the server, nothing tells this device of the rules.
    let token = shop.run(&["token", "create", "--data", "server", "--space", "shop", "--role", "cashier"]).done();
    shop.run(&["init", "a.db", "--server", &server.url, "--space", "shop", "--token", token.trim()]).done();
    init(&shop, "b.db", &server.url, schema);

    shop.apply("a.db", &paid_by("r-bad", "r-typo"));
    for note in 1..=3 {
        let edit = change("receipts", "r-bad", "patch", &format!(r#"{{"note":"{note}"}}"#));
        shop.apply("a.db", &operation("receipt-edit", "r-bad", &[edit]));
    }
    let unrelated: String = (1..=20).map(|number| paid_by(&format!("r-{number}"), &format!("r-{number}"))).collect();
    shop.apply("a.db", &unrelated);
    let report = shop.run(&["sync", "a.db", "--json"]).json();
    assert_eq!(report["accepted"], 20, "{report}");
    assert_eq!(report["parked"].as_array().unwrap().len(), 4, "{report}");
    let codes = "SELECT group_concat(code) FROM (SELECT code FROM gbsync_group WHERE state = 'parked' ORDER BY device_seq)";
    assert_eq!(shop.value("a.db", codes), "dangling_reference,dependency_rejected,dependency_rejected,dependency_rejected");

    let refused = group_of(&shop, "a.db", "r-bad");
    shop.run_with_input(&["outbox", "amend", "a.db", &refused, "--changes", "-"], &paid_by("r-bad", "r-bad")).done();
    sync(&shop, &["a.db", "a.db", "b.db"]);
    let status = shop.run(&["status", "a.db", "--json"]).json();
    assert_eq!([&status["parked"], &status["pending"]], [0, 0]);
    assert_eq!(shop.value("b.db", "SELECT note FROM receipts WHERE id = 'r-bad'"), "3");
    assert_eq!(shop.value("b.db", "SELECT count(*) FROM receipts"), 21);
    converged(&shop, ["a.db", "b.db"]);
}
