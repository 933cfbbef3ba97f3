//! `gbsync query`: any SQL that only reads, on a device's database.
//!
//! Invariant: memory is bounded by [`MEASURED_ROWS`] rows, however many there are: the columns are aligned on those, and a
//! later, longer value only moves its own line.

use crate::config::{DeviceFile, client_failure};
use crate::exit::{Exit, Failure};
use crate::output::{Output, aligned};
use anyhow::Result;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Rows that decide how wide the columns of a text table are.
const MEASURED_ROWS: usize = 1000;

const EXAMPLE: &str = "\
Examples:
  gbsync query till.db 'SELECT * FROM gbsync_records LIMIT 5'
  gbsync query till.db \"SELECT id, payload ->> 'total' AS total FROM gbsync_records WHERE entity = 'receipts'\"
  gbsync query till.db 'SELECT state, count(*) FROM gbsync_group GROUP BY state' --json

Relations: gbsync_records (what the user sees), gbsync_group (every group of this device), gbsync_base (what the server \
confirmed), and the app's own tables.";

/// Run an SQL query that only reads
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The device's database
    file: PathBuf,
    /// One SQL statement
    sql: String,
}

/// Runs the verb.
///
/// # Errors
/// A failure with SQLite's own words.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let device = DeviceFile::open(&arguments.file)?;
    let mut refused = None;
    let outcome = device.client.with_reader(|connection| {
        refused = print(connection, &arguments.sql, output).err();
        Ok(())
    });
    outcome.map_err(|error| client_failure(&error))?;
    match refused {
        None => Ok(Exit::Done),
        Some(failure) => Err(failure.into()),
    }
}

fn print(connection: &Connection, sql: &str, output: &Output) -> Result<(), Failure> {
    let failed = |error: rusqlite::Error| Failure::new("query", sqlite_words(&error));
    let mut statement = connection.prepare(sql).map_err(failed)?;
    if !statement.readonly() {
        let failure = Failure::new("query", "the statement writes, and gbsync query only reads");
        return Err(failure.help("write through operations: gbsync apply, or the client's API"));
    }
    if statement.column_count() == 0 {
        return Err(Failure::new("query", "the statement returns no columns").help("give one SELECT statement"));
    }
    let printed = if output.is_json() { print_json(&mut statement, output) } else { print_table(&mut statement, output) };
    printed.map_err(failed)
}

/// What SQLite says of an error, without the words around it.
fn sqlite_words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

fn print_json(statement: &mut Statement<'_>, output: &Output) -> rusqlite::Result<()> {
    let names = distinct_names(statement);
    let mut rows = statement.query([])?;
    let mut before = "[";
    while let Some(row) = rows.next()? {
        let mut object = Map::new();
        for (index, name) in names.iter().enumerate() {
            object.insert(name.clone(), json_value(row.get_ref(index)?));
        }
        output.line(format_args!("{before}{}", Value::Object(object)));
        before = ",";
        if output.is_closed() {
            return Ok(());
        }
    }
    output.line(if before == "[" { "[]" } else { "]" });
    Ok(())
}

/// The columns' names; a repeated one gets its place, so that no value is lost in an object.
fn distinct_names(statement: &Statement<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in statement.column_names() {
        let is_repeated = names.iter().any(|earlier| earlier == name);
        names.push(if is_repeated { format!("{name}:{}", names.len() + 1) } else { name.to_owned() });
    }
    names
}

fn json_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        // JSON has no infinity; SQLite has no NaN.
        ValueRef::Real(number) => {
            serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
        }
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => hex_text(bytes).into(),
    }
}

fn print_table(statement: &mut Statement<'_>, output: &Output) -> rusqlite::Result<()> {
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut widths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    let mut rows = statement.query([])?;
    let mut measured: Vec<Vec<String>> = Vec::new();
    while measured.len() < MEASURED_ROWS {
        let Some(row) = rows.next()? else { break };
        let cells = text_cells(row, names.len())?;
        for (width, cell) in widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        measured.push(cells);
    }
    output.line(aligned(names.iter().map(String::as_str), &widths));
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    output.line(aligned(rules.iter().map(String::as_str), &widths));
    for cells in &measured {
        output.line(aligned(cells.iter().map(String::as_str), &widths));
    }
    if measured.len() < MEASURED_ROWS {
        return Ok(());
    }
    while let Some(row) = rows.next()?.filter(|_| !output.is_closed()) {
        let cells = text_cells(row, names.len())?;
        output.line(aligned(cells.iter().map(String::as_str), &widths));
    }
    Ok(())
}

fn text_cells(row: &Row<'_>, columns: usize) -> rusqlite::Result<Vec<String>> {
    (0..columns).map(|index| row.get_ref(index).map(text_cell)).collect()
}

fn text_cell(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        // A row stays a line, and nothing in the data can steer a terminal.
        ValueRef::Text(text) => String::from_utf8_lossy(text).chars().flat_map(shown).collect(),
        ValueRef::Blob(bytes) => hex_text(bytes),
    }
}

/// The bytes in lower-case hexadecimal.
fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}
