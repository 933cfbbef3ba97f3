//! A server that is told to stop says so before it does, and tells its metrics to the end.

use crate::common::*;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Answers of connections of their own.
async fn ask(url: &str, path: &str) -> Option<u16> {
    let response = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{url}{path}")).send().await.ok()?;
    Some(response.status().as_u16())
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn new_connections_read_that_it_leaves_and_are_served_for_as_long_as_it_was_told() {
    let delay = Duration::from_secs(2);
    let mut app = TestApp::with(|config| config.drain_delay_ms = 2_000).await;
    let url = app.url("");
    assert_eq!(ask(&url, "/readyz").await, Some(200));
    let push_url = app.space_url("/push");
    let push = |n: u64| {
        let request = reqwest::Client::builder().no_proxy().build().unwrap().post(&push_url).bearer_auth(&app.token);
        let body = envelope("till-1", "e1", &[receipt(&format!("g{n}"), n, &format!("r-{n}"))]);
        Answer::of(request.header("content-type", "application/json").body(body))
    };
    let started = Instant::now();
    let stopping = tokio::spawn(app.server.take().unwrap().stop());
    until("it is still ready", async || ask(&url, "/readyz").await == Some(503)).await;
    assert_eq!(ask(&url, "/healthz").await, Some(200));
    assert_eq!(push(1).await.verdicts(), ["accepted"]);
    assert_eq!(ask(&url, "/readyz").await, Some(503));
    stopping.await.unwrap().unwrap();
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
    assert_eq!(ask(&url, "/readyz").await, None, "it has stopped");
}

#[tokio::test]
async fn metrics_are_told_while_requests_under_way_are_finished() {
    let free = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut app = TestApp::with(|config| (config.metrics_listen, config.drain_ms) = (free, 3_000)).await;
    let metrics = format!("http://{}", app.server.as_ref().unwrap().metrics_addr().unwrap());
    // A push that does not come to its end.
    let address = app.server.as_ref().unwrap().local_addr();
    let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/spaces/{SPACE}/push HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{{",
        app.token
    );
    tokio::io::AsyncWriteExt::write_all(&mut slow, head.as_bytes()).await.unwrap();
    until("the push is not under way", async || app.counters().requests == 1).await;
    let url = app.url("");
    let stopping = tokio::spawn(app.server.take().unwrap().stop());
    until("it still listens", async || ask(&url, "/healthz").await.is_none()).await;
    assert_eq!(ask(&metrics, "/metrics").await, Some(200));
    assert_eq!(ask(&metrics, "/readyz").await, Some(503));
    stopping.await.unwrap().unwrap();
    assert_eq!(ask(&metrics, "/metrics").await, None);
}
