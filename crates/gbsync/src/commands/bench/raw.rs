//! The baseline: the same rows in plain SQLite, one table, prepared statements, nothing else.

use super::rows::{Row, Sale};
use anyhow::{Context, Result};
use gbsync_client::Durability;
use rusqlite::Connection;
use std::path::Path;
use std::time::{Duration, Instant};

const TABLE: &str = "CREATE TABLE records (
  entity TEXT NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (entity, id)
) WITHOUT ROWID";

/// The table that a device keeps confirmed records in.
const BASE: &str = "CREATE TABLE records (
  entity TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, edit_version INTEGER NOT NULL, payload TEXT,
  PRIMARY KEY (entity, id)
) WITHOUT ROWID";

/// A database with one table.
pub(super) struct Raw(Connection);

impl Raw {
    /// Makes a database at `path`, in WAL mode.
    pub(super) fn create(path: &Path, durability: Durability) -> Result<Self> {
        let connection = Connection::open(path).with_context(|| format!("{} cannot be made", path.display()))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = match durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.execute_batch(TABLE)?;
        Ok(Self(connection))
    }

    /// Inserts sales in transactions of `sales_each`, and says how long that took.
    pub(super) fn insert(&mut self, sales: &[Sale], sales_each: usize) -> Result<Duration> {
        let started = Instant::now();
        for chunk in sales.chunks(sales_each) {
            let tx = self.0.transaction()?;
            let sql = "INSERT INTO records(entity, id, payload, version) VALUES (?1, ?2, ?3, 1)";
            let mut statement = tx.prepare_cached(sql)?;
            for row in chunk.iter().flat_map(|sale| &sale.rows) {
                statement.execute([row.entity, &row.id, &row.payload])?;
            }
            drop(statement);
            tx.commit()?;
        }
        Ok(started.elapsed())
    }

    /// Inserts rows into a table of a device's columns, in durable transactions of `rows_each`, and says how long that took.
    pub(super) fn insert_rows(&mut self, rows: &[Row], rows_each: usize) -> Result<Duration> {
        self.0.execute_batch("DROP TABLE records")?;
        self.0.execute_batch(BASE)?;
        let started = Instant::now();
        for chunk in rows.chunks(rows_each) {
            let tx = self.0.transaction()?;
            let sql = "INSERT INTO records(entity, id, version, edit_version, payload) VALUES (?1, ?2, 1, 1, ?3)";
            let mut statement = tx.prepare_cached(sql)?;
            for row in chunk {
                statement.execute([row.entity, &row.id, &row.payload])?;
            }
            drop(statement);
            tx.commit()?;
        }
        Ok(started.elapsed())
    }
}
