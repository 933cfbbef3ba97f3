//! Several servers on one PostgreSQL: a device may talk to any of them, and none remembers what another decides.

#![allow(clippy::unwrap_used)]

mod collisions;
#[path = "../suite/common/mod.rs"]
mod common;
mod encrypted;
mod naive;
mod outcome;
mod proxy;
mod trips;
mod views;
mod wake_ups;

use common::*;
use gbsync_cluster::Cluster;
use gbsync_core::schema::Schema;
use gbsync_server::{Server, ServerConfig, StoreLocation};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The same store behind another server.
async fn another(app: &TestApp, change: impl FnOnce(&mut ServerConfig)) -> Server {
    let mut config = config(&app.store);
    change(&mut config);
    Server::start(config).await.unwrap()
}

async fn get(app: &TestApp, node: &Server, rest: &str) -> Answer {
    let url = format!("{}/v1/spaces/{SPACE}{rest}", node.url());
    Answer::of(app.http.get(url).bearer_auth(&app.token)).await
}

async fn push(app: &TestApp, node: &Server, device: &str, groups: &[TestGroup]) -> Answer {
    let url = format!("{}/v1/spaces/{SPACE}/push", node.url());
    let request = app.http.post(url).bearer_auth(&app.token).header("content-type", "application/json");
    Answer::of(request.body(envelope(device, "e1", groups))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_talk_to_any_node_at_any_moment() {
    let app = TestApp::start().await;
    let other = another(&app, |_| {}).await;
    let groups = [receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2").depends_on("g1")];
    assert_eq!(app.push(&groups).await.verdicts(), ["accepted", "accepted"]);
    let again = push(&app, &other, "till-1", &groups).await;
    assert_eq!((again.result(0)["seq"].as_u64(), again.result(0)["duplicate"].as_bool()), (Some(1), Some(true)));
    let third = [receipt("g3", 3, "r-3").depends_on("g2"), receipt("g4", 4, "r-1")];
    assert_eq!(push(&app, &other, "till-1", &third).await.verdicts(), ["accepted", "rejected conflict"]);
    let handshake = get(&app, &other, "?device=till-1").await.json();
    assert_eq!((handshake["head"].as_u64(), handshake["device"]["deviceSeq"].as_u64()), (Some(3), Some(4)));
    assert_eq!(app.get("/log?after=0").await.text, get(&app, &other, "/log?after=0").await.text);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_put_in_force_at_one_node_is_what_all_decide_by() {
    let schema = |version: u64, rest: &str| {
        let text = format!("version = {version}\n[entities.receipts]\nfields.total = \"text\"\n{rest}");
        Schema::parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
    };
    let app = TestApp::with(|config| config.schema = Some(schema(1, ""))).await;
    let other = another(&app, |config| config.schema = Some(schema(1, ""))).await;
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
    let newer = schema(2, "fields.store = { type = \"text\", default = \"main\" }\n");
    other.adopt_schema(newer).await.unwrap();
    // The first node was told nothing, and decides by what the store says all the same.
    let bad = TestGroup::of("g2", 2, &[upsert("receipts", "r-2", 0, r#"{"store":7,"total":"1.00"}"#)]);
    let bad = bad.with(r#""schemaVersion":2,"#);
    assert_eq!(app.push(&[bad]).await.verdicts(), ["rejected schema_violation"]);
    assert_eq!(app.get("").await.json()["schemaVersion"], 2);
    let log = app.get("/log?after=1").await.json();
    assert_eq!(log["groups"][0]["changes"][0]["payload"]["store"], "main");
    assert_eq!(app.get("/schema").await.json()["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_together_make_the_tables_once() {
    let cluster = Cluster::shared().unwrap();
    let store = StoreLocation::Postgres(cluster.store());
    let starting: Vec<_> = (0..4).map(|_| tokio::spawn(Server::start(config(&store)))).collect();
    let mut urls = BTreeSet::new();
    let mut nodes = Vec::new();
    for node in starting {
        let node = node.await.unwrap().unwrap();
        urls.insert(node.url());
        nodes.push(node);
    }
    assert_eq!(urls.len(), 4);
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_on_when_postgresql_comes_back() {
    let mut cluster = Cluster::start(&[]).unwrap();
    let store = StoreLocation::Postgres(cluster.store());
    let token = token(&store, SPACE, None, None);
    let node = Server::start(config(&store)).await.unwrap();
    let http = http();
    let push = async |id: &str, seq: u64| {
        let url = format!("{}/v1/spaces/{SPACE}/push", node.url());
        let request = http.post(url).bearer_auth(&token).header("content-type", "application/json");
        Answer::of(request.body(envelope("till-1", "e1", &[receipt(id, seq, id)]))).await
    };
    assert_eq!(push("g1", 1).await.verdicts(), ["accepted"]);
    cluster.kill();
    push("g2", 2).await.assert_problem(503, "unavailable");
    cluster.restart().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let verdicts = loop {
        let answer = push("g2", 2).await;
        if answer.status == 200 {
            break answer.verdicts();
        }
        assert!(Instant::now() < deadline, "{answer:?}");
    };
    assert_eq!(verdicts, ["accepted"]);
    node.stop().await.unwrap();
}

async fn refusal(url: String) -> String {
    match Server::start(config(StoreLocation::Postgres(url))).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_may_forget_what_it_acknowledged_is_refused() {
    let cluster = Cluster::shared().unwrap();
    let lazy = format!("{}&options=-c%20synchronous_commit%3Doff", cluster.store());
    let error = refusal(lazy).await;
    assert!(error.contains("synchronous_commit is off") && error.contains("turn it on"), "{error}");
    for setting in ["fsync", "full_page_writes"] {
        let cluster = Cluster::start(&[&format!("{setting} = off")]).unwrap();
        let error = refusal(cluster.store()).await;
        assert!(error.contains(&format!("{setting} is off")), "{error}");
        let answer =
            gbsync_cluster::ask(&cluster.url("postgres"), "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^s[0-9]'");
        assert_eq!(answer.unwrap(), [[Some("0".to_owned())]], "nothing was made");
    }
    let error = refusal("postgres://nobody@127.0.0.1:1/none".into()).await;
    assert!(error.contains("cannot be reached"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_larger_than_an_index_takes_is_unique_all_the_same() {
    let schema = "version = 1\n[entities.notes]\nunique = [[\"text\"]]\nfields.text = \"text\"\n";
    let app = TestApp::with_schema(schema, &[]).await;
    let note = |id: &str, seq: u64, record: &str| {
        let payload = format!(r#"{{"text":"{}"}}"#, "long ".repeat(4_000));
        TestGroup::of(id, seq, &[upsert("notes", record, 0, &payload)]).typed(None)
    };
    let answer = app.push(&[note("g1", 1, "n-1"), note("g2", 2, "n-2")]).await;
    assert_eq!(answer.verdicts(), ["accepted", "rejected duplicate_value"]);
    let answer: Value = app.push(&[note("g3", 3, "n-3")]).await.result(0);
    assert_eq!(answer["code"], "duplicate_value");
}
