//! One committed state of a file, for administrators.

use super::open;
use super::row::{count, id, place, seq_at, space as space_row, stored};
use crate::error::ServerError;
use crate::store::{StoreError, Survey};
use gbsync_core::change::Payload;
use gbsync_core::id::{Entity, RecordId, RecordKey, Seq, SpaceId};
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::BTreeSet;
use std::path::Path;

/// Looks through the file of a folder, beside a running server.
pub(crate) fn survey<T>(
    data: &Path,
    look: impl FnOnce(&mut dyn Survey) -> Result<T, ServerError>,
) -> Result<T, ServerError> {
    let path = open::file(data);
    if !path.is_file() {
        return Err(ServerError::NoStore { path: data.into() });
    }
    let connection = open::prepare_read(&path)?;
    let transaction = connection.unchecked_transaction().map_err(StoreError::from)?;
    look(&mut SqliteSurvey { transaction })
}

struct SqliteSurvey<'c> {
    transaction: Transaction<'c>,
}

impl SqliteSurvey<'_> {
    fn space_no(&self, space: &SpaceId) -> Result<i64, StoreError> {
        let row = space_row(&self.transaction, space)?;
        row.map(|(space_no, _)| space_no).ok_or_else(|| StoreError::Damaged("a space vanished inside a transaction".into()))
    }
}

impl Survey for SqliteSurvey<'_> {
    fn spaces(&mut self) -> Result<BTreeSet<SpaceId>, StoreError> {
        let mut statement = self.transaction.prepare_cached("SELECT space FROM spaces")?;
        let mut rows = statement.query([])?;
        let mut spaces = BTreeSet::new();
        while let Some(row) = rows.next()? {
            spaces.insert(id(row, 0, SpaceId::new)?);
        }
        Ok(spaces)
    }

    fn schema(&mut self) -> Result<Option<String>, StoreError> {
        let mut statement =
            self.transaction.prepare_cached("SELECT text FROM schemas WHERE in_force ORDER BY version DESC LIMIT 1")?;
        Ok(statement.query_row([], |row| row.get(0)).optional()?)
    }

    fn head(&mut self, space: &SpaceId) -> Result<Option<Seq>, StoreError> {
        Ok(space_row(&self.transaction, space)?.map(|(_, state)| state.head))
    }

    fn records(
        &mut self,
        space: &SpaceId,
        entity: Option<&Entity>,
        after: Option<&RecordKey>,
        most: u64,
    ) -> Result<Vec<(RecordKey, Seq, Payload)>, StoreError> {
        let space_no = self.space_no(space)?;
        let within = if entity.is_some() { "AND entity = ?2" } else { "" };
        let mut statement = self.transaction.prepare_cached(&format!(
            "SELECT entity, id, version, payload FROM records
              WHERE space_no = ?1 AND (entity, id) > (?2, ?3) {within} AND payload IS NOT NULL ORDER BY entity, id LIMIT ?4"
        ))?;
        let after_entity = after.map(|key| key.entity.as_str()).or(entity.map(Entity::as_str)).unwrap_or_default();
        let after_id = after.map(|key| key.id.as_str()).unwrap_or_default();
        let mut rows = statement.query(params![space_no, after_entity, after_id, stored(most)])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let key = RecordKey { entity: id(row, 0, Entity::new)?, id: id(row, 1, RecordId::new)? };
            records.push((key, Seq(count(row, 2)?), Payload::from_stored(row.get::<_, Box<str>>(3)?)));
        }
        Ok(records)
    }

    fn deleted(&mut self, space: &SpaceId, keys: &[RecordKey]) -> Result<Vec<Option<bool>>, StoreError> {
        let space_no = self.space_no(space)?;
        let mut statement = self
            .transaction
            .prepare_cached("SELECT payload IS NULL FROM records WHERE space_no = ?1 AND entity = ?2 AND id = ?3")?;
        let mut is_deleted = |key: &RecordKey| {
            statement.query_row(params![space_no, key.entity.as_str(), key.id.as_str()], |row| row.get(0)).optional()
        };
        Ok(keys.iter().map(&mut is_deleted).collect::<Result<_, _>>()?)
    }

    fn entries(&mut self, space: &SpaceId, after: Seq, most: u64) -> Result<Vec<(Seq, String)>, StoreError> {
        let space_no = self.space_no(space)?;
        let mut statement = self
            .transaction
            .prepare_cached("SELECT place, entry FROM log WHERE place > ?1 AND place < ?2 ORDER BY place LIMIT ?3")?;
        let (from, to) = (place(space_no, after)?, place(space_no + 1, Seq(0))?);
        let entries = statement.query_map([from, to, stored(most)], |row| Ok((seq_at(row.get(0)?), row.get(1)?)))?;
        Ok(entries.collect::<Result<_, _>>()?)
    }

    fn entry_part(&mut self, space: &SpaceId, seq: Seq, part: u64) -> Result<Option<String>, StoreError> {
        let space_no = self.space_no(space)?;
        let mut statement = self.transaction.prepare_cached("SELECT body FROM log_parts WHERE place = ?1 AND part = ?2")?;
        Ok(statement.query_row([place(space_no, seq)?, stored(part)], |row| row.get(0)).optional()?)
    }
}
