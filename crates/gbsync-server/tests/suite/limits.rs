//! Rates and quotas: who is refused by one, keeps everything and comes back.

use crate::common::*;
use gbsync_server::{Proxies, ServerConfig};
use std::time::{Duration, Instant};

fn retry_after(answer: &Answer) -> u64 {
    answer.headers.get("retry-after").unwrap().to_str().unwrap().parse().unwrap()
}

/// Checks that it is the refusal of a bound.
#[track_caller]
fn assert_limited(answer: &Answer, reason: &str) {
    answer.assert_problem(429, "rate_limited");
    assert_eq!(answer.json()["reason"], reason);
    assert!((1..=60).contains(&retry_after(answer)), "{answer:?}");
}

async fn with(change: impl FnOnce(&mut ServerConfig)) -> TestApp {
    TestApp::with(change).await
}

#[tokio::test]
async fn a_device_that_asks_too_often_is_refused_and_nobody_else() {
    let mut app = with(|config| (config.rates.device_requests, config.rates.device_burst) = (1, 3)).await;
    let (eager, calm) = (token(&app.store, SPACE, None, Some("till-1")), token(&app.store, SPACE, None, Some("till-2")));
    app.token = eager.clone();
    for _ in 0..3 {
        assert_eq!(app.get("").await.status, 200);
    }
    assert_limited(&app.get("").await, "device_requests");
    assert_limited(&app.push_as("till-1", "e1", &[receipt("g1", 1, "r-1")]).await, "device_requests");
    app.token = calm;
    assert_eq!(app.get("").await.status, 200);
    app.token = eager;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(app.push_as("till-1", "e1", &[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn devices_that_share_a_token_are_told_apart_by_what_they_push() {
    let app = with(|config| (config.rates.device_requests, config.rates.device_burst) = (1, 1)).await;
    let push = async |device: &str| app.push_as(device, "e1", &[receipt(&format!("g-{device}"), 1, device)]).await;
    assert_eq!(push("till-1").await.verdicts(), ["accepted"]);
    assert_limited(&push("till-1").await, "device_requests");
    assert_eq!(push("till-2").await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn a_space_has_a_bound_of_its_own_and_health_has_none() {
    let app = with(|config| (config.rates.space_requests, config.rates.space_burst) = (1, 2)).await;
    for _ in 0..2 {
        assert_eq!(app.get("/log?after=0").await.status, 200);
    }
    assert_limited(&app.get("/log?after=0").await, "space_requests");
    for _ in 0..5 {
        assert_eq!(Answer::of(app.http.get(app.url("/healthz"))).await.status, 200);
    }
    // Who is not let in takes nothing from those who are.
    let stranger = Answer::of(app.http.get(app.space_url("")).bearer_auth("gbt_none")).await;
    stranger.assert_problem(401, "unauthenticated");
}

#[tokio::test]
async fn an_address_is_bounded_before_its_token_is_looked_at_and_a_proxy_says_for_whom_it_asks() {
    let app = with(|config| {
        (config.rates.address_requests, config.rates.address_burst) = (1, 2);
        config.proxies = Proxies { trusted: vec!["127.0.0.0/8".parse().unwrap()], ..Proxies::default() };
    })
    .await;
    let ask = async |from: &str| {
        let request = app.http.get(app.space_url("")).bearer_auth("gbt_guessed").header("x-forwarded-for", from);
        Answer::of(request).await
    };
    for _ in 0..2 {
        ask("203.0.113.7").await.assert_problem(401, "unauthenticated");
    }
    assert_limited(&ask("203.0.113.7").await, "address_requests");
    assert_limited(&ask("1.1.1.1, 203.0.113.7").await, "address_requests");
    ask("203.0.113.8").await.assert_problem(401, "unauthenticated");

    let app = with(|config| (config.rates.address_requests, config.rates.address_burst) = (1, 2)).await;
    let ask = async |from: &str| {
        Answer::of(app.http.get(app.space_url("")).bearer_auth(&app.token).header("x-forwarded-for", from)).await
    };
    assert_eq!((ask("203.0.113.7").await.status, ask("203.0.113.8").await.status), (200, 200));
    assert_limited(&ask("203.0.113.9").await, "address_requests");
}

#[tokio::test]
async fn bytes_are_bounded_and_what_is_larger_than_the_bound_passes_all_the_same() {
    let app = with(|config| {
        config.limits.request_bytes = 16 * 1024;
        config.limits.payload_bytes = 8 * 1024;
        config.rates.device_push_bytes = 8 * 1024;
    })
    .await;
    let large = |n: u64| {
        let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(7_000));
        TestGroup::of(&format!("g{n}"), n, &[upsert("notes", &format!("n-{n}"), 0, &payload)])
    };
    let (started, mut pushed, mut refused) = (Instant::now(), 0, 0);
    while pushed < 12 {
        let answer = app.push(&[large(pushed + 1)]).await;
        if answer.status == 200 {
            assert_eq!(answer.verdicts(), ["accepted"]);
            pushed += 1;
            continue;
        }
        assert_limited(&answer, "device_push_bytes");
        refused += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // 86 KiB, of which 64 at once and 8 a second.
    assert!(refused > 0 && started.elapsed() > Duration::from_secs(1), "{refused} {:?}", started.elapsed());
}

#[tokio::test]
async fn a_full_space_refuses_requests_and_never_a_group() {
    let mut app = with(|config| config.quotas.space_records = 3).await;
    let first: Vec<_> = (1..=3).map(|n| receipt(&format!("g{n}"), n, &format!("r-{n}"))).collect();
    assert_eq!(app.push(&first).await.verdicts(), ["accepted"; 3]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let more = [receipt("g4", 4, "r-4")];
    let answer = app.push(&more).await;
    answer.assert_problem(507, "quota_exceeded");
    assert_eq!(retry_after(&answer), 60);
    assert!(answer.json()["detail"].as_str().unwrap().contains("quota.space_records"));
    let unknown = app.post("/verdicts", r#"{"ids":["g4"]}"#).await.json();
    assert_eq!(unknown["results"][0]["status"], "unknown", "nothing was decided");
    // What makes room is taken, and then there is room.
    let making_room = [TestGroup::of("g5", 5, &[delete("receipts", "r-1", 1)])];
    assert_eq!(app.push(&making_room).await.verdicts(), ["accepted"]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(app.push(&more).await.verdicts(), ["accepted"]);
    // A quota that is raised lets everything in.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    app.push(&[receipt("g6", 6, "r-6")]).await.assert_problem(507, "quota_exceeded");
    app.restart_with(|config| config.quotas.space_records = 4).await.unwrap();
    assert_eq!(app.push(&[receipt("g6", 6, "r-6")]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn a_space_is_full_of_bytes_as_well() {
    let app = with(|config| config.quotas.space_bytes = 10).await;
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    app.push(&[receipt("g2", 2, "r-2")]).await.assert_problem(507, "quota_exceeded");
}
