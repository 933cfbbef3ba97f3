//! Snapshots: the state at exactly one `seq`, the same bytes everywhere, with resume.

use crate::common::*;
use gbsync_core::digest::RowsDigest;
use gbsync_core::id::Seq;
use gbsync_core::wire::{LogState, SnapshotHead, SnapshotLine};
use reqwest::header::HeaderMap;
use std::path::PathBuf;

struct Got {
    status: u16,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn lines(&self) -> (SnapshotHead, Vec<SnapshotLine>) {
        let text = zstd::stream::decode_all(self.bytes.as_slice()).unwrap();
        lines(&text)
    }
}

fn lines(text: &[u8]) -> (SnapshotHead, Vec<SnapshotLine>) {
    let mut lines = text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
    let head = SnapshotHead::parse(lines.next().unwrap()).unwrap();
    (head, lines.map(|line| SnapshotLine::parse(line).unwrap()).collect())
}

async fn ask(app: &TestApp, headers: &[(&str, &str)]) -> Got {
    let mut request = app.http.get(app.space_url("/snapshot")).bearer_auth(&app.token);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Got { status, headers, bytes: response.bytes().await.unwrap().to_vec() }
}

const ZSTD: (&str, &str) = ("accept-encoding", "zstd");

async fn put(app: &TestApp, groups: std::ops::Range<u64>) {
    for n in groups {
        let record = format!("{:03}", n % 50);
        let change = match n {
            0..50 => upsert("notes", &record, 0, r#"{"x":1}"#),
            _ if n % 10 == 3 => delete("notes", &record, n + 1 - 50),
            _ => upsert("notes", &record, n + 1 - 50, &format!(r#"{{"x":{n}}}"#)),
        };
        let group = TestGroup::of(&format!("g{n}"), n + 1, &[change]);
        assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"], "{n}");
    }
}

#[tokio::test]
async fn a_snapshot_is_the_state_at_its_place_tombstones_included() {
    let app = TestApp::start().await;
    put(&app, 0..60).await;
    let got = ask(&app, &[ZSTD]).await;
    assert_eq!((got.status, got.header("content-type")), (200, "application/x-ndjson"));
    assert_eq!((got.header("content-encoding"), got.header("accept-ranges")), ("zstd", "bytes"));
    let (head, lines) = got.lines();
    assert_eq!((head.seq, head.records, head.horizon), (Seq(60), 50, Seq(0)));
    let handshake = app.get("").await.json();
    assert_eq!((head.log.as_str(), head.chain.to_string().as_str()), {
        (handshake["log"].as_str().unwrap(), handshake["chain"].as_str().unwrap())
    });
    let (mut digest, mut dead, mut keys) = (RowsDigest::default(), 0, Vec::new());
    for line in &lines[..50] {
        let SnapshotLine::Record(record) = line else { panic!("{line:?}") };
        keys.push(record.key.clone());
        match &record.state {
            LogState::Live(payload) => digest.add(&record.key, record.version, payload),
            _ => dead += 1,
        }
    }
    assert!(keys.is_sorted());
    assert_eq!(lines[50], SnapshotLine::End { records: 50 });
    let stored = app.digest();
    assert_eq!(digest.finish(), (stored.records, stored.digest));
    assert_eq!((stored.records, dead), (49, 1));
}

#[tokio::test]
async fn an_empty_space_has_a_snapshot_of_nothing() {
    let app = TestApp::start().await;
    let (head, lines) = ask(&app, &[ZSTD]).await.lines();
    assert_eq!((head.seq, head.records, lines), (Seq(0), 0, vec![SnapshotLine::End { records: 0 }]));
}

#[tokio::test]
async fn who_does_not_read_zstd_gets_the_same_lines() {
    let app = TestApp::start().await;
    put(&app, 0..55).await;
    let (plain, compressed) = (ask(&app, &[]).await, ask(&app, &[("accept-encoding", "gzip, zstd")]).await);
    assert_eq!((plain.status, plain.header("content-encoding")), (200, ""));
    assert_eq!(plain.header("content-length"), plain.bytes.len().to_string());
    assert_eq!(plain.bytes, zstd::stream::decode_all(compressed.bytes.as_slice()).unwrap());
    assert_ne!(plain.header("etag"), compressed.header("etag"));
    // Not gzip either: a range must count bytes that stay what they are.
    assert_eq!(ask(&app, &[("accept-encoding", "gzip")]).await.header("content-encoding"), "");
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_was_though_the_log_has_grown() {
    let app = TestApp::with(|config| config.snapshots.lag_groups = 3).await;
    put(&app, 0..55).await;
    for coding in [("accept-encoding", "zstd"), ("accept-encoding", "identity")] {
        let whole = ask(&app, &[coding]).await;
        let etag = whole.header("etag").to_owned();
        let half = whole.bytes.len() / 2;
        put(&app, if coding.1 == "zstd" { 55..60 } else { 60..65 }).await;
        let range = format!("bytes={half}-");
        let rest = ask(&app, &[coding, ("range", &range), ("if-range", &etag)]).await;
        assert_eq!((rest.status, rest.header("etag")), (206, etag.as_str()));
        let total = whole.bytes.len();
        assert_eq!(rest.header("content-range"), format!("bytes {half}-{}/{total}", total - 1));
        assert_eq!(rest.bytes, whole.bytes[half..]);
        // A new one is not asked for in the middle.
        let newer = ask(&app, &[coding, ("range", &range), ("if-range", "\"gone\"")]).await;
        assert_eq!(newer.status, 200);
        assert_ne!(newer.header("etag"), etag);
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_had_is_answered_with_everything() {
    let app = TestApp::start().await;
    put(&app, 0..5).await;
    let whole = ask(&app, &[ZSTD]).await;
    for range in ["bytes=99999999-", "bytes=1-0", "bytes=0-1,3-4", "lines=1-2", "x"] {
        let got = ask(&app, &[ZSTD, ("range", range)]).await;
        assert_eq!((got.status, got.bytes), (200, whole.bytes.clone()), "{range}");
    }
    let got = ask(&app, &[ZSTD, ("range", "bytes=2-5")]).await;
    assert_eq!((got.status, got.bytes), (206, whole.bytes[2..6].to_vec()));
}

#[tokio::test]
async fn one_that_is_recent_is_served_again_and_an_older_one_is_not() {
    let app = TestApp::with(|config| config.snapshots.lag_groups = 5).await;
    put(&app, 0..50).await;
    let first = ask(&app, &[ZSTD]).await;
    put(&app, 50..55).await;
    assert_eq!(ask(&app, &[ZSTD]).await.header("etag"), first.header("etag"));
    put(&app, 55..56).await;
    let (head, _) = ask(&app, &[ZSTD]).await.lines();
    assert_eq!(head.seq, Seq(56));
}

fn folder(app: &TestApp) -> PathBuf {
    app.folder.path().join("kept")
}

fn files(app: &TestApp) -> Vec<String> {
    let read = std::fs::read_dir(folder(app)).unwrap();
    read.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A server whose snapshots are in a folder that the test knows, each asked for made anew.
async fn with_folder() -> TestApp {
    let mut app = TestApp::start().await;
    restart(&mut app).await;
    app
}

async fn restart(app: &mut TestApp) {
    let kept = folder(app);
    let change = move |config: &mut gbsync_server::ServerConfig| {
        (config.snapshots.folder, config.snapshots.lag_groups) = (Some(kept), 0);
    };
    app.restart_with(change).await.unwrap();
}

#[tokio::test]
async fn few_are_kept_and_what_a_crash_left_is_removed_at_the_start() {
    let mut app = with_folder().await;
    for n in 0..5 {
        put(&app, n..n + 1).await;
        assert_eq!(ask(&app, &[ZSTD]).await.status, 200);
    }
    assert_eq!(files(&app).len(), 2);
    std::fs::write(folder(&app).join("x-1-0.part"), "half").unwrap();
    restart(&mut app).await;
    assert_eq!(files(&app).len(), 2);
    // What was kept is served by the next process.
    let (head, _) = ask(&app, &[ZSTD]).await.lines();
    assert_eq!(head.seq, Seq(5));
}

#[tokio::test]
async fn the_same_state_is_the_same_bytes_wherever_it_is_made() {
    let mut app = with_folder().await;
    put(&app, 0..55).await;
    let first = ask(&app, &[ZSTD]).await;
    std::fs::remove_dir_all(folder(&app)).unwrap();
    restart(&mut app).await;
    let again = ask(&app, &[ZSTD]).await;
    assert_eq!((again.header("etag"), &again.bytes), (first.header("etag"), &first.bytes));
}

#[tokio::test]
async fn a_file_of_another_course_of_the_log_is_never_served() {
    let app = with_folder().await;
    put(&app, 0..5).await;
    let first = ask(&app, &[ZSTD]).await;
    let name = files(&app).remove(0);
    // As if the store had been put back by hand and had gone on otherwise.
    let chain = name.split('-').nth(3).unwrap();
    let other = name.replace(chain, &"ab".repeat(32));
    std::fs::rename(folder(&app).join(&name), folder(&app).join(other)).unwrap();
    let again = ask(&app, &[ZSTD]).await;
    assert_eq!((again.status, again.header("etag")), (200, first.header("etag")));
}

#[tokio::test]
async fn a_state_is_whole_while_others_write() {
    let app = TestApp::with(|config| config.snapshots.lag_groups = 0).await;
    // Each group writes the same value to forty records: half of one would show.
    let group = |n: u64| {
        let change = |r: u64| upsert("notes", &format!("{r:03}"), n, &format!(r#"{{"x":{n}}}"#));
        TestGroup::of(&format!("g{n}"), n + 1, &(0..40).map(change).collect::<Vec<_>>())
    };
    let writing = async {
        for n in 0..60 {
            assert_eq!(app.push(&[group(n)]).await.verdicts(), ["accepted"]);
        }
    };
    let reading = async {
        let mut seen = 0;
        while seen < 60 {
            let (head, lines) = ask(&app, &[ZSTD]).await.lines();
            seen = head.seq.0;
            for line in &lines[..lines.len() - 1] {
                let SnapshotLine::Record(record) = line else { panic!("{line:?}") };
                let expected = LogState::Live(format!(r#"{{"x":{}}}"#, head.seq.0 - 1).into());
                assert_eq!((record.version, &record.state), (head.seq, &expected));
            }
        }
    };
    tokio::join!(writing, reading);
}
