//! Scopes: who sees and writes which part of a space, over every route.

use crate::common::*;
use gbsync_core::id::{Role, Scope, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_core::scope::ScopeSet;
use gbsync_core::wire::{LiveEvent, LiveReader};
use gbsync_server::{NewToken, Tokens};
use serde_json::Value;
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
[entities.products]
fields.name = "text"
fields.sold = { type = "integer", counter = true }
[operations.transfer]
scope = "closure"
"#;

/// A shop that sees the records of some scopes.
struct Shop<'a> {
    app: &'a TestApp,
    token: String,
    device: String,
}

impl<'a> Shop<'a> {
    fn with_roles(app: &'a TestApp, scopes: &[&str], roles: &[&str]) -> Self {
        let scopes = match scopes {
            ["*"] => ScopeSet::All,
            names => ScopeSet::These(names.iter().map(|name| Scope::new(*name).unwrap()).collect()),
        };
        let device = format!("till-{}", scopes.to_json().unwrap_or_default().replace(['[', ']', '"', ','], "-"));
        let roles = roles.iter().map(|role| Role::new(*role).unwrap()).collect();
        let actor = Some(gbsync_core::id::Actor::new("ann").unwrap());
        let new = NewToken { scopes, roles, actor, ..NewToken::new(SpaceId::new(SPACE).unwrap()) };
        Self { app, token: Tokens::open(&app.store).unwrap().create(new).unwrap().token, device }
    }

    fn of(app: &'a TestApp, scopes: &[&str]) -> Self {
        Self::with_roles(app, scopes, &[])
    }

    async fn get(&self, rest: &str) -> Answer {
        Answer::of(self.app.http.get(self.app.space_url(rest)).bearer_auth(&self.token)).await
    }

    async fn post(&self, rest: &str, body: String) -> Answer {
        let request = self.app.http.post(self.app.space_url(rest)).bearer_auth(&self.token);
        Answer::of(request.header("content-type", "application/json").body(body)).await
    }

    async fn push(&self, groups: &[TestGroup]) -> Answer {
        self.post("/push", envelope(&self.device, "e1", groups)).await
    }

    /// What it sees of the log: `seq: action entity/id, …`, and where the page ends.
    async fn log(&self, after: u64) -> (Vec<String>, u64, String) {
        let page = self.get(&format!("/log?after={after}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let change =
            |change: &Value| format!("{} {}/{}", text(&change["action"]), text(&change["entity"]), text(&change["id"]));
        let entry = |entry: &Value| {
            let changes: Vec<String> = entry["changes"].as_array().unwrap().iter().map(change).collect();
            assert_eq!(entry["changeCount"], changes.len(), "{entry}");
            format!("{}: {}", entry["seq"], changes.join(", "))
        };
        let entries = page["groups"].as_array().unwrap().iter().map(entry).collect();
        (entries, page["next"].as_u64().unwrap(), text(&page["chain"]))
    }
}

async fn app() -> TestApp {
    TestApp::with_schema(SCHEMA, &[]).await
}

fn receipt_in(id: &str, n: u64, record: &str, store: &str) -> TestGroup {
    TestGroup::of(
        id,
        n,
        &[upsert("receipts", record, 0, &format!(r#"{{"storeId":"{store}","total":"secret-of-{store}"}}"#))],
    )
}

#[tokio::test]
async fn two_shops_see_their_own_records_and_the_shared_ones_and_nothing_else_in_any_route() {
    let app = app().await;
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    let product = upsert("products", "p1", 0, r#"{"name":"Roll"}"#);
    assert_eq!(north.push(&[TestGroup::of("shared", 1, &[product])]).await.verdicts(), ["accepted"]);
    assert_eq!(north.push(&[receipt_in("n1", 2, "rn", "north")]).await.verdicts(), ["accepted"]);
    assert_eq!(south.push(&[receipt_in("s1", 1, "rs", "south")]).await.verdicts(), ["accepted"]);
    let sale = [
        upsert("receipts", "rn2", 0, r#"{"storeId":"north"}"#),
        upsert("payments", "pn2", 0, r#"{"storeId":"north","receiptId":"rn2"}"#),
        increment("products", "p1", r#"{"sold":1}"#),
    ];
    assert_eq!(north.push(&[TestGroup::of("n2", 3, &sale)]).await.verdicts(), ["accepted"]);
    let (all, head, chain) = Shop::of(&app, &["*"]).log(0).await;
    assert_eq!(all.len(), 4);
    let expected = ["1: upsert products/p1", "2: upsert receipts/rn"];
    let (seen, next, seen_chain) = north.log(0).await;
    let whole = "4: upsert receipts/rn2, upsert payments/pn2, upsert products/p1";
    assert_eq!(
        (seen, next, &seen_chain),
        ([&expected[..], &[whole]].concat().iter().map(|s| (*s).to_owned()).collect(), head, &chain)
    );
    let (seen, next, seen_chain) = south.log(0).await;
    assert_eq!(seen, ["1: upsert products/p1", "3: upsert receipts/rs", "4: upsert products/p1"]);
    assert_eq!((next, seen_chain), (head, chain), "what is not seen is passed over, and the chain is that of the whole log");
    for page in ["/log", "/log?maxRecords=1&after=1", "/log?after=3"] {
        let text = south.get(page).await.text;
        assert!(!text.contains("secret-of-north") && !text.contains("rn"), "{text}");
    }
    // What is not the asker's to know of is not known.
    let ask = r#"{"ids":["n1","s1","n2","shared"]}"#;
    let verdicts = south.post("/verdicts", ask.into()).await;
    assert_eq!(verdicts.verdicts(), ["unknown", "accepted", "accepted", "accepted"]);
    let (shake_north, shake_south) = (north.get("").await.json(), south.get("").await.json());
    assert_eq!(shake_north["scopes"], serde_json::json!(["north"]));
    assert_ne!(shake_north["scopeSet"], shake_south["scopeSet"]);
}

#[tokio::test]
async fn nobody_writes_beyond_their_scopes_and_no_refusal_shows_what_they_do_not_see() {
    let app = app().await;
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    let no = upsert("receipts", "rs", 0, r#"{"storeId":"south","no":"7","total":"secret"}"#);
    assert_eq!(south.push(&[TestGroup::of("s1", 1, &[no])]).await.verdicts(), ["accepted"]);
    let tries = [
        receipt_in("t1", 1, "rx", "south"),
        receipt_in("t2", 2, "rs", "north"),
        TestGroup::of("t3", 3, &[patch("receipts", "rs", 1, r#"{"total":"0"}"#)]),
        TestGroup::of("t4", 4, &[delete("receipts", "rs", 1)]),
        TestGroup::of("t5", 5, &[upsert("payments", "px", 0, r#"{"storeId":"north","receiptId":"rs"}"#)]),
        TestGroup::of("t6", 6, &[upsert("receipts", "ry", 0, r#"{"storeId":"north","no":"7"}"#)]),
        TestGroup::of("t7", 7, &[upsert("receipts", "rz", 0, r#"{"storeId":""}"#)]),
    ];
    let answer = north.push(&tries).await;
    let scope = "rejected scope_violation";
    assert_eq!(
        answer.verdicts(),
        [scope, scope, scope, scope, "rejected dangling_reference", "rejected duplicate_value", scope]
    );
    assert!(!answer.text.contains("secret") && !answer.text.contains("\"current\""), "{}", answer.text);
    // Whose value it is that is taken is not told either; to the shop itself it is.
    assert!(!answer.result(5)["message"].as_str().unwrap().contains("rs"), "{}", answer.text);
    let own = south.push(&[TestGroup::of("s2", 2, &[upsert("receipts", "rt", 0, r#"{"storeId":"south","no":"7"}"#)])]).await;
    assert!(own.result(0)["message"].as_str().unwrap().contains("receipts:rs"), "{}", own.text);
    // The answer is the same when it is asked again, and for whoever else may ask.
    let again = north.push(&tries[..3]).await;
    assert_eq!(again.verdicts(), [scope, scope, scope]);
    assert!(!again.text.contains("secret"), "{}", again.text);
    assert_eq!(app.digest().records, 1);
}

#[tokio::test]
async fn the_record_beside_a_conflict_is_shown_to_those_who_see_it_and_to_nobody_else() {
    let app = app().await;
    let (both, north) = (Shop::of(&app, &["north", "south"]), Shop::with_roles(&app, &["north"], &["admin"]));
    let head_office = Shop::with_roles(&app, &["*"], &["admin"]);
    both.push(&[receipt_in("b1", 1, "r1", "south")]).await;
    let answer = both.push(&[receipt_in("b2", 2, "r1", "south")]).await;
    assert_eq!(answer.verdicts(), ["rejected conflict"]);
    let current = &answer.result(0)["changes"][0]["current"];
    assert_eq!((&current["payload"]["total"], current.get("scopes")), (&"secret-of-south".into(), None));
    // The same group again, by somebody whose scopes are fewer now.
    let again = north.post("/push", envelope(&both.device, "e1", &[receipt_in("b2", 2, "r1", "south")])).await;
    assert_eq!(again.verdicts(), ["rejected conflict"]);
    assert!(!again.text.contains("secret-of-south"), "{}", again.text);
    assert_eq!(north.post("/verdicts", r#"{"ids":["b1","b2"]}"#.into()).await.verdicts(), ["unknown", "unknown"]);
    // The back office of one shop sees the refusals of that shop.
    north.push(&[receipt_in("n1", 1, "rn", "north"), receipt_in("n2", 2, "rn", "north")]).await;
    let ids = |list: &Answer| -> Vec<String> {
        let list = list.json()["rejections"].as_array().unwrap().clone();
        list.iter().map(|rejected| rejected["syncGroupId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&north.get("/rejections").await), ["n2"]);
    assert_eq!(ids(&head_office.get("/rejections").await), ["b2", "n2"]);
    north.get("/rejections/b2").await.assert_problem(404, "not_found");
    let close = || r#"{"reason":"x"}"#.to_owned();
    north.post("/rejections/b2/discard", close()).await.assert_problem(404, "not_found");
    north.post("/groups/b2/discard", close()).await.assert_problem(403, "forbidden");
    let beyond =
        r#"{"reason":"x","changes":[{"entity":"receipts","id":"rn","action":"patch","payload":{"storeId":"south"}}]}"#;
    let refused = north.post("/rejections/n2/amend", beyond.into()).await.json();
    assert_eq!(refused["result"]["code"], "scope_violation", "{refused}");
    assert_eq!(north.post("/rejections/n2/discard", close()).await.status, 200);
    // Its closing is told to the shop and to who sees everything, and to no other shop.
    let closing = app.get("/log").await.json()["head"].as_u64().unwrap();
    let heard = |entries: &[String]| entries.iter().any(|entry| entry.starts_with(&format!("{closing}:")));
    assert!(heard(&north.log(0).await.0) && heard(&head_office.log(0).await.0));
    assert!(!heard(&Shop::of(&app, &["south"]).log(0).await.0));
}

#[tokio::test]
async fn a_record_that_moves_leaves_one_shop_and_arrives_whole_in_the_other() {
    let app = app().await;
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    let office = Shop::of(&app, &["north", "south"]);
    north.push(&[receipt_in("n1", 1, "r1", "north")]).await;
    let to_south = |id: &str, n| TestGroup::of(id, n, &[patch("receipts", "r1", 1, r#"{"storeId":"south"}"#)]);
    assert_eq!(north.push(&[to_south("n2", 2)]).await.verdicts(), ["rejected scope_violation"]);
    assert_eq!(office.push(&[to_south("o1", 1)]).await.verdicts(), ["accepted"]);
    assert_eq!(north.log(1).await.0, ["2: leave receipts/r1"]);
    let arrived = south.get("/log?after=1").await.json()["groups"][0]["changes"][0].clone();
    assert_eq!((&arrived["action"], &arrived["payload"]["total"]), (&"upsert".into(), &"secret-of-north".into()));
    assert_eq!(office.log(1).await.0, ["2: upsert receipts/r1"]);
    // From now on it is the other shop's.
    assert_eq!(south.push(&[TestGroup::of("s1", 1, &[delete("receipts", "r1", 2)])]).await.verdicts(), ["accepted"]);
    assert_eq!(north.log(2).await.0, [""; 0]);
    assert_eq!(south.log(2).await.0, ["3: delete receipts/r1"]);
}

#[tokio::test]
async fn a_group_lies_in_one_scope_unless_its_operation_brings_what_it_refers_to_along() {
    let app = app().await;
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    let office = Shop::of(&app, &["north", "south"]);
    let both = [
        upsert("receipts", "rn", 0, r#"{"storeId":"north"}"#),
        upsert("payments", "ps", 0, r#"{"storeId":"south","receiptId":"rn"}"#),
    ];
    let answer = office.push(&[TestGroup::of("o1", 1, &both)]).await;
    assert_eq!(answer.result(0)["rule"], "receipt-create.scope", "{answer:?}");
    // One group after the other would leave a payment without its receipt in the south.
    office.push(&[TestGroup::of("o2", 2, &both[..1])]).await;
    let alone = office.push(&[TestGroup::of("o3", 3, &both[1..])]).await;
    assert_eq!(alone.verdicts(), ["rejected scope_violation"]);
    let closure = TestGroup::of("o4", 4, &both[1..]).typed(Some("transfer"));
    assert_eq!(office.push(&[closure]).await.verdicts(), ["accepted"]);
    assert_eq!(south.log(0).await.0, ["2: upsert payments/ps, upsert receipts/rn"]);
    assert_eq!(north.log(0).await.0, ["1: upsert receipts/rn", "2: upsert receipts/rn"]);
    let came = south.get("/log").await.json()["groups"][0]["changes"][1].clone();
    assert_eq!((&came["cause"], &came["editVersion"], &came["version"]), (&"closure".into(), &1.into(), &2.into()));
    // It stays in sight, and who writes it is who may write where it lies.
    let edit = |id: &str, n| TestGroup::of(id, n, &[patch("receipts", "rn", 1, r#"{"total":"2"}"#)]);
    assert_eq!(south.push(&[edit("s1", 1)]).await.verdicts(), ["rejected scope_violation"]);
    assert_eq!(north.push(&[edit("n1", 1)]).await.verdicts(), ["accepted"]);
    assert_eq!(south.log(2).await.0, ["3: upsert receipts/rn"]);
}

#[tokio::test]
async fn a_receipt_does_not_move_without_its_payments() {
    let app = app().await;
    let office = Shop::of(&app, &["north", "south"]);
    let sale = [
        upsert("receipts", "r", 0, r#"{"storeId":"north"}"#),
        upsert("payments", "p", 0, r#"{"storeId":"north","receiptId":"r"}"#),
    ];
    office.push(&[TestGroup::of("o1", 1, &sale)]).await;
    let receipt = patch("receipts", "r", 1, r#"{"storeId":"south"}"#);
    let payment = patch("payments", "p", 1, r#"{"storeId":"south"}"#);
    assert_eq!(
        office.push(&[TestGroup::of("o2", 2, std::slice::from_ref(&receipt))]).await.verdicts(),
        ["rejected scope_violation"]
    );
    assert_eq!(
        office.push(&[TestGroup::of("o3", 3, std::slice::from_ref(&payment))]).await.verdicts(),
        ["rejected scope_violation"]
    );
    // Where it may, the receipt stays in sight of the payment that it leaves behind.
    let closure = TestGroup::of("o4", 4, &[receipt]).typed(Some("transfer"));
    assert_eq!(office.push(&[closure]).await.verdicts(), ["accepted"]);
    assert_eq!(Shop::of(&app, &["north"]).log(1).await.0, ["2: upsert receipts/r"]);
    assert_eq!(office.push(&[TestGroup::of("o5", 5, &[payment])]).await.verdicts(), ["accepted"]);
    assert_eq!(Shop::of(&app, &["north"]).log(2).await.0, ["3: leave payments/p"]);
}

#[tokio::test]
async fn a_device_with_another_set_of_scopes_is_told_to_begin_again() {
    let app = app().await;
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    north.push(&[receipt_in("n1", 1, "rn", "north")]).await;
    let name = north.get("").await.json()["scopeSet"].as_str().unwrap().to_owned();
    for rest in ["/log", "/live", "/log/1/parts/0"] {
        let asked = format!("{rest}?scopeSet={name}");
        assert_ne!(north.app.http.get(app.space_url(&asked)).bearer_auth(&north.token).send().await.unwrap().status(), 410);
        for answer in [south.get(&asked).await, app.get(&asked).await, north.get(&format!("{rest}?scopeSet=all")).await] {
            answer.assert_problem(410, "resync_required");
            assert_eq!(answer.json()["reason"], "scope_changed");
        }
    }
    assert_eq!(app.get("").await.json()["scopeSet"], "all");
    assert_eq!(app.get("/log?scopeSet=all").await.status, 200);
}

#[tokio::test]
async fn the_stream_tells_each_shop_its_own_part() {
    let app = app().await;
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    let mut ears = Vec::new();
    for shop in [&north, &south, &north] {
        let request = app.http.get(app.space_url("/live")).bearer_auth(&shop.token);
        ears.push((request.send().await.unwrap(), LiveReader::new(1 << 20), Vec::new()));
    }
    for n in 1..=3 {
        north.push(&[receipt_in(&format!("n{n}"), n, &format!("rn{n}"), "north")]).await;
        south.push(&[receipt_in(&format!("s{n}"), n, &format!("rs{n}"), "south")]).await;
    }
    for (response, reader, seen) in &mut ears {
        let mut at = 0;
        while at < 6 {
            match reader.next().unwrap() {
                Some(LiveEvent::Page(page)) => {
                    at = page.page.next.0;
                    let changes = page.page.entries.iter().flat_map(|entry| &entry.group.as_ref().unwrap().changes);
                    seen.extend(changes.map(|change| change.key.id.as_str().to_owned()));
                }
                Some(LiveEvent::End(reason)) => panic!("{reason:?}"),
                None => {
                    let piece = tokio::time::timeout(Duration::from_secs(20), response.chunk()).await.expect("it is alive");
                    let piece = piece.unwrap().unwrap();
                    assert!(seen.iter().all(|id: &String| !id.contains("secret")));
                    reader.push(&piece);
                }
            }
        }
    }
    let seen: Vec<String> = ears.iter().map(|(.., seen)| seen.join(" ")).collect();
    assert_eq!(seen, ["rn1 rn2 rn3", "rs1 rs2 rs3", "rn1 rn2 rn3"]);
}

#[tokio::test]
async fn a_snapshot_holds_what_is_seen_and_is_never_given_to_who_sees_something_else() {
    let app = app().await;
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    north.push(&[receipt_in("n1", 1, "rn", "north")]).await;
    south.push(&[receipt_in("s1", 1, "rs", "south")]).await;
    let product = upsert("products", "p1", 0, r#"{"name":"Roll"}"#);
    north.push(&[TestGroup::of("n2", 2, &[product])]).await;
    let ids = |answer: &Answer| -> Vec<String> {
        assert_eq!(answer.status, 200, "{answer:?}");
        let lines = answer.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter_map(|line| Some(line["id"].as_str()?.to_owned())).collect()
    };
    let snapshot = |token: &str| app.http.get(app.space_url("/snapshot")).bearer_auth(token);
    let of_north = Answer::of(snapshot(&north.token)).await;
    assert_eq!(ids(&of_north), ["p1", "rn"]);
    assert_eq!(ids(&south.get("/snapshot").await), ["p1", "rs"]);
    assert_eq!(ids(&Shop::of(&app, &["north", "south"]).get("/snapshot").await), ["p1", "rn", "rs"]);
    assert_eq!(ids(&app.get("/snapshot").await), ["p1", "rn", "rs"]);
    assert_eq!(ids(&Shop::of(&app, &["north"]).get("/snapshot").await), ["p1", "rn"], "another token that sees the same");
    // Who asks to go on with another one's file is given their own from its beginning.
    let etag = of_north.headers["etag"].clone();
    let resumed = Answer::of(snapshot(&south.token).header("if-range", etag).header("range", "bytes=5-")).await;
    assert_eq!(ids(&resumed), ["p1", "rs"]);
    let name = north.get("").await.json()["scopeSet"].as_str().unwrap().to_owned();
    south.get(&format!("/snapshot?scopeSet={name}")).await.assert_problem(410, "resync_required");
}

#[tokio::test]
async fn a_large_group_is_seen_in_parts_as_it_would_be_whole() {
    let filler = "x".repeat(200);
    let mut changes: Vec<String> = (0..110)
        .map(|n| upsert("receipts", &format!("r{n:03}"), 0, &format!(r#"{{"storeId":"north","total":"{filler}"}}"#)))
        .collect();
    changes.push(upsert("products", "p1", 0, r#"{"name":"Roll"}"#));
    let group = TestGroup::of("large", 1, &changes);
    // It fits a request, and its entry does not.
    let request_bytes = envelope("till-north", "e1", std::slice::from_ref(&group)).len() as u64 + 64;
    let app = TestApp::with(|config| {
        config.schema = Some(Schema::parse(SCHEMA).unwrap());
        config.limits.request_bytes = request_bytes;
    })
    .await;
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    let pushed = north.push(&[group]).await;
    assert_eq!(pushed.verdicts(), ["accepted"], "{pushed:?}");
    let parts_of = async |shop: &Shop<'_>| {
        let entry = shop.get("/log").await.json()["groups"][0].clone();
        let (mut changes, count) = (Vec::new(), entry["changeCount"].as_u64().unwrap());
        for part in 0..entry["parts"].as_u64().unwrap_or_else(|| panic!("{entry}")) {
            let body = shop.get(&format!("/log/1/parts/{part}")).await;
            assert_eq!(body.status, 200, "{body:?}");
            changes.extend(body.json().as_array().unwrap().clone());
        }
        assert_eq!(changes.len() as u64, count);
        changes
    };
    assert_eq!(parts_of(&north).await.len(), 111);
    let seen = parts_of(&south).await;
    assert_eq!((seen.len(), seen[0]["id"].as_str()), (1, Some("p1")));
}

#[tokio::test]
async fn a_space_that_is_divided_later_shows_each_shop_its_part_and_nothing_of_its_history() {
    let undivided = SCHEMA.replace("scope = \"storeId\"\n", "").replace("[operations.transfer]\nscope = \"closure\"\n", "");
    let mut app = TestApp::with_schema(&undivided, &[]).await;
    let everything = Shop::of(&app, &["*"]);
    let groups = [receipt_in("g1", 1, "rn", "north"), receipt_in("g2", 2, "rs", "south")];
    assert_eq!(everything.push(&groups).await.verdicts(), ["accepted", "accepted"]);
    let product = upsert("products", "p1", 0, r#"{"name":"Roll"}"#);
    everything.push(&[TestGroup::of("g3", 3, &[product, upsert("receipts", "rn2", 0, r#"{"storeId":"north"}"#)])]).await;
    let before = Shop::of(&app, &["north"]).get("").await.json()["scopeSet"].clone();
    let divided = Schema::parse(&SCHEMA.replace("version = 1", "version = 2")).unwrap();
    app.restart_with(|config| config.schema = Some(divided)).await.unwrap();
    let (north, south) = (Shop::of(&app, &["north"]), Shop::of(&app, &["south"]));
    assert_ne!(north.get("").await.json()["scopeSet"], before, "a device with the undivided space begins again");
    assert_eq!(north.log(0).await.0, ["3: upsert products/p1", "4: upsert receipts/rn, upsert receipts/rn2"]);
    assert_eq!(south.log(0).await.0, ["3: upsert products/p1", "4: upsert receipts/rs"]);
    assert!(!south.get("/log").await.text.contains("secret-of-north"));
    let edit = TestGroup::of("s1", 1, &[patch("receipts", "rn", 1, r#"{"total":"0"}"#)]);
    assert_eq!(south.push(&[edit]).await.verdicts(), ["rejected scope_violation"]);
}
