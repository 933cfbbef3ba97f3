//! A space that a case is played in, and what came of it in the form of the vectors.

use crate::common::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The bytes of a change as a case has it: its payload is a text there.
pub fn change(case: &Value) -> String {
    let mut out = String::from("{");
    for (name, value) in case.as_object().unwrap() {
        let comma = if out.len() > 1 { "," } else { "" };
        let value = if name == "payload" { text(value).to_owned() } else { value.to_string() };
        out.push_str(&format!("{comma}{}:{value}", json!(name)));
    }
    out + "}"
}

/// All changes of a group.
pub fn changes(group: &Value) -> Vec<String> {
    group["changes"].as_array().unwrap().iter().map(change).collect()
}

/// A space of its own for one case.
pub struct Stand {
    pub http: reqwest::Client,
    pub space: String,
    pub url: String,
    pub token: String,
    pub pushed: u64,
}

impl Stand {
    pub fn new(app: &TestApp, space: &str, token: String) -> Self {
        let url = app.url(&format!("/v1/spaces/{space}"));
        Self { http: app.http.clone(), space: space.to_owned(), url, token, pushed: 0 }
    }

    /// The same at a server that was started anew.
    pub fn moved(self, app: &TestApp) -> Self {
        Self { pushed: self.pushed, ..Self::new(app, &self.space, self.token) }
    }

    pub async fn push(&self, groups: &[TestGroup]) -> Value {
        self.push_as("till-1", groups).await
    }

    /// The results of a push.
    pub async fn push_as(&self, device: &str, groups: &[TestGroup]) -> Value {
        let request = self.http.post(format!("{}/push", self.url)).bearer_auth(&self.token);
        let body = envelope(device, "e1", groups);
        let answer = Answer::of(request.header("content-type", "application/json").body(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        with_texts(&answer.text)["results"].take()
    }

    pub async fn get(&self, rest: &str) -> Value {
        let answer = Answer::of(self.http.get(format!("{}{rest}", self.url)).bearer_auth(&self.token)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        with_texts(&answer.text)
    }

    pub fn group(&mut self, id: Option<&str>, changes: &[String]) -> TestGroup {
        self.pushed += 1;
        let id = id.map_or_else(|| format!("before-{}", self.pushed), str::to_owned);
        TestGroup::of(&id, self.pushed, changes)
    }

    /// The one entry after `head`.
    pub async fn entry(&self, head: u64) -> Value {
        let mut log = self.get(&format!("/log?after={head}")).await;
        assert_eq!(log["groups"].as_array().unwrap().len(), 1, "{log}");
        log["groups"][0].take()
    }

    /// A result in the form of the vectors; the records of an accepted group as the log has them.
    pub async fn written(&self, result: &Value, head: u64) -> Value {
        match text(&result["status"]) {
            "accepted" => {
                assert_eq!(result["seq"], head + 1);
                let entry = self.entry(head).await;
                json!({ "accept": entry["changes"].as_array().unwrap().iter().map(record).collect::<Vec<_>>() })
            }
            "rejected" => {
                let changes: Vec<Value> = result["changes"].as_array().unwrap().iter().map(refused).collect();
                json!({ "reject": result["code"], "changes": changes })
            }
            _ => json!({ "block": result["blockedBy"] }),
        }
    }
}

/// `status` or `status code` of each result.
pub fn verdicts(results: &Value) -> Vec<String> {
    let word = |result: &Value, name: &str| result[name].as_str().unwrap_or_default().to_owned();
    let verdict = |result: &Value| format!("{} {}", word(result, "status"), word(result, "code")).trim().to_owned();
    results.as_array().unwrap().iter().map(verdict).collect()
}

fn record(change: &Value) -> Value {
    let mut record = json!({ "entity": change["entity"], "id": change["id"], "version": change["version"],
        "editVersion": change["editVersion"], "payload": change["payload"] });
    if let Some(cause) = change.get("cause") {
        record["cause"] = cause.clone();
    }
    record
}

fn refused(change: &Value) -> Value {
    let current = change.get("current");
    let current = current.map(|current| json!({ "version": current["version"], "payload": current["payload"] }));
    json!({ "index": change["index"], "code": change["code"], "current": current })
}

/// A message with its payloads as texts, so that not a digit of them is changed by reading.
fn with_texts(json: &str) -> Value {
    match json.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).unwrap();
            let member = |(name, value): (String, Box<RawValue>)| {
                let is_payload = name == "payload" && value.get() != "null";
                let value = if is_payload { json!(value.get()) } else { with_texts(value.get()) };
                (name, value)
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        Some(b'[') => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap();
            Value::Array(items.iter().map(|item| with_texts(item.get())).collect())
        }
        _ => serde_json::from_str(json).unwrap(),
    }
}
