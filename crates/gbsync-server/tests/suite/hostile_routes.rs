//! Every route that is asked in the name of a space: who may not ask is told so first, and no body makes the server fail.

use crate::common::*;

/// Method, path, and whether only the back office may ask.
const ROUTES: &[(&str, &str, bool)] = &[
    ("GET", "", false),
    ("GET", "/schema", false),
    ("POST", "/push", false),
    ("POST", "/verdicts", false),
    ("POST", "/groups/g1/discard", false),
    ("PUT", "/groups/g9/parts/0?device=till-1", false),
    ("GET", "/log", false),
    ("GET", "/snapshot", false),
    ("GET", "/live?after=99", false),
    ("GET", "/log/1/parts/0", false),
    ("GET", "/flags", true),
    ("GET", "/rejections", true),
    ("GET", "/rejections/bad", true),
    ("POST", "/rejections/bad/amend", true),
    ("POST", "/rejections/bad/discard", true),
    ("POST", "/rejections/bad/compensate", true),
];

async fn ask(app: &TestApp, method: &str, url: String, token: Option<&str>, body: &str) -> Answer {
    let mut request = app.http.request(method.parse().unwrap(), url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if method != "GET" {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    Answer::of(request).await
}

async fn with_rejection() -> (TestApp, String) {
    let app = TestApp::start().await;
    let groups = [receipt("g1", 1, "r1"), receipt("bad", 2, "r1")];
    assert_eq!(app.push(&groups).await.verdicts(), ["accepted", "rejected conflict"]);
    let admin = token_with_roles(&app.store, SPACE, &["admin"]);
    (app, admin)
}

#[tokio::test]
async fn every_route_refuses_who_may_not_ask_before_it_looks_at_anything() {
    let (app, admin) = with_rejection().await;
    let stranger = token_with_roles(&app.store, "other", &["admin"]);
    for (method, path, is_office) in ROUTES {
        for (token, status, code) in [
            (None, 401, "unauthenticated"),
            (Some("x"), 401, "unauthenticated"),
            (Some(stranger.as_str()), 404, "space_not_found"),
        ] {
            ask(&app, method, app.space_url(path), token, "{").await.assert_problem(status, code);
        }
        let nowhere = app.url(&format!("/v1/spaces/nowhere{path}"));
        ask(&app, method, nowhere, Some(&admin), "{").await.assert_problem(404, "space_not_found");
        if *is_office {
            ask(&app, method, app.space_url(path), Some(&app.token), "{").await.assert_problem(403, "forbidden");
        }
    }
    assert_eq!(app.digest().head.0, 1);
}

#[tokio::test]
async fn no_body_makes_a_route_fail_and_every_bad_one_is_pointed_at() {
    let (app, admin) = with_rejection().await;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let nested = format!(r#"{{"reason":"x","ids":{deep},"groups":{deep},"changes":{deep}}}"#);
    let edits = |edits: &str| format!(r#"{{"reason":"x","actor":"a","type":"t","root":"r","changes":{edits}}}"#);
    let mut bodies: Vec<String> =
        ["", "{", "null", "[]", "[1]", "[{}]", "{}", "7", "\"x\"", r#"{"a":1,"a":2}"#, r#"{"reason":7}"#]
            .into_iter()
            .map(Into::into)
            .collect();
    bodies.extend([
        nested,
        r#"{"ids":[1]}"#.to_owned(),
        r#"{"device":"d","epoch":"e","groups":[{}]}"#.to_owned(),
        edits("[]"),
        edits(r#"[{"entity":"n","id":"1","action":"increment","payload":{}}]"#),
        edits(r#"[{"entity":"n","id":"1","action":"leave","payload":{}}]"#),
        edits(r#"[{"entity":"n","id":"1","action":"upsert","payload":[]}]"#),
        edits(r#"[{"entity":"","id":"1","action":"upsert","payload":{}}]"#),
        edits(r#"[{"entity":"n","id":"1","action":"upsert","payload":{"a":1e999}}]"#),
        r#"{"reason":"\u0000","sealedAs":{}}"#.to_owned(),
        format!(r#"{{"reason":"{}"}}"#, "x".repeat(5_000)),
        r#"{"reason":"x","sealedAs":{"device":"d","epoch":"e","deviceSeq":0}}"#.to_owned(),
    ]);
    for (method, path, _) in ROUTES.iter().filter(|(method, ..)| *method != "GET") {
        for body in &bodies {
            let answer = ask(&app, method, app.space_url(path), Some(&admin), body).await;
            assert!(answer.status < 500, "{method} {path} {body}: {answer:?}");
            // A discard needs no more than a reason, and the first one closes.
            if !matches!(answer.status, 200 | 409) {
                let pointer = answer.assert_problem(400, "malformed");
                let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
                let is_kind = if *method == "PUT" { value.get(0).is_some() } else { value.is_object() };
                assert!(!is_kind || pointer.is_some(), "{method} {path} {body}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_parameter_makes_a_route_fail() {
    let (app, admin) = with_rejection().await;
    let far = "9007199254740991";
    let paths = [
        format!("/log?after={far}"),
        format!("/log?maxRecords={far}&maxBytes={far}"),
        "/log?chain=zz".to_owned(),
        "/log?after=1&after=2".to_owned(),
        "/log?wait=-1".to_owned(),
        "/live?after=-1".to_owned(),
        format!("/live?after={far}"),
        "/live?chain=zz".to_owned(),
        "/live?log=%00".to_owned(),
        format!("/log/{far}/parts/0"),
        "/log/1099511627775/parts/1099511627775".to_owned(),
        "/log/0/parts/0".to_owned(),
        "/log/x/parts/0".to_owned(),
        "/log/1/parts/-1".to_owned(),
        format!("/flags?after={far}.{far}&max={far}"),
        "/flags?after=99999999999999999999.0".to_owned(),
        "/flags?state=x".to_owned(),
        "/flags?max=0".to_owned(),
        "/rejections?after=%00".to_owned(),
        "/rejections?after=never&limit=1".to_owned(),
        "/rejections?state=".to_owned(),
        "/rejections/%00".to_owned(),
        "/rejections/%FF".to_owned(),
        format!("/rejections/{}", "x".repeat(601)),
        format!("?device=d&epoch=e&previousEpoch=f&previousDeviceSeq={far}"),
        "?epoch=e".to_owned(),
        "?device=server".to_owned(),
        "?device=%0A".to_owned(),
    ];
    for path in &paths {
        let answer = ask(&app, "GET", app.space_url(path), Some(&admin), "").await;
        assert!(answer.status < 500, "{path}: {answer:?}");
        if answer.status >= 400 {
            let code = answer.json()["code"].as_str().unwrap().to_owned();
            answer.assert_problem(answer.status, &code);
        }
    }
    for path in [
        "/groups/g/parts/65536?device=d",
        "/groups/g/parts/x?device=d",
        "/groups/g/parts/0",
        "/groups/g/parts/0?device=server",
    ] {
        let body = r#"[{"entity":"n","id":"1","action":"delete"}]"#;
        let answer = ask(&app, "PUT", app.space_url(path), Some(&admin), body).await;
        assert!((400..404).contains(&answer.status), "{path}: {answer:?}");
    }
    assert_eq!(app.push(&[receipt("g3", 3, "r3")]).await.verdicts(), ["accepted"]);
}
