//! Groups that no request and no page holds: staged in parts, decided whole, handed out in parts.

use crate::common::{Answer, TestApp, TestGroup, raw_envelope, receipt, token, upsert};
use gbsync_core::digest::Digest;
use gbsync_core::limits::Limits;
use gbsync_server::Environment;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A group of `count` new records, and its changes in parts of two.
fn large(id: &str, device_seq: u64, count: usize) -> (TestGroup, Vec<String>) {
    let changes: Vec<String> =
        (0..count).map(|n| upsert("items", &format!("{id}-{n}"), 0, &format!(r#"{{"n":{n}}}"#))).collect();
    let parts = changes.chunks(2).map(|part| format!("[{}]", part.join(","))).collect();
    (TestGroup::of(id, device_seq, &changes), parts)
}

/// The group in wire form without its changes.
fn in_parts(group: &TestGroup, parts: usize) -> String {
    let digest = Digest::of(group.changes.as_bytes()).to_string();
    let changes = format!(r#""changes":{}"#, group.changes);
    let group = TestGroup { digest: Some(group.digest.clone().unwrap_or(digest)), ..group.clone() };
    group.json().replace(&changes, &format!(r#""parts":{parts}"#))
}

/// A device that uploads, with a token of its own.
struct Uploader<'a> {
    app: &'a TestApp,
    device: &'a str,
    token: String,
}

impl<'a> Uploader<'a> {
    fn of(app: &'a TestApp) -> Self {
        Self { app, device: "till-1", token: app.token.clone() }
    }

    async fn put(&self, group: &str, number: impl std::fmt::Display, body: &str) -> Answer {
        let path = format!("/groups/{group}/parts/{number}?device={}", self.device);
        self.put_to(&path, body).await
    }

    async fn put_to(&self, path: &str, body: &str) -> Answer {
        let request = self.app.http.put(self.app.space_url(path)).bearer_auth(&self.token);
        Answer::of(request.header("content-type", "application/json").body(body.to_owned())).await
    }

    async fn put_all(&self, group: &str, parts: &[String]) {
        for (number, part) in parts.iter().enumerate() {
            let answer = self.put(group, number, part).await;
            assert_eq!((answer.status, answer.text), (200, format!(r#"{{"part":{number}}}"#)));
        }
    }

    async fn push(&self, groups: &str) -> Answer {
        self.app.post("/push", raw_envelope(self.device, "e1", groups)).await
    }

    fn staged(&self) -> i64 {
        let count = "SELECT (SELECT count(*) FROM upload_parts) + 1000 * (SELECT count(*) FROM uploads)";
        self.app.stored(count)[0].parse().unwrap()
    }
}

async fn small_limits() -> TestApp {
    TestApp::with(|config| config.limits = Limits { request_bytes: 2_000, ..Limits::default() }).await
}

#[tokio::test]
async fn a_group_in_parts_takes_effect_as_one_and_nothing_of_it_is_there_before() {
    let app = small_limits().await;
    let till = Uploader::of(&app);
    let (group, parts) = large("g1", 1, 9);
    till.put_all("g1", &parts).await;
    // The same bytes again are fine, and other bytes replace them.
    till.put("g1", 0, &parts[1]).await;
    till.put("g1", 0, &parts[0]).await;
    assert_eq!(app.digest().records, 0);
    assert_eq!(app.get("/log").await.json()["groups"].as_array().unwrap().len(), 0);
    let answer = till.push(&in_parts(&group, parts.len())).await;
    assert_eq!(answer.verdicts(), ["accepted"]);
    assert_eq!(app.digest().records, 9);
    assert_eq!(till.staged(), 0, "what is decided is no longer staged");

    // A repetition needs no parts, whichever way it comes.
    let again = till.push(&in_parts(&group, parts.len())).await.result(0);
    assert_eq!((again["seq"].as_u64(), again["duplicate"].as_bool()), (Some(1), Some(true)));
    assert_eq!(app.push(std::slice::from_ref(&group)).await.result(0)["duplicate"], true);
    till.put("g1", 0, &parts[0]).await;
    assert_eq!(till.staged(), 0, "a part of a decided group is not kept");
    let (mut other, _) = large("g1", 1, 4);
    other.id = "g1".into();
    assert_eq!(till.push(&in_parts(&other, 2)).await.verdicts(), ["rejected group_id_reused"]);
}

#[tokio::test]
async fn missing_and_damaged_parts_leave_the_group_undecided() {
    let app = small_limits().await;
    let till = Uploader::of(&app);
    let (group, parts) = large("g1", 1, 10);
    till.put("g1", 1, &parts[1]).await;
    till.put("g1", 3, &parts[3]).await;
    let result = till.push(&in_parts(&group, parts.len())).await.result(0);
    assert_eq!((result["status"].as_str(), &result["missing"]), (Some("incomplete"), &serde_json::json!([0, 2, 4])));
    till.put_all("g1", &parts).await;
    till.put("g1", 4, &parts[3]).await;
    let result = till.push(&in_parts(&group, parts.len())).await.result(0);
    assert_eq!((result["status"].as_str(), result.get("missing")), (Some("incomplete"), None), "the digest does not fit");
    till.put("g1", 4, &parts[4]).await;
    let fewer = till.push(&in_parts(&group, 4)).await.result(0);
    assert_eq!(fewer["message"], "changeCount says 10, 8 arrived");
    // Groups beside it are decided, and what depends on it waits.
    let dependent = receipt("g3", 3, "r3").depends_on("g1");
    let incomplete = format!("{},{},{}", in_parts(&group, 9), receipt("g2", 2, "r2").json(), dependent.json());
    assert_eq!(till.push(&incomplete).await.verdicts(), ["incomplete", "accepted", "blocked"]);
    let whole = format!("{},{}", in_parts(&group, 5), dependent.json());
    assert_eq!(till.push(&whole).await.verdicts(), ["accepted", "accepted"]);
}

#[tokio::test]
async fn parts_belong_to_the_device_and_the_space_that_staged_them() {
    let app = small_limits().await;
    let (group, parts) = large("g1", 1, 4);
    let till = Uploader::of(&app);
    let other = Uploader { device: "till-2", ..Uploader::of(&app) };
    till.put_all("g1", &parts).await;
    assert_eq!(other.push(&in_parts(&group, 2)).await.result(0)["missing"], serde_json::json!([0, 1]));

    let bound = Uploader { token: token(&app.store, crate::common::SPACE, None, Some("till-2")), ..Uploader::of(&app) };
    bound.put("g1", 0, &parts[0]).await.assert_problem(403, "forbidden");
    assert_eq!(bound.put_to("/groups/g1/parts/0", &parts[0]).await.status, 200, "a bound token needs no parameter");
    till.put_to("/groups/g1/parts/0", &parts[0]).await.assert_problem(400, "malformed");
    let stranger = Uploader { token: token(&app.store, "elsewhere", None, None), ..Uploader::of(&app) };
    stranger.put("g1", 0, &parts[0]).await.assert_problem(404, "space_not_found");
    let nobody = Uploader { token: "none".into(), ..Uploader::of(&app) };
    nobody.put("g1", 0, &parts[0]).await.assert_problem(401, "unauthenticated");
    assert_eq!(till.push(&in_parts(&group, 2)).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn what_is_no_part_is_refused_and_stages_nothing() {
    let app = small_limits().await;
    let till = Uploader::of(&app);
    let insert = r#"[{"entity":"items","id":"1","action":"insert","payload":{}}]"#;
    let pointer = till.put("g1", 0, insert).await.assert_problem(400, "malformed");
    assert_eq!(pointer.as_deref(), Some("/0/action"));
    for body in ["", "[]", "{}", r#"[{"entity":"items","id":"1","action":"upsert","payload":{"a":1,"a":2}}]"#] {
        till.put("g1", 0, body).await.assert_problem(400, "malformed");
    }
    let (_, parts) = large("g1", 1, 2);
    for number in ["-1", "x", "65536", "99999999999999999999"] {
        till.put("g1", number, &parts[0]).await.assert_problem(400, "malformed");
    }
    let (_, parts) = large("g1", 1, 100);
    till.put("g1", 0, &parts.join(",")).await.assert_problem(413, "too_large");
    assert_eq!(till.staged(), 0);
}

#[tokio::test]
async fn a_group_over_the_maximum_is_never_staged_whole_and_rejected_when_pushed() {
    let limits = Limits { request_bytes: 2_000, group_bytes: 1_000, group_records: 20, ..Limits::default() };
    let app = TestApp::with(|config| config.limits = limits).await;
    let till = Uploader::of(&app);
    let (group, parts) = large("g1", 1, 14);
    assert!(group.changes.len() > 1_000);
    let mut refused = 0;
    for (number, part) in parts.iter().enumerate() {
        let answer = till.put("g1", number, part).await;
        refused += u32::from(answer.status == 413);
        assert!(answer.status == 200 || answer.json()["limit"] == 1_000, "{answer:?}");
    }
    assert!(refused > 0);
    let said = group.with(&format!(r#""changeBytes":{},"#, 2_000));
    assert_eq!(till.push(&in_parts(&said, 7)).await.verdicts(), ["rejected too_large"]);
    assert_eq!(till.staged(), 0, "a rejected group is no longer staged");
    let (many, _) = large("g2", 2, 21);
    assert_eq!(till.push(&in_parts(&many, 11)).await.verdicts(), ["rejected too_large"]);
    assert_eq!(app.digest().head.0, 0);
}

#[tokio::test]
async fn uploads_of_one_device_crowd_out_its_longest_untouched_one() {
    let clock = Arc::new(AtomicU64::new(1_780_000_000_000));
    let now = Arc::clone(&clock);
    let app = TestApp::with(|config| {
        config.limits = Limits { request_bytes: 2_000, group_bytes: 400, ..Limits::default() };
        config.environment = Environment::new(move || now.fetch_add(1, Ordering::Relaxed), |bytes| bytes.fill(7));
    })
    .await;
    let till = Uploader::of(&app);
    for id in ["g1", "g2", "g3"] {
        let (_, parts) = large(id, 1, 4);
        till.put_all(id, &parts).await;
    }
    let other = Uploader { device: "till-2", ..Uploader::of(&app) };
    other.put_all("g9", &large("g9", 1, 4).1).await;
    let push = async |id: &str, seq| till.push(&in_parts(&large(id, seq, 4).0, 2)).await.verdicts();
    assert_eq!(push("g1", 1).await, ["incomplete"]);
    assert_eq!((push("g2", 2).await, push("g3", 3).await), (vec!["accepted".to_owned()], vec!["accepted".to_owned()]));
}

#[tokio::test]
async fn an_upload_that_nobody_touches_expires() {
    let clock = Arc::new(AtomicU64::new(1_780_000_000_000));
    let now = Arc::clone(&clock);
    let app = TestApp::with(|config| {
        config.upload_expiry_ms = 24 * 60 * 60 * 1000;
        config.environment = Environment::new(move || now.load(Ordering::Relaxed), |bytes| bytes.fill(7));
    })
    .await;
    let till = Uploader::of(&app);
    let (old, old_parts) = large("g1", 1, 4);
    let (young, young_parts) = large("g2", 2, 4);
    till.put_all("g1", &old_parts).await;
    till.put("g2", 0, &young_parts[0]).await;
    clock.fetch_add(23 * 60 * 60 * 1000, Ordering::Relaxed);
    till.put("g2", 1, &young_parts[1]).await;
    assert_eq!(till.staged(), 2_004, "nothing is old enough yet");
    clock.fetch_add(2 * 60 * 60 * 1000, Ordering::Relaxed);
    assert_eq!(till.push(&in_parts(&young, 2)).await.verdicts(), ["accepted"], "touched parts keep the whole upload");
    assert_eq!(till.push(&in_parts(&old, 2)).await.result(0)["missing"], serde_json::json!([0, 1]));
}

#[tokio::test]
async fn the_log_hands_a_large_group_out_in_parts_on_a_page_of_its_own() {
    let mut app = small_limits().await;
    let till = Uploader::of(&app);
    app.push(&[receipt("g0", 1, "r0")]).await;
    let (group, parts) = large("g1", 2, 60);
    till.put_all("g1", &parts).await;
    assert_eq!(till.push(&in_parts(&group, parts.len())).await.verdicts(), ["accepted"]);
    app.push(&[receipt("g2", 3, "r2")]).await;
    let digest = app.digest();
    app.restart().await;
    assert_eq!(app.digest(), digest);

    let mut after = 0;
    let mut pages = Vec::new();
    while after < 3 {
        let page = app.get(&format!("/log?after={after}&maxRecords=1000")).await.json();
        after = page["next"].as_u64().unwrap();
        pages.push(page);
    }
    let seqs = |page: &serde_json::Value| {
        page["groups"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(pages.iter().map(seqs).collect::<Vec<_>>(), [vec![1], vec![2], vec![3]]);
    let entry = &pages[1]["groups"][0];
    assert_eq!((entry["changeCount"].as_u64(), entry.get("changes")), (Some(60), None));
    let count = entry["parts"].as_u64().unwrap();
    let mut elements = Vec::new();
    for number in 0..count {
        let part = app.get(&format!("/log/2/parts/{number}")).await;
        assert!(part.status == 200 && part.text.len() <= 2_000, "{part:?}");
        elements.push(part.text[1..part.text.len() - 1].to_owned());
    }
    let (before, after) = (&pages[0]["chain"], &pages[1]["chain"]);
    let chain = Digest::from_hex(before.as_str().unwrap()).unwrap().chained(
        gbsync_core::id::Seq(2),
        &gbsync_core::id::GroupId::new("g1").unwrap(),
        &format!("[{}]", elements.join(",")),
    );
    assert_eq!(after, &chain.to_string(), "the chain is over all changes, however they were cut");

    app.get(&format!("/log/2/parts/{count}")).await.assert_problem(404, "not_found");
    app.get("/log/1/parts/0").await.assert_problem(404, "not_found");
    app.get("/log/4/parts/0").await.assert_problem(410, "resync_required");
    app.get("/log/2/parts/0?log=another").await.assert_problem(410, "resync_required");
    app.get("/log/x/parts/0").await.assert_problem(400, "malformed");
}
