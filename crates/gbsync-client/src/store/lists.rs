//! Which records hold a reference or unique values, as the local view shows them: from the indexes of the entity's table, or
//! by looking at every record where the table has no column to ask.

use crate::error::{Error, damaged};
use crate::store::Tx;
use crate::tables::Table;
use crate::view;
use gbsync_core::change::Payload;
use gbsync_core::decide::{IndexKey, entries};
use gbsync_core::id::{RecordId, RecordKey};
use gbsync_core::json::{self, Value};
use gbsync_core::schema::{FieldKind, Schema};
use rusqlite::types::Value as SqlValue;
use std::collections::BTreeSet;

/// The records on a list.
pub(crate) fn members(tx: &Tx<'_>, schema: &Schema, list: &IndexKey) -> Result<BTreeSet<RecordId>, Error> {
    let table = tx.table(&list.entity).filter(|_| is_as_the_app_has_it(tx, schema, list));
    match table.and_then(|table| question(schema, list, table)) {
        Some((sql, values)) => indexed(tx, schema, list, &sql, values),
        None => scanned(tx, schema, list),
    }
}

/// Whether the fields of a list are the same ones in the app's tables, which follow the app's version of the schema: an old app
/// must not look at every record of a newer server's for each sale.
fn is_as_the_app_has_it(tx: &Tx<'_>, schema: &Schema, list: &IndexKey) -> bool {
    if schema.version == tx.schemas().app_version() {
        return true;
    }
    let field = |schema: &'_ Schema, name: &str| schema.entity(&list.entity)?.fields.get(name).cloned();
    let is_same = |name: &str| {
        let (ours, theirs) = (tx.schemas().app().and_then(|app| field(app, name)), field(schema, name));
        ours.zip(theirs).is_some_and(|(ours, theirs)| ours.kind == theirs.kind && ours.was == theirs.was)
    };
    list.fields.split(',').all(is_same)
}

/// The question to the table, where its columns hold the values as they are.
fn question(schema: &Schema, list: &IndexKey, table: &Table) -> Option<(String, Vec<SqlValue>)> {
    let rules = schema.entity(&list.entity)?;
    let unique = rules.unique.iter().find(|fields| fields.join(",") == *list.fields);
    let (fields, values) = match unique {
        Some(fields) => (fields.clone(), values(&list.value)?),
        None => (vec![list.fields.to_string()], vec![SqlValue::Text(list.value.to_string())]),
    };
    let is_exact = |(field, value): (&String, &SqlValue)| {
        table.column(field).is_some_and(|column| match column.kind {
            FieldKind::Text | FieldKind::Date | FieldKind::Timestamp => matches!(value, SqlValue::Text(_)),
            FieldKind::Integer => matches!(value, SqlValue::Integer(_)),
            _ => false,
        })
    };
    if fields.len() != values.len() || !fields.iter().zip(&values).all(is_exact) {
        return None;
    }
    let quoted = |field: &String| format!("\"{}\" = ?", field.replace('"', "\"\""));
    let wanted: Vec<String> = fields.iter().map(quoted).collect();
    Some((format!("SELECT \"id\" FROM {} WHERE {}", table.name, wanted.join(" AND ")), values))
}

/// Unique values, as they were written into the list.
fn values(text: &str) -> Option<Vec<SqlValue>> {
    let node = json::parse(text.as_bytes(), 2).ok()?;
    let value = |item: &json::Node<'_>| match &item.value {
        Value::String(text) => Some(SqlValue::Text(text.to_string())),
        Value::Number(digits) => digits.parse().ok().map(SqlValue::Integer),
        _ => None,
    };
    node.as_array()?.iter().map(value).collect()
}

fn indexed(
    tx: &Tx<'_>,
    schema: &Schema,
    list: &IndexKey,
    sql: &str,
    values: Vec<SqlValue>,
) -> Result<BTreeSet<RecordId>, Error> {
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut members = BTreeSet::new();
    while let Some(row) = rows.next()? {
        // What a program wrote into the table counts when it is a group.
        let id = RecordId::new(row.get::<_, Box<str>>(0)?).map_err(|error| damaged("a table", error))?;
        let key = RecordKey { entity: list.entity.clone(), id };
        let payload = view::of(tx, &key)?.payload;
        if payload.is_some_and(|payload| entries(schema, &key, &payload).contains(list)) {
            members.insert(key.id);
        }
    }
    Ok(members)
}

fn scanned(tx: &Tx<'_>, schema: &Schema, list: &IndexKey) -> Result<BTreeSet<RecordId>, Error> {
    let mut statement = tx.prepare_cached("SELECT id, payload FROM gbsync_records WHERE entity = ?1")?;
    let mut rows = statement.query([list.entity.as_str()])?;
    let mut members = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let id = RecordId::new(row.get::<_, Box<str>>(0)?).map_err(|error| damaged("gbsync_records", error))?;
        let key = RecordKey { entity: list.entity.clone(), id };
        if entries(schema, &key, &Payload::from_stored(row.get::<_, Box<str>>(1)?)).contains(list) {
            members.insert(key.id);
        }
    }
    Ok(members)
}
