//! `vectors/plan.json`.

use crate::vectors::{cases, name};
use gbsync_core::limits::Limits;
use gbsync_core::plan::{Candidate, plan};
use serde_json::Value;

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn groups_make_the_batches_of_the_vectors() {
    for case in cases("plan.json", 60) {
        let limits = Limits {
            batch_records: case["batchRecords"].as_u64().unwrap(),
            batch_bytes: case["batchBytes"].as_u64().unwrap(),
            ..Limits::default()
        };
        let candidate = |group: &Value| Candidate {
            group: group["group"].as_str().unwrap().to_owned(),
            records: group["records"].as_u64().unwrap(),
            bytes: group["bytes"].as_u64().unwrap(),
            actor: group["actor"].as_str().map(str::to_owned),
            is_ready: group["ready"].as_bool().unwrap(),
            undecided: texts(&group["undecided"]),
        };
        let groups: Vec<_> = case["groups"].as_array().unwrap().iter().map(candidate).collect();
        let batches = plan(groups.clone(), &limits);
        let expected: Vec<Vec<String>> = case["batches"].as_array().unwrap().iter().map(texts).collect();
        assert_eq!(batches, expected, "{}", name(&case));
        let planned: Vec<&String> = batches.iter().flatten().collect();
        let waiting: Vec<String> =
            groups.into_iter().map(|group| group.group).filter(|group| !planned.contains(&group)).collect();
        assert_eq!(waiting, texts(&case["waiting"]), "{}", name(&case));
    }
}
