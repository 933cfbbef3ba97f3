//! The cases of `vectors/decide.json` that have a schema.

use crate::space::Space;
use crate::vectors::{change, document, group_ids, list, name};
use gbsync_core::change::{Change, Payload};
use gbsync_core::clock::Hlc;
use gbsync_core::decide::{Cause, Decision, Facts, check};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{DeviceSeq, GroupId, GroupType, Role};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::{ChangeCode, Flag, RejectionCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The server's clock in every case.
const NOW_MS: u64 = 1_780_000_000_000;

fn group(case: &Value, id: &str) -> Group {
    let changes: Vec<Change> = case["changes"].as_array().unwrap().iter().map(change).collect();
    let header = Header {
        id: GroupId::new(id).unwrap(),
        group_type: case["type"].as_str().map(|kind| GroupType::new(kind).unwrap()),
        device_seq: DeviceSeq(1),
        actor: None,
        created_at: Timestamp::from_unix_ms(0),
        schema_version: case["schemaVersion"].as_u64().unwrap_or(1),
        depends_on: if case["dependsOn"].is_array() { group_ids(&case["dependsOn"]) } else { Vec::new() },
        replaces: None,
        family: None,
        log: None,
        hlc: case["hlc"].as_str().map(|hlc| Hlc::parse(hlc).unwrap()),
        clears: Vec::new(),
    };
    Group::seal(header, changes, &Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", name(case)))
}

fn space(case: &Value, schemas: &Value) -> Space {
    let text = schemas[case["schema"].as_str().unwrap()].to_string();
    let schema = Schema::parse(&text).unwrap_or_else(|problems| panic!("{}: {problems}", name(case)));
    let mut space = Space::new(schema);
    space.limits.group_records = case["groupRecords"].as_u64().unwrap_or(space.limits.group_records);
    for (index, earlier) in case["setup"].as_array().unwrap().iter().enumerate() {
        let group = group(earlier, &format!("s{}", index + 1));
        let decision = space.push(&group, &space.standing(&group, None, NOW_MS));
        assert!(matches!(decision, Decision::Accept(_)), "{}: setup {index}: {decision:?}", name(case));
    }
    space
}

fn written_flags(flags: &[Flag]) -> Value {
    let flag = |flag: &Flag| {
        let key = flag.key.as_ref().map(|key| key.to_string());
        json!({ "code": flag.code.as_str(), "rule": flag.rule, "record": key })
    };
    flags.iter().map(flag).collect()
}

/// A decision in the form of the vectors.
fn written(decision: &Decision) -> Value {
    match decision {
        Decision::Accept(accepted) => {
            let records = accepted.outcomes.iter().map(|outcome| {
                let mut record = json!({
                    "entity": outcome.key.entity.as_str(),
                    "id": outcome.key.id.as_str(),
                    "version": outcome.record.version.0,
                    "editVersion": outcome.record.edit_version.0,
                    "payload": outcome.record.payload.as_ref().map(Payload::as_str),
                });
                if outcome.cause == Some(Cause::Cascade) {
                    record["cause"] = json!("cascade");
                }
                record
            });
            json!({ "accept": records.collect::<Vec<_>>(), "flags": written_flags(&accepted.flags) })
        }
        Decision::Reject(rejection) => json!({
            "reject": rejection.code.as_str(),
            "rule": rejection.rule,
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
fn groups_are_decided_by_a_schema_as_the_vectors_say() {
    let schemas = document("decide.json")["schemas"].clone();
    let (mut codes, mut wrong) = (BTreeSet::new(), Vec::new());
    for case in list("decide.json", "ruled", 110) {
        let mut space = space(&case, &schemas);
        let group = group(&case, "g");
        let roles = case["roles"].as_array();
        let roles = roles.map(|roles| roles.iter().map(|role| Role::new(role.as_str().unwrap()).unwrap()).collect());
        let standing = space.standing(&group, roles, NOW_MS);
        let (_, rounds) = space.decide_anew(&group, &standing);
        let most = case["rounds"].as_u64().unwrap_or(1);
        let decision = space.push(&group, &standing);
        let written = written(&decision);
        if written != case["expected"] || rounds as u64 > most {
            wrong.push(format!("{}: {written} in {rounds} rounds, not {}\n{decision:?}\n", name(&case), case["expected"]));
        }
        if let Decision::Reject(rejection) = &decision {
            codes.insert(rejection.code);
            assert!(rejection.message.len() > 20, "{}: a rejection says what to do", name(&case));
            assert!(rejection.changes.iter().all(|change| change.key == group.changes()[change.index].key));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    // The others need what no schema says: another log, an amended group, a scope, a discard, an id used twice.
    let elsewhere = [
        RejectionCode::DependencyRejected,
        RejectionCode::AlreadyReplaced,
        RejectionCode::Discarded,
        RejectionCode::BaseLost,
        RejectionCode::GroupIdReused,
        RejectionCode::ScopeViolation,
    ];
    for code in RejectionCode::ALL.iter().filter(|code| !elsewhere.contains(code)) {
        assert!(codes.contains(code), "no case is rejected with {code}");
    }
}

/// What a device hears when it seals is what the server will say, but for rights and conflicts.
#[test]
fn a_device_checks_what_the_server_decides() {
    let schemas = document("decide.json")["schemas"].clone();
    for case in list("decide.json", "ruled", 110) {
        let space = space(&case, &schemas);
        let group = group(&case, "g");
        if group.header().schema_version < space.schema.version {
            continue;
        }
        let (decision, _) = space.decide_anew(&group, &space.standing(&group, None, NOW_MS));
        let mut facts = Facts::default();
        let checked = loop {
            let kind = group.header().group_type.as_ref();
            match check(group.changes(), &facts, &space.schema, kind, &space.limits) {
                Ok(checked) => break checked,
                Err(needs) => space.answer(&needs, &mut facts),
            }
        };
        match (decision, checked) {
            (Decision::Accept(accepted), checked) => assert_eq!(Ok(accepted.flags), checked, "{}", name(&case)),
            (Decision::Reject(rejection), checked) => {
                let is_conflict = rejection.changes.iter().any(|change| change.code != ChangeCode::Invalid);
                if !is_conflict && rejection.code != RejectionCode::ClockSkew {
                    assert_eq!(Err(rejection), checked, "{}", name(&case));
                }
            }
            (Decision::Block(_), _) => {}
        }
    }
}
