//! What an upgrade of the schema makes of the records of a world, as the reference understands it: two fields get another name,
//! and one is new and required. Shares no code with the engine.

use crate::model::{Change, Edit, Fields, Operation};
use serde_json::Value;

/// The version of the schema that worlds with rules begin with.
pub const FIRST: u64 = 1;
/// The version that they may come to.
pub const SECOND: u64 = 2;
/// Fields that have another name in the second version: entity, before, after.
const RENAMED: [(&str, &str, &str); 2] = [("receipts", "note", "remark"), ("products", "price", "cost")];
/// The field that is new: entity, name, what records from before have in it.
const NEW: (&str, &str, &str) = ("receipts", "channel", "till");

/// What apps show of a record beside what never changes its name: entity, column, the field under the second version.
pub fn columns(version: u64) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let renamed = RENAMED.into_iter().map(move |(entity, before, after)| {
        let column = if version < SECOND { before } else { after };
        (entity, column, after)
    });
    renamed.chain((version >= SECOND).then_some((NEW.0, NEW.1, NEW.1)))
}

/// A record as the second version says it.
pub fn renewed(entity: &str, fields: &Fields) -> Fields {
    let mut renewed = renamed(entity, fields);
    if entity == NEW.0 && !renewed.contains_key(NEW.1) {
        renewed.insert(NEW.1.to_owned(), Value::from(NEW.2));
    }
    renewed
}

/// Some fields of a record, under the names of the second version.
pub fn renamed(entity: &str, fields: &Fields) -> Fields {
    let mut renamed = fields.clone();
    for (_, before, after) in RENAMED.into_iter().filter(|(of, ..)| *of == entity) {
        if let Some(value) = renamed.remove(before) {
            renamed.entry(after).or_insert(value);
        }
    }
    renamed
}

/// An edit as the second version understands it.
pub fn understood(Change { key, edit }: &Change) -> Change {
    let edit = match edit {
        Edit::Put(fields) => Edit::Put(renewed(&key.0, fields)),
        Edit::Set(fields) => Edit::Set(renamed(&key.0, fields)),
        edit => edit.clone(),
    };
    Change { key: key.clone(), edit }
}

/// An operation as an app of a version writes it.
pub fn written(operation: Operation, version: u64) -> Operation {
    if version < SECOND {
        return operation;
    }
    let changes = operation.changes.iter().map(understood).collect();
    Operation { changes, ..operation }
}

/// Such an operation of somebody who does not leave the new field at what it is for records from before.
pub fn written_on_the_web(operation: Operation, version: u64) -> Operation {
    let mut operation = written(operation, version);
    for Change { key, edit } in operation.changes.iter_mut().filter(|_| version >= SECOND) {
        if let Edit::Put(fields) = edit
            && key.0 == NEW.0
        {
            fields.insert(NEW.1.to_owned(), Value::from("web"));
        }
    }
    operation
}
