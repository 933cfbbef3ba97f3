//! Inputs that once broke a promise, each held by a test.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;

#[tokio::test]
async fn a_refusal_shows_no_more_of_the_records_than_an_answer_can_carry() {
    let app = TestApp::start().await;
    let large = format!(r#"{{"scan":"{}"}}"#, "x".repeat(200 * 1024));
    for n in 0..24 {
        let group = TestGroup::of(&format!("g{n}"), n + 1, &[upsert("scans", &format!("s{n:02}"), 0, &large)]);
        assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
    }
    // A few bytes of changes, each refused beside the record as it is.
    let changes: Vec<String> = (0..24).map(|n| upsert("scans", &format!("s{n:02}"), 0, r#"{"scan":""}"#)).collect();
    let refused = app.push(&[TestGroup::of("late", 25, &changes)]).await;
    assert_eq!(refused.verdicts(), ["rejected conflict"]);
    assert!(refused.text.len() < 2 * 1024 * 1024, "{} bytes", refused.text.len());
    let result = refused.result(0);
    let shown = result["changes"].as_array().unwrap();
    assert_eq!(shown.len(), 24, "every change at fault is named");
    assert!(!shown[0]["current"].is_null() && shown[23]["current"].is_null());
}
