//! Three ways to write one operation: a line of an operations file, the library, plain SQL.

use gbsync_client::{Client, Operation};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use serde_json::{Value, json};

/// Writes the parts of one operation.
pub trait Hand {
    /// What a receipt costs in the state that the operation is made on; `None` when it is not there.
    fn total(&mut self, receipt: &str) -> Result<Option<String>, String>;
    /// The payments of a receipt.
    fn payments(&mut self, receipt: &str) -> Result<Vec<String>, String>;
    fn upsert(&mut self, entity: &str, id: &str, payload: &Value) -> Result<(), String>;
    fn patch(&mut self, entity: &str, id: &str, payload: &Value) -> Result<(), String>;
    fn increment(&mut self, entity: &str, id: &str, deltas: &Value) -> Result<(), String>;
    fn delete(&mut self, entity: &str, id: &str) -> Result<(), String>;
}

/// The changes of a line for `gbsync apply`. It looks at nothing.
#[derive(Default)]
pub struct LineHand(pub Vec<Value>);

impl LineHand {
    fn add(&mut self, action: &str, entity: &str, id: &str, payload: &Value) -> Result<(), String> {
        self.0.push(json!({ "entity": entity, "id": id, "action": action, "payload": payload }));
        Ok(())
    }
}

impl Hand for LineHand {
    fn total(&mut self, _: &str) -> Result<Option<String>, String> {
        Ok(Some(String::new()))
    }

    fn payments(&mut self, _: &str) -> Result<Vec<String>, String> {
        Err("a line looks at nothing".into())
    }

    fn upsert(&mut self, entity: &str, id: &str, payload: &Value) -> Result<(), String> {
        self.add("upsert", entity, id, payload)
    }

    fn patch(&mut self, entity: &str, id: &str, payload: &Value) -> Result<(), String> {
        self.add("patch", entity, id, payload)
    }

    fn increment(&mut self, entity: &str, id: &str, deltas: &Value) -> Result<(), String> {
        self.add("increment", entity, id, deltas)
    }

    fn delete(&mut self, _: &str, _: &str) -> Result<(), String> {
        Err("a line looks at nothing, so it does not know what to delete".into())
    }
}

/// An operation of the library.
pub struct LibraryHand<'a> {
    pub client: &'a Client,
    pub operation: &'a mut Operation,
}

impl Hand for LibraryHand<'_> {
    fn total(&mut self, receipt: &str) -> Result<Option<String>, String> {
        let Some(payload) = self.operation.read("receipts", receipt).map_err(text)? else { return Ok(None) };
        let payload: Value = serde_json::from_str(payload.as_str()).map_err(text)?;
        Ok(payload["total"].as_str().map(str::to_owned))
    }

    fn payments(&mut self, receipt: &str) -> Result<Vec<String>, String> {
        let sql = "SELECT id FROM gbsync_records WHERE entity = 'payments' AND payload ->> 'receiptId' = ?1";
        let read = |connection: &Connection| {
            let mut statement = connection.prepare(sql)?;
            statement.query_map([receipt], |row| row.get(0))?.collect()
        };
        self.client.with_reader(read).map_err(text)
    }

    fn upsert(&mut self, entity: &str, id: &str, payload: &Value) -> Result<(), String> {
        self.operation.upsert(entity, id, payload).map_err(text)
    }

    fn patch(&mut self, entity: &str, id: &str, payload: &Value) -> Result<(), String> {
        self.operation.patch(entity, id, payload).map_err(text)
    }

    fn increment(&mut self, entity: &str, id: &str, deltas: &Value) -> Result<(), String> {
        self.operation.increment(entity, id, deltas).map_err(text)
    }

    fn delete(&mut self, entity: &str, id: &str) -> Result<(), String> {
        self.operation.delete(entity, id).map_err(text)
    }
}

/// Statements on the typed tables, inside a transaction with an open bracket.
pub struct SqlHand<'a>(pub &'a Connection);

impl SqlHand<'_> {
    fn update(&mut self, entity: &str, id: &str, members: &Value, set: fn(&str) -> String) -> Result<(), String> {
        let (columns, mut values) = columns(members);
        let set: Vec<String> = columns.iter().map(|column| set(column)).collect();
        values.push(SqlValue::Text(id.to_owned()));
        let sql = format!("UPDATE {entity} SET {} WHERE id = ?", set.join(", "));
        match self.0.execute(&sql, params_from_iter(values)).map_err(text)? {
            1 => Ok(()),
            _ => Err(format!("{entity}:{id} is not there")),
        }
    }
}

impl Hand for SqlHand<'_> {
    fn total(&mut self, receipt: &str) -> Result<Option<String>, String> {
        let sql = "SELECT total FROM receipts WHERE id = ?1";
        self.0.query_row(sql, params![receipt], |row| row.get(0)).optional().map_err(text)
    }

    fn payments(&mut self, receipt: &str) -> Result<Vec<String>, String> {
        let mut statement = self.0.prepare("SELECT id FROM payments WHERE receiptId = ?1").map_err(text)?;
        let ids = statement.query_map([receipt], |row| row.get(0)).map_err(text)?;
        ids.collect::<Result<_, _>>().map_err(text)
    }

    fn upsert(&mut self, entity: &str, id: &str, payload: &Value) -> Result<(), String> {
        let (columns, mut values) = columns(payload);
        values.push(SqlValue::Text(id.to_owned()));
        let places = vec!["?"; values.len()].join(", ");
        let sql = format!("INSERT INTO {entity}({}, id) VALUES ({places})", columns.join(", "));
        self.0.execute(&sql, params_from_iter(values)).map(|_| ()).map_err(text)
    }

    fn patch(&mut self, entity: &str, id: &str, payload: &Value) -> Result<(), String> {
        self.update(entity, id, payload, |column| format!("{column} = ?"))
    }

    fn increment(&mut self, entity: &str, id: &str, deltas: &Value) -> Result<(), String> {
        self.update(entity, id, deltas, |column| format!("{column} = {column} + ?"))
    }

    fn delete(&mut self, entity: &str, id: &str) -> Result<(), String> {
        self.0.execute(&format!("DELETE FROM {entity} WHERE id = ?1"), [id]).map(|_| ()).map_err(text)
    }
}

fn columns(members: &Value) -> (Vec<String>, Vec<SqlValue>) {
    let members = members.as_object().unwrap();
    let value = |value: &Value| match value {
        Value::Number(number) => SqlValue::Integer(number.as_i64().unwrap()),
        other => SqlValue::Text(other.as_str().unwrap().to_owned()),
    };
    members.iter().map(|(name, member)| (name.clone(), value(member))).unzip()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
