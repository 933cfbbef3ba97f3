//! A program with its own connection to a device's file, and the schema of the shop.

use gbsync_client::{Client, Config, Remote};
use gbsync_core::schema::Schema;
use rusqlite::Connection;
use std::path::Path;

pub const SHOP: &str = r#"
version = 1

[entities.receipts]
unique = [["no"]]
indexes = [["customer"]]
fields.no = "text"
fields.customer = "text"
fields.total = { type = "decimal", scale = 2, required = true }
fields.note = "text"
fields.paid = "boolean"
fields.day = "date"
fields.at = "timestamp"
fields.extra = "json"
fields.weight = "real"

[entities.payments]
fields.receiptId = { type = "text", required = true, references = "receipts", on_delete = "cascade" }
fields.amount = { type = "decimal", scale = 2, required = true }

[entities.stock]
fields.quantity = { type = "integer", counter = true }
fields.name = "text"

[entities.ledger]
ungrouped = "refuse"
fields.amount = { type = "decimal", scale = 2, counter = true }
"#;

pub fn shop() -> Schema {
    Schema::parse(SHOP).unwrap()
}

/// A device without a server, under a schema.
pub fn device(path: &Path, schema: Schema) -> Client {
    let remote = Remote { server: "http://127.0.0.1:1".into(), space: super::space() };
    Client::create(Config { schema: Some(schema), ..Config::new(path) }, &remote).unwrap()
}

/// The app's connection: what an ORM opens, with foreign keys on.
pub fn app(path: &Path) -> Connection {
    let app = Connection::open(path).unwrap();
    app.pragma_update(None, "foreign_keys", true).unwrap();
    app
}

/// The message of a statement that must fail.
pub fn refused(app: &Connection, sql: &str) -> String {
    app.execute_batch(sql).expect_err(sql).to_string()
}

/// One value of a query.
pub fn ask<T: rusqlite::types::FromSql>(app: &Connection, sql: &str) -> T {
    app.query_row(sql, [], |row| row.get(0)).expect(sql)
}

/// All rows of a query, columns joined by `|`.
pub fn rows(app: &Connection, sql: &str) -> Vec<String> {
    let mut statement = app.prepare(sql).expect(sql);
    let columns = statement.column_count();
    let text = |row: &rusqlite::Row<'_>| {
        let cells = (0..columns).map(|column| match row.get_ref_unwrap(column) {
            rusqlite::types::ValueRef::Null => "-".to_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Real(number) => format!("{number:?}"),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Blob(blob) => format!("{blob:?}"),
        });
        Ok(cells.collect::<Vec<_>>().join("|"))
    };
    statement.query_map([], text).expect(sql).collect::<Result<_, _>>().expect(sql)
}
