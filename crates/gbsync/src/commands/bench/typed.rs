//! Typed tables beside the same tables without `gbsync`: saving, reading by an indexed column, and pulling.

use super::push::{fill, finish, sync_in_thread, transport};
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, Row, Sale, sales};
use super::{Folders, Sizes};
use crate::commands::demo::station::{Station, new_device_with};
use crate::config::client_failure;
use anyhow::{Context, Result, bail};
use gbsync_client::{Client, Durability, Error, Remote, SyncOptions};
use gbsync_core::id::SpaceId;
use gbsync_core::schema::Schema;
use rusqlite::Connection;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// The bench's schema.
pub(super) fn schema() -> Result<Schema> {
    Schema::parse(include_str!("shop.toml")).map_err(|problems| anyhow::anyhow!("the bench's schema: {problems}"))
}

/// The same tables and indexes, as an app without `gbsync` would declare them.
const TABLES: &str = "
CREATE TABLE receipts (id TEXT NOT NULL PRIMARY KEY, \"no\" TEXT NOT NULL, customerId TEXT, cashier TEXT, soldAt TEXT NOT NULL,
  currency TEXT, status TEXT, total TEXT NOT NULL, tax TEXT, note TEXT) STRICT;
CREATE INDEX receipts_by_no ON receipts (\"no\");
CREATE INDEX receipts_by_customer ON receipts (customerId);
CREATE TABLE receipt_lines (id TEXT NOT NULL PRIMARY KEY, receiptId TEXT NOT NULL, productId TEXT NOT NULL, name TEXT,
  quantity INTEGER NOT NULL, price TEXT NOT NULL) STRICT;
CREATE INDEX receipt_lines_by_receipt ON receipt_lines (receiptId);
CREATE TABLE payments (id TEXT NOT NULL PRIMARY KEY, receiptId TEXT NOT NULL, method TEXT, terminal TEXT, amount TEXT NOT NULL,
  paidAt TEXT) STRICT;
CREATE INDEX payments_by_receipt ON payments (receiptId);
CREATE TABLE financial_entries (id TEXT NOT NULL PRIMARY KEY, receiptId TEXT NOT NULL, account TEXT, amount TEXT NOT NULL,
  bookedAt TEXT) STRICT;
CREATE INDEX financial_entries_by_receipt ON financial_entries (receiptId);
";

/// The columns of each table, in the order that rows are bound.
const COLUMNS: [(&str, &[&str]); 4] = [
    ("receipts", &["no", "customerId", "cashier", "soldAt", "currency", "status", "total", "tax", "note"]),
    ("receipt_lines", &["receiptId", "productId", "name", "quantity", "price"]),
    ("payments", &["receiptId", "method", "terminal", "amount", "paidAt"]),
    ("financial_entries", &["receiptId", "account", "amount", "bookedAt"]),
];

/// How often all lines are looked up: one pass takes a few milliseconds, which one other process can double.
const PASSES: usize = 20;

/// Measures typed tables.
pub(super) async fn measure(sizes: &Sizes, folders: &Folders) -> Result<Vec<Figure>> {
    let mut figures = vec![local(sizes, folders)?];
    figures.extend(pull_and_select(sizes, folders).await?);
    Ok(figures)
}

fn local(sizes: &Sizes, folders: &Folders) -> Result<Figure> {
    let folder = folders.create()?;
    let remote = Remote { server: "http://127.0.0.1:1".into(), space: SpaceId::new("bench")? };
    let device = new_device_with(&folder.path().join("ours.db"), &remote, Durability::Full, Some(schema()?))?;
    let mut raw = TypedRaw::create(&folder.path().join("raw.db"))?;
    let (mut ours_rates, mut raw_rates) = (Vec::new(), Vec::new());
    for round in 0..sizes.rounds as u64 {
        let sales = sales(1, 1 + round * sizes.local_full, sizes.local_full);
        let rate = |spent: Duration| sales.len() as f64 / spent.as_secs_f64();
        let bound = bound(&sales)?;
        // In turns, and each goes first as often as the other.
        if round % 2 == 0 {
            ours_rates.push(rate(save_all(&device, &sales)?));
            raw_rates.push(rate(raw.insert(&bound, 1)?));
        } else {
            raw_rates.push(rate(raw.insert(&bound, 1)?));
            ours_rates.push(rate(save_all(&device, &sales)?));
        }
    }
    Ok(Figure::new("local-typed", "operations/s")
        .ours(median(&mut ours_rates))
        .raw(median(&mut raw_rates))
        .bar(Bar::RatioAtLeast(0.5))
        .note(format!(
            "{RECORDS} records each with schema and tables, durable one by one, synchronous=FULL; raw: the same tables"
        )))
}

fn save_all(device: &Client, sales: &[Sale]) -> Result<Duration> {
    let started = Instant::now();
    for sale in sales {
        let saved: Result<_, Error> = device.operation("receipt-create", &sale.root, |operation| {
            sale.rows.iter().try_for_each(|row| operation.upsert(row.entity, &row.id, row.payload.as_str()))
        });
        saved.map_err(|error| client_failure(&error))?;
    }
    Ok(started.elapsed())
}

async fn pull_and_select(sizes: &Sizes, folders: &Folders) -> Result<Vec<Figure>> {
    let sales = sales(1, 1, sizes.push_sales);
    let (records, bound) = (sales.len() as u64 * RECORDS, bound(&sales)?);
    let folder = folders.create()?;
    let station = Station::start_with(folder.path(), Some(schema()?)).await?;
    let first = station.device("first.db")?;
    fill(&first, &sales)?;
    finish(sync_in_thread(&first, &transport(&station)?, SyncOptions::default())).await?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let (mut ours_select, mut raw_select) = (Vec::new(), Vec::new());
    for round in 0..sizes.rounds {
        let path = folder.path().join(format!("second-{round}.db"));
        let second = station.device_with(&format!("second-{round}.db"), Some(schema()?))?;
        let through = transport(&station)?;
        let started = Instant::now();
        let report = finish(sync_in_thread(&second, &through, SyncOptions::default())).await?;
        ours.push(records as f64 / started.elapsed().as_secs_f64());
        if report.pulled_records != records {
            bail!("{} of {records} records arrived", report.pulled_records);
        }
        let raw_path = folder.path().join(format!("raw-{round}.db"));
        let mut baseline = TypedRaw::create(&raw_path)?;
        raw.push(records as f64 / baseline.insert(&bound, bound.len())?.as_secs_f64());
        ours_select.push(select_rate(&path, &sales)?);
        raw_select.push(select_rate(&raw_path, &sales)?);
    }
    drop(first);
    station.stop().await?;
    Ok(vec![
        Figure::new("pull-typed", "records/s")
            .ours(median(&mut ours))
            .raw(median(&mut raw))
            .bar(Bar::RatioAtLeast(0.25))
            .note(format!("{records} records into a second device's typed tables; raw: the same rows in one transaction")),
        Figure::new("select-typed", "queries/s")
            .ours(median(&mut ours_select))
            .raw(median(&mut raw_select))
            // A query may take 1.2 times as long as on a plain table.
            .bar(Bar::RatioAtLeast(1.0 / 1.2))
            .note("receipt lines by the indexed column receiptId; raw: a plain table with the same index"),
    ])
}

/// Look-ups of a sale's lines a second, by an app's own connection.
fn select_rate(path: &Path, sales: &[Sale]) -> Result<f64> {
    let connection = Connection::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let sql = "SELECT id, productId, quantity, price FROM receipt_lines WHERE receiptId = ?1";
    let mut statement = connection.prepare(sql)?;
    let mut look_up = || -> Result<usize> {
        let mut found = 0;
        for sale in sales {
            let mut rows = statement.query([&sale.root])?;
            while let Some(row) = rows.next()? {
                found += row.get_ref(3)?.as_str()?.len().min(1);
            }
        }
        Ok(found)
    };
    // Once, so that both files are in memory.
    look_up()?;
    let (started, mut found) = (Instant::now(), 0);
    for _ in 0..PASSES {
        found += look_up()?;
    }
    let spent = started.elapsed();
    if found != 2 * sales.len() * PASSES {
        bail!("{found} lines of {} sales were found in {PASSES} passes", sales.len());
    }
    Ok((sales.len() * PASSES) as f64 / spent.as_secs_f64())
}

/// A row with its values ready to be bound.
struct Bound {
    table: usize,
    values: Vec<rusqlite::types::Value>,
}

/// Sales with their values ready to be bound, so that raw pays for no parsing.
fn bound(sales: &[Sale]) -> Result<Vec<Vec<Bound>>> {
    sales.iter().map(|sale| sale.rows.iter().map(bound_row).collect()).collect()
}

fn bound_row(row: &Row) -> Result<Bound> {
    let table = COLUMNS.iter().position(|(name, _)| *name == row.entity).context("a table of the bench")?;
    let payload: Value = serde_json::from_str(&row.payload)?;
    let value = |column: &&str| match &payload[*column] {
        Value::String(text) => rusqlite::types::Value::Text(text.clone()),
        Value::Number(number) => rusqlite::types::Value::Integer(number.as_i64().unwrap_or_default()),
        _ => rusqlite::types::Value::Null,
    };
    let id = rusqlite::types::Value::Text(row.id.clone());
    Ok(Bound { table, values: std::iter::once(id).chain(COLUMNS[table].1.iter().map(value)).collect() })
}

/// Plain tables with the same columns and indexes.
struct TypedRaw {
    connection: Connection,
    inserts: [String; 4],
}

impl TypedRaw {
    fn create(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).with_context(|| format!("{} cannot be made", path.display()))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(TABLES)?;
        let inserts = COLUMNS.map(|(table, columns)| {
            let names: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
            let places: Vec<&str> = columns.iter().map(|_| "?").collect();
            format!("INSERT INTO {table} (id, {}) VALUES (?, {})", names.join(", "), places.join(", "))
        });
        Ok(Self { connection, inserts })
    }

    /// Inserts sales in transactions of `sales_each`, and says how long that took.
    fn insert(&mut self, sales: &[Vec<Bound>], sales_each: usize) -> Result<Duration> {
        let started = Instant::now();
        for chunk in sales.chunks(sales_each) {
            let tx = self.connection.transaction()?;
            for row in chunk.iter().flatten() {
                let mut statement = tx.prepare_cached(&self.inserts[row.table])?;
                statement.execute(rusqlite::params_from_iter(&row.values))?;
            }
            tx.commit()?;
        }
        Ok(started.elapsed())
    }
}
