//! Every route of the OpenAPI document against every kind of caller. A route without a row here fails.

use crate::common::*;
use gbsync_core::id::{Actor, DeviceId, Role, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_server::{NewToken, Tokens};
use serde_json::Value;
use std::collections::BTreeSet;

/// Whom a route answers.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Answers {
    Everybody,
    TheSpace,
    TheOffice,
}
use Answers::{Everybody, TheOffice, TheSpace};

/// A body, by the number of its request.
type Body = Box<dyn Fn(u64) -> String>;

/// A route, and a request to it that is in order: whoever is let in gets what is asked for. Device till-1 and person ann are
/// named where a request names any. `#` is a number that no other request has.
pub struct Row {
    pub route: &'static str,
    answers: Answers,
    path: &'static str,
    body: Option<Body>,
    names_device: bool,
    names_actor: bool,
}

fn row(route: &'static str, answers: Answers, path: &'static str) -> Row {
    Row { route, answers, path, body: None, names_device: false, names_actor: false }
}

impl Row {
    fn body(self, body: impl Into<String>) -> Self {
        let body = body.into();
        self.body_of(move |number| body.replace('#', &number.to_string()))
    }

    fn body_of(self, body: impl Fn(u64) -> String + 'static) -> Self {
        Self { body: Some(Box::new(body)), ..self }
    }

    fn device(self) -> Self {
        Self { names_device: true, ..self }
    }

    fn actor(self) -> Self {
        Self { names_actor: true, ..self }
    }

    /// Whether a token must be shown.
    pub fn is_closed(&self) -> bool {
        self.answers != Everybody
    }

    /// The request, with its number.
    pub fn request(&self, app: &TestApp, number: u64) -> reqwest::RequestBuilder {
        let (method, _) = self.route.split_once(' ').unwrap();
        let path = self.path.replace('#', &number.to_string());
        let request = app.http.request(method.to_uppercase().parse().unwrap(), app.url(&path));
        match &self.body {
            Some(body) => request.header("content-type", "application/json").body(body(number)),
            None => request,
        }
    }
}

const REMEDY: &str = r#"{"type":"receipt-create","root":"r-#","reason":"wrong","actor":"ann","changes":[{"entity":"receipts","id":"r-#","action":"upsert","payload":{"total":"1.00"}}]}"#;

/// A server with what rows ask for: an entry of the log in parts, the first, and a receipt.
async fn seeded() -> TestApp {
    let many: Vec<String> = (0..60).map(|n| upsert("items", &format!("i-{n}"), 0, r#"{"text":"one of many"}"#)).collect();
    let large = [TestGroup::of("large", 1, &many)];
    // It fits a request, and its entry does not.
    let request_bytes = envelope("till-0", "e0", &large).len() as u64 + 64;
    let schema = "version = 1\n[entities.receipts]\nfields.total = \"text\"\n[entities.items]\nfields.text = \"text\"\n";
    let schema = Schema::parse(schema).unwrap_or_else(|problems| panic!("{problems}"));
    let app = TestApp::with(|config| (config.limits.request_bytes, config.schema) = (request_bytes, Some(schema))).await;
    for groups in [large, [receipt("first", 2, "r")]] {
        assert_eq!(app.push_as("till-0", "e0", &groups).await.verdicts(), ["accepted"]);
    }
    app
}

/// A rejection with a number, which is open.
async fn seed_numbered(app: &TestApp, number: u64) {
    let again = receipt(&format!("bad-{number}"), number + 2, "r");
    assert_eq!(app.push_as("till-0", "e0", &[again]).await.verdicts(), ["rejected conflict"]);
}

pub fn rows() -> Vec<Row> {
    let push = |number: u64| {
        let group = receipt(&format!("g-{number}"), number, &format!("r-{number}"));
        envelope("till-1", "e1", &[group.actor("ann")])
    };
    let discard =
        r#"{"reason":"twice","actor":"ann","sealedAs":{"device":"till-1","epoch":"e1","deviceSeq":#,"actor":"ann"}}"#;
    vec![
        row("get /healthz", Everybody, "/healthz"),
        row("get /readyz", Everybody, "/readyz"),
        row("get /v1/openapi.json", Everybody, "/v1/openapi.json"),
        row("get /v1/spaces/{space}", TheSpace, "/v1/spaces/shop?device=till-1").device(),
        row("get /v1/spaces/{space}/schema", TheSpace, "/v1/spaces/shop/schema"),
        row("post /v1/spaces/{space}/push", TheSpace, "/v1/spaces/shop/push").body_of(push).device().actor(),
        row("post /v1/spaces/{space}/verdicts", TheSpace, "/v1/spaces/shop/verdicts").body(r#"{"ids":["first"]}"#),
        row("post /v1/spaces/{space}/groups/{id}/discard", TheSpace, "/v1/spaces/shop/groups/gone-#/discard")
            .body(discard)
            .device()
            .actor(),
        row(
            "put /v1/spaces/{space}/groups/{id}/parts/{part}",
            TheSpace,
            "/v1/spaces/shop/groups/up-#/parts/0?device=till-1",
        )
        .body(format!("[{}]", upsert("receipts", "r-8", 0, "{}")))
        .device(),
        row("get /v1/spaces/{space}/log", TheSpace, "/v1/spaces/shop/log"),
        row("get /v1/spaces/{space}/snapshot", TheSpace, "/v1/spaces/shop/snapshot"),
        row("get /v1/spaces/{space}/live", TheSpace, "/v1/spaces/shop/live"),
        row("get /v1/spaces/{space}/log/{seq}/parts/{part}", TheSpace, "/v1/spaces/shop/log/1/parts/0"),
        row("get /v1/spaces/{space}/flags", TheOffice, "/v1/spaces/shop/flags"),
        row("get /v1/spaces/{space}/rejections", TheOffice, "/v1/spaces/shop/rejections"),
        row("get /v1/spaces/{space}/rejections/{id}", TheOffice, "/v1/spaces/shop/rejections/bad-#"),
        row("post /v1/spaces/{space}/rejections/{id}/amend", TheOffice, "/v1/spaces/shop/rejections/bad-#/amend")
            .body(REMEDY)
            .actor(),
        row("post /v1/spaces/{space}/rejections/{id}/discard", TheOffice, "/v1/spaces/shop/rejections/bad-#/discard")
            .body(r#"{"reason":"twice","actor":"ann"}"#)
            .actor(),
        row("post /v1/spaces/{space}/rejections/{id}/compensate", TheOffice, "/v1/spaces/shop/rejections/bad-#/compensate")
            .body(REMEDY)
            .actor(),
    ]
}

/// Who asks, with which token, and the status and code that refuse it.
type Caller = (&'static str, Option<String>, Option<(u16, &'static str)>);

/// The callers, and for each the status that it must get; `None`: it must be let in.
fn callers(app: &TestApp, row: &Row) -> Vec<Caller> {
    let tokens = Tokens::open(&app.store).unwrap();
    let make = |space: &str, roles: &[&str], actor: Option<&str>, device: Option<&str>| {
        let new = NewToken {
            roles: roles.iter().map(|role| Role::new(*role).unwrap()).collect(),
            actor: actor.map(|actor| Actor::new(actor).unwrap()),
            device: device.map(|device| DeviceId::new(device).unwrap()),
            ..NewToken::new(SpaceId::new(space).unwrap())
        };
        tokens.create(new).unwrap()
    };
    let revoked = make(SPACE, &["admin"], None, None);
    tokens.revoke(&revoked.id).unwrap();
    let ended = NewToken { lifetime_ms: Some(0), ..NewToken::new(SpaceId::new(SPACE).unwrap()) };
    let ended = tokens.create(ended).unwrap();
    let unless_open = |refused| (row.answers != Everybody).then_some(refused);
    let (unauthenticated, forbidden) = (unless_open((401, "unauthenticated")), Some((403, "forbidden")));
    let without_role = forbidden.filter(|_| row.answers == TheOffice);
    let admin = |actor, device| Some(make(SPACE, &["admin"], actor, device).token);
    vec![
        ("nobody", None, unauthenticated),
        ("a bad token", Some("gbt_0000".into()), unauthenticated),
        ("a revoked token", Some(revoked.token), unauthenticated),
        ("an expired token", Some(ended.token), unauthenticated),
        ("another space's admin", Some(make("other", &["admin"], None, None).token), unless_open((404, "space_not_found"))),
        ("another device", admin(None, Some("till-2")), forbidden.filter(|_| row.names_device)),
        ("another person", admin(Some("bob"), None), forbidden.filter(|_| row.names_actor)),
        ("somebody without a role", Some(make(SPACE, &[], None, None).token), without_role),
        ("a cashier", Some(make(SPACE, &["cashier"], Some("ann"), Some("till-1")).token), without_role),
        ("the device", admin(None, Some("till-1")), None),
        ("the person", admin(Some("ann"), None), None),
        ("an admin", admin(None, None), None),
    ]
}

/// What comes back; of a stream that does not end, its beginning.
async fn answer_to(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let content_type = headers["content-type"].to_str().unwrap().to_owned();
    let text = if content_type == "text/event-stream" { String::new() } else { response.text().await.unwrap() };
    Answer { status, content_type, headers, text }
}

pub async fn documented(app: &TestApp) -> BTreeSet<String> {
    let document: Value = Answer::of(app.http.get(app.url("/v1/openapi.json"))).await.json();
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().keys().filter(|method| *method != "parameters");
        methods.map(|method| format!("{method} {path}")).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

#[tokio::test]
async fn every_documented_route_has_a_row() {
    let app = TestApp::start().await;
    let rows: BTreeSet<String> = rows().iter().map(|row| row.route.to_owned()).collect();
    assert_eq!(rows, documented(&app).await);
}

/// What was asked for came: with everything in it that the request wanted done.
#[track_caller]
fn assert_done(row: &Row, answer: &Answer, about: &str) {
    assert_eq!(answer.status, 200, "{about}");
    match row.route.rsplit(['/', ' ']).next().unwrap() {
        "push" => assert_eq!(answer.verdicts(), ["accepted"], "{about}"),
        "verdicts" => assert_eq!(answer.verdicts(), ["accepted"], "{about}"),
        "discard" if row.route.contains("groups") => assert_eq!(answer.json()["code"], "discarded", "{about}"),
        "amend" | "discard" | "compensate" => assert!(answer.json()["resolution"].is_object(), "{about}"),
        _ => {}
    }
}

#[tokio::test]
async fn every_route_does_what_it_is_asked_for_whom_it_should_and_for_nobody_else() {
    let app = seeded().await;
    let mut tried = 0;
    for row in rows() {
        let (_, template) = row.route.split_once(' ').unwrap();
        assert_eq!(row.path.split('?').next().unwrap().split('/').count(), template.split('/').count(), "{}", row.route);
        for (caller, token, refused) in callers(&app, &row) {
            tried += 1;
            if row.path.contains("bad-#") {
                seed_numbered(&app, tried).await;
            }
            let head = app.digest().head;
            let mut request = row.request(&app, tried);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = answer_to(request).await;
            let about = format!("{caller} at {}: {answer:?}", row.route);
            match refused {
                Some((status, code)) => {
                    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{about}");
                    assert_eq!(app.digest().head, head, "{about}");
                }
                None => assert_done(&row, &answer, &about),
            }
        }
    }
    assert_eq!(tried as usize, rows().len() * 12);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_has_a_stable_word() {
    let app = TestApp::start().await;
    let row = row("get /v1/spaces/{space}/log", TheSpace, "/v1/spaces/shop/log");
    let mut words = Vec::new();
    for (_, token, refused) in callers(&app, &row) {
        if refused.is_none_or(|(status, _)| status != 401) {
            continue;
        }
        let mut request = row.request(&app, 0);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        words.push(Answer::of(request).await.json()["reason"].as_str().unwrap().to_owned());
    }
    assert_eq!(words, ["missing", "unknown", "revoked", "expired"]);
}
