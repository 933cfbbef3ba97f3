//! `vectors/wire/`: golden messages about rejections and how they are closed.

use gbsync_core::change::{Edit, Payload};
use gbsync_core::digest::Digest;
use gbsync_core::id::*;
use gbsync_core::limits::Limits;
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::*;
use gbsync_core::wire::*;

fn golden(file: &str) -> String {
    let text = crate::vectors::text(&format!("wire/{file}.json"));
    text.strip_suffix('\n').expect("a golden file ends with a line feed").to_owned()
}

fn id(text: &str) -> GroupId {
    GroupId::new(text).unwrap()
}

fn ann() -> Option<Actor> {
    Some(Actor::new("ann").unwrap())
}

fn amended(of: &str, by: &str) -> Resolution {
    let reason = Some("wrong price".into());
    Resolution { of: id(of), resolved_as: ResolvedAs::Amended, by: Some(id(by)), actor: ann(), reason }
}

#[test]
fn a_page_with_resolutions_is_written_and_chained_and_read_as_the_golden_one() {
    let first = amended("receipt-create:receipt-001:0192-b", "receipt-create:receipt-001:0192-x");
    let of = id("note-void:n1:0192-d");
    let second = Resolution { of, resolved_as: ResolvedAs::Discarded, by: None, actor: None, reason: None };
    let chain = Digest::ZERO.chained(Seq(43), &first.of, "[]").chained(Seq(44), &second.of, "[]");
    let entries = [resolution_entry_json(Seq(43), &first), resolution_entry_json(Seq(44), &second)];
    let text = page_json(entries.iter().map(String::as_str), Seq(44), chain, Seq(57));
    assert_eq!(text, golden("log-page-with-resolution"));
    let page = LogPage::parse(text.as_bytes()).unwrap();
    let read: Vec<_> = page.entries.into_iter().map(|entry| (entry.seq, entry.resolution.unwrap())).collect();
    assert_eq!(read, [(Seq(43), first), (Seq(44), second)]);
    let unknown = golden("log-page-with-resolution").replace("amended", "forgotten");
    assert_eq!(LogPage::parse(unknown.as_bytes()).unwrap_err().pointer, "/groups/0/resolution/as");
}

#[test]
fn requests_to_close_a_rejection_are_read_as_the_golden_ones() {
    let key = || RecordKey::new("receipts", "receipt-001").unwrap();
    let read = |resolved_as, file| Resolve::parse(resolved_as, golden(file).as_bytes(), &Limits::default()).unwrap();
    let total = Edit::Upsert(Payload::from_stored(r#"{"total":"120.00"}"#));
    let remedy = Some(Remedy { group_type: None, root: None, edits: vec![(key(), total)] });
    let amend = Resolve { resolved_as: ResolvedAs::Amended, reason: "wrong price".into(), actor: None, remedy };
    assert_eq!(read(ResolvedAs::Amended, "amend-request"), amend);
    let group_type = Some(GroupType::new("receipt-void").unwrap());
    let remedy = Some(Remedy { group_type, root: Some("receipt-001".into()), edits: vec![(key(), Edit::Delete)] });
    let back = Resolve { resolved_as: ResolvedAs::Compensated, reason: "paid back".into(), actor: ann(), remedy };
    assert_eq!(read(ResolvedAs::Compensated, "compensate-request"), back);
    let close = Resolve { resolved_as: ResolvedAs::Discarded, reason: "rung up twice".into(), actor: ann(), remedy: None };
    assert_eq!(read(ResolvedAs::Discarded, "close-request"), close);
    let rootless = golden("compensate-request").replace("\"root\":\"receipt-001\"", "\"root\":\" \"");
    let refused = Resolve::parse(ResolvedAs::Compensated, rootless.as_bytes(), &Limits::default());
    assert_eq!(refused.unwrap_err().pointer, "/root");
}

fn rejected(group: &str, code: RejectionCode, message: &str, is_duplicate: bool) -> GroupResult {
    let rejection = Rejection { code, message: message.into(), rule: None, changes: vec![] };
    GroupResult { id: id(group), verdict: Verdict::Rejected { rejection, is_duplicate } }
}

fn rejections() -> [RejectedGroup; 2] {
    let message = "change 0 on receipts:r-1: the record was edited since this change was made";
    let mut result = rejected("g-1", RejectionCode::Conflict, message, true);
    if let Verdict::Rejected { rejection, .. } = &mut result.verdict {
        let current =
            CurrentRecord { version: Seq(40), payload: Some(r#"{"total":120.0}"#.into()), reach: Default::default() };
        let key = RecordKey::new("receipts", "r-1").unwrap();
        rejection.changes = vec![RefusedChange { index: 0, key, code: ChangeCode::VersionConflict, current: Some(current) }];
    }
    let time = |text| Timestamp::new(text).unwrap();
    let sealed_as = SealedAs {
        device: DeviceId::new("device-1").unwrap(),
        epoch: EpochId::new("epoch-1").unwrap(),
        device_seq: DeviceSeq(17),
        actor: None,
        group_type: None,
    };
    let changes = r#"[{"entity":"receipts","id":"r-1","action":"patch","baseVersion":31,"payload":{"total":"9.00"}}]"#;
    let open = RejectedGroup {
        id: id("g-1"),
        group_type: Some(GroupType::new("receipt-create").unwrap()),
        sealed_as: Some(sealed_as),
        actor: Some(Actor::new("cashier-7").unwrap()),
        created_at: Some(time("2026-06-03T20:52:59.123Z")),
        decided_at: time("2026-06-03T20:53:02.004Z"),
        replaces: None,
        result,
        closed: None,
        changes: Some(changes.into()),
    };
    let at = time("2026-06-03T20:53:02.005Z");
    let reason = Some("rung up twice".into());
    let closed = RejectedGroup {
        id: id("g-2"),
        group_type: None,
        sealed_as: None,
        actor: None,
        created_at: None,
        decided_at: at.clone(),
        replaces: Some(id("g-0")),
        result: rejected("g-2", RejectionCode::Discarded, "rung up twice", true),
        closed: Some(Closed { closed_as: "discarded".into(), by: None, actor: ann(), reason, at }),
        changes: None,
    };
    [open, closed]
}

#[test]
fn rejections_and_what_closed_them_are_written_as_the_golden_ones() {
    let rejections = rejections();
    assert_eq!(rejections_json(&rejections), golden("rejections"));
    assert_eq!(rejection_json(&rejections[0]), golden("rejection"));
    let accepted = Verdict::Accepted { seq: Seq(58), is_duplicate: false, flags: vec![] };
    let result = GroupResult { id: id("g-9"), verdict: accepted };
    let resolved = resolved_json(Some((&amended("g-1", "g-9"), Seq(59))), Some(&result), Some(Seq(59)));
    assert_eq!(resolved, golden("resolved-answer"));
    let refused = rejected("g-9", RejectionCode::TooLarge, "write it as several", false);
    assert_eq!(resolved_json(None, Some(&refused), None), golden("resolved-answer-refused"));
}
