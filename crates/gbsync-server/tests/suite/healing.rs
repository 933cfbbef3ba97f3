//! A log that was restored, and what devices bring back of what it lost.

#![allow(clippy::duplicate_mod)]

use crate::common::{TestApp, TestGroup, increment, patch, raw_envelope, receipt, upsert};
use gbsync_server::{Environment, mark_restored};
use serde_json::{Value, json};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// A server whose log was restored as it was at 2, with what the log was called before: receipts `r-1` and `r-2` are in it.
async fn restored(heal_window_ms: u64) -> (TestApp, String) {
    let mut app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")]).await;
    let log = app.get("").await.json()["log"].as_str().unwrap().to_owned();
    restore(&mut app, heal_window_ms).await;
    (app, log)
}

async fn restore(app: &mut TestApp, heal_window_ms: u64) {
    app.server.take().unwrap().stop().await.unwrap();
    // As a command does: it has no runtime of its own around it.
    let store = app.store.clone();
    let marked = tokio::task::spawn_blocking(move || mark_restored(&store, &Environment::system(), |_| ()).map(|_| ()));
    marked.await.unwrap().unwrap();
    app.restart_with(|config| config.heal_window_ms = heal_window_ms).await.unwrap();
}

/// A group that was made on another log.
fn on(log: &str, group: TestGroup) -> TestGroup {
    group.with(&format!(r#""log":"{log}","#))
}

/// The same, and that log held it there.
fn lost(log: &str, seq: u64, group: TestGroup) -> TestGroup {
    on(log, group).with(&format!(r#""acceptedAs":[{{"log":"{log}","seq":{seq}}}],"#))
}

fn edit(id: &str, device_seq: u64, base: u64, total: &str) -> TestGroup {
    TestGroup::of(id, device_seq, &[patch("receipts", "r-1", base, &format!(r#"{{"total":"{total}"}}"#))])
}

#[tokio::test]
async fn a_restored_log_names_all_its_ancestors_and_up_to_where_they_agree() {
    let (mut app, first) = restored(HOUR_MS).await;
    let second = app.get("").await.json()["log"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    app.push(&[receipt("g3", 3, "r-3")]).await;
    restore(&mut app, HOUR_MS).await;
    let shake = app.get("").await.json();
    assert_eq!(shake["ancestors"], json!([{"log":second,"upTo":3},{"log":first,"upTo":2}]));
    assert_eq!(shake["head"], 3);
}

#[tokio::test]
async fn versions_that_both_logs_have_are_valid_as_they_are() {
    let (app, log) = restored(HOUR_MS).await;
    let groups = [on(&log, edit("a", 3, 1, "2.00")), on(&log, receipt("b", 4, "r-4"))];
    assert_eq!(app.push(&groups).await.verdicts(), ["accepted", "accepted"]);
    let stale = on(&log, edit("c", 5, 1, "3.00"));
    assert_eq!(app.push(&[stale]).await.verdicts(), ["rejected conflict"]);
}

#[tokio::test]
async fn a_group_made_on_a_lost_one_waits_for_it_and_is_then_read_as_made_on_it() {
    let (app, log) = restored(HOUR_MS).await;
    // Another device saw the lost edit at 3 and edited the record after it.
    let after = || on(&log, edit("after", 1, 3, "9.00"));
    let waits = app.push_as("till-2", "e2", &[after()]).await.result(0);
    assert_eq!(waits, json!({"syncGroupId":"after","status":"blocked","blockedBy":[]}));
    assert_eq!(
        app.push(&[receipt("between", 3, "r-9"), lost(&log, 3, edit("lost", 4, 1, "5.00"))]).await.verdicts(),
        ["accepted", "accepted"]
    );
    assert_eq!(app.push_as("till-2", "e2", &[after()]).await.verdicts(), ["accepted"]);
    assert_eq!(app.get("/log?after=4").await.json()["groups"][0]["changes"][0]["payload"], json!({"total":"9.00"}));
    let again = app.push(&[lost(&log, 3, edit("lost", 4, 1, "5.00"))]).await.result(0);
    assert_eq!((again["seq"].as_u64(), again["duplicate"].as_bool()), (Some(4), Some(true)));
}

#[tokio::test]
async fn what_others_wrote_after_the_restore_is_not_taken_for_seen() {
    let (app, log) = restored(HOUR_MS).await;
    let current = app.get("").await.json()["log"].as_str().unwrap().to_owned();
    assert_eq!(app.push_as("till-3", "e3", &[on(&current, edit("new", 1, 1, "7.00"))]).await.verdicts(), ["accepted"]);
    // The lost edit and what was made on it lose against the edit that came in between: both are kept for a person.
    let brought = app.push(&[lost(&log, 3, edit("lost", 3, 1, "5.00"))]).await;
    assert_eq!(brought.verdicts(), ["rejected conflict"]);
    let after = app.push_as("till-2", "e2", &[on(&log, edit("after", 1, 3, "9.00"))]).await;
    assert_eq!(after.verdicts(), ["rejected base_lost"]);
}

#[tokio::test]
async fn under_merge_a_lost_group_vouches_for_its_own_fields_alone() {
    let schema =
        "version = 1\n[entities.products]\non_conflict = \"merge\"\nfields.name = \"text\"\nfields.price = \"text\"\n";
    let mut app = TestApp::with_schema(schema, &[]).await;
    let product =
        |id: &str, n, base, payload: &str| TestGroup::of(id, n, &[patch("products", "p", base, payload)]).typed(None);
    let made = TestGroup::of("made", 1, &[upsert("products", "p", 0, r#"{"name":"a","price":"1"}"#)]).typed(None);
    app.push(&[made]).await;
    let log = app.get("").await.json()["log"].as_str().unwrap().to_owned();
    restore(&mut app, HOUR_MS).await;
    let between = product("between", 1, 1, r#"{"price":"2"}"#);
    assert_eq!(app.push_as("till-3", "e3", &[between]).await.verdicts(), ["accepted"]);
    assert_eq!(app.push(&[lost(&log, 2, product("lost", 2, 1, r#"{"name":"b"}"#))]).await.verdicts(), ["accepted"]);
    let groups = [on(&log, product("name", 1, 2, r#"{"name":"c"}"#)), on(&log, product("price", 2, 2, r#"{"price":"3"}"#))];
    assert_eq!(app.push_as("till-2", "e2", &groups).await.verdicts(), ["accepted", "rejected conflict"]);
}

/// A product under `merge`, made at 1 of a log that is back at 1; and the name that the log had.
async fn merged() -> (TestApp, String) {
    let schema =
        "version = 1\n[entities.products]\non_conflict = \"merge\"\nfields.name = \"text\"\nfields.price = \"text\"\n";
    let mut app = TestApp::with_schema(schema, &[]).await;
    app.push(&[TestGroup::of("made", 1, &[upsert("products", "p", 0, r#"{"name":"a","price":"1"}"#)]).typed(None)]).await;
    let log = app.get("").await.json()["log"].as_str().unwrap().to_owned();
    restore(&mut app, HOUR_MS).await;
    (app, log)
}

/// An edit of the product, made on a version and perhaps on an own edit over that.
fn product(id: &str, n: u64, base: u64, own: Option<&str>, payload: &str) -> TestGroup {
    let change = patch("products", "p", base, payload);
    let Some(own) = own else { return TestGroup::of(id, n, &[change]).typed(None) };
    let change = change.replace("\"payload\"", &format!("\"baseGroup\":\"{own}\",\"payload\""));
    TestGroup::of(id, n, &[change]).typed(None).depends_on(own)
}

#[tokio::test]
async fn under_merge_two_edits_of_one_lost_group_do_not_vouch_for_each_other() {
    let (app, log) = merged().await;
    let back = lost(&log, 2, product("lost", 2, 1, None, r#"{"name":"b"}"#));
    assert_eq!(app.push(&[back]).await.verdicts(), ["accepted"]);
    let other = on(&log, product("other", 1, 2, None, r#"{"price":"2"}"#));
    assert_eq!(app.push_as("till-2", "e2", &[other]).await.verdicts(), ["accepted"]);
    let name = on(&log, product("name", 3, 2, None, r#"{"name":"c"}"#));
    let price = on(&log, product("price", 4, 2, Some("name"), r#"{"price":"3"}"#));
    assert_eq!(app.push(&[name, price]).await.verdicts(), ["accepted", "rejected conflict"]);
}

#[tokio::test]
async fn an_edit_on_an_own_one_waits_for_the_lost_version_beneath_that_and_is_made_on_both() {
    let (app, log) = merged().await;
    let price = product("price", 3, 1, None, r#"{"price":"2"}"#);
    let name = || on(&log, product("name", 4, 2, Some("price"), r#"{"name":"c"}"#));
    assert_eq!(app.push(&[price, name()]).await.verdicts(), ["accepted", "blocked"], "its author saw the name at 2");
    let back = lost(&log, 2, product("lost", 2, 1, None, r#"{"name":"b"}"#));
    assert_eq!(app.push(&[back, name()]).await.verdicts(), ["accepted", "accepted"]);
}

#[tokio::test]
async fn what_nobody_brings_back_in_time_is_lost_for_good() {
    let (app, log) = restored(0).await;
    let groups = [
        on(&log, edit("on-a-lost-version", 3, 3, "9.00")),
        on(&log, receipt("on-a-lost-group", 4, "r-4").depends_on("gone")),
        on(&log, receipt("on-nothing", 5, "r-5")),
        on(&log, TestGroup::of("counts", 6, &[increment("stock", "s", r#"{"n":1}"#)])),
        on("a-stranger", edit("on-a-stranger", 7, 1, "3.00")),
    ];
    let answer = app.push(&groups).await;
    assert_eq!(
        answer.verdicts(),
        ["rejected base_lost", "rejected base_lost", "accepted", "rejected conflict", "rejected base_lost"]
    );
    assert!(answer.result(0)["message"].as_str().unwrap().contains("version 3"), "{answer:?}");
    // Final: what comes later changes nothing.
    app.push_as("till-2", "e2", &[lost(&log, 3, edit("lost", 1, 1, "5.00"))]).await;
    let again = app.push(&[on(&log, edit("on-a-lost-version", 3, 3, "9.00"))]).await.result(0);
    assert_eq!((again["code"].as_str(), again["duplicate"].as_bool()), (Some("base_lost"), Some(true)));
}

#[tokio::test]
async fn what_depends_on_a_group_of_the_same_request_is_not_lost_with_the_window() {
    let (app, log) = restored(0).await;
    let parent = on(&log, receipt("parent", 3, "r-3")).with(r#""hlc":"9999999999999-0000-till","#);
    let child = on(&log, receipt("child", 4, "r-4").depends_on("parent"));
    let answer = app.push(&[parent, child]).await;
    assert_eq!(answer.verdicts(), ["rejected clock_skew", "blocked"]);
}

#[tokio::test]
async fn two_restores_one_after_the_other_are_healed_like_one() {
    let (mut app, first) = restored(HOUR_MS).await;
    assert_eq!(app.push(&[lost(&first, 3, edit("lost", 3, 1, "5.00"))]).await.verdicts(), ["accepted"]);
    let second = app.get("").await.json()["log"].as_str().unwrap().to_owned();
    restore(&mut app, HOUR_MS).await;
    let after = [on(&first, edit("of-the-first", 1, 3, "8.00")), on(&second, receipt("of-the-second", 2, "r-8"))];
    assert_eq!(app.push_as("till-2", "e2", &after).await.verdicts(), ["accepted", "accepted"]);
}

fn at(log: &Value, seq: u64, chain: &str) -> String {
    format!(r#","at":{{"log":{log},"seq":{seq},"chain":"{chain}"}}"#)
}

#[tokio::test]
async fn nothing_is_decided_for_a_device_that_stands_elsewhere_than_in_the_log() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")]).await;
    let shake = app.get("").await.json();
    let (log, chain) = (&shake["log"], shake["chain"].as_str().unwrap());
    let first = app.get("/log?maxRecords=1").await.json()["chain"].as_str().unwrap().to_owned();
    let push = |at: String, id: &str, n| {
        let body =
            raw_envelope("till-1", "e1", &receipt(id, n, id).json()).replacen(r#","batch""#, &format!(r#"{at},"batch""#), 1);
        app.post("/push", body)
    };
    for (place, reason) in [
        (at(log, 3, chain), "beyond_head"),
        (at(log, 1, chain), "log_changed"),
        (at(&json!("another"), 2, chain), "log_changed"),
    ] {
        let refused = push(place, "g3", 3).await;
        refused.assert_problem(410, "resync_required");
        assert_eq!(refused.json()["reason"], reason);
    }
    assert_eq!(push(at(log, 2, chain), "g4", 4).await.verdicts(), ["accepted"]);
    assert_eq!(push(at(log, 1, &first), "g5", 5).await.verdicts(), ["accepted"]);
    assert_eq!(push(at(log, 0, &"0".repeat(64)), "g6", 6).await.verdicts(), ["accepted"]);
    push(at(log, 2, "no digest"), "g7", 7).await.assert_problem(400, "malformed");
    assert_eq!(app.get("").await.json()["head"], 5);
}

#[tokio::test]
async fn a_log_that_a_device_saw_further_than_it_goes_begins_anew_from_where_both_agree() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")]).await;
    let shake = app.get("").await.json();
    let (log, chain) = (shake["log"].as_str().unwrap(), shake["chain"].as_str().unwrap());
    let first = app.get("/log?maxRecords=1").await.json()["chain"].as_str().unwrap().to_owned();
    let (zero, other) = ("0".repeat(64), "f".repeat(64));
    assert_eq!(app.get(&format!("?log={log}&after=2&chain={chain}")).await.json()["agrees"], true);
    let told = app.get(&format!("?log={log}&after=9&chain={other}&known=0.{zero},1.{first},2.{other}")).await.json();
    assert_ne!(told["log"], log);
    assert_eq!((&told["agrees"], &told["ancestors"]), (&json!(false), &json!([{"log":log,"upTo":1}])));
    // A device that had seen nothing else goes on as if nothing had been.
    let same = app.get(&format!("?log={log}&after=2&chain={chain}")).await.json();
    assert_eq!((&same["agrees"], &same["log"]), (&json!(true), &told["log"]));
    // One that is out of its mind does not make a log with every request.
    let new = told["log"].as_str().unwrap();
    let told = app.get(&format!("?log={new}&after=9&chain={other}")).await.json();
    assert_eq!((&told["agrees"], told["log"].as_str()), (&json!(false), Some(new)));
    app.get(&format!("?log={new}&after=9&chain={other}&known=0.{zero}")).await.assert_problem(429, "rate_limited");
    app.get(&format!("?log={new}&after=9&chain={other}&known=1")).await.assert_problem(400, "malformed");
}

/// A group whose device says what its bases were in the history that it was made on.
fn made_on(shared: u64, seq: u64, base: &str, group: TestGroup) -> TestGroup {
    group.with(&format!(r#""madeOn":{{"shared":{shared},"bases":[{{"seq":{seq},"group":"{base}"}}]}},"#))
}

#[tokio::test]
async fn two_lost_histories_of_one_name_are_told_apart_by_what_stood_there() {
    let (app, log) = restored(HOUR_MS).await;
    // The log was rolled back twice: place 3 was "one" to some and "two" to others.
    let one = || lost(&log, 3, edit("one", 3, 1, "5.00"));
    assert_eq!(app.push(&[one()]).await.verdicts(), ["accepted"]);
    let after_two = || made_on(2, 3, "two", on(&log, edit("after-two", 1, 3, "9.00")));
    let waits = app.push_as("till-2", "e2", &[after_two()]).await.result(0);
    assert_eq!(waits, json!({"syncGroupId":"after-two","status":"blocked","blockedBy":["two"]}));
    let two = lost(&log, 3, edit("two", 1, 1, "6.00"));
    assert_eq!(app.push_as("till-3", "e3", &[two]).await.verdicts(), ["rejected conflict"]);
    assert_eq!(app.push_as("till-2", "e2", &[after_two()]).await.verdicts(), ["rejected base_lost"]);
    let after_one = made_on(2, 3, "one", on(&log, edit("after-one", 1, 3, "7.00")));
    assert_eq!(app.push_as("till-4", "e4", &[after_one]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn where_a_device_left_the_history_counts_and_not_how_far_the_name_of_its_log_is_shared() {
    let (app, log) = restored(HOUR_MS).await;
    // Both logs are said to agree up to 2, but this device's parted at 1: another group stood at 2.
    let group = made_on(1, 2, "other", on(&log, edit("a", 1, 2, "9.00")));
    assert_eq!(app.push_as("till-2", "e2", &[group]).await.result(0)["blockedBy"], json!(["other"]));
    let same = made_on(1, 2, "g2", on(&log, TestGroup::of("b", 2, &[patch("receipts", "r-2", 2, r#"{"total":"4.00"}"#)])));
    assert_eq!(app.push_as("till-2", "e2", &[same]).await.verdicts(), ["accepted"]);
    // What nobody can name is not guessed, and waits.
    let unnamed = on(&log, edit("c", 3, 3, "9.00")).with(r#""madeOn":{"shared":2},"#);
    assert_eq!(app.push(&[lost(&log, 3, edit("lost", 3, 1, "5.00"))]).await.verdicts(), ["accepted"]);
    assert_eq!(app.push_as("till-2", "e2", &[unnamed]).await.verdicts(), ["blocked"]);
}

#[tokio::test]
async fn a_history_of_the_present_name_is_another_one_where_its_device_says_so() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")]).await;
    let log = app.get("").await.json()["log"].as_str().unwrap().to_owned();
    let gone = made_on(1, 2, "gone", on(&log, edit("a", 1, 2, "9.00")));
    assert_eq!(app.push_as("till-2", "e2", &[gone]).await.verdicts(), ["rejected base_lost"]);
    let same = made_on(0, 1, "g1", on(&log, edit("b", 2, 1, "8.00")));
    assert_eq!(app.push_as("till-2", "e2", &[same]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn a_log_that_was_never_heard_of_becomes_an_ancestor_when_a_device_knows_it() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")]).await;
    let log = app.get("").await.json()["log"].as_str().unwrap().to_owned();
    let first = app.get("/log?maxRecords=1").await.json()["chain"].as_str().unwrap().to_owned();
    let other = "f".repeat(64);
    let ask = |name: &str| format!("?log={name}&after=9&chain={other}&known=1.{first},2.{other}");
    let told = app.get(&ask("unheard")).await.json();
    let ancestors = json!([{"log":"unheard","upTo":1}]);
    assert_eq!((&told["log"], &told["ancestors"], &told["agreesUpTo"]), (&json!(log), &ancestors, &json!(1)));
    // Others have to wait to be named, and are answered all the same.
    let told = app.get(&ask("unheard-too")).await.json();
    assert_eq!((&told["ancestors"], &told["agreesUpTo"]), (&ancestors, &json!(1)));
}
