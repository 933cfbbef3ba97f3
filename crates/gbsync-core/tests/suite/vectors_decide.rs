//! `vectors/decide.json`.

use crate::vectors::{cases, change, group_ids, key, name};
use gbsync_core::change::Payload;
use gbsync_core::decide::{Decision, Facts, Known, Record, Standing, decide, wants};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{DeviceSeq, GroupId, LogId, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::scope::{Reach, ScopeSet};
use gbsync_core::time::Timestamp;
use serde_json::{Value, json};

fn group(case: &Value) -> Group {
    let header = Header {
        id: GroupId::new("g").unwrap(),
        group_type: None,
        device_seq: DeviceSeq(1),
        actor: None,
        created_at: Timestamp::from_unix_ms(0),
        schema_version: 0,
        depends_on: group_ids(&case["dependsOn"]),
        replaces: None,
        family: None,
        log: case["log"].as_str().map(|log| LogId::new(log).unwrap()),
        hlc: None,
        clears: Vec::new(),
    };
    let changes = case["changes"].as_array().unwrap().iter().map(change).collect();
    Group::seal(header, changes, &Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", name(case)))
}

fn facts(case: &Value, group: &Group) -> Facts {
    let mut facts = Facts::default();
    let record = |value: &Value| {
        let record = Record {
            version: Seq(value["version"].as_u64().unwrap()),
            edit_version: Seq(value["editVersion"].as_u64().unwrap()),
            payload: value["payload"].as_str().map(Payload::from_stored),
            marks: None,
            reach: Reach::Everywhere,
        };
        facts.learn_record(key(value), Some(record));
    };
    case["records"].as_array().unwrap().iter().for_each(record);
    for key in wants(group, None).records {
        facts.learn_record(key, None);
    }
    facts
}

fn standing(case: &Value) -> Standing {
    let known = |(id, known): (&String, &Value)| {
        let known = match known["accepted"].as_u64() {
            Some(seq) => Known::Accepted(Seq(seq)),
            None => Known::Rejected,
        };
        (GroupId::new(id.as_str()).unwrap(), known)
    };
    Standing {
        groups: case["groups"].as_object().unwrap().iter().map(known).collect(),
        replaced_by: case["replacedBy"].as_str().map(|id| GroupId::new(id).unwrap()),
        log: LogId::new("log-1").unwrap(),
        other_log: None,
        head: Seq(case["head"].as_u64().unwrap()),
        roles: None,
        scopes: ScopeSet::All,
        now_ms: 0,
    }
}

/// A decision in the form of the vectors.
fn written(decision: &Decision) -> Value {
    match decision {
        Decision::Accept(accepted) => json!({ "accept": accepted.outcomes.iter().map(|outcome| json!({
            "entity": outcome.key.entity.as_str(),
            "id": outcome.key.id.as_str(),
            "version": outcome.record.version.0,
            "editVersion": outcome.record.edit_version.0,
            "payload": outcome.record.payload.as_ref().map(Payload::as_str),
        })).collect::<Vec<_>>() }),
        Decision::Reject(rejection) => json!({
            "reject": rejection.code.as_str(),
            "changes": rejection.changes.iter().map(|change| json!({
                "index": change.index,
                "code": change.code.as_str(),
                "current": change.current.as_ref().map(|current| json!({
                    "version": current.version.0,
                    "payload": current.payload.as_deref(),
                })),
            })).collect::<Vec<_>>(),
        }),
        Decision::Block(by) => json!({ "block": by.iter().map(GroupId::as_str).collect::<Vec<_>>() }),
    }
}

#[test]
fn groups_are_decided_as_the_vectors_say() {
    for case in cases("decide.json", 60) {
        let mut limits = Limits::default();
        if let Some(bytes) = case["payloadBytes"].as_u64() {
            limits.payload_bytes = bytes;
        }
        let group = group(&case);
        let decision = decide(&group, &standing(&case), &facts(&case, &group), None, &limits);
        let decision = decision.expect("everything is known");
        assert_eq!(written(&decision), case["expected"], "{}", name(&case));
        if let Decision::Reject(rejection) = &decision {
            assert!(!rejection.message.is_empty(), "{}: a rejection says why", name(&case));
            assert!(rejection.changes.iter().all(|change| change.key == group.changes()[change.index].key));
        }
    }
}
