//! The judge can say no: each condition is broken on purpose, and named.

use super::conditions::{Condition, Rows, broken, clear, copy, judge};
use super::log::{apply, empty_state};
use super::world::World;
use anyhow::Result;
use gbsync_core::wire::{LogChange, LogState};
use rusqlite::Connection;
use std::collections::BTreeMap;

const STATE: Rows = Rows::Payloads("state");

/// A world in which every kind of transaction took effect, at rest.
fn world() -> Result<World> {
    let mut world = World::new(5, 2)?;
    world.run(40)?;
    Ok(world)
}

/// The numbers of the conditions that are broken.
fn broken_in(db: &Connection, rows: Rows) -> Result<Vec<u8>> {
    copy(db, rows)?;
    let mut numbers = Vec::new();
    for condition in Condition::all() {
        if broken(db, &condition)?.is_some() {
            numbers.push(condition.number);
        }
    }
    clear(db)?;
    Ok(numbers)
}

fn set(entity: &str, field: &str, value: &str, which: &str) -> String {
    format!(
        "UPDATE state SET payload = json_set(payload, '$.{field}', {value})
          WHERE rowid = (SELECT rowid FROM state WHERE entity = '{entity}' AND payload IS NOT NULL AND {which} ORDER BY id LIMIT 1)"
    )
}

#[test]
fn each_condition_is_broken_by_what_it_is_about() -> Result<()> {
    let world = world()?;
    let state = empty_state()?;
    for change in world.log().entries.iter().flatten() {
        apply(&state, change)?;
    }
    world.end();
    assert_eq!(broken_in(&state, STATE)?, Vec::<u8>::new(), "nothing was broken yet");
    let (delivered, new) = ("payload ->> '$.carrierId' IS NOT NULL", "payload ->> '$.carrierId' IS NULL");
    let cases: &[(&[u8], String)] = &[
        (&[1, 8], set("warehouses", "ytd", "'1.00'", "true")),
        (&[2], set("districts", "nextOrder", "1", "true")),
        (&[3], "INSERT INTO state SELECT entity, id || 'x', payload FROM state WHERE entity = 'new_orders' AND payload IS NOT NULL LIMIT 1".into()),
        (&[4, 6], set("orders", "lineCount", "99", "true")),
        (&[5, 7], set("orders", "carrierId", "null", delivered)),
        (&[5, 7], set("orders", "carrierId", "1", new)),
        (&[4, 6], "DELETE FROM state WHERE entity = 'order_lines' AND payload ->> '$.deliveredAt' IS NULL AND payload IS NOT NULL".into()),
        (&[7, 10, 12], set("order_lines", "deliveredAt", "null", "payload ->> '$.amount' > '0.00' AND payload ->> '$.deliveredAt' IS NOT NULL")),
        (&[8, 9, 10], "DELETE FROM state WHERE rowid = (SELECT rowid FROM state WHERE entity = 'history' LIMIT 1)".into()),
        (&[1, 9], set("districts", "ytd", "'1.00'", "true")),
        (&[10, 12], set("customers", "balance", "'1.00'", "true")),
        (&[11], set("customers", "deliveryCount", "99", "true")),
        (&[12], set("customers", "ytdPayment", "'1.00'", "true")),
    ];
    let mut seen: Vec<u8> = Vec::new();
    for (numbers, damage) in cases {
        state.execute_batch(&format!("SAVEPOINT damage; {damage};"))?;
        // What is copied is rolled back with it.
        let found = broken_in_a_copy(&state)?;
        state.execute_batch("ROLLBACK TO damage; RELEASE damage")?;
        for number in *numbers {
            assert!(found.contains(number), "condition {number} does not see {damage}: {found:?}");
        }
        seen.extend_from_slice(numbers);
    }
    assert!((1..=12).all(|number| seen.contains(&number)), "every condition is broken by something: {seen:?}");
    Ok(())
}

fn broken_in_a_copy(state: &Connection) -> Result<Vec<u8>> {
    let copy = empty_state()?;
    let mut rows = state.prepare("SELECT entity, id, payload FROM state")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (entity, id, payload): (String, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        copy.execute("INSERT INTO state VALUES (?1, ?2, ?3)", (entity, id, payload))?;
    }
    broken_in(&copy, STATE)
}

#[test]
fn an_order_line_that_is_gone_from_a_device_is_found() -> Result<()> {
    let world = world()?;
    let folder = tempfile::tempdir()?;
    world.devices[1].backup(folder.path())?;
    world.end();
    let db = Connection::open(folder.path().join("till.db"))?;
    judge(&db, Rows::Tables, &Condition::all())?;
    judge(&db, Rows::Payloads("gbsync_base"), &Condition::all())?;
    // The engine would not let a program do this.
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    assert_eq!(db.execute("DELETE FROM order_lines WHERE id = (SELECT max(id) FROM order_lines)", [])?, 1);
    let found = judge(&db, Rows::Tables, &Condition::all()).expect_err("a line is gone").to_string();
    assert!(found.starts_with("TPC-C condition 4 is broken"), "{found}");
    Ok(())
}

#[test]
fn record_by_record_the_conditions_do_not_hold_in_between() -> Result<()> {
    let world = world()?;
    let entries = world.log().entries.clone();
    world.end();
    let state = empty_state()?;
    let (mut torn, mut whole) = (BTreeMap::new(), BTreeMap::new());
    for changes in entries.iter().filter(|changes| !changes.is_empty()) {
        let mut is_torn = false;
        for change in changes {
            assert!(changes.len() > 1, "a transaction has more than one record");
            apply(&state, change)?;
            is_torn |= !broken_in(&state, STATE)?.is_empty();
        }
        assert_eq!(broken_in(&state, STATE)?, Vec::<u8>::new(), "whole, and a condition is broken");
        *whole.entry(kind(changes)).or_insert(0) += 1;
        *torn.entry(kind(changes)).or_insert(0) += i32::from(is_torn);
    }
    assert_eq!(torn, whole, "a transaction that was applied record by record, and no condition saw it");
    assert_eq!(torn.into_keys().collect::<Vec<_>>(), ["delivery", "load", "new-order", "payment"]);
    Ok(())
}

fn kind(changes: &[LogChange]) -> &'static str {
    let has = |entity: &str| changes.iter().any(|change| change.key.entity.as_str() == entity);
    let is_delivery = changes.iter().any(|change| matches!(change.state, LogState::Deleted));
    match (is_delivery, has("items"), has("orders")) {
        (true, ..) => "delivery",
        (_, true, _) => "load",
        (_, _, true) => "new-order",
        _ => "payment",
    }
}
