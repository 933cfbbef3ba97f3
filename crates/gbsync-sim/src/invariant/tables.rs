//! The typed tables, held against the view.

use crate::model::State;
use crate::names;
use anyhow::{Result, bail, ensure};
use gbsync_core::schema::Schema;
use rusqlite::Connection;
use rusqlite::types::{Value as Shown, ValueRef};
use serde_json::Value;

/// The columns of each typed table whose names no upgrade changes.
const COLUMNS: [(&str, &[&str]); 8] = [
    ("products", &["w", "name"]),
    ("stock", &["w", "quantity"]),
    ("tills", &["w", "cash"]),
    ("receipts", &["w", "total", "amended"]),
    ("payments", &["w", "receiptId", "amount"]),
    ("entries", &["w", "receiptId"]),
    ("notes", &["w", "receiptId"]),
    ("coupons", &["w", "code"]),
];

/// P2: the typed tables show what the view shows, in each column, and in the words of the app, whatever the server's are.
pub(super) fn show(db: &Connection, view: &State, rules: &Schema, is_mixed: bool) -> Result<()> {
    for (entity, columns) in
        COLUMNS.into_iter().filter(|(entity, _)| rules.entities.keys().any(|known| known.as_str() == *entity))
    {
        let renamed = names::columns(rules.version).filter(|(of, ..)| *of == entity);
        // Until something is renamed, the first names are the only ones.
        let renamed = renamed.map(|(_, column, field)| (column, if is_mixed { field } else { column }));
        let columns: Vec<(&str, &str)> = columns.iter().map(|column| (*column, *column)).chain(renamed).collect();
        let list: Vec<&str> = columns.iter().map(|(column, _)| *column).collect();
        let mut statement = db.prepare_cached(&format!("SELECT id, {} FROM {entity}", list.join(", ")))?;
        let mut rows = statement.query([])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(0)?.as_str()?;
            let Some(record) = view.record(entity, id) else {
                bail!("P2: the table {entity} shows {id}, the view does not")
            };
            for (place, (column, field)) in columns.iter().enumerate() {
                let (shown, should_be) = (row.get_ref(place + 1)?, record.fields.get(*field));
                let is_same = match should_be {
                    Some(Value::String(text)) => shown.as_str().is_ok_and(|shown| shown == text),
                    Some(Value::Number(number)) => shown.as_i64().ok() == number.as_i64(),
                    Some(Value::Bool(is_true)) => shown.as_i64().ok() == Some(i64::from(*is_true)),
                    _ => shown == ValueRef::Null,
                };
                ensure!(
                    is_same,
                    "P2: {column} of {entity}:{id} is {:?}, and should be {should_be:?}",
                    Shown::try_from(shown)?
                );
            }
            count += 1;
        }
        let all = view.of(entity).count();
        ensure!(count == all, "P2: the table {entity} shows {count} rows, the view {all}");
    }
    Ok(())
}
