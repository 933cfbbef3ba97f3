//! From a changed row to the edits of its record.

use super::rows::{Action, How, Touched};
use super::values;
use crate::error::Error;
use crate::store::Tx;
use crate::tables::{Column, Table};
use gbsync_core::change::{Edit, InvalidPayload, Payload};
use gbsync_core::id::RecordKey;
use gbsync_core::json::{self, Node, Value as Json, add_numbers};
use gbsync_core::limits::{Limits, PAYLOAD_DEPTH};
use gbsync_core::schema::FieldKind;
use rusqlite::types::Value;

/// The members of an object: name and JSON.
type Members = Vec<(String, String)>;
/// An edit before its payload is read.
type Draft = (fn(Payload) -> Edit, Members);

/// The edits that do to the record what was done to its row; `now` is the record just before.
pub(super) fn edits_of(
    tx: &Tx<'_>,
    key: &RecordKey,
    change: &Touched,
    now: Option<&Payload>,
    limits: &Limits,
) -> Result<Vec<Edit>, Error> {
    let table = tx.table(&key.entity);
    let now = now.map(|now| tx.schemas().in_apps_names(&key.entity, now.as_str()));
    let now = now.as_deref();
    let json = |column: Option<&Column>, name: &str, how, value: &Value| {
        values::json_of(column, how, value)
            .map_err(|reason| Error::NotJson { key: key.clone(), message: format!("{}.{name}: {reason}", key.entity) })
    };
    let payload = |members: &Members| {
        let text = values::object(members.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Payload::parse(&text, limits).map_err(|source| Error::InvalidPayload { key: key.clone(), source })
    };
    match change.action {
        Action::Delete => Ok(vec![Edit::Delete]),
        Action::Insert => {
            let mut row = Members::new();
            for (name, how, value) in &change.fields {
                row.push((name.clone(), json(column(table, name), name, *how, value)?));
            }
            replaced(table, row, now)?.into_iter().map(|(make, members)| Ok(make(payload(&members)?))).collect()
        }
        Action::Update => {
            let node = now.map(parsed).transpose()?;
            let (mut patch, mut deltas, mut is_patch) = (Members::new(), Members::new(), true);
            for (name, how, value) in &change.fields {
                let column = column(table, name);
                let text = json(column, name, *how, value)?;
                if *how != How::Set {
                    deltas.push((name.clone(), text));
                    continue;
                }
                let old = node.as_ref().and_then(|node| node.member(name));
                let text = match column.is_some_and(|column| column.kind == FieldKind::Json) {
                    true => values::patch(old, &parsed(&text)?).unwrap_or_else(|| {
                        is_patch = false;
                        text
                    }),
                    false => text,
                };
                // Under another name it would show again.
                let others = column.filter(|_| text == "null").into_iter().flat_map(|column| column.names().skip(1));
                let others = others.filter(|other| node.as_ref().is_some_and(|node| node.member(other).is_some()));
                patch.extend(others.map(|other| (other.to_owned(), "null".to_owned())));
                patch.push((name.clone(), text));
            }
            let mut edits = Vec::new();
            match (patch.is_empty(), is_patch, &node) {
                (true, ..) => {}
                (false, false, Some(node)) => edits.push(Edit::Upsert(payload(&whole(node, &change.fields, table)?)?)),
                (false, ..) => edits.push(Edit::Patch(payload(&patch)?)),
            }
            if !deltas.is_empty() {
                edits.push(Edit::Increment(payload(&deltas)?));
            }
            Ok(edits)
        }
    }
}

/// The edits for a person to see, where those of [`edits_of`] cannot be made: never fails.
pub(super) fn forced(tx: &Tx<'_>, key: &RecordKey, change: &Touched, now: Option<&Payload>) -> Vec<Edit> {
    let unlimited = Limits { payload_bytes: u64::MAX, ..Limits::default() };
    let table = tx.table(&key.entity);
    if let Ok(edits) = edits_of(tx, key, change, now, &unlimited) {
        return edits;
    }
    let members = change.fields.iter().map(|(name, how, value)| {
        let value = values::forced(column(table, name), *how, value);
        (name.clone(), value)
    });
    let members: Members = members.collect();
    let text = values::object(members.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    match (change.action, Payload::parse(&text, &unlimited)) {
        (Action::Insert, Ok(payload)) => vec![Edit::Upsert(payload)],
        (Action::Update, Ok(payload)) => vec![Edit::Patch(payload)],
        _ => vec![Edit::Delete],
    }
}

/// An inserted row. On a record that is there (`INSERT OR REPLACE`) it leaves alone what no column shows, and moves counters
/// by the difference.
fn replaced(table: Option<&Table>, row: Members, now: Option<&str>) -> Result<Vec<Draft>, Error> {
    let Some(now) = now else { return Ok(vec![(Edit::Upsert, row)]) };
    let node = parsed(now)?;
    let is_shown =
        |name: &str| table.is_some_and(|table| table.columns.iter().any(|column| column.names().any(|shown| shown == name)));
    let mut deltas = Members::new();
    let mut members = Members::new();
    for (name, value) in row {
        if !column(table, &name).is_some_and(|column| column.is_counter) {
            members.push((name, value));
            continue;
        }
        let old = node.member(&name).and_then(|old| old.as_number().or(old.as_str())).unwrap_or("0");
        let delta = add_numbers(value.trim_matches('"'), &negated(old)).unwrap_or_default();
        if !delta.is_empty() && delta.bytes().any(|digit| (b'1'..=b'9').contains(&digit)) {
            deltas.push((name, delta));
        }
    }
    if let Json::Object(old) = &node.value {
        let kept = old.iter().filter(|(name, _)| !is_shown(name));
        members.extend(kept.map(|(name, member)| (name.to_string(), json::canonical(member))));
    }
    let mut edits: Vec<Draft> = vec![(Edit::Upsert, members)];
    if !deltas.is_empty() {
        edits.push((Edit::Increment, deltas));
    }
    Ok(edits)
}

fn negated(number: &str) -> String {
    number.strip_prefix('-').map_or_else(|| format!("-{number}"), str::to_owned)
}

/// The whole record with the changed fields in place.
fn whole(node: &Node<'_>, fields: &[(String, How, Value)], table: Option<&Table>) -> Result<Members, Error> {
    let is_set = |name: &str| fields.iter().any(|(field, how, _)| field == name && *how == How::Set);
    let mut members = Members::new();
    if let Json::Object(old) = &node.value {
        let kept = old.iter().filter(|(name, _)| !is_set(name));
        members.extend(kept.map(|(name, member)| (name.to_string(), json::canonical(member))));
    }
    for (name, how, value) in fields.iter().filter(|(_, how, _)| *how == How::Set) {
        if *value != Value::Null {
            members.push((name.clone(), values::forced(column(table, name), *how, value)));
        }
    }
    Ok(members)
}

fn column<'t>(table: Option<&'t Table>, name: &str) -> Option<&'t Column> {
    table.and_then(|table| table.column(name))
}

fn parsed(text: &str) -> Result<Node<'_>, Error> {
    json::parse(text.as_bytes(), PAYLOAD_DEPTH + 1).map_err(|error| {
        let key = RecordKey::new("?", "?").expect("a valid id");
        Error::InvalidPayload { key, source: InvalidPayload::Json(error) }
    })
}
