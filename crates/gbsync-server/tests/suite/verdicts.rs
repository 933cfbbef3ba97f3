//! What becomes of groups: once, for ever, in order, whole.

use crate::common::*;
use serde_json::json;

#[tokio::test]
async fn a_group_takes_effect_whole_and_is_answered_after_it_is_durable() {
    let app = TestApp::start().await;
    let changes = [
        upsert("receipts", "r-1", 0, r#"{"total":"120.00"}"#),
        upsert("payments", "p-1", 0, r#"{"amount":"120.00"}"#),
        upsert("stock", "paper", 0, r#"{"quantity":10}"#),
    ];
    let answer = app.push(&[TestGroup::of("g1", 1, &changes)]).await;
    assert_eq!(
        answer.json(),
        json!({"results":[{"syncGroupId":"g1","status":"accepted","seq":1,"duplicate":false,"flags":[]}],"head":1})
    );
    let digest = app.digest();
    assert_eq!((digest.head.0, digest.records), (1, 3));
}

#[tokio::test]
async fn a_group_sent_again_is_answered_as_the_first_time_and_changes_nothing() {
    let app = TestApp::start().await;
    let stock = TestGroup::of("g1", 1, &[upsert("stock", "paper", 0, r#"{"quantity":10}"#)]);
    let sale = TestGroup::of("g2", 2, &[increment("stock", "paper", r#"{"quantity":-3}"#)]);
    let conflict = TestGroup::of("g3", 3, &[upsert("stock", "paper", 0, r#"{"quantity":99}"#)]);
    let first = app.push(&[stock.clone(), sale.clone(), conflict.clone()]).await;
    assert_eq!(first.verdicts(), ["accepted", "accepted", "rejected conflict"]);
    let before = app.digest();
    for _ in 0..2 {
        let again = app.push(&[conflict.clone(), sale.clone(), sale.clone(), stock.clone()]).await;
        assert_eq!(again.json()["head"], 2);
        for (place, first_place) in [(0, 2), (1, 1), (2, 1), (3, 0)] {
            let mut expected = first.result(first_place);
            expected["duplicate"] = true.into();
            assert_eq!(again.result(place), expected);
        }
    }
    assert_eq!(app.digest(), before);
}

#[tokio::test]
async fn the_same_group_twice_in_one_request_takes_effect_once() {
    let app = TestApp::start().await;
    let answer = app.push(&[receipt("g1", 1, "r-1"), receipt("g1", 1, "r-1")]).await;
    assert_eq!((answer.result(0)["duplicate"].clone(), answer.result(1)["duplicate"].clone()), (false.into(), true.into()));
    assert_eq!(app.digest().head.0, 1);
}

#[tokio::test]
async fn a_rejection_keeps_the_records_it_was_made_on() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1")]).await;
    let refused =
        TestGroup::of("g2", 2, &[upsert("notes", "n-1", 0, "{}"), upsert("receipts", "r-1", 0, r#"{"total":"2.00"}"#)]);
    let first = app.push(std::slice::from_ref(&refused)).await;
    let result = first.result(0);
    assert_eq!((result["status"].as_str(), result["code"].as_str()), (Some("rejected"), Some("conflict")));
    assert_eq!(
        result["changes"],
        json!([{"index":1,"entity":"receipts","id":"r-1","code":"exists",
            "current":{"version":1,"deleted":false,"payload":{"total":"1.00"}}}])
    );
    // The record moves on; the answer does not.
    app.push(&[TestGroup::of("g3", 3, &[patch("receipts", "r-1", 1, r#"{"total":"9.99"}"#)])]).await;
    let mut expected = result;
    expected["duplicate"] = true.into();
    assert_eq!(app.push(&[refused]).await.result(0), expected);
    assert_eq!(app.digest().records, 1);
}

#[tokio::test]
async fn an_id_that_stands_for_another_content_is_refused_and_the_first_verdict_stands() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1")]).await;
    let before = app.digest();
    let answer = app.push(&[receipt("g1", 1, "r-2")]).await;
    assert_eq!(answer.verdicts(), ["rejected group_id_reused"]);
    assert_eq!(answer.result(0)["duplicate"], false);
    let first = app.push(&[receipt("g1", 1, "r-1")]).await.result(0);
    assert_eq!((first["status"].as_str(), first["seq"].as_u64()), (Some("accepted"), Some(1)));
    assert_eq!(app.digest(), before);
}

#[tokio::test]
async fn a_group_that_arrives_damaged_is_incomplete_and_the_others_are_decided() {
    let app = TestApp::start().await;
    let mut short = receipt("short", 1, "r-1");
    short.count = 2;
    let mut torn = receipt("torn", 2, "r-2");
    torn.digest = Some("0".repeat(64));
    let answer = app.push(&[short, torn, receipt("whole", 3, "r-3")]).await;
    assert_eq!(answer.verdicts(), ["incomplete", "incomplete", "accepted"]);
    assert_eq!(answer.result(0)["message"], "changeCount says 2, 1 arrived");
    // Neither is remembered: the same ids arrive well the next time.
    let answer = app.push(&[receipt("short", 1, "r-1"), receipt("torn", 2, "r-2")]).await;
    assert_eq!(answer.verdicts(), ["accepted", "accepted"]);
}

#[tokio::test]
async fn a_group_over_a_limit_is_refused_for_ever() {
    let app = TestApp::with(|config| config.limits.group_records = 2).await;
    let records: Vec<String> = (0..3).map(|n| upsert("notes", &format!("n-{n}"), 0, "{}")).collect();
    let large = TestGroup::of("g1", 1, &records);
    assert_eq!(app.push(std::slice::from_ref(&large)).await.verdicts(), ["rejected too_large"]);
    let again = app.push(&[large]).await.result(0);
    assert_eq!((again["code"].as_str(), again["duplicate"].as_bool()), (Some("too_large"), Some(true)));
    let app = TestApp::with(|config| config.limits.payload_bytes = 10).await;
    let long = TestGroup::of("g1", 1, &[upsert("notes", "n", 0, r#"{"text":"too long"}"#)]);
    assert_eq!(app.push(&[long]).await.verdicts(), ["rejected too_large"]);
    assert_eq!(app.digest().head.0, 0);
}

#[tokio::test]
async fn a_dependent_waits_for_its_parent_and_falls_with_it() {
    let app = TestApp::start().await;
    let child = receipt("child", 2, "r-2").depends_on("parent");
    let answer = app.push(std::slice::from_ref(&child)).await;
    assert_eq!(answer.result(0), json!({"syncGroupId":"child","status":"blocked","blockedBy":["parent"]}));
    assert_eq!(app.digest().head.0, 0);
    // Not remembered: it is decided once the parent is there, also in the same request.
    assert_eq!(app.push(&[receipt("parent", 1, "r-1"), child]).await.verdicts(), ["accepted", "accepted"]);
    let refused = receipt("refused", 3, "r-1");
    let dependent = receipt("dependent", 4, "r-4").depends_on("refused");
    let grandchild = receipt("grandchild", 5, "r-5").depends_on("dependent");
    let bystander = receipt("bystander", 6, "r-6");
    let answer = app.push(&[refused, dependent, grandchild, bystander]).await;
    let expected = ["rejected conflict", "rejected dependency_rejected", "rejected dependency_rejected", "accepted"];
    assert_eq!(answer.verdicts(), expected);
}

#[tokio::test]
async fn of_a_group_and_its_replacements_at_most_one_is_accepted() {
    let app = TestApp::start().await;
    app.push(&[receipt("seed", 1, "r-1")]).await;
    assert_eq!(app.push(&[receipt("first", 2, "r-1")]).await.verdicts(), ["rejected conflict"]);
    let amended = TestGroup::of("amended", 3, &[upsert("receipts", "r-1", 1, r#"{"total":"2.00"}"#)]).replaces("first");
    let other = receipt("other", 4, "r-9").replaces("first");
    let answer = app.push(&[amended, other]).await;
    assert_eq!(answer.verdicts(), ["accepted", "rejected already_replaced"]);
    let late = receipt("late", 5, "r-10").replaces("other");
    assert_eq!(app.push(&[late]).await.verdicts(), ["rejected already_replaced"]);
}

#[tokio::test]
async fn a_replacement_may_overtake_what_it_replaces() {
    let app = TestApp::start().await;
    let c = receipt("c", 3, "r-3").replaces("b");
    assert_eq!(app.push(&[c]).await.verdicts(), ["accepted"]);
    let b = receipt("b", 2, "r-2").replaces("a");
    let a = receipt("a", 1, "r-1");
    let late = app.push(&[b, a]).await;
    assert_eq!(late.verdicts(), ["rejected already_replaced", "rejected already_replaced"]);
    assert_eq!(app.digest().records, 1);
}

#[tokio::test]
async fn a_known_number_under_another_id_leaves_nothing_of_the_batch() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1")]).await;
    let before = app.digest();
    let answer = app.push(&[receipt("g2", 2, "r-2"), receipt("clone", 1, "r-3")]).await;
    answer.assert_problem(409, "epoch_reused");
    assert_eq!(app.digest(), before);
    let known = app.post("/verdicts", r#"{"ids":["g2","clone","g1"]}"#).await;
    assert_eq!(known.verdicts(), ["unknown", "unknown", "accepted"]);
    // Under a new epoch the same numbers are free, and the group known from the old one is a duplicate.
    let renumbered = [receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")];
    let answer = app.push_as("till-1", "e2", &renumbered).await;
    assert_eq!(answer.verdicts(), ["accepted", "accepted"]);
    assert_eq!(answer.result(0)["duplicate"], true);
    let clash = app.push_as("till-1", "e2", &[receipt("other", 1, "r-7")]).await;
    clash.assert_problem(409, "epoch_reused");
}

#[tokio::test]
async fn numbers_may_come_in_any_order_and_with_gaps() {
    let app = TestApp::start().await;
    for (id, number) in [("g7", 7), ("g3", 3), ("g5", 5)] {
        assert_eq!(app.push(&[receipt(id, number, id)]).await.verdicts(), ["accepted"]);
    }
    app.push(&[receipt("other", 3, "r")]).await.assert_problem(409, "epoch_reused");
    let handshake = app.get("?device=till-1").await.json();
    assert_eq!(handshake["device"], json!({"epoch":"e1","deviceSeq":7,"sequences":{}}));
}

#[tokio::test]
async fn one_refused_sale_leaves_the_other_ninety_nine() {
    let app = TestApp::start().await;
    app.push(&[TestGroup::of("stock", 1, &[upsert("stock", "paper", 0, r#"{"quantity":100}"#)])]).await;
    app.push(&[receipt("taken", 2, "sale-0")]).await;
    let sale = |n: u64| {
        let changes = [upsert("receipts", &format!("sale-{n}"), 0, "{}"), increment("stock", "paper", r#"{"quantity":-1}"#)];
        TestGroup::of(&format!("g{n}"), n + 3, &changes)
    };
    let sales: Vec<TestGroup> = (0..100).map(sale).collect();
    let verdicts = app.push(&sales).await.verdicts();
    assert_eq!(verdicts[0], "rejected conflict");
    assert!(verdicts[1..].iter().all(|verdict| verdict == "accepted"));
    let log = app.get("/log?after=100&maxRecords=10000").await.json();
    let last = log["groups"].as_array().unwrap().last().unwrap()["changes"][1].clone();
    assert_eq!(last["payload"], json!({"quantity":1}));
    assert_eq!((last["version"].as_u64(), last["editVersion"].as_u64()), (Some(101), Some(1)));
}

#[tokio::test]
async fn numbers_are_kept_as_written() {
    let app = TestApp::start().await;
    let payload = r#"{"a":9007199254740993,"b":120.0,"c":1e2}"#;
    app.push(&[TestGroup::of("g1", 1, &[upsert("n", "1", 0, payload)])]).await;
    assert!(app.get("/log?after=0").await.text.contains(payload));
}

#[tokio::test]
async fn a_discard_is_final_for_a_group_that_never_came_and_else_answers_its_verdict() {
    let app = TestApp::start().await;
    app.push(&[receipt("sold", 1, "r-1")]).await;
    let sold = app.post("/groups/sold/discard", r#"{"reason":"mistake"}"#).await.json();
    assert_eq!(sold, json!({"syncGroupId":"sold","status":"accepted","seq":1,"duplicate":true,"flags":[]}));
    let id = "receipt-create:r%2F2:x";
    let discarded = app.post(&format!("/groups/{id}/discard"), r#"{"reason":"typed twice"}"#).await.json();
    assert_eq!(discarded["syncGroupId"], "receipt-create:r/2:x");
    assert_eq!((discarded["code"].as_str(), discarded["duplicate"].as_bool()), (Some("discarded"), Some(false)));
    let late = app.push(&[receipt("receipt-create:r/2:x", 2, "r-2")]).await.result(0);
    assert_eq!((late["code"].as_str(), late["message"].as_str()), (Some("discarded"), Some("typed twice")));
    assert_eq!(late["duplicate"], true);
    assert_eq!(app.digest().records, 1);
    app.post("/groups/g/discard", r#"{"reason":" "}"#).await.assert_problem(400, "malformed");
}

#[tokio::test]
async fn a_group_made_on_versions_that_the_log_never_had_is_base_lost() {
    let app = TestApp::start().await;
    let ahead = TestGroup::of("g1", 1, &[upsert("receipts", "r-1", 7, "{}")]);
    let elsewhere = receipt("g2", 2, "r-2").with(r#""log":"another","#);
    assert_eq!(app.push(&[ahead, elsewhere]).await.verdicts(), ["rejected base_lost", "rejected base_lost"]);
}

#[tokio::test]
async fn deletes_and_increments_leave_the_states_that_the_log_says() {
    let app = TestApp::start().await;
    let stock = TestGroup::of("g1", 1, &[upsert("stock", "a", 0, r#"{"n":1}"#), upsert("stock", "b", 0, "{}")]);
    let edit = TestGroup::of("g2", 2, &[increment("stock", "a", r#"{"n":2}"#), delete("stock", "b", 1)]);
    let again =
        TestGroup::of("g3", 3, &[upsert("stock", "b", 2, r#"{"again":true}"#), patch("stock", "a", 1, r#"{"x":1}"#)]);
    assert_eq!(app.push(&[stock, edit, again]).await.verdicts(), ["accepted", "accepted", "accepted"]);
    let log = app.get("/log?after=1").await.json();
    assert_eq!(
        log["groups"][0]["changes"],
        json!([{"entity":"stock","id":"a","action":"upsert","version":2,"editVersion":1,"payload":{"n":3}},
               {"entity":"stock","id":"b","action":"delete","version":2,"editVersion":2}])
    );
    assert_eq!(log["groups"][1]["changes"][1]["payload"], json!({"n":3,"x":1}));
    assert_eq!(app.digest().records, 2);
}
