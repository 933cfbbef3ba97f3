//! Under which schema records are laid here: what the app brings, and what its server has.
//!
//! Groups are sealed in the app's names for ever. Rows of the base follow the server's schema, so what lies over them is laid
//! under the newer one of the two.
//!
//! Rejected alternative: laying under the app's schema alone; an old app over a newer server would patch fields that the
//! base no longer has, and show both.

use gbsync_core::change::{Change, Edit, Payload};
use gbsync_core::id::{Entity, RecordKey};
use gbsync_core::json::{self, Node, Value};
use gbsync_core::lay::{LayError, lay};
use gbsync_core::limits::PAYLOAD_DEPTH;
use gbsync_core::schema::{EntityRules, Field, OnConflict, Schema};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The schemas that a device knows. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schemas {
    pub(crate) app: Option<Arc<Schema>>,
    pub(crate) server: ServerSchema,
}

/// What is known of the server's schema.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerSchema {
    /// What it says, where it is another one than the app's.
    pub(crate) schema: Option<Arc<Schema>>,
    /// Its version at the last handshake; 0 for none.
    pub(crate) version: u64,
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
        match (&self.app, &self.server.schema) {
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
        let Some(schema) = self.effective().filter(|schema| version < schema.version) else { return Cow::Borrowed(changes) };
        let translated = |change: &Change| {
            let edit = schema.translate(&change.key.entity, &change.edit, version).into_owned();
            Change { key: change.key.clone(), edit, base: change.base.clone() }
        };
        Cow::Owned(changes.iter().map(translated).collect())
    }

    /// An edit made under `version` of the schema, in the names that operations are written in.
    pub(crate) fn rewritten<'e>(&self, key: &RecordKey, edit: &'e Edit, version: u64) -> Cow<'e, Edit> {
        match self.app().filter(|app| version < app.version) {
            Some(app) => app.translate(&key.entity, edit, version),
            None => Cow::Borrowed(edit),
        }
    }

    /// A confirmed record in the names that records are laid under: the log may not have brought it in those yet.
    pub(crate) fn renewed(&self, key: &RecordKey, payload: Option<Payload>) -> Option<Payload> {
        let (payload, schema) = (payload?, self.effective());
        let oldest = self.server.version.min(self.app_version());
        // A server that has no schema renames nothing.
        let Some(schema) = schema.filter(|schema| self.server.version > 0 && oldest < schema.version) else {
            return Some(payload);
        };
        Some(schema.translate_record(&key.entity, &payload, oldest).unwrap_or(payload))
    }

    /// A record in the names of the app, where its server has newer ones.
    pub(crate) fn in_apps_names<'p>(&self, entity: &Entity, payload: &'p str) -> Cow<'p, str> {
        let (Some(app), Some(server)) = (self.app(), self.server.schema.as_deref()) else { return Cow::Borrowed(payload) };
        if app.version >= server.version {
            return Cow::Borrowed(payload);
        }
        let (Some(old), Some(new)) = (app.entity(entity), server.entity(entity)) else { return Cow::Borrowed(payload) };
        let renamed = |(name, field): (&'_ String, &Field)| {
            let was = field.was.clone().filter(|was| old.fields.contains_key(was) && !old.fields.contains_key(name))?;
            Some((name.clone(), was))
        };
        let renamed: BTreeMap<String, String> = new.fields.iter().filter_map(renamed).collect();
        if renamed.is_empty() {
            return Cow::Borrowed(payload);
        }
        let Ok(mut node) = json::parse(payload.as_bytes(), PAYLOAD_DEPTH + 1) else { return Cow::Borrowed(payload) };
        let Value::Object(members) = &mut node.value else { return Cow::Borrowed(payload) };
        for place in 0..members.len() {
            if let Some(was) = renamed.get(&*members[place].0).filter(|was| members.iter().all(|(key, _)| key != *was)) {
                members[place].0 = Cow::Owned(was.clone());
            }
        }
        Cow::Owned(json::canonical(&Node::computed(node.value)))
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
        match self.effective().filter(|schema| version < schema.version) {
            Some(schema) => lay(&schema.translate(&key.entity, edit, version), state, schema.entity(&key.entity)),
            None => lay(edit, state, self.laying(&key.entity)),
        }
    }
}
