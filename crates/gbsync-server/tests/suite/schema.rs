//! Which schema is in force: kept over restarts, never set back, and brought to every record when it is new.

use crate::common::*;
use gbsync_core::schema::Schema;
use gbsync_server::{FaultPoint, ServerError};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ONE: &str = r#"
version = 1
[entities.receipts]
fields.customer = "text"
[entities.payments]
fields.amount = "integer"
[entities.notes]
fields.text = "text"
"#;

const TWO: &str = r#"
version = 2
[entities.receipts]
unique = [["customerId"]]
fields.customerId = { type = "text", was = "customer" }
[entities.payments]
fields.amount = "integer"
fields.kind = { type = "text", required = true, default = "cash" }
fields.receiptId = { type = "text", references = "receipts" }
[entities.notes]
fields.text = "text"
"#;

fn schema(text: &str) -> Option<Schema> {
    Some(Schema::parse(text).unwrap_or_else(|problems| panic!("{problems}")))
}

/// A server whose groups were made under the first schema.
async fn filled() -> TestApp {
    let app = TestApp::with_schema(ONE, &[]).await;
    let group = |n: u64| {
        let changes = [
            upsert("receipts", &format!("r{n}"), 0, &format!(r#"{{"customer":"c{n}"}}"#)),
            upsert("payments", &format!("p{n}"), 0, &format!(r#"{{"amount":{n},"receiptId":"r{n}"}}"#)),
            upsert("notes", &format!("n{n}"), 0, r#"{"text":"t"}"#),
        ];
        TestGroup::of(&format!("g{n}"), n, &changes).with(r#""schemaVersion":1,"#)
    };
    let answer = app.push(&(1..=3).map(group).collect::<Vec<_>>()).await;
    assert_eq!(answer.verdicts(), ["accepted", "accepted", "accepted"]);
    app
}

/// The changes of the log's entries after `after`.
async fn changes(app: &TestApp, after: u64) -> Vec<Value> {
    let log = app.get(&format!("/log?after={after}")).await.json();
    let groups = log["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["changes"].as_array().unwrap().clone()).collect()
}

#[tokio::test]
async fn a_schema_is_served_with_its_version_as_tag() {
    let app = TestApp::with_schema(ONE, &[]).await;
    let served = app.get("/schema").await;
    assert_eq!((served.status, served.content_type.as_str()), (200, "application/json"));
    assert_eq!(served.headers["etag"], "\"1\"");
    assert_eq!(Schema::parse(&served.text).unwrap(), schema(ONE).unwrap());
    let again = app.http.get(app.space_url("/schema")).bearer_auth(&app.token).header("if-none-match", "W/\"1\"");
    let again = Answer::of(again).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    let other = app.http.get(app.space_url("/schema")).bearer_auth(&app.token).header("if-none-match", "\"0\"");
    assert_eq!(Answer::of(other).await.status, 200);
    Answer::of(app.http.get(app.space_url("/schema"))).await.assert_problem(401, "unauthenticated");
    TestApp::start().await.get("/schema").await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn the_schema_stays_in_force_when_the_server_starts_without_it() {
    let mut app = TestApp::with_schema(ONE, &[]).await;
    let since = app.server.as_ref().unwrap().schema().unwrap();
    app.restart().await;
    assert_eq!(app.server.as_ref().unwrap().schema().unwrap(), since);
    assert_eq!(app.get("").await.json()["schemaVersion"], 1);
    let unknown = TestGroup::of("g1", 1, &[upsert("stock", "s", 0, "{}")]);
    assert_eq!(app.push(&[unknown]).await.verdicts(), ["rejected schema_violation"]);
}

#[tokio::test]
async fn a_schema_is_never_set_back_nor_changed_under_its_version() {
    let mut app = TestApp::with_schema(TWO, &[]).await;
    let older = app.restart_with(|config| config.schema = schema(ONE)).await.unwrap_err();
    assert!(matches!(older, ServerError::SchemaOlder { given: 1, kept: 2 }), "{older}");
    let changed = TWO.replace("\"cash\"", "\"card\"");
    let error = app.restart_with(|config| config.schema = schema(&changed)).await.unwrap_err();
    assert!(matches!(error, ServerError::SchemaChanged { version: 2 }), "{error}");
    // The same again, written in another order, is no change.
    let json = schema(TWO).unwrap().to_json();
    app.restart_with(|config| config.schema = schema(&json)).await.unwrap();
    let error = app.server.as_ref().unwrap().adopt_schema(schema(ONE).unwrap()).await.unwrap_err();
    assert!(matches!(error, ServerError::SchemaOlder { .. }), "{error}");
    assert_eq!(app.push(&[receipt("g1", 1, "r1")]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn records_are_brought_to_a_newer_schema_through_the_log() {
    let mut app = filled().await;
    app.restart_with(|config| config.schema = schema(TWO)).await.unwrap();
    let after = changes(&app, 3).await;
    assert_eq!(after.len(), 6, "{after:?}");
    let of = |id: &str| after.iter().find(|change| change["id"] == id).unwrap().clone();
    assert_eq!(of("r2")["payload"], json!({"customerId":"c2"}));
    assert_eq!(of("p2")["payload"], json!({"amount":2,"kind":"cash","receiptId":"r2"}));
    // Edits that devices made on the records before do not conflict with this.
    assert_eq!((of("r2")["version"].as_u64() > Some(3), of("r2")["editVersion"].as_u64()), (true, Some(2)));
    let entry = app.get("/log?after=3").await.json()["groups"][0].clone();
    assert_eq!((entry["device"].as_str(), entry["syncGroupType"].as_str()), (Some("server"), Some("schema-upgrade")));
    let pending = TestGroup::of("g4", 4, &[patch("receipts", "r2", 2, r#"{"customer":"c9"}"#)]);
    let pending = pending.with(r#""schemaVersion":1,"#);
    assert_eq!(app.push(&[pending]).await.verdicts(), ["accepted"]);
    assert_eq!(changes(&app, 3).await.last().unwrap()["payload"], json!({"customerId":"c9"}));
    // Nothing is left to do at the next start.
    let head = app.digest().head;
    app.restart_with(|config| config.schema = schema(TWO)).await.unwrap();
    assert_eq!(app.digest().head, head);
}

#[tokio::test]
async fn rules_that_are_new_hold_for_records_from_before() {
    let mut app = filled().await;
    app.restart_with(|config| config.schema = schema(TWO)).await.unwrap();
    let referred = TestGroup::of("g4", 4, &[delete("receipts", "r1", 1)]);
    let taken = TestGroup::of("g5", 5, &[upsert("receipts", "r9", 0, r#"{"customerId":"c2"}"#)]);
    assert_eq!(app.push(&[referred, taken]).await.verdicts(), ["rejected still_referenced", "rejected duplicate_value"]);
}

#[tokio::test]
async fn a_schema_is_put_in_force_while_the_server_runs() {
    let app = filled().await;
    let newer = TestGroup::of("g4", 4, &[upsert("payments", "p4", 0, r#"{"amount":1,"kind":"card"}"#)]);
    let newer = newer.with(r#""schemaVersion":2,"#);
    assert_eq!(app.push(std::slice::from_ref(&newer)).await.verdicts(), ["blocked"]);
    app.server.as_ref().unwrap().adopt_schema(schema(TWO).unwrap()).await.unwrap();
    assert_eq!(app.push(&[newer]).await.verdicts(), ["accepted"]);
    assert_eq!(app.get("").await.json()["schemaVersion"], 2);
    assert_eq!(app.get("/schema").await.headers["etag"], "\"2\"");
    assert_eq!(changes(&app, 3).await.len(), 7);
}

/// Fails the COMMIT with this number, and those behind it as long as `count` says.
fn failing(first: usize, count: usize) -> Option<FaultPoint> {
    let commits = AtomicUsize::new(0);
    let is_failing = move || (first..first + count).contains(&commits.fetch_add(1, Ordering::SeqCst));
    Some(FaultPoint(Arc::new(is_failing)))
}

#[tokio::test]
async fn an_upgrade_that_breaks_off_anywhere_goes_on_where_it_was() {
    let mut app = filled().await;
    app.restart_with(|config| config.schema = schema(TWO)).await.unwrap();
    let expected = (app.digest(), changes(&app, 3).await);
    let mut broken_off = 0;
    for first in 0.. {
        let mut app = filled().await;
        let broken = app.restart_with(|config| (config.schema, config.fault) = (schema(TWO), failing(first, 1))).await;
        match broken {
            Err(ServerError::Store(_)) => broken_off += 1,
            Err(error) => panic!("{error}"),
            Ok(()) => break,
        }
        // It goes on even if nobody gives the schema again, unless nothing had begun.
        app.restart().await;
        let version = app.get("").await.json()["schemaVersion"].as_u64().unwrap();
        assert_eq!(version, if first == 0 { 1 } else { 2 }, "commit {first}");
        app.restart_with(|config| config.schema = schema(TWO)).await.unwrap();
        assert_eq!((app.digest(), changes(&app, 3).await), expected, "commit {first}");
    }
    assert_eq!(broken_off, 5, "one to propose, one a kind of record, one for the space, one to put in force");
}

#[tokio::test]
async fn a_running_server_decides_nothing_while_an_upgrade_is_half_done() {
    for first in 1..5 {
        let mut app = filled().await;
        app.restart_with(|config| config.fault = failing(first, 2)).await.unwrap();
        let error = app.server.as_ref().unwrap().adopt_schema(schema(TWO).unwrap()).await.unwrap_err();
        assert!(matches!(error, ServerError::Store(_)), "{error}");
        let sale = TestGroup::of("g4", 4, &[upsert("receipts", "r4", 0, r#"{"customer":"c4"}"#)]);
        let sale = sale.with(r#""schemaVersion":1,"#);
        app.push(std::slice::from_ref(&sale)).await.assert_problem(503, "unavailable");
        // The next push finishes the upgrade first.
        assert_eq!(app.push(&[sale]).await.verdicts(), ["accepted"]);
        assert_eq!(app.get("").await.json()["schemaVersion"], 2);
        assert_eq!(changes(&app, 3).await.last().unwrap()["payload"], json!({"customerId":"c4"}));
    }
}

#[tokio::test]
async fn data_that_breaks_a_new_rule_does_not_keep_the_server_from_starting() {
    let mut app = filled().await;
    let doubled = TestGroup::of("g4", 4, &[upsert("receipts", "r4", 0, r#"{"customer":"c1"}"#)]);
    app.push(&[doubled.with(r#""schemaVersion":1,"#)]).await;
    app.restart_with(|config| config.schema = schema(TWO)).await.unwrap();
    let third = TestGroup::of("g5", 5, &[upsert("receipts", "r5", 0, r#"{"customerId":"c1"}"#)]);
    assert_eq!(app.push(&[third]).await.verdicts(), ["rejected duplicate_value"]);
}
