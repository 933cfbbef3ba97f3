//! The SQL face: a real table an entity of the schema, with typed columns, that shows what the user sees.
//!
//! Invariant: a table holds exactly the local view of its entity (base and overlay, hidden groups left out), as far as its
//! columns can say it. `gbsync_base` and `gbsync_overlay` stay the truth; every change of theirs ends in [`write()`], inside
//! the same transaction.
//!
//! Rejected alternative: views over the JSON. An ORM cannot write them, and an index over a computed member of a view of two
//! tables does not exist.

mod adopt;
mod ddl;
mod decimal;
mod plan;
mod project;
mod shadow;
mod triggers;

pub(crate) use adopt::{adopt, refill, reload};
pub(crate) use decimal::from_minor;
pub(crate) use plan::{Column, Table};
pub(crate) use shadow::{ByName, Follower, are_there, exchange, fill, forget, has_old, put_aside, sweep};

use crate::error::Error;
use crate::store::Tx;
use gbsync_core::change::Payload;
use gbsync_core::id::{Entity, RecordKey};
use gbsync_core::schema::Schema;
use rusqlite::{CachedStatement, Statement, params};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rules that a file is kept under, and the tables that they make.
pub(crate) struct Rules {
    pub(crate) schema: Arc<Schema>,
    pub(crate) tables: BTreeMap<Entity, Table>,
    /// Whether the program brought them. It does not follow when another one gives the file newer ones.
    pub(crate) are_brought: bool,
}

impl Rules {
    pub(crate) fn new(schema: Schema, are_brought: bool) -> Result<Self, Error> {
        let tables = schema.entities.iter().map(|(entity, rules)| (entity.clone(), Table::of(entity, rules)));
        let tables: BTreeMap<_, _> = tables.collect();
        plan::check_names(&tables)?;
        Ok(Self { schema: Arc::new(schema), tables, are_brought })
    }
}

/// Makes a record's row what the local view shows of the record; `None` when it is not there.
pub(crate) fn write(tx: &Tx<'_>, key: &RecordKey, payload: Option<&str>) -> Result<(), Error> {
    let Some(table) = tx.table(&key.entity) else { return Ok(()) };
    let Some(payload) = payload else {
        tx.prepare_cached(&table.delete)?.execute([key.id.as_str()])?;
        return Ok(());
    };
    let mut statement = tx.prepare_cached(&table.upsert)?;
    upsert(tx, &mut statement, table, key, payload)
}

/// Writes the rows of many records: each table's statement is looked up once.
pub(crate) struct Writer<'t> {
    tx: &'t Tx<'t>,
    upserts: BTreeMap<Entity, CachedStatement<'t>>,
}

impl<'t> Writer<'t> {
    pub(crate) fn new(tx: &'t Tx<'t>) -> Self {
        Self { tx, upserts: BTreeMap::new() }
    }

    /// As [`write()`].
    pub(crate) fn write(&mut self, key: &RecordKey, payload: Option<&str>) -> Result<(), Error> {
        let (Some(payload), Some(table)) = (payload, self.tx.table(&key.entity)) else {
            return write(self.tx, key, payload);
        };
        if !self.upserts.contains_key(&key.entity) {
            self.upserts.insert(key.entity.clone(), self.tx.prepare_cached(&table.upsert)?);
        }
        let statement = self.upserts.get_mut(&key.entity).expect("inserted above");
        upsert(self.tx, statement, table, key, payload)
    }
}

fn upsert(tx: &Tx<'_>, statement: &mut Statement<'_>, table: &Table, key: &RecordKey, payload: &str) -> Result<(), Error> {
    statement.raw_bind_parameter(1, key.id.as_str())?;
    project::bind(statement, 2, table, &tx.schemas().in_apps_names(&key.entity, payload))?;
    statement.raw_execute()?;
    Ok(())
}

/// Keeps a record as a group left it that is parked now, for `{entity}_all`.
pub(crate) fn keep_refused(tx: &Tx<'_>, local_no: i64, key: &RecordKey, payload: Option<&Payload>) -> Result<(), Error> {
    let Some(payload) = payload else { return Ok(()) };
    let sql = "INSERT INTO gbsync_refused_row(local_no, entity, id, payload) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT DO UPDATE SET payload = ?4";
    tx.prepare_cached(sql)?.execute(params![local_no, key.entity.as_str(), key.id.as_str(), payload.as_str()])?;
    write_refused(tx, local_no, key, payload)
}

fn write_refused(tx: &Tx<'_>, local_no: i64, key: &RecordKey, payload: &Payload) -> Result<(), Error> {
    let Some(table) = tx.table(&key.entity) else { return Ok(()) };
    let mut statement = tx.prepare_cached(&table.refuse)?;
    statement.raw_bind_parameter(1, local_no)?;
    statement.raw_bind_parameter(2, key.id.as_str())?;
    project::bind(&mut statement, 3, table, &tx.schemas().in_apps_names(&key.entity, payload.as_str()))?;
    statement.raw_execute()?;
    Ok(())
}

/// Forgets the rows of groups that are no longer parked.
pub(crate) fn sweep_refused(tx: &Tx<'_>) -> Result<(), Error> {
    const OVER: &str = "local_no NOT IN (SELECT local_no FROM gbsync_outbox WHERE state = 'parked')";
    tx.prepare_cached(&format!("DELETE FROM gbsync_refused_row WHERE {OVER}"))?.execute([])?;
    for table in tx.tables() {
        tx.prepare_cached(&format!("DELETE FROM {} WHERE {OVER}", table.refused))?.execute([])?;
    }
    Ok(())
}
