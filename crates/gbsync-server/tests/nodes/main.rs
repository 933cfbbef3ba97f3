//! Several servers on one PostgreSQL: a device may talk to any of them, and none remembers what another decides.

#![allow(clippy::unwrap_used)]

#[path = "../suite/common/mod.rs"]
mod common;
mod encrypted;
mod outcome;
mod proxy;
mod views;

use common::*;
use gbsync_cluster::Cluster;
use gbsync_core::schema::Schema;
use gbsync_server::{Server, ServerConfig, StoreLocation};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

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

/// Checks a log as a naive program reads it while sixteen devices push to two nodes: whatever lies behind the last number that
/// it saw. Without the lock of the space transactions meet in the middle: planted, as `./test` does (`GBSYNC_PLANT_UNLOCKED=1
/// cargo test -p gbsync-server --features mutants --test nodes naive`), that bug must be seen here.
#[tokio::test(flavor = "multi_thread")]
async fn a_naive_reader_over_sixteen_writers_on_two_nodes_skips_nothing() {
    let is_planted = std::env::var_os("GBSYNC_PLANT_UNLOCKED").is_some();
    assert!(!is_planted || cfg!(feature = "mutants"), "a bug is planted with the feature `mutants` alone");
    let found = run_naively().await;
    if is_planted {
        assert!(found.is_err(), "without the lock everything went well, so this test proves nothing");
    } else {
        assert_eq!(found, Ok(()));
    }
}

/// What went wrong, if anything did.
async fn run_naively() -> Result<(), String> {
    const WRITERS: u64 = 16;
    const PUSHES: u64 = 20;
    let app = Arc::new(TestApp::start().await);
    let other = Arc::new(another(&app, |_| {}).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(read_naively(app.store.clone(), Arc::clone(&is_over)));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (app, other) = (Arc::clone(&app), Arc::clone(&other));
        writers.push(tokio::spawn(async move {
            for number in 0..PUSHES {
                let record = |half: u64| format!("r-{writer}-{number}-{half}");
                let group = |half: u64| {
                    let seq = number * 2 + half;
                    receipt(&format!("g-{writer}-{seq}"), seq + 1, &record(half))
                };
                let device = format!("till-{writer}");
                let groups = [group(0), group(1)];
                let node = if (writer + number) % 2 == 0 { app.server.as_ref().unwrap() } else { &other };
                let answer = push(&app, node, &device, &groups).await;
                if answer.status != 200 || answer.verdicts() != ["accepted", "accepted"] {
                    return Err(format!("a push was answered {} {}", answer.status, answer.text));
                }
            }
            Ok(())
        }));
    }
    let mut ended = Vec::new();
    for writer in writers {
        ended.push(writer.await.unwrap());
    }
    is_over.store(true, Ordering::SeqCst);
    let (seen, looks) = reading.await.unwrap();
    ended.into_iter().collect::<Result<(), String>>()?;
    if seen != (1..=i64::try_from(WRITERS * PUSHES * 2).unwrap()).collect::<Vec<_>>() {
        return Err(format!("the reader saw {} of {} groups: {seen:?}", seen.len(), WRITERS * PUSHES * 2));
    }
    let failed = (app.counters().failed_transactions, other.counters().failed_transactions);
    match (looks > 10, failed) {
        (false, _) => Err(format!("the reader looked only {looks} times")),
        (true, (0, 0)) => Ok(()),
        (true, failed) => Err(format!("{failed:?} transactions failed")),
    }
}

/// Every number that a reader saw, and how often it looked.
async fn read_naively(store: StoreLocation, is_over: Arc<AtomicBool>) -> (Vec<i64>, u64) {
    let StoreLocation::Postgres(url) = store else { panic!("not on PostgreSQL") };
    let (url, schema) = url.split_once("?schema=").unwrap();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {schema}")).await.unwrap();
    let (mut cursor, mut seen, mut looks) = (0_i64, Vec::new(), 0);
    loop {
        let is_last = is_over.load(Ordering::SeqCst);
        let rows = client.query("SELECT seq FROM log WHERE seq > $1 ORDER BY seq", &[&cursor]).await.unwrap();
        seen.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        cursor = seen.last().copied().unwrap_or(0);
        looks += 1;
        if is_last {
            return (seen, looks);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_one_node_is_woken_by_a_push_at_another() {
    let app = Arc::new(TestApp::start().await);
    let other = another(&app, |_| {}).await;
    let waiting = Arc::clone(&app);
    let waiting = tokio::spawn(async move {
        let page = waiting.get("/log?after=0&wait=30").await;
        (page, Instant::now())
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    push(&app, &other, "till-1", &[receipt("g1", 1, "r-1")]).await;
    let pushed = Instant::now();
    let (page, woken) = waiting.await.unwrap();
    assert_eq!(page.json()["groups"][0]["syncGroupId"], "g1");
    assert!(woken.saturating_duration_since(pushed) < Duration::from_secs(5));
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
