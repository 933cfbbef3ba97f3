//! Records that their authors made are held for new without a look. Where one is there all the same, everything is decided as if it
//! had been looked for.

use crate::common::*;

#[tokio::test]
async fn a_record_that_two_devices_made_is_a_conflict_for_the_second() {
    let app = TestApp::start().await;
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
    let groups = [receipt("h1", 1, "r-2"), receipt("h2", 2, "r-1"), receipt("h3", 3, "r-3")];
    let answer = app.push_as("till-2", "e2", &groups).await;
    assert_eq!(answer.verdicts(), ["accepted", "rejected conflict", "accepted"]);
    assert_eq!((answer.result(0)["seq"].as_u64(), answer.result(2)["seq"].as_u64()), (Some(2), Some(3)));
    let change = &answer.result(1)["changes"][0];
    assert_eq!((change["id"].as_str(), change["current"]["version"].as_u64()), (Some("r-1"), Some(1)), "{}", answer.text);
    assert_eq!(app.digest().records, 3);
}

#[tokio::test]
async fn a_push_that_is_sent_again_writes_nothing_twice() {
    let app = TestApp::start().await;
    let groups = [receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")];
    assert_eq!(app.push(&groups).await.verdicts(), ["accepted"; 2]);
    let before = app.digest();
    let again = app.push(&[groups[0].clone(), groups[1].clone(), receipt("g3", 3, "r-3")]).await;
    assert_eq!(again.verdicts(), ["accepted"; 3]);
    let is_duplicate = |at| again.result(at)["duplicate"].as_bool();
    assert_eq!([0, 1, 2].map(is_duplicate), [Some(true), Some(true), Some(false)]);
    assert_eq!((before.records, app.digest().records), (2, 3));
}

#[tokio::test]
async fn a_deleted_record_that_somebody_makes_again_is_looked_for() {
    let app = TestApp::start().await;
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
    let deleted = TestGroup::of("g2", 2, &[delete("receipts", "r-1", 1)]);
    assert_eq!(app.push(&[deleted]).await.verdicts(), ["accepted"]);
    let answer = app.push_as("till-2", "e2", &[receipt("h1", 1, "r-1")]).await;
    assert_eq!(answer.verdicts(), ["rejected conflict"], "{}", answer.text);
}

#[tokio::test]
async fn one_push_that_makes_a_record_and_edits_it_finds_its_own() {
    let app = TestApp::start().await;
    let edit = |id: &str, number: u64, after: &str| {
        let change = format!(
            r#"{{"entity":"receipts","id":"r-1","action":"upsert","baseVersion":0,"baseGroup":"{after}","payload":{{"n":{number}}}}}"#
        );
        TestGroup::of(id, number, &[change]).depends_on(after)
    };
    let answer = app.push(&[receipt("g1", 1, "r-1"), edit("g2", 2, "g1")]).await;
    assert_eq!(answer.verdicts(), ["accepted"; 2], "{}", answer.text);
    let answer = app.push(&[edit("g3", 3, "g2")]).await;
    assert_eq!(answer.verdicts(), ["accepted"], "{}", answer.text);
    assert_eq!(app.digest().records, 1);
}
