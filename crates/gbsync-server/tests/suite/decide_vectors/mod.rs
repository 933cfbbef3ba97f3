//! `vectors/decide.json` against the server: each case in a space of its own, set up by pushing.

mod ruled;
mod stand;

use crate::common::*;
use serde_json::{Value, json};
use stand::{Stand, changes, text, verdicts};
use std::collections::{BTreeMap, BTreeSet};

/// Cases that must be run at least, so that the set does not shrink unseen: none is left out.
const LEAST: usize = 93;
/// What a case may say for this runner to understand it.
const KNOWN: [&str; 11] =
    ["name", "changes", "dependsOn", "log", "records", "groups", "replacedBy", "head", "expected", "payloadBytes", "about"];

/// A group in the log before the case: what it is called and what it changes.
#[derive(Default)]
struct Before {
    id: Option<String>,
    changes: Vec<String>,
}

fn with_base(action: &str, entity: &str, id: &str, base: u64, payload: Option<&str>) -> String {
    let payload = payload.map(|payload| format!(r#","payload":{payload}"#)).unwrap_or_default();
    let (entity, id) = (json!(entity), json!(id));
    format!(r#"{{"entity":{entity},"id":{id},"action":"{action}","baseVersion":{base}{payload}}}"#)
}

/// The groups that leave the records of a case as it wants them; `None` where pushing cannot.
fn history(case: &Value) -> Option<BTreeMap<u64, Before>> {
    let head = case["head"].as_u64().unwrap();
    let mut log: BTreeMap<u64, Before> = (1..=head).map(|seq| (seq, Before::default())).collect();
    for record in case["records"].as_array().unwrap() {
        let (entity, id) = (text(&record["entity"]), text(&record["id"]));
        let (version, edited) = (record["version"].as_u64().unwrap(), record["editVersion"].as_u64().unwrap());
        let made = match record["payload"].as_str() {
            // A tombstone: made somewhere before, or in the group before.
            None if version > 1 => {
                log.get_mut(&version)?.changes.push(with_base("delete", entity, id, version - 1, None));
                (version - 1, "{}".to_owned())
            }
            None => return None,
            Some(payload) if version == edited => (edited, payload.to_owned()),
            Some(payload) => {
                // Counted since it was edited: one less then, and an increment now.
                let mut object: Value = serde_json::from_str(payload).unwrap();
                let (field, number) =
                    object.as_object().unwrap().iter().find_map(|(f, v)| Some((f.clone(), v.as_i64()?)))?;
                object[field.as_str()] = (number - 1).into();
                let one = json!({ field: 1 }).to_string();
                log.get_mut(&version)?.changes.push(with_base("increment", entity, id, 0, Some(&one)));
                (edited, object.to_string())
            }
        };
        log.get_mut(&made.0)?.changes.push(with_base("upsert", entity, id, 0, Some(&made.1)));
    }
    for (id, known) in case["groups"].as_object().unwrap() {
        if let Some(seq) = known["accepted"].as_u64() {
            log.get_mut(&seq)?.id = Some(id.clone());
        }
    }
    Some(log)
}

/// Fills the log and has refused what the case says was refused.
async fn set_up(stand: &mut Stand, case: &Value, history: BTreeMap<u64, Before>) {
    let mut groups = Vec::new();
    for (seq, before) in &history {
        let filler = [with_base("upsert", "filler", &seq.to_string(), 0, Some("{}"))];
        let changes = if before.changes.is_empty() { &filler[..] } else { &before.changes };
        let mut group = stand.group(before.id.as_deref(), changes);
        if before.id.is_some() && before.id.as_deref() == case["replacedBy"].as_str() {
            group = group.replaces("original");
        }
        groups.push(group);
    }
    let verdicts_before = verdicts(&stand.push(&groups).await);
    assert!(verdicts_before.iter().all(|verdict| verdict == "accepted"), "{}: {verdicts_before:?}", case["name"]);
    for (id, known) in case["groups"].as_object().unwrap() {
        if known["accepted"].is_null() {
            let refused = stand.group(Some(id), &[with_base("delete", "filler", "never", 0, None)]);
            assert_eq!(verdicts(&stand.push(&[refused]).await), ["rejected conflict"], "{}", case["name"]);
        }
    }
}

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/decide.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn groups_are_decided_over_http_as_the_vectors_say() {
    let vectors = vectors();
    let cases = vectors["cases"].as_array().unwrap();
    let sizes: BTreeSet<Option<u64>> = cases.iter().map(|case| case["payloadBytes"].as_u64()).collect();
    let mut ran = 0;
    for size in sizes {
        let cases: Vec<&Value> = cases.iter().filter(|case| case["payloadBytes"].as_u64() == size).collect();
        let mut app = TestApp::start().await;
        let mut stands = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            stands.push(stand(&app, &format!("case-{index}"), case).await);
        }
        // A record that is larger than the limit was made before the limit was set.
        app.restart_with(|config| config.limits.payload_bytes = size.unwrap_or(config.limits.payload_bytes)).await.unwrap();
        for (case, stand) in cases.into_iter().zip(stands) {
            run(stand.moved(&app), case).await;
            ran += 1;
        }
    }
    assert!(ran >= LEAST && ran == cases.len(), "only {ran} of {} cases were run", cases.len());
}

/// A space that stands as the case says.
async fn stand(app: &TestApp, space: &str, case: &Value) -> Stand {
    let name = text(&case["name"]);
    assert!(case.as_object().unwrap().keys().all(|key| KNOWN.contains(&key.as_str())), "{name}");
    let mut history = history(case).unwrap_or_else(|| panic!("{name}: pushing cannot set it up"));
    if let Some(id) = case["replacedBy"].as_str().filter(|id| case["groups"][*id].is_null()) {
        let free = history.values_mut().rev().find(|before| before.id.is_none()).unwrap();
        free.id = Some(id.to_owned());
    }
    let mut stand = Stand::new(app, space, token(&app.store, space, None, None));
    set_up(&mut stand, case, history).await;
    stand
}

async fn run(mut stand: Stand, case: &Value) {
    let mut group = stand.group(Some("g"), &changes(case)).with(&format!(r#""dependsOn":{},"#, case["dependsOn"]));
    if let Some(log) = case["log"].as_str() {
        let log = if log == "log-1" { stand.get("").await["log"].clone() } else { json!(log) };
        group = group.with(&format!(r#""log":{log},"#));
    }
    if case["replacedBy"].is_string() {
        group = group.replaces("original");
    }
    let result = stand.push(&[group]).await[0].take();
    let written = stand.written(&result, case["head"].as_u64().unwrap()).await;
    assert_eq!(written, case["expected"], "{}: {result}", case["name"]);
}
