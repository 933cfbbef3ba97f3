//! How long logs are kept: what leaves them is in an archive, the horizon moves, and what hangs on it stays right.

use crate::common::*;
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, Seq, SpaceId};
use gbsync_server::{Retained, RetentionConfig, archives_of, retain};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;

fn archives(app: &TestApp) -> PathBuf {
    app.folder.path().join("kept")
}

fn config(app: &TestApp) -> RetentionConfig {
    RetentionConfig { archives: Some(archives(app)), ..RetentionConfig::default() }
}

fn keep(app: &TestApp, entries: u64) -> Retained {
    run(app, RetentionConfig { entries: Some(entries), ..config(app) }, false)
}

fn run(app: &TestApp, config: RetentionConfig, is_dry_run: bool) -> Retained {
    let space = SpaceId::new(SPACE).unwrap();
    for _ in 0..500 {
        if let Some(mut retained) = retain(&app.store, &config, Some(&space), is_dry_run).unwrap() {
            assert_eq!(retained.len(), 1);
            return retained.remove(0);
        }
        // The lock of a connection that was closed a moment ago may still be there.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("somebody else retains");
}

/// Notes 0 to 9, of which the third is deleted by the eleventh group.
async fn fill(app: &TestApp) {
    for n in 0..10 {
        let change = upsert("notes", &format!("n{n}"), 0, &format!(r#"{{"x":{n}}}"#));
        assert_eq!(app.push(&[TestGroup::of(&format!("g{n}"), n + 1, &[change])]).await.verdicts(), ["accepted"]);
    }
    let gone = TestGroup::of("gone", 11, &[delete("notes", "n2", 3)]);
    assert_eq!(app.push(&[gone]).await.verdicts(), ["accepted"]);
}

/// The lines of the archives of the space, in the order of their names, whose digests fit.
fn archived(app: &TestApp) -> Vec<Value> {
    let folder = archives_of(&archives(app), &SpaceId::new(SPACE).unwrap());
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_by_key(|name| name[20..].to_owned());
    let mut lines = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".zst")) {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let digest = std::fs::read_to_string(folder.join(format!("{name}.sha256"))).unwrap();
        assert_eq!(digest, format!("{}  {name}\n", hex::encode(Sha256::digest(&bytes))));
        let text = String::from_utf8(zstd::stream::decode_all(bytes.as_slice()).unwrap()).unwrap();
        lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    lines
}

#[tokio::test]
async fn what_leaves_the_log_is_in_an_archive_and_the_chain_goes_on_behind_the_horizon() {
    let app = TestApp::start().await;
    fill(&app).await;
    let log = app.get("/log").await.json();
    let retained = keep(&app, 4);
    assert_eq!((retained.from, retained.to, retained.head), (Seq(0), Seq(7), Seq(11)));
    let lines = archived(&app);
    assert_eq!((lines[0]["after"].as_u64(), lines[8]["to"].as_u64(), lines.len()), (Some(0), Some(7), 9));
    let mut chain = Digest::ZERO;
    for (index, line) in lines[1..8].iter().enumerate() {
        assert_eq!(line["entry"], log["groups"][index]);
        let id = GroupId::new(line["entry"]["syncGroupId"].as_str().unwrap()).unwrap();
        chain = chain.chained(Seq(index as u64 + 1), &id, &line["entry"]["changes"].to_string());
        assert_eq!(line["chain"], chain.to_string());
    }
    assert_eq!(lines[8]["chain"], chain.to_string());

    assert_eq!(app.get("").await.json()["horizon"], 7);
    for after in ["", "?after=0", "?after=6"] {
        let answer = app.get(&format!("/log{after}")).await;
        answer.assert_problem(410, "resync_required");
        assert_eq!(answer.json()["reason"], "behind_horizon");
    }
    let page = app.get(&format!("/log?after=7&chain={chain}")).await.json();
    assert_eq!((page["groups"].as_array().unwrap().len(), &page["chain"]), (4, &log["chain"]));
    let wrong = app.get(&format!("/log?after=7&chain={}", "ab".repeat(32))).await;
    assert_eq!(wrong.json()["reason"], "log_changed");
    // The stream says the same.
    let answer = app.get("/live?after=3").await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (410, Some("behind_horizon")));
    // Archives go on where the one before ended.
    assert_eq!(keep(&app, 2).to, Seq(9));
    let lines = archived(&app);
    assert_eq!((lines[9]["after"].as_u64(), &lines[9]["chain"]), (Some(7), &lines[8]["chain"]));
    assert_eq!(lines.last().unwrap()["to"], 9);
    assert_eq!(keep(&app, 2).archives, Vec::<PathBuf>::new());
}

#[tokio::test]
async fn verdicts_and_numbers_stay_when_their_entry_is_gone() {
    let app = TestApp::start().await;
    fill(&app).await;
    let refused = receipt("bad", 12, "r1");
    let twice = [receipt("good", 13, "r1"), refused];
    assert_eq!(app.push(&twice).await.verdicts(), ["accepted", "rejected conflict"]);
    assert_eq!(keep(&app, 0).to, Seq(12));
    let again = app.push(&[TestGroup::of("gone", 11, &[delete("notes", "n2", 3)]), receipt("bad", 12, "r1")]).await;
    assert_eq!(again.verdicts(), ["accepted", "rejected conflict"]);
    assert_eq!((again.result(0)["seq"].as_u64(), again.result(0)["duplicate"].as_bool()), (Some(11), Some(true)));
    app.push(&[receipt("other", 11, "r9")]).await.assert_problem(409, "epoch_reused");
    // And the log goes on.
    assert_eq!(app.push(&[receipt("later", 14, "r9")]).await.verdicts(), ["accepted"]);
    let page = app.get("/log?after=12").await.json();
    assert_eq!(page["groups"][0]["seq"], 13);
}

#[tokio::test]
async fn a_tombstone_is_removed_when_the_horizon_has_passed_it_and_not_before() {
    let app = TestApp::start().await;
    fill(&app).await;
    assert_eq!(keep(&app, 1).tombstones, 0);
    let late = |id: &str, n: u64, change: String| TestGroup::of(id, n, &[change]);
    let verdict = async |id: &str, n: u64, change: String| {
        let result = app.push(&[late(id, n, change)]).await.result(0);
        result["changes"][0]["code"].as_str().or(result["status"].as_str()).unwrap().to_owned()
    };
    let edit = |base: u64| upsert("notes", "n2", base, r#"{"x":"late"}"#);
    assert_eq!(verdict("e1", 12, edit(3)).await, "deleted");
    assert_eq!(app.push(&[receipt("on", 13, "r1")]).await.verdicts(), ["accepted"]);
    assert_eq!(keep(&app, 1).tombstones, 1);
    let count = app.stored("SELECT count(*) FROM records WHERE payload IS NULL");
    assert_eq!(count, ["0"]);
    // Who saw the record before it was deleted does not bring it back to life, though nothing here says that it was.
    assert_eq!(verdict("e2", 14, edit(3)).await, "deleted");
    assert_eq!(verdict("e3", 15, patch("notes", "n2", 3, r#"{"x":1}"#)).await, "deleted");
    assert_eq!(verdict("e4", 16, delete("notes", "n2", 3)).await, "deleted");
    // Who never saw it makes it, and one that never was is missing.
    assert_eq!(verdict("e5", 17, patch("notes", "never", 0, r#"{"x":1}"#)).await, "missing");
    assert_eq!(verdict("e6", 18, edit(0)).await, "accepted");
    assert_eq!(verdict("e7", 19, edit(3)).await, "version_conflict");
}

#[tokio::test]
async fn the_age_counts_from_the_commit_and_a_dry_run_changes_nothing() {
    let app = TestApp::start().await;
    fill(&app).await;
    let old = RetentionConfig { age_ms: Some(60_000), ..config(&app) };
    assert_eq!(run(&app, old.clone(), false).to, Seq(0));
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(app.push(&[receipt("young", 12, "r1")]).await.verdicts(), ["accepted"]);
    let old = RetentionConfig { age_ms: Some(1_000), ..config(&app) };
    let dry = run(&app, old.clone(), true);
    assert_eq!((dry.to, dry.archives.len(), app.get("").await.json()["horizon"].as_u64()), (Seq(11), 0, Some(0)));
    assert!(!archives(&app).exists());
    assert_eq!(run(&app, old, false).to, Seq(11));
}

#[tokio::test]
async fn a_large_group_leaves_with_its_parts() {
    let app = TestApp::with(|config| config.limits.request_bytes = 20_000).await;
    let payload = format!(r#"{{"x":"{}"}}"#, "y".repeat(400));
    let changes: Vec<String> = (0..100).map(|n| upsert("notes", &format!("{n:03}"), 0, &payload)).collect();
    for (part, changes) in changes.chunks(25).enumerate() {
        let url = app.space_url(&format!("/groups/large/parts/{part}?device=till-1"));
        let request = app.http.put(url).bearer_auth(&app.token).header("content-type", "application/json");
        assert_eq!(Answer::of(request.body(format!("[{}]", changes.join(",")))).await.status, 200);
    }
    let digest = Digest::of(format!("[{}]", changes.join(",")).as_bytes());
    let group = format!(
        r#"{{"syncGroupId":"large","syncGroupType":null,"deviceSeq":1,"createdAt":"2026-06-03T20:52:59.123Z","changeCount":100,"digest":"{digest}","parts":4}}"#
    );
    let pushed = app.post("/push", raw_envelope("till-1", "e1", &group)).await;
    assert_eq!(pushed.verdicts(), ["accepted"]);
    let entry = app.get("/log").await.json()["groups"][0].clone();
    let parts = entry["parts"].as_u64().unwrap();
    assert!(parts > 1);
    let first = app.get("/log/1/parts/0").await.json();
    assert_eq!(keep(&app, 0).to, Seq(1));
    let lines = archived(&app);
    assert_eq!((lines.len() as u64, &lines[1]["entry"], &lines[2]["changes"]), (parts + 3, &entry, &first));
    assert_eq!(app.stored("SELECT count(*) FROM log_parts"), ["0"]);
    assert_eq!(app.get("/log/1/parts/0").await.json()["reason"], "behind_horizon");
}

#[tokio::test]
async fn many_steps_and_many_archives_end_where_one_would() {
    let app = TestApp::start().await;
    let mut number = 0;
    for batch in 0..30 {
        let groups: Vec<TestGroup> = (0..40)
            .map(|n| {
                number += 1;
                receipt(&format!("g{batch}-{n}"), number, &format!("r{batch}-{n}"))
            })
            .collect();
        assert!(app.push(&groups).await.verdicts().iter().all(|verdict| verdict == "accepted"));
    }
    let chain = app.get("/log?after=1150&maxRecords=1").await.json()["groups"][0].clone();
    let config = RetentionConfig { entries: Some(50), archive_bytes: 100_000, ..config(&app) };
    let retained = run(&app, config, false);
    assert_eq!(retained.to, Seq(1_150));
    let lines = archived(&app);
    let entries: Vec<u64> = lines.iter().filter_map(|line| line["entry"]["seq"].as_u64()).collect();
    assert!(entries.is_sorted() && entries.len() >= 1_150, "{}", entries.len());
    assert_eq!(app.get("/log?after=1150&maxRecords=1").await.json()["groups"][0], chain);
    assert_eq!(app.stored("SELECT count(*) FROM log"), ["50"]);
}

#[tokio::test]
async fn what_was_archived_before_a_crash_is_archived_again_and_nothing_is_missing() {
    let app = TestApp::start().await;
    fill(&app).await;
    // As if the process had died between the archive and the log: the file is there, unfinished or not.
    let folder = archives_of(&archives(&app), &SpaceId::new(SPACE).unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("unfinished.part"), "half").unwrap();
    assert_eq!(keep(&app, 4).to, Seq(7));
    assert!(!folder.join("unfinished.part").exists());
    assert_eq!(archived(&app).len(), 9);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_leaves_the_log_as_it_is() {
    let app = TestApp::start().await;
    fill(&app).await;
    std::fs::write(archives(&app), "a file, no folder").unwrap();
    let config = RetentionConfig { entries: Some(1), ..config(&app) };
    let error = retain(&app.store, &config, None, false).unwrap_err().to_string();
    assert!(error.contains("archive"), "{error}");
    assert_eq!(app.get("/log").await.json()["groups"].as_array().unwrap().len(), 11);
}

#[tokio::test]
async fn a_server_that_is_told_to_does_it_by_itself() {
    let mut app = TestApp::start().await;
    fill(&app).await;
    let retention = RetentionConfig { entries: Some(3), every_ms: 20, ..config(&app) };
    app.restart_with(|config| config.retention = Some(retention)).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while app.get("").await.json()["horizon"] != 8 {
        assert!(std::time::Instant::now() < deadline, "the horizon does not move");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(app.push(&[receipt("more", 12, "r1")]).await.verdicts(), ["accepted"]);
    while app.get("").await.json()["horizon"] != 9 {
        assert!(std::time::Instant::now() < deadline, "the horizon does not move");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // A snapshot is never from before the horizon.
    let snapshot = app.get("/snapshot").await.text;
    assert!(snapshot.starts_with(r#"{"seq":12,"#), "{}", &snapshot[..80]);
}

#[tokio::test]
async fn pushes_go_on_while_entries_leave() {
    let app = TestApp::start().await;
    let mut pushed = 0;
    let (store, kept) = (app.store.clone(), RetentionConfig { entries: Some(5), ..config(&app) });
    let is_done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_over = is_done.clone();
    let leaving = std::thread::spawn(move || {
        let mut left = 0;
        while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
            left += retain(&store, &kept, None, false)
                .unwrap()
                .map_or(0, |spaces| spaces.iter().map(|s| s.to.0 - s.from.0).sum());
        }
        left
    });
    for n in 0..120 {
        let group = receipt(&format!("g{n}"), n + 1, &format!("r{n}"));
        assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
        pushed += 1;
    }
    is_done.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(leaving.join().unwrap() > 0);
    keep(&app, 5);
    assert_eq!(app.stored("SELECT count(*) FROM log"), ["5"]);
    let seqs: std::collections::BTreeSet<u64> =
        archived(&app).iter().filter_map(|line| line["entry"]["seq"].as_u64()).collect();
    assert_eq!(seqs.len() as u64, pushed - 5);
}
