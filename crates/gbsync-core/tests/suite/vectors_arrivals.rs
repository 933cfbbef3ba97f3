//! `vectors/arrivals.json`: what a server makes of push requests before it decides anything.

use crate::vectors::{bytes, cases, name};
use gbsync_core::limits::Limits;
use gbsync_core::wire::{Content, PushRequest};

#[test]
fn requests_arrive_as_the_vectors_say() {
    for case in cases("arrivals.json", 60) {
        let default = Limits::default();
        let limits = Limits {
            payload_bytes: case["payloadBytes"].as_u64().unwrap_or(default.payload_bytes),
            group_records: case["groupRecords"].as_u64().unwrap_or(default.group_records),
            group_bytes: case["groupBytes"].as_u64().unwrap_or(default.group_bytes),
            ..default
        };
        let request = PushRequest::parse(&bytes(&case), &limits);
        let Some(expected) = case["groups"].as_array() else {
            let error = request.expect_err(name(&case));
            assert_eq!(error.pointer, case["pointer"].as_str().unwrap(), "{}: {}", name(&case), error.message);
            assert!(!error.message.is_empty());
            continue;
        };
        let request = request.unwrap_or_else(|error| panic!("{}: {error}", name(&case)));
        let content = |group: &gbsync_core::wire::Arrival| match &group.content {
            Content::Whole(_) => "whole",
            Content::InParts(_) => "in_parts",
            Content::Incomplete(_) | Content::Missing(_) => "incomplete",
            Content::TooLarge(..) => "too_large",
        };
        assert_eq!(request.groups.iter().map(content).collect::<Vec<_>>(), *expected, "{}", name(&case));
    }
}

#[test]
fn a_long_chain_against_the_order_of_the_request_is_read_at_once() {
    let (count, noise) = (2_000, r#""x","#.repeat(20));
    let groups: Vec<String> = (0..count)
        .map(|index| {
            let next = index + 1;
            format!(
                r#"{{"syncGroupId":"g{index}","syncGroupType":null,"deviceSeq":{next},"createdAt":"2026-01-01T00:00:00Z","dependsOn":[{noise}"g{next}"],"changeCount":1,"digest":"96b7b3ae","changes":[{{"entity":"e","id":"1","action":"delete"}}]}}"#
            )
        })
        .collect();
    let text = format!(r#"{{"device":"d","epoch":"e","groups":[{}]}}"#, groups.join(","));
    let digest = gbsync_core::digest::Digest::of(br#"[{"entity":"e","id":"1","action":"delete"}]"#).to_string();
    let text = text.replace("96b7b3ae", &digest);
    let begun = std::time::Instant::now();
    let request = PushRequest::parse(text.as_bytes(), &Limits::default()).unwrap();
    assert!(matches!(request.groups[0].content, Content::Whole(_)));
    assert!(begun.elapsed().as_secs() < 5, "reading is linear in groups and dependencies");
}
