//! `vectors/decide.json` against the server: each case in a space of its own, set up by pushing.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Cases that must be set up and run at least, so that the set does not shrink unseen.
const LEAST: usize = 92;
/// What a case may say for this runner to understand it.
const KNOWN: [&str; 11] =
    ["name", "changes", "dependsOn", "log", "records", "groups", "replacedBy", "head", "expected", "payloadBytes", "about"];

/// A group in the log before the case: what it is called and what it changes.
#[derive(Default)]
struct Before {
    id: Option<String>,
    changes: Vec<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
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

/// The bytes of a change as a case has it: its payload is a text there.
fn change(case: &Value) -> String {
    let mut out = String::from("{");
    for (name, value) in case.as_object().unwrap() {
        let comma = if out.len() > 1 { "," } else { "" };
        let value = if name == "payload" { text(value).to_owned() } else { value.to_string() };
        out.push_str(&format!("{comma}{}:{value}", json!(name)));
    }
    out + "}"
}

/// A space that stands as the case says, and its log's name.
struct Stand {
    http: reqwest::Client,
    url: String,
    token: String,
    pushed: u64,
}

impl Stand {
    async fn push(&mut self, groups: &[TestGroup]) -> Answer {
        let request = self.http.post(format!("{}/push", self.url)).bearer_auth(&self.token);
        let body = envelope("till-1", "e1", groups);
        Answer::of(request.header("content-type", "application/json").body(body)).await
    }

    async fn get(&self, rest: &str) -> Value {
        Answer::of(self.http.get(format!("{}{rest}", self.url)).bearer_auth(&self.token)).await.json()
    }

    fn group(&mut self, id: Option<&str>, changes: &[String]) -> TestGroup {
        self.pushed += 1;
        let id = id.map_or_else(|| format!("before-{}", self.pushed), str::to_owned);
        TestGroup::of(&id, self.pushed, changes)
    }

    /// Fills the log and has refused what the case says was refused. `false` where the limits of the case forbid it.
    async fn set_up(&mut self, case: &Value, history: BTreeMap<u64, Before>) -> bool {
        let mut groups = Vec::new();
        for (seq, before) in &history {
            let filler = [with_base("upsert", "filler", &seq.to_string(), 0, Some("{}"))];
            let changes = if before.changes.is_empty() { &filler[..] } else { &before.changes };
            let mut group = self.group(before.id.as_deref(), changes);
            if before.id.is_some() && before.id.as_deref() == case["replacedBy"].as_str() {
                group = group.replaces("original");
            }
            groups.push(group);
        }
        let verdicts = self.push(&groups).await.verdicts();
        if verdicts.iter().any(|verdict| verdict == "rejected too_large") {
            return false;
        }
        assert!(verdicts.iter().all(|verdict| verdict == "accepted"), "{}: {verdicts:?}", case["name"]);
        for (id, known) in case["groups"].as_object().unwrap() {
            if known["accepted"].is_null() {
                let refused = self.group(Some(id), &[with_base("delete", "filler", "never", 0, None)]);
                assert_eq!(self.push(&[refused]).await.verdicts(), ["rejected conflict"], "{}", case["name"]);
            }
        }
        true
    }
}

/// A result in the form of the vectors.
async fn written(stand: &Stand, result: &Value, head: u64) -> Value {
    match text(&result["status"]) {
        "accepted" => {
            let log = stand.get(&format!("/log?after={head}")).await;
            let changes = log["groups"][0]["changes"].as_array().unwrap();
            let record = |change: &Value| {
                let payload = change.get("payload").map(Value::to_string);
                json!({ "entity": change["entity"], "id": change["id"], "version": change["version"],
                    "editVersion": change["editVersion"], "payload": payload })
            };
            json!({ "accept": changes.iter().map(record).collect::<Vec<_>>() })
        }
        "rejected" => {
            let change = |change: &Value| {
                let current = change.get("current").map(|current| {
                    let payload = Some(&current["payload"]).filter(|payload| !payload.is_null()).map(Value::to_string);
                    json!({ "version": current["version"], "payload": payload })
                });
                json!({ "index": change["index"], "code": change["code"], "current": current })
            };
            let changes: Vec<Value> = result["changes"].as_array().unwrap().iter().map(change).collect();
            json!({ "reject": result["code"], "changes": changes })
        }
        _ => json!({ "block": result["blockedBy"] }),
    }
}

/// Payloads are compared as values here: what `serde_json` writes again may have other digits, and core's own run of the
/// vectors compares bytes.
fn as_values(expected: &Value) -> Value {
    match expected {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| match (name.as_str(), value.as_str()) {
                ("payload", Some(text)) => (name.clone(), serde_json::from_str(text).unwrap()),
                _ => (name.clone(), as_values(value)),
            };
            Value::Object(members.iter().map(member).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(as_values).collect()),
        other => other.clone(),
    }
}

#[tokio::test]
async fn groups_are_decided_over_http_as_the_vectors_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/decide.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    let sizes: BTreeSet<Option<u64>> = cases.iter().map(|case| case["payloadBytes"].as_u64()).collect();
    let (mut ran, mut left_out) = (0, Vec::new());
    for size in sizes {
        let app = TestApp::with(|config| config.limits.payload_bytes = size.unwrap_or(config.limits.payload_bytes)).await;
        for (index, case) in cases.iter().enumerate().filter(|(_, case)| case["payloadBytes"].as_u64() == size) {
            let is_known = case.as_object().unwrap().keys().all(|key| KNOWN.contains(&key.as_str()));
            let is_run = match history(case).filter(|_| is_known) {
                Some(history) => run(&app, index, case, history).await,
                None => false,
            };
            if is_run {
                ran += 1;
            } else {
                left_out.push(case["name"].clone());
            }
        }
    }
    assert!(ran >= LEAST, "only {ran} of {} cases were set up; left out: {left_out:?}", cases.len());
}

/// Runs a case; `false` where pushing cannot set it up.
async fn run(app: &TestApp, index: usize, case: &Value, mut history: BTreeMap<u64, Before>) -> bool {
    let space = format!("case-{index}");
    let token = token(app.folder.path(), &space, None, None);
    let url = app.url(&format!("/v1/spaces/{space}"));
    let mut stand = Stand { http: app.http.clone(), url, token, pushed: 0 };
    let head = case["head"].as_u64().unwrap();
    if let Some(id) = case["replacedBy"].as_str().filter(|id| case["groups"][*id].is_null()) {
        let free = history.values_mut().rev().find(|before| before.id.is_none()).unwrap();
        free.id = Some(id.to_owned());
    }
    if !stand.set_up(case, history).await {
        return false;
    }
    let changes: Vec<String> = case["changes"].as_array().unwrap().iter().map(change).collect();
    let mut group = stand.group(Some("g"), &changes).with(&format!(r#""dependsOn":{},"#, case["dependsOn"]));
    if let Some(log) = case["log"].as_str() {
        let log = if log == "log-1" { stand.get("").await["log"].clone() } else { json!(log) };
        group = group.with(&format!(r#""log":{log},"#));
    }
    if case["replacedBy"].is_string() {
        group = group.replaces("original");
    }
    let result = stand.push(&[group]).await.result(0);
    let written = written(&stand, &result, head).await;
    assert_eq!(as_values(&written), as_values(&case["expected"]), "{}: {result}", case["name"]);
    true
}
