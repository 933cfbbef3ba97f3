//! A new device, and one that has to begin anew, loads a snapshot: resumed where it broke off, shown only when it is whole, and
//! the outbox stays what it is.

use crate::common::*;
use gbsync_client::{Error, GroupState, Request, Response, SyncError};
use gbsync_core::id::Seq;
use gbsync_core::wire::{SnapshotRow, snapshot_end_json};
use std::time::{Duration, Instant};

/// Records of the space; a download of them has several units.
const NOTES: u64 = 6_000;

fn is_snapshot(request: &Request) -> bool {
    request.path.contains("/snapshot?")
}

/// Notes that no compressor makes small.
fn fill(world: &World, notes: u64) -> Device {
    let device = world.device("author");
    let mut random = 7_u64;
    for first in (0..notes).step_by(500) {
        let write = |op: &mut gbsync_client::Operation| {
            for note in first..(first + 500).min(notes) {
                let text: String = (0..30)
                    .map(|_| {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        format!("{:08x}", random >> 32)
                    })
                    .collect();
                op.upsert("notes", &format!("{note:05}"), format!(r#"{{"text":"{text}"}}"#))?;
            }
            Ok(())
        };
        device.client.operation::<Error>("fill", &first.to_string(), write).unwrap();
    }
    device.client.operation::<Error>("forget", "00003", |op| op.delete("notes", "00003")).unwrap();
    device.sync();
    device
}

fn downloads(device: &Device) -> usize {
    device.transport.downloads.lock().unwrap().len()
}

fn log_requests(device: &Device) -> usize {
    device.transport.sent.lock().unwrap().iter().filter(|request| request.path.contains("/log?")).count()
}

/// A device that loads a snapshot from the first entry on.
fn loader(world: &World, name: &str) -> Device {
    let mut device = world.reopen_or_make(name);
    device.options.snapshot_groups = 1;
    device
}

#[test]
fn a_new_device_loads_a_snapshot_and_has_what_the_log_would_have_given_it() {
    let world = World::new();
    let author = fill(&world, NOTES);
    let device = loader(&world, "new");
    let report = device.sync();
    assert_eq!((downloads(&device), report.pulled_records), (1, NOTES));
    assert_eq!(device.digest(), author.digest());
    assert_eq!(device.digest(), world.digest());
    let tombstone = "SELECT version FROM gbsync_base WHERE entity = 'notes' AND id = '00003' AND payload IS NULL";
    assert_eq!(device.query::<u64>(tombstone), author.query::<u64>(tombstone));
    // From there on it follows the log.
    author.receipt("r1", "1.00");
    author.sync();
    device.sync();
    assert_eq!((device.digest(), downloads(&device)), (author.digest(), 1));
}

#[test]
fn a_short_log_is_read_as_ever() {
    let world = World::new();
    let author = fill(&world, 10);
    let device = world.device("new");
    device.sync();
    assert_eq!((downloads(&device), device.digest()), (0, author.digest()));
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was_in_the_next_process_too() {
    let world = World::new();
    let author = fill(&world, NOTES);
    let mut begun = Vec::new();
    for bytes in [250_000, 250_000, 250_000] {
        let device = loader(&world, "new");
        let mut is_first = true;
        device.transport.plan(move |request| match is_snapshot(request) {
            true if std::mem::take(&mut is_first) => Fault::Truncate(bytes),
            true => Fault::DropRequest,
            false => Fault::Pass,
        });
        let error = device.try_sync().unwrap_err();
        assert!(matches!(error, SyncError::NotReached { .. }), "{error}");
        begun.push(device.transport.downloads.lock().unwrap()[0].begun.clone().map(|(_, at)| at));
        assert_eq!(device.query::<u64>("SELECT count(*) FROM gbsync_records"), 0, "nothing shows before all is there");
    }
    let device = loader(&world, "new");
    let report = device.sync();
    begun.push(device.transport.downloads.lock().unwrap()[0].begun.clone().map(|(_, at)| at));
    assert!(begun[0].is_none() && begun.is_sorted() && begun[1] > Some(0) && begun[3] > begun[1], "{begun:?}");
    assert!(report.pulled_records > 0 && report.pulled_records < NOTES);
    assert_eq!(device.digest(), author.digest());
}

#[test]
fn a_snapshot_that_is_gone_is_begun_anew() {
    let world = World::with(|config| config.snapshots.lag_groups = 0);
    let author = fill(&world, NOTES);
    let device = loader(&world, "new");
    let mut is_first = true;
    device.transport.plan(move |request| match is_snapshot(request) {
        true if std::mem::take(&mut is_first) => Fault::Truncate(700_000),
        true => Fault::DropRequest,
        false => Fault::Pass,
    });
    device.try_sync().unwrap_err();
    std::fs::remove_dir_all(world.folder.path().join("server/snapshots")).unwrap();
    author.receipt("r1", "1.00");
    author.sync();
    device.transport.heal();
    let report = device.sync();
    assert!(report.pulled_records > NOTES);
    assert_eq!(device.digest(), author.digest());
}

#[test]
fn what_is_sealed_before_and_meanwhile_stays_and_is_sent() {
    let world = World::new();
    let author = fill(&world, NOTES);
    let device = loader(&world, "new");
    let sealed = device.receipt("r1", "1.00");
    device.client.operation::<Error>("edit", "00001", |op| op.upsert("notes", "n-1", "{}")).unwrap();
    let client = device.client.clone();
    device.transport.plan(move |request| {
        if is_snapshot(request) {
            client.operation::<Error>("meanwhile", "m", |op| op.upsert("notes", "m", r#"{"x":1}"#)).unwrap();
        }
        Fault::Pass
    });
    let report = device.sync();
    assert_eq!((report.accepted, state(&device, &sealed)), (3, GroupState::Accepted));
    author.sync();
    assert_eq!(device.digest(), author.digest());
    assert!(author.read("notes", "m").is_some());
}

#[test]
fn a_group_whose_answer_was_lost_is_not_laid_over_a_base_that_has_it() {
    let world = World::new();
    let author = fill(&world, 100);
    author.client.operation::<Error>("stock", "s", |op| op.upsert("stock", "s", r#"{"quantity":10}"#)).unwrap();
    author.sync();
    let device = loader(&world, "new");
    device.sync();
    let sealed =
        device.client.operation::<Error>("sell", "s", |op| op.increment("stock", "s", r#"{"quantity":-3}"#)).unwrap();
    device.transport.plan(|request| if is_push(request) { Fault::DropAnswer } else { Fault::DropRequest });
    let _ = device.try_sync();
    device.transport.plan(|request| if is_push(request) { Fault::DropAnswer } else { Fault::Pass });
    let _ = device.try_sync();
    // The log is another one, so that the device begins anew; pushing fails, so that only verdicts tell.
    rebase_by_hand(&world, "new");
    let device = loader(&world, "new");
    device.transport.plan(|request| if is_push(request) { Fault::DropRequest } else { Fault::Pass });
    let _ = device.try_sync();
    assert_eq!(downloads(&device), 1);
    assert_eq!(device.read("stock", "s").unwrap(), r#"{"quantity":7}"#);
    assert_eq!(state(&device, &sealed), GroupState::Accepted);
    let device = loader(&world, "new");
    device.sync();
    author.sync();
    assert_eq!(device.digest(), author.digest());
}

/// As a device whose log was replaced.
fn rebase_by_hand(world: &World, name: &str) {
    let db = rusqlite::Connection::open(world.path(name)).unwrap();
    db.execute_batch("UPDATE gbsync_state SET log = 'another', chain = NULL").unwrap();
}

#[test]
fn a_snapshot_without_its_last_line_is_never_shown() {
    let world = World::new();
    fill(&world, 10);
    let device = loader(&world, "new");
    let handshake = world_handshake(&device);
    for (lines, is_complete) in [(2, false), (1, false), (2, true)] {
        let (head, mut text) = (handshake.clone(), String::new());
        for line in 0..lines {
            let id = format!("{line}");
            let row = SnapshotRow { entity: "false", id: &id, version: Seq(1), edit_version: Seq(1), payload: Some("{}") };
            row.push_json(&mut text);
        }
        // The last one counts what did not come.
        let end = if is_complete { snapshot_end_json(3) + "\n" } else { String::new() };
        let body = format!("{head}\n{text}{end}").into_bytes();
        device.transport.plan(move |request| {
            let content_type = Some("application/x-ndjson".into());
            let answer = Response { status: 200, content_type, retry_after_ms: None, body: body.clone() };
            if is_snapshot(request) { Fault::Answer(answer) } else { Fault::Pass }
        });
        let error = device.try_sync().unwrap_err();
        assert!(matches!(error, SyncError::NotReached { .. }), "{error}");
        assert_eq!(device.query::<u64>("SELECT count(*) FROM gbsync_records"), 0);
        assert_eq!(device.query::<u64>("SELECT cursor FROM gbsync_state"), 0);
    }
    device.transport.heal();
    device.sync();
    assert_eq!(device.digest(), world.digest());
}

/// The first line of a snapshot of three records.
fn world_handshake(device: &Device) -> String {
    device.transport.plan(|request| if is_snapshot(request) { Fault::DropRequest } else { Fault::Pass });
    device.try_sync().unwrap_err();
    device.transport.heal();
    let log: String = device.query("SELECT log FROM gbsync_state");
    format!(r#"{{"seq":1,"log":"{log}","chain":"{}","records":3}}"#, "0".repeat(64))
}

#[test]
fn where_there_are_no_snapshots_the_log_is_read() {
    let world = World::new();
    let author = fill(&world, 100);
    for answer in [problem(404, "not_found", None), html(405)] {
        let device = loader(&world, if answer.status == 404 { "a" } else { "b" });
        device.transport.plan(move |request| match is_snapshot(request) {
            true => Fault::Answer(answer.clone()),
            false => Fault::Pass,
        });
        device.sync();
        assert!(log_requests(&device) > 0);
        assert_eq!(device.digest(), author.digest());
    }
}

#[test]
fn a_server_that_cannot_make_snapshots_holds_up_nothing() {
    let world = World::new();
    let author = fill(&world, 100);
    let mut device = loader(&world, "new");
    device.options.attempts = 2;
    device.transport.plan(move |request| match is_snapshot(request) {
        true => Fault::Answer(problem(503, "unavailable", None)),
        false => Fault::Pass,
    });
    device.receipt("r1", "1.00");
    assert_eq!(device.sync().accepted, 1);
    author.sync();
    assert_eq!(device.digest(), author.digest());
}

#[test]
fn a_hotels_page_instead_of_a_snapshot_is_tried_again() {
    let world = World::new();
    let author = fill(&world, 100);
    let mut device = loader(&world, "new");
    device.options.attempts = 2;
    let mut is_first = true;
    device.transport.plan(move |request| match is_snapshot(request) && std::mem::take(&mut is_first) {
        true => Fault::Answer(html(200)),
        false => Fault::Pass,
    });
    device.sync();
    assert_eq!((downloads(&device), device.digest()), (2, author.digest()));
}

#[test]
fn an_app_that_writes_meanwhile_hardly_waits() {
    let world = World::new();
    fill(&world, 20_000);
    let device = loader(&world, "new");
    let (client, longest) = (device.client.clone(), std::sync::Arc::new(std::sync::Mutex::new(Duration::ZERO)));
    let (is_done, noted) = (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), longest.clone());
    let is_over = is_done.clone();
    let writing = std::thread::spawn(move || {
        let mut written = 0;
        while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
            let begun = Instant::now();
            client.operation::<Error>("note", "m", |op| op.upsert("notes", &format!("m-{written}"), "{}")).unwrap();
            let mut longest = noted.lock().unwrap();
            *longest = (*longest).max(begun.elapsed());
            drop(longest);
            written += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        written
    });
    device.sync();
    is_done.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(writing.join().unwrap() > 3);
    device.sync();
    assert_eq!(device.digest(), world.digest());
    // Far above what it is (gbsync bench says that): the machine may be busy with other things.
    assert!(*longest.lock().unwrap() < Duration::from_secs(2), "{longest:?}");
}

fn keep(world: &World, entries: u64) -> u64 {
    let config = gbsync_server::RetentionConfig { entries: Some(entries), ..gbsync_server::RetentionConfig::default() };
    let retained = gbsync_server::retain(&world.folder.path().join("server").into(), &config, None, false);
    retained.unwrap().unwrap()[0].to.0
}

#[test]
fn a_device_behind_the_horizon_with_500_pending_groups_loads_a_snapshot_and_loses_none() {
    let world = World::new();
    let author = fill(&world, 50);
    let device = world.device("old");
    device.sync();
    let mut sealed: Vec<_> = (0..500).map(|n| device.receipt(&format!("r{n}"), "1.00")).collect();
    // A note that is edited here and deleted there meanwhile, and one that is only edited here.
    let edit = |id: &str| {
        let write = |op: &mut gbsync_client::Operation| op.patch("notes", id, r#"{"seen":true}"#);
        device.client.operation::<Error>("note-edit", id, write).unwrap()
    };
    let (lost, kept) = (edit("00007"), edit("00008"));
    sealed.push(kept);
    author.client.operation::<Error>("forget", "00007", |op| op.delete("notes", "00007")).unwrap();
    for n in 0..20 {
        author.receipt(&format!("a{n}"), "2.00");
    }
    author.sync();
    assert_eq!(keep(&world, 3), 20);
    let report = device.sync();
    assert_eq!((report.accepted, downloads(&device)), (501, 1));
    // It loaded before it sent.
    let sent = device.transport.sent.lock().unwrap();
    let (loaded, pushed) = (sent.iter().position(is_snapshot).unwrap(), sent.iter().position(is_push).unwrap());
    assert!(loaded < pushed);
    drop(sent);
    assert!(sealed.iter().all(|sealed| state(&device, sealed) == GroupState::Accepted));
    let refused = group(&device, &lost);
    assert_eq!((refused.state, refused.code.as_deref()), (GroupState::Parked, Some("conflict")));
    author.sync();
    assert_eq!(device.digest(), author.digest());
    assert!(device.read("notes", "00007").is_none());
}

#[test]
fn a_record_is_made_anew_over_a_tombstone_that_the_horizon_has_passed() {
    let world = World::new();
    let author = fill(&world, 10);
    let device = world.device("b");
    device.sync();
    for n in 0..5 {
        author.receipt(&format!("a{n}"), "2.00");
    }
    author.sync();
    device.sync();
    keep(&world, 1);
    // Both hold the tombstone still, and hear of the horizon with the next round.
    for device in [&author, &device] {
        device.sync();
    }
    device.client.operation::<Error>("note", "00003", |op| op.upsert("notes", "00003", r#"{"x":2}"#)).unwrap();
    assert_eq!(device.sync().accepted, 1);
    author.sync();
    assert_eq!((author.digest(), author.read("notes", "00003").as_deref()), (device.digest(), Some(r#"{"x":2}"#)));
}

#[test]
fn a_log_whose_horizon_passes_a_device_while_it_loads_is_begun_anew() {
    let world = World::with(|config| config.snapshots.lag_groups = 0);
    let author = fill(&world, NOTES);
    let device = loader(&world, "new");
    let mut is_first = true;
    device.transport.plan(move |request| match is_snapshot(request) {
        true if std::mem::take(&mut is_first) => Fault::Truncate(600_000),
        true => Fault::DropRequest,
        false => Fault::Pass,
    });
    device.try_sync().unwrap_err();
    device.transport.heal();
    for n in 0..10 {
        author.receipt(&format!("a{n}"), "2.00");
    }
    author.sync();
    keep(&world, 2);
    // What it began with is still there and is before the horizon now: the log says so, and the next round begins anew.
    while let Err(error) = device.try_sync() {
        assert!(matches!(error, SyncError::NotReached { .. }), "{error}");
        assert!(downloads(&device) < 6);
    }
    assert_eq!(device.digest(), author.digest());
}
