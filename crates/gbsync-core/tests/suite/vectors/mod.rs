//! Reads the vector files of the repository, for every test of them.

#![allow(dead_code, clippy::unwrap_used)]

use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::id::{GroupId, RecordKey, Seq};
use serde_json::Value;
use std::path::PathBuf;

/// The text of a file under `vectors/`.
pub fn text(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A whole vector file.
pub fn document(file: &str) -> Value {
    serde_json::from_str(&text(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The list `key` of a vector file: at least so many cases, each with a name of its own.
pub fn list(file: &str, key: &str, least: usize) -> Vec<Value> {
    let cases = document(file)[key].as_array().unwrap_or_else(|| panic!("{file} has {key}")).clone();
    assert!(cases.len() >= least, "{file} has {} {key}, at least {least} are promised", cases.len());
    let mut names: Vec<&str> = cases.iter().map(|case| case["name"].as_str().expect("a case has a name")).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{file}: two cases have one name");
    cases
}

/// The cases of a vector file.
pub fn cases(file: &str, least: usize) -> Vec<Value> {
    list(file, "cases", least)
}

/// A case's name.
pub fn name(case: &Value) -> &str {
    case["name"].as_str().unwrap()
}

/// The bytes that a case gives as `text` or as `hex`.
pub fn bytes(case: &Value) -> Vec<u8> {
    match case["hex"].as_str() {
        Some(digits) => hex::decode(digits).unwrap(),
        None => case["text"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// A payload that a case gives as canonical text.
pub fn payload(value: &Value) -> Option<Payload> {
    let text = value.as_str()?;
    let payload =
        Payload::parse(text, &gbsync_core::limits::Limits::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(payload.as_str(), text, "a vector gives payloads in canonical form");
    Some(payload)
}

/// An edit that a case gives as `action` and `payload`.
pub fn edit(value: &Value) -> Edit {
    let payload = || payload(&value["payload"]).expect("this action has a payload");
    match value["action"].as_str().unwrap() {
        "upsert" => Edit::Upsert(payload()),
        "patch" => Edit::Patch(payload()),
        "increment" => Edit::Increment(payload()),
        "delete" => Edit::Delete,
        other => panic!("{other} is no action"),
    }
}

/// The record that a value names.
pub fn key(value: &Value) -> RecordKey {
    RecordKey::new(value["entity"].as_str().unwrap(), value["id"].as_str().unwrap()).unwrap()
}

/// A change in the form of the vectors.
pub fn change(value: &Value) -> Change {
    let base = Base {
        version: Seq(value["baseVersion"].as_u64().unwrap_or(0)),
        group: value["baseGroup"].as_str().map(|id| GroupId::new(id).unwrap()),
    };
    Change::new(key(value), edit(value), base).unwrap()
}

/// A list of group ids.
pub fn group_ids(value: &Value) -> Vec<GroupId> {
    value.as_array().unwrap().iter().map(|id| GroupId::new(id.as_str().unwrap()).unwrap()).collect()
}
