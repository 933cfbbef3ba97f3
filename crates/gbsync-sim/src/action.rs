//! What people do: the workload, from a stream of its own, so that a schedule can be shortened without changing it.

use crate::model::{Change, Edit, Fields, Operation, State};
use crate::random::Random;
use serde_json::{Value, json};

/// Products, each with a record of stock.
pub const PRODUCTS: usize = 3;

/// The first operation: what there is to sell.
pub fn opening(token: &str) -> Operation {
    let stock = (0..PRODUCTS).map(|product| put("stock", &format!("p{product}"), json!({"w": token, "quantity": 1000})));
    let products = (0..PRODUCTS).map(|product| put("products", &format!("p{product}"), json!({"w": token, "name": "Roll"})));
    Operation { token: token.into(), kind: "opening", changes: stock.chain(products).collect() }
}

/// Something that somebody who sees these records may do next.
pub fn next(token: &str, view: &State, random: &mut Random) -> Operation {
    let made = match random.below(8) {
        0..=2 => Some(sale(token, view, random)),
        3 => edit(token, view, random),
        4 => void(token, view, random),
        5 => rename(token, view, random),
        6 => Some(stock_take(token, view, random)),
        _ => Some(large(token, random)),
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
    if view.0.contains_key(&("payments".to_owned(), receipt.clone())) {
        changes.push(delete("payments", &receipt));
    }
    changes.push(put("voids", token, json!({"w": token, "receiptId": receipt})));
    changes.extend(stock(view, random, 1));
    Some(Operation { token: token.into(), kind: "void", changes })
}

fn rename(token: &str, view: &State, random: &mut Random) -> Option<Operation> {
    let product = product(random);
    view.0.get(&("products".to_owned(), product.clone()))?;
    let changes = vec![set("products", &product, json!({"name": token})), put("renames", token, json!({"w": token}))];
    Some(Operation { token: token.into(), kind: "rename", changes })
}

/// Increments alone: nothing about it can conflict.
fn stock_take(token: &str, view: &State, random: &mut Random) -> Operation {
    let mut changes: Vec<Change> = stock(view, random, 5).into_iter().chain(stock(view, random, 2)).collect();
    changes.dedup_by(|a, b| a.key == b.key);
    changes.push(put("takes", token, json!({"w": token})));
    Operation { token: token.into(), kind: "stock-take", changes }
}

/// More records than a batch takes.
fn large(token: &str, random: &mut Random) -> Operation {
    let changes = (0..41 + random.below(20)).map(|line| put("lines", &format!("{token}-{line}"), json!({"w": token})));
    Operation { token: token.into(), kind: "large", changes: changes.collect() }
}

fn some_receipt(view: &State, random: &mut Random) -> Option<String> {
    let receipts: Vec<&String> = view.0.keys().filter(|key| key.0 == "receipts").map(|key| &key.1).collect();
    receipts.get(random.below(receipts.len())).map(|receipt| (*receipt).clone())
}

/// So much more of some product, where its stock is seen.
fn stock(view: &State, random: &mut Random, delta: i64) -> Option<Change> {
    let product = product(random);
    view.0.contains_key(&("stock".to_owned(), product.clone())).then(|| add("stock", &product, delta))
}

fn product(random: &mut Random) -> String {
    format!("p{}", random.below(PRODUCTS))
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

/// Writes an operation with the real client.
///
/// # Errors
/// What the client says.
pub fn write(client: &gbsync_client::Client, operation: &Operation) -> Result<(), gbsync_client::Error> {
    client.operation(operation.kind, &operation.token, |context| {
        for Change { key: (entity, id), edit } in &operation.changes {
            match edit {
                Edit::Put(fields) => context.upsert(entity, id, Value::from(fields.clone()).to_string())?,
                Edit::Set(fields) => context.patch(entity, id, Value::from(fields.clone()).to_string())?,
                Edit::Add(field, delta) => context.increment(entity, id, json!({*field: delta}).to_string())?,
                Edit::Delete => context.delete(entity, id)?,
            }
        }
        Ok::<_, gbsync_client::Error>(())
    })?;
    Ok(())
}
