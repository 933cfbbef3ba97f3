//! Where one part of the contract meets another: limits and families, upgrades and references, refusals and the size of
//! answers.

use crate::common::*;
use gbsync_core::schema::Schema;
use serde_json::Value;

/// Asks as the back office.
async fn as_admin(app: &TestApp, rest: &str, body: Option<&str>) -> Answer {
    let token = token_with_roles(&app.store, SPACE, &["admin"]);
    let request = match body {
        Some(body) => app.http.post(app.space_url(rest)).header("content-type", "application/json").body(body.to_owned()),
        None => app.http.get(app.space_url(rest)),
    };
    Answer::of(request.bearer_auth(token)).await
}

fn notes(id: &str, device_seq: u64, count: usize) -> TestGroup {
    let notes: Vec<String> = (0..count).map(|n| upsert("notes", &format!("{id}-{n}"), 0, "{}")).collect();
    TestGroup::of(id, device_seq, &notes)
}

#[tokio::test]
async fn a_replacement_over_a_limit_is_of_the_family_so_that_only_one_of_it_is_accepted() {
    let app = TestApp::with(|config| config.limits.group_records = 2).await;
    let refused = receipt("bad", 2, "r1");
    assert_eq!(app.push(&[receipt("g1", 1, "r1"), refused]).await.verdicts(), ["accepted", "rejected conflict"]);
    let large = notes("large", 3, 3).replaces("bad").actor("bob");
    assert_eq!(app.push(&[large]).await.verdicts(), ["rejected too_large"]);
    let kept = as_admin(&app, "/rejections/large", None).await.json();
    assert_eq!((kept["syncGroupType"].as_str(), kept["actor"].as_str()), (Some("receipt-create"), Some("bob")), "{kept}");
    assert_eq!((kept["replaces"].as_str(), &kept["changes"]), (Some("bad"), &Value::Null));

    let amendment = r#"{"actor":"ann","reason":"x","changes":[{"entity":"notes","id":"n","action":"upsert","payload":{}}]}"#;
    let answer = as_admin(&app, "/rejections/bad/amend", Some(amendment)).await;
    assert_eq!(answer.json()["result"]["status"], "accepted", "{answer:?}");
    let smaller = notes("small", 4, 2).replaces("large");
    assert_eq!(app.push(&[smaller]).await.verdicts(), ["rejected already_replaced"]);
    assert_eq!(app.digest().records, 2);
}

#[tokio::test]
async fn a_token_never_gets_the_group_of_another_person_refused_for_its_size() {
    let app = TestApp::with(|config| config.limits.group_records = 2).await;
    let body = envelope("till-1", "e1", &[notes("large", 1, 3).actor("bob")]);
    let carl = token(&app.store, SPACE, Some("carl"), None);
    let request = app.http.post(app.space_url("/push")).bearer_auth(carl).header("content-type", "application/json");
    let pointer = Answer::of(request.body(body)).await.assert_problem(403, "forbidden");
    assert_eq!(pointer.as_deref(), Some("/groups/0/actor"));
}

#[tokio::test]
async fn a_refused_group_that_names_nobody_is_that_of_the_token() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r1")]).await;
    let bob = token(&app.store, SPACE, Some("bob"), None);
    let body = envelope("till-2", "e2", &[receipt("bad", 1, "r1")]);
    let request = app.http.post(app.space_url("/push")).bearer_auth(bob).header("content-type", "application/json");
    assert_eq!(Answer::of(request.body(body)).await.verdicts(), ["rejected conflict"]);
    assert_eq!(as_admin(&app, "/rejections/bad", None).await.json()["actor"], "bob");
    let carl = token(&app.store, SPACE, Some("carl"), None);
    let request = app.http.post(app.space_url("/groups/bad/discard")).bearer_auth(carl);
    let request = request.header("content-type", "application/json").body(r#"{"reason":"x"}"#);
    Answer::of(request).await.assert_problem(403, "forbidden");
}

fn shop(version: u64) -> Schema {
    Schema::parse(&format!(
        "version = {version}\n[entities.stores]\nfields.name = \"text\"\n[entities.sales]\n\
         fields.storeId = {{ type = \"text\", references = \"stores\", default = \"main\" }}\n"
    ))
    .unwrap_or_else(|problems| panic!("{problems}"))
}

#[tokio::test]
async fn a_default_that_counts_anew_is_a_reference_like_any_other() {
    let mut app = TestApp::with(|config| config.schema = Some(shop(1))).await;
    let made = [upsert("stores", "main", 0, "{}"), upsert("sales", "s1", 0, r#"{"storeId":"main"}"#)];
    let made = TestGroup::of("g1", 1, &made).with(r#""schemaVersion":1,"#);
    let freed = TestGroup::of("g2", 2, &[patch("sales", "s1", 1, r#"{"storeId":null}"#)]).with(r#""schemaVersion":1,"#);
    assert_eq!(app.push(&[made, freed]).await.verdicts(), ["accepted", "accepted"]);
    app.restart_with(|config| config.schema = Some(shop(2))).await.unwrap();
    assert!(app.get("/log?after=2").await.text.contains(r#"{"storeId":"main"}"#), "the default counts anew");
    let gone = TestGroup::of("g3", 3, &[delete("stores", "main", 1)]).with(r#""schemaVersion":2,"#);
    assert_eq!(app.push(&[gone]).await.verdicts(), ["rejected still_referenced"]);
}

#[tokio::test]
async fn no_request_makes_the_answer_many_times_as_large() {
    let app = TestApp::start().await;
    let large = format!(r#"{{"scan":"{}"}}"#, "x".repeat(250 * 1024));
    let scans: Vec<String> = (0..3).map(|n| upsert("scans", &format!("s{n}"), 0, &large)).collect();
    assert_eq!(app.push(&[TestGroup::of("g1", 1, &scans)]).await.verdicts(), ["accepted"]);
    // Many small groups, each refused beside the large records as they are.
    let changes: Vec<String> = (0..3).map(|n| delete("scans", &format!("s{n}"), 0)).collect();
    let refused: Vec<TestGroup> = (0..60).map(|n| TestGroup::of(&format!("d{n}"), n + 2, &changes)).collect();
    let first = app.push(&refused).await;
    assert_eq!(first.verdicts(), ["rejected conflict"; 60]);
    let most = 20 * 1024 * 1024;
    assert!(first.text.len() < most, "{} bytes", first.text.len());
    assert!(!first.result(0)["changes"][2]["current"].is_null());
    assert_eq!(first.result(59)["changes"][2]["code"], "version_conflict");
    let again = app.push(&refused[59..]).await.result(0);
    assert_eq!(again["changes"], first.result(59)["changes"], "as the first time");
    let ids = vec!["\"d0\""; 200].join(",");
    let asked = app.post("/verdicts", format!(r#"{{"ids":[{ids}]}}"#)).await;
    assert_eq!(asked.verdicts(), ["rejected conflict"; 200]);
    assert!(asked.text.len() < most, "{} bytes", asked.text.len());
    let listed = app.push(&vec![refused[0].clone(); 200]).await;
    assert!(listed.text.len() < most, "{} bytes", listed.text.len());
}

#[tokio::test]
async fn an_upgrade_of_many_small_records_writes_entries_that_devices_can_read() {
    let request_bytes = 64 * 1024;
    let limit = |config: &mut gbsync_server::ServerConfig| config.limits.request_bytes = request_bytes;
    let schema =
        |version: u64, more: &str| Schema::parse(&format!("version = {version}\n[entities.notes]\n{more}")).unwrap();
    let mut app = TestApp::with(|config| {
        limit(config);
        config.schema = Some(schema(1, "fields.text = \"text\"\n"));
    })
    .await;
    for n in 0..6 {
        let group = notes(&format!("g{n}"), n + 1, 500).with(r#""schemaVersion":1,"#);
        assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
    }
    let newer = schema(2, "fields.text = { type = \"text\", default = \"none\" }\n");
    app.restart_with(|config| (limit(config), config.schema = Some(newer)).1).await.unwrap();
    let (mut after, mut changed) = (6, 0);
    while after < app.digest().head.0 {
        let page = app.get(&format!("/log?after={after}&maxRecords=1")).await;
        assert!(page.text.len() < request_bytes as usize, "{} bytes", page.text.len());
        let page = page.json();
        changed += page["groups"][0]["changeCount"].as_u64().unwrap();
        after = page["next"].as_u64().unwrap();
    }
    assert_eq!(changed, 3_000);
}

#[tokio::test]
async fn a_group_in_parts_waits_is_refused_and_is_amended_like_any_other() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "n-0")]).await;
    let changes = [upsert("notes", "a", 0, "{}"), upsert("receipts", "n-0", 0, "{}")];
    let in_parts = |id: &str, device_seq: u64, extra: &str| {
        let group = TestGroup::of(id, device_seq, &changes).with(extra);
        group.json().replace(&format!(r#""changes":{}"#, group.changes), r#""parts":2"#)
    };
    for id in ["large", "again"] {
        for (number, change) in changes.iter().enumerate() {
            let url = app.space_url(&format!("/groups/{id}/parts/{number}?device=till-1"));
            let request = app.http.put(url).bearer_auth(&app.token).header("content-type", "application/json");
            assert_eq!(Answer::of(request.body(format!("[{change}]"))).await.status, 200);
        }
    }
    let push = async |group: &str| app.post("/push", raw_envelope("till-1", "e1", group)).await.verdicts();
    let waits = in_parts("large", 2, r#""dependsOn":["g2"],"#);
    // What waits keeps its parts, so that it need not come again.
    assert_eq!(push(&waits).await, ["blocked"]);
    assert_eq!(push(&format!("{},{waits}", receipt("g2", 3, "r2").json())).await, ["accepted", "rejected conflict"]);
    assert_eq!(push(&waits).await, ["rejected conflict"]);
    let kept = as_admin(&app, "/rejections/large", None).await.json();
    assert_eq!((kept["changes"][1]["id"].as_str(), kept["result"]["changes"][0]["index"].as_u64()), (Some("n-0"), Some(1)));
    let amendment = r#"{"actor":"ann","reason":"x","changes":[{"entity":"notes","id":"a","action":"upsert","payload":{}}]}"#;
    assert_eq!(as_admin(&app, "/rejections/large/amend", Some(amendment)).await.status, 200);
    assert_eq!(push(&in_parts("again", 4, r#""replaces":"large","#)).await, ["rejected already_replaced"]);
    let closed = as_admin(&app, "/rejections/again", None).await.json();
    assert_eq!((closed["state"].as_str(), closed["resolution"]["as"].as_str()), (Some("closed"), Some("amended")));
    assert_eq!(app.stored("SELECT count(*) FROM upload_parts"), ["0"], "what is decided is no longer staged");
}
