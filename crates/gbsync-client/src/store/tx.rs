//! A write transaction, with the rules that the file is kept under.
//!
//! Rejected alternative: handing connection and schema down side by side; one of the many callers would pass none.

use gbsync_core::id::Entity;
use gbsync_core::schema::{EntityRules, Schema};
use rusqlite::Connection;
use std::sync::Arc;

/// A write transaction. Commits and ends in [`super::Store::write`].
pub(crate) struct Tx<'t> {
    connection: &'t Connection,
    schema: Option<Arc<Schema>>,
}

impl<'t> Tx<'t> {
    pub(super) fn new(connection: &'t Connection, schema: Option<Arc<Schema>>) -> Self {
        Self { connection, schema }
    }

    /// The rules of a kind of record, if there are any.
    pub(crate) fn rules(&self, entity: &Entity) -> Option<&EntityRules> {
        self.schema.as_ref()?.entity(entity)
    }
}

impl std::ops::Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}
