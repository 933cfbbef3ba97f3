//! Everything a store holds, for administrators: read from one committed state, a few rows at a time, beside running servers.

use super::{StoreError, StoreLocation};
use crate::error::ServerError;
use gbsync_core::change::Payload;
use gbsync_core::digest::{Digest, RowsDigest};
use gbsync_core::id::{Entity, RecordKey, Seq, SpaceId};
use std::collections::BTreeSet;

/// Records asked for at a time.
const RECORDS: u64 = 64;

/// Live records with their versions, in key order.
pub(crate) type Records = Vec<(RecordKey, Seq, Payload)>;

/// One committed state of a store.
pub(crate) trait Survey {
    /// Every space.
    fn spaces(&mut self) -> Result<BTreeSet<SpaceId>, StoreError>;
    /// The text of the schema in force.
    fn schema(&mut self) -> Result<Option<String>, StoreError>;
    /// The last `seq` of a space's log; `None` when there is no such space.
    fn head(&mut self, space: &SpaceId) -> Result<Option<Seq>, StoreError>;
    /// Live records behind a key in key order, of one entity or of all.
    fn records(
        &mut self,
        space: &SpaceId,
        entity: Option<&Entity>,
        after: Option<&RecordKey>,
        most: u64,
    ) -> Result<Records, StoreError>;
    /// Of each record whether it was deleted; `None` when it never was.
    fn deleted(&mut self, space: &SpaceId, keys: &[RecordKey]) -> Result<Vec<Option<bool>>, StoreError>;
    /// Entries of the log behind a place.
    fn entries(&mut self, space: &SpaceId, after: Seq, most: u64) -> Result<Vec<(Seq, String)>, StoreError>;
    /// A part of an entry whose changes are stored beside it.
    fn entry_part(&mut self, space: &SpaceId, seq: Seq, part: u64) -> Result<Option<String>, StoreError>;
}

/// Hands every live record to `take`, in key order.
pub(super) fn each_record(
    survey: &mut dyn Survey,
    space: &SpaceId,
    entity: Option<&Entity>,
    take: &mut dyn FnMut(&mut dyn Survey, Records) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after: Option<RecordKey> = None;
    loop {
        let records = survey.records(space, entity, after.as_ref(), RECORDS)?;
        let Some((last, ..)) = records.last() else { return Ok(()) };
        after = Some(last.clone());
        take(survey, records)?;
    }
}

/// What a space holds, in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceDigest {
    /// The last `seq` of its log.
    pub head: Seq,
    /// Its live records.
    pub records: u64,
    /// Their digest (docs/protocol.md, "Digests").
    pub digest: Digest,
}

/// Digests a space's live records, from one committed state; works while servers run on the store.
///
/// # Errors
/// [`ServerError::NoStore`] and [`ServerError::NoSpace`]; [`ServerError::Store`] when the store cannot be read.
pub fn space_digest(store: impl Into<StoreLocation>, space: &SpaceId) -> Result<SpaceDigest, ServerError> {
    store.into().survey(|survey| {
        let head = survey.head(space)?.ok_or_else(|| ServerError::NoSpace { space: space.to_string() })?;
        let mut digest = RowsDigest::default();
        each_record(survey, space, None, &mut |_, records| {
            for (key, version, payload) in records {
                digest.add(&key, version, payload.as_str());
            }
            Ok(())
        })?;
        let (records, digest) = digest.finish();
        Ok(SpaceDigest { head, records, digest })
    })
}
