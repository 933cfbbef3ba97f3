//! Which values of a file are exchanged, read from bytes: each damage is a table, a row, a column, a kind of value, and its
//! length and bytes.

use rusqlite::Connection;
use rusqlite::types::Value;

/// Damages of one input at most.
const MOST: usize = 4;

/// One value that is exchanged, or one row that is gone.
#[derive(Debug)]
pub(super) struct Damage<'d> {
    table: u8,
    row: u8,
    column: u8,
    kind: u8,
    bytes: &'d [u8],
}

impl<'d> Damage<'d> {
    pub(super) fn read(mut data: &'d [u8]) -> Vec<Self> {
        let mut damages = Vec::new();
        while let ([table, row, column, kind, length, rest @ ..], true) = (data, damages.len() < MOST) {
            let (bytes, after) = rest.split_at(usize::from(*length).min(rest.len()));
            damages.push(Self { table: *table, row: *row, column: *column, kind: *kind, bytes });
            data = after;
        }
        damages
    }

    /// Exchanges the value. Answers which row of the outbox is not what it was; what SQLite refuses does not happen.
    pub(super) fn apply(&self, db: &Connection) -> Option<i64> {
        let table = self.table_of(db)?;
        let columns = columns_of(db, &table)?;
        let row = row_of(db, &table, &columns, self.row)?;
        let place = usize::from(self.column) % columns.len();
        let matches: Vec<String> =
            columns.iter().enumerate().map(|(place, name)| format!("\"{name}\" IS ?{}", place + 1)).collect();
        let matches = matches.join(" AND ");
        let mut values = row.clone();
        let sql = match self.value(&row[place]) {
            None => format!("DELETE FROM \"{table}\" WHERE {matches}"),
            Some(value) => {
                values.push(value);
                format!("UPDATE \"{table}\" SET \"{}\" = ?{} WHERE {matches}", columns[place], values.len())
            }
        };
        let _ = db.pragma_update(None, "ignore_check_constraints", true);
        let changed = db.execute(&sql, rusqlite::params_from_iter(values)).unwrap_or(0);
        match (&row[0], table.as_str()) {
            (Value::Integer(local_no), "gbsync_outbox") if changed > 0 => Some(*local_no),
            _ => None,
        }
    }

    /// Half of the damage is in the outbox.
    fn table_of(&self, db: &Connection) -> Option<String> {
        if self.table < 128 {
            return Some("gbsync_outbox".into());
        }
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'gbsync_*' ORDER BY name";
        let mut statement = db.prepare(sql).ok()?;
        let names: Vec<String> = statement.query_map([], |row| row.get(0)).ok()?.filter_map(Result::ok).collect();
        names.get(usize::from(self.table) % names.len()).cloned()
    }

    /// What stands there instead of `old`; `None`: the row is gone.
    fn value(&self, old: &Value) -> Option<Value> {
        let number = |bytes: &[u8]| bytes.iter().fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
        Some(match (self.kind % 8, old) {
            (0, _) => Value::Null,
            (1, _) => Value::Integer(number(self.bytes)),
            (2, _) => Value::Integer(if self.bytes.is_empty() { i64::MAX } else { i64::MIN }),
            (3, _) => Value::Text(String::from_utf8_lossy(self.bytes).into_owned()),
            (4, _) => Value::Blob(self.bytes.to_vec()),
            (5, Value::Text(text)) => Value::Text(String::from_utf8_lossy(&self.cut(text.as_bytes())).into_owned()),
            (5, Value::Blob(blob)) => Value::Blob(self.cut(blob)),
            (5, Value::Integer(old)) => Value::Integer(old.wrapping_add(number(self.bytes))),
            (6, _) => return None,
            (_, _) => Value::Real(f64::from_bits(number(self.bytes).cast_unsigned())),
        })
    }

    /// The old bytes, with the new ones over some of them, or cut off.
    fn cut(&self, old: &[u8]) -> Vec<u8> {
        let mut new = old.to_vec();
        let Some((at, over)) = self.bytes.split_first() else { return new };
        let at = usize::from(*at) * new.len() / 256;
        if over.is_empty() {
            new.truncate(at);
        } else {
            let end = (at + over.len()).min(new.len());
            new.splice(at..end, over.iter().copied());
        }
        new
    }
}

fn columns_of(db: &Connection, table: &str) -> Option<Vec<String>> {
    let mut statement = db.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid").ok()?;
    statement.query_map([table], |row| row.get(0)).ok()?.collect::<Result<_, _>>().ok()
}

fn row_of(db: &Connection, table: &str, columns: &[String], place: u8) -> Option<Vec<Value>> {
    let mut statement = db.prepare(&format!("SELECT * FROM \"{table}\" ORDER BY 1, 2")).ok()?;
    let read = |row: &rusqlite::Row<'_>| (0..columns.len()).map(|place| row.get(place)).collect();
    let rows: Vec<Vec<Value>> = statement.query_map([], read).ok()?.filter_map(Result::ok).collect();
    rows.get(usize::from(place) % rows.len().max(1)).cloned()
}
