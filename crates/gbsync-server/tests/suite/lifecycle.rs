//! Starting, stopping, and folders that are not what they should be.

use crate::common::*;
use gbsync_core::id::SpaceId;
use gbsync_server::{Server, ServerError, Tokens, space_digest};
use std::path::Path;
use std::time::{Duration, Instant};

async fn refusal(folder: &Path) -> String {
    match Server::start(config(folder)).await {
        Ok(_) => panic!("the server started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut app = TestApp::start().await;
    let conflict = receipt("g2", 2, "r-1");
    app.push(&[receipt("g1", 1, "r-1"), conflict.clone()]).await;
    let (digest, handshake) = (app.digest(), app.get("").await.json());
    app.restart().await;
    assert_eq!(app.digest(), digest);
    let after = app.get("").await.json();
    assert_eq!((&after["log"], &after["chain"]), (&handshake["log"], &handshake["chain"]));
    let again = app.push(&[receipt("g1", 1, "r-1"), conflict]).await;
    assert_eq!(again.verdicts(), ["accepted", "rejected conflict"]);
    assert_eq!(again.result(0)["duplicate"], true);
    app.push(&[receipt("g9", 1, "r-9")]).await.assert_problem(409, "epoch_reused");
}

#[tokio::test]
async fn a_server_dropped_without_a_stop_has_kept_what_it_acknowledged() {
    let mut app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1")]).await;
    let digest = app.digest();
    drop(app.server.take());
    // The lock ends with the server.
    let deadline = Instant::now() + Duration::from_secs(10);
    app.server = loop {
        match Server::start(config(app.folder.path())).await {
            Ok(server) => break Some(server),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(app.digest(), digest);
}

#[tokio::test]
async fn stopping_answers_those_who_wait_and_leaves_one_file() {
    let mut app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1")]).await;
    let waiting = app.http.get(app.space_url("/log?after=1&wait=30")).bearer_auth(&app.token);
    let waiting = tokio::spawn(Answer::of(waiting));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    let url = app.space_url("");
    app.server.take().unwrap().stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(waiting.await.unwrap().json()["head"], 1);
    assert!(app.http.get(url).send().await.is_err());
    let wal = app.folder.path().join("gbsync.db-wal");
    assert!(!wal.exists() || std::fs::metadata(wal).unwrap().len() == 0);
}

#[tokio::test]
async fn two_servers_never_run_on_one_folder() {
    let app = TestApp::start().await;
    let error = refusal(app.folder.path()).await;
    assert!(error.contains("another gbsync server is running"), "{error}");
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn an_address_in_use_is_one_sentence() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.listen = app.server.as_ref().unwrap().local_addr();
    assert!(matches!(Server::start(config).await, Err(ServerError::AddressInUse { .. })));
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_left_untouched() {
    let folder = tempfile::tempdir().unwrap();
    token(folder.path(), SPACE, None, None);
    let file = folder.path().join("gbsync.db");
    let store = rusqlite::Connection::open(&file).unwrap();
    store.execute("UPDATE gbsync_meta SET value = 999 WHERE key = 'format'", []).unwrap();
    store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(store);
    let before = std::fs::read(&file).unwrap();
    let error = refusal(folder.path()).await;
    assert!(error.contains("format 999") && error.contains("install a newer version"), "{error}");
    assert!(matches!(Tokens::open(folder.path()), Err(ServerError::Store(_))));
    assert!(space_digest(folder.path(), &SpaceId::new(SPACE).unwrap()).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gbsync.db");
    std::fs::write(&file, "this is a shopping list, and a long one at that: ".repeat(100)).unwrap();
    let before = std::fs::read(&file).unwrap();
    let error = refusal(folder.path()).await;
    assert!(error.contains("not a SQLite file"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    std::fs::remove_file(&file).unwrap();
    rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    let before = std::fs::read(&file).unwrap();
    let error = refusal(folder.path()).await;
    assert!(error.contains("another program"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = refusal(&file.join("data")).await;
    assert!(error.contains("choose a folder that this user may write"), "{error}");
    assert!(matches!(Tokens::open(&file), Err(ServerError::DataFolder { .. })));
}

#[test]
fn a_digest_of_what_is_not_there_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let space = SpaceId::new(SPACE).unwrap();
    assert!(matches!(space_digest(folder.path(), &space), Err(ServerError::NoStore { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    token(folder.path(), "other", None, None);
    assert!(matches!(space_digest(folder.path(), &space), Err(ServerError::NoSpace { .. })));
    let digest = space_digest(folder.path(), &SpaceId::new("other").unwrap()).unwrap();
    assert_eq!((digest.head.0, digest.records), (0, 0));
}

#[tokio::test]
async fn a_server_on_an_empty_folder_is_healthy_and_documents_itself() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(config(folder.path().join("new/data"))).await.unwrap();
    let http = http();
    for path in ["/healthz", "/readyz", "/v1/openapi.json"] {
        let answer = Answer::of(http.get(format!("{}{path}", server.url()))).await;
        assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/json"));
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_accept_it_and_bodies_may_be() {
    let app = TestApp::start().await;
    let groups: Vec<TestGroup> = (1..100).map(|n| receipt(&format!("g{n}"), n, &format!("r-{n}"))).collect();
    let body = gzip(envelope("till-1", "e1", &groups).as_bytes());
    let answer = app.post_gzip("/push", body).await;
    assert!(answer.verdicts().iter().all(|verdict| verdict == "accepted"));
    let plain = reqwest::Client::builder().no_proxy().no_gzip().build().unwrap();
    let request = plain.get(app.space_url("/log")).bearer_auth(&app.token);
    let packed = request.try_clone().unwrap().header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.bytes().await.unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed.as_ref()), &mut text).unwrap();
    let unpacked = Answer::of(request).await;
    assert!(!unpacked.headers.contains_key("content-encoding"));
    assert_eq!(text, unpacked.text);
    assert!(packed.len() * 4 < text.len());
    // A small answer is not worth it.
    let small = plain.get(app.space_url("")).bearer_auth(&app.token).header("accept-encoding", "gzip");
    assert!(!Answer::of(small).await.headers.contains_key("content-encoding"));
}
