//! Whether the books of a file balance, asked in one statement by plain SQL, so that the answer is about one state of it.

use crate::deeds::PRODUCTS;
use crate::ledger::root_of;
use crate::server::{Backend, look_into};
use crate::world::{Device, Shared};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// What a look needs to know of the rows: relations with the members that are compared, money in cents.
struct Rows {
    receipts: String,
    payments: String,
    entries: String,
    stock: String,
    counts: String,
}

impl Rows {
    /// Rows in a relation of JSON payloads.
    fn json(relation: &str) -> Self {
        let of = |entity: &str, members: &[(&str, &str)]| {
            let columns: Vec<String> = members.iter().map(|(name, value)| format!("{value} AS {name}")).collect();
            let columns = columns.join(", ");
            format!("(SELECT id, {columns} FROM {relation} WHERE entity = '{entity}' AND payload IS NOT NULL)")
        };
        let member = |name: &str| format!("payload ->> '{name}'");
        let cents = |name: &str| format!("CAST(replace(payload ->> '{name}', '.', '') AS INTEGER)");
        let part = |entity| of(entity, &[("receipt", &member("receiptId")), ("cents", &cents("amount"))]);
        Self {
            receipts: of("receipts", &[("cents", &cents("total"))]),
            payments: part("payments"),
            entries: part("entries"),
            stock: of("stock", &[("quantity", &member("quantity"))]),
            counts: of("counts", &[("take", &member("take")), ("records", &member("records"))]),
        }
    }

    /// The typed tables of a device.
    fn typed() -> Self {
        let part = |entity: &str| format!("(SELECT id, receiptId AS receipt, amount_minor AS cents FROM {entity})");
        Self {
            receipts: "(SELECT id, total_minor AS cents FROM receipts)".into(),
            payments: part("payments"),
            entries: part("entries"),
            stock: "stock".into(),
            counts: "counts".into(),
        }
    }

    /// A statement that answers a text for each operation that is there in part.
    fn question(&self) -> String {
        let Self { receipts, payments, entries, stock, counts } = self;
        let shelf: Vec<String> = PRODUCTS.iter().map(|(id, quantity)| format!("('{id}', {quantity})")).collect();
        format!(
            "WITH part(receipt, total, paid, booked) AS (
                    SELECT id, cents, 0, 0 FROM {receipts}
                    UNION ALL SELECT receipt, 0, cents, 0 FROM {payments}
                    UNION ALL SELECT receipt, 0, 0, cents FROM {entries}),
                  first(product, sold) AS (
                    SELECT substr(id, instr(id, '-') + 1, length(id) - instr(id, '-') - 3), count(*) FROM {entries}
                     WHERE id LIKE '%-e0' GROUP BY 1),
                  shelf(product, quantity) AS (VALUES {})
             SELECT 'receipt ' || receipt || ' costs ' || sum(total) || ', paid ' || sum(paid) || ', booked ' || sum(booked)
               FROM part GROUP BY receipt HAVING sum(total) <> sum(paid) OR sum(total) <> sum(booked)
              UNION ALL
             SELECT 'of ' || shelf.product || ' there are ' || s.quantity || ' of ' || shelf.quantity || ', sold ' || coalesce(sold, 0)
               FROM shelf JOIN {stock} AS s ON s.id = shelf.product LEFT JOIN first ON first.product = shelf.product
              WHERE shelf.quantity - s.quantity <> coalesce(sold, 0)
              UNION ALL
             SELECT 'of stock-take ' || take || ' there are ' || count(*) || ' of ' || max(records)
               FROM {counts} GROUP BY take HAVING count(*) <> max(records)
              LIMIT 5",
            shelf.join(", ")
        )
    }
}

/// What is torn in the relations of a device's file.
pub fn of_device(connection: &Connection, has_schema: bool) -> Vec<String> {
    let confirmed = ask(connection, "in the base", &Rows::json("gbsync_base"));
    let seen = ask(connection, "in sight", &Rows::json("gbsync_records"));
    let typed = if has_schema { ask(connection, "in the tables", &Rows::typed()) } else { Vec::new() };
    [confirmed, seen, typed].concat()
}

/// What is torn on the server.
pub fn of_server(connection: &Connection) -> Vec<String> {
    let mut torn = ask(connection, "in the records", &Rows::json("records"));
    // place: the number of the space, then 40 bits of seq.
    let gaps = "SELECT (SELECT count(*) FROM log) = head AND coalesce((SELECT max(place & ((1 << 40) - 1)) FROM log), 0) = head FROM spaces";
    if !connection.query_row(gaps, [], |row| row.get::<_, bool>(0)).unwrap() {
        torn.push("the log has a gap".into());
    }
    torn
}

fn ask(connection: &Connection, place: &str, rows: &Rows) -> Vec<String> {
    let mut statement = connection.prepare(&rows.question()).unwrap();
    let found = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    found.map(|text| format!("{place}: {}", text.unwrap())).collect()
}

/// Acknowledged operations that a device's file does not have any more, and whether its numbers have gaps.
fn missing(connection: &Connection, acknowledged: &BTreeSet<String>) -> Vec<String> {
    // One statement, because captures become groups in one transaction.
    let sql = "SELECT root FROM gbsync_capture WHERE action = 'open' UNION ALL SELECT group_id FROM gbsync_group";
    let mut statement = connection.prepare(sql).unwrap();
    let found: BTreeSet<String> = statement
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap()
        .map(|found| found.map(|text| root_of(&text).unwrap_or(&text).to_owned()).unwrap())
        .collect();
    let mut missing: Vec<String> = acknowledged.difference(&found).map(|root| format!("{root} is lost")).collect();
    let gaps = "SELECT coalesce(max(device_seq), 0) <> count(DISTINCT device_seq) FROM gbsync_group";
    if connection.query_row(gaps, [], |row| row.get(0)).unwrap() {
        missing.push("the numbers have a gap".into());
    }
    missing
}

/// Looks at one device.
pub fn look_at(shared: &Shared, device: &Device) -> Vec<String> {
    let acknowledged = device.ledger.acknowledged();
    let connection = look_into(&device.file);
    let torn = of_device(&connection, shared.has_schema).into_iter();
    torn.chain(missing(&connection, &acknowledged)).map(|what| format!("device {}, {what}", device.name)).collect()
}

/// Looks at everything again and again until the world ends.
pub fn watch(shared: &Shared, devices: &[Arc<Device>], server: &Backend) {
    while !shared.has_ended() {
        let mut torn: Vec<String> = of_server(&server.look(&["spaces", "records", "places"]))
            .into_iter()
            .map(|what| format!("server, {what}"))
            .collect();
        torn.extend(devices.iter().flat_map(|device| look_at(shared, device)));
        shared.looks.fetch_add(1, Ordering::Relaxed);
        if !torn.is_empty() {
            return shared.fail(&torn.join("; "));
        }
        thread::sleep(Duration::from_millis(60));
    }
}
