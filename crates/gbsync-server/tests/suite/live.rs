//! The live stream: every listener gets every group once, in order, whatever happens to it.

use crate::common::*;
use gbsync_core::id::{Seq, SpaceId};
use gbsync_core::wire::{EndReason, LiveEvent, LivePage, LiveReader, LogPage};
use gbsync_server::{Environment, NewToken, ServerConfig, Tokens};
use reqwest::{Response, StatusCode};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);

/// One who listens, as a client does.
struct Ear {
    response: Response,
    reader: LiveReader,
    /// The cursor.
    at: u64,
}

impl Ear {
    async fn open(app: &TestApp, query: &str) -> Self {
        Self::with(app, &app.token, query).await
    }

    async fn with(app: &TestApp, token: &str, query: &str) -> Self {
        let response = app.http.get(app.space_url(&format!("/live?{query}"))).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let after = query.split('&').find_map(|pair| pair.strip_prefix("after=")).map_or(0, |after| after.parse().unwrap());
        Self { response, reader: LiveReader::new(1 << 20), at: after }
    }

    /// The next page or end; `None` when the stream broke off.
    async fn event(&mut self) -> Option<LiveEvent> {
        loop {
            if let Some(event) = self.reader.next().unwrap() {
                if let LiveEvent::Page(LivePage { after, page, space, .. }) = &event {
                    assert_eq!((after.0, space.as_str()), (self.at, SPACE));
                    self.at = page.next.0;
                }
                return Some(event);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the stream is alive");
            self.reader.push(&chunk.ok().flatten()?);
        }
    }

    /// The groups up to `head`, without heartbeats between.
    async fn groups_to(&mut self, head: u64) -> Vec<u64> {
        let mut seqs = Vec::new();
        while self.at < head {
            match self.event().await {
                Some(LiveEvent::Page(page)) => seqs.extend(page.page.entries.iter().map(|entry| entry.seq.0)),
                other => panic!("{other:?}"),
            }
        }
        seqs
    }

    async fn end(&mut self) -> Option<EndReason> {
        loop {
            match self.event().await? {
                LiveEvent::Page(_) => {}
                LiveEvent::End(reason) => return Some(reason),
            }
        }
    }
}

async fn push(app: &TestApp, from: u64, count: u64) {
    let groups: Vec<_> = (from..from + count).map(|n| receipt(&format!("g{n}"), n, &format!("r{n}"))).collect();
    for groups in groups.chunks(40) {
        assert!(app.push(groups).await.verdicts().iter().all(|verdict| verdict == "accepted"));
    }
}

/// A connection that holds little of what was not read.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(200 * 1024).unwrap();
    socket.connect(address).await.unwrap()
}

async fn wait_for_a_place(app: &TestApp) {
    let deadline = Instant::now() + PATIENCE;
    while app.http.get(app.space_url("/live")).bearer_auth(&app.token).send().await.unwrap().status() != StatusCode::OK {
        assert!(Instant::now() < deadline, "no place comes free");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn quick(config: &mut ServerConfig) {
    (config.live.heartbeat_ms, config.live.recheck_ms) = (100, 0);
}

#[tokio::test]
async fn listeners_hear_what_is_there_and_then_what_comes() {
    let app = TestApp::start().await;
    push(&app, 1, 5).await;
    let (mut from_zero, mut from_three) = (Ear::open(&app, "after=0").await, Ear::open(&app, "after=3").await);
    assert_eq!(from_zero.groups_to(5).await, [1, 2, 3, 4, 5]);
    assert_eq!(from_three.groups_to(5).await, [4, 5]);
    push(&app, 6, 4).await;
    assert_eq!(from_zero.groups_to(9).await, [6, 7, 8, 9]);
    assert_eq!(from_three.groups_to(9).await, [6, 7, 8, 9]);
}

#[tokio::test]
async fn a_stream_of_a_quiet_space_says_at_once_where_it_is_and_beats() {
    let app = TestApp::with(quick).await;
    push(&app, 1, 2).await;
    let known = app.get("").await.json();
    let mut ear = Ear::open(&app, &format!("after=2&chain={}", known["chain"].as_str().unwrap())).await;
    let started = Instant::now();
    for _ in 0..4 {
        let Some(LiveEvent::Page(page)) = ear.event().await else { panic!("a page") };
        assert!(page.page.entries.is_empty());
        assert_eq!(
            (page.log.as_str(), page.page.chain.to_string().as_str()),
            (known["log"].as_str().unwrap(), known["chain"].as_str().unwrap())
        );
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn pages_of_the_stream_are_those_of_the_log() {
    let app = TestApp::start().await;
    push(&app, 1, 3).await;
    let mut ear = Ear::open(&app, "after=1").await;
    let Some(LiveEvent::Page(live)) = ear.event().await else { panic!("a page") };
    assert_eq!(live.page, LogPage::parse(app.get("/log?after=1").await.text.as_bytes()).unwrap());
    push(&app, 4, 1).await;
    let Some(LiveEvent::Page(live)) = ear.event().await else { panic!("a page") };
    assert_eq!(live.page, LogPage::parse(app.get("/log?after=3").await.text.as_bytes()).unwrap());
}

#[tokio::test]
async fn many_listeners_that_join_while_groups_come_miss_none() {
    let app = TestApp::with(|config| config.live.page_bytes = 700).await;
    let pushing = async {
        for from in (1..=400).step_by(10) {
            push(&app, from, 10).await;
        }
    };
    let listening = async {
        let mut ears = VecDeque::new();
        for n in 0..30_u64 {
            ears.push_back(
                Ear::open(&app, &format!("after={}", if n % 2 == 0 { 0 } else { app.counters().groups_accepted / 2 })).await,
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let follow = |mut ear: Ear| async move {
            let from = ear.at;
            assert_eq!(ear.groups_to(400).await, (from + 1..=400).collect::<Vec<_>>());
        };
        futures_util::future::join_all(ears.into_iter().map(follow)).await;
    };
    tokio::join!(pushing, listening);
}

#[tokio::test]
async fn last_event_id_beats_after() {
    let app = TestApp::start().await;
    push(&app, 1, 5).await;
    let request = app.http.get(app.space_url("/live?after=0")).bearer_auth(&app.token).header("last-event-id", "4");
    let mut ear = Ear { response: request.send().await.unwrap(), reader: LiveReader::new(1 << 20), at: 4 };
    assert_eq!(ear.groups_to(5).await, [5]);
    let bad = app.http.get(app.space_url("/live")).bearer_auth(&app.token).header("last-event-id", "x");
    Answer::of(bad).await.assert_problem(400, "malformed");
}

#[tokio::test]
async fn a_cursor_that_is_not_of_this_log_is_told_to_begin_anew() {
    let app = TestApp::start().await;
    push(&app, 1, 2).await;
    let reason = |answer: &Answer| answer.json()["reason"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("after=3", "beyond_head"),
        ("after=1&log=another", "log_changed"),
        (&format!("after=1&chain={}", "1".repeat(64)), "log_changed"),
    ] {
        let answer = app.get(&format!("/live?{query}")).await;
        answer.assert_problem(410, "resync_required");
        assert_eq!(reason(&answer), expected);
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked() {
    let app = TestApp::with(quick).await;
    let other = token(&app.store, SPACE, None, None);
    let (mut revoked, mut kept) = (Ear::open(&app, "after=0").await, Ear::with(&app, &other, "after=0").await);
    let tokens = Tokens::open(&app.store).unwrap();
    let ids: Vec<_> = tokens.list().unwrap().into_iter().map(|token| token.id).collect();
    assert_eq!(ids.len(), 2);
    // Whichever of the two it is, the other one goes on.
    tokens.revoke(&ids[0]).unwrap();
    let (first, second) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(3), revoked.end()),
        tokio::time::timeout(Duration::from_secs(3), kept.end()),
    );
    let gone = if first.is_ok() { &app.token } else { &other };
    assert_eq!([first, second].into_iter().flatten().collect::<Vec<_>>(), [Some(EndReason::Unauthenticated)]);
    let live = app.http.get(app.space_url("/live")).bearer_auth(gone);
    Answer::of(live).await.assert_problem(401, "unauthenticated");
}

/// A token of the shop that ends after a while.
fn short_lived(app: &TestApp, lifetime: Duration) -> String {
    let lifetime_ms = Some(u64::try_from(lifetime.as_millis()).unwrap());
    let new = NewToken { lifetime_ms, ..NewToken::new(SpaceId::new(SPACE).unwrap()) };
    Tokens::open(&app.store).unwrap().create(new).unwrap().token
}

#[tokio::test]
async fn an_idle_stream_ends_when_its_token_does() {
    let app = TestApp::start().await;
    let (lifetime, started) = (Duration::from_millis(1_500), Instant::now());
    let mut ear = Ear::with(&app, &short_lived(&app, lifetime), "after=0").await;
    assert_eq!(ear.end().await, Some(EndReason::Unauthenticated));
    let lived = started.elapsed();
    // The heart beats every 10 s, and tokens are looked at again every 5.
    assert!(lived >= lifetime && lived < lifetime + Duration::from_secs(2), "{lived:?}");
    assert_eq!(ear.event().await, None);
}

#[tokio::test]
async fn nothing_is_sent_after_a_token_has_ended_by_the_servers_clock() {
    let ahead_ms = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&ahead_ms);
    let now_ms = move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        u64::try_from(now).unwrap() + clock.load(Ordering::Relaxed)
    };
    let app = TestApp::with(|config| {
        config.environment = Environment::new(now_ms, |bytes| getrandom::fill(bytes).unwrap());
    })
    .await;
    let hour = Duration::from_secs(3_600);
    let mut ear = Ear::with(&app, &short_lived(&app, hour), "after=0").await;
    push(&app, 1, 1).await;
    assert_eq!(ear.groups_to(1).await, [1]);
    ahead_ms.store(3_600_000, Ordering::Relaxed);
    push(&app, 2, 1).await;
    assert_eq!(ear.event().await, Some(LiveEvent::End(EndReason::Unauthenticated)));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_dropped_and_comes_back_with_its_cursor() {
    let app = TestApp::with(|config| {
        (config.live.buffered_pages, config.live.page_bytes) = (16, 4_096);
        config.net.stall_timeout_ms = 60_000;
    })
    .await;
    let address = app.server.as_ref().unwrap().local_addr();
    let mut slow = narrow(address).await;
    let head =
        format!("GET /v1/spaces/{SPACE}/live HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n", app.token);
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut keen = Ear::open(&app, "after=0").await;
    // More than the sockets between hold.
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(200_000));
    let pushing = async {
        for n in 1..=80 {
            let group = TestGroup::of(&format!("g{n}"), n, &[upsert("notes", &format!("n{n}"), 0, &payload)]);
            assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
        }
    };
    let ((), heard) = tokio::join!(pushing, keen.groups_to(80));
    assert_eq!(heard, (1..=80).collect::<Vec<_>>());
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n0\r\n\r\n") {
        let mut buffer = vec![0; 64 * 1024];
        let read = tokio::time::timeout(PATIENCE, slow.read(&mut buffer)).await.expect("the stream ends").unwrap();
        assert!(read > 0, "the connection breaks off");
        text.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(EndReason::TooSlow.as_str()), "{} bytes", text.len());
    let next = text.rmatch_indices("\nid: ").next().map(|(at, _)| text[at + 5..].split(['\r', '\n']).next().unwrap());
    let cursor: u64 = next.unwrap().parse().unwrap();
    assert!(cursor < 80, "{cursor}");
    let mut again = Ear::open(&app, &format!("after={cursor}")).await;
    assert_eq!(again.groups_to(80).await, (cursor + 1..=80).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_peer_that_takes_nothing_for_too_long_loses_its_connection() {
    let app = TestApp::with(|config| {
        quick(config);
        (config.net.stall_timeout_ms, config.live.listeners) = (300, 1);
    })
    .await;
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(200_000));
    for n in 1..=60 {
        let group = TestGroup::of(&format!("g{n}"), n, &[upsert("notes", &format!("n{n}"), 0, &payload)]);
        assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
    }
    let address = app.server.as_ref().unwrap().local_addr();
    let mut deaf = narrow(address).await;
    let head =
        format!("GET /v1/spaces/{SPACE}/live HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n", app.token);
    deaf.write_all(head.as_bytes()).await.unwrap();
    assert!(deaf.read(&mut [0; 16]).await.unwrap() > 0);
    // Its place is free for another one, though it never read nor went.
    wait_for_a_place(&app).await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let app = TestApp::with(|config| config.net.header_timeout_ms = 300).await;
    let address = app.server.as_ref().unwrap().local_addr();
    for begun in ["", "PRI * HT", "GET /healthz HTTP/1.1\r\nhost: somewhere.example.org\r\n"] {
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(begun.as_bytes()).await.unwrap();
        let read = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await;
        assert!(read.is_ok(), "{begun:?}");
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_another_goes_on_from_the_cursor() {
    let mut app = TestApp::start().await;
    push(&app, 1, 3).await;
    let (mut one, mut behind) = (Ear::open(&app, "after=0").await, Ear::open(&app, "after=3").await);
    assert_eq!(one.groups_to(3).await, [1, 2, 3]);
    let started = Instant::now();
    let (_, first, second) = tokio::join!(app.restart(), one.end(), behind.end());
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!((first, second), (Some(EndReason::Stopping), Some(EndReason::Stopping)));
    push(&app, 4, 2).await;
    assert_eq!(Ear::open(&app, &format!("after={}", one.at)).await.groups_to(5).await, [4, 5]);
}

#[tokio::test]
async fn there_are_places_for_so_many_listeners_and_a_place_comes_free() {
    let app = TestApp::with(|config| {
        quick(config);
        config.live.listeners = 2;
    })
    .await;
    let (_first, second) = (Ear::open(&app, "").await, Ear::open(&app, "").await);
    app.get("/live").await.assert_problem(503, "unavailable");
    drop(second);
    wait_for_a_place(&app).await;
}

#[tokio::test]
async fn groups_of_another_space_are_never_heard() {
    let app = TestApp::with(quick).await;
    let other = token(&app.store, "other", None, None);
    let url = app.url("/v1/spaces/other/live");
    let mut response = app.http.get(&url).bearer_auth(&other).send().await.unwrap();
    push(&app, 1, 3).await;
    let mut reader = LiveReader::new(1 << 20);
    for _ in 0..5 {
        reader.push(&response.chunk().await.unwrap().unwrap());
        while let Some(event) = reader.next().unwrap() {
            let LiveEvent::Page(page) = event else { panic!("a page") };
            assert_eq!((page.space.as_str(), page.page.next, page.page.entries.len()), ("other", Seq(0), 0));
        }
    }
    let stranger = app.http.get(url).bearer_auth(&app.token);
    Answer::of(stranger).await.assert_problem(404, "space_not_found");
}
