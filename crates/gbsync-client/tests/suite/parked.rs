//! A rejection as a unit: looked at, amended, retried, discarded; and what waited for it comes back by itself.

use crate::common::{Device, Fault, World, group, is_push, problem, refused_with_three_dependents, state};
use gbsync_client::{Client, Config, Error, GroupState, ParkedGroup, Remote, Resolution, Resolver};
use std::sync::{Arc, Mutex};

/// The types of the log's groups in order, as another device sees them.
fn log_types(world: &World) -> Vec<String> {
    let db = rusqlite::Connection::open(world.folder.path().join("server/gbsync.db")).unwrap();
    let mut statement = db.prepare("SELECT entry ->> '$.syncGroupType' FROM log ORDER BY place").unwrap();
    statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap().map(|t| t.unwrap().unwrap_or_default()).collect()
}

#[test]
fn amending_a_refused_group_brings_its_dependents_back_by_themselves_and_in_order() {
    let world = World::new();
    let (a, b, sealed) = refused_with_three_dependents(&world);
    let amended = b
        .client
        .amend::<Error>(&sealed[0].group_id, |op| {
            op.upsert("receipts", "r1b", r#"{"total":"9.00"}"#)?;
            op.upsert("payments", "p-r1", r#"{"amount":"9.00","receiptId":"r1b"}"#)
        })
        .unwrap();
    assert_eq!(state(&b, &sealed[0]), GroupState::Replaced);
    assert_eq!(group(&b, &sealed[0]).replaced_by, Some(amended.group_id.clone()));
    assert_eq!(group(&b, &amended).replaces, Some(sealed[0].group_id.clone()));
    assert_eq!(group(&b, &amended).group_type, group(&b, &sealed[0]).group_type);
    assert!(sealed[1..].iter().all(|sealed| state(&b, sealed) == GroupState::Parked), "nothing is accepted yet");
    a.client.patch("payments", "p-r1", r#"{"note":"a was faster"}"#).unwrap();
    a.sync();
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len()), (0, 1));
    let again = b
        .client
        .amend::<Error>(&amended.group_id, |op| {
            op.upsert("receipts", "r1b", r#"{"total":"9.00"}"#)?;
            op.upsert("payments", "p-r1", r#"{"amount":"9.00","receiptId":"r1b"}"#)
        })
        .unwrap();
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (4, 0, 0));
    assert_eq!(state(&b, &again), GroupState::Accepted);
    assert!(sealed[1..].iter().all(|sealed| state(&b, sealed) == GroupState::Replaced));
    assert_eq!(
        log_types(&world),
        ["receipt-create", "receipt-create", "", "receipt-create", "payment-edit", "note-edit", "note-edit"]
    );
    a.sync();
    assert_eq!(a.read("notes", "n1").unwrap(), r#"{"edits":2}"#);
    assert_eq!(a.read("payments", "p-r1").unwrap(), r#"{"amount":"9.00","note":"x","receiptId":"r1b"}"#);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_record_state"), 0);
}

/// An operation is begun on an edit that is then refused and amended; the amendment is accepted while it is still open.
fn an_operation_on_what_was_amended_meanwhile(retain_accepted_ms: u64) {
    let world = World::new();
    let a = world.device("a");
    a.client.upsert("products", "p1", r#"{"name":"roll"}"#).unwrap();
    a.sync();
    let remote = Remote { server: world.url.clone(), space: crate::common::space() };
    let config = Config { retain_accepted_ms, ..Config::new(world.path("b")) };
    let b = world.with_client(Client::create(config, &remote).unwrap());
    b.sync();
    a.client.patch("products", "p1", r#"{"name":"bun"}"#).unwrap();
    a.sync();
    let rename = |name: &str| format!(r#"{{"name":"{name}"}}"#);
    let refused = b.client.operation::<Error>("rename", "t2", |op| op.patch("products", "p1", rename("loaf"))).unwrap();
    let mut open = b.client.begin("rename", "t3").unwrap();
    open.patch("products", "p1", rename("cob")).unwrap();
    assert_eq!(b.sync().parked.len(), 1);
    b.client.amend::<Error>(&refused.group_id, |op| op.patch("products", "p1", rename("loaf"))).unwrap();
    assert_eq!(b.sync().accepted, 1);
    std::thread::sleep(std::time::Duration::from_millis(2));
    b.sync();
    open.seal().unwrap();
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (1, 0, 0));
    assert_eq!(b.read("products", "p1").unwrap(), rename("cob"));
    a.sync();
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn an_operation_on_what_was_amended_meanwhile_follows_the_amendment() {
    an_operation_on_what_was_amended_meanwhile(7 * 24 * 60 * 60 * 1000);
}

#[test]
fn an_operation_that_is_open_for_longer_than_groups_are_kept_follows_an_amendment_all_the_same() {
    an_operation_on_what_was_amended_meanwhile(0);
}

#[test]
fn what_is_sent_in_the_place_of_a_replacement_names_the_first_of_its_family() {
    let world = World::new();
    let a = world.device("a");
    a.receipt("r1", "1.00");
    a.sync();
    let b = world.device("b");
    let first = b.receipt("r1", "2.00");
    b.sync();
    let second = b.client.retry(&first.group_id).unwrap();
    a.client.patch("receipts", "r1", r#"{"total":"3.00"}"#).unwrap();
    a.sync();
    b.sync();
    let third = b.client.retry(&second.group_id).unwrap();
    let family = format!(r#""family":"{}""#, first.group_id);
    let named = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&named);
    b.transport.plan(move |request| {
        if is_push(request) {
            seen.lock().unwrap().push(String::from_utf8(request.body.clone().unwrap()).unwrap());
        }
        Fault::Pass
    });
    b.sync();
    let sent = named.lock().unwrap().join("");
    assert!(sent.contains(&format!(r#""replaces":"{}""#, second.group_id)) && sent.contains(&family), "{sent}");
    assert!(sent.contains(third.group_id.as_str()));
    b.transport.heal();
}

#[test]
fn a_parked_group_shows_what_was_tried_what_it_was_made_on_and_what_the_server_has() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.sync();
    b.sync();
    a.client.patch("receipts", "r1", r#"{"total":"2.00"}"#).unwrap();
    a.sync();
    let edit = b
        .client
        .operation::<Error>("receipt-edit", "r1", |op| {
            op.increment("receipts", "r1", r#"{"edits":1}"#)?;
            op.patch("receipts", "r1", r#"{"total":"3.00"}"#)
        })
        .unwrap();
    assert_eq!(b.sync().parked.len(), 1);
    let parked = b.client.parked().unwrap();
    assert_eq!((parked.len(), &parked[0].group.group_id), (1, &edit.group_id));
    assert_eq!(parked[0].group.code.as_deref(), Some("conflict"));
    assert_eq!(parked[0].changes.len(), 2, "an increment before a patch is a change of its own");
    let change = &parked[0].changes[1];
    assert_eq!((change.edit.action(), change.code.as_deref()), ("patch", Some("version_conflict")));
    assert_eq!(change.base.as_ref().unwrap().as_str(), r#"{"total":"1.00"}"#);
    let current = change.current.as_ref().unwrap();
    assert_eq!((current.version.0, current.payload.as_deref()), (2, Some(r#"{"total":"2.00"}"#)));
    let sql = "SELECT action || payload || base_payload || current_payload || current_version || code
                 FROM gbsync_parked_change WHERE idx = 1";
    let shown: String = b.query(sql);
    assert_eq!(shown, r#"patch{"total":"3.00"}{"total":"1.00"}{"total":"2.00"}2version_conflict"#);
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_record_state"), 1, "two changes of one record show once");
}

#[test]
fn a_retry_makes_the_same_edits_on_what_is_there_now_and_revising_says_only_what_differs() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    a.receipt("r1", "1.00");
    a.sync();
    b.sync();
    a.client.patch("receipts", "r1", r#"{"note":"a"}"#).unwrap();
    a.sync();
    let first = b.client.operation::<Error>("edit", "r1", |op| op.patch("receipts", "r1", r#"{"x":1}"#)).unwrap();
    let second = b.client.operation::<Error>("edit", "r1", |op| op.patch("receipts", "r1", r#"{"y":1}"#)).unwrap();
    assert_eq!(b.sync().parked.len(), 2);
    let (first_again, second_again) =
        (b.client.retry(&first.group_id).unwrap(), b.client.revise::<Error>(&second.group_id, |_| Ok(())).unwrap());
    assert!(first_again.device_seq < second_again.device_seq);
    let report = b.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (2, 0, 0));
    a.sync();
    assert_eq!(a.read("receipts", "r1").unwrap(), r#"{"note":"a","total":"1.00","x":1,"y":1}"#);
    let seq = |sealed| group(&b, sealed).seq.unwrap();
    assert!(seq(&first_again) < seq(&second_again), "order is kept");
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn only_a_parked_group_can_be_amended_and_only_once() {
    let world = World::new();
    let (_, b, sealed) = refused_with_three_dependents(&world);
    b.client.retry(&sealed[0].group_id).unwrap();
    let codes = [
        b.client.retry(&sealed[0].group_id).unwrap_err().code(),
        b.client.discard(&sealed[0].group_id, "twice").unwrap_err().code(),
        b.client.amend::<Error>(&sealed[0].group_id, |op| op.delete("notes", "n1")).unwrap_err().code(),
        b.client.retry(&gbsync_core::id::GroupId::new("nobody").unwrap()).unwrap_err().code(),
        b.client.discard(&sealed[1].group_id, " ").unwrap_err().code(),
    ];
    assert_eq!(codes, ["not_parked", "not_parked", "not_parked", "unknown_group", "no_reason"]);
    let (one, other) = (world.reopen("b"), world.reopen("b"));
    let begun = one.client.amend::<Error>(&sealed[1].group_id, |op| {
        other.client.discard(&sealed[1].group_id, "the other window was faster")?;
        op.upsert("notes", "n9", "{}")
    });
    assert_eq!(begun.unwrap_err().code(), "not_parked", "seen in the transaction that would have sealed it");
}

#[test]
fn a_discarded_group_is_kept_with_its_reason_and_the_server_knows_its_number() {
    let world = World::new();
    let (_, b, sealed) = refused_with_three_dependents(&world);
    b.client.discard(&sealed[3].group_id, "typed by mistake").unwrap();
    b.client.discard(&sealed[0].group_id, "rung up twice").unwrap();
    b.transport.plan(|request| if request.path.ends_with("/discard") { Fault::DropAnswer } else { Fault::Pass });
    b.sync();
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_discard"), 2, "no answer, so it is told again");
    b.transport.heal();
    b.sync();
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_discard"), 0);
    let info = group(&b, &sealed[0]);
    assert_eq!((info.state, info.reason.as_deref()), (GroupState::Discarded, Some("rung up twice")));
    assert_eq!(info.code.as_deref(), Some("conflict"), "why it was refused stays");
    assert_eq!(b.client.changes_of(&sealed[0].group_id).unwrap().len(), 2);
    assert_eq!(state(&b, &sealed[1]), GroupState::Parked, "what depended on it waits for a person");
    assert_eq!(b.client.retry(&sealed[2].group_id).unwrap_err().code(), "missing", "its note never was");
}

#[test]
fn a_discard_of_a_group_that_was_accepted_after_all_leaves_it_accepted() {
    let world = World::new();
    let device = world.device("a");
    let sealed = device.receipt("r1", "1.00");
    let mut pushes = 0;
    device.transport.plan(move |request| match (is_push(request), request.path.contains("/log?")) {
        (true, _) => {
            pushes += 1;
            // It arrives; then something between keeps saying that it is malformed.
            if pushes == 1 { Fault::DropAnswer } else { Fault::Answer(problem(400, "malformed", Some("/groups/0"))) }
        }
        (_, true) => Fault::DropRequest,
        _ => Fault::Pass,
    });
    while state(&device, &sealed) != GroupState::Parked {
        let _ = device.try_sync();
    }
    device.client.discard(&sealed.group_id, "it never got through").unwrap();
    assert_eq!(state(&device, &sealed), GroupState::Discarded);
    device.transport.plan(|request| if request.path.contains("/log?") { Fault::DropRequest } else { Fault::Pass });
    assert!(device.try_sync().is_err());
    assert_eq!(state(&device, &sealed), GroupState::Accepted, "the server's word stands");
    device.transport.heal();
    device.sync();
    assert_eq!(device.read("receipts", "r1").unwrap(), r#"{"total":"1.00"}"#);
    assert_eq!(device.digest(), world.digest());
}

#[test]
fn whatever_moment_a_crash_picks_an_accepted_amendment_has_its_dependents_sealed_with_it() {
    let world = World::new();
    let (a, b, sealed) = refused_with_three_dependents(&world);
    a.client.delete("payments", "p-r1").unwrap();
    a.sync();
    b.sync();
    let amended =
        b.client.amend::<Error>(&sealed[0].group_id, |op| op.upsert("payments", "p-r1", r#"{"amount":"9.00"}"#)).unwrap();
    // The file as it stands on the disk whenever a request leaves: what a crash there would leave behind.
    let copies = Arc::new(Mutex::new(Vec::new()));
    b.transport.plan({
        let (copies, from, folder) = (copies.clone(), world.path("b"), world.folder.path().to_owned());
        move |_| {
            let mut copies = copies.lock().unwrap();
            let name = format!("crash-{}", copies.len());
            let to = folder.join(format!("{name}.db"));
            rusqlite::Connection::open(&from).unwrap().execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
            copies.push(name);
            Fault::Pass
        }
    });
    assert_eq!(b.sync().accepted, 4);
    let copies = copies.lock().unwrap().clone();
    assert!(copies.len() >= 4, "{copies:?}");
    for name in copies {
        let crashed = world.reopen(&name);
        let is_accepted = state(&crashed, &amended) == GroupState::Accepted;
        for dependent in &sealed[1..] {
            let expected = if is_accepted { GroupState::Replaced } else { GroupState::Parked };
            assert_eq!(state(&crashed, dependent), expected, "{name}");
        }
        crashed.sync();
        assert_eq!(crashed.read("notes", "n1").unwrap(), r#"{"edits":2}"#, "{name}");
        assert_eq!(crashed.client.parked().unwrap().len(), 0, "{name}");
        b.transport.heal();
        b.sync();
        assert_eq!(crashed.digest(), b.digest(), "{name}");
    }
}

#[test]
fn a_dependent_that_cannot_be_laid_any_more_stays_parked_and_says_why() {
    let world = World::new();
    let (_, b, sealed) = refused_with_three_dependents(&world);
    b.client.amend::<Error>(&sealed[0].group_id, |op| op.delete("payments", "p-r1")).unwrap();
    let report = b.sync();
    assert_eq!((report.accepted, b.client.parked().unwrap().len()), (1, 3));
    let message = group(&b, &sealed[1]).message.unwrap();
    assert!(message.contains("payments:p-r1: cannot patch: the record does not exist"), "{message}");
    assert_eq!(b.read("notes", "n1"), None);
    b.client.amend::<Error>(&sealed[1].group_id, |op| op.upsert("notes", "n1", r#"{"edits":0}"#)).unwrap();
    assert_eq!(b.sync().accepted, 3, "the other two follow");
    assert_eq!(b.read("notes", "n1").unwrap(), r#"{"edits":2}"#);
}

/// Lets another device edit the record whenever it is asked, so that every answer is refused again.
struct Hopeless {
    other: Mutex<Option<Arc<Device>>>,
    asked: Mutex<Vec<u32>>,
}

impl Resolver for Hopeless {
    fn resolve(&self, parked: &ParkedGroup) -> Resolution {
        self.asked.lock().unwrap().push(parked.resolver_attempts);
        let other = self.other.lock().unwrap().clone().unwrap();
        let edited = std::thread::spawn(move || {
            other.client.patch("receipts", "r1", r#"{"note":"again"}"#).unwrap();
            other.sync();
        });
        edited.join().unwrap();
        Resolution::Retry
    }
}

fn with_resolver(world: &World, name: &str, resolver: Arc<dyn Resolver>) -> Device {
    let remote = Remote { server: world.url.clone(), space: crate::common::space() };
    let config = Config { resolver: Some(resolver), ..Config::new(world.path(name)) };
    world.with_client(Client::create(config, &remote).unwrap())
}

#[test]
fn a_resolver_answers_five_times_at_most_for_a_group_and_those_in_its_place() {
    let world = World::new();
    let a = Arc::new(world.device("a"));
    a.receipt("r1", "1.00");
    a.sync();
    let resolver = Arc::new(Hopeless { other: Mutex::default(), asked: Mutex::default() });
    let b = with_resolver(&world, "b", resolver.clone());
    b.sync();
    a.client.patch("receipts", "r1", r#"{"note":"first"}"#).unwrap();
    a.sync();
    *resolver.other.lock().unwrap() = Some(a);
    b.client.patch("receipts", "r1", r#"{"total":"2.00"}"#).unwrap();
    assert_eq!(b.sync().parked.len(), 1);
    b.sync();
    assert_eq!(*resolver.asked.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(b.client.parked().unwrap()[0].resolver_attempts, 5, "a person is to decide");
    assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_group WHERE state = 'replaced'"), 5);
}

struct Answer(Resolution, Mutex<u32>);

impl Resolver for Answer {
    fn resolve(&self, _: &ParkedGroup) -> Resolution {
        *self.1.lock().unwrap() += 1;
        self.0.clone()
    }
}

#[test]
fn a_resolver_settles_a_conflict_in_the_same_round_or_leaves_it_to_a_person_once() {
    for (answer, state, accepted) in [
        (Resolution::Retry, "accepted", 1),
        (Resolution::Discard("not worth it".into()), "discarded", 0),
        (Resolution::Leave, "parked", 0),
    ] {
        let world = World::new();
        let a = world.device("a");
        a.receipt("r1", "1.00");
        a.sync();
        let resolver = Arc::new(Answer(answer, Mutex::new(0)));
        let b = with_resolver(&world, "b", resolver.clone());
        b.sync();
        a.client.patch("receipts", "r1", r#"{"note":"a"}"#).unwrap();
        a.sync();
        b.client.patch("receipts", "r1", r#"{"total":"2.00"}"#).unwrap();
        let report = b.sync();
        assert_eq!((report.accepted, report.parked.len()), (accepted, usize::from(state == "parked")));
        b.sync();
        assert_eq!(*resolver.1.lock().unwrap(), 1, "it is asked once about a group");
        assert_eq!(b.query::<String>("SELECT state FROM gbsync_group ORDER BY device_seq DESC LIMIT 1"), state);
        assert_eq!(b.query::<i64>("SELECT count(*) FROM gbsync_discard"), 0, "the server is told in the same round");
    }
}
