//! Every route of the OpenAPI document, asked by the back office of one shop for what is another shop's. A route without a case
//! here fails.
//!
//! Everything of the other shop has `secret` in its name or its payload. Who sees everything asks the same first, so that it is
//! known to be there to be told.

use crate::common::*;
use crate::rights::documented;
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, Role, Scope, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_core::scope::ScopeSet;
use gbsync_server::{NewToken, Tokens};
use std::collections::BTreeSet;
use std::time::Duration;

const SCHEMA: &str = r#"
version = 1
[entities.receipts]
scope = "storeId"
unique = [["no"]]
fields.storeId = { type = "text", required = true }
fields.no = "text"
fields.total = "text"
[entities.payments]
scope = "storeId"
fields.storeId = { type = "text", required = true }
fields.receiptId = { type = "text", references = "receipts" }
[entities.shelf]
scope = "storeId"
fields.storeId = { type = "text", required = true }
fields.quantity = { type = "integer", counter = true, min = 0, on_violation = "flag" }
"#;

/// What the shop in the north asks, and what must become of it.
struct Case {
    route: &'static str,
    path: String,
    body: Option<String>,
    north: North,
}

/// What the shop in the north is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum North {
    /// What everybody may know; who sees everything is told no secret either.
    Open,
    /// Its own part; who sees everything is told of the secrets.
    Part,
    /// Nothing of it: this status.
    Refused(u16),
    /// Of each group, this: a status and a code.
    Decided(&'static str),
}
use North::{Decided, Open, Part, Refused};

fn case(route: &'static str, path: &str, north: North) -> Case {
    Case { route, path: path.into(), body: None, north }
}

impl Case {
    fn body(self, body: impl Into<String>) -> Self {
        Self { body: Some(body.into()), ..self }
    }
}

/// The groups of the other shop, in the order in which they are pushed: a receipt, one that is refused and one that is flagged;
/// and one whose entry is in parts.
fn secrets() -> [Vec<TestGroup>; 2] {
    let record = || upsert("receipts", "secret-r", 0, r#"{"storeId":"south","no":"7","total":"secret-total"}"#);
    let shelf = upsert("shelf", "secret-shelf", 0, r#"{"storeId":"south","quantity":-1}"#);
    let many = |n: u64| upsert("receipts", &format!("secret-r{n}"), 0, r#"{"storeId":"south","total":"secret-of-many"}"#);
    let first = vec![
        TestGroup::of("secret-g1", 1, &[record()]),
        TestGroup::of("secret-bad", 2, &[record()]),
        TestGroup::of("secret-flagged", 3, &[shelf]),
    ];
    [first, vec![TestGroup::of("secret-large", 4, &(0..60).map(many).collect::<Vec<_>>())]]
}

const SECRETS: [&str; 9] = [
    "secret-r",
    "secret-total",
    "secret-shelf",
    "secret-of-many",
    "secret-g1",
    "secret-bad",
    "secret-flagged",
    "secret-large",
    "secret-up",
];

fn cases() -> Vec<Case> {
    let of_space = |route, rest: &str, north| case(route, &format!("/v1/spaces/{SPACE}{rest}"), north);
    let one = || [upsert("receipts", "n-stolen", 0, r#"{"storeId":"south"}"#)];
    let close = r#"{"reason":"mine now"}"#;
    let remedy = r#"{"type":"receipt-create","root":"n","reason":"mine now","changes":[{"entity":"receipts","id":"n","action":"upsert","payload":{"storeId":"north"}}]}"#;
    let push = |north, groups: &[TestGroup]| {
        of_space("post /v1/spaces/{space}/push", "/push", north).body(envelope("till-north", "e1", groups))
    };
    let scope = Decided("rejected scope_violation");
    let staged = staged(&one());
    let mut cases = vec![
        case("get /healthz", "/healthz", Open),
        case("get /readyz", "/readyz", Open),
        case("get /v1/openapi.json", "/v1/openapi.json", Open),
        of_space("get /v1/spaces/{space}", "", Open),
        of_space("get /v1/spaces/{space}", "?device=till-south&epoch=e1", Open),
        of_space("get /v1/spaces/{space}/schema", "/schema", Open),
        of_space("post /v1/spaces/{space}/verdicts", "/verdicts", Decided("unknown"))
            .body(r#"{"ids":["secret-g1","secret-bad","secret-flagged","secret-large"]}"#),
        of_space("get /v1/spaces/{space}/log", "/log", Part),
        of_space("get /v1/spaces/{space}/log", "/log?after=1&maxRecords=1", Part),
        of_space("get /v1/spaces/{space}/log", "/log?after=2&wait=1", Part),
        of_space("get /v1/spaces/{space}/snapshot", "/snapshot", Part),
        of_space("get /v1/spaces/{space}/live", "/live?after=0", Part),
        of_space("get /v1/spaces/{space}/log/{seq}/parts/{part}", "/log/3/parts/0", Refused(404)),
        of_space("get /v1/spaces/{space}/flags", "/flags", Part),
        of_space("get /v1/spaces/{space}/flags", "/flags?state=all", Part),
        of_space("get /v1/spaces/{space}/rejections", "/rejections", Part),
        of_space("get /v1/spaces/{space}/rejections/{id}", "/rejections/secret-bad", Refused(404)),
        // What is written goes to the other shop's records, or passes for its groups.
        push(scope, &[receipt_in("t1", 1, "n-new", "south")]),
        push(scope, &[receipt_in("t2", 2, "secret-r", "north")]),
        push(scope, &[TestGroup::of("t3", 3, &[patch("receipts", "secret-r", 1, r#"{"total":"0"}"#)])]),
        push(scope, &[TestGroup::of("t4", 4, &[delete("receipts", "secret-r", 1)])]),
        push(scope, &[TestGroup::of("t5", 5, &[increment("shelf", "secret-shelf", r#"{"quantity":5}"#)])]),
        push(
            Decided("rejected dangling_reference"),
            &[TestGroup::of("t6", 6, &[upsert("payments", "n-p", 0, r#"{"storeId":"north","receiptId":"secret-r"}"#)])],
        ),
        push(
            Decided("rejected duplicate_value"),
            &[TestGroup::of("t7", 7, &[upsert("receipts", "n-7", 0, r#"{"storeId":"north","no":"7"}"#)])],
        ),
        push(Decided("rejected group_id_reused"), &[receipt_in("secret-g1", 8, "n-8", "north")]),
        push(
            Decided("rejected invariant_violation"),
            &[receipt_in("t10", 10, "n-10", "north").with(r#""clears":["2.0"],"#)],
        ),
        push(Decided("rejected not_permitted"), &[receipt_in("t11", 11, "n-11", "north").replaces("secret-bad")]),
        push(
            Decided("rejected not_permitted"),
            &[receipt_in("t12", 12, "n-12", "north").replaces("t12-0").with(r#""family":"secret-bad","#)],
        ),
        of_space("put /v1/spaces/{space}/groups/{id}/parts/{part}", "/groups/t9/parts/0?device=till-north", Open)
            .body(format!("[{}]", one().join(","))),
        of_space("post /v1/spaces/{space}/push", "/push", scope).body(raw_envelope("till-north", "e1", &staged)),
        of_space("post /v1/spaces/{space}/groups/{id}/discard", "/groups/secret-bad/discard", Refused(403)).body(close),
        of_space("post /v1/spaces/{space}/groups/{id}/discard", "/groups/secret-flagged/discard", Refused(403)).body(close),
    ];
    for (verb, route) in [
        ("amend", "post /v1/spaces/{space}/rejections/{id}/amend"),
        ("discard", "post /v1/spaces/{space}/rejections/{id}/discard"),
        ("compensate", "post /v1/spaces/{space}/rejections/{id}/compensate"),
    ] {
        let body = if verb == "discard" { close } else { remedy };
        cases.push(of_space(route, &format!("/rejections/secret-bad/{verb}"), Refused(404)).body(body));
    }
    cases
}

fn receipt_in(id: &str, n: u64, record: &str, store: &str) -> TestGroup {
    TestGroup::of(id, n, &[upsert("receipts", record, 0, &format!(r#"{{"storeId":"{store}"}}"#))])
}

/// Group t9 with these changes, which are staged.
fn staged(changes: &[String]) -> String {
    let group = TestGroup::of("t9", 9, changes);
    let digest = Digest::of(group.changes.as_bytes()).to_string();
    let changes = format!(r#""changes":{}"#, group.changes);
    TestGroup { digest: Some(digest), ..group }.json().replace(&changes, r#""parts":1"#)
}

fn token_for(app: &TestApp, scopes: ScopeSet, actor: &str) -> String {
    let (roles, actor) = (vec![Role::new("admin").unwrap()], Some(Actor::new(actor).unwrap()));
    let new = NewToken { scopes, roles, actor, ..NewToken::new(SpaceId::new(SPACE).unwrap()) };
    Tokens::open(&app.store).unwrap().create(new).unwrap().token
}

/// What comes back; of a stream, what comes within a moment.
async fn answer_to(app: &TestApp, case: &Case, token: &str) -> Answer {
    let (method, _) = case.route.split_once(' ').unwrap();
    let mut request = app.http.request(method.to_uppercase().parse().unwrap(), app.url(&case.path)).bearer_auth(token);
    if let Some(body) = &case.body {
        request = request.header("content-type", "application/json").body(body.clone());
    }
    let mut response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let content_type = headers["content-type"].to_str().unwrap().to_owned();
    let mut bytes = Vec::new();
    let moment = Duration::from_millis(if content_type == "text/event-stream" { 700 } else { 20_000 });
    let _ = tokio::time::timeout(moment, async {
        while let Some(chunk) = response.chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
    })
    .await;
    Answer { status, content_type, headers, text: String::from_utf8(bytes).unwrap() }
}

/// A space with the secrets in the south, and one receipt in the north.
async fn divided() -> TestApp {
    let [first, large] = secrets();
    // It fits a request, and its entry does not.
    let request_bytes = envelope("till-south", "e1", &large).len() as u64 + 64;
    let app = TestApp::with(|config| {
        config.schema = Some(Schema::parse(SCHEMA).unwrap_or_else(|problems| panic!("{problems}")));
        config.limits.request_bytes = request_bytes;
    })
    .await;
    let pushed = app.push_as("till-south", "e1", &first).await;
    assert_eq!(pushed.verdicts(), ["accepted", "rejected conflict", "accepted"]);
    assert!(pushed.result(2)["flags"].is_array(), "{pushed:?}");
    assert_eq!(app.push_as("till-south", "e1", &large).await.verdicts(), ["accepted"]);
    let part = app.http.put(app.space_url("/groups/secret-up/parts/0?device=till-south")).bearer_auth(&app.token);
    let part = part.header("content-type", "application/json");
    let body = format!("[{}]", upsert("receipts", "secret-r", 1, r#"{"storeId":"south","total":"secret-total"}"#));
    assert_eq!(Answer::of(part.body(body)).await.status, 200);
    let own = app.push_as("till-0", "e1", &[receipt_in("own-g", 1, "own-r", "north")]).await;
    assert_eq!(own.verdicts(), ["accepted"]);
    app
}

#[tokio::test]
async fn no_route_tells_one_shop_of_another_or_lets_it_write_there() {
    let app = divided().await;
    let cases = cases();
    let tried: BTreeSet<String> = cases.iter().map(|case| case.route.to_owned()).collect();
    assert_eq!(tried, documented(&app).await);
    let all = token_for(&app, ScopeSet::All, "olga");
    let north = token_for(&app, ScopeSet::These([Scope::new("north").unwrap()].into()), "ann");

    let reads = |case: &&Case| case.route.starts_with("get") || case.route.ends_with("verdicts");
    for case in cases.iter().filter(reads) {
        let answer = answer_to(&app, case, &all).await;
        let word = if case.route.ends_with("verdicts") { "accepted" } else { "secret" };
        let told = answer.text.contains(word);
        assert_eq!((answer.status, told), (200, case.north != Open), "who sees everything: {answer:?}");
    }
    let before = app.digest();
    for case in &cases {
        let answer = answer_to(&app, case, &north).await;
        let about = format!("{} {}: {answer:?}", case.route, case.path);
        let asked = format!("{} {}", case.path, case.body.as_deref().unwrap_or_default());
        for secret in SECRETS.iter().filter(|secret| !asked.contains(*secret)) {
            assert!(!answer.text.contains(secret), "{secret}: {about}");
        }
        match case.north {
            Open => assert_eq!(answer.status, 200, "{about}"),
            Part => {
                assert_eq!(answer.status, 200, "{about}");
                // A page of one record may have passed over everything.
                let is_of_records = ["/log", "/snapshot", "/live"].iter().any(|end| case.route.ends_with(end));
                let is_whole = is_of_records && !case.path.contains("maxRecords");
                assert!(!is_whole || answer.text.contains("own-r"), "{about}");
            }
            Refused(status) => assert_eq!(answer.status, status, "{about}"),
            Decided(verdict) => assert!(answer.verdicts().iter().all(|decided| decided == verdict), "{about}"),
        }
        assert_eq!(app.digest().digest, before.digest, "{about}");
    }
    // What is the other shop's to decide is undecided still.
    let look = |rest: &str| Answer::of(app.http.get(app.space_url(rest)).bearer_auth(&all));
    assert_eq!(look("/rejections/secret-bad").await.json()["state"], "open");
    assert_eq!(look("/flags").await.json()["flags"].as_array().unwrap().len(), 1);
    let south = token_for(&app, ScopeSet::These([Scope::new("south").unwrap()].into()), "sue");
    let clearing = receipt_in("s-1", 5, "s", "south").with(r#""clears":["2.0"],"#);
    let request = app.http.post(app.space_url("/push")).bearer_auth(south).header("content-type", "application/json");
    let cleared = Answer::of(request.body(envelope("till-south", "e1", &[clearing]))).await;
    assert_eq!(cleared.verdicts(), ["accepted"]);
    assert_eq!(look("/flags").await.json()["flags"].as_array().unwrap().len(), 0);
    let staged = "SELECT count(*) FROM upload_parts WHERE group_id = 'secret-up'";
    assert_eq!(app.stored(staged), ["1"]);
}

#[tokio::test]
async fn a_rejected_group_is_replaced_by_whoever_made_it_or_sees_as_much() {
    let app = divided().await;
    let north = || ScopeSet::These([Scope::new("north").unwrap()].into());
    let push = async |device: &str, actor: &str, scopes: ScopeSet, group: TestGroup| {
        let request = app.http.post(app.space_url("/push")).bearer_auth(token_for(&app, scopes, actor));
        let body = envelope(device, "e1", &[group]);
        Answer::of(request.header("content-type", "application/json").body(body)).await.verdicts().remove(0)
    };
    let both = ScopeSet::These(["north", "south"].map(|scope| Scope::new(scope).unwrap()).into());
    for n in [1, 2, 3, 4] {
        let bad = TestGroup::of(&format!("bad-{n}"), n, &[upsert("receipts", "secret-r", 0, r#"{"storeId":"south"}"#)]);
        assert_eq!(push("till-1", "zoe", both.clone(), bad).await, "rejected conflict");
    }
    let instead = |n: u64| receipt_in(&format!("instead-{n}"), n, &format!("i-{n}"), "north").replaces(&format!("bad-{n}"));
    assert_eq!(push("till-2", "ann", north(), instead(1)).await, "rejected not_permitted");
    assert_eq!(
        push("till-1", "ann", north(), TestGroup { device_seq: 11, ..instead(2) }).await,
        "accepted",
        "the device's own"
    );
    assert_eq!(push("till-2", "zoe", north(), instead(3)).await, "accepted", "the person's own");
    assert_eq!(push("till-2", "ann", both, instead(4)).await, "accepted", "somebody who sees as much");
    let all = token_for(&app, ScopeSet::All, "olga");
    let looked = async |id: &str| {
        Answer::of(app.http.get(app.space_url(&format!("/rejections/{id}"))).bearer_auth(&all)).await.json()
    };
    assert_eq!(looked("bad-1").await["state"], "open");
    assert_eq!(looked("instead-1").await["replaces"], serde_json::Value::Null);
    assert_eq!(looked("bad-2").await["resolution"]["as"], "amended");
}
