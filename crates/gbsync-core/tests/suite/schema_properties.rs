//! What holds of every schema: its JSON says the same, in the same bytes, and what is of its own version stays as it is.

use gbsync_core::change::{Edit, Payload};
use gbsync_core::id::{Entity, GroupType, Role};
use gbsync_core::json::Decimal;
use gbsync_core::schema::*;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ENTITIES: [&str; 4] = ["receipts", "payments", "stock", "Notes_2"];
const VERSION: u64 = 5;

fn kind() -> impl Strategy<Value = FieldKind> {
    let simple = [FieldKind::Text, FieldKind::Integer, FieldKind::Real, FieldKind::Boolean, FieldKind::Date];
    prop_oneof![
        proptest::sample::select(simple.to_vec()),
        proptest::sample::select(vec![FieldKind::Timestamp, FieldKind::Json]),
        (0_u32..=18).prop_map(|scale| FieldKind::Decimal { scale }),
    ]
}

fn on_violation() -> impl Strategy<Value = OnViolation> {
    prop_oneof![Just(OnViolation::Reject), Just(OnViolation::Flag)]
}

fn undeclared() -> impl Strategy<Value = Undeclared> {
    prop_oneof![Just(Undeclared::Accept), Just(Undeclared::Refuse)]
}

fn default_of(kind: FieldKind) -> Box<str> {
    match kind {
        FieldKind::Text => r#""a \"b\" \\ é\n""#.into(),
        FieldKind::Integer => "-7".into(),
        FieldKind::Real => "1.50e-3".into(),
        FieldKind::Decimal { scale: 0 } => r#""12""#.into(),
        FieldKind::Decimal { scale } => format!("\"-1.{}\"", "5".repeat(scale as usize)).into(),
        FieldKind::Boolean => "true".into(),
        FieldKind::Date => r#""2026-06-03""#.into(),
        FieldKind::Timestamp => r#""2026-06-03T20:52:59Z""#.into(),
        FieldKind::Json => r#"{"a":[1,null],"b":{}}"#.into(),
    }
}

fn extras(kind: FieldKind) -> BoxedStrategy<(Option<Counter>, Option<Reference>, Option<String>)> {
    let bounds = (option::of(-9_i64..0), option::of(0_i64..9), on_violation());
    let counter = bounds.prop_map(|(min, max, on_violation)| {
        let decimal = |bound: i64| Decimal::parse(&bound.to_string()).unwrap();
        Counter { min: min.map(decimal), max: max.map(decimal), on_violation }
    });
    // A reference restricts or ignores, so that no circle of cascades arises.
    let on_delete = prop_oneof![Just(OnDelete::Restrict), Just(OnDelete::Ignore)];
    let reference = (proptest::sample::select(ENTITIES.to_vec()), on_delete, on_violation());
    let reference = reference.prop_map(|(entity, on_delete, on_violation)| Reference {
        entity: Entity::new(entity).unwrap(),
        on_delete,
        on_violation,
    });
    match kind {
        FieldKind::Integer | FieldKind::Real => option::of(counter).prop_map(|counter| (counter, None, None)).boxed(),
        FieldKind::Text => prop_oneof![
            option::of(reference).prop_map(|reference| (None, reference, None)),
            Just((None, None, Some("receiptNo".to_owned()))),
        ]
        .boxed(),
        _ => Just((None, None, None)).boxed(),
    }
}

fn field() -> impl Strategy<Value = Field> {
    let rest = (any::<bool>(), any::<bool>(), any::<bool>(), option::of(1..=VERSION));
    kind().prop_flat_map(move |kind| {
        (extras(kind), rest.clone()).prop_map(move |((counter, reference, sequence), (required, was, default, since))| {
            Field {
                required,
                counter,
                reference,
                sequence,
                default: (default || (required && !was)).then(|| default_of(kind)),
                was: was.then(String::new),
                since,
                ..Field::of(kind)
            }
        })
    })
}

fn invariants() -> impl Strategy<Value = Vec<Invariant>> {
    let rules = ["true", "receipts.all(r, \"\\\"\" != r.no)", "size(before.stock) >= 0\n  && true"];
    vec((proptest::sample::select(rules.to_vec()), on_violation()), 0..3).prop_map(|rules| {
        let invariant = |(index, (cel, on_violation)): (usize, (&str, OnViolation))| Invariant {
            name: format!("rule {index}"),
            cel: Expression::compile(cel).unwrap(),
            on_violation,
        };
        rules.into_iter().enumerate().map(invariant).collect()
    })
}

fn entity() -> impl Strategy<Value = EntityRules> {
    let on_conflict = prop_oneof![
        Just(OnConflict::Reject),
        Just(OnConflict::Merge),
        Just(OnConflict::LastWriteWins),
        Just(OnConflict::Accept)
    ];
    let on_delete_conflict =
        prop_oneof![Just(OnDeleteConflict::Reject), Just(OnDeleteConflict::DeleteWins), Just(OnDeleteConflict::EditWins)];
    let policies = (undeclared(), undeclared(), on_conflict, on_delete_conflict);
    (btree_map("[a-c]{1,2}", field(), 0..5), policies, invariants(), any::<bool>()).prop_map(
        |(fields, policies, invariants, listed)| {
            let mut rules = EntityRules {
                additional: policies.0,
                ungrouped: policies.1,
                on_conflict: policies.2,
                on_delete_conflict: policies.3,
                invariants,
                ..EntityRules::default()
            };
            for (name, mut field) in fields {
                field.was = field.was.map(|_| format!("old_{name}"));
                rules.fields.insert(name, field);
            }
            let comparable = |(_, field): &(&String, &Field)| field.kind != FieldKind::Json && field.counter.is_none();
            let names: Vec<String> = rules.fields.iter().filter(comparable).map(|(name, _)| name.clone()).collect();
            if listed && !names.is_empty() {
                rules.unique = vec![names.clone()];
                rules.indexes = vec![names[..1].to_vec()];
            }
            rules
        },
    )
}

fn operation() -> impl Strategy<Value = OperationRules> {
    let count =
        (0_u64..5, option::of(0_u64..5)).prop_map(|(least, more)| Count { least, most: more.map(|more| least + more) });
    let shape = option::of(btree_map(proptest::sample::select(ENTITIES.to_vec()), count, 1..4));
    (btree_set("[a-z é]{1,4}", 0..3), shape, invariants()).prop_map(|(roles, shape, invariants)| OperationRules {
        roles: roles.into_iter().map(|role| Role::new(role).unwrap()).collect(),
        shape: shape.map(|shape| shape.into_iter().map(|(name, count)| (Entity::new(name).unwrap(), count)).collect()),
        invariants,
        scope: Default::default(),
    })
}

fn schema() -> impl Strategy<Value = Schema> {
    let entities = (entity(), entity(), entity(), entity());
    (entities, btree_map("[a-z.-]{1,9}", operation(), 0..3), undeclared()).prop_map(|(rules, operations, undeclared)| {
        let rules = [rules.0, rules.1, rules.2, rules.3];
        let parts = vec![SequencePart::Device, SequencePart::Text("-é".into()), SequencePart::Number { width: 6 }];
        Schema {
            version: VERSION,
            entities: ENTITIES.iter().map(|name| Entity::new(*name).unwrap()).zip(rules).collect(),
            sequences: BTreeMap::from([("receiptNo".to_owned(), Sequence { format: SequenceFormat { parts } })]),
            operations: operations.into_iter().map(|(name, rules)| (GroupType::new(name).unwrap(), rules)).collect(),
            undeclared_operations: undeclared,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_schema_is_the_same_after_its_json(schema in schema()) {
        let json = schema.to_json();
        let read = Schema::parse(&json).map_err(|problems| TestCaseError::fail(format!("{problems}\n{json}")))?;
        prop_assert_eq!(&read, &schema);
        prop_assert_eq!(read.to_json(), json);
    }

    #[test]
    fn an_edit_of_the_present_version_stays_as_it_is(schema in schema(), made_under in VERSION..9, field in "(old_)?[a-c]{1,2}") {
        let payload = || Payload::from_stored(format!("{{\"{field}\":1}}"));
        for entity in schema.entities.keys() {
            for edit in [Edit::Upsert(payload()), Edit::Patch(payload()), Edit::Increment(payload()), Edit::Delete] {
                prop_assert_eq!(schema.translate(entity, &edit, made_under).into_owned(), edit);
            }
        }
    }

    #[test]
    fn translating_twice_is_translating_once(schema in schema(), made_under in 0..VERSION, field in "(old_)?[a-c]{1,2}") {
        for entity in schema.entities.keys() {
            let edit = Edit::Upsert(Payload::from_stored(format!("{{\"{field}\":1}}")));
            let once = schema.translate(entity, &edit, made_under);
            prop_assert_eq!(schema.translate(entity, &once, made_under).into_owned(), once.clone().into_owned());
        }
    }
}

fn versions() -> Schema {
    let text = r#"
        version = 3
        [entities.customers]
        fields.phone = { type = "text", was = "telephone", since = 2 }
        fields.visits = { type = "integer", counter = true, was = "count", since = 3 }
        fields.active = { type = "boolean", required = true, default = true, since = 3 }
        fields.name = "text"
    "#;
    Schema::parse(text).unwrap()
}

#[test]
fn an_older_group_is_understood_by_its_version() {
    let (schema, customers) = (versions(), Entity::new("customers").unwrap());
    let translated = |edit: Edit, made_under| {
        let edit = schema.translate(&customers, &edit, made_under).into_owned();
        edit.payload().map(|payload| payload.as_str().to_owned()).unwrap_or_default()
    };
    let upsert = |text: &str| Edit::Upsert(Payload::from_stored(text));
    let patch = |text: &str| Edit::Patch(Payload::from_stored(text));
    let increment = |text: &str| Edit::Increment(Payload::from_stored(text));
    assert_eq!(translated(upsert(r#"{"telephone":"1"}"#), 1), r#"{"active":true,"phone":"1"}"#);
    assert_eq!(translated(upsert(r#"{"telephone":"1"}"#), 2), r#"{"active":true,"telephone":"1"}"#);
    assert_eq!(translated(upsert(r#"{"telephone":"1"}"#), 3), r#"{"telephone":"1"}"#);
    assert_eq!(translated(upsert(r#"{"active":false}"#), 0), r#"{"active":false}"#);
    assert_eq!(translated(patch(r#"{"telephone":null}"#), 1), r#"{"phone":null}"#, "a patch gets no defaults");
    assert_eq!(translated(increment(r#"{"count":2}"#), 2), r#"{"visits":2}"#);
    assert_eq!(translated(upsert(r#"{"phone":"2","telephone":"1"}"#), 1), r#"{"active":true,"phone":"2","telephone":"1"}"#);
    assert_eq!(translated(patch(r#"{"name":"Ada"}"#), 0), r#"{"name":"Ada"}"#);
}

#[test]
fn accepted_vectors_are_the_same_after_their_json() {
    for name in ["shop.toml", "short.toml", "tree.toml", "defaults.toml", "shop.json"] {
        let path = format!("{}/../../vectors/schema-accepted/{name}", env!("CARGO_MANIFEST_DIR"));
        let schema = Schema::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(Schema::parse(&schema.to_json()).unwrap(), schema, "{name}");
    }
}
