//! Pushes that arrive together share one durable transaction, and fail together without a trace.

use crate::common::*;
use gbsync_server::FaultPoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const DEVICES: u64 = 16;
const PUSHES: u64 = 25;

async fn push_many(app: &TestApp, device: u64) {
    for n in 0..PUSHES {
        let groups: Vec<TestGroup> =
            (0..4).map(|g| receipt(&format!("g-{device}-{n}-{g}"), n * 4 + g + 1, &format!("r-{device}-{n}-{g}"))).collect();
        let answer = app.push_as(&format!("till-{device}"), "e1", &groups).await;
        assert_eq!(answer.verdicts(), ["accepted"; 4]);
    }
}

/// Rounds of which the middle one counts: how many pushes meet depends on a machine that others use too.
const ROUNDS: usize = 5;

/// A server to which sixteen devices pushed at once.
async fn pushed_at_once() -> Arc<TestApp> {
    let app = Arc::new(TestApp::start().await);
    let devices: Vec<_> = (0..DEVICES)
        .map(|device| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { push_many(&app, device).await })
        })
        .collect();
    for device in devices {
        device.await.unwrap();
    }
    app
}

/// How many transactions a server needed for them; every group is accepted in each round.
fn shared_transactions(app: &TestApp) -> u64 {
    let counters = app.counters();
    assert_eq!(counters.pushes, DEVICES * PUSHES);
    assert_eq!(counters.groups_accepted, DEVICES * PUSHES * 4);
    counters.transactions
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_devices_share_their_transactions() {
    let mut app = pushed_at_once().await;
    let mut transactions = vec![shared_transactions(&app)];
    while transactions.len() < ROUNDS {
        app = pushed_at_once().await;
        transactions.push(shared_transactions(&app));
    }
    transactions.sort_unstable();
    assert!(DEVICES * PUSHES >= 4 * transactions[ROUNDS / 2], "{transactions:?}");
    // The log has no gap, and every group once.
    let mut seen = std::collections::BTreeSet::new();
    let mut after = 0;
    loop {
        let page = app.get(&format!("/log?after={after}")).await.json();
        for entry in page["groups"].as_array().unwrap() {
            after += 1;
            assert_eq!(entry["seq"], after);
            assert!(seen.insert(entry["syncGroupId"].as_str().unwrap().to_owned()));
        }
        if page["next"] == page["head"] {
            break;
        }
    }
    assert_eq!(seen.len() as u64, DEVICES * PUSHES * 4);
    assert_eq!(app.digest().records, DEVICES * PUSHES * 4);
}

#[tokio::test]
async fn a_single_device_has_a_transaction_for_each_push() {
    let app = TestApp::start().await;
    push_many(&app, 0).await;
    assert_eq!((app.counters().pushes, app.counters().transactions), (PUSHES, PUSHES));
}

#[tokio::test]
async fn a_failed_commit_is_answered_503_and_leaves_nothing() {
    let is_broken = Arc::new(AtomicBool::new(false));
    let broken = Arc::clone(&is_broken);
    let app = TestApp::with(move |config| {
        config.fault = Some(FaultPoint(Arc::new(move || broken.load(Ordering::SeqCst))));
    })
    .await;
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
    let (before, chain) = (app.digest(), app.get("").await.json()["chain"].clone());
    is_broken.store(true, Ordering::SeqCst);
    let groups = [receipt("g2", 2, "r-2"), receipt("g3", 3, "r-1")];
    let others = [receipt("g9", 1, "r-9")];
    let (first, second) = tokio::join!(app.push(&groups), app.push_as("till-2", "e9", &others));
    for answer in [&first, &second, &app.post("/groups/g8/discard", r#"{"reason":"x"}"#).await] {
        answer.assert_problem(503, "unavailable");
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!((app.digest(), app.get("").await.json()["chain"].clone()), (before, chain));
    let known = app.post("/verdicts", r#"{"ids":["g2","g3","g8","g9"]}"#).await;
    assert_eq!(known.verdicts(), ["unknown"; 4]);
    is_broken.store(false, Ordering::SeqCst);
    let answer = app.push(&groups).await;
    assert_eq!(answer.verdicts(), ["accepted", "rejected conflict"]);
    assert_eq!((answer.result(0)["seq"].as_u64(), answer.result(0)["duplicate"].as_bool()), (Some(2), Some(false)));
    assert!(app.counters().failed_transactions > 0);
}

#[tokio::test]
async fn a_reader_is_not_woken_by_a_transaction_that_failed() {
    let commits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&commits);
    let app = TestApp::with(move |config| {
        config.fault = Some(FaultPoint(Arc::new(move || counted.fetch_add(1, Ordering::SeqCst) == 0)));
    })
    .await;
    let (page, _) = tokio::join!(app.get("/log?after=0&wait=30"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        app.push(&[receipt("lost", 1, "r-1")]).await.assert_problem(503, "unavailable");
        tokio::time::sleep(Duration::from_millis(50)).await;
        app.push(&[receipt("kept", 1, "r-1")]).await
    });
    let groups = page.json()["groups"].clone();
    assert_eq!((groups.as_array().unwrap().len(), groups[0]["syncGroupId"].as_str()), (1, Some("kept")));
}
