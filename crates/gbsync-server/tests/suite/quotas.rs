//! What a device may push in a day, and that parts of large groups count as pushes do.

use crate::common::*;
use std::time::Duration;

/// Checks that it is the refusal of a quota; the seconds after which to come back.
#[track_caller]
fn assert_used_up(answer: &Answer, quota: &str) -> u64 {
    answer.assert_problem(507, "quota_exceeded");
    assert_eq!(answer.json()["reason"], quota);
    assert!(answer.json()["detail"].as_str().unwrap().contains(&format!("quota.{quota}")));
    answer.headers.get("retry-after").unwrap().to_str().unwrap().parse().unwrap()
}

async fn put_part(app: &TestApp, device: &str, group: &str, records: u64) -> Answer {
    let changes: Vec<String> =
        (0..records).map(|n| upsert("notes", &format!("{group}-{n}"), 0, r#"{"text":"a note"}"#)).collect();
    let request = app.http.put(app.space_url(&format!("/groups/{group}/parts/0?device={device}"))).bearer_auth(&app.token);
    let body = format!("[{}]", changes.join(","));
    Answer::of(request.header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn a_device_pushes_so_many_changes_a_day_and_others_are_not_held_up() {
    let mut app = TestApp::with(|config| config.quotas.device_records_a_day = 3).await;
    let groups: Vec<_> = (1..=3).map(|n| receipt(&format!("g{n}"), n, &format!("r-{n}"))).collect();
    assert_eq!(app.push(&groups).await.verdicts(), ["accepted"; 3]);
    let more = [receipt("g4", 4, "r-4")];
    // There is room again in eight hours, and somebody may raise the quota before.
    assert_eq!(assert_used_up(&app.push(&more).await, "device_records_a_day"), 60);
    let unknown = app.post("/verdicts", r#"{"ids":["g4"]}"#).await.json();
    assert_eq!(unknown["results"][0]["status"], "unknown", "nothing was decided");
    let others = receipt("other", 1, "r-9");
    assert_eq!(app.push_as("till-2", "e1", &[others]).await.verdicts(), ["accepted"]);
    app.restart_with(|config| config.quotas.device_records_a_day = 100).await.unwrap();
    assert_eq!(app.push(&more).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn parts_count_into_the_bytes_of_a_day() {
    let app = TestApp::with(|config| config.quotas.device_bytes_a_day = 1_500).await;
    assert_eq!(put_part(&app, "till-1", "g1", 10).await.status, 200);
    assert_eq!(assert_used_up(&put_part(&app, "till-1", "g2", 10).await, "device_bytes_a_day"), 60);
    assert_used_up(&app.push(&[receipt("g3", 1, "r-1"), receipt("g4", 2, "r-2")]).await, "device_bytes_a_day");
    assert_eq!(put_part(&app, "till-2", "g5", 10).await.status, 200);
}

#[tokio::test]
async fn a_full_space_takes_no_parts() {
    let app = TestApp::with(|config| config.quotas.space_records = 2).await;
    assert_eq!(put_part(&app, "till-1", "g1", 3).await.status, 200);
    let groups = [receipt("g2", 1, "r-1"), receipt("g3", 2, "r-2")];
    assert_eq!(app.push(&groups).await.verdicts(), ["accepted"; 2]);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let answer = put_part(&app, "till-1", "g1", 3).await;
    answer.assert_problem(507, "quota_exceeded");
    assert_eq!(answer.headers.get("retry-after").unwrap(), "60");
}
