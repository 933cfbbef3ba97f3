//! Closing rejections: the back office and devices, the first wins, and everything is accounted for.

use crate::common::{Answer, SPACE, TestApp, TestGroup, patch, receipt, token, upsert};
use gbsync_core::id::{Actor, Role, SpaceId};
use gbsync_server::{NewToken, Tokens};
use serde_json::Value;

/// A token of the back office.
fn admin(app: &TestApp, actor: Option<&str>) -> String {
    let new = NewToken {
        roles: vec![Role::new("admin").unwrap()],
        actor: actor.map(|actor| Actor::new(actor).unwrap()),
        ..NewToken::new(SpaceId::new(SPACE).unwrap())
    };
    Tokens::open(&app.store).unwrap().create(new).unwrap().token
}

async fn as_admin(app: &TestApp, token: &str, rest: &str, body: &str) -> Answer {
    let request = app.http.post(app.space_url(rest)).bearer_auth(token).header("content-type", "application/json");
    Answer::of(request.body(body.to_owned())).await
}

async fn look(app: &TestApp, token: &str, rest: &str) -> Value {
    let answer = Answer::of(app.http.get(app.space_url(rest)).bearer_auth(token)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn changes(payload: &str) -> String {
    format!(r#"[{{"entity":"receipts","id":"r1","action":"upsert","payload":{payload}}}]"#)
}

fn amendment(payload: &str, reason: &str) -> String {
    format!(r#"{{"changes":{},"reason":"{reason}"}}"#, changes(payload))
}

/// `g1` made receipt `r1`; `bad` made it too and was refused.
async fn with_rejection() -> (TestApp, String) {
    let app = TestApp::start().await;
    assert_eq!(app.push(&[receipt("g1", 1, "r1"), receipt("bad", 2, "r1")]).await.verdicts()[1], "rejected conflict");
    let admin = admin(&app, Some("ann"));
    (app, admin)
}

#[tokio::test]
async fn a_rejection_is_kept_with_its_payload_and_the_reason_of_each_change() {
    let (app, admin) = with_rejection().await;
    app.push(&[TestGroup::of("worse", 3, &[patch("notes", "n1", 0, "{}")]).actor("bob")]).await;
    let list = look(&app, &admin, "/rejections").await;
    let ids: Vec<&str> = list["rejections"].as_array().unwrap().iter().map(|r| r["syncGroupId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["bad", "worse"]);
    let first = &list["rejections"][0];
    assert_eq!((first["state"].as_str(), first["code"].as_str()), (Some("open"), Some("conflict")));
    assert_eq!((first["device"].as_str(), first["deviceSeq"].as_u64()), (Some("till-1"), Some(2)));
    assert!(first.get("changes").is_none());
    let page = look(&app, &admin, "/rejections?after=bad&limit=1").await;
    assert_eq!(page["rejections"][0]["actor"], "bob");
    let one = look(&app, &admin, "/rejections/bad").await;
    assert_eq!(one["changes"][0]["payload"]["total"], "1.00");
    assert_eq!(one["result"]["changes"][0]["current"]["version"], 1);
    assert_eq!(look(&app, &admin, "/rejections?state=closed").await["rejections"], serde_json::json!([]));
    Answer::of(app.http.get(app.space_url("/rejections/g1")).bearer_auth(&admin)).await.assert_problem(404, "not_found");
    for rest in ["/rejections", "/rejections/bad"] {
        app.get(rest).await.assert_problem(403, "forbidden");
    }
    app.post("/rejections/bad/discard", r#"{"reason":"x"}"#).await.assert_problem(403, "forbidden");
}

#[tokio::test]
async fn an_amendment_by_the_back_office_takes_effect_and_tells_of_itself_in_the_log() {
    let (app, admin) = with_rejection().await;
    let answer = as_admin(&app, &admin, "/rejections/bad/amend", &amendment(r#"{"total":"2.00"}"#, "two prices")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let by = answer["result"]["syncGroupId"].as_str().unwrap().to_owned();
    assert_eq!(
        (answer["result"]["seq"].as_u64(), answer["seq"].as_u64(), answer["head"].as_u64()),
        (Some(2), Some(3), Some(3))
    );
    let log = app.get("/log").await.json();
    let (group, told) = (&log["groups"][1], &log["groups"][2]);
    assert_eq!((group["device"].as_str(), group["deviceSeq"].as_u64()), (Some("server"), Some(1)));
    assert_eq!((group["replaces"].as_str(), group["actor"].as_str()), (Some("bad"), Some("ann")));
    assert_eq!(group["syncGroupType"], "receipt-create");
    let expected = serde_json::json!({"of": "bad", "as": "amended", "by": by, "actor": "ann", "reason": "two prices"});
    assert_eq!((&told["resolution"], &told["changeCount"], &told["seq"]), (&expected, &0.into(), &3.into()));
    let one = look(&app, &admin, "/rejections/bad").await;
    assert_eq!((one["state"].as_str(), one["resolution"]["by"].as_str()), (Some("closed"), Some(by.as_str())));

    let late = app.push(&[receipt("late", 3, "r9").replaces("bad")]).await.result(0);
    assert_eq!(late["code"], "already_replaced");
    assert_eq!(late["message"], format!("ann amended bad as {by}: two prices"));
    let closed = look(&app, &admin, "/rejections?state=closed").await;
    assert_eq!(closed["rejections"].as_array().unwrap().len(), 2, "the late one is closed as it comes");
    let again = as_admin(&app, &admin, "/rejections/bad/discard", r#"{"reason":"x"}"#).await;
    again.assert_problem(409, "already_closed");
}

#[tokio::test]
async fn an_amendment_that_is_refused_changes_nothing_and_uses_up_no_number() {
    let (app, admin) = with_rejection().await;
    let body = r#"{"changes":[{"entity":"notes","id":"n1","action":"delete"}],"reason":"x"}"#;
    let answer = as_admin(&app, &admin, "/rejections/bad/amend", body).await.json();
    assert_eq!((&answer["resolution"], answer["result"]["code"].as_str()), (&Value::Null, Some("conflict")));
    assert_eq!(look(&app, &admin, "/rejections/bad").await["state"], "open");
    let body =
        r#"{"type":"void","root":"r1","changes":[{"entity":"receipts","id":"r1","action":"delete"}],"reason":"gone"}"#;
    let answer = as_admin(&app, &admin, "/rejections/bad/compensate", body).await.json();
    assert_eq!(answer["resolution"]["as"], "compensated");
    let log = app.get("/log").await.json();
    assert_eq!((log["groups"][1]["deviceSeq"].as_u64(), &log["groups"][1]["replaces"]), (Some(1), &Value::Null));
    let late = app.push(&[receipt("late", 3, "r9").replaces("bad")]).await.verdicts();
    assert_eq!(late, ["rejected already_replaced"]);
    assert_eq!(app.digest().records, 0);
}

#[tokio::test]
async fn the_back_office_says_who_and_why() {
    let (app, _) = with_rejection().await;
    let nobody = admin(&app, None);
    let answer = as_admin(&app, &nobody, "/rejections/bad/discard", r#"{"reason":"x"}"#).await;
    assert_eq!(answer.assert_problem(400, "malformed").as_deref(), Some("/actor"));
    let answer = as_admin(&app, &nobody, "/rejections/bad/discard", r#"{"reason":" ","actor":"ann"}"#).await;
    assert_eq!(answer.assert_problem(400, "malformed").as_deref(), Some("/reason"));
    let ann = admin(&app, Some("ann"));
    let answer = as_admin(&app, &ann, "/rejections/bad/discard", r#"{"reason":"x","actor":"bob"}"#).await;
    answer.assert_problem(403, "forbidden");
    as_admin(&app, &ann, "/rejections/never/discard", r#"{"reason":"x"}"#).await.assert_problem(404, "not_found");
    as_admin(&app, &ann, "/rejections/g1/discard", r#"{"reason":"x"}"#).await.assert_problem(409, "already_closed");
    let answer = as_admin(&app, &nobody, "/rejections/bad/discard", r#"{"reason":"x","actor":"bob"}"#).await.json();
    assert_eq!((answer["resolution"]["actor"].as_str(), &answer["result"]), (Some("bob"), &Value::Null));
    let page = app.push_as("server", "e1", &[receipt("g9", 1, "r9")]).await;
    page.assert_problem(403, "forbidden");
}

#[tokio::test]
async fn a_device_that_amends_closes_the_rejection_without_an_entry_of_its_own() {
    let (app, admin) = with_rejection().await;
    assert_eq!(app.push(&[receipt("worse", 3, "r1").replaces("bad")]).await.verdicts(), ["rejected conflict"]);
    let open = look(&app, &admin, "/rejections").await;
    assert_eq!(
        (open["rejections"].as_array().unwrap().len(), open["rejections"][0]["syncGroupId"].as_str()),
        (1, Some("worse"))
    );
    assert_eq!(look(&app, &admin, "/rejections/bad").await["resolution"]["as"], "replaced");
    assert_eq!(app.push(&[receipt("good", 4, "r2").replaces("worse")]).await.verdicts(), ["accepted"]);
    for id in ["bad", "worse"] {
        let one = look(&app, &admin, &format!("/rejections/{id}")).await;
        assert_eq!((one["resolution"]["as"].as_str(), one["resolution"]["by"].as_str()), (Some("amended"), Some("good")));
    }
    assert_eq!(app.digest().head.0, 2);
    let late = as_admin(&app, &admin, "/rejections/bad/amend", &amendment("{}", "x")).await;
    late.assert_problem(409, "already_closed");
}

#[tokio::test]
async fn a_device_and_the_back_office_that_amend_at_once_get_one_accepted_between_them() {
    for round in 0..12_u64 {
        let (app, admin) = with_rejection().await;
        let replacement = [receipt("again", 3, "r2").replaces("bad")];
        let amendment = amendment(r#"{"total":"2.00"}"#, "x");
        let device = async {
            // Sometimes the one is ahead, sometimes the other, sometimes both share a transaction.
            tokio::time::sleep(std::time::Duration::from_micros(round * 300 % 1_500)).await;
            app.push(&replacement).await
        };
        let office = async {
            tokio::time::sleep(std::time::Duration::from_micros(round * 700 % 1_500)).await;
            as_admin(&app, &admin, "/rejections/bad/amend", &amendment).await
        };
        let (device, office) = tokio::join!(device, office);
        let device_won = device.verdicts() == ["accepted"];
        assert_eq!(office.status == 200, !device_won, "{round}: {device:?} {office:?}");
        let one = look(&app, &admin, "/rejections/bad").await;
        assert_eq!(one["resolution"]["by"] == "again", device_won, "{round}");
        let log = app.get("/log").await.json();
        let stands_for_bad = |entry: &&Value| entry["replaces"] == "bad";
        assert_eq!(log["groups"].as_array().unwrap().iter().filter(stands_for_bad).count(), 1, "{round}");
    }
}

#[tokio::test]
async fn a_device_discards_its_own_group_and_accounts_for_a_number_that_never_came() {
    let (app, admin) = with_rejection().await;
    let body = |device: &str, number: u64| {
        format!(
            r#"{{"reason":"typed twice","actor":"bob","sealedAs":{{"device":"{device}","epoch":"e1","deviceSeq":{number},"actor":"bob"}}}}"#
        )
    };
    let till_2 = token(&app.store, SPACE, None, Some("till-2"));
    as_admin(&app, &till_2, "/groups/bad/discard", &body("till-2", 2)).await.assert_problem(403, "forbidden");
    let carl = token(&app.store, SPACE, Some("carl"), None);
    as_admin(&app, &carl, "/groups/new/discard", &body("till-1", 3)).await.assert_problem(403, "forbidden");

    let known = app.post("/groups/bad/discard", body("till-1", 2)).await.json();
    assert_eq!((known["code"].as_str(), known["duplicate"].as_bool()), (Some("conflict"), Some(true)), "the first verdict");
    let one = look(&app, &admin, "/rejections/bad").await;
    assert_eq!((one["resolution"]["as"].as_str(), one["resolution"]["actor"].as_str()), (Some("discarded"), Some("bob")));
    let late = app.push(&[receipt("late", 4, "r2").replaces("bad")]).await.result(0);
    assert_eq!(late["message"], "bob discarded bad: typed twice");

    let fresh = app.post("/groups/new/discard", body("till-1", 3)).await.json();
    assert_eq!((fresh["code"].as_str(), fresh["message"].as_str()), (Some("discarded"), Some("typed twice")));
    assert_eq!(look(&app, &admin, "/rejections/new").await["deviceSeq"], 3);
    app.push(&[receipt("other", 3, "r3")]).await.assert_problem(409, "epoch_reused");
    assert_eq!(app.digest().head.0, 1, "devices that discard write nothing into the log");
}

#[tokio::test]
async fn who_closed_what_survives_a_restart_and_a_merge_of_families() {
    let (mut app, admin) = with_rejection().await;
    // `c` arrives before the `b` that it replaces, so that two families become one.
    assert_eq!(app.push(&[receipt("c", 4, "r1").replaces("b")]).await.verdicts(), ["rejected conflict"]);
    as_admin(&app, &admin, "/rejections/c/discard", r#"{"reason":"enough"}"#).await;
    app.restart().await;
    assert_eq!(app.push(&[receipt("b", 3, "r5").replaces("bad")]).await.verdicts(), ["rejected already_replaced"]);
    let rest = TestGroup::of("d", 5, &[upsert("receipts", "r6", 0, "{}")]).replaces("bad");
    assert_eq!(app.push(&[rest]).await.result(0)["message"], "ann discarded c: enough");
    assert_eq!(look(&app, &admin, "/rejections?state=open").await["rejections"], serde_json::json!([]));
    let page = app.get("/log").await.json();
    assert_eq!(page["groups"][1]["resolution"]["as"], "discarded");
}

/// A replacement of `between`, which replaced `bad`; a server that was put back knows nothing of `between`.
fn after_a_lost_one(id: &str, number: u64, root: &str) -> TestGroup {
    receipt(id, number, root).replaces("between").with(r#""family":"bad","#)
}

#[tokio::test]
async fn a_family_is_known_by_its_first_group_where_what_was_between_is_lost() {
    let (app, admin) = with_rejection().await;
    assert_eq!(app.push(&[after_a_lost_one("third", 4, "r2")]).await.verdicts(), ["accepted"]);
    let late = as_admin(&app, &admin, "/rejections/bad/amend", &amendment(r#"{"total":"2.00"}"#, "two prices")).await;
    late.assert_problem(409, "already_closed");
    assert_eq!(look(&app, &admin, "/rejections/bad").await["state"], "closed");
    let between = app.push(&[receipt("between", 3, "r3").replaces("bad")]).await;
    assert_eq!(between.verdicts(), ["rejected already_replaced"], "it comes late");
}

#[tokio::test]
async fn what_the_back_office_closed_is_not_sent_again_in_the_name_of_a_lost_replacement() {
    let (app, admin) = with_rejection().await;
    as_admin(&app, &admin, "/rejections/bad/amend", &amendment(r#"{"total":"2.00"}"#, "two prices")).await;
    let third = app.push(&[after_a_lost_one("third", 4, "r2")]).await;
    assert_eq!(third.verdicts(), ["rejected already_replaced"]);
}
