//! Interleavings that once broke a promise, each held by a test.

use crate::common::{Fault, World, html, is_push, problem};
use gbsync_client::{
    Client, Clock, Config, Environment, FixedToken, GroupState, Remote, Response, SyncError, SyncObserver, SyncReport,
};
use gbsync_core::id::{Actor, GroupId};
use gbsync_core::wire::OperationLine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An answer that only a server could give.
fn page(groups: &str, next: u64, head: u64) -> Response {
    let body = format!(r#"{{"groups":[{groups}],"next":{next},"chain":"{}","head":{head}}}"#, "0".repeat(64));
    Response { status: 200, content_type: Some("application/json".into()), retry_after_ms: None, body: body.into_bytes() }
}

fn apply(device: &crate::common::Device, line: &str) {
    let applied = device.client.apply(&[OperationLine::parse(line, &device.client.limits()).unwrap()]).unwrap();
    assert!(applied.failed.is_none());
}

const IMPORTED: &str = r#"{"type":"import","root":"p1","syncGroupId":"import-1","changes":[{"entity":"products","id":"p1","action":"upsert","payload":{"price":"1.00"}}]}"#;

#[test]
fn a_line_with_an_id_that_two_devices_apply_leaves_both_overlays() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    apply(&a, IMPORTED);
    apply(&b, IMPORTED);
    a.sync();
    assert_eq!(b.sync().accepted, 1);
    a.client.patch("products", "p1", r#"{"price":"2.00"}"#).unwrap();
    a.sync();
    b.sync();
    assert_eq!(b.read("products", "p1").unwrap(), r#"{"price":"2.00"}"#);
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_overlay"), 0);
    assert_eq!(a.digest(), b.digest());
}

/// Two devices were given the same line, and the log brings it to one of them while its own copy waits for who made it. It lies
/// over the log's until the answer says that both are one; then what was sealed over it is laid on the log's alone.
#[test]
fn what_lies_over_a_line_that_another_device_brought_is_laid_anew_when_the_answer_comes() {
    const SCHEMA: &str = "version = 1\n[entities.stock]\nfields.n = { type = \"integer\", counter = true }";
    const DELIVERY: &str = r#"{"type":"delivery","root":"d1","syncGroupId":"d1","changes":[{"entity":"stock","id":"paper","action":"increment","payload":{"n":5}}]}"#;
    let world = World::under(SCHEMA);
    let (a, b) = (world.device_under("a", SCHEMA), world.device_under("b", SCHEMA));
    let sign_in = |name: &str| {
        let token = Arc::new(FixedToken(world.token.clone()));
        b.client.sign_in(Actor::new(name).unwrap(), token);
    };
    a.client.upsert("stock", "paper", r#"{"n":10}"#).unwrap();
    a.sync();
    sign_in("mia");
    b.sync();
    apply(&b, DELIVERY);
    apply(&a, DELIVERY);
    a.sync();
    sign_in("cid");
    assert_eq!(b.sync().waiting, 1);
    b.client.increment("stock", "paper", r#"{"n":-1}"#).unwrap();
    sign_in("mia");
    assert_eq!(b.sync().accepted, 1);
    let shown = b.query::<i64>("SELECT n FROM stock");
    assert_eq!((b.read("stock", "paper").as_deref(), shown), (Some(r#"{"n":14}"#), 14), "10, 5 once, and 1 sold");
}

#[test]
fn a_view_of_the_app_over_the_records_does_not_stop_a_reading_anew() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.sync();
    b.sync();
    let app = rusqlite::Connection::open(world.path("b")).unwrap();
    app.execute_batch("CREATE VIEW app_receipts AS SELECT id, payload FROM gbsync_records WHERE entity = 'receipts'")
        .unwrap();
    let mut is_gone = Some(problem(410, "resync_required", None));
    b.transport.plan(move |request| match request.path.contains("/log?after=1&") {
        true => is_gone.take().map_or(Fault::Pass, Fault::Answer),
        false => Fault::Pass,
    });
    b.sync();
    assert_eq!(b.query::<i64>("SELECT count(*) FROM app_receipts"), 1);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn a_group_seen_by_a_reading_that_was_abandoned_is_offered_again_when_the_next_one_misses_it() {
    let world = World::new();
    let mut a = world.device("a");
    a.receipt("r1", "1.00");
    a.receipt("r2", "2.00");
    a.sync();
    a.options.page_records = 1;
    // The first reading sees the first group, then the log changes under it.
    a.transport.plan(|request| match request.path.contains("/log?after=0&") {
        true => Fault::Pass,
        false if request.path.contains("/log?") => Fault::Answer(problem(410, "resync_required", None)),
        false => Fault::Pass,
    });
    assert!(matches!(a.try_sync(), Err(SyncError::NotReached { .. })));
    // The log that is there now holds neither.
    let mut is_empty = true;
    a.transport.plan(move |request| match request.path.contains("/log?") && std::mem::take(&mut is_empty) {
        true => Fault::Answer(page("", 0, 0)),
        false => Fault::Pass,
    });
    let before = a.transport.pushes().len();
    a.sync();
    let pushed = a.transport.pushes()[before..].concat();
    assert!(pushed.contains("receipt-create:r1:") && pushed.contains("receipt-create:r2:"), "{pushed}");
    assert_eq!(a.digest(), world.digest());
    assert_eq!(a.query::<i64>("SELECT count(*) FROM gbsync_overlay"), 0);
}

#[test]
fn groups_of_two_epochs_that_a_log_lost_are_offered_again_under_numbers_of_one() {
    let world = World::new();
    let a = world.device("a");
    a.receipt("r1", "1.00");
    a.sync();
    // The server knows the number of the second group under another id.
    a.receipt("r2", "2.00");
    let mut refusal = Some(problem(409, "epoch_reused", None));
    a.transport.plan(move |request| match is_push(request) {
        true => refusal.take().map_or(Fault::Pass, Fault::Answer),
        false => Fault::Pass,
    });
    a.sync();
    assert_eq!(a.query::<i64>("SELECT count(DISTINCT epoch) FROM gbsync_outbox WHERE device_seq = 1"), 2);
    // Both are lost, until they are offered again.
    let mut is_lost = true;
    a.transport.plan(move |request| {
        is_lost &= !is_push(request);
        match request.path.contains("/log?") && is_lost {
            true if request.path.contains("after=0&") => Fault::Answer(page("", 0, 0)),
            true => Fault::Answer(problem(410, "resync_required", None)),
            false => Fault::Pass,
        }
    });
    a.sync();
    assert_eq!(a.client.status().unwrap().pending_groups, 2);
    let report = a.sync();
    assert_eq!((report.parked.len(), report.waiting), (0, 0));
    assert!(a.states().iter().all(|(state, _)| *state == GroupState::Accepted), "{:?}", a.states());
    assert_eq!(a.digest(), world.digest());
}

#[test]
fn a_wait_that_no_server_means_is_cut() {
    let world = World::new();
    let a = world.device("a");
    a.receipt("r1", "1.00");
    for wait in [u64::MAX, u64::MAX / 2, 10 * 365 * 24 * 3_600_000] {
        a.transport.plan(move |_| Fault::Answer(Response { retry_after_ms: Some(wait), ..html(503) }));
        assert!(matches!(a.try_sync(), Err(SyncError::NotReached { .. })));
        let status = a.client.status().unwrap();
        let error = status.last_error.unwrap();
        assert!(status.next_attempt_at.unwrap().unix_ms() - error.at.unix_ms() <= 3_600_000);
    }
    a.transport.heal();
    assert_eq!(a.sync().accepted, 1);
}

#[test]
fn a_transaction_that_a_reader_left_open_does_not_freeze_what_others_see() {
    let world = World::new();
    let a = world.device("a");
    a.client.with_reader(|db| db.execute_batch("BEGIN; SELECT count(*) FROM gbsync_outbox")).unwrap();
    a.receipt("r1", "1.00");
    assert_eq!(a.query::<i64>("SELECT count(*) FROM gbsync_outbox"), 1);
    assert!(a.read("receipts", "r1").is_some());
}

#[test]
fn any_limit_of_a_list_of_groups_is_one() {
    let world = World::new();
    let a = world.device("a");
    a.receipt("r1", "1.00");
    assert_eq!(a.client.groups(gbsync_client::GroupFilter::All, usize::MAX).unwrap().len(), 1);
}

#[test]
fn an_operation_that_was_open_while_the_log_changed_is_judged_by_the_log_it_saw() {
    let world = World::new();
    let a = world.device("a");
    a.receipt("r1", "1.00");
    a.sync();
    let mut open = a.client.begin("receipt-edit", "r1").unwrap();
    open.patch("receipts", "r1", r#"{"total":"2.00"}"#).unwrap();
    let file = rusqlite::Connection::open(world.path("a")).unwrap();
    let seen: String = file.query_row("SELECT log FROM gbsync_state", [], |row| row.get(0)).unwrap();
    file.execute("UPDATE gbsync_state SET log = 'another'", []).unwrap();
    open.seal().unwrap();
    let sealed: String = a.query("SELECT log FROM gbsync_outbox ORDER BY local_no DESC LIMIT 1");
    assert_eq!(sealed, seen);
}

#[test]
fn a_record_is_read_from_one_state_of_a_file_that_another_process_writes_to() {
    let world = World::new();
    let a = world.device("a");
    let path = world.path("a");
    let is_over = Arc::new(AtomicBool::new(false));
    let writing = Arc::clone(&is_over);
    let other = std::thread::spawn(move || {
        let file = rusqlite::Connection::open(path).unwrap();
        file.busy_timeout(Duration::from_secs(10)).unwrap();
        let over = "BEGIN IMMEDIATE; INSERT OR REPLACE INTO gbsync_base VALUES ('notes', 'n', 1, 1, '{\"is\":\"old\"}');
                    INSERT INTO gbsync_overlay(entity, id, local_no, touch, edited, is_hidden, payload)
                    VALUES ('notes', 'n', 1, 'edit', 1, 0, '{\"is\":\"new\"}'); COMMIT;";
        let settled = "BEGIN IMMEDIATE; INSERT OR REPLACE INTO gbsync_base VALUES ('notes', 'n', 2, 2, '{\"is\":\"new\"}');
                       DELETE FROM gbsync_overlay; COMMIT;";
        file.execute_batch("PRAGMA synchronous = OFF").unwrap();
        while !writing.load(Ordering::Relaxed) {
            file.execute_batch(over).unwrap();
            file.execute_batch(settled).unwrap();
        }
    });
    let until = Instant::now() + Duration::from_secs(1);
    let mut seen = std::collections::BTreeSet::new();
    while Instant::now() < until {
        let read = a.client.begin("look", "n").unwrap().read("notes", "n").unwrap();
        seen.extend(read.map(|payload| payload.as_str().to_owned()));
    }
    is_over.store(true, Ordering::Relaxed);
    other.join().unwrap();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [r#"{"is":"new"}"#]);
}

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct SetsClockBack {
    clock: Arc<SetClock>,
    transport: Arc<crate::common::Faulty>,
    is_done: tokio::sync::Notify,
}

impl SyncObserver for SetsClockBack {
    fn round(&self, _: &SyncReport) {
        self.is_done.notify_one();
    }

    fn failed(&self, _: &SyncError) {
        self.clock.0.store(1_780_000_000_000, Ordering::Relaxed);
        self.transport.heal();
    }
}

#[test]
fn a_clock_that_is_set_back_does_not_make_a_watch_wait_for_years() {
    let world = World::new();
    let clock = Arc::new(SetClock(AtomicU64::new(4_000_000_000_000)));
    let environment = Environment { clock: clock.clone(), ..Environment::default() };
    let remote = Remote { server: world.url.clone(), space: crate::common::space() };
    let client = Client::create(Config::in_environment(world.path("a"), environment), &remote).unwrap();
    let a = world.with_client(client);
    a.receipt("r1", "1.00");
    a.transport.plan(|_| Fault::Answer(html(503)));
    let observer = SetsClockBack { clock, transport: a.transport.clone(), is_done: tokio::sync::Notify::new() };
    let watched = world.runtime.block_on(async {
        let watch = a.client.watch_sync(a.transport.as_ref(), &a.options, &observer);
        tokio::select! {
            error = watch => panic!("{error}"),
            done = tokio::time::timeout(Duration::from_secs(5), observer.is_done.notified()) => done,
        }
    });
    assert!(watched.is_ok(), "the watch still waits");
    assert_eq!(a.states(), [(GroupState::Accepted, None)]);
}

#[test]
fn a_line_with_an_id_that_another_device_brought_before_the_answer_leaves_the_overlay() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    apply(&a, IMPORTED);
    apply(&b, IMPORTED);
    a.sync();
    // The push is lost, the pull passes the other device's entry, then the push arrives and is a duplicate.
    b.transport.plan(|request| if is_push(request) { Fault::DropRequest } else { Fault::Pass });
    assert!(matches!(b.try_sync(), Err(SyncError::NotReached { .. })));
    assert_eq!(b.client.status().unwrap().cursor.0, 1);
    b.transport.heal();
    assert_eq!(b.sync().accepted, 1);
    a.client.patch("products", "p1", r#"{"price":"2.00"}"#).unwrap();
    a.sync();
    b.sync();
    assert_eq!(b.read("products", "p1").unwrap(), r#"{"price":"2.00"}"#);
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_overlay"), 0);
}

#[test]
fn own_groups_that_the_log_takes_over_out_of_order_leave_no_trace_in_what_is_laid_after_them() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.client.upsert("stock", "p", r#"{"q":10}"#).unwrap();
    a.sync();
    b.sync();
    let write = |waits_for: Option<&str>, quantity: i64, is_count: bool| {
        let written = b.client.operation::<gbsync_client::Error>("stock-take", "p", |op| {
            if let Some(id) = waits_for {
                op.depends_on(GroupId::new(id).unwrap());
            }
            let payload = format!(r#"{{"q":{quantity}}}"#);
            if is_count { op.upsert("stock", "p", payload) } else { op.increment("stock", "p", payload) }
        });
        written.unwrap()
    };
    write(Some("first"), 50, true);
    write(Some("second"), -1, false);
    write(None, -2, false);
    write(Some("second"), -4, false);
    // The third is accepted at once and not pulled; the first only when what it waits for is there.
    b.transport.plan(|request| if request.path.contains("/log?") { Fault::DropRequest } else { Fault::Pass });
    assert!(b.try_sync().is_err());
    b.transport.heal();
    a.client
        .operation::<gbsync_client::Error>("import", "x", |op| {
            op.given_id(GroupId::new("first").unwrap());
            op.upsert("notes", "x", "{}")
        })
        .unwrap();
    a.sync();
    assert_eq!(b.sync().waiting, 2);
    assert_eq!(b.query::<String>("SELECT payload FROM gbsync_base WHERE entity = 'stock'"), r#"{"q":50}"#);
    assert_eq!(b.read("stock", "p").unwrap(), r#"{"q":45}"#, "the count, less the two that wait");
}

#[test]
fn a_device_whose_people_never_rest_sees_what_others_did() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r-a", "1.00");
    a.sync();
    b.receipt("r-b", "1.00");
    let (client, sales) = (b.client.clone(), Arc::new(AtomicU64::new(0)));
    let sold = Arc::clone(&sales);
    b.transport.plan(move |request| {
        if is_push(request) && client.read("receipts", "r-a").unwrap().is_none() && sold.load(Ordering::Relaxed) < 50 {
            let number = sold.fetch_add(1, Ordering::Relaxed);
            client.upsert("sales", &number.to_string(), "{}").unwrap();
        }
        Fault::Pass
    });
    assert_eq!(b.sync().waiting, 0, "what was sold meanwhile is sent as well");
    assert!(sales.load(Ordering::Relaxed) < 5, "it sold {} times before it looked", sales.load(Ordering::Relaxed));
    a.sync();
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn a_device_whose_long_outbox_goes_slowly_sees_what_others_did() {
    let world = World::new();
    let (a, clock) = (world.device("a"), Arc::new(SetClock(AtomicU64::new(1_780_000_000_000))));
    a.receipt("r-a", "1.00");
    a.sync();
    let environment = Environment { clock: clock.clone(), ..Environment::default() };
    let remote = Remote { server: world.url.clone(), space: crate::common::space() };
    let mut b = world.with_client(Client::create(Config::in_environment(world.path("b"), environment), &remote).unwrap());
    b.options.batch_records = Some(1);
    (0..40).for_each(|number| drop(b.client.upsert("sales", &number.to_string(), "{}").unwrap()));
    let (client, sent) = (b.client.clone(), Arc::new(AtomicU64::new(0)));
    let blind = Arc::clone(&sent);
    b.transport.plan(move |request| {
        if is_push(request) {
            clock.0.fetch_add(2_000, Ordering::Relaxed);
            blind.fetch_add(u64::from(client.read("receipts", "r-a").unwrap().is_none()), Ordering::Relaxed);
        }
        Fault::Pass
    });
    assert_eq!(b.sync().accepted, 40);
    assert!(sent.load(Ordering::Relaxed) < 10, "it pushed {} times before it looked", sent.load(Ordering::Relaxed));
    a.sync();
    assert_eq!(a.digest(), b.digest());
}
