//! What is decided of records whose tombstone the horizon has passed: the same whether it is removed already or not.

use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::decide::{Decision, Facts, Known, Record, Standing, decide};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{DeviceSeq, GroupId, LogId, RecordKey, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;

fn key() -> RecordKey {
    RecordKey::new("notes", "n").unwrap()
}

fn payload() -> Payload {
    Payload::parse(r#"{"x":1}"#, &Limits::default()).unwrap()
}

/// What becomes of an edit made on a base, where the record was deleted by entry 40 and the horizon is there or not.
fn decided(edit: Edit, base: Base, horizon: u64, has_tombstone: bool, schema: Option<&Schema>) -> String {
    let depends_on = base.group.iter().cloned().collect();
    let change = Change::new(key(), edit, base).unwrap();
    let header = Header {
        id: GroupId::new("g").unwrap(),
        group_type: None,
        device_seq: DeviceSeq(1),
        actor: None,
        created_at: Timestamp::from_unix_ms(0),
        schema_version: 0,
        depends_on,
        replaces: None,
        family: None,
        log: None,
        hlc: None,
        clears: Vec::new(),
    };
    let group = Group::seal(header, vec![change], &Limits::default()).unwrap();
    let standing = Standing {
        other_log: None,
        scopes: Default::default(),
        groups: [(GroupId::new("own").unwrap(), Known::Accepted(Seq(5)))].into(),
        replaced_by: None,
        log: LogId::new("log-1").unwrap(),
        head: Seq(60),
        roles: None,
        now_ms: 0,
    };
    let mut facts = Facts::behind(Seq(horizon));
    let tombstone =
        Record { version: Seq(40), edit_version: Seq(40), payload: None, marks: None, reach: Default::default() };
    facts.learn_record(key(), has_tombstone.then_some(tombstone));
    match decide(&group, &standing, &facts, schema, &Limits::default()).unwrap() {
        Decision::Accept(_) => "accepted".into(),
        Decision::Reject(rejection) => rejection.changes[0].code.as_str().into(),
        other => panic!("{other:?}"),
    }
}

fn upsert() -> Edit {
    Edit::Upsert(payload())
}

fn on(version: u64) -> Base {
    Base { version: Seq(version), group: None }
}

#[test]
fn when_a_tombstone_behind_the_horizon_is_removed_decides_nothing() {
    let own = Base { version: Seq(0), group: Some(GroupId::new("own").unwrap()) };
    for (edit, base, expected) in [
        (upsert(), on(0), "accepted"),
        (upsert(), on(10), "deleted"),
        (upsert(), own, "deleted"),
        (Edit::Patch(payload()), on(10), "deleted"),
        (Edit::Patch(payload()), on(0), "missing"),
        (Edit::Delete, on(10), "deleted"),
        (Edit::Delete, on(0), "missing"),
        (Edit::Increment(payload()), on(0), "missing"),
    ] {
        for has_tombstone in [true, false] {
            let got = decided(edit.clone(), base.clone(), 40, has_tombstone, None);
            assert_eq!(got, expected, "{edit:?} on {base:?}, tombstone: {has_tombstone}");
        }
    }
}

#[test]
fn before_the_horizon_passes_it_a_tombstone_is_one() {
    for (edit, base, expected) in [
        (upsert(), on(0), "deleted"),
        (upsert(), on(10), "deleted"),
        (upsert(), on(40), "accepted"),
        (Edit::Patch(payload()), on(10), "deleted"),
        (Edit::Increment(payload()), on(0), "deleted"),
    ] {
        assert_eq!(decided(edit.clone(), base.clone(), 39, true, None), expected, "{edit:?} on {base:?}");
    }
}

#[test]
fn where_edits_win_over_deletes_an_upsert_makes_it_anew_behind_the_horizon_too() {
    let schema =
        Schema::parse("version = 1\n[entities.notes]\non_delete_conflict = \"edit_wins\"\nfields.x = \"integer\"\n");
    let schema = schema.unwrap();
    for has_tombstone in [true, false] {
        assert_eq!(decided(upsert(), on(10), 40, has_tombstone, Some(&schema)), "accepted");
        assert_eq!(decided(Edit::Patch(payload()), on(10), 40, has_tombstone, Some(&schema)), "deleted");
    }
}
