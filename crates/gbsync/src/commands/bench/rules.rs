//! Deciding with rules beside deciding without: sales against a space that already holds many records.
//!
//! Both sides are core's `decide` on the same facts in memory, one group after the other, each applied before the next is
//! decided. The facts hold what the space holds, so that look-ups cost what they cost there.

use super::Sizes;
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, Sale, sales};
use super::typed::schema;
use anyhow::{Result, bail};
use gbsync_core::change::{Base, Change, Payload};
use gbsync_core::decide::{Decision, Facts, Needs, Record, Standing, decide, entries};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{DeviceSeq, GroupId, GroupType, LogId, RecordId, RecordKey, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Instant;

/// Measures deciding.
pub(super) fn measure(sizes: &Sizes) -> Result<Vec<Figure>> {
    let schema = schema()?;
    let held = sizes.held_records / RECORDS;
    let facts = held_facts(&schema, held)?;
    let groups = sales(1, held + 1, sizes.decided_groups).iter().map(group).collect::<Result<Vec<_>>>()?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..sizes.rounds {
        ours.push(decided(&groups, facts.clone(), Some(&schema))?);
        raw.push(decided(&groups, facts.clone(), None)?);
    }
    Ok(vec![
        Figure::new("decide", "groups/s").ours(median(&mut ours)).raw(median(&mut raw)).bar(Bar::RatioAtLeast(0.4)).note(
            format!(
                "{} groups of {RECORDS} against {} records, with references and an invariant; beside it without a schema",
                sizes.decided_groups, sizes.held_records
            ),
        ),
    ])
}

/// A space with so many sales in it.
fn held_facts(schema: &Schema, held: u64) -> Result<Facts> {
    let mut facts = Facts::default();
    let mut lists: BTreeMap<_, Vec<RecordId>> = BTreeMap::new();
    for sale in sales(1, 1, held) {
        for row in &sale.rows {
            let key = RecordKey::new(row.entity, &row.id)?;
            let payload = Payload::parse(&row.payload, &Limits::default())?;
            for list in entries(schema, &key, &payload) {
                lists.entry(list).or_default().push(key.id.clone());
            }
            let record = Record {
                version: Seq(1),
                edit_version: Seq(1),
                payload: Some(payload),
                marks: None,
                reach: Default::default(),
            };
            facts.learn_record(key, Some(record));
        }
    }
    for (list, ids) in lists {
        facts.learn_index(list, ids);
    }
    Ok(facts)
}

fn group(sale: &Sale) -> Result<Group> {
    let edits = sale.operation_line().edits;
    let changes = edits.into_iter().map(|(key, edit)| Change::new(key, edit, Base::default()));
    let header = Header {
        id: GroupId::new(format!("receipt-create:{}:1", sale.root))?,
        group_type: Some(GroupType::new("receipt-create")?),
        device_seq: DeviceSeq(1),
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
    Ok(Group::seal(header, changes.collect::<Result<_, _>>()?, &Limits::default())?)
}

/// Groups decided a second.
fn decided(groups: &[Group], mut facts: Facts, schema: Option<&Schema>) -> Result<f64> {
    let mut standing = Standing {
        groups: BTreeMap::new(),
        replaced_by: None,
        log: LogId::new("bench")?,
        other_log: None,
        head: Seq(1),
        roles: None,
        scopes: Default::default(),
        now_ms: 0,
    };
    let limits = Limits::default();
    let started = Instant::now();
    for group in groups {
        let accepted = loop {
            match decide(group, &standing, &facts, schema, &limits) {
                Ok(Decision::Accept(accepted)) => break accepted,
                Ok(other) => bail!("{} was not accepted: {other:?}", group.id()),
                Err(needs) => nothing_there(&needs, &mut facts),
            }
        };
        standing.head = standing.head.next();
        facts.apply(accepted.outcomes, schema);
    }
    Ok(groups.len() as f64 / started.elapsed().as_secs_f64())
}

/// What is not among the facts is not in the space.
fn nothing_there(needs: &Needs, facts: &mut Facts) {
    for key in &needs.records {
        facts.learn_record(key.clone(), None);
    }
    for list in &needs.index {
        facts.learn_index(list.clone(), []);
    }
}
