//! The schema that the server decides by: read by every transaction and by routes, replaced while the server runs.
//!
//! Invariant: it is the one that the store holds; it is put in place after the COMMIT that stored it, between two
//! transactions of the one writer, so that no group is decided on half of it.

use crate::error::ServerError;
use crate::store::{SqliteStore, Store};
use gbsync_core::schema::Schema;
use std::sync::{Arc, PoisonError, RwLock};

/// A schema that is in force.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) schema: Schema,
}

/// The schema in force, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    current: RwLock<Option<Arc<InForce>>>,
}

impl Rules {
    pub(crate) fn new(current: Option<Arc<InForce>>) -> Self {
        Self { current: RwLock::new(current) }
    }

    pub(crate) fn current(&self) -> Option<Arc<InForce>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its version; 0 without one.
    pub(crate) fn version(&self) -> u64 {
        self.current().map_or(0, |rules| rules.schema.version)
    }
}

/// Puts a schema in force before anything is served.
pub(crate) fn open(store: &SqliteStore, schema: Option<Schema>) -> Result<Rules, ServerError> {
    let Some(schema) = schema else { return Ok(Rules::new(None)) };
    let mut writer = store.writer()?;
    writer.begin()?;
    writer.rebuild_index(&schema)?;
    writer.commit()?;
    Ok(Rules::new(Some(Arc::new(InForce { schema }))))
}
