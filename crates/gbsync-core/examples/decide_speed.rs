//! How fast groups of five are decided by a schema with references and one invariant, beside the same without a schema:
//! `cargo run --release -p gbsync-core --example decide_speed`. Nothing is read or written; the store is a map.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::decide::{Decision, Facts, Needs, Record, Standing, decide, entries, wants};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{DeviceSeq, GroupId, GroupType, LogId, RecordId, RecordKey, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

const RECORDS: usize = 1_000_000;
const GROUPS: usize = 100_000;
/// Groups of one transaction.
const BATCH: usize = 50;

const SCHEMA: &str = r#"
version = 1
[entities.customers]
fields.name = "text"
[entities.receipts]
fields.no = "text"
fields.at = "timestamp"
fields.total = { type = "decimal", scale = 2, required = true }
fields.customerId = { type = "text", references = "customers" }
[entities.payments]
fields.receiptId = { type = "text", required = true, references = "receipts", on_delete = "cascade" }
fields.amount = { type = "decimal", scale = 2, required = true }
fields.method = "text"
[entities.movements]
fields.itemId = { type = "text", required = true, references = "stock" }
fields.quantity = "integer"
[entities.stock]
fields.name = "text"
fields.quantity = { type = "integer", counter = true }
[operations.receipt-create]
shape = { receipts = "1", payments = "1..", movements = "0..", stock = "0.." }
[[operations.receipt-create.invariants]]
name = "payments-cover-total"
cel = "receipts.all(r, sum(r.payments.map(p, p.amount)) == r.total)"
"#;

fn key(entity: &str, id: String) -> RecordKey {
    RecordKey::new(entity, &id).unwrap()
}

fn group(index: usize, limits: &Limits) -> Group {
    let (customer, item) = (index * 7919 % (RECORDS / 2), index * 104_729 % (RECORDS / 2));
    let change = |entity: &str, id: String, edit: fn(Payload) -> Edit, text: String| {
        Change::new(key(entity, id), edit(Payload::parse(&text, limits).unwrap()), Base::default()).unwrap()
    };
    let payment = |place: usize, amount: &str| {
        let text = format!(r#"{{"receiptId":"receipt-{index}","amount":"{amount}","method":"card"}}"#);
        change("payments", format!("payment-{index}-{place}"), Edit::Upsert, text)
    };
    let receipt = format!(
        r#"{{"no":"T1-{index:06}","at":"2026-06-03T20:52:59.123Z","total":"120.00","customerId":"customer-{customer}"}}"#
    );
    let movement = format!(r#"{{"itemId":"item-{item}","quantity":-3}}"#);
    let changes = vec![
        change("receipts", format!("receipt-{index}"), Edit::Upsert, receipt),
        payment(1, "20.00"),
        payment(2, "100.00"),
        change("movements", format!("movement-{index}"), Edit::Upsert, movement),
        change("stock", format!("item-{item}"), Edit::Increment, r#"{"quantity":-3}"#.to_owned()),
    ];
    let header = Header {
        id: GroupId::new(format!("receipt-create:receipt-{index}:1")).unwrap(),
        group_type: Some(GroupType::new("receipt-create").unwrap()),
        device_seq: DeviceSeq(index as u64),
        actor: None,
        created_at: Timestamp::from_unix_ms(0),
        schema_version: 1,
        depends_on: Vec::new(),
        replaces: None,
        family: None,
        log: None,
        hlc: None,
        clears: Vec::new(),
    };
    Group::seal(header, changes, limits).unwrap()
}

#[derive(Default)]
struct Store {
    records: HashMap<RecordKey, Record>,
    index: HashMap<gbsync_core::decide::IndexKey, BTreeSet<RecordId>>,
}

impl Store {
    fn answer(&self, needs: Needs, facts: &mut Facts) {
        for key in needs.records {
            let record = self.records.get(&key).cloned();
            facts.learn_record(key, record);
        }
        for key in needs.index {
            let ids = self.index.get(&key).cloned().unwrap_or_default();
            facts.learn_index(key, ids);
        }
    }
}

/// Time spent: on asking and answering, on deciding, on taking what was decided.
fn run(groups: &[Group], store: &Store, schema: Option<&Schema>, limits: &Limits) -> [Duration; 3] {
    let mut times = [Duration::ZERO; 3];
    let log = LogId::new("log-1").unwrap();
    let mut standing = Standing {
        groups: BTreeMap::new(),
        replaced_by: None,
        log,
        other_log: None,
        head: Seq(1),
        roles: None,
        scopes: Default::default(),
        now_ms: 0,
    };
    for batch in groups.chunks(BATCH) {
        let mut facts = Facts::default();
        let began = Instant::now();
        let mut needs = Needs::default();
        for group in batch {
            let wanted = wants(group, schema);
            needs.records.extend(wanted.records);
            needs.index.extend(wanted.index);
        }
        store.answer(needs, &mut facts);
        times[0] += began.elapsed();
        for group in batch {
            let began = Instant::now();
            let decision = decide(group, &standing, &facts, schema, limits);
            times[1] += began.elapsed();
            let Ok(Decision::Accept(accepted)) = decision else { panic!("{decision:?}") };
            standing.head = standing.head.next();
            let began = Instant::now();
            facts.apply(accepted.outcomes, schema);
            times[2] += began.elapsed();
        }
        let began = Instant::now();
        drop(facts);
        times[2] += began.elapsed();
    }
    times
}

fn main() {
    let (limits, schema) = (Limits::default(), Schema::parse(SCHEMA).unwrap());
    let mut store = Store::default();
    for index in 0..RECORDS / 2 {
        for (entity, id, text) in [
            ("customers", format!("customer-{index}"), format!(r#"{{"name":"Customer {index}"}}"#)),
            ("stock", format!("item-{index}"), format!(r#"{{"name":"Item {index}","quantity":1000}}"#)),
        ] {
            let (key, payload) = (key(entity, id), Payload::from_stored(text));
            for list in entries(&schema, &key, &payload) {
                store.index.entry(list).or_default().insert(key.id.clone());
            }
            store.records.insert(
                key,
                Record {
                    version: Seq(1),
                    edit_version: Seq(1),
                    payload: Some(payload),
                    marks: None,
                    reach: Default::default(),
                },
            );
        }
    }
    let groups: Vec<Group> = (0..GROUPS).map(|index| group(index, &limits)).collect();
    let (mut plain, mut ruled) = ([Duration::MAX; 3], [Duration::MAX; 3]);
    for _ in 0..3 {
        let least = |best: &mut [Duration; 3], times: [Duration; 3]| {
            best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
        };
        least(&mut plain, run(&groups, &store, None, &limits));
        least(&mut ruled, run(&groups, &store, Some(&schema), &limits));
    }
    let per_group = |time: Duration| time.as_nanos() as f64 / GROUPS as f64 / 1000.0;
    for (name, place) in [("asking and answering", 0), ("deciding", 1), ("taking", 2)] {
        let (plain, ruled) = (per_group(plain[place]), per_group(ruled[place]));
        println!("{name}: {plain:.2} us a group without a schema, {ruled:.2} with one: {:.2} of the speed", plain / ruled);
    }
    let (plain, ruled): (Duration, Duration) = (plain.iter().sum(), ruled.iter().sum());
    let ratio = plain.as_secs_f64() / ruled.as_secs_f64();
    println!(
        "all: {:.2} us a group without a schema, {:.2} with one: {ratio:.2} of the speed",
        per_group(plain),
        per_group(ruled)
    );
}
