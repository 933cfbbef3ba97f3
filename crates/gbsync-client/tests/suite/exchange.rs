//! Groups between devices and a server: whole, once, in order, whatever the network does.

use crate::common::{Device, Fault, World, html, is_push, problem};
use gbsync_client::{Error, GroupState, SyncOptions};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fails the first push this way and lets everything else pass.
fn fail_first_push(device: &Device, fault: Fault) {
    let mut fault = Some(fault);
    device.transport.plan(move |request| match is_push(request) {
        true => fault.take().unwrap_or(Fault::Pass),
        false => Fault::Pass,
    });
}

#[test]
fn a_group_reaches_another_device_whole() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "120.00");
    let report = a.sync();
    assert_eq!((report.accepted, report.pulled_groups, report.waiting, report.cursor.0), (1, 1, 0, 1));
    b.sync();
    assert_eq!(b.read("receipts", "r1").unwrap(), r#"{"total":"120.00"}"#);
    assert_eq!(b.read("payments", "p-r1").unwrap(), r#"{"amount":"120.00","receiptId":"r1"}"#);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.digest(), world.digest());
}

#[test]
fn the_second_edit_of_a_record_in_another_group_does_not_tear_the_first_group() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.client.operation::<Error>("receipt-edit", "r1", |op| op.patch("receipts", "r1", r#"{"note":"late"}"#)).unwrap();
    a.transport.plan(|_| Fault::Pass);
    let report = a.sync();
    assert_eq!((report.pushed, report.accepted), (2, 2));
    let pushed = a.transport.pushes().concat();
    assert!(pushed.contains(r#""changeCount":2"#) && pushed.contains(r#""changeCount":1"#), "{pushed}");
    b.sync();
    assert_eq!(b.read("receipts", "r1").unwrap(), r#"{"note":"late","total":"1.00"}"#);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn an_edit_made_on_data_that_a_pull_replaced_before_sealing_conflicts() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.sync();
    b.sync();
    let mut open = b.client.begin("receipt-edit", "r1").unwrap();
    assert!(open.read("receipts", "r1").unwrap().is_some());
    a.client.operation::<Error>("receipt-edit", "r1", |op| op.patch("receipts", "r1", r#"{"total":"2.00"}"#)).unwrap();
    a.sync();
    b.sync();
    open.upsert("receipts", "r1", r#"{"total":"3.00"}"#).unwrap();
    open.seal().unwrap();
    let report = b.sync();
    assert_eq!(report.parked.len(), 1);
    assert_eq!(report.parked[0].code.as_deref(), Some("conflict"));
    assert_eq!(b.read("receipts", "r1").unwrap(), r#"{"total":"2.00"}"#, "the refused edit left the view");
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn of_100_pending_sales_of_one_product_with_the_first_refused_99_are_accepted() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.client.upsert("stock", "paper", r#"{"quantity":1000}"#).unwrap();
    a.receipt("r0", "0.50");
    a.sync();
    b.sync();
    let sell = |device: &Device, receipt: &str| {
        let sold = device.client.operation::<Error>("receipt-create", receipt, |op| {
            op.upsert("receipts", receipt, r#"{"total":"1.00"}"#)?;
            op.increment("stock", "paper", r#"{"quantity":-1}"#)
        });
        sold.unwrap()
    };
    sell(&a, "r1");
    a.sync();
    for n in 1..=100 {
        sell(&b, &format!("r{n}"));
    }
    assert_eq!(b.read("stock", "paper").unwrap(), r#"{"quantity":900}"#);
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len()), (99, 1));
    assert_eq!(report.parked[0].root.as_deref(), Some("r1"));
    assert_eq!(b.read("stock", "paper").unwrap(), r#"{"quantity":900}"#, "1000 less a's sale and 99 of b's");
    a.sync();
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn what_depends_on_a_rejected_group_is_parked_with_it_and_the_rest_goes_on() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.sync();
    b.receipt("r1", "9.00");
    b.client
        .operation::<Error>("receipt-edit", "r1", |op| {
            op.patch("receipts", "r1", r#"{"note":"x"}"#)?;
            op.upsert("notes", "n1", "{}")
        })
        .unwrap();
    b.client.operation::<Error>("note-edit", "n1", |op| op.patch("notes", "n1", r#"{"y":1}"#)).unwrap();
    b.receipt("r2", "2.00");
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len()), (1, 3));
    assert_eq!(b.read("receipts", "r1").unwrap(), r#"{"total":"1.00"}"#);
    assert_eq!(b.read("notes", "n1"), None, "the dependents left with it");
    let parked: Vec<_> = b.states().into_iter().filter(|(state, _)| *state == GroupState::Parked).collect();
    assert_eq!(parked.len(), 3);
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_record_state WHERE state = 'parked'"), 3, "one row a record");
    b.client.operation::<Error>("receipt-edit", "r1", |op| op.patch("receipts", "r1", r#"{"note":"again"}"#)).unwrap();
    assert_eq!(b.sync().accepted, 1, "a fresh edit of the confirmed record is free of them");
}

#[test]
fn a_lost_answer_is_repaired_without_a_duplicate_and_with_the_same_bytes() {
    let world = World::new();
    let device = world.device("a");
    device.receipt("r1", "1.00");
    // The log is out of reach too, so only the second push can tell.
    device.transport.plan(|request| match (is_push(request), request.path.contains("/log?")) {
        (true, _) => Fault::DropAnswer,
        (_, true) => Fault::DropRequest,
        _ => Fault::Pass,
    });
    assert_eq!(device.try_sync().unwrap_err().code(), "not_reached");
    assert_eq!(world.digest().0, 1, "it had arrived");
    assert_eq!(device.states(), [(GroupState::Sealed, None)]);
    device.transport.heal();
    let report = device.sync();
    assert_eq!((report.accepted, report.waiting), (1, 0));
    assert_eq!(world.digest().0, 1);
    let changes: Vec<String> =
        device.transport.pushes().iter().map(|body| body[body.find(r#""groups":"#).unwrap()..].to_owned()).collect();
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0], changes[1], "the same bytes in every attempt");
}

#[test]
fn a_lost_answer_is_repaired_by_the_log_when_that_arrives_first() {
    let world = World::new();
    let device = world.device("a");
    device.receipt("r1", "1.00");
    fail_first_push(&device, Fault::DropAnswer);
    assert_eq!(device.try_sync().unwrap_err().code(), "not_reached");
    assert_eq!(device.states(), [(GroupState::Accepted, None)], "the round pulled the log after the failed push");
    let pushes = device.transport.pushes().len();
    let report = device.sync();
    assert_eq!((report.pushed, report.waiting, report.cursor.0), (0, 0, 1));
    assert_eq!(device.transport.pushes().len(), pushes, "nothing is sent again");
    assert_eq!(device.digest(), world.digest());
}

#[test]
fn nothing_but_an_answer_is_taken_for_one() {
    let world = World::new();
    let device = world.device("a");
    device.receipt("r1", "1.00");
    let empty = |status, content_type: &str, body: &str| gbsync_client::Response {
        status,
        content_type: Some(content_type.into()),
        retry_after_ms: None,
        body: body.into(),
    };
    let foreign = r#"{"results":[{"syncGroupId":"x","status":"accepted","seq":1,"duplicate":false,"flags":[]}],"head":1}"#;
    for fault in [
        Fault::Answer(html(200)),
        Fault::Answer(empty(200, "application/json", r#"{"results":[{"sync"#)),
        Fault::Answer(empty(200, "application/json", r#"{"results":[],"head":0}"#)),
        Fault::Answer(empty(200, "application/json", foreign)),
        Fault::Answer(empty(200, "application/json", "")),
        Fault::Answer(empty(520, "text/html", "")),
        Fault::Answer(html(403 + 99)),
        Fault::Answer(html(404)),
        Fault::Answer(html(301)),
        Fault::Answer(problem(503, "unavailable", None)),
        Fault::Answer(problem(429, "rate_limited", None)),
        Fault::DropRequest,
        Fault::Truncate(20),
    ] {
        device.transport.plan({
            let fault = fault.clone();
            move |request| match (is_push(request), request.path.contains("/log?")) {
                (true, _) => fault.clone(),
                (_, true) => Fault::DropRequest,
                _ => Fault::Pass,
            }
        });
        assert_eq!(device.try_sync().unwrap_err().code(), "not_reached", "{fault:?}");
        assert_eq!(device.states(), [(GroupState::Sealed, None)], "{fault:?}");
        assert!(device.client.status().unwrap().last_error.is_some(), "{fault:?}");
    }
    device.transport.heal();
    assert_eq!(device.sync().accepted, 1);
    assert_eq!(world.digest().0, 1);
    let status = device.client.status().unwrap();
    assert_eq!((status.last_error, status.next_attempt_at, status.is_stopped), (None, None, false));
}

#[test]
fn a_handshake_about_another_space_is_no_answer() {
    let world = World::new();
    let device = world.device("a");
    device.client.upsert("notes", "one", r#"{"text":"mine"}"#).unwrap();
    device.sync();
    let handshake = include_str!("../../../../vectors/wire/handshake-of-an-actor.json");
    let elsewhere = gbsync_client::Response {
        status: 200,
        content_type: Some("application/json".into()),
        retry_after_ms: None,
        body: handshake.replace(r#""space":"shop""#, r#""space":"market""#).into(),
    };
    device.transport.plan(move |request| match request.path.contains("?device=") {
        true => Fault::Answer(elsewhere.clone()),
        false => Fault::Pass,
    });
    assert_eq!(device.try_sync().unwrap_err().code(), "not_reached");
    assert!(device.client.status().unwrap().last_error.unwrap().message.contains("the space market"));
    device.transport.heal();
    device.sync();
    assert_eq!(device.query::<i64>("SELECT generation FROM gbsync_state"), 0, "the log was read anew");
    assert_eq!(device.query::<i64>("SELECT count(*) FROM gbsync_records"), 1);
}

#[test]
fn a_group_that_is_always_refused_as_malformed_is_parked_and_the_rest_flows() {
    let world = World::new();
    let device = world.device("a");
    for n in 0..5 {
        device.receipt(&format!("r{n}"), "1.00");
    }
    device.transport.plan(|request| {
        let body = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default()).into_owned();
        match body.split(r#"{"syncGroupId":"#).skip(1).position(|group| group.contains("receipt-create:r2:")) {
            Some(index) => Fault::Answer(problem(400, "malformed", Some(&format!("/groups/{index}/changes/0")))),
            None => Fault::Pass,
        }
    });
    let report = device.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (4, 1, 0));
    assert_eq!(report.parked[0].root.as_deref(), Some("r2"));
    assert_eq!(report.parked[0].code.as_deref(), Some("malformed"));
}

#[test]
fn a_group_that_is_refused_alone_without_a_pointer_is_parked_when_another_passes() {
    let world = World::new();
    let device = world.device("a");
    for n in 0..5 {
        device.receipt(&format!("r{n}"), "1.00");
    }
    device.transport.plan(|request| {
        let body = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default()).into_owned();
        if body.contains("receipt-create:r2:") { Fault::Answer(problem(400, "malformed", None)) } else { Fault::Pass }
    });
    let report = device.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (4, 1, 0));
    assert_eq!(report.parked[0].root.as_deref(), Some("r2"));
}

#[test]
fn an_envelope_that_is_always_refused_stops_the_queue_and_parks_nothing() {
    let world = World::new();
    let (device, other) = (world.device("a"), world.device("b"));
    other.receipt("x", "1.00");
    other.sync();
    for n in 0..5 {
        device.receipt(&format!("r{n}"), "1.00");
    }
    device.transport.plan(|request| {
        if is_push(request) { Fault::Answer(problem(400, "malformed", Some("/device"))) } else { Fault::Pass }
    });
    assert_eq!(device.try_sync().unwrap_err().code(), "stopped");
    assert!(device.states().iter().all(|(state, _)| *state == GroupState::Sealed));
    assert!(device.client.status().unwrap().is_stopped);
    assert!(device.read("receipts", "x").is_some(), "what others did still arrives");
    device.transport.heal();
    assert_eq!(device.sync().accepted, 5);
    assert!(!device.client.status().unwrap().is_stopped);
}

#[test]
fn a_token_that_is_refused_keeps_everything_and_asks_to_sign_in() {
    let world = World::new();
    let device = world.device("a");
    device.receipt("r1", "1.00");
    for (status, code) in [(401, "unauthenticated"), (403, "forbidden"), (404, "space_not_found")] {
        device.transport.plan(move |_| Fault::Answer(problem(status, code, None)));
        assert_eq!(device.try_sync().unwrap_err().code(), "sign_in");
        assert_eq!(device.states(), [(GroupState::WaitingForSignIn, Some("waiting_for_sign_in".into()))]);
    }
    device.transport.heal();
    assert_eq!(device.sync().accepted, 1);
}

#[test]
fn a_group_that_arrives_damaged_is_sent_again_and_parked_after_five_times() {
    let world = World::new();
    let device = world.device("a");
    device.receipt("r1", "1.00");
    let damaged = std::sync::Arc::new(AtomicUsize::new(0));
    let count = damaged.clone();
    device.transport.plan(move |request| {
        let body = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default()).into_owned();
        let Some((_, rest)) = body.split_once(r#"{"syncGroupId":""#) else { return Fault::Pass };
        count.fetch_add(1, Ordering::SeqCst);
        let id = rest.split('"').next().unwrap();
        let answer = format!(r#"{{"results":[{{"syncGroupId":"{id}","status":"incomplete","message":"x"}}],"head":0}}"#);
        let (content_type, body) = (Some("application/json".into()), answer.into_bytes());
        Fault::Answer(gbsync_client::Response { status: 200, content_type, retry_after_ms: None, body })
    });
    let report = device.sync();
    assert_eq!(damaged.load(Ordering::SeqCst), 5);
    assert_eq!(report.parked[0].code.as_deref(), Some("incomplete"));
    assert_eq!(device.read("receipts", "r1"), None);
}

#[test]
fn an_accepted_group_stays_in_view_until_the_cursor_passes_it() {
    let world = World::new();
    let device = world.device("a");
    device.receipt("r1", "1.00");
    device.transport.plan(|request| if request.path.contains("/log?") { Fault::DropRequest } else { Fault::Pass });
    assert!(device.try_sync().is_err());
    assert_eq!(device.states(), [(GroupState::Accepted, None)]);
    assert_eq!(device.read("receipts", "r1").unwrap(), r#"{"total":"1.00"}"#);
    assert_eq!(device.query::<String>("SELECT state FROM gbsync_record_state LIMIT 1"), "accepted");
    assert_eq!(device.digest().1, 0, "the base is the log's");
    device.transport.heal();
    device.sync();
    assert_eq!(device.query::<i64>("SELECT count(*) FROM gbsync_records"), 2, "and it shows once");
    assert_eq!(device.query::<i64>("SELECT count(*) FROM gbsync_record_state"), 0);
    assert_eq!(device.digest(), world.digest());
}

#[test]
fn a_pending_write_is_laid_over_what_a_pull_brings() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.client.upsert("stock", "paper", r#"{"name":"Paper","quantity":10}"#).unwrap();
    a.sync();
    b.sync();
    b.client.increment("stock", "paper", r#"{"quantity":-3}"#).unwrap();
    a.client.patch("stock", "paper", r#"{"name":"Roll"}"#).unwrap();
    a.client.increment("stock", "paper", r#"{"quantity":-1}"#).unwrap();
    a.sync();
    b.transport.plan(|request| if is_push(request) { Fault::DropRequest } else { Fault::Pass });
    assert!(b.try_sync().is_err());
    assert_eq!(b.read("stock", "paper").unwrap(), r#"{"name":"Roll","quantity":6}"#);
    b.transport.heal();
    b.sync();
    a.sync();
    assert_eq!(a.read("stock", "paper").unwrap(), r#"{"name":"Roll","quantity":6}"#);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn a_group_that_cannot_be_laid_entirely_is_hidden_entirely_and_still_sent() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.sync();
    b.sync();
    b.client
        .operation::<Error>("receipt-edit", "r1", |op| {
            op.patch("receipts", "r1", r#"{"note":"x"}"#)?;
            op.upsert("notes", "n1", r#"{"of":"r1"}"#)
        })
        .unwrap();
    b.client.patch("notes", "n1", r#"{"more":1}"#).unwrap();
    a.client.operation::<Error>("receipt-void", "r1", |op| op.delete("receipts", "r1")).unwrap();
    a.sync();
    b.transport.plan(|request| if is_push(request) { Fault::DropRequest } else { Fault::Pass });
    assert!(b.try_sync().is_err());
    assert_eq!((b.read("receipts", "r1"), b.read("notes", "n1")), (None, None), "no half of it shows");
    b.transport.heal();
    let report = b.sync();
    assert_eq!(report.parked.len(), 2);
    let first = report.parked.iter().find(|group| group.code.as_deref() == Some("conflict")).unwrap();
    assert!(first.verdict.as_ref().unwrap().contains(r#""code":"deleted""#), "{first:?}");
}

#[test]
fn numbers_stay_without_gaps_when_accepted_groups_are_forgotten() {
    let world = World::new();
    let remote = gbsync_client::Remote { server: world.url.clone(), space: crate::common::space() };
    let config = gbsync_client::Config { retain_accepted_ms: 0, ..gbsync_client::Config::new(world.path("a")) };
    let device = world.with_client(gbsync_client::Client::create(config, &remote).unwrap());
    for n in 1..=10 {
        assert_eq!(device.receipt(&format!("r{n}"), "1.00").device_seq.0, n);
        std::thread::sleep(std::time::Duration::from_millis(2));
        device.sync();
    }
    assert!(device.query::<i64>("SELECT count(*) FROM gbsync_group") <= 1);
    assert_eq!(device.client.status().unwrap().sealed_through.0, 10);
}

#[test]
fn a_cloned_device_begins_a_new_epoch_and_loses_nothing() {
    let world = World::new();
    let a = world.device("a");
    a.receipt("r0", "1.00");
    a.sync();
    a.client.with_reader(|db| db.execute_batch("SELECT 1")).unwrap();
    let copy = world.path("clone");
    let source = rusqlite::Connection::open(world.path("a")).unwrap();
    source.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let clone = world.reopen("clone");
    a.receipt("r1", "1.00");
    a.receipt("r2", "1.00");
    clone.receipt("r3", "1.00");
    clone.receipt("r4", "1.00");
    let epoch = clone.client.status().unwrap().epoch;
    assert_eq!(a.sync().accepted, 2);
    let report = clone.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (2, 0, 0));
    assert_ne!(clone.client.status().unwrap().epoch, epoch);
    assert_eq!(clone.client.status().unwrap().sealed_through.0, 2, "numbered anew from 1");
    a.sync();
    assert_eq!(a.digest(), clone.digest());
    assert_eq!(a.digest(), world.digest());
    assert_eq!(clone.receipt("r5", "1.00").device_seq.0, 3);
    clone.sync();
}

#[test]
fn a_device_restored_from_an_old_copy_takes_back_what_it_had_sent_and_reuses_no_number() {
    let world = World::new();
    let a = world.device("a");
    a.receipt("r0", "1.00");
    a.sync();
    let source = rusqlite::Connection::open(world.path("a")).unwrap();
    source.execute("VACUUM INTO ?1", [world.path("old").to_str().unwrap()]).unwrap();
    a.receipt("r1", "1.00");
    a.sync();
    let old = world.reopen("old");
    old.receipt("r9", "9.00");
    let report = old.sync();
    assert_eq!((report.accepted, report.waiting), (1, 0));
    assert!(old.read("receipts", "r1").is_some());
    assert_eq!(old.digest(), world.digest());
}

#[test]
fn a_pull_that_is_cut_anywhere_goes_on_where_it_was() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    for n in 0..50 {
        a.receipt(&format!("r{n}"), "1.00");
    }
    a.sync();
    let mut cut = world.device("c");
    cut.options = SyncOptions { page_records: 4, attempts: 1, ..SyncOptions::default() };
    let requests = std::sync::Arc::new(AtomicUsize::new(0));
    cut.transport.plan({
        let requests = requests.clone();
        move |_| if requests.fetch_add(1, Ordering::SeqCst) % 5 == 4 { Fault::Truncate(300) } else { Fault::Pass }
    });
    let rounds = (1..50).find(|_| cut.try_sync().is_ok()).unwrap();
    assert!(rounds > 3, "it was cut {rounds} times");
    b.sync();
    assert_eq!(cut.digest(), b.digest());
}

#[test]
fn two_rounds_at_once_take_effect_once() {
    let world = World::new();
    let device = world.device("a");
    for n in 0..30 {
        device.receipt(&format!("r{n}"), "1.00");
    }
    let second = world.reopen("a");
    let accepted: u64 = std::thread::scope(|scope| {
        let rounds = [scope.spawn(|| device.sync().accepted), scope.spawn(|| second.sync().accepted)];
        rounds.into_iter().map(|round| round.join().unwrap()).sum()
    });
    assert_eq!(accepted, 30);
    assert_eq!(world.digest().0, 30);
}
