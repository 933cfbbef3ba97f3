//! `gbsync_capture`, read as operations.

use crate::error::{Error, damaged};
use crate::store::Tx;
use gbsync_core::id::{InvalidId, RecordKey};
use gbsync_core::limits::ID_BYTES;
use rusqlite::Row;
use rusqlite::types::Value;

/// One operation as triggers saw it: what stood in a bracket, or one changed row outside any.
pub(super) struct Captured {
    pub(super) group_type: Option<String>,
    pub(super) root: Option<String>,
    pub(super) actor: Option<String>,
    /// When it began, in milliseconds after 1970.
    pub(super) at: u64,
    /// Whether its bracket was closed.
    pub(super) is_closed: bool,
    pub(super) changes: Vec<Touched>,
}

/// What was done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Insert,
    Update,
    Delete,
}

/// What was done to a field of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Set,
    Add,
    /// Added so many of a decimal's smallest unit.
    AddMinor,
}

/// One changed row.
pub(super) struct Touched {
    pub(super) entity: String,
    pub(super) id: String,
    /// The bytes of an id that is no text in UTF-8.
    id_bytes: Option<Vec<u8>>,
    pub(super) action: Action,
    pub(super) fields: Vec<(String, How, Value)>,
    /// A row that was deleted because another one is inserted in its place.
    is_replaced: bool,
}

impl Touched {
    pub(super) fn key(&self) -> Result<RecordKey, InvalidId> {
        RecordKey::new(&self.entity, &self.id)
    }

    pub(super) fn has_text_id(&self) -> bool {
        self.id_bytes.is_none()
    }

    pub(super) fn only_increments(&self) -> bool {
        self.action == Action::Update && self.fields.iter().all(|(_, how, _)| *how != How::Set)
    }

    /// Takes a row away whose id no record can have, so that no later write would find it.
    pub(super) fn remove_row_without_text_id(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let table = tx.tables().find(|table| table.entity.as_str() == self.entity);
        if let (Some(table), Some(bytes)) = (table, &self.id_bytes) {
            tx.execute(&format!("DELETE FROM {} WHERE CAST(\"id\" AS BLOB) = ?1", table.name), [bytes])?;
        }
        Ok(())
    }
}

/// Gives `take` every captured operation in capture order.
pub(super) fn each(tx: &Tx<'_>, mut take: impl FnMut(Captured) -> Result<(), Error>) -> Result<(), Error> {
    let mut statement =
        tx.prepare("SELECT action, entity, id, field, value, type, root, actor, at FROM gbsync_capture ORDER BY no")?;
    let mut rows = statement.query([])?;
    let mut current: Option<Captured> = None;
    let (mut is_bracket, mut replaces) = (false, false);
    while let Some(row) = rows.next()? {
        let was_replace = std::mem::take(&mut replaces);
        match row.get_ref(0)?.as_str().unwrap_or_default() {
            "replace" => replaces = true,
            "open" => {
                current.replace(begun(row, true)?).map_or(Ok(()), &mut take)?;
                is_bracket = true;
            }
            "close" => {
                if let Some(mut captured) = current.take() {
                    captured.is_closed = true;
                    take(captured)?;
                }
                is_bracket = false;
            }
            "insert" => change(row, Action::Insert, &mut current, is_bracket, &mut take)?,
            "update" => change(row, Action::Update, &mut current, is_bracket, &mut take)?,
            "delete" => {
                change(row, Action::Delete, &mut current, is_bracket, &mut take)?;
                let deleted = current.as_mut().and_then(|captured| captured.changes.last_mut());
                deleted.into_iter().for_each(|deleted| deleted.is_replaced = was_replace);
            }
            "set" => field(row, How::Set, &mut current)?,
            "add" => field(row, How::Add, &mut current)?,
            "add_minor" => field(row, How::AddMinor, &mut current)?,
            other => return Err(damaged("gbsync_capture.action", other)),
        }
    }
    current.map_or(Ok(()), take)
}

fn begun(row: &Row<'_>, is_bracket: bool) -> Result<Captured, Error> {
    Ok(Captured {
        group_type: text(row, 5)?,
        root: text(row, 6)?,
        actor: text(row, 7)?,
        at: u64::try_from(row.get::<_, i64>(8)?).unwrap_or_default(),
        is_closed: !is_bracket,
        changes: Vec::new(),
    })
}

fn change(
    row: &Row<'_>,
    action: Action,
    current: &mut Option<Captured>,
    is_bracket: bool,
    take: &mut impl FnMut(Captured) -> Result<(), Error>,
) -> Result<(), Error> {
    let (entity, id) = (text(row, 1)?.unwrap_or_default(), row.get_ref(2)?.as_bytes().unwrap_or_default());
    let mut touched = String::from_utf8_lossy(id).into_owned();
    // Written as text it may be longer than an id may be, and what names a record must be one.
    touched.truncate(touched.floor_char_boundary(ID_BYTES));
    // With recursive triggers on, INSERT OR REPLACE also tells of the row that it replaces: it is one edit.
    let replaces = |last: &mut Touched| last.is_replaced && last.entity == entity && last.id == touched;
    let replaces =
        action == Action::Insert && current.as_mut().and_then(|captured| captured.changes.pop_if(replaces)).is_some();
    if !is_bracket
        && !replaces
        && let Some(before) = current.replace(begun(row, false)?)
    {
        take(before)?;
    }
    let captured = current.as_mut().ok_or_else(|| damaged("gbsync_capture", "a row stands outside its operation"))?;
    captured.changes.push(Touched {
        id: touched,
        entity,
        id_bytes: std::str::from_utf8(id).is_err().then(|| id.to_vec()),
        action,
        fields: Vec::new(),
        is_replaced: false,
    });
    Ok(())
}

fn field(row: &Row<'_>, how: How, current: &mut Option<Captured>) -> Result<(), Error> {
    let change = current.as_mut().and_then(|captured| captured.changes.last_mut());
    let change = change.ok_or_else(|| damaged("gbsync_capture", "a field stands before its row"))?;
    let value = match row.get_ref(4)? {
        // Bytes that are no UTF-8 stay bytes: what becomes of them is not for SQLite's binding to say.
        rusqlite::types::ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Blob(bytes.to_vec()),
        },
        other => other.try_into().map_err(|error| damaged("gbsync_capture.value", error))?,
    };
    change.fields.push((text(row, 3)?.unwrap_or_default(), how, value));
    Ok(())
}

fn text(row: &Row<'_>, column: usize) -> Result<Option<String>, Error> {
    let bytes = row.get_ref(column)?.as_bytes_or_null().map_err(|error| damaged("gbsync_capture", error))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}
