//! A device that sends in other people's names: their roles decide, and nobody's name is used without a right to it.

use crate::common::*;
use gbsync_core::id::{Actor, Role, SpaceId};
use gbsync_core::wire::ActAs;
use gbsync_server::{Actors, NewToken, Tokens};
use serde_json::json;

const SCHEMA: &str = r#"
version = 1
[entities.receipts]
fields.total = "text"
[operations.receipt-create]
roles = ["cashier", "manager"]
[operations.receipt-void]
roles = ["manager"]
"#;

fn actor(name: &str) -> Actor {
    Actor::new(name).unwrap()
}

fn space() -> SpaceId {
    SpaceId::new(SPACE).unwrap()
}

async fn app() -> TestApp {
    let app = TestApp::with_schema(SCHEMA, &[]).await;
    let actors = Actors::open(&app.store).unwrap();
    actors.set(&space(), &actor("cid"), &[Role::new("cashier").unwrap()].into()).unwrap();
    actors.set(&space(), &actor("mia"), &[Role::new("manager").unwrap()].into()).unwrap();
    app
}

fn token_of(app: &TestApp, name: Option<&str>, roles: &[&str], act_as: Option<ActAs>) -> String {
    let roles = roles.iter().map(|role| Role::new(*role).unwrap()).collect();
    let new = NewToken { actor: name.map(actor), roles, act_as, ..NewToken::new(space()) };
    Tokens::open(&app.store).unwrap().create(new).unwrap().token
}

fn void(id: &str, device_seq: u64, record: &str) -> TestGroup {
    receipt(id, device_seq, record).typed(Some("receipt-void"))
}

fn refused_at(answer: &Answer) -> Option<String> {
    answer.assert_problem(403, "forbidden")
}

#[tokio::test]
async fn the_roles_of_the_author_decide_and_not_those_of_the_device() {
    let mut app = app().await;
    app.token = token_of(&app, Some("till-1"), &["manager"], Some(ActAs::Anyone));
    let groups = [
        void("cids", 1, "r-1").actor("cid"),
        void("mias", 2, "r-2").actor("mia"),
        receipt("cids-own", 3, "r-3").actor("cid"),
        void("the-tills", 4, "r-4"),
    ];
    let verdicts = ["rejected not_permitted", "accepted", "accepted", "accepted"];
    assert_eq!(app.push(&groups).await.verdicts(), verdicts);
    let log = app.get("/log").await.json();
    let actors: Vec<_> = log["groups"].as_array().unwrap().iter().map(|group| group["actor"].clone()).collect();
    assert_eq!(actors, ["mia", "cid", "till-1"]);
}

#[tokio::test]
async fn a_name_that_the_token_may_not_use_refuses_the_push_and_decides_nothing() {
    let mut app = app().await;
    app.token = token_of(&app, None, &[], Some(ActAs::These([actor("cid")].into())));
    let answer = app.push(&[receipt("cids", 1, "r-1").actor("cid"), void("mias", 2, "r-2").actor("mia")]).await;
    assert_eq!(refused_at(&answer).as_deref(), Some("/groups/1/actor"));
    assert_eq!(app.digest().head.0, 0);
    assert_eq!(app.push(&[receipt("cids", 1, "r-1").actor("cid")]).await.verdicts(), ["accepted"]);
}

#[tokio::test]
async fn somebody_whose_roles_are_not_known_waits_and_is_not_rejected() {
    let mut app = app().await;
    app.token = token_of(&app, None, &[], Some(ActAs::Anyone));
    let group = void("news", 1, "r-1").actor("nan");
    assert_eq!(refused_at(&app.push(std::slice::from_ref(&group)).await).as_deref(), Some("/groups/0/actor"));
    let actors = Actors::open(&app.store).unwrap();
    actors.set(&space(), &actor("nan"), &[Role::new("manager").unwrap()].into()).unwrap();
    assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
    assert!(actors.remove(&space(), &actor("nan")).unwrap());
    let answer = app.push(&[void("later", 2, "r-2").actor("nan")]).await;
    assert_eq!(refused_at(&answer).as_deref(), Some("/groups/0/actor"));
}

#[tokio::test]
async fn a_token_made_for_somebody_says_that_ones_roles_unless_they_were_said() {
    let app = app().await;
    token_of(&app, Some("ned"), &["manager"], None);
    token_of(&app, Some("mia"), &["cashier"], None);
    let known = Actors::open(&app.store).unwrap().list().unwrap();
    let roles: Vec<String> = known
        .iter()
        .map(|info| format!("{} {}", info.actor, info.roles.iter().map(Role::as_str).collect::<Vec<_>>().join(",")))
        .collect();
    assert_eq!(roles, ["cid cashier", "mia manager", "ned manager"]);
}

#[tokio::test]
async fn the_handshake_tells_in_whose_names_the_token_speaks() {
    let mut app = app().await;
    assert_eq!(app.get("").await.json()["token"], json!({"actor": null}));
    app.token = token_of(&app, Some("till-1"), &[], Some(ActAs::These([actor("mia"), actor("cid")].into())));
    assert_eq!(app.get("").await.json()["token"], json!({"actor": "till-1", "actAs": ["cid", "mia"]}));
    app.token = token_of(&app, None, &[], Some(ActAs::Anyone));
    assert_eq!(app.get("").await.json()["token"], json!({"actor": null, "actAs": "*"}));
    let ends = NewToken { actor: Some(actor("cid")), lifetime_ms: Some(60_000), ..NewToken::new(space()) };
    app.token = Tokens::open(&app.store).unwrap().create(ends).unwrap().token;
    assert!(app.get("").await.json()["token"]["expiresAt"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_device_discards_for_those_it_may_act_as() {
    let mut app = app().await;
    app.token = token_of(&app, Some("till-1"), &[], Some(ActAs::These([actor("mia")].into())));
    let of = |name: &str| format!(r#"{{"reason":"twice","actor":"{name}"}}"#);
    app.post("/groups/g-1/discard", of("cid")).await.assert_problem(403, "forbidden");
    assert_eq!(app.post("/groups/g-1/discard", of("mia")).await.json()["code"], "discarded");
}
