//! From a record's JSON to the columns of its row.
//!
//! Invariant: this never fails on a record. What a column cannot hold is NULL there, and whole in `gbsync_records`: the
//! record may come from before the rules, or from a server without any.

use super::decimal;
use super::plan::{Column, Table};
use crate::error::{Error, damaged};
use gbsync_core::json::{self, Node, Value};
use gbsync_core::limits::PAYLOAD_DEPTH;
use gbsync_core::schema::FieldKind;
use rusqlite::Statement;
use rusqlite::types::Null;

/// Binds a record's columns, the first of them at `place`.
pub(super) fn bind(statement: &mut Statement<'_>, place: usize, table: &Table, text: &str) -> Result<(), Error> {
    let node = json::parse(text.as_bytes(), PAYLOAD_DEPTH + 1).map_err(|error| damaged("a payload", error))?;
    for (column, place) in table.columns.iter().zip(place..) {
        match column.names().find_map(|name| node.member(name)) {
            Some(member) => bind_one(statement, place, column, member, text)?,
            None => match &column.default {
                Some(default) => {
                    let node =
                        json::parse(default.as_bytes(), PAYLOAD_DEPTH).map_err(|error| damaged("a default", error))?;
                    bind_one(statement, place, column, &node, default)?;
                }
                None => statement.raw_bind_parameter(place, Null)?,
            },
        }
    }
    Ok(())
}

fn bind_one(statement: &mut Statement<'_>, place: usize, column: &Column, node: &Node<'_>, text: &str) -> Result<(), Error> {
    match (column.kind, &node.value) {
        (FieldKind::Text | FieldKind::Date | FieldKind::Timestamp, Value::String(text)) => {
            statement.raw_bind_parameter(place, text.as_ref())?;
        }
        (FieldKind::Integer, Value::Number(digits)) => statement.raw_bind_parameter(place, digits.parse::<i64>().ok())?,
        (FieldKind::Real, Value::Number(digits)) => statement.raw_bind_parameter(place, digits.parse::<f64>().ok())?,
        (FieldKind::Decimal { scale }, Value::String(digits) | Value::Number(digits)) => {
            match decimal::normal(digits, scale) {
                Some(normal) => statement.raw_bind_parameter(place, normal)?,
                None => statement.raw_bind_parameter(place, digits.as_ref())?,
            }
        }
        (FieldKind::Boolean, Value::Bool(is_true)) => statement.raw_bind_parameter(place, i64::from(*is_true))?,
        (FieldKind::Json, Value::Null) => statement.raw_bind_parameter(place, Null)?,
        (FieldKind::Json, _) => statement.raw_bind_parameter(place, node.canonical_in(text).as_ref())?,
        _ => statement.raw_bind_parameter(place, Null)?,
    }
    Ok(())
}
