//! The schema that the server decides by: read by every transaction and by routes, replaced while the server runs.
//!
//! Invariant: it is the one that the store holds; it is put in place after the COMMIT that put it in force, between two
//! transactions of the one writer, so that no group is decided on half of it.

mod adopt;
mod upgrade;

pub(crate) use adopt::Adoption;

use crate::config::Environment;
use crate::error::ServerError;
use crate::store::{Store, StoreError};
use gbsync_core::id::SpaceId;
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use std::sync::{Arc, PoisonError, RwLock};

/// A schema that is in force.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) schema: Schema,
    /// Its canonical JSON, as it is kept and served.
    pub(crate) text: String,
    pub(crate) since: Timestamp,
}

/// The schema in force, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    current: RwLock<Option<Arc<InForce>>>,
}

impl Rules {
    /// What the store keeps, or `given` if that is newer: put in force before anything is served.
    pub(crate) fn open(
        store: &dyn Store,
        given: Option<&Schema>,
        environment: &Environment,
        limits: &Limits,
    ) -> Result<Self, ServerError> {
        let mut writer = store.writer()?;
        let told = &mut |space: &SpaceId, head| store.announce(space, head);
        let mut adoption = Adoption { writer: writer.as_mut(), environment, limits, told };
        Ok(Self { current: RwLock::new(adoption.run(given)?) })
    }

    pub(crate) fn current(&self) -> Option<Arc<InForce>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up what another process has put in force.
    pub(crate) fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        let stored = store.schema()?;
        let is_known = |rules: &InForce| stored.as_ref().is_some_and(|stored| stored.text == rules.text);
        if self.current().as_deref().map_or(stored.is_none(), is_known) {
            return Ok(());
        }
        let read = stored.as_ref().map(adopt::read).transpose()?;
        self.replace(read.map(Arc::new));
        Ok(())
    }

    /// From the next transaction on this is in force.
    pub(crate) fn replace(&self, rules: Option<Arc<InForce>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }
}
