//! Nothing that a request says makes the server panic, answer 5xx, or change anything it did not accept.

use crate::common::*;

/// Sends a body to push, and checks the answer and that nothing changed.
async fn refused(app: &TestApp, body: impl Into<reqwest::Body>) -> String {
    let before = app.digest();
    let answer = app.post("/push", body).await;
    let pointer = answer.assert_problem(400, "malformed").unwrap_or_default();
    assert_eq!(app.digest(), before);
    pointer
}

async fn refused_group(app: &TestApp, group: &str) -> (String, String) {
    let before = app.digest();
    let whole = receipt("whole", 1, "r-1").json();
    let answer = app.post("/push", raw_envelope("till-1", "e1", &format!("{whole},{group}"))).await;
    let pointer = answer.assert_problem(400, "malformed").unwrap_or_default();
    assert_eq!(app.digest(), before, "a malformed group leaves nothing of its request");
    (pointer, answer.json()["detail"].as_str().unwrap().to_owned())
}

fn with_payload(payload: &str) -> String {
    TestGroup::of("bad", 2, &[upsert("notes", "n", 0, "{}"), upsert("notes", "m", 0, payload)]).json()
}

#[tokio::test]
async fn a_body_that_is_no_request_is_malformed() {
    let app = TestApp::start().await;
    let valid = envelope("till-1", "e1", &[receipt("g1", 1, "r-1")]);
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"   ".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"{".to_vec(),
        b"hello".to_vec(),
        format!("{valid}x").into_bytes(),
        format!("\u{feff}{valid}").into_bytes(),
        [valid.as_bytes(), b"\xff"].concat(),
        valid.replace("till-1", "t\u{1}").into_bytes(),
        valid.replace("\"e1\"", "17").into_bytes(),
        valid.replace("\"groups\":[", "\"groups\":[],\"groups\":[").into_bytes(),
        valid.replace("\"device\":\"till-1\",", "").into_bytes(),
        b"{\"device\":\"d\",\"epoch\":\"e\",\"groups\":{}}".to_vec(),
        b"{\"device\":\"d\",\"epoch\":\"e\",\"groups\":[7]}".to_vec(),
    ];
    for body in bodies {
        let text = String::from_utf8_lossy(&body).into_owned();
        let pointer = refused(&app, body).await;
        assert!(!pointer.starts_with("/groups/") || text.contains("[7]"), "{text}: {pointer}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_utf8_inside_a_payload_are_malformed() {
    let app = TestApp::start().await;
    let body = envelope("till-1", "e1", &[receipt("g1", 1, "r-1")]).into_bytes();
    let at = body.windows(4).position(|window| window == b"1.00").unwrap();
    let mut body = body;
    body[at] = 0xC3;
    refused(&app, body).await;
}

#[tokio::test]
async fn a_payload_that_readers_disagree_about_is_malformed_with_a_pointer_to_its_group() {
    let app = TestApp::start().await;
    let deep = format!("{}{}", "{\"a\":".repeat(65), "1".to_owned() + &"}".repeat(65));
    let payloads = [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"x":[{"b":1,"b":1}]}"#,
        r#"{"a":"\u0000"}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\udc00x"}"#,
        r#"{"a":1e999}"#,
        r#"{"a":9223372036854775808}"#,
        r#"{"a":-9223372036854775809}"#,
        r#"{"a":NaN}"#,
        r#"{"a":+1}"#,
        r#"{"a":01}"#,
        r#"{"a":.5}"#,
        r#"{"a":'x'}"#,
        r#"{"a":1,}"#,
        "{\"a\":\"\u{1}\"}",
        &deep,
    ];
    for payload in payloads {
        let (pointer, _) = refused_group(&app, &with_payload(payload)).await;
        assert!(pointer.starts_with("/groups/1/changes/1"), "{payload}: {pointer}");
    }
}

#[tokio::test]
async fn a_payload_at_the_limit_of_depth_is_accepted() {
    let app = TestApp::start().await;
    let deep = format!("{}{}", "{\"a\":".repeat(64), "1".to_owned() + &"}".repeat(64));
    let group = TestGroup::of("deep", 1, &[upsert("notes", "n", 0, &deep)]);
    assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn a_group_that_no_device_can_have_sealed_is_malformed_and_named() {
    let app = TestApp::start().await;
    let change = |text: &str| TestGroup::of("bad", 2, &[upsert("notes", "n", 0, "{}"), text.into()]).json();
    let good = upsert("notes", "m", 0, "{}");
    let cases = [
        (change(&good.replace("upsert", "merge")), "/groups/1/changes/1/action"),
        (change(&good.replace("\"m\"", "\"\"")), "/groups/1/changes/1/id"),
        (change(&good.replace("\"m\"", &format!("\"{}\"", "x".repeat(257)))), "/groups/1/changes/1/id"),
        (change(&good.replace("\"m\"", "\"a\\u0001\"")), "/groups/1/changes/1/id"),
        (change(&good.replace("notes", "no\\u007ftes")), "/groups/1/changes/1/entity"),
        (change(&good.replace("{}}", "[]}")), "/groups/1/changes/1/payload"),
        (change(&good.replace(",\"payload\":{}", "")), "/groups/1/changes/1/payload"),
        (change(&good.replace(":0,", ":-1,")), "/groups/1/changes/1/baseVersion"),
        (change(&increment("stock", "s", r#"{"n":"1"}"#)), "/groups/1/changes/1/payload"),
        (change(&increment("stock", "s", "{}")), "/groups/1/changes/1/payload"),
        (change("7"), "/groups/1/changes/1"),
        (change(&good.replace("\"baseVersion\":0", "\"baseGroup\":\"x\"")), "/groups/1/changes/1/baseGroup"),
    ];
    for (group, expected) in cases {
        let (pointer, detail) = refused_group(&app, &group).await;
        assert_eq!(pointer, expected, "{group}");
        assert!(detail.contains("group bad"), "{detail}");
    }
}

#[tokio::test]
async fn a_group_whose_envelope_is_wrong_is_malformed_with_a_pointer() {
    let app = TestApp::start().await;
    let good = receipt("bad", 2, "r-2").json();
    let cases = [
        (TestGroup::of("bad", 2, &[]).json(), "/groups/1/changes"),
        (good.replace("\"bad\"", "\"\""), "/groups/1/syncGroupId"),
        (good.replace("\"bad\"", &format!("\"{}\"", "g".repeat(601))), "/groups/1/syncGroupId"),
        (good.replace("\"syncGroupType\":\"receipt-create\",", ""), "/groups/1/syncGroupType"),
        (good.replace("\"deviceSeq\":2", "\"deviceSeq\":0"), "/groups/1/deviceSeq"),
        (good.replace("\"deviceSeq\":2", "\"deviceSeq\":9007199254740992"), "/groups/1/deviceSeq"),
        (good.replace("\"deviceSeq\":2", "\"deviceSeq\":1"), "/groups/1/deviceSeq"),
        (good.replace("2026-06-03T20:52:59.123Z", "yesterday"), "/groups/1/createdAt"),
        (good.replace("\"changeCount\":1", "\"changeCount\":\"1\""), "/groups/1/changeCount"),
        (good.replace("\"changes\":[", "\"parts\":["), "/groups/1/parts"),
        (receipt("bad", 2, "r-2").depends_on("bad").json(), "/groups/1/dependsOn"),
        (receipt("bad", 2, "r-2").replaces("bad").json(), "/groups/1/replaces"),
    ];
    for (group, expected) in cases {
        let (pointer, _) = refused_group(&app, &group).await;
        assert_eq!(pointer, expected, "{group}");
    }
}

#[tokio::test]
async fn a_cycle_in_one_batch_is_malformed() {
    let app = TestApp::start().await;
    let groups = [receipt("a", 1, "r-1").depends_on("b"), receipt("b", 2, "r-2").depends_on("a")];
    let pointer = refused(&app, envelope("till-1", "e1", &groups)).await;
    assert_eq!(pointer, "/groups/0/dependsOn");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let app = TestApp::start().await;
    let before = app.digest();
    let answer = app.post("/push", vec![b' '; 1_048_577]).await;
    answer.assert_problem(413, "too_large");
    assert_eq!(answer.json()["limit"], 1_048_576);
    // Without a length, it is refused as soon as it is over.
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(65_536));
    let answer = app.raw_push("transfer-encoding: chunked\r\n", chunk.repeat(40).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"), "{answer}");
    assert_eq!(app.digest(), before);
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn a_gzip_bomb_is_refused_without_being_inflated() {
    let app = TestApp::start().await;
    let bomb = gzip(&vec![b' '; 200 * 1024 * 1024]);
    assert!(bomb.len() < 400_000);
    let answer = app.post_gzip("/push", bomb).await;
    answer.assert_problem(413, "too_large");
    assert_eq!(app.digest().head.0, 0);
}

#[tokio::test]
async fn a_compressed_body_that_is_no_gzip_is_malformed() {
    let app = TestApp::start().await;
    let whole = gzip(envelope("till-1", "e1", &[receipt("g1", 1, "r-1")]).as_bytes());
    for body in [b"hello".to_vec(), whole[..whole.len() - 9].to_vec(), Vec::new()] {
        app.post_gzip("/push", body).await.assert_problem(400, "malformed");
    }
    assert_eq!(app.digest().head.0, 0);
}

#[tokio::test]
async fn another_type_or_encoding_than_json_and_gzip_is_unsupported() {
    let app = TestApp::start().await;
    let body = envelope("till-1", "e1", &[receipt("g1", 1, "r-1")]);
    let cases = [
        (None, None),
        (Some("text/plain"), None),
        (Some("application/xml"), None),
        (Some("application/json; charset=latin1"), None),
        (Some("application/json"), Some("br")),
        (Some("application/json"), Some("gzip, gzip")),
        (Some("application/json"), Some("zstd")),
    ];
    for (content_type, encoding) in cases {
        let mut request = app.http.post(app.space_url("/push")).bearer_auth(&app.token).body(body.clone());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        Answer::of(request).await.assert_problem(415, "unsupported_media");
    }
    assert_eq!(app.digest().head.0, 0);
    let request = app.http.post(app.space_url("/push")).bearer_auth(&app.token).body(body);
    let answer = Answer::of(request.header("content-type", "Application/JSON; charset=UTF-8")).await;
    assert_eq!(answer.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn a_question_about_verdicts_is_checked_like_a_push() {
    let app = TestApp::start().await;
    for body in ["", "null", "{}", r#"{"ids":"g"}"#, r#"{"ids":[""]}"#, r#"{"ids":[1]}"#] {
        app.post("/verdicts", body).await.assert_problem(400, "malformed");
    }
    let many = format!("{{\"ids\":[{}]}}", vec!["\"g\""; 10_001].join(","));
    assert_eq!(app.post("/verdicts", many).await.assert_problem(400, "malformed").as_deref(), Some("/ids"));
    assert_eq!(app.post("/verdicts", r#"{"ids":["b","a"]}"#).await.verdicts(), ["unknown", "unknown"]);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let app = TestApp::start().await;
    for path in ["/", "/v1", "/v2/spaces/shop", "/v1/spaces/shop/nothing", "/v1/spaces/shop/groups/g"] {
        Answer::of(app.http.get(app.url(path)).bearer_auth(&app.token)).await.assert_problem(404, "not_found");
    }
    let answer = Answer::of(app.http.delete(app.space_url("")).bearer_auth(&app.token)).await;
    answer.assert_problem(405, "method_not_allowed");
    assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
    app.get("/push").await.assert_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_cursor_that_is_no_number_is_malformed_and_one_beyond_the_head_is_gone() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")]).await;
    let bad = [
        "after=-1",
        "after=x",
        "after=1.5",
        "after=",
        "after=9007199254740992",
        "after=1&after=1",
        "maxRecords=0",
        "maxBytes=-5",
        "maxRecords=many",
        "wait=-1",
        "chain=xyz",
        "log=",
        "after=%FF",
    ];
    for query in bad {
        let answer = app.get(&format!("/log?{query}")).await;
        answer.assert_problem(400, "malformed");
        let name = query.split('=').next().unwrap();
        assert!(answer.text.contains(name) || query.contains('%'), "{answer:?}");
    }
    let gone = async |query: &str| {
        let answer = app.get(&format!("/log?{query}")).await;
        answer.assert_problem(410, "resync_required");
        answer.json()["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(gone("after=3").await, "beyond_head");
    assert_eq!(gone("after=1&log=another").await, "log_changed");
    assert_eq!(gone(&format!("after=1&chain={}", "0".repeat(64))).await, "log_changed");
    assert_eq!(gone(&format!("after=0&chain={}", "1".repeat(64))).await, "log_changed");
    assert_eq!(app.get(&format!("/log?after=0&chain={}", "0".repeat(64))).await.status, 200);
}
