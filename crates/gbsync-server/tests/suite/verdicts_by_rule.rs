//! What becomes of groups under a schema: each rule by its code, alone, across transactions and restarts.

use crate::common::*;
use gbsync_core::verdict::RejectionCode;
use serde_json::json;
use std::collections::BTreeSet;

const SHOP: &str = r#"
version = 1

[entities.receipts]
ungrouped = "refuse"
unique = [["no"]]
fields.no = "text"
fields.total = { type = "decimal", scale = 2, required = true }

[entities.payments]
fields.receiptId = { type = "text", required = true, references = "receipts", on_delete = "cascade" }
fields.amount = { type = "decimal", scale = 2, required = true }

[entities.entries]
fields.receiptId = { type = "text", references = "receipts" }

[entities.stock]
fields.quantity = { type = "integer", counter = true, min = 0 }

[entities.shelf]
fields.quantity = { type = "integer", counter = true, min = 0, on_violation = "flag" }

[entities.notes]
on_conflict = "last_write_wins"
fields.text = "text"

[operations.receipt-create]
roles = ["cashier"]
shape = { receipts = "1", payments = "0..", entries = "0..", stock = "0..", shelf = "0.." }

[operations.payment-add]
shape = { payments = "1.." }
"#;

async fn shop() -> TestApp {
    TestApp::with_schema(SHOP, &["cashier", "admin"]).await
}

fn sale(id: &str, device_seq: u64, record: &str, more: &[String]) -> TestGroup {
    let receipt = upsert("receipts", record, 0, &format!(r#"{{"no":"{record}","total":"1.00"}}"#));
    TestGroup::of(id, device_seq, &[std::slice::from_ref(&receipt), more].concat())
}

fn payment(id: &str, receipt: &str) -> String {
    upsert("payments", id, 0, &format!(r#"{{"receiptId":"{receipt}","amount":"1.00"}}"#))
}

fn other(id: &str, device_seq: u64, changes: &[String]) -> TestGroup {
    TestGroup::of(id, device_seq, changes).typed(Some("other"))
}

#[tokio::test]
async fn a_bad_group_among_twenty_is_rejected_alone() {
    let app = shop().await;
    let group = |n: u64| match n {
        9 => sale("g9", 9, "r9", &[payment("p9", "nowhere")]),
        n => sale(&format!("g{n}"), n, &format!("r{n}"), &[payment(&format!("p{n}"), &format!("r{n}"))]),
    };
    let answer = app.push(&(1..=21).map(group).collect::<Vec<_>>()).await;
    let verdicts = answer.verdicts();
    assert_eq!(verdicts[8], "rejected dangling_reference");
    assert_eq!(verdicts.iter().filter(|verdict| *verdict == "accepted").count(), 20);
    let result = answer.result(8);
    assert_eq!((result["rule"].as_str(), result["changes"][0]["index"].as_u64()), (Some("payments.receiptId"), Some(1)));
    assert_eq!(app.digest().records, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixteen_tills_that_sell_the_last_item_one_succeeds() {
    let app = std::sync::Arc::new(shop().await);
    app.push(&[other("stock", 1, &[upsert("stock", "paper", 0, r#"{"quantity":1}"#)])]).await;
    let sell = |n: usize| {
        let app = std::sync::Arc::clone(&app);
        tokio::spawn(async move {
            let taken = increment("stock", "paper", r#"{"quantity":-1}"#);
            let group = sale(&format!("g{n}"), 2, &format!("r{n}"), &[payment(&format!("p{n}"), &format!("r{n}")), taken]);
            app.push_as(&format!("till-{n}"), "e1", &[group]).await.verdicts().remove(0)
        })
    };
    let mut verdicts = Vec::new();
    for sold in (0..16).map(sell).collect::<Vec<_>>() {
        verdicts.push(sold.await.unwrap());
    }
    verdicts.sort();
    assert_eq!(verdicts[0], "accepted");
    assert!(verdicts[1..].iter().all(|verdict| verdict == "rejected bound_violation"), "{verdicts:?}");
    // Stock, one receipt, one payment: of the others nothing is left.
    assert_eq!(app.digest().records, 3);
    assert!(app.get("/log?after=1").await.text.contains(r#"{"quantity":0}"#));
}

#[tokio::test]
async fn groups_of_one_transaction_stand_on_each_other() {
    let app = shop().await;
    let groups = [
        sale("g1", 1, "r1", &[]),
        other("g2", 2, &[payment("p1", "r1")]),
        other("g3", 3, &[delete("receipts", "r1", 1)]).depends_on("g1"),
        other("g4", 4, &[payment("p2", "r1")]),
        sale("g5", 5, "r5", &[]),
        other("g6", 6, &[upsert("receipts", "r6", 0, r#"{"no":"r5","total":"1.00"}"#)]),
        other("g7", 7, &[upsert("receipts", "r7", 0, r#"{"no":"r1","total":"1.00"}"#)]),
    ];
    // g3's base version is of a seq that the group itself made possible: it is sent once that is known.
    let first = app.push(&groups[..2]).await;
    assert_eq!(first.verdicts(), ["accepted", "accepted"]);
    let second = app.push(&groups[2..]).await;
    let expected = ["accepted", "rejected dangling_reference", "accepted", "rejected duplicate_value", "accepted"];
    assert_eq!(second.verdicts(), expected);
}

#[tokio::test]
async fn a_delete_takes_along_what_refers_to_it_and_the_log_says_why() {
    let app = shop().await;
    app.push(&[sale("g1", 1, "r1", &[payment("p1", "r1"), payment("p2", "r1")])]).await;
    let answer = app.push(&[other("g2", 2, &[delete("receipts", "r1", 1)])]).await;
    assert_eq!(answer.verdicts(), ["accepted"]);
    let entry = app.get("/log?after=1").await.json()["groups"][0].clone();
    let cascaded =
        |id: &str| json!({"entity":"payments","id":id,"action":"delete","version":2,"editVersion":2,"cause":"cascade"});
    let named = json!({"entity":"receipts","id":"r1","action":"delete","version":2,"editVersion":2});
    assert_eq!(entry["changes"], json!([named, cascaded("p1"), cascaded("p2")]));
    assert_eq!((entry["changeCount"].as_u64(), app.digest().records), (Some(3), 0));
}

#[tokio::test]
async fn lists_of_references_and_unique_values_are_right_across_transactions_and_restarts() {
    let mut app = shop().await;
    let referring = |id: &str, receipt: &str| upsert("entries", id, 0, &format!(r#"{{"receiptId":"{receipt}"}}"#));
    app.push(&[sale("g1", 1, "r1", &[referring("e1", "r1")]), sale("g2", 2, "r2", &[])]).await;
    app.restart().await;
    let deleting = |id: &str, seq: u64, record: &str, base: u64| other(id, seq, &[delete("receipts", record, base)]);
    assert_eq!(app.push(&[deleting("g3", 3, "r1", 1)]).await.verdicts(), ["rejected still_referenced"]);
    let taking = |id: &str, seq: u64, record: &str, no: &str| {
        other(id, seq, &[upsert("receipts", record, 0, &format!(r#"{{"no":"{no}","total":"1.00"}}"#))])
    };
    assert_eq!(app.push(&[taking("g4", 4, "r4", "r2")]).await.verdicts(), ["rejected duplicate_value"]);
    // The reference moves to another receipt and the number is freed; both hold after another restart.
    let moved = other("g5", 5, &[patch("entries", "e1", 1, r#"{"receiptId":"r2"}"#)]);
    let renumbered = other("g6", 6, &[patch("receipts", "r2", 2, r#"{"no":"two"}"#)]);
    assert_eq!(app.push(&[moved, renumbered]).await.verdicts(), ["accepted", "accepted"]);
    app.restart().await;
    let answer = app.push(&[deleting("g7", 7, "r1", 1), deleting("g8", 8, "r2", 4), taking("g9", 9, "r9", "r2")]).await;
    assert_eq!(answer.verdicts(), ["accepted", "rejected still_referenced", "accepted"]);
    // What was deleted holds its number no more.
    assert_eq!(app.push(&[taking("g10", 10, "r10", "r1")]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn a_soft_rule_flags_the_sale_until_an_operation_clears_it() {
    let mut app = shop().await;
    app.push(&[other("stock", 1, &[upsert("shelf", "paper", 0, r#"{"quantity":1}"#)])]).await;
    let sold = sale("g2", 2, "r1", &[increment("shelf", "paper", r#"{"quantity":-3}"#)]);
    let first = app.push(std::slice::from_ref(&sold)).await.result(0);
    assert_eq!(first["status"], "accepted");
    let flag = first["flags"][0].clone();
    assert_eq!(
        (flag["code"].as_str(), flag["rule"].as_str(), flag["entity"].as_str(), flag["id"].as_str()),
        (Some("bound_violation"), Some("shelf.quantity"), Some("shelf"), Some("paper"))
    );
    app.restart().await;
    let again = app.push(&[sold]).await.result(0);
    assert_eq!((again["duplicate"].as_bool(), again["flags"].clone()), (Some(true), json!([flag])));
    assert_eq!(app.get("/log?after=1").await.json()["groups"][0]["flags"], json!([flag]));

    let open = app.get("/flags").await.json()["flags"].clone();
    assert_eq!((open[0]["flag"].as_str(), open[0]["clearedBy"].clone()), (Some("2.0"), json!(null)));
    assert_eq!(open[0]["message"], flag["message"]);
    let counted = other("g3", 3, &[increment("shelf", "paper", r#"{"quantity":2}"#)]).with(r#""clears":["2.0"],"#);
    let twice = other("g4", 4, &[increment("shelf", "paper", r#"{"quantity":1}"#)]).with(r#""clears":["2.0"],"#);
    assert_eq!(app.push(&[counted, twice]).await.verdicts(), ["accepted", "accepted"]);
    assert_eq!(app.get("/flags").await.json()["flags"], json!([]));
    let all = app.get("/flags?state=all").await.json()["flags"].clone();
    assert_eq!((all[0]["flag"].as_str(), all[0]["clearedBy"].as_u64()), (Some("2.0"), Some(3)));
    assert_eq!(app.get("/flags?state=all&after=2.0").await.json()["flags"], json!([]));
    assert_eq!(app.get("/log?after=2").await.json()["groups"][0]["clears"], json!(["2.0"]));
}

#[tokio::test]
async fn a_flag_of_the_same_request_can_be_cleared() {
    let app = shop().await;
    let flagged = other("g1", 1, &[upsert("shelf", "a", 0, r#"{"quantity":-1}"#)]);
    let cleared = other("g2", 2, &[increment("shelf", "a", r#"{"quantity":1}"#)]).with(r#""clears":["1.0"],"#);
    assert_eq!(app.push(&[flagged, cleared]).await.verdicts(), ["accepted", "accepted"]);
    assert_eq!(app.get("/flags").await.json()["flags"], json!([]));
}

#[tokio::test]
async fn a_clock_far_ahead_is_told_and_not_remembered() {
    let app = shop().await;
    let group = |hlc: &str| other("g1", 1, &[upsert("notes", "n", 0, "{}")]).with(&format!(r#""hlc":"{hlc}","#));
    let ahead = group("9999999999999-0000-till-1");
    assert_eq!(app.push(&[ahead.clone(), ahead]).await.verdicts(), ["rejected clock_skew", "rejected clock_skew"]);
    assert_eq!(app.post("/verdicts", r#"{"ids":["g1"]}"#).await.verdicts(), ["unknown"]);
    // Stamped anew, the same group gets through: its clock is not among the bytes that its digest covers.
    assert_eq!(app.push(&[group("1780000000000-0000-till-1")]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn the_roles_of_the_token_decide_and_mean_nothing_without_a_schema() {
    let mut app = shop().await;
    let cashier = std::mem::replace(&mut app.token, token_with_roles(&app.store, SPACE, &["guest"]));
    let refused = app.push(&[sale("g1", 1, "r1", &[])]).await;
    assert_eq!(
        (refused.verdicts(), refused.result(0)["rule"].as_str()),
        (vec!["rejected not_permitted".into()], Some("receipt-create.roles"))
    );
    app.token = cashier;
    assert_eq!(app.push(&[sale("g2", 2, "r2", &[])]).await.verdicts(), ["accepted"]);
    assert_eq!(TestApp::start().await.push(&[sale("g1", 1, "r1", &[])]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn every_code_of_a_rejection_is_reached_over_http() {
    let app = shop().await;
    let clock = |group: TestGroup, ms: u64| group.with(&format!(r#""hlc":"{ms:013}-0000-till-1","#));
    app.push(&[
        sale("g1", 1, "r1", &[payment("p1", "r1"), upsert("entries", "e1", 0, r#"{"receiptId":"r1"}"#)]),
        other("g2", 2, &[upsert("stock", "paper", 0, r#"{"quantity":0}"#)]),
        clock(other("g3", 3, &[upsert("notes", "n", 0, r#"{"text":"a"}"#)]), 1_780_000_000_002),
        other("bad", 4, &[payment("p2", "nowhere")]),
    ])
    .await;
    app.post("/groups/unwanted/discard", r#"{"reason":"typed twice"}"#).await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(262_144));
    let groups = [
        other("conflict", 10, &[upsert("receipts", "r1", 0, r#"{"total":"2.00"}"#)]),
        clock(other("superseded", 11, &[upsert("notes", "n", 0, r#"{"text":"b"}"#)]), 1_780_000_000_001),
        sale("schema_violation", 12, "r2", &[upsert("unheard-of", "x", 0, "{}")]),
        other("duplicate_value", 13, &[upsert("receipts", "r3", 0, r#"{"no":"r1","total":"1.00"}"#)]),
        other("dangling_reference", 14, &[payment("p3", "nowhere")]),
        other("still_referenced", 15, &[delete("receipts", "r1", 1)]),
        sale("shape_violation", 16, "r4", &[upsert("notes", "m", 0, "{}")]),
        other("invariant_violation", 17, &[upsert("notes", "m", 0, "{}")]).with(r#""clears":["9.9"],"#),
        other("bound_violation", 18, &[increment("stock", "paper", r#"{"quantity":-1}"#)]),
        other("too_large", 19, &[upsert("notes", "l", 0, &large)]),
        other("dependency_rejected", 20, &[upsert("notes", "d", 0, "{}")]).depends_on("bad"),
        other("already_replaced", 21, &[upsert("notes", "e", 0, "{}")]).replaces("g2"),
        other("unwanted", 22, &[upsert("notes", "f", 0, "{}")]),
        other("base_lost", 23, &[upsert("notes", "g", 999, "{}")]),
        other("g2", 24, &[upsert("notes", "h", 0, "{}")]),
        clock(other("clock_skew", 25, &[upsert("notes", "i", 0, "{}")]), 9_999_999_999_999),
    ];
    let mut codes = BTreeSet::new();
    // One at a time: g2 comes again under another number, which is fine, and with other bytes, which is not.
    for group in &groups {
        let result = app.push(std::slice::from_ref(group)).await.result(0);
        let code = RejectionCode::from_wire(result["code"].as_str().unwrap_or_else(|| panic!("{result}"))).unwrap();
        let is_named_so = !matches!(group.id.as_str(), "unwanted" | "g2");
        assert!(!is_named_so || code.as_str() == group.id, "{}: {result}", group.id);
        assert!(!result["message"].as_str().unwrap().is_empty());
        codes.insert(code);
    }
    app_refuses_by_role(&app, &mut codes).await;
    // Scopes are not there yet.
    let all: BTreeSet<_> =
        RejectionCode::ALL.iter().copied().filter(|code| *code != RejectionCode::ScopeViolation).collect();
    assert_eq!(codes, all);
    assert_eq!(app.digest().head.0, 3);
}

async fn app_refuses_by_role(app: &TestApp, codes: &mut BTreeSet<RejectionCode>) {
    let guest = token_with_roles(&app.store, SPACE, &["guest"]);
    let request = app.http.post(app.space_url("/push")).bearer_auth(guest).header("content-type", "application/json");
    let answer = Answer::of(request.body(envelope("till-2", "e2", &[sale("g9", 1, "r9", &[])]))).await;
    assert_eq!(answer.verdicts(), ["rejected not_permitted"]);
    codes.insert(RejectionCode::NotPermitted);
}
