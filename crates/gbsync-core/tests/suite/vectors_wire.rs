//! `vectors/wire/`: golden messages, byte for byte what core writes, and read back as what they were written from.

use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::decide::{Outcome, Record};
use gbsync_core::digest::Digest;
use gbsync_core::group::{Group, Header};
use gbsync_core::id::*;
use gbsync_core::limits::Limits;
use gbsync_core::scope::ScopeSet;
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::{ChangeCode, CurrentRecord, RefusedChange, Rejection, RejectionCode, Verdict};
use gbsync_core::wire::*;

/// A golden message, without the line feed that ends its file.
fn golden(file: &str) -> String {
    let text = crate::vectors::text(&format!("wire/{file}.json"));
    text.strip_suffix('\n').expect("a golden file ends with a line feed").to_owned()
}

fn id(text: &str) -> GroupId {
    GroupId::new(text).unwrap()
}

fn payload(text: &str) -> Payload {
    Payload::parse(text, &Limits::default()).unwrap()
}

fn change(entity: &str, record: &str, edit: Edit, version: u64, group: Option<&str>) -> Change {
    let base = Base { version: Seq(version), group: group.map(id) };
    Change::new(RecordKey::new(entity, record).unwrap(), edit, base).unwrap()
}

fn header(text: &str, group_type: Option<&str>, number: u64, created_at: &str) -> Header {
    Header {
        id: id(text),
        group_type: group_type.map(|text| GroupType::new(text).unwrap()),
        device_seq: DeviceSeq(number),
        actor: None,
        created_at: Timestamp::new(created_at).unwrap(),
        schema_version: 0,
        depends_on: vec![],
        replaces: None,
        family: None,
        log: None,
        hlc: None,
        clears: vec![],
    }
}

fn sent_groups() -> Vec<Group> {
    let log = Some(LogId::new("log-1").unwrap());
    let receipt = Header {
        actor: Some(Actor::new("cashier-7").unwrap()),
        log: log.clone(),
        ..header("receipt-create:receipt-001:0192-b", Some("receipt-create"), 17, "2026-06-03T20:52:59.123Z")
    };
    let product = Header {
        schema_version: 3,
        depends_on: vec![id("change:products-p7:0192-a")],
        log,
        ..header("change:products-p7:0192-c", None, 18, "2026-06-03T20:53:00.000Z")
    };
    let note = Header {
        replaces: Some(id("note-void:n1:0192-0")),
        ..header("note-void:n1:0192-d", Some("note-void"), 19, "2026-06-03T20:53:01.500Z")
    };
    let sale = vec![
        change("receipts", "receipt-001", Edit::Upsert(payload(r#"{"total":"120.00"}"#)), 0, None),
        change(
            "payments",
            "payment-001",
            Edit::Upsert(payload(r#"{"receiptId":"receipt-001","amount":"120.00"}"#)),
            0,
            None,
        ),
        change("stock", "paper-roll", Edit::Increment(payload(r#"{"quantity":-3}"#)), 9, Some("ignored")),
    ];
    let rename = payload(r#"{"price":120.0,"name":"R\u00f6ll \"big\""}"#);
    let renamed = vec![change("products", "p7", Edit::Patch(rename), 31, Some("change:products-p7:0192-a"))];
    let voided = vec![change("notes", "n1", Edit::Delete, 12, None)];
    [(receipt, sale), (product, renamed), (note, voided)]
        .map(|(header, changes)| Group::seal(header, changes, &Limits::default()).unwrap())
        .into()
}

#[test]
fn a_push_request_is_written_and_read_as_the_golden_one() {
    let groups = sent_groups();
    let written: Vec<String> = groups.iter().map(group_json).collect();
    let (device, epoch) = (DeviceId::new("device-1").unwrap(), EpochId::new("epoch-1").unwrap());
    let batch = BatchId::new("batch-1").unwrap();
    let text = push_json(&device, &epoch, &batch, written.iter().map(String::as_str));
    assert_eq!(text, golden("push-request"));

    let request = PushRequest::parse(text.as_bytes(), &Limits::default()).unwrap();
    assert_eq!((&request.device, &request.epoch, &request.batch), (&device, &epoch, &Some(batch)));
    assert_eq!(request.groups.len(), groups.len());
    for (arrival, group) in request.groups.iter().zip(&groups) {
        assert_eq!(arrival.content, Content::Whole(Box::new(group.clone())));
        assert_eq!(
            (&arrival.id, arrival.device_seq, arrival.digest),
            (group.id(), group.header().device_seq, group.digest())
        );
        assert_eq!(parse_changes(group.changes_json(), &Limits::default()).unwrap(), group.changes());
    }
}

#[test]
fn a_push_request_without_groups_is_written_and_read_as_the_golden_one() {
    let (device, epoch) = (DeviceId::new("device-1").unwrap(), EpochId::new("epoch-1").unwrap());
    let text = push_json(&device, &epoch, &BatchId::new("batch-2").unwrap(), []);
    assert_eq!(text, golden("push-request-empty"));
    assert!(PushRequest::parse(text.as_bytes(), &Limits::default()).unwrap().groups.is_empty());
}

fn accepted(group: &str, seq: u64, is_duplicate: bool) -> GroupResult {
    GroupResult { id: id(group), verdict: Verdict::Accepted { seq: Seq(seq), is_duplicate, flags: vec![] } }
}

fn rejected(group: &str, code: RejectionCode, message: &str, rule: Option<&str>, is_duplicate: bool) -> GroupResult {
    let rejection = Rejection { code, message: message.into(), rule: rule.map(Into::into), changes: vec![] };
    GroupResult { id: id(group), verdict: Verdict::Rejected { rejection, is_duplicate } }
}

fn conflict() -> GroupResult {
    let message = "change 0 on receipts:r-1: the record was edited since this change was made, and 2 more like it";
    let refused = |index, entity, record, code, current| RefusedChange {
        index,
        key: RecordKey::new(entity, record).unwrap(),
        code,
        current,
    };
    let live = CurrentRecord { version: Seq(40), payload: Some(r#"{"total":120.0}"#.into()), reach: Default::default() };
    let deleted = CurrentRecord { version: Seq(41), payload: None, reach: Default::default() };
    let mut result = rejected("g-1", RejectionCode::Conflict, message, None, false);
    if let Verdict::Rejected { rejection, .. } = &mut result.verdict {
        rejection.changes = vec![
            refused(0, "receipts", "r-1", ChangeCode::VersionConflict, Some(live)),
            refused(1, "payments", "p-1", ChangeCode::Deleted, Some(deleted)),
            refused(2, "notes", "n-1", ChangeCode::Missing, None),
        ];
    }
    result
}

#[test]
fn answers_are_written_and_read_as_the_golden_ones() {
    let blocked = |group, by: &[&str]| GroupResult {
        id: id(group),
        verdict: Verdict::Blocked { by: by.iter().map(|group| id(group)).collect() },
    };
    let incomplete = |group, message: &str| GroupResult {
        id: id(group),
        verdict: Verdict::Incomplete { message: message.into(), missing: vec![] },
    };
    let reused = || rejected("g-2", RejectionCode::GroupIdReused, "the id stands for another content", None, false);
    let unknown = GroupResult { id: id("note \"x\":1"), verdict: Verdict::Unknown };
    let discarded = rejected("g-2", RejectionCode::Discarded, "discarded on request: rung up twice", None, true);
    let rule = "payments-cover-total";
    let by_rule =
        rejected("g-1", RejectionCode::InvariantViolation, "the payments do not cover the total", Some(rule), false);
    let damaged = incomplete("g-4", "the digest does not fit the changes that arrived");
    for (file, results, head) in [
        ("push-answer-accepted", vec![accepted("g-1", 42, false)], Some(57)),
        ("push-answer-duplicate", vec![accepted("g-1", 42, true), discarded], Some(57)),
        ("push-answer-rejected", vec![conflict()], Some(57)),
        ("push-answer-rejected-by-rule", vec![by_rule], Some(57)),
        ("push-answer-blocked", vec![blocked("g-2", &["g-0", "g-1"])], Some(57)),
        ("push-answer-incomplete", vec![incomplete("g-1", "changeCount says 3, 2 arrived")], Some(0)),
        ("push-answer-mixed", vec![accepted("g-1", 58, false), reused(), blocked("g-3", &["g-9"]), damaged], Some(58)),
        ("verdicts-answer", vec![accepted("g-1", 42, true), unknown], None),
    ] {
        let head = head.map(Seq);
        let text = answer_json(&results, head);
        assert_eq!(text, golden(file), "{file}");
        assert_eq!(parse_answer(text.as_bytes()).unwrap(), PushAnswer { results, head }, "{file}");
    }
}

#[test]
fn questions_about_verdicts_and_discards_are_written_and_read_as_the_golden_ones() {
    let ids = [id("g-1"), id("note \"x\":1")];
    let text = verdicts_request_json(&ids);
    assert_eq!(text, golden("verdicts-request"));
    assert_eq!(parse_verdicts_request(text.as_bytes()).unwrap(), ids);
    let reason = "rung up twice, said \"Ann\"".to_owned();
    let short = DiscardRequest { reason: reason.clone(), actor: None, sealed_as: None };
    let sealed_as = SealedAs {
        device: DeviceId::new("device-1").unwrap(),
        epoch: EpochId::new("epoch-1").unwrap(),
        device_seq: DeviceSeq(17),
        actor: Some(Actor::new("cashier-7").unwrap()),
        group_type: Some(GroupType::new("receipt-create").unwrap()),
    };
    let long = DiscardRequest { reason, actor: Some(Actor::new("ann").unwrap()), sealed_as: Some(sealed_as) };
    for (file, request) in [("discard-request", short), ("discard-request-of-a-device", long)] {
        assert_eq!(discard_json(&request), golden(file), "{file}");
        assert_eq!(parse_discard(golden(file).as_bytes()).unwrap(), request, "{file}");
    }
}

fn outcome(entity: &str, record: &str, version: u64, edit_version: u64, state: Option<&str>) -> Outcome {
    let record_state = Record {
        version: Seq(version),
        edit_version: Seq(edit_version),
        payload: state.map(payload),
        marks: None,
        reach: Default::default(),
    };
    Outcome { key: RecordKey::new(entity, record).unwrap(), record: record_state, cause: None }
}

#[test]
fn a_page_of_the_log_is_written_and_chained_and_read_as_the_golden_one() {
    let sale = changes_json(&[
        outcome("receipts", "receipt-001", 42, 42, Some(r#"{"total":"120.00"}"#)),
        outcome("stock", "paper-roll", 42, 5, Some(r#"{"quantity":-3}"#)),
    ]);
    let deletion = changes_json(&[outcome("notes", "n1", 43, 43, None)]);
    let groups = sent_groups();
    let (first, second) = (groups[0].header(), id("change:notes-n1:0192-e"));
    let entry = EntryHeader {
        seq: Seq(42),
        id: &first.id,
        group_type: first.group_type.as_ref(),
        device: &DeviceId::new("device-1").unwrap(),
        epoch: &EpochId::new("epoch-1").unwrap(),
        device_seq: DeviceSeq(17),
        actor: first.actor.as_ref(),
        created_at: &first.created_at,
        committed_at: &Timestamp::new("2026-06-03T20:53:02.004Z").unwrap(),
        replaces: None,
        hlc: None,
        flags: &[],
        clears: &[],
    };
    let other = EntryHeader {
        seq: Seq(43),
        id: &second,
        group_type: None,
        device: &DeviceId::new("device-2").unwrap(),
        epoch: &EpochId::new("epoch-9").unwrap(),
        device_seq: DeviceSeq(1),
        actor: None,
        created_at: &Timestamp::new("2026-06-03T20:53:01.500Z").unwrap(),
        committed_at: &Timestamp::new("2026-06-03T20:53:02.005Z").unwrap(),
        replaces: Some(&id("change:notes-n1:0192-0")),
        hlc: None,
        flags: &[],
        clears: &[],
    };
    let chain = Digest::ZERO.chained(Seq(42), &first.id, &sale).chained(Seq(43), &second, &deletion);
    let entries = [entry_json(&entry, 2, &sale), entry_json(&other, 1, &deletion)];
    let text = page_json(entries.iter().map(String::as_str), Seq(43), chain, Seq(57));
    assert_eq!(text, golden("log-page"));

    let page = LogPage::parse(text.as_bytes()).unwrap();
    assert_eq!((page.next, page.chain, page.head), (Seq(43), chain, Seq(57)));
    let read = page.entries[0].group.as_ref().unwrap();
    assert_eq!((page.entries[0].seq, &read.id, read.device_seq), (Seq(42), &first.id, DeviceSeq(17)));
    assert_eq!((read.device.as_str(), read.epoch.as_str()), ("device-1", "epoch-1"));
    let stock = &read.changes[1];
    assert_eq!((stock.key.to_string().as_str(), stock.version, stock.edit_version), ("stock:paper-roll", Seq(42), Seq(5)));
    assert_eq!(stock.state, LogState::Live(r#"{"quantity":-3}"#.into()));
    assert_eq!(page.entries[1].group.as_ref().unwrap().changes[0].state, LogState::Deleted);
    assert_eq!(page_json([], Seq(57), chain, Seq(57)), golden("log-page-empty"));
    assert!(LogPage::parse(golden("log-page-empty").as_bytes()).unwrap().entries.is_empty());
}

#[test]
fn a_page_with_words_of_later_versions_is_read() {
    let page = LogPage::parse(golden("log-page-of-a-later-version").as_bytes()).unwrap();
    let changes = &page.entries[0].group.as_ref().unwrap().changes;
    assert_eq!((&changes[0].state, &changes[1].state), (&LogState::Deleted, &LogState::Left));
    assert_eq!(changes[1].edit_version, Seq(42), "an absent edit version is the version");
    assert_eq!((page.entries[1].seq, page.entries[1].group.is_none()), (Seq(45), true));
    assert_eq!(page.next, Seq(50));
}

#[test]
fn handshakes_are_written_and_read_as_the_golden_ones() {
    let new = Handshake {
        space: SpaceId::new("shop").unwrap(),
        log: LogId::new("log-1").unwrap(),
        ancestors: vec![],
        schema_version: 0,
        head: Seq(0),
        chain: Digest::ZERO,
        agrees: None,
        agrees_up_to: None,
        horizon: Seq(0),
        server_time: Timestamp::new("2026-06-03T20:52:59.123Z").unwrap(),
        device: None,
        token: None,
        scopes: ScopeSet::All,
        scope_set: None,
        limits: Limits::default(),
    };
    let sale = changes_json(&[
        outcome("receipts", "receipt-001", 42, 42, Some(r#"{"total":"120.00"}"#)),
        outcome("stock", "paper-roll", 42, 5, Some(r#"{"quantity":-3}"#)),
    ]);
    let known = Handshake {
        log: LogId::new("log-2").unwrap(),
        ancestors: vec![Ancestor { log: LogId::new("log-1").unwrap(), up_to: Seq(120) }],
        schema_version: 3,
        head: Seq(157),
        chain: Digest::ZERO.chained(Seq(42), &id("receipt-create:receipt-001:0192-b"), &sale),
        agrees: None,
        agrees_up_to: None,
        horizon: Seq(100),
        device: Some(DeviceReport {
            epoch: EpochId::new("epoch-1").unwrap(),
            device_seq: DeviceSeq(17),
            sequences: [("receiptNo".to_owned(), 41)].into(),
        }),
        ..new.clone()
    };
    let actor = |name: &str| Actor::new(name).unwrap();
    let signed_in = Bearer {
        actor: Some(actor("cashier-7")),
        act_as: Some(ActAs::These([actor("manager-1"), actor("manager-2")].into())),
        expires_at: Some(Timestamp::new("2026-07-03T20:52:59.123Z").unwrap()),
    };
    let shift = Handshake { token: Some(signed_in), ..new.clone() };
    let any = Handshake { token: Some(Bearer { act_as: Some(ActAs::Anyone), ..Bearer::default() }), ..new.clone() };
    let scopes = ["north", "south"].map(|scope| Scope::new(scope).unwrap());
    let scopes = ScopeSet::These(scopes.into());
    let shop = Handshake { scope_set: Some(scopes.name(None).into()), scopes, ..new.clone() };
    for (file, handshake) in [
        ("handshake-of-a-new-space", new),
        ("handshake-of-a-device", known),
        ("handshake-of-an-actor", shift),
        ("handshake-of-a-device-that-acts-as-anyone", any),
        ("handshake-of-a-shop", shop),
    ] {
        assert_eq!(handshake.to_json(), golden(file), "{file}");
        assert_eq!(Handshake::parse(golden(file).as_bytes()).unwrap(), handshake, "{file}");
    }
    let later = golden("handshake-of-a-new-space").replace("\"protocol\":1", "\"protocol\":2");
    assert_eq!(Handshake::parse(later.as_bytes()).unwrap_err().pointer, "/protocol");
}

#[test]
fn problems_are_written_and_read_as_the_golden_ones() {
    let problem = |code, detail| Problem::new(code, detail);
    let unknown = r#"group g-1, change 2: "insert" is no action; use upsert, patch, increment or delete"#;
    let malformed =
        Problem { pointer: Some("/groups/0/changes/2/action".into()), ..problem(ProblemCode::Malformed, unknown) };
    let reused = Problem {
        pointer: Some("/groups/1/deviceSeq".into()),
        ..problem(ProblemCode::EpochReused, "deviceSeq 17 of this epoch belongs to g-0; begin a new epoch")
    };
    let resync = Problem {
        reason: Some("beyond_head".into()),
        ..problem(ProblemCode::ResyncRequired, "the log ends at 57; begin anew from 0")
    };
    let large =
        Problem { limit: Some(1_048_576), ..problem(ProblemCode::TooLarge, "send at most 1048576 bytes in one request") };
    let space = problem(ProblemCode::SpaceNotFound, "ask for a space that this token belongs to");
    let unavailable = problem(ProblemCode::Unavailable, "nothing was changed; try again");
    for (file, problem) in [
        ("problem-malformed", malformed),
        ("problem-epoch-reused", reused),
        ("problem-resync-required", resync),
        ("problem-too-large", large),
        ("problem-space-not-found", space),
        ("problem-unavailable", unavailable),
    ] {
        assert_eq!(problem.to_json(), golden(file), "{file}");
        assert_eq!(Problem::parse(golden(file).as_bytes()).unwrap(), problem, "{file}");
    }
    assert_eq!(Problem::parse(golden("problem-malformed").as_bytes()).unwrap().group_index(), Some(0));
}

#[test]
fn no_golden_message_is_left_out() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/wire");
    let source = concat!(
        include_str!("vectors_wire.rs"),
        include_str!("vectors_parts.rs"),
        include_str!("live.rs"),
        include_str!("vectors_wire_resolutions.rs"),
        include_str!("vectors_snapshot.rs"),
        include_str!("vectors_wire_restored.rs")
    );
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let is_read = match name.strip_suffix(".json") {
            Some(stem) => source.contains(&format!("\"{stem}\"")),
            None => source.contains(&format!("wire/{name}\"")),
        };
        assert!(is_read, "no test reads {name}");
    }
}
