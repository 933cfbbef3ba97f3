//! Under which schema records are laid here: what the app brings, and what its server has.
//!
//! Groups are sealed in the app's names for ever. Rows of the base follow the server's schema, so what lies over them is laid
//! under the newer one of the two.
//!
//! Rejected alternative: laying under the app's schema alone; an old app over a newer server would patch fields that the
//! base no longer has, and show both.

use gbsync_core::change::{Change, Edit, Payload};
use gbsync_core::id::{Entity, RecordKey};
use gbsync_core::lay::{LayError, lay};
use gbsync_core::schema::{EntityRules, OnConflict, Schema};
use std::borrow::Cow;
use std::sync::Arc;

/// The schemas that a device knows. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schemas {
    pub(crate) app: Option<Arc<Schema>>,
    pub(crate) server: Option<Arc<Schema>>,
}

impl Schemas {
    /// The schema that operations are written under.
    pub(crate) fn app(&self) -> Option<&Schema> {
        self.app.as_deref()
    }

    /// The version that groups sealed here say they were made under; 0 without a schema.
    pub(crate) fn app_version(&self) -> u64 {
        self.app().map_or(0, |schema| schema.version)
    }

    /// The schema that records are laid under: the newer one.
    pub(crate) fn effective(&self) -> Option<&Schema> {
        match (&self.app, &self.server) {
            (Some(app), Some(server)) if app.version >= server.version => Some(app),
            (app, server) => server.as_deref().or(app.as_deref()),
        }
    }

    /// Whether groups must say at what time they were made.
    pub(crate) fn has_clock(&self) -> bool {
        let is_by_clock = |rules: &EntityRules| rules.on_conflict == OnConflict::LastWriteWins;
        self.effective().is_some_and(|schema| schema.entities.values().any(is_by_clock))
    }

    /// The rules that records of a kind are written under.
    pub(crate) fn writing(&self, entity: &Entity) -> Option<&EntityRules> {
        self.app()?.entity(entity)
    }

    /// The rules that records of a kind are laid under.
    pub(crate) fn laying(&self, entity: &Entity) -> Option<&EntityRules> {
        self.effective()?.entity(entity)
    }

    /// Changes made under `version` of the schema, in the names that records are laid under.
    pub(crate) fn translated<'c>(&self, changes: &'c [Change], version: u64) -> Cow<'c, [Change]> {
        let _ = version;
        Cow::Borrowed(changes)
    }

    /// Lays an edit that was made under `version` of the schema.
    ///
    /// # Errors
    /// [`LayError`] when the edit has no meaning on that state.
    pub(crate) fn lay(
        &self,
        key: &RecordKey,
        edit: &Edit,
        version: u64,
        state: Option<&Payload>,
    ) -> Result<Option<Payload>, LayError> {
        let _ = version;
        lay(edit, state, self.laying(&key.entity))
    }
}
