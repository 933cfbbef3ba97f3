//! A write transaction, with the schemas that the device knows.
//!
//! Rejected alternative: handing connection and schema down side by side; one of the many callers would pass none.

use crate::schemas::Schemas;
use rusqlite::Connection;
use std::cell::Cell;

/// A write transaction. Commits and ends in [`super::Store::write`].
pub(crate) struct Tx<'t> {
    connection: &'t Connection,
    schemas: Schemas,
    sealed: Cell<Option<i64>>,
}

impl<'t> Tx<'t> {
    pub(super) fn new(connection: &'t Connection, schemas: Schemas) -> Self {
        Self { connection, schemas, sealed: Cell::new(None) }
    }

    /// The schemas that the device knows.
    pub(crate) fn schemas(&self) -> &Schemas {
        &self.schemas
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
