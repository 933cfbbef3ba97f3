//! The log: whole groups, in order, chained, as soon as there are any.

use crate::common::*;
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, Seq};
use gbsync_core::wire::LogPage;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::time::{Duration, Instant};

/// Six groups of 1, 2, 3, 1, 2 and 3 records.
async fn fill(app: &TestApp) {
    let group = |n: u64| {
        let changes: Vec<String> = (0..n % 3 + 1).map(|r| upsert("notes", &format!("{n}-{r}"), 0, r#"{"x":1}"#)).collect();
        TestGroup::of(&format!("g{n}"), n + 1, &changes)
    };
    let groups: Vec<TestGroup> = (0..6).map(group).collect();
    assert!(app.push(&groups).await.verdicts().iter().all(|verdict| verdict == "accepted"));
}

async fn pages(app: &TestApp, limit: &str) -> Vec<LogPage> {
    let (mut pages, mut after) = (Vec::new(), Seq(0));
    loop {
        let answer = app.get(&format!("/log?after={after}&{limit}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = LogPage::parse(answer.text.as_bytes()).unwrap();
        after = page.next;
        let is_last = page.next == page.head;
        pages.push(page);
        if is_last {
            return pages;
        }
    }
}

#[tokio::test]
async fn limits_close_a_page_between_groups_and_a_page_has_at_least_one() {
    let app = TestApp::start().await;
    fill(&app).await;
    let seqs = |pages: &[LogPage]| -> Vec<Vec<u64>> {
        pages.iter().map(|page| page.entries.iter().map(|entry| entry.seq.0).collect()).collect()
    };
    assert_eq!(seqs(&pages(&app, "maxRecords=3").await), [vec![1, 2], vec![3], vec![4, 5], vec![6]]);
    assert_eq!(seqs(&pages(&app, "maxRecords=1").await), [[1], [2], [3], [4], [5], [6]]);
    assert_eq!(seqs(&pages(&app, "maxBytes=1").await).len(), 6);
    assert_eq!(seqs(&pages(&app, "maxRecords=99999999").await), [[1, 2, 3, 4, 5, 6]]);
    assert_eq!(seqs(&pages(&app, "").await), [[1, 2, 3, 4, 5, 6]]);
}

#[tokio::test]
async fn the_chain_is_what_the_contract_says_of_the_bytes_that_are_served() {
    let app = TestApp::start().await;
    fill(&app).await;
    let text = app.get("/log").await.text;
    let mut chain = "0".repeat(64);
    for (index, seq) in (1..=6).enumerate() {
        let entry = text.split(&format!("{{\"seq\":{seq},")).nth(1).unwrap();
        let changes = entry.split("\"changes\":").nth(1).unwrap();
        let end = changes.find("]}").unwrap();
        let mut hasher = Sha256::new();
        hasher.update(format!("{chain}\n{seq}\ng{index}\n{}]", &changes[..end]));
        chain = hex::encode(hasher.finalize());
    }
    let page: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((page["chain"].as_str().unwrap(), page["next"].as_u64()), (chain.as_str(), Some(6)));
    assert_eq!(app.get("").await.json()["chain"], chain.as_str());
    // A device that is in step goes on; in pages the chain is the same.
    let half = app.get("/log?maxRecords=3").await.json();
    let rest = format!("/log?after=2&chain={}", half["chain"].as_str().unwrap());
    assert_eq!(app.get(&rest).await.json()["chain"], chain.as_str());
    assert_eq!(Digest::ZERO.chained(Seq(1), &GroupId::new("g0").unwrap(), "[]").to_string().len(), 64);
}

#[tokio::test]
async fn an_entry_says_who_made_the_group_and_when() {
    let app = TestApp::start().await;
    app.push(&[receipt("g0", 1, "taken"), receipt("g1", 2, "taken")]).await;
    app.push(&[receipt("g2", 3, "r-1").actor("ann").replaces("g1")]).await;
    let entry = app.get("/log?after=1").await.json()["groups"][0].clone();
    assert!(entry["committedAt"].as_str().unwrap().ends_with('Z'));
    let mut entry = entry;
    entry.as_object_mut().unwrap().remove("committedAt");
    assert_eq!(
        entry,
        json!({"seq":2,"syncGroupId":"g2","syncGroupType":"receipt-create","device":"till-1","epoch":"e1","deviceSeq":3,
            "actor":"ann","createdAt":"2026-06-03T20:52:59.123Z","replaces":"g1","flags":[],"changeCount":1,
            "changes":[{"entity":"receipts","id":"r-1","action":"upsert","version":2,"editVersion":2,"payload":{"total":"1.00"}}]})
    );
}

#[tokio::test]
async fn a_page_beyond_the_last_group_is_empty() {
    let app = TestApp::start().await;
    fill(&app).await;
    let page = app.get("/log?after=6").await.json();
    assert_eq!((page["groups"].clone(), page["next"].clone(), page["head"].clone()), (json!([]), json!(6), json!(6)));
    assert_eq!(app.get("").await.json()["chain"], page["chain"]);
}

#[tokio::test]
async fn a_waiting_reader_is_answered_as_soon_as_a_group_commits() {
    let app = TestApp::start().await;
    let begun = Instant::now();
    let (page, _) = tokio::join!(app.get("/log?after=0&wait=30"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.push(&[receipt("g1", 1, "r-1")]).await
    });
    assert_eq!(page.json()["groups"][0]["syncGroupId"], "g1");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_waiting_reader_gets_an_empty_page_when_its_time_is_up() {
    let app = TestApp::start().await;
    let begun = Instant::now();
    let page = app.get("/log?after=0&wait=1").await.json();
    assert_eq!(page["groups"], json!([]));
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_reader_whose_token_is_revoked_while_it_waits_gets_nothing() {
    let app = TestApp::start().await;
    let other = token(&app.store, SPACE, None, None);
    let (page, _) = tokio::join!(app.get("/log?after=0&wait=30"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let tokens = gbsync_server::Tokens::open(&app.store).unwrap();
        let id = tokens.list().unwrap()[0].id.clone();
        tokens.revoke(&id).unwrap();
        let body = envelope("till-1", "e1", &[receipt("g1", 1, "r-1")]);
        let request = app.http.post(app.space_url("/push")).bearer_auth(&other).header("content-type", "application/json");
        assert_eq!(Answer::of(request.body(body)).await.verdicts(), ["accepted"]);
    });
    page.assert_problem(401, "unauthenticated");
}

#[tokio::test]
async fn spaces_have_logs_of_their_own() {
    let mut app = TestApp::start().await;
    fill(&app).await;
    let mine = app.token.clone();
    app.token = token(&app.store, "other", None, None);
    let url = app.url("/v1/spaces/other");
    let push = app.http.post(format!("{url}/push")).bearer_auth(&app.token).header("content-type", "application/json");
    let answer = Answer::of(push.body(envelope("till-1", "e1", &[receipt("g0", 1, "r-1")]))).await;
    assert_eq!(answer.result(0), json!({"syncGroupId":"g0","status":"accepted","seq":1,"duplicate":false,"flags":[]}));
    app.token = mine;
    assert_eq!(app.get("").await.json()["head"], 6);
}
