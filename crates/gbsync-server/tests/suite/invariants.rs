//! Rules in CEL on the server: right for records that the group does not name, and never a way to stall others.

use crate::common::*;
use std::time::{Duration, Instant};

const SHOP: &str = r#"
version = 1

[entities.receipts]
fields.total = { type = "decimal", scale = 2, required = true }
[[entities.receipts.invariants]]
name = "payments-cover-total"
cel = "receipts.all(r, sum(r.payments.map(p, p.amount)) == r.total)"

[entities.payments]
fields.receiptId = { type = "text", required = true, references = "receipts" }
fields.amount = { type = "decimal", scale = 2, required = true }

[entities.notes]
fields.text = "text"
[[entities.notes.invariants]]
name = "endless"
cel = "notes.all(a, notes.all(b, notes.all(c, notes.all(d, a.text != b.text || c.text != d.text || a.text == d.text))))"
"#;

fn receipt_of(total: &str) -> String {
    upsert("receipts", "r1", 0, &format!(r#"{{"total":"{total}"}}"#))
}

fn payment(id: &str, amount: &str) -> String {
    upsert("payments", id, 0, &format!(r#"{{"receiptId":"r1","amount":"{amount}"}}"#))
}

#[tokio::test]
async fn a_payment_that_is_added_later_is_held_against_its_receipt() {
    let mut app = TestApp::with_schema(SHOP, &[]).await;
    let first = TestGroup::of("g1", 1, &[receipt_of("10.00"), payment("p1", "10.00")]);
    assert_eq!(app.push(&[first]).await.verdicts(), ["accepted"]);
    app.restart().await;
    let added = TestGroup::of("g2", 2, &[payment("p2", "2.50")]);
    let refused = app.push(&[added]).await.result(0);
    let words = (refused["code"].as_str(), refused["rule"].as_str());
    assert_eq!(words, (Some("invariant_violation"), Some("payments-cover-total")));
    // With the receipt's total it fits; a part of it alone does not, also in one transaction.
    let total = TestGroup::of("g3", 3, &[patch("receipts", "r1", 1, r#"{"total":"12.50"}"#)]);
    let both = TestGroup::of("g4", 4, &[patch("receipts", "r1", 1, r#"{"total":"12.5"}"#), payment("p2", "2.50")]);
    let less = TestGroup::of("g5", 5, &[delete("payments", "p1", 1)]);
    let verdicts = app.push(&[total, both, less]).await.verdicts();
    assert_eq!(verdicts, ["rejected invariant_violation", "accepted", "rejected invariant_violation"]);
    let log = app.get("/log?after=1").await.text;
    assert!(log.contains(r#"{"total":"12.50"}"#), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_would_run_for_ever_is_cut_off_and_stalls_nobody() {
    let app = std::sync::Arc::new(TestApp::with_schema(SHOP, &[]).await);
    let notes: Vec<String> = (0..2_000).map(|n| upsert("notes", &format!("n{n}"), 0, r#"{"text":"t"}"#)).collect();
    let hostile = TestGroup::of("hostile", 1, &notes);
    let slow = {
        let app = std::sync::Arc::clone(&app);
        tokio::spawn(async move { app.push_as("till-2", "e2", &[hostile]).await })
    };
    let began = Instant::now();
    for n in 1..=10 {
        let fine = TestGroup::of(&format!("g{n}"), n, &[upsert("receipts", &format!("f{n}"), 0, r#"{"total":"0.00"}"#)]);
        assert_eq!(app.push(&[fine]).await.verdicts(), ["accepted"]);
    }
    let waited = began.elapsed();
    let answer = slow.await.unwrap();
    assert_eq!(answer.verdicts(), ["rejected invariant_violation"]);
    assert_eq!(answer.result(0)["rule"], "endless");
    // Generous, for a debug build on a busy machine: unbounded it would be days.
    assert!(waited < Duration::from_secs(20), "others waited {waited:?}");
}
