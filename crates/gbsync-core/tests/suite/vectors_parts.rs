//! `vectors/wire/`: the golden messages of groups in parts, and parts that come together in any cut.

use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::decide::{Outcome, Record};
use gbsync_core::digest::Digest;
use gbsync_core::group::{Group, Header};
use gbsync_core::id::*;
use gbsync_core::limits::Limits;
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::*;

/// A golden message, without the line feed that ends its file.
fn golden(file: &str) -> String {
    let text = crate::vectors::text(&format!("wire/{file}.json"));
    text.strip_suffix('\n').expect("a golden file ends with a line feed").to_owned()
}

fn payload(text: &str) -> Payload {
    Payload::parse(text, &Limits::default()).unwrap()
}

fn header() -> Header {
    Header {
        id: GroupId::new("stock-take:shelf-1:0192-f").unwrap(),
        group_type: Some(GroupType::new("stock-take").unwrap()),
        device_seq: DeviceSeq(20),
        actor: None,
        created_at: Timestamp::new("2026-06-03T20:54:00.000Z").unwrap(),
        schema_version: 0,
        depends_on: vec![],
        replaces: None,
        family: None,
        log: None,
        hlc: None,
        clears: vec![],
    }
}

/// A count of four items.
fn group() -> Group {
    let change = |n: u64| {
        let key = RecordKey::new("items", &format!("item-{n}")).unwrap();
        let counted = payload(&format!(r#"{{"counted":{n},"note":"\",[{{"}}"#));
        Change::new(key, Edit::Upsert(counted), Base { version: Seq(n), group: None }).unwrap()
    };
    Group::seal(header(), (0..4).map(change).collect(), &Limits::default()).unwrap()
}

fn assembled(parts: &[String], count: u64, limits: &Limits) -> Content {
    let mut assembly = Assembly::new(count, limits);
    for part in parts {
        assembly.add(part).unwrap();
    }
    assembly.finish(header(), group().digest())
}

#[test]
fn a_group_in_parts_is_written_and_read_as_the_golden_one() {
    let group = group();
    let (text, bytes) = (group.changes_json(), group.changes_json().len() as u64);
    let cuts = cut(text, bytes / 2 + 10);
    assert_eq!(cuts.len(), 2);
    let wire = group_in_parts_json(group.header(), 4, group.digest(), bytes, 2);
    let (device, epoch) = (DeviceId::new("device-1").unwrap(), EpochId::new("epoch-1").unwrap());
    let push = push_json(&device, &epoch, &BatchId::new("batch-3").unwrap(), [wire.as_str()]);
    assert_eq!(push, golden("push-request-in-parts"));
    assert_eq!(part_json(text, &cuts[0]), golden("part-request"));
    assert_eq!(parse_part(golden("part-request").as_bytes(), &Limits::default()).unwrap(), 2);
    assert_eq!(part_answer_json(0), golden("part-answer"));
    assert_eq!(parse_part_answer(golden("part-answer").as_bytes()).unwrap(), 0);

    let request = PushRequest::parse(push.as_bytes(), &Limits::default()).unwrap();
    let (index, in_parts) = request.in_parts().unwrap();
    assert_eq!((index, in_parts.parts, in_parts.change_count), (0, 2, 4));
    assert_eq!((&in_parts.header, request.groups[0].digest), (group.header(), group.digest()));
}

#[test]
fn parts_come_together_as_the_group_they_were_cut_from_however_they_were_cut() {
    let group = group();
    let text = group.changes_json();
    for most_bytes in [1, 100, 150, 250, 10_000] {
        let parts: Vec<String> = cut(text, most_bytes).iter().map(|part| part_json(text, part)).collect();
        let whole = Content::Whole(Box::new(group.clone()));
        assert_eq!(assembled(&parts, 4, &Limits::default()), whole, "{most_bytes}");
    }
    // White space between the elements of a part belongs to no element.
    let spaced: Vec<String> = cut(text, 1).iter().map(|part| format!(" [ {} ] ", &text[part.clone()])).collect();
    assert!(matches!(assembled(&spaced, 4, &Limits::default()), Content::Whole(_)));
}

#[test]
fn parts_that_do_not_fit_what_the_group_says_are_no_group() {
    let (group, limits) = (group(), Limits::default());
    let text = group.changes_json();
    let parts: Vec<String> = cut(text, 1).iter().map(|part| part_json(text, part)).collect();
    assert!(matches!(assembled(&parts[..3], 4, &limits), Content::Incomplete(_)), "one is missing");
    assert!(matches!(assembled(&parts, 3, &limits), Content::Incomplete(_)), "one is too much");
    let swapped = [&parts[1], &parts[0], &parts[2], &parts[3]].map(Clone::clone);
    assert!(matches!(assembled(&swapped, 4, &limits), Content::Incomplete(_)), "the order belongs to the digest");
    let bytes = Limits { group_bytes: text.len() as u64 - 1, ..limits };
    assert!(matches!(assembled(&parts, 4, &bytes), Content::TooLarge(..)));
    assert!(matches!(assembled(&parts, 4, &Limits { group_records: 3, ..limits }), Content::TooLarge(..)));
    assert!(matches!(assembled(&parts, 4, &Limits { payload_bytes: 5, ..limits }), Content::TooLarge(..)));
    let unlisted = parts[0].replace(r#""payload""#, r#""baseGroup":"g-0","payload""#);
    let digest = Digest::of(unlisted.as_bytes());
    let mut assembly = Assembly::new(1, &limits);
    assembly.add(&unlisted).unwrap();
    assert!(matches!(assembly.finish(header(), digest), Content::Incomplete(_)), "its base is not among its dependencies");
}

#[test]
fn a_part_is_checked_when_it_arrives() {
    let limits = Limits { payload_bytes: 10, ..Limits::default() };
    let change = r#"{"entity":"notes","id":"n1","action":"upsert","payload":{"text":"long enough"}}"#;
    assert_eq!(parse_part(format!("[{change}]").as_bytes(), &limits).unwrap(), 1, "too large is the group's fault");
    for (text, pointer) in [
        ("[]".to_owned(), ""),
        (change.to_owned(), ""),
        (format!("[{change},"), "/1"),
        (format!("[{change},7]"), "/1"),
        (format!("[{}]", change.replace("upsert", "insert")), "/0/action"),
    ] {
        assert_eq!(parse_part(text.as_bytes(), &limits).unwrap_err().pointer, pointer, "{text}");
    }
}

#[test]
fn an_answer_that_names_missing_parts_is_written_and_read_as_the_golden_one() {
    let message = "parts of the group are not here; send them again, then push it again".into();
    let verdict = Verdict::Incomplete { message, missing: vec![0, 7] };
    let results = vec![GroupResult { id: header().id, verdict }];
    let text = answer_json(&results, Some(Seq(57)));
    assert_eq!(text, golden("push-answer-missing-parts"));
    assert_eq!(parse_answer(text.as_bytes()).unwrap(), PushAnswer { results, head: Some(Seq(57)) });
}

#[test]
fn an_entry_in_parts_is_written_and_read_as_the_golden_one() {
    let record = |n: u64| Record {
        version: Seq(58),
        edit_version: Seq(58),
        payload: Some(payload(&format!("{{\"n\":{n}}}"))),
        marks: Default::default(),
        reach: Default::default(),
    };
    let key = |n: u64| RecordKey::new("items", &format!("item-{n}")).unwrap();
    let changes = changes_json(&(0..4).map(|n| Outcome { key: key(n), record: record(n), cause: None }).collect::<Vec<_>>());
    let cuts = cut(&changes, changes.len() as u64 / 2 + 10);
    let header = header();
    let entry = EntryHeader {
        seq: Seq(58),
        id: &header.id,
        group_type: header.group_type.as_ref(),
        device: &DeviceId::new("device-1").unwrap(),
        epoch: &EpochId::new("epoch-1").unwrap(),
        device_seq: header.device_seq,
        actor: None,
        created_at: &header.created_at,
        committed_at: &Timestamp::new("2026-06-03T20:54:01.000Z").unwrap(),
        replaces: None,
        hlc: None,
        flags: &[],
        clears: &[],
    };
    let chain = Digest::ZERO.chained(Seq(58), &header.id, &changes);
    let text = page_json([entry_in_parts_json(&entry, 4, 2).as_str()], Seq(58), chain, Seq(58));
    assert_eq!(text, golden("log-page-with-parts"));
    assert_eq!(part_json(&changes, &cuts[1]), golden("log-part"));

    let page = LogPage::parse(text.as_bytes()).unwrap();
    let group = page.entries[0].group.as_ref().unwrap();
    assert_eq!((group.in_parts, group.changes.len()), (Some(LogParts { parts: 2, change_count: 4 }), 0));
    let part = parse_log_part(golden("log-part").as_bytes()).unwrap();
    assert_eq!((part.len(), &part[1].key, part[1].version), (2, &key(3), Seq(58)));
    for (wrong, pointer) in [
        (text.replace("\"parts\":2", "\"parts\":0"), "/groups/0/parts"),
        (text.replace("\"parts\":2", "\"parts\":2,\"changes\":[]"), "/groups/0/parts"),
    ] {
        assert_eq!(LogPage::parse(wrong.as_bytes()).unwrap_err().pointer, pointer);
    }
    assert_eq!(parse_log_part(b"{}").unwrap_err().pointer, "");
    let cut_off = golden("log-part").replace("}]", "}");
    assert!(parse_log_part(cut_off.as_bytes()).is_err());
}
