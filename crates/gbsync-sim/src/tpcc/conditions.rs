//! TPC-C's consistency conditions (revision 5.11, clauses 3.3.2.1 to 3.3.2.12) as queries that find what breaks them.
//!
//! One set of queries judges a device's typed tables, its base, the server's records and a state made from the log: each is
//! first copied into tables of the same form. Money is an integer of cents. What is adapted is said at the condition and in
//! docs/tpcc.md.

use super::workload::{DELIVERED_AT_FIRST, FIRST_ORDER};
use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OptionalExtension as _};

/// Where the rows are.
#[derive(Debug, Clone, Copy)]
pub enum Rows {
    /// The typed tables of a device: what its users see.
    Tables,
    /// A table with `entity`, `id` and `payload`: a device's base, the server's records, a state made from the log.
    Payloads(&'static str),
}

/// A condition: its number in the specification, what it says, and what breaks it.
pub struct Condition {
    /// The last number of its clause.
    pub number: u8,
    /// What must hold.
    pub says: &'static str,
    breaks: String,
}

/// Entities and the fields that the conditions look at; `$` before the name: money.
const FIELDS: &[(&str, &[&str])] = &[
    ("warehouses", &["$ytd"]),
    ("districts", &["warehouseId", "$ytd", "nextOrder"]),
    ("customers", &["districtId", "$balance", "$ytdPayment", "deliveryCount"]),
    ("history", &["customerId", "districtId", "$amount"]),
    ("orders", &["customerId", "districtId", "lineCount", "carrierId"]),
    ("new_orders", &["orderId", "districtId"]),
    ("order_lines", &["orderId", "$amount", "deliveredAt"]),
];

const INDEXES: &str = "
CREATE INDEX temp.j_by_id ON j_orders(id);
CREATE INDEX temp.j_by_customer ON j_orders(customerId);
CREATE INDEX temp.j_by_order ON j_order_lines(orderId);
CREATE INDEX temp.j_by_new_order ON j_new_orders(orderId);
";

impl Condition {
    /// All twelve.
    pub fn all() -> Vec<Self> {
        let condition = |number, says, breaks: String| Self { number, says, breaks };
        // Both of row `x`: what it says, and what it must be.
        let of_each = |of: &str, found: &str, expected: &str| {
            format!(
                "SELECT id || ': ' || found || ' and ' || expected
                   FROM (SELECT x.id, {found} AS found, {expected} AS expected FROM j_{of} AS x)
                  WHERE found IS NOT expected LIMIT 1"
            )
        };
        let sum = |field: &str, from: &str| format!("coalesce((SELECT sum({field}) FROM {from}), 0)");
        let count = |from: &str| format!("(SELECT count(*) FROM {from})");
        let delivered = "j_order_lines AS l JOIN j_orders AS o ON o.id = l.orderId
                          WHERE o.customerId = x.id AND l.deliveredAt IS NOT NULL";
        let paid = "j_history AS h WHERE h.customerId = x.id";
        vec![
            condition(
                1,
                "W_YTD is the sum of its districts' D_YTD",
                of_each("warehouses", "ytd", &sum("ytd", "j_districts AS d WHERE d.warehouseId = x.id")),
            ),
            // Adapted: orders are numbered on their devices, so D_NEXT_O_ID counts them and is no largest number.
            condition(
                2,
                "D_NEXT_O_ID - 1 is the number of the district's orders",
                of_each(
                    "districts",
                    "nextOrder",
                    &format!("{FIRST_ORDER} + {}", count("j_orders AS o WHERE o.districtId = x.id")),
                ),
            ),
            // Adapted: without numbers in a row, one new order for one order of the same district takes the place of "no gap".
            condition(
                3,
                "a NEW-ORDER row is the only one of an order of its district",
                of_each(
                    "new_orders",
                    "1",
                    &format!(
                        "{} * {}",
                        count("j_orders AS o WHERE o.id = x.orderId AND o.districtId = x.districtId"),
                        count("j_new_orders AS n WHERE n.orderId = x.orderId")
                    ),
                ),
            ),
            condition(
                4,
                "the sum of a district's O_OL_CNT is the number of its order lines",
                of_each(
                    "districts",
                    &sum("o.lineCount", "j_orders AS o WHERE o.districtId = x.id"),
                    &count("j_order_lines AS l JOIN j_orders AS o ON o.id = l.orderId WHERE o.districtId = x.id"),
                ),
            ),
            condition(
                5,
                "O_CARRIER_ID is null if and only if the order has a NEW-ORDER row",
                of_each(
                    "orders",
                    "carrierId IS NULL",
                    &format!("{} > 0", count("j_new_orders AS n WHERE n.orderId = x.id")),
                ),
            ),
            condition(
                6,
                "O_OL_CNT is the number of the order's lines",
                of_each("orders", "lineCount", &count("j_order_lines AS l WHERE l.orderId = x.id")),
            ),
            condition(
                7,
                "OL_DELIVERY_D is null if and only if the order's O_CARRIER_ID is",
                of_each(
                    "order_lines",
                    "deliveredAt IS NULL",
                    "(SELECT o.carrierId IS NULL FROM j_orders AS o WHERE o.id = x.orderId)",
                ),
            ),
            condition(
                8,
                "W_YTD is the sum of the warehouse's H_AMOUNT",
                of_each(
                    "warehouses",
                    "ytd",
                    &sum("amount", "j_history AS h JOIN j_districts AS d ON d.id = h.districtId WHERE d.warehouseId = x.id"),
                ),
            ),
            condition(
                9,
                "D_YTD is the sum of the district's H_AMOUNT",
                of_each("districts", "ytd", &sum("amount", "j_history AS h WHERE h.districtId = x.id")),
            ),
            condition(
                10,
                "C_BALANCE is what was delivered less what was paid",
                of_each("customers", "balance", &format!("{} - {}", sum("l.amount", delivered), sum("amount", paid))),
            ),
            // Adapted: 2100 is the number of orders that the first population delivered; deliveries since are added.
            condition(
                11,
                "a district's orders less its new ones are those delivered at first and since",
                of_each(
                    "districts",
                    &format!(
                        "{DELIVERED_AT_FIRST} + {}",
                        sum("deliveryCount", "j_customers AS c WHERE c.districtId = x.id")
                    ),
                    &format!(
                        "{} - {}",
                        count("j_orders AS o WHERE o.districtId = x.id"),
                        count("j_new_orders AS n WHERE n.districtId = x.id")
                    ),
                ),
            ),
            condition(
                12,
                "C_BALANCE + C_YTD_PAYMENT is what was delivered",
                of_each("customers", "balance + ytdPayment", &sum("l.amount", delivered)),
            ),
        ]
    }
}

/// Copies the rows into tables of one form, all at one moment.
///
/// # Errors
/// What SQLite says.
pub fn copy(db: &Connection, rows: Rows) -> Result<()> {
    let mut sql = String::from("PRAGMA temp_store = MEMORY; BEGIN;");
    for (entity, fields) in FIELDS {
        let field = |field: &&str| match (field.strip_prefix('$'), rows) {
            (None, Rows::Tables) => format!(", {field}"),
            (None, Rows::Payloads(_)) => format!(", payload ->> '{field}' AS {field}"),
            (Some(money), Rows::Tables) => format!(", {money}_minor AS {money}"),
            (Some(money), Rows::Payloads(_)) => {
                format!(", CAST(replace(payload ->> '{money}', '.', '') AS INTEGER) AS {money}")
            }
        };
        let fields: String = fields.iter().map(field).collect();
        let from = match rows {
            Rows::Tables => format!("main.{entity}"),
            Rows::Payloads(table) => format!("{table} WHERE entity = '{entity}' AND payload IS NOT NULL"),
        };
        sql.push_str(&format!("CREATE TEMP TABLE j_{entity} AS SELECT id{fields} FROM {from};"));
    }
    sql.push_str(INDEXES);
    sql.push_str("COMMIT;");
    db.execute_batch(&sql).context("rows that the conditions are about cannot be read")
}

/// Takes the copies away.
///
/// # Errors
/// What SQLite says.
pub fn clear(db: &Connection) -> Result<()> {
    let drops: Vec<String> = FIELDS.iter().map(|(entity, _)| format!("DROP TABLE temp.j_{entity};")).collect();
    Ok(db.execute_batch(&drops.concat())?)
}

/// Judges the rows.
///
/// # Errors
/// The first condition that is broken, by its number, and where.
pub fn judge(db: &Connection, rows: Rows, conditions: &[Condition]) -> Result<()> {
    copy(db, rows)?;
    for condition in conditions {
        if let Some(broken) = broken(db, condition)? {
            bail!("TPC-C condition {} is broken: {}: {broken}", condition.number, condition.says);
        }
    }
    clear(db)
}

/// Where a condition is broken in rows that were copied.
///
/// # Errors
/// What SQLite says.
pub fn broken(db: &Connection, condition: &Condition) -> Result<Option<String>> {
    let found = db.prepare_cached(&condition.breaks)?.query_row([], |row| row.get(0)).optional();
    found.with_context(|| format!("condition {}", condition.number))
}
