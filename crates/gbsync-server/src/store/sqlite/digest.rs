//! The digest of a space's rows, which must equal that of every device at the same cursor.

use super::open;
use super::row::{count, space as space_row};
use crate::error::ServerError;
use crate::store::StoreError;
use gbsync_core::digest::{Digest, RowsDigest};
use gbsync_core::id::{RecordKey, Seq, SpaceId};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

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

/// Digests a space's live records, from one committed state; works while a server runs on the folder.
///
/// # Errors
/// [`ServerError::NoStore`] and [`ServerError::NoSpace`]; [`ServerError::Store`] when the file cannot be read.
pub fn space_digest(data: &Path, space: &SpaceId) -> Result<SpaceDigest, ServerError> {
    let path = open::file(data);
    if !path.is_file() {
        return Err(ServerError::NoStore { path: data.into() });
    }
    open::prepare_read(&path)?;
    let connection = open::reader(&path, Duration::from_secs(5))?;
    let transaction = connection.unchecked_transaction().map_err(StoreError::from)?;
    rows(&transaction, space)?.ok_or_else(|| ServerError::NoSpace { space: space.to_string() })
}

fn rows(connection: &Connection, space: &SpaceId) -> Result<Option<SpaceDigest>, StoreError> {
    let Some((space_no, state)) = space_row(connection, space)? else { return Ok(None) };
    let mut statement = connection.prepare(
        "SELECT entity, id, version, payload FROM records WHERE space_no = ?1 AND payload IS NOT NULL ORDER BY entity, id",
    )?;
    let mut rows = statement.query([space_no])?;
    let mut digest = RowsDigest::default();
    let text = |error: rusqlite::types::FromSqlError| StoreError::Damaged(error.to_string());
    while let Some(row) = rows.next()? {
        let (entity, id) = (row.get_ref(0)?.as_str().map_err(text)?, row.get_ref(1)?.as_str().map_err(text)?);
        let key = RecordKey::new(entity, id).map_err(|error| StoreError::Damaged(error.to_string()))?;
        digest.add(&key, Seq(count(row, 2)?), row.get_ref(3)?.as_str().map_err(text)?);
    }
    let (records, digest) = digest.finish();
    Ok(Some(SpaceDigest { head: state.head, records, digest }))
}
