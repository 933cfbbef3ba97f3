//! What the store keeps of schemas, and how records are brought to another one: step by step, each step one transaction in
//! one space, so that a crash in the middle goes on where it was and no transaction grows with the data.

use super::{SpaceState, StoreError};
use gbsync_core::decide::Record;
use gbsync_core::id::{Entity, RecordKey, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_core::time::Timestamp;
use std::collections::BTreeSet;

/// A schema as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSchema {
    pub(crate) version: u64,
    /// Its canonical JSON.
    pub(crate) text: String,
    pub(crate) since: Timestamp,
    /// Whether every space was brought to it.
    pub(crate) is_in_force: bool,
}

/// Which schema a transaction found in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SchemaMark {
    /// The newest that was stored; 0 without any.
    pub(crate) latest: u64,
    /// The newest to which every space was brought; 0 without any.
    pub(crate) in_force: u64,
}

impl SchemaMark {
    /// Whether the schema of this version is in force, and no other about to be.
    pub(crate) fn is(self, version: u64) -> bool {
        self == Self { latest: version, in_force: version }
    }
}

/// What is to be done next in bringing a store to another schema.
#[derive(Debug)]
pub(crate) struct UpgradeStep {
    pub(crate) space: SpaceId,
    pub(crate) state: SpaceState,
    /// Live records in key order; none when the space has no more.
    pub(crate) records: Vec<(RecordKey, Record)>,
}

/// The part of the one writer that serves schemas; between `begin` and `commit`, like everything it does.
pub(crate) trait SchemaWriter {
    /// Keeps other processes from putting a schema in force until [`SchemaWriter::release`] or the writer's end. Outside any
    /// transaction, as its counterpart.
    fn reserve(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Lets other processes put a schema in force.
    fn release(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Every schema that was stored, by version. All but the last were in force.
    fn schemas(&mut self) -> Result<Vec<StoredSchema>, StoreError>;
    /// Stores a schema that records are to be brought to.
    fn propose(&mut self, schema: &StoredSchema) -> Result<(), StoreError>;
    /// The next records of these entities in a space that was not brought to this version; `None` when all were. At least
    /// one record, then no more than so many bytes of them, each counted as so many more than its payload.
    fn next_step(
        &mut self,
        version: u64,
        entities: &BTreeSet<Entity>,
        bytes: (u64, u64),
    ) -> Result<Option<UpgradeStep>, StoreError>;
    /// Notes that a space was brought to this version up to a record, or, with `None`, entirely.
    fn advance(&mut self, space: &SpaceId, version: u64, to: Option<&RecordKey>) -> Result<(), StoreError>;
    /// Builds the index lists of these entities anew by this schema, and empties those of entities that it has not; how
    /// many values that must be unique several records have.
    fn rebuild_index(&mut self, space: &SpaceId, schema: &Schema, entities: &BTreeSet<Entity>) -> Result<u64, StoreError>;
    /// Notes that every space was brought to this version.
    fn put_in_force(&mut self, version: u64) -> Result<(), StoreError>;
}
