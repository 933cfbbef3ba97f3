//! From a record's JSON to the columns of its row.
//!
//! Invariant: this never fails on a record. What a column cannot hold is NULL there, and whole in `gbsync_records`: the
//! record may come from before the rules, or from a server without any.

use super::decimal;
use super::plan::{Column, Table};
use crate::error::Error;
use gbsync_core::json::{Outline, text_of};
use gbsync_core::schema::FieldKind;
use rusqlite::Statement;
use rusqlite::types::Null;

/// Binds a record's columns, the first of them at `place`. The text is canonical: its members are looked up in it, which
/// costs a fraction of parsing it again.
pub(super) fn bind(statement: &mut Statement<'_>, place: usize, table: &Table, text: &str) -> Result<(), Error> {
    let outline = Outline::of(text);
    // Both stand in the order of their names' bytes.
    let mut members = outline.members();
    for (column, place) in table.columns.iter().zip(place..) {
        while let [(name, _), rest @ ..] = members
            && **name < *column.name
        {
            members = rest;
        }
        let member = match members {
            [(name, text), ..] if **name == *column.name => Some(*text),
            _ => column.was.as_deref().and_then(|was| outline.member(was)).or(column.default.as_deref()),
        };
        bind_one(statement, place, column, member.unwrap_or("null"))?;
    }
    Ok(())
}

/// Binds the canonical text of one member.
fn bind_one(statement: &mut Statement<'_>, place: usize, column: &Column, member: &str) -> Result<(), Error> {
    let digits = || member.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).then_some(member);
    match column.kind {
        FieldKind::Text | FieldKind::Date | FieldKind::Timestamp => {
            statement.raw_bind_parameter(place, text_of(member).as_deref())?;
        }
        FieldKind::Integer => statement.raw_bind_parameter(place, digits().and_then(|digits| digits.parse::<i64>().ok()))?,
        FieldKind::Real => statement.raw_bind_parameter(place, digits().and_then(|digits| digits.parse::<f64>().ok()))?,
        FieldKind::Decimal { scale } => {
            let text = text_of(member);
            match text.as_deref().or(digits()) {
                Some(digits) if decimal::is_normal(digits, scale) => statement.raw_bind_parameter(place, digits)?,
                Some(digits) => {
                    let normal = decimal::normal(digits, scale);
                    statement.raw_bind_parameter(place, normal.as_deref().unwrap_or(digits))?;
                }
                None => statement.raw_bind_parameter(place, Null)?,
            }
        }
        FieldKind::Boolean => match member {
            "true" => statement.raw_bind_parameter(place, 1)?,
            "false" => statement.raw_bind_parameter(place, 0)?,
            _ => statement.raw_bind_parameter(place, Null)?,
        },
        FieldKind::Json => statement.raw_bind_parameter(place, Some(member).filter(|member| *member != "null"))?,
    }
    Ok(())
}
