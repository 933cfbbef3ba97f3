//! The body of a push: what core reads, and what the server answers.

use crate::stand::Stand;
use gbsync_core::digest::Digest;
use gbsync_core::id::BatchId;
use gbsync_core::limits::Limits;
use gbsync_core::verdict::{RejectionCode, Verdict};
use gbsync_core::wire::{
    Arrival, Content, GroupResult, LogPage, PushRequest, WireError, group_json, parse_answer, push_json,
};
use std::cell::RefCell;

/// Small, so that what is over a limit is within reach.
const LIMITS: Limits = Limits {
    batch_records: 40,
    batch_bytes: 64 * 1024,
    request_bytes: 64 * 1024,
    group_records: 8,
    group_bytes: 4 * 1024,
    payload_bytes: 512,
};
const PUSH: &str = "/v1/spaces/shop/push";

thread_local! {
    static STAND: RefCell<Option<Stand>> = const { RefCell::new(None) };
}

/// A push is refused with a place in it, or answered; the same again is answered the same and changes nothing.
///
/// # Panics
/// When the server fails, or contradicts core or itself.
pub fn push_body(data: &[u8]) {
    let read = PushRequest::parse(data, &LIMITS);
    match &read {
        Ok(request) => arrived_is_sent_alike(request),
        Err(error) => points_into(error, data),
    }
    STAND.with_borrow_mut(|kept| {
        let stand = kept.take().unwrap_or_else(|| Stand::new(LIMITS, None));
        // What a push left behind must not meet the next one.
        if !changes_something(&stand, data, read.as_ref().ok()) {
            *kept = Some(stand);
        }
    });
}

/// An error points at something that is there, or at what is missing from something that is there.
fn points_into(error: &WireError, data: &[u8]) {
    assert!(error.pointer.is_empty() || error.pointer.starts_with('/'), "no pointer: {}", error.pointer);
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let around = error.pointer.rsplit_once('/').map_or("", |(around, _)| around);
    assert!(value.pointer(around).is_some(), "nothing is at {around}: {error}");
}

/// What arrived whole arrives whole and the same when it is sent on.
fn arrived_is_sent_alike(request: &PushRequest) {
    let whole: Vec<&Arrival> =
        request.groups.iter().filter(|arrival| matches!(arrival.content, Content::Whole(_))).collect();
    let texts: Vec<String> = whole
        .iter()
        .filter_map(|arrival| match &arrival.content {
            Content::Whole(group) => {
                assert_eq!(group.digest(), Digest::of(group.changes_json().as_bytes()));
                Some(group_json(group))
            }
            _ => None,
        })
        .collect();
    let batch = BatchId::new("again").expect("an id");
    let text = push_json(&request.device, &request.epoch, &batch, texts.iter().map(String::as_str));
    let again = PushRequest::parse(text.as_bytes(), &LIMITS).expect("what was read can be sent on");
    assert!(again.groups.iter().eq(whole), "a group arrives otherwise than it was sent");
}

/// Pushes twice and looks at the log. Answers whether the server knows more than before.
fn changes_something(stand: &Stand, data: &[u8], read: Option<&PushRequest>) -> bool {
    let first = stand.post(PUSH, data.to_vec());
    let Some(request) = read else {
        let is_too_large = data.len() as u64 > LIMITS.request_bytes && first.status == 413;
        assert!(first.status == 400 || is_too_large, "malformed, and answered {}", first.status);
        return false;
    };
    if first.status != 200 {
        assert!(matches!(first.status, 400 | 403 | 409 | 413), "answered {}", first.status);
        return head(stand) > 0;
    }
    let first = parse_answer(&first.body).expect("an answer of the protocol");
    assert_eq!(first.results.len(), request.groups.len(), "one result a group");
    let before = head(stand);
    let second = stand.post(PUSH, data.to_vec());
    assert_eq!(second.status, 200, "P3: the same push again");
    let second = parse_answer(&second.body).expect("an answer of the protocol");
    for (first, second) in first.results.iter().zip(&second.results) {
        if is_decided(first) {
            assert_eq!(verdict(first), verdict(second), "P3: another verdict the second time");
        }
    }
    // What waited for a group behind it in the same push may go on now.
    if !first.results.iter().any(|result| matches!(result.verdict, Verdict::Blocked { .. })) {
        assert_eq!(before, head(stand), "P3: the same push again changes the log");
    }
    first.results.iter().any(is_decided)
}

fn is_decided(result: &GroupResult) -> bool {
    match &result.verdict {
        Verdict::Accepted { .. } => true,
        Verdict::Rejected { rejection, .. } => rejection.code != RejectionCode::ClockSkew,
        _ => false,
    }
}

/// A verdict, whenever it was reached.
fn verdict(result: &GroupResult) -> Verdict {
    let mut verdict = result.verdict.clone();
    if let Verdict::Accepted { is_duplicate, .. } | Verdict::Rejected { is_duplicate, .. } = &mut verdict {
        *is_duplicate = false;
    }
    verdict
}

/// How long the log is; every entry of it must be readable.
fn head(stand: &Stand) -> u64 {
    let page = stand.get("/v1/spaces/shop/log?after=0");
    assert_eq!(page.status, 200, "the log is answered");
    let page = LogPage::parse(&page.body).expect("a page of the protocol");
    assert_eq!(page.entries.len() as u64, page.head.0, "P8: the log has gaps");
    page.head.0
}
