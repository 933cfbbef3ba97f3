//! `index_entries`: which records refer to which, and which hold a unique value.

use super::flight::Outgoing;
use crate::store::StoreError;
use deadpool_postgres::ClientWrapper;
use gbsync_core::decide::{IndexKey, IndexMoves};
use sha2::{Digest as _, Sha256};

const JOIN: &str = "
INSERT INTO index_entries (space_no, entity, list, id, is_unique)
SELECT $1, w.entity, w.list, w.id, w.is_unique FROM unnest($2::text[], $3::bytea[], $4::text[], $5::boolean[]) AS w(entity, list, id, is_unique)
ON CONFLICT DO NOTHING";

const LEAVE: &str = "
DELETE FROM index_entries AS i
 USING unnest($2::text[], $3::bytea[], $4::text[]) AS w(entity, list, id)
 CROSS JOIN LATERAL (SELECT ctid FROM index_entries WHERE space_no = $1 AND entity = w.entity AND list = w.list AND id = w.id
                     OFFSET 0) AS at
 WHERE i.ctid = at.ctid";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[JOIN, LEAVE];

/// What stands for a list in a key: a value may be larger than an index takes.
pub(super) fn list_of(key: &IndexKey) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(key.fields.as_bytes());
    hash.update([0]);
    hash.update(key.value.as_bytes());
    hash.finalize().to_vec()
}

/// Entries of lists, side by side.
#[derive(Default)]
pub(super) struct Entries<'k> {
    entities: Vec<&'k str>,
    lists: Vec<Vec<u8>>,
    ids: Vec<&'k str>,
    are_unique: Vec<bool>,
}

impl<'k> Entries<'k> {
    pub(super) fn add(&mut self, key: &'k IndexKey, id: &'k str) {
        self.entities.push(key.entity.as_str());
        self.lists.push(list_of(key));
        self.ids.push(id);
        self.are_unique.push(key.value.starts_with('['));
    }

    /// Puts them on their lists.
    pub(super) async fn join(&self, client: &ClientWrapper, space_no: i64) -> Result<(), StoreError> {
        let join = client.prepare_cached(JOIN).await?;
        client.execute(&join, &[&space_no, &self.entities, &self.lists, &self.ids, &self.are_unique]).await?;
        Ok(())
    }
}

/// Writes what joined (`true`) and left lists.
pub(super) fn write<'w>(outgoing: &mut Outgoing<'w>, moved: &'w IndexMoves) {
    let (mut joined, mut left) = (Entries::default(), Entries::default());
    for (key, ids) in moved {
        for (id, is_added) in ids {
            let entries = if *is_added { &mut joined } else { &mut left };
            entries.add(key, id.as_str());
        }
    }
    if !left.ids.is_empty() {
        outgoing.add(LEAVE, vec![Box::new(left.entities), Box::new(left.lists), Box::new(left.ids)]);
    }
    if !joined.ids.is_empty() {
        let Entries { entities, lists, ids, are_unique } = joined;
        outgoing.add(JOIN, vec![Box::new(entities), Box::new(lists), Box::new(ids), Box::new(are_unique)]);
    }
}
