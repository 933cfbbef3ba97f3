//! Groups that no request and no page holds: they travel in parts, whole, resumed where they were cut off.

use crate::common::{Device, Fault, World, is_push, problem};
use gbsync_client::{Error, GroupState, Method, Request, Response, Sealed};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const REQUEST_BYTES: u64 = 4_000;
const RECORDS: u64 = 200;

fn world() -> World {
    World::with(|config| {
        config.limits.request_bytes = REQUEST_BYTES;
        config.limits.batch_bytes = 1_000;
    })
}

/// Devices that know the limits.
fn devices(world: &World) -> (Device, Device) {
    let (a, b) = (world.device("a"), world.device("b"));
    a.sync();
    b.sync();
    (a, b)
}

/// A stock take: one operation on more records than a request holds.
fn take_stock(device: &Device, root: &str) -> Sealed {
    take_stock_of(device, root, RECORDS)
}

fn take_stock_of(device: &Device, root: &str, records: u64) -> Sealed {
    let sealed = device.client.operation::<Error>("stock-take", root, |op| {
        (0..records).try_for_each(|n| {
            op.upsert("items", &format!("{root}-{n}"), format!(r#"{{"counted":{n},"note":"}},{{\"[","take":"{root}"}}"#))
        })
    });
    sealed.unwrap()
}

/// The number of the part that a request is about.
fn part_number(request: &Request) -> Option<u64> {
    let path = request.path.split('?').next().unwrap();
    path.split_once("/parts/")?.1.parse().ok()
}

fn is_upload(request: &Request) -> bool {
    request.method == Method::Put
}

fn is_download(request: &Request) -> bool {
    request.method == Method::Get && part_number(request).is_some()
}

/// How often each part was sent or asked for.
fn times(device: &Device, is_wanted: fn(&Request) -> bool) -> BTreeMap<u64, usize> {
    let mut times = BTreeMap::new();
    for request in device.transport.sent.lock().unwrap().iter().filter(|request| is_wanted(request)) {
        *times.entry(part_number(request).unwrap()).or_default() += 1;
    }
    times
}

/// How many records of a stock take are in sight.
fn seen(device: &Device, root: &str) -> u64 {
    device.query(&format!("SELECT count(*) FROM gbsync_records WHERE entity = 'items' AND payload ->> 'take' = '{root}'"))
}

fn staged(device: &Device) -> i64 {
    device.query("SELECT (SELECT count(*) FROM gbsync_upload) + (SELECT count(*) FROM gbsync_download)")
}

#[test]
fn a_group_over_the_request_limit_arrives_whole_and_once() {
    let world = world();
    let (a, b) = devices(&world);
    take_stock(&a, "t1");
    let transfers = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&transfers);
    let mut a = a;
    a.options.on_transfer = Some(Arc::new(move |transfer| heard.lock().unwrap().push((transfer.done, transfer.parts))));
    let report = a.sync();
    assert_eq!((report.pushed, report.accepted, report.waiting), (1, 1, 0));
    let sent = a.transport.sent.lock().unwrap().clone();
    assert!(sent.iter().all(|request| request.body.as_ref().is_none_or(|body| body.len() as u64 <= REQUEST_BYTES)));
    let parts = times(&a, is_upload);
    assert!(parts.len() > 4 && parts.values().all(|times| *times == 1), "{parts:?}");
    let heard = transfers.lock().unwrap().clone();
    assert_eq!(heard[..parts.len()], (1..=parts.len() as u64).map(|done| (done, parts.len() as u64)).collect::<Vec<_>>());
    b.sync();
    assert_eq!((seen(&a, "t1"), seen(&b, "t1")), (RECORDS, RECORDS));
    assert_eq!((a.digest(), b.digest()), (world.digest(), world.digest()));
    assert_eq!((staged(&a), staged(&b)), (0, 0));
    let covered: i64 = a.query("SELECT count(*) FROM gbsync_overlay");
    assert_eq!(covered, 0, "the log took the group over");
}

#[test]
fn an_upload_that_is_cut_off_anywhere_goes_on_where_it_was() {
    for fault in [Fault::DropRequest, Fault::DropAnswer] {
        let world = world();
        let (mut a, b) = devices(&world);
        take_stock(&a, "t1");
        let mut rounds = 0;
        loop {
            // One part passes a round, and the file is opened anew each time as after a crash.
            let passed = AtomicUsize::new(0);
            let fault = fault.clone();
            a.transport.plan(move |request| match is_upload(request) || is_push(request) {
                true if passed.fetch_add(1, Ordering::Relaxed) > 0 => fault.clone(),
                _ => Fault::Pass,
            });
            rounds += 1;
            let synced = a.try_sync();
            b.sync();
            if synced.is_ok() {
                break;
            }
            assert_eq!(synced.unwrap_err().code(), "not_reached");
            let sent = std::mem::take(&mut *a.transport.sent.lock().unwrap());
            drop(a);
            a = world.reopen("a");
            a.transport.sent.lock().unwrap().extend(sent);
            assert!(rounds < 50);
        }
        let parts = times(&a, is_upload);
        assert!(rounds > 4 && parts.values().all(|times| *times <= 2), "{fault:?} {rounds}: {parts:?}");
        b.sync();
        assert_eq!((seen(&b, "t1"), a.digest()), (RECORDS, b.digest()));
        assert_eq!(world.digest().0, 1, "it took effect once");
    }
}

#[test]
fn unrelated_groups_pass_an_upload_that_is_stuck_and_dependents_wait_for_it() {
    let world = world();
    let (a, b) = devices(&world);
    a.receipt("r1", "1.00");
    take_stock(&a, "t1");
    a.client.patch("items", "t1-7", r#"{"counted":8}"#).unwrap();
    a.receipt("r2", "2.00");
    a.transport.plan(|request| if is_upload(request) { Fault::DropRequest } else { Fault::Pass });
    assert_eq!(a.try_sync().unwrap_err().code(), "not_reached");
    let states: Vec<GroupState> = a.states().into_iter().map(|(state, _)| state).collect();
    assert_eq!(states.iter().filter(|state| **state == GroupState::Accepted).count(), 2, "{states:?}");
    b.sync();
    assert_eq!((b.read("receipts", "r2").is_some(), seen(&b, "t1")), (true, 0));
    // A proxy that answers instead of the server is no reason to drop or to stop anything either.
    a.receipt("r3", "3.00");
    a.transport.plan(|request| if is_upload(request) { Fault::Answer(crate::common::html(502)) } else { Fault::Pass });
    assert_eq!(a.try_sync().unwrap_err().code(), "not_reached");
    a.transport.heal();
    let report = a.sync();
    assert_eq!((report.accepted, report.waiting), (2, 0), "the large group, and in the same round what waited for it");
    b.sync();
    assert_eq!(b.read("items", "t1-7").unwrap(), r#"{"counted":8,"note":"},{\"[","take":"t1"}"#);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn a_large_group_that_depends_on_a_small_one_follows_in_the_same_round() {
    let world = world();
    let (a, b) = devices(&world);
    a.client.upsert("items", "t1-0", r#"{"counted":0}"#).unwrap();
    take_stock(&a, "t1");
    take_stock(&a, "t2");
    let report = a.sync();
    assert_eq!((report.accepted, report.waiting), (3, 0));
    b.sync();
    assert_eq!((seen(&b, "t1"), seen(&b, "t2"), a.digest()), (RECORDS, RECORDS, b.digest()));
}

#[test]
fn a_part_that_somebody_finds_too_large_is_cut_smaller() {
    let world = world();
    let (a, b) = devices(&world);
    take_stock(&a, "t1");
    a.transport.plan(|request| {
        let bytes = request.body.as_ref().map_or(0, Vec::len);
        if is_upload(request) && bytes > 700 { Fault::Answer(crate::common::html(413)) } else { Fault::Pass }
    });
    assert_eq!(a.sync().accepted, 1);
    b.sync();
    assert_eq!(a.digest(), b.digest());

    take_stock(&a, "t2");
    a.client.patch("items", "t2-7", r#"{"counted":8}"#).unwrap();
    a.transport.plan(|request| if is_upload(request) { Fault::Answer(crate::common::html(413)) } else { Fault::Pass });
    let report = a.sync();
    assert_eq!((report.accepted, report.parked.len()), (0, 2), "not even one change passes");
    assert_eq!(report.parked[0].code.as_deref(), Some("too_large"));
    assert_eq!(seen(&a, "t2"), 0, "it left the view as a unit");
}

#[test]
fn parts_that_the_server_lost_are_sent_again() {
    let world = world();
    let (a, b) = devices(&world);
    take_stock(&a, "t1");
    let store = world.folder.path().join("server/gbsync.db");
    let mut is_lost = false;
    a.transport.plan(move |request| {
        if is_push(request) && !std::mem::replace(&mut is_lost, true) {
            let store = rusqlite::Connection::open(&store).unwrap();
            store.execute("DELETE FROM upload_parts WHERE part IN (1, 3)", []).unwrap();
        }
        Fault::Pass
    });
    let report = a.sync();
    assert_eq!((report.accepted, report.pushed), (1, 2));
    let again: Vec<u64> = times(&a, is_upload).into_iter().filter(|(_, times)| *times == 2).map(|(part, _)| part).collect();
    assert_eq!(again, [1, 3]);
    b.sync();
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn parts_that_never_fit_are_sent_five_times_and_then_parked() {
    let world = world();
    let (a, _) = devices(&world);
    take_stock(&a, "t1");
    let store = world.folder.path().join("server/gbsync.db");
    a.transport.plan(move |request| {
        if is_push(request) {
            let store = rusqlite::Connection::open(&store).unwrap();
            store.execute("UPDATE upload_parts SET body = replace(body, '\"counted\":1', '\"counted\":9')", []).unwrap();
        }
        Fault::Pass
    });
    let report = a.sync();
    assert_eq!((report.accepted, report.parked[0].code.as_deref()), (0, Some("incomplete")));
    assert_eq!(times(&a, is_upload)[&0], 5, "without a word about which part, all are sent again");
    assert_eq!(staged(&a), 0, "a decided group needs no progress");
}

#[test]
fn a_group_over_the_server_s_lowered_maximum_is_rejected_without_its_parts() {
    let world = world();
    let a = world.device("a");
    take_stock(&a, "t1");
    let lower = World::with(|config| {
        config.limits.request_bytes = REQUEST_BYTES;
        config.limits.group_bytes = 10_000;
    });
    let a = lower.with_client(a.client);
    let report = a.sync();
    assert_eq!((report.parked.len(), report.parked[0].code.as_deref()), (1, Some("too_large")));
    assert_eq!(times(&a, is_upload).len(), 0);
}

#[test]
fn a_download_that_is_cut_off_anywhere_goes_on_where_it_was_and_shows_nothing_before() {
    let world = world();
    let (a, mut b) = devices(&world);
    take_stock(&a, "t1");
    a.sync();
    let mut rounds = 0;
    loop {
        let passed = AtomicUsize::new(0);
        b.transport.plan(move |request| match is_download(request) {
            true if passed.fetch_add(1, Ordering::Relaxed) > 0 => Fault::Truncate(200),
            _ => Fault::Pass,
        });
        rounds += 1;
        let synced = b.try_sync();
        if synced.is_ok() {
            break;
        }
        let base: i64 = b.query("SELECT count(*) FROM gbsync_base");
        assert_eq!((seen(&b, "t1"), base), (0, 0));
        let sent = std::mem::take(&mut *b.transport.sent.lock().unwrap());
        drop(b);
        b = world.reopen("b");
        b.transport.sent.lock().unwrap().extend(sent);
        assert!(rounds < 50);
    }
    let parts = times(&b, is_download);
    assert!(rounds > 4 && parts.values().all(|times| *times <= 2), "{rounds}: {parts:?}");
    assert_eq!((seen(&b, "t1"), a.digest()), (RECORDS, b.digest()));
    assert_eq!(staged(&b), 0);
}

#[test]
fn what_was_fetched_of_another_log_is_thrown_away() {
    let world = world();
    let (a, b) = devices(&world);
    take_stock(&a, "t1");
    a.sync();
    b.transport.plan(|request| match part_number(request) {
        Some(2) => Fault::DropRequest,
        _ => Fault::Pass,
    });
    b.try_sync().unwrap_err();
    let spoil = rusqlite::Connection::open(world.path("b")).unwrap();
    spoil.execute("UPDATE gbsync_download_part SET body = replace(body, '\"take\":\"t1\"', '\"take\":\"t0\"')", []).unwrap();
    spoil.execute("UPDATE gbsync_download SET chain = replace(chain, substr(chain, 1, 1), 'x')", []).unwrap();
    b.transport.heal();
    b.sync();
    assert_eq!((seen(&b, "t1"), seen(&b, "t0")), (RECORDS, 0));
    // A log that changes between two parts is read anew.
    take_stock(&a, "t2");
    a.sync();
    let mut gone = Some(problem(410, "resync_required", None));
    b.transport.plan(move |request| match part_number(request) {
        Some(1) => gone.take().map_or(Fault::Pass, Fault::Answer),
        _ => Fault::Pass,
    });
    b.sync();
    assert_eq!((seen(&b, "t2"), b.digest()), (RECORDS, a.digest()));
}

#[test]
fn parts_that_are_no_whole_entry_are_fetched_anew() {
    let world = world();
    let (a, b) = devices(&world);
    take_stock(&a, "t1");
    a.sync();
    let short =
        Response { status: 200, content_type: Some("application/json".into()), retry_after_ms: None, body: b"[]".to_vec() };
    b.transport.plan(move |request| match part_number(request) {
        Some(1) => Fault::Answer(short.clone()),
        _ => Fault::Pass,
    });
    assert_eq!(b.try_sync().unwrap_err().code(), "not_reached");
    assert_eq!((seen(&b, "t1"), staged(&b)), (0, 0));
    b.transport.heal();
    b.sync();
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn reading_the_log_anew_takes_large_groups_and_settles_own_ones() {
    let world = world();
    let (a, b) = devices(&world);
    take_stock(&a, "t1");
    a.sync();
    take_stock(&b, "t2");
    // Its answer is lost, so only the log tells b that t2 is accepted.
    b.transport.plan(|request| if is_push(request) { Fault::DropAnswer } else { Fault::Pass });
    b.try_sync().unwrap_err();
    let connection = rusqlite::Connection::open(world.path("b")).unwrap();
    connection.execute("UPDATE gbsync_state SET log = 'another', chain = NULL, cursor = 0", []).unwrap();
    drop(connection);
    b.transport.plan(|request| match part_number(request) {
        Some(1) if is_download(request) => Fault::DropRequest,
        _ => Fault::Pass,
    });
    b.try_sync().unwrap_err();
    b.transport.heal();
    b.sync();
    a.sync();
    assert_eq!((seen(&b, "t1"), seen(&b, "t2")), (RECORDS, RECORDS));
    assert_eq!((b.digest(), b.digest()), (a.digest(), world.digest()));
    let waiting: i64 = b.query("SELECT count(*) FROM gbsync_overlay");
    assert_eq!(waiting, 0);
}

#[test]
fn a_large_group_that_waits_stays_in_sight_whole_when_the_log_is_read_anew() {
    let world = world();
    let (a, b) = devices(&world);
    take_stock(&a, "t1");
    a.client.patch("items", "t1-3", r#"{"counted":4}"#).unwrap();
    a.sync();
    take_stock_of(&b, "t2", 1_200);
    let connection = rusqlite::Connection::open(world.path("b")).unwrap();
    connection.execute("UPDATE gbsync_state SET log = 'another', chain = NULL, cursor = 0", []).unwrap();
    drop(connection);
    b.transport.plan(|request| if is_upload(request) { Fault::DropRequest } else { Fault::Pass });
    b.try_sync().unwrap_err();
    assert_eq!((seen(&b, "t1"), seen(&b, "t2")), (RECORDS, 1_200));
    b.transport.heal();
    b.sync();
    a.sync();
    assert_eq!((seen(&a, "t2"), a.digest(), a.digest()), (1_200, b.digest(), world.digest()));
}

#[test]
fn a_part_that_needs_a_sign_in_waits_for_it_and_nothing_is_lost() {
    let world = world();
    let (a, b) = devices(&world);
    take_stock(&a, "t1");
    a.transport.plan(|request| match part_number(request) {
        Some(2) => Fault::Answer(problem(401, "unauthenticated", None)),
        _ => Fault::Pass,
    });
    assert_eq!(a.try_sync().unwrap_err().code(), "sign_in");
    a.transport.heal();
    assert_eq!(a.sync().accepted, 1);
    let parts = times(&a, is_upload);
    assert_eq!((parts[&0], parts[&1], parts[&2]), (1, 1, 2));
    b.sync();
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn a_part_that_is_refused_as_malformed_twice_parks_its_group_and_one_that_is_not_pointed_at_parks_nothing() {
    let world = world();
    let (a, _) = devices(&world);
    take_stock(&a, "t1");
    a.receipt("r1", "1.00");
    a.transport.plan(|request| match is_upload(request) {
        true => Fault::Answer(problem(400, "malformed", None)),
        false => Fault::Pass,
    });
    assert_eq!(a.try_sync().unwrap_err().code(), "stopped");
    assert!(a.states().iter().all(|(state, _)| *state != GroupState::Parked), "{:?}", a.states());
    let mut damaged = Some(problem(400, "malformed", Some("/0/payload")));
    a.transport.plan(move |request| match is_upload(request) {
        true => damaged.take().map_or(Fault::Pass, Fault::Answer),
        false => Fault::Pass,
    });
    assert_eq!(a.sync().accepted, 1, "once may have been damage on the way");
    take_stock(&a, "t2");
    a.receipt("r2", "1.00");
    a.transport.plan(|request| match is_upload(request) {
        true => Fault::Answer(problem(400, "malformed", Some("/0/payload"))),
        false => Fault::Pass,
    });
    let report = a.sync();
    assert_eq!((report.accepted, report.parked.len()), (1, 1));
    assert_eq!(report.parked[0].code.as_deref(), Some("malformed"));
}
