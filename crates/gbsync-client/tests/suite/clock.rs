//! The hybrid logical clock on devices whose clocks are wrong.

use crate::common::{World, space};
use gbsync_client::{Client, Clock, Config, Environment, Error, GroupState, Remote};
use gbsync_core::schema::Schema;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SCHEMA: &str = r#"
version = 1
[entities.notes]
on_conflict = "last_write_wins"
fields.text = "text"
"#;

struct Set(AtomicU64);

impl Clock for Set {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn now_ms() -> u64 {
    Environment::default().clock.now_ms()
}

fn hlcs(device: &crate::common::Device) -> Vec<String> {
    let sql = "SELECT hlc FROM gbsync_outbox ORDER BY local_no";
    let rows = |db: &rusqlite::Connection| db.prepare(sql)?.query_map([], |row| row.get(0))?.collect();
    device.client.with_reader(rows).unwrap()
}

#[test]
fn groups_of_a_device_whose_clock_is_a_year_ahead_are_stamped_anew_and_accepted_in_the_same_round() {
    let world = World::under(SCHEMA);
    let clock = Arc::new(Set(AtomicU64::new(now_ms() + 365 * 24 * 3_600_000)));
    let environment = Environment { clock: clock.clone(), ..Environment::default() };
    let config =
        Config { schema: Some(Schema::parse(SCHEMA).unwrap()), ..Config::in_environment(world.path("a"), environment) };
    let a = world.with_client(Client::create(config, &Remote { server: world.url.clone(), space: space() }).unwrap());
    for text in ["one", "two"] {
        a.client.operation::<Error>("note", "n", |op| op.upsert("notes", "n", format!(r#"{{"text":"{text}"}}"#))).unwrap();
    }
    let before = hlcs(&a);
    assert!(before[0] < before[1]);
    let report = a.sync();
    assert_eq!((report.accepted, report.waiting), (2, 0));
    let after = hlcs(&a);
    assert!(after[0] < after[1] && after[1] < before[0], "{after:?}");
    let pushes = a.transport.pushes().concat();
    let bytes = r#""changes":[{"entity":"notes","id":"n","action":"upsert","baseVersion":0,"payload":{"text":"one"}}]"#;
    assert!(pushes.matches(bytes).count() >= 2, "the bytes are the same in every attempt: {pushes}");
    // Set right again, what is sealed now still comes after.
    clock.0.store(now_ms(), Ordering::Relaxed);
    a.client.upsert("notes", "n", r#"{"text":"three"}"#).unwrap();
    assert_eq!(a.sync().accepted, 1);
    assert_eq!(a.read("notes", "n").unwrap(), r#"{"text":"three"}"#);
}

#[test]
fn a_later_write_wins_also_on_a_device_whose_clock_is_behind_because_it_heard_of_the_earlier_one() {
    let world = World::under(SCHEMA);
    let b = world.device_under("b", SCHEMA);
    b.client.upsert("notes", "n", r#"{"text":"first"}"#).unwrap();
    b.sync();
    let clock = Arc::new(Set(AtomicU64::new(now_ms() - 3_600_000)));
    let config = Config {
        schema: Some(Schema::parse(SCHEMA).unwrap()),
        ..Config::in_environment(world.path("a"), Environment { clock, ..Environment::default() })
    };
    let a = world.with_client(Client::create(config, &Remote { server: world.url.clone(), space: space() }).unwrap());
    a.sync();
    let heard = hlcs(&b).remove(0);
    a.client.upsert("notes", "n", r#"{"text":"second"}"#).unwrap();
    assert!(hlcs(&a)[0] > heard);
    a.sync();
    assert_eq!(a.states(), [(GroupState::Accepted, None)]);
    b.sync();
    assert_eq!(b.read("notes", "n").unwrap(), r#"{"text":"second"}"#);
}
