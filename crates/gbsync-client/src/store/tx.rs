//! A write transaction, with the rules that the file is kept under.
//!
//! Rejected alternative: handing connection and schema down side by side; one of the many callers would pass none.

use super::Stamp;
use crate::schemas::{Schemas, ServerSchema};
use crate::tables::{Rules, Table};
use gbsync_core::id::Entity;
use rusqlite::Connection;
use std::cell::Cell;
use std::sync::Arc;

/// A write transaction. Commits and ends in [`super::Store::write`].
pub(crate) struct Tx<'t> {
    connection: &'t Connection,
    rules: Option<Arc<Rules>>,
    schemas: Schemas,
    stamp: Stamp,
    sealed: Cell<Option<i64>>,
    keeps_schemas: Cell<bool>,
}

impl<'t> Tx<'t> {
    /// Under the rules that the app brought, and the schema of the server where that is another one.
    pub(crate) fn new(connection: &'t Connection, rules: Option<Arc<Rules>>, server: ServerSchema) -> Self {
        let schemas = Schemas { app: rules.as_ref().map(|rules| rules.schema.clone()), server };
        let (sealed, keeps_schemas) = (Cell::new(None), Cell::new(true));
        Self { connection, rules, schemas, stamp: Stamp::default(), sealed, keeps_schemas }
    }

    /// On this content of the file.
    pub(super) fn at(self, stamp: Stamp) -> Self {
        Self { stamp, ..self }
    }

    /// The content that the transaction began on, but for what programs captured in it.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Notes that what the file says of schemas is another thing after this transaction.
    pub(super) fn note_schemas_changed(&self) {
        self.keeps_schemas.set(false);
    }

    pub(super) fn keeps_schemas(&self) -> bool {
        self.keeps_schemas.get()
    }

    /// The schemas that the device knows.
    pub(crate) fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    /// The table of a kind of record, if it has one.
    pub(crate) fn table(&self, entity: &Entity) -> Option<&Table> {
        self.rules.as_ref()?.tables.get(entity)
    }

    /// All tables of records.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.rules.iter().flat_map(|rules| rules.tables.values())
    }

    /// Notes that a group is sealed in this transaction.
    pub(crate) fn note_sealed(&self, local_no: i64) {
        self.sealed.set(Some(local_no));
    }

    /// The last group that was sealed in this transaction.
    pub(super) fn sealed(&self) -> Option<i64> {
        self.sealed.get()
    }
}

impl std::ops::Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}
