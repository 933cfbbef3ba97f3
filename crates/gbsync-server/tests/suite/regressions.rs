//! Inputs that once broke a promise, each held by a test.

use crate::common::*;

#[tokio::test]
async fn a_refusal_shows_no_more_of_the_records_than_an_answer_can_carry() {
    let app = TestApp::start().await;
    let large = format!(r#"{{"scan":"{}"}}"#, "x".repeat(200 * 1024));
    for n in 0..24 {
        let group = TestGroup::of(&format!("g{n}"), n + 1, &[upsert("scans", &format!("s{n:02}"), 0, &large)]);
        assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
    }
    // A few bytes of changes, each refused beside the record as it is.
    let changes: Vec<String> = (0..24).map(|n| upsert("scans", &format!("s{n:02}"), 0, r#"{"scan":""}"#)).collect();
    let refused = app.push(&[TestGroup::of("late", 25, &changes)]).await;
    assert_eq!(refused.verdicts(), ["rejected conflict"]);
    assert!(refused.text.len() < 2 * 1024 * 1024, "{} bytes", refused.text.len());
    let result = refused.result(0);
    let shown = result["changes"].as_array().unwrap();
    assert_eq!(shown.len(), 24, "every change at fault is named");
    assert!(!shown[0]["current"].is_null() && shown[23]["current"].is_null());
}

/// Tablets on a bad line send compressed pushes for minutes; what those may inflate to must not be held meanwhile.
#[tokio::test]
async fn many_slow_compressed_pushes_keep_nobody_waiting() {
    use tokio::io::AsyncWriteExt as _;
    let app = TestApp::start().await;
    let mut slow = Vec::new();
    for _ in 0..60 {
        let mut connection = tokio::net::TcpStream::connect(app.server.as_ref().unwrap().local_addr()).await.unwrap();
        let head = format!(
            "POST /v1/spaces/{SPACE}/push HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Encoding: gzip\r\nContent-Length: 3000\r\n\r\n",
            app.token
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&[0x1F, 0x8B]).await.unwrap();
        slow.push(connection);
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let groups = [receipt("g1", 1, "r-1")];
    let push = app.push(&groups);
    let answered = tokio::time::timeout(std::time::Duration::from_secs(5), push).await.expect("answered at once");
    assert_eq!(answered.verdicts(), ["accepted"]);
}
