//! Deciding by a schema holds its ground against whatever is written: groups at random, and rules built to hurt.

use crate::space::Space;
use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::decide::Decision;
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{DeviceSeq, GroupId, RecordKey, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::schema::{Expression, Schema};
use gbsync_core::time::Timestamp;
use proptest::prelude::*;

const SCHEMA: &str = r#"
version = 1
[entities.a]
on_conflict = "merge"
unique = [["u"]]
fields.u = "text"
fields.n = { type = "integer", counter = true, min = -2 }
fields.d = { type = "decimal", scale = 1 }
[[entities.a.invariants]]
name = "few"
cel = "a.all(x, size(x.b) <= 2 && sum(x.b.map(y, y.d)) < 20 && before.a.all(z, z.id != x.id || z.u != 'y'))"
[entities.b]
on_conflict = "last_write_wins"
on_delete_conflict = "edit_wins"
fields.to = { type = "text", references = "a", on_delete = "cascade" }
fields.d = { type = "decimal", scale = 1 }
[entities.c]
on_conflict = "accept"
fields.to = { type = "text", references = "b", on_violation = "flag" }
"#;

fn edits() -> impl Strategy<Value = Edit> {
    let payloads = prop::sample::select(vec![
        "{}",
        r#"{"u":"x"}"#,
        r#"{"u":"y"}"#,
        r#"{"to":"1"}"#,
        r#"{"to":"2"}"#,
        r#"{"to":null}"#,
        r#"{"d":"1.5"}"#,
        r#"{"d":9,"to":"1"}"#,
        r#"{"n":1}"#,
        r#"{"n":3,"u":null}"#,
    ]);
    (0..6_u8, payloads).prop_map(|(kind, text)| {
        let payload = Payload::from_stored(text);
        match kind {
            0..=2 => Edit::Upsert(payload),
            3 => Edit::Patch(payload),
            4 => Edit::Increment(Payload::from_stored(r#"{"n":-1}"#)),
            _ => Edit::Delete,
        }
    })
}

fn groups() -> impl Strategy<Value = Vec<Vec<(u8, u8, Edit, u64)>>> {
    let change = (0..3_u8, 1..4_u8, edits(), 0..4_u64);
    prop::collection::vec(prop::collection::vec(change, 1..4), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// [`Space::push`] holds what earlier groups left in the facts against what a store would load, after every group.
    #[test]
    fn facts_after_any_groups_are_those_of_a_store(groups in groups()) {
        let (limits, mut space) = (Limits::default(), Space::new(Schema::parse(SCHEMA).unwrap()));
        for (place, changes) in groups.into_iter().enumerate() {
            let changes = changes.into_iter().map(|(entity, id, edit, behind)| {
                let base = Base { version: Seq(space.head.0.saturating_sub(behind)), group: None };
                let key = RecordKey::new(["a", "b", "c"][usize::from(entity)], &id.to_string()).unwrap();
                Change::new(key, edit, base).unwrap()
            });
            let header = Header {
                id: GroupId::new(format!("g{place}")).unwrap(), group_type: None, device_seq: DeviceSeq(1), actor: None,
                created_at: Timestamp::from_unix_ms(0), schema_version: 1, depends_on: Vec::new(), replaces: None, family: None, log: None,
                hlc: None, clears: Vec::new(),
            };
            let group = Group::seal(header, changes.collect(), &limits).unwrap();
            let (standing, records) = (space.standing(&group, None, 0), space.records.clone());
            match space.push(&group, &standing) {
                Decision::Accept(accepted) => prop_assert!(!accepted.outcomes.is_empty()),
                _ => prop_assert_eq!(&space.records, &records, "a rejected group changes nothing"),
            }
        }
    }

    #[test]
    fn no_text_makes_the_compiler_of_rules_panic(text in "[a-z0-9 .,()\\[\\]{}?:!&|<>=+*/%'\"-]{0,60}") {
        let _ = Expression::compile(&text);
    }
}

#[test]
fn rules_that_are_built_to_hurt_are_refused_or_compiled() {
    let nested = |open: &str, close: &str, count: usize| format!("{}1{}", open.repeat(count), close.repeat(count));
    for text in [
        nested("(", ")", 1_000),
        nested("[", "]", 1_000),
        nested("{'a':", "}", 500),
        nested("size(", ")", 500),
        nested("!", "", 3_000),
        nested("-", "", 3_000),
        nested("1 + ", "", 900),
        nested("true ? 1 : ", "", 300),
        nested("true && ", "", 400),
        nested("a.", "", 1_000),
        nested("a.all(x, ", ")", 300),
        format!("a{}", "[0]".repeat(900)),
        "x".repeat(5_000),
        "'a'.matches('((((a{99}){99}){99}){99}){99}')".to_owned(),
        format!("'a'.matches('{}a{}')", "(".repeat(300), ")".repeat(300)),
        "a.map(x, x, x, x)".to_owned(),
        "before".to_owned(),
        "b'bytes'".to_owned(),
        "0.1234567890123456789".to_owned(),
        "18446744073709551615u".to_owned(),
        "T{a: 1}".to_owned(),
        "\u{0}".to_owned(),
        "é.all(ü, true)".to_owned(),
    ] {
        if let Err(error) = Expression::compile(&text) {
            assert!(!error.message.is_empty(), "{text}");
        }
    }
}
