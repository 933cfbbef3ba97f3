//! A server that has a schema.

use crate::common::*;
use gbsync_core::schema::{EntityRules, Field, FieldKind, Schema, Sequence, SequenceFormat, SequencePart};
use serde_json::json;

/// Receipts that are numbered, of version 2.
fn schema() -> Schema {
    let mut no = Field::of(FieldKind::Text);
    no.sequence = Some("receiptNo".into());
    let fields = [("no".to_owned(), no), ("total".to_owned(), Field::of(FieldKind::Decimal { scale: 2 }))].into();
    let parts = vec![SequencePart::Device, SequencePart::Text("-".into()), SequencePart::Number { width: 4 }];
    let entity = |name| gbsync_core::id::Entity::new(name).unwrap();
    Schema {
        version: 2,
        entities: [(entity("receipts"), EntityRules { fields, ..EntityRules::default() })].into(),
        sequences: [("receiptNo".to_owned(), Sequence { format: SequenceFormat { parts } })].into(),
        ..Schema::default()
    }
}

async fn app() -> TestApp {
    TestApp::with(|config| config.schema = Some(schema())).await
}

fn numbered(id: &str, device_seq: u64, record: &str, no: &str) -> TestGroup {
    TestGroup::of(id, device_seq, &[upsert("receipts", record, 0, &format!(r#"{{"no":"{no}","total":"1.00"}}"#))])
}

#[tokio::test]
async fn the_handshake_says_which_schema_there_is() {
    let with = app().await;
    assert_eq!(with.get("").await.json()["schemaVersion"], 2);
    let without = TestApp::start().await;
    assert_eq!(without.get("").await.json()["schemaVersion"], 0);
}

#[tokio::test]
async fn a_group_of_a_newer_schema_waits_until_the_server_has_it() {
    let app = app().await;
    let newer = receipt("g1", 1, "r-1").with(r#""schemaVersion":3,"#);
    let answer = app.push(&[newer.clone(), receipt("g2", 2, "r-2").with(r#""schemaVersion":2,"#)]).await;
    assert_eq!(answer.verdicts(), ["blocked", "accepted"]);
    assert_eq!(answer.result(0)["blockedBy"], json!([]));
    // Nothing is remembered of it, and a server without a schema takes it.
    let verdicts = app.post("/verdicts", r#"{"ids":["g1"]}"#).await;
    assert_eq!(verdicts.verdicts(), ["unknown"]);
    assert_eq!(TestApp::start().await.push(&[newer]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn a_device_learns_the_highest_number_it_gave_in_any_epoch() {
    let app = app().await;
    app.push(&[numbered("g1", 1, "r-1", "aaaaaa-0041"), numbered("g2", 2, "r-2", "aaaaaa-0040")]).await;
    app.push_as("till-1", "e2", &[numbered("g3", 1, "r-3", "bbbbbb-0042"), numbered("g4", 2, "r-4", "no number")]).await;
    // Another device edits a record of the first: the number stays the first one's.
    let edit = TestGroup::of("g5", 1, &[upsert("receipts", "r-1", 1, r#"{"no":"aaaaaa-0041","total":"2.00"}"#)]);
    let made = numbered("g6", 2, "r-5", "cccccc-0007");
    assert_eq!(app.push_as("till-2", "e3", &[edit, made]).await.verdicts(), ["accepted", "accepted"]);
    let first = app.get("?device=till-1").await.json();
    assert_eq!(first["device"], json!({"epoch":"e2","deviceSeq":2,"sequences":{"receiptNo":42}}));
    assert_eq!(app.get("?device=till-2").await.json()["device"]["sequences"], json!({"receiptNo":7}));
}

#[tokio::test]
async fn a_flag_that_never_was_cannot_be_cleared() {
    let app = app().await;
    let clearing = receipt("g1", 1, "r-1").with(r#""clears":["1.0"],"#);
    let answer = app.push(&[clearing, receipt("g2", 2, "r-2")]).await;
    assert_eq!(answer.verdicts(), ["rejected invariant_violation", "accepted"]);
    assert_eq!(answer.result(0)["rule"], "clears");
    let malformed = receipt("g3", 3, "r-3").with(r#""clears":["first"],"#);
    let pointer = app.push(&[malformed]).await.assert_problem(400, "malformed");
    assert_eq!(pointer.as_deref(), Some("/groups/0/clears/0"));
}

#[tokio::test]
async fn the_list_of_flags_is_for_the_back_office_alone() {
    let app = app().await;
    app.get("/flags").await.assert_problem(403, "forbidden");
    let admin = token_with_roles(&app.store, SPACE, &["admin"]);
    let flags = |rest: &str| Answer::of(app.http.get(app.space_url(&format!("/flags{rest}"))).bearer_auth(&admin));
    assert_eq!(flags("").await.json(), json!({"flags":[]}));
    for wrong in ["?state=shut", "?after=x", "?max=0"] {
        flags(wrong).await.assert_problem(400, "malformed");
    }
}
