//! What people do: the workload, from a stream of its own, so that a schedule can be shortened without changing it.

use crate::model::{Change, Edit, Fields, Operation, State};
use crate::random::Random;
use rusqlite::config::DbConfig;
use serde_json::{Value, json};

/// Products, each with a record of stock.
pub const PRODUCTS: usize = 3;

/// The first operation: what there is to sell.
pub fn opening(token: &str, has_rules: bool) -> Operation {
    let stock = (0..PRODUCTS).map(|product| put("stock", &format!("p{product}"), json!({"w": token, "quantity": 3})));
    let products = (0..PRODUCTS)
        .map(|product| put("products", &format!("p{product}"), json!({"w": token, "name": "Roll", "price": "1"})));
    // The rule that may be broken with a flag.
    let tills = has_rules.then(|| put("tills", "till", json!({"w": token, "cash": 1})));
    Operation { token: token.into(), kind: "opening", changes: stock.chain(products).chain(tills).collect() }
}

/// Something that somebody who sees these records may do next.
pub fn next(token: &str, view: &State, random: &mut Random) -> Operation {
    let made = match random.below(12) {
        0..=2 => Some(sale(token, view, random)),
        3 => edit(token, view, random),
        4 => void(token, view, random),
        5 | 7 | 8 | 9 => rename(token, view, random),
        6 => Some(stock_take(token, view, random)),
        10 => pay_out(token, view),
        11 => Some(large(token, random)),
        _ => edit(token, view, random),
    };
    made.unwrap_or_else(|| sale(token, view, random))
}

fn sale(token: &str, view: &State, random: &mut Random) -> Operation {
    let mut changes = vec![
        put("receipts", token, json!({"w": token, "total": "1.00"})),
        put("payments", token, json!({"w": token, "receiptId": token, "amount": "1.00"})),
        put("entries", token, json!({"w": token, "receiptId": token})),
    ];
    changes.extend(stock(view, random, -1));
    Operation { token: token.into(), kind: "sale", changes }
}

/// Edits a receipt that is seen and books an entry for it.
fn edit(token: &str, view: &State, random: &mut Random) -> Option<Operation> {
    let receipt = some_receipt(view, random)?;
    let changes = vec![
        set("receipts", &receipt, json!({"note": token})),
        put("entries", token, json!({"w": token, "receiptId": receipt})),
    ];
    Some(Operation { token: token.into(), kind: "edit", changes })
}

/// Deletes a receipt that is seen, its payment with it, and books the stock back.
fn void(token: &str, view: &State, random: &mut Random) -> Option<Operation> {
    let receipt = some_receipt(view, random)?;
    let mut changes = vec![delete("receipts", &receipt)];
    // Where there are rules, the payment goes with its receipt.
    if !view.has_rules && view.record("payments", &receipt).is_some() {
        changes.push(delete("payments", &receipt));
    }
    changes.push(put("notes", token, json!({"w": token, "receiptId": receipt})));
    changes.extend(stock(view, random, 1));
    Some(Operation { token: token.into(), kind: "void", changes })
}

fn rename(token: &str, view: &State, random: &mut Random) -> Option<Operation> {
    let product = product(random);
    view.record("products", &product)?;
    // Under the policy of merging, a name and a price do not conflict.
    let field = ["name", "price"][random.below(2)];
    let changes = vec![set("products", &product, json!({field: token})), put("notes", token, json!({"w": token}))];
    Some(Operation { token: token.into(), kind: "rename", changes })
}

/// Takes cash out of the till, which may hold less than nothing: that is flagged and not refused.
fn pay_out(token: &str, view: &State) -> Option<Operation> {
    view.record("tills", "till")?;
    let out = Change { key: ("tills".into(), "till".into()), edit: Edit::Add("cash", -1) };
    Some(Operation { token: token.into(), kind: "pay-out", changes: vec![out, put("notes", token, json!({"w": token}))] })
}

/// Increments alone: nothing about it can conflict.
fn stock_take(token: &str, view: &State, random: &mut Random) -> Operation {
    let mut changes: Vec<Change> = stock(view, random, 5).into_iter().chain(stock(view, random, 2)).collect();
    changes.dedup_by(|a, b| a.key == b.key);
    changes.push(put("notes", token, json!({"w": token})));
    Operation { token: token.into(), kind: "stock-take", changes }
}

/// More records than a batch takes, with a receipt that others go on to edit: they wait for all of it.
fn large(token: &str, random: &mut Random) -> Operation {
    let mut changes = vec![
        put("receipts", token, json!({"w": token, "total": "1.00"})),
        put("payments", token, json!({"w": token, "receiptId": token, "amount": "1.00"})),
    ];
    let lines = 41 + random.below(20);
    changes.extend((0..lines).map(|line| put("notes", &format!("{token}-{line}"), json!({"w": token}))));
    Operation { token: token.into(), kind: "large", changes }
}

fn some_receipt(view: &State, random: &mut Random) -> Option<String> {
    let receipts: Vec<&String> = view.of("receipts").map(|(id, _)| id).collect();
    receipts.get(random.below(receipts.len())).map(|receipt| (*receipt).clone())
}

/// So much more of some product, where its stock is seen.
fn stock(view: &State, random: &mut Random, delta: i64) -> Option<Change> {
    let product = product(random);
    view.record("stock", &product).map(|_| add("stock", &product, delta))
}

fn product(random: &mut Random) -> String {
    // Everybody works on the first one, and now and then on another.
    format!("p{}", random.below(2) * random.below(PRODUCTS))
}

fn fields(value: Value) -> Fields {
    if let Value::Object(fields) = value { fields } else { Fields::new() }
}

fn put(entity: &str, id: &str, value: Value) -> Change {
    Change { key: (entity.into(), id.into()), edit: Edit::Put(fields(value)) }
}

fn set(entity: &str, id: &str, value: Value) -> Change {
    Change { key: (entity.into(), id.into()), edit: Edit::Set(fields(value)) }
}

fn add(entity: &str, id: &str, delta: i64) -> Change {
    Change { key: (entity.into(), id.into()), edit: Edit::Add("quantity", delta) }
}

fn delete(entity: &str, id: &str) -> Change {
    Change { key: (entity.into(), id.into()), edit: Edit::Delete }
}

/// A coupon, whose code no other one may have.
pub fn coupon(token: &str, code: &str) -> Operation {
    let changes = vec![put("coupons", token, json!({"w": token, "code": code}))];
    Operation { token: token.into(), kind: "coupon", changes }
}

/// What is wrong with a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Its payments are not its total.
    Invariant,
    /// Its receipt has no total.
    Missing,
    /// Its receipt's total is no number.
    Type,
}

impl Wrong {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Invariant, Self::Missing, Self::Type];

    /// The code with which such a sale is refused.
    pub fn code(self) -> &'static str {
        if self == Self::Invariant { "invariant_violation" } else { "schema_violation" }
    }

    /// In words.
    pub fn what(self) -> &'static str {
        match self {
            Self::Invariant => "too small a payment",
            Self::Missing => "no total",
            Self::Type => "a total that is no number",
        }
    }
}

/// A sale that breaks a rule of the schema.
pub fn wrong(token: &str, wrong: Wrong) -> Operation {
    let receipt = match wrong {
        Wrong::Invariant => json!({"w": token, "total": "2.00"}),
        Wrong::Missing => json!({"w": token}),
        Wrong::Type => json!({"w": token, "total": true}),
    };
    let changes = vec![
        put("receipts", token, receipt),
        put("payments", token, json!({"w": token, "receiptId": token, "amount": "1.00"})),
        put("entries", token, json!({"w": token, "receiptId": token})),
    ];
    Operation { token: token.into(), kind: "sale", changes }
}

/// What the office books to make up for an operation that was refused.
pub fn making_up(token: &str) -> Operation {
    Operation { token: token.into(), kind: "making-up", changes: vec![put("notes", token, json!({"w": token}))] }
}

/// Writes an operation with the real client.
///
/// # Errors
/// What the client says.
pub fn write(client: &gbsync_client::Client, operation: &Operation) -> Result<(), gbsync_client::Error> {
    client.operation(operation.kind, &operation.token, |context| stage(context, &operation.changes))?;
    Ok(())
}

/// Writes an operation with plain SQL on an app's own connection, as a program without a binding does; or as one that leaves
/// its bracket behind.
///
/// # Errors
/// What SQLite says.
pub fn write_sql(
    db: &rusqlite::Connection,
    operation: &Operation,
    actor: Option<&str>,
    is_closed: bool,
) -> rusqlite::Result<()> {
    db.execute_batch("PRAGMA foreign_keys = ON; BEGIN IMMEDIATE")?;
    // Without triggers nobody sees the end of the bracket: a program can leave one behind in no other way.
    let written = write_bracket(db, operation, actor)
        .and_then(|()| db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, is_closed))
        .and_then(|_| db.execute_batch("DELETE FROM gbsync_operation; COMMIT"));
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
    if written.is_err() && !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    written
}

fn write_bracket(db: &rusqlite::Connection, operation: &Operation, actor: Option<&str>) -> rusqlite::Result<()> {
    let sql = "INSERT INTO gbsync_operation(type, root, actor) VALUES (?1, ?2, ?3)";
    run(db, sql, rusqlite::params![operation.kind, operation.token, actor])?;
    for Change { key: (entity, id), edit } in &operation.changes {
        match edit {
            Edit::Put(fields) => {
                run(
                    db,
                    &format!("INSERT INTO {entity}(id, {}) VALUES (?1, {})", names(fields), places(fields)),
                    values(id, fields),
                )?;
            }
            Edit::Set(fields) => {
                let sets: Vec<String> =
                    fields.keys().enumerate().map(|(place, name)| format!("{name} = ?{}", place + 2)).collect();
                run(db, &format!("UPDATE {entity} SET {} WHERE id = ?1", sets.join(", ")), values(id, fields))?;
            }
            Edit::Add(field, delta) => {
                run(db, &format!("UPDATE {entity} SET {field} = {field} + ?2 WHERE id = ?1"), rusqlite::params![id, delta])?;
            }
            Edit::Delete => {
                run(db, &format!("DELETE FROM {entity} WHERE id = ?1"), [id])?;
            }
        }
    }
    Ok(())
}

fn run(db: &rusqlite::Connection, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
    db.prepare_cached(sql)?.execute(values)
}

fn names(fields: &Fields) -> String {
    fields.keys().cloned().collect::<Vec<_>>().join(", ")
}

fn places(fields: &Fields) -> String {
    (0..fields.len()).map(|place| format!("?{}", place + 2)).collect::<Vec<_>>().join(", ")
}

fn values(id: &str, fields: &Fields) -> impl rusqlite::Params {
    let value = |value: &Value| match value {
        Value::String(text) => rusqlite::types::Value::Text(text.clone()),
        Value::Number(number) => rusqlite::types::Value::Integer(number.as_i64().unwrap_or(0)),
        Value::Bool(is_true) => rusqlite::types::Value::Integer(i64::from(*is_true)),
        _ => rusqlite::types::Value::Null,
    };
    let id = rusqlite::types::Value::Text(id.to_owned());
    rusqlite::params_from_iter(std::iter::once(id).chain(fields.values().map(value)).collect::<Vec<_>>())
}

/// Stages changes of an operation.
///
/// # Errors
/// What the client says.
pub fn stage(context: &mut gbsync_client::Operation, changes: &[Change]) -> Result<(), gbsync_client::Error> {
    for Change { key: (entity, id), edit } in changes {
        match edit {
            Edit::Put(fields) => context.upsert(entity, id, Value::from(fields.clone()).to_string())?,
            Edit::Set(fields) => context.patch(entity, id, Value::from(fields.clone()).to_string())?,
            Edit::Add(field, delta) => context.increment(entity, id, json!({*field: delta}).to_string())?,
            Edit::Delete => context.delete(entity, id)?,
        }
    }
    Ok(())
}

/// What a person writes instead of an operation that was refused.
pub fn amended(operation: &Operation) -> Operation {
    let token = &operation.token;
    let changes = vec![
        put("receipts", token, json!({"w": token, "total": "2.00", "amended": true})),
        put("payments", token, json!({"w": token, "receiptId": token, "amount": "2.00"})),
        put("entries", token, json!({"w": token, "receiptId": token})),
    ];
    Operation { changes, ..operation.clone() }
}
