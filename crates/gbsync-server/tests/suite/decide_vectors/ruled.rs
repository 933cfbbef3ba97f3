//! The cases by a schema: a server for each schema, and a space for each case.

use super::stand::{Stand, changes, text, verdicts};
use super::vectors;
use crate::common::*;
use gbsync_core::id::{Actor, Role, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_server::{Environment, NewToken, StoreLocation, Tokens};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Cases that must be run at least, so that the set does not shrink unseen: none is left out.
const LEAST: usize = 201;
/// What a case may say for this runner to understand it.
const KNOWN: [&str; 12] = [
    "name",
    "schema",
    "setup",
    "groupRecords",
    "roles",
    "rounds",
    "expected",
    "type",
    "changes",
    "dependsOn",
    "hlc",
    "schemaVersion",
];
/// The server's clock in every case.
const NOW_MS: u64 = 1_780_000_000_000;
/// Who makes the groups.
const ACTOR: &str = "ann";

#[tokio::test]
async fn groups_are_decided_by_a_schema_over_http_as_the_vectors_say() {
    let vectors = vectors();
    let cases = vectors["ruled"].as_array().unwrap();
    let mut servers: BTreeMap<(&str, Option<u64>), Vec<&Value>> = BTreeMap::new();
    for case in cases {
        assert!(case.as_object().unwrap().keys().all(|key| KNOWN.contains(&key.as_str())), "{}", case["name"]);
        servers.entry((text(&case["schema"]), case["groupRecords"].as_u64())).or_default().push(case);
    }
    let (mut ran, mut wrong) = (0, Vec::new());
    for ((schema, group_records), cases) in servers {
        let schema = &vectors["schemas"][schema];
        let app = app(schema, group_records).await;
        for (index, case) in cases.into_iter().enumerate() {
            wrong.extend(run(&app, &format!("case-{index}"), case, &roles(schema)).await.err());
            ran += 1;
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ran >= LEAST && ran == cases.len(), "only {ran} of {} cases were run", cases.len());
}

async fn app(schema: &Value, group_records: Option<u64>) -> TestApp {
    let schema = Schema::parse(&schema.to_string()).unwrap_or_else(|problems| panic!("{problems}"));
    TestApp::with(|config| {
        config.schema = Some(schema);
        config.limits.group_records = group_records.unwrap_or(config.limits.group_records);
        config.environment = Environment::new(|| NOW_MS, |bytes| getrandom::fill(bytes).unwrap());
    })
    .await
}

/// Every role that the operations of a schema name.
fn roles(schema: &Value) -> BTreeSet<&str> {
    let operations = schema["operations"].as_object().into_iter().flat_map(|operations| operations.values());
    operations.flat_map(|operation| operation["roles"].as_array().into_iter().flatten()).map(text).collect()
}

fn token(store: &StoreLocation, space: &str, roles: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let roles = roles.into_iter().map(|role| Role::new(role.as_ref()).unwrap()).collect();
    let actor = Some(Actor::new(ACTOR).unwrap());
    let new = NewToken { roles, actor, ..NewToken::new(SpaceId::new(space).unwrap()) };
    Tokens::open(store).unwrap().create(new).unwrap().token
}

/// A group in wire form, and the device that makes it: the one whose clock it bears.
fn group(stand: &mut Stand, id: &str, case: &Value) -> (String, TestGroup) {
    let version = case["schemaVersion"].as_u64().unwrap_or(1);
    let mut group = stand.group(Some(id), &changes(case)).typed(case["type"].as_str());
    group = group.with(&format!(r#""schemaVersion":{version},"#));
    if case["dependsOn"].is_array() {
        group = group.with(&format!(r#""dependsOn":{},"#, case["dependsOn"]));
    }
    let Some(hlc) = case["hlc"].as_str() else { return ("till-1".into(), group) };
    let device = hlc.splitn(3, '-').nth(2).unwrap();
    (device.into(), group.with(&format!(r#""hlc":"{hlc}","#)))
}

/// Plays a case; what is wrong, when something is.
async fn run(app: &TestApp, space: &str, case: &Value, every_role: &BTreeSet<&str>) -> Result<(), String> {
    let mut stand = Stand::new(app, space, token(&app.store, space, every_role));
    let setup = case["setup"].as_array().unwrap();
    for (index, earlier) in setup.iter().enumerate() {
        let (device, group) = group(&mut stand, &format!("s{}", index + 1), earlier);
        let results = stand.push_as(&device, &[group]).await;
        if verdicts(&results) != ["accepted"] {
            return Err(format!("{}: setup {index}: {results}", case["name"]));
        }
    }
    if let Some(roles) = case["roles"].as_array() {
        stand.token = token(&app.store, space, roles.iter().map(text));
    }
    let (device, group) = group(&mut stand, "g", case);
    let head = setup.len() as u64;
    let mut result = stand.push_as(&device, std::slice::from_ref(&group)).await[0].take();
    let written = written(&stand, &result, head).await;
    if written != case["expected"] {
        return Err(format!("{}: {written}, not {}\n{result}", case["name"], case["expected"]));
    }
    check_around(&stand, case, &result, head).await;
    // Sent again, it is answered as before, whether the verdict was kept or found anew.
    let mut again = stand.push_as(&device, &[group]).await[0].take();
    for result in [&mut result, &mut again] {
        result.as_object_mut().unwrap().remove("duplicate");
    }
    if again != result {
        return Err(format!("{}: {result}, and sent again {again}", case["name"]));
    }
    Ok(())
}

async fn written(stand: &Stand, result: &Value, head: u64) -> Value {
    let mut written = stand.written(result, head).await;
    match text(&result["status"]) {
        "accepted" => written["flags"] = flags(&result["flags"]),
        "rejected" => written["rule"] = result["rule"].clone(),
        _ => {}
    }
    written
}

fn flags(flags: &Value) -> Value {
    let flag = |flag: &Value| {
        let record = flag["entity"].as_str().map(|entity| format!("{entity}:{}", text(&flag["id"])));
        json!({ "code": flag["code"], "rule": flag["rule"], "record": record })
    };
    flags.as_array().into_iter().flatten().map(flag).collect()
}

/// What no case says because it holds for all of them.
async fn check_around(stand: &Stand, case: &Value, result: &Value, head: u64) {
    let name = text(&case["name"]);
    let is_accepted = result["status"] == "accepted";
    assert_eq!(stand.get("").await["head"], head + u64::from(is_accepted), "{name}: the log grows by what is accepted");
    if is_accepted {
        let entry = stand.entry(head).await;
        assert_eq!(entry["flags"], result["flags"], "{name}: devices hear of the same flags");
        assert_eq!((&entry["actor"], &entry["syncGroupType"]), (&json!(ACTOR), &case["type"]), "{name}");
        assert_eq!(entry.get("hlc"), case.get("hlc"), "{name}: the clock is passed on");
    }
    for change in result["changes"].as_array().into_iter().flatten() {
        let named = &case["changes"][change["index"].as_u64().unwrap() as usize];
        assert_eq!((&change["entity"], &change["id"]), (&named["entity"], &named["id"]), "{name}");
    }
    if result["status"] == "rejected" {
        assert!(text(&result["message"]).len() > 20, "{name}: a rejection says what to do");
    }
}
