//! The first population, and New-Order, Payment and Delivery as operations on what a device shows.
//!
//! Small: two warehouses of two districts, so that devices meet. Everything that the specification draws at random comes from
//! the stream that is passed in.

use crate::random::Random;
use anyhow::{Context, Result};
use gbsync_client::{Client, Error, Operation};
use rusqlite::Connection;
use serde_json::json;

/// D_NEXT_O_ID of a district without orders.
pub const FIRST_ORDER: u64 = 1;
/// Orders of a district that the first population delivered; one more is new.
pub const DELIVERED_AT_FIRST: u64 = 2;
const WAREHOUSES: usize = 2;
const DISTRICTS: usize = 2;
const CUSTOMERS: usize = 3;
const ITEMS: usize = 15;
/// OL_CNT is drawn from 5 to 15.
const LINES: (usize, usize) = (5, 15);
/// Of so many New-Orders one ends with an item that is not there, and must leave nothing (clause 2.4.1.4 says one in a hundred).
const ROLLED_BACK: usize = 12;

/// A transaction of the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// Clause 2.4.
    NewOrder,
    /// Clause 2.5.
    Payment,
    /// Clause 2.7.
    Delivery,
}

impl Transaction {
    /// About as often as in the mix of clause 5.2.3, with more deliveries, so that devices deliver the same order.
    pub fn draw(random: &mut Random) -> Self {
        match random.below(10) {
            0..=3 => Self::NewOrder,
            4..=7 => Self::Payment,
            _ => Self::Delivery,
        }
    }
}

/// What became of a transaction on its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Saved,
    /// The app changed its mind: nothing of it may be there.
    RolledBack,
    /// There was nothing to do.
    Nothing,
}

/// A line of a New-Order, as it was typed in.
struct Line {
    item: String,
    warehouse: String,
    quantity: u64,
    cents: u64,
    /// What S_QUANTITY changes by (clause 2.4.2.2).
    stock: i64,
    is_remote: bool,
}

struct NewOrder {
    id: String,
    district: String,
    customer: String,
    lines: Vec<Line>,
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.unsigned_abs() / 100, cents.unsigned_abs() % 100)
}

/// Increments of money are numbers as they are written, not texts.
fn money_deltas(deltas: &[(&str, i64)]) -> String {
    let delta = |(field, cents): &(&str, i64)| format!("\"{field}\":{}", money(*cents));
    format!("{{{}}}", deltas.iter().map(delta).collect::<Vec<_>>().join(","))
}

fn district(random: &mut Random) -> (String, String) {
    let warehouse = format!("w{}", random.below(WAREHOUSES));
    let district = format!("{warehouse}-d{}", random.below(DISTRICTS));
    (warehouse, district)
}

/// The population of clause 4.3, small. One group: the conditions hold from the first entry of the log on.
///
/// # Errors
/// What the client says.
pub fn load(client: &Client) -> Result<(), Error> {
    client.operation("load", "all", |op| {
        for item in 0..ITEMS {
            op.upsert("items", &format!("i{item}"), json!({"price": money(100 + 37 * item as i64)}).to_string())?;
        }
        (0..WAREHOUSES).try_for_each(|warehouse| load_warehouse(op, &format!("w{warehouse}")))
    })?;
    Ok(())
}

fn load_warehouse(op: &mut Operation, warehouse: &str) -> Result<(), Error> {
    let ytd = |customers: usize| money(1000 * customers as i64);
    op.upsert("warehouses", warehouse, json!({"ytd": ytd(DISTRICTS * CUSTOMERS)}).to_string())?;
    for item in 0..ITEMS {
        let stock = json!({"itemId": format!("i{item}"), "warehouseId": warehouse, "quantity": 10 + item, "ytd": 0,
                           "orderCount": 0, "remoteCount": 0});
        op.upsert("stock", &format!("{warehouse}-i{item}"), stock.to_string())?;
    }
    for number in 0..DISTRICTS {
        let district = format!("{warehouse}-d{number}");
        let next = FIRST_ORDER + DELIVERED_AT_FIRST + 1;
        let row = json!({"warehouseId": warehouse, "ytd": ytd(CUSTOMERS), "nextOrder": next});
        op.upsert("districts", &district, row.to_string())?;
        for number in 0..CUSTOMERS {
            load_customer(op, &district, number)?;
        }
        for number in 0..=DELIVERED_AT_FIRST {
            load_order(op, &district, number)?;
        }
    }
    Ok(())
}

/// C_BALANCE is -10.00, and there is one payment of 10.00.
fn load_customer(op: &mut Operation, district: &str, number: usize) -> Result<(), Error> {
    let customer = format!("{district}-c{number}");
    // One in ten has bad credit in the specification; here one of a district.
    let credit = if number == 0 { "BC" } else { "GC" };
    let row = json!({"districtId": district, "credit": credit, "data": "", "balance": money(-1000), "ytdPayment": money(1000),
                     "paymentCount": 1, "deliveryCount": 0});
    op.upsert("customers", &customer, row.to_string())?;
    let row = json!({"customerId": customer, "districtId": district, "amount": money(1000)});
    op.upsert("history", &format!("{customer}-h0"), row.to_string())
}

/// OL_AMOUNT is 0.00 where the order is delivered at first.
fn load_order(op: &mut Operation, district: &str, number: u64) -> Result<(), Error> {
    let order = format!("{district}-o{number}");
    let is_delivered = number < DELIVERED_AT_FIRST;
    let mut row = json!({"customerId": format!("{district}-c{number}"), "districtId": district, "lineCount": LINES.0});
    if is_delivered {
        row["carrierId"] = json!(1);
    }
    op.upsert("orders", &order, row.to_string())?;
    for line in 0..LINES.0 {
        let cents = if is_delivered { 0 } else { 101 * (line as i64 + 1) };
        let mut row = json!({"orderId": order, "itemId": format!("i{line}"), "quantity": 5, "amount": money(cents)});
        if is_delivered {
            row["deliveredAt"] = json!("2026-06-01T00:00:00Z");
        }
        op.upsert("order_lines", &format!("{order}-l{line}"), row.to_string())?;
    }
    match is_delivered {
        true => Ok(()),
        false => op.upsert("new_orders", &order, json!({"orderId": order, "districtId": district}).to_string()),
    }
}

/// Writes a transaction, with the client or, where `by_sql` says so, New-Orders as a program without a binding does.
///
/// # Errors
/// When it could not be saved; whether it was is not known then.
pub fn write(
    client: &Client,
    by_sql: Option<&Connection>,
    transaction: Transaction,
    token: &str,
    random: &mut Random,
) -> Result<Outcome> {
    match transaction {
        Transaction::NewOrder => {
            let Some(order) = draw_order(client, token, random)? else { return Ok(Outcome::Nothing) };
            let is_rolled_back = random.below(ROLLED_BACK) == 0;
            match by_sql {
                Some(db) => order_by_sql(db, &order, is_rolled_back),
                None => order_by_client(client, &order, is_rolled_back),
            }
        }
        Transaction::Payment => pay(client, token, random),
        Transaction::Delivery => deliver(client, token, random),
    }
}

fn draw_order(client: &Client, token: &str, random: &mut Random) -> Result<Option<NewOrder>> {
    let (home, district) = district(random);
    let customer = format!("{district}-c{}", random.below(CUSTOMERS));
    let mut items: Vec<usize> = (0..ITEMS).collect();
    let count = LINES.0 + random.below(LINES.1 - LINES.0 + 1);
    let mut lines = Vec::new();
    for _ in 0..count {
        let item = items.remove(random.below(items.len()));
        // One line in ten comes from another warehouse (one in a hundred in the specification).
        let warehouse = if random.below(10) == 0 { format!("w{}", random.below(WAREHOUSES)) } else { home.clone() };
        let quantity = 1 + random.below(10) as u64;
        let seen = seen_stock(client, &format!("{warehouse}-i{item}"))?;
        let Some((in_stock, cents)) = seen else { return Ok(None) };
        let stock = if in_stock >= quantity as i64 + 10 { -(quantity as i64) } else { 91 - quantity as i64 };
        let is_remote = warehouse != home;
        lines.push(Line { item: format!("i{item}"), warehouse, quantity, cents: quantity * cents, stock, is_remote });
    }
    Ok(Some(NewOrder { id: token.to_owned(), district, customer, lines }))
}

/// S_QUANTITY and I_PRICE in cents, as the device shows them.
fn seen_stock(client: &Client, stock: &str) -> Result<Option<(i64, u64)>> {
    use rusqlite::OptionalExtension as _;
    let sql = "SELECT s.quantity, i.price_minor FROM stock AS s JOIN items AS i ON i.id = s.itemId WHERE s.id = ?1";
    let seen = client.with_reader(|db| db.query_row(sql, [stock], |row| Ok((row.get(0)?, row.get(1)?))).optional());
    seen.context("the stock cannot be read")
}

/// Why a New-Order is not saved.
enum Stopped {
    /// It names an item that is not there.
    NoSuchItem,
    Client(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

fn order_by_client(client: &Client, order: &NewOrder, is_rolled_back: bool) -> Result<Outcome> {
    let saved = client.operation("new-order", &order.id, |op| {
        let NewOrder { id, district, customer, lines } = order;
        op.increment("districts", district, json!({"nextOrder": 1}).to_string())?;
        let row = json!({"customerId": customer, "districtId": district, "lineCount": lines.len()});
        op.upsert("orders", id, row.to_string())?;
        op.upsert("new_orders", id, json!({"orderId": id, "districtId": district}).to_string())?;
        for (number, line) in lines.iter().enumerate() {
            let row = json!({"orderId": id, "itemId": line.item, "quantity": line.quantity, "amount": money(line.cents as i64)});
            op.upsert("order_lines", &format!("{id}-l{number}"), row.to_string())?;
            let deltas = json!({"quantity": line.stock, "ytd": line.quantity, "orderCount": 1, "remoteCount": i64::from(line.is_remote)});
            op.increment("stock", &format!("{}-{}", line.warehouse, line.item), deltas.to_string())?;
        }
        if is_rolled_back { Err(Stopped::NoSuchItem) } else { Ok(()) }
    });
    match saved {
        Ok(_) => Ok(Outcome::Saved),
        Err(Stopped::NoSuchItem) => Ok(Outcome::RolledBack),
        Err(Stopped::Client(error)) => Err(error.into()),
    }
}

fn order_by_sql(db: &Connection, order: &NewOrder, is_rolled_back: bool) -> Result<Outcome> {
    let NewOrder { id, district, customer, lines } = order;
    db.pragma_update(None, "foreign_keys", true)?;
    let tx = db.unchecked_transaction()?;
    tx.execute("INSERT INTO gbsync_operation(type, root) VALUES ('new-order', ?1)", [id])?;
    tx.execute("UPDATE districts SET nextOrder = nextOrder + 1 WHERE id = ?1", [district])?;
    tx.execute(
        "INSERT INTO orders(id, customerId, districtId, lineCount) VALUES (?1, ?2, ?3, ?4)",
        rusqlite::params![id, customer, district, lines.len()],
    )?;
    tx.execute("INSERT INTO new_orders(id, orderId, districtId) VALUES (?1, ?1, ?2)", [id, district])?;
    for (number, line) in lines.iter().enumerate() {
        tx.execute(
            "INSERT INTO order_lines(id, orderId, itemId, quantity, amount) VALUES (?1, ?2, ?3, ?4, ?5)",
            rusqlite::params![format!("{id}-l{number}"), id, line.item, line.quantity, money(line.cents as i64)],
        )?;
        tx.execute(
            "UPDATE stock SET quantity = quantity + ?2, ytd = ytd + ?3, orderCount = orderCount + 1, remoteCount = remoteCount + ?4
              WHERE id = ?1",
            rusqlite::params![format!("{}-{}", line.warehouse, line.item), line.stock, line.quantity, line.is_remote],
        )?;
    }
    tx.execute("DELETE FROM gbsync_operation", [])?;
    if is_rolled_back {
        tx.rollback()?;
        return Ok(Outcome::RolledBack);
    }
    tx.commit()?;
    Ok(Outcome::Saved)
}

fn pay(client: &Client, token: &str, random: &mut Random) -> Result<Outcome> {
    let (warehouse, district) = district(random);
    // Fifteen in a hundred pay in another warehouse than their own.
    let home = if random.below(100) < 15 { self::district(random).1 } else { district.clone() };
    let customer = format!("{home}-c{}", random.below(CUSTOMERS));
    let cents = 100 + random.below(499_901) as i64;
    let saved = client.operation("payment", token, |op| {
        op.increment("warehouses", &warehouse, money_deltas(&[("ytd", cents)]))?;
        op.increment("districts", &district, money_deltas(&[("ytd", cents)]))?;
        op.increment("customers", &customer, money_deltas(&[("balance", -cents), ("ytdPayment", cents)]))?;
        op.increment("customers", &customer, json!({"paymentCount": 1}).to_string())?;
        let has_bad_credit = op.read("customers", &customer)?.is_some_and(|row| row.as_str().contains(r#""credit":"BC""#));
        if has_bad_credit {
            // C_DATA tells of the last payment: an edit, so that two devices may conflict.
            op.patch("customers", &customer, json!({"data": format!("{token} {}", money(cents))}).to_string())?;
        }
        let row = json!({"customerId": customer, "districtId": district, "amount": money(cents)});
        op.upsert("history", token, row.to_string())
    });
    saved.map(|_| Outcome::Saved).map_err(|error: Error| error.into())
}

/// An order to deliver: its customer, its lines, their sum in cents.
type Due = (String, String, Vec<String>, i64);

/// The oldest new order of each district of a warehouse.
fn deliver(client: &Client, token: &str, random: &mut Random) -> Result<Outcome> {
    let warehouse = format!("w{}", random.below(WAREHOUSES));
    let due = client.with_reader(|db| {
        let sql = "SELECT min(n.id), o.customerId FROM new_orders AS n JOIN orders AS o ON o.id = n.orderId
                     JOIN districts AS d ON d.id = n.districtId WHERE d.warehouseId = ?1 GROUP BY n.districtId";
        let mut statement = db.prepare_cached(sql)?;
        let orders = statement.query_map([&warehouse], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let orders = orders.collect::<rusqlite::Result<Vec<(String, String)>>>()?;
        orders.into_iter().map(|(order, customer)| due(db, order, customer)).collect::<rusqlite::Result<Vec<Due>>>()
    })?;
    if due.is_empty() {
        return Ok(Outcome::Nothing);
    }
    let carrier = 1 + random.below(10);
    let saved = client.operation("delivery", token, |op| {
        for (order, customer, lines, cents) in &due {
            op.delete("new_orders", order)?;
            op.patch("orders", order, json!({"carrierId": carrier}).to_string())?;
            for line in lines {
                op.patch("order_lines", line, json!({"deliveredAt": "2026-06-03T00:00:00Z"}).to_string())?;
            }
            op.increment("customers", customer, money_deltas(&[("balance", *cents)]))?;
            op.increment("customers", customer, json!({"deliveryCount": 1}).to_string())?;
        }
        Ok(())
    });
    saved.map(|_| Outcome::Saved).map_err(|error: Error| error.into())
}

fn due(db: &Connection, order: String, customer: String) -> rusqlite::Result<Due> {
    let mut statement = db.prepare_cached("SELECT id, amount_minor FROM order_lines WHERE orderId = ?1")?;
    let lines = statement.query_map([&order], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let lines = lines.collect::<rusqlite::Result<Vec<(String, i64)>>>()?;
    let cents = lines.iter().map(|(_, cents)| cents).sum();
    Ok((order, customer, lines.into_iter().map(|(line, _)| line).collect(), cents))
}
