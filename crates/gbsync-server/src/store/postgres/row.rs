//! Between columns and the types that code uses. Data that cannot have been stored is an error, never a panic.

use crate::store::{Decided, DecidedAs, SpaceState, StoreError, kept, lineage, sighted};
use gbsync_core::change::Payload;
use gbsync_core::decide::{Marks, Record};
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, InvalidId, LogId, Seq};
use gbsync_core::time::Timestamp;
use tokio_postgres::Row;

/// A number as PostgreSQL stores it. Numbers of the protocol are below 2^53.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).expect("numbers of the protocol are below 2^53")
}

/// A number that was stored.
pub(super) fn count(row: &Row, column: usize) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| StoreError::Damaged(format!("a count is {number}")))
}

/// A number that may be NULL.
pub(super) fn optional_count(row: &Row, column: usize) -> Result<Option<u64>, StoreError> {
    let number: Option<i64> = row.try_get(column)?;
    number.map(|_| count(row, column)).transpose()
}

/// An id that was stored.
pub(super) fn id<T>(row: &Row, column: usize, new: impl Fn(Box<str>) -> Result<T, InvalidId>) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    new(text.into()).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// An id that may be NULL.
pub(super) fn optional_id<T>(
    row: &Row,
    column: usize,
    new: impl Fn(Box<str>) -> Result<T, InvalidId>,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| new(text.into()).map_err(|error| StoreError::Damaged(error.to_string()))).transpose()
}

/// A digest that was stored.
pub(super) fn digest(row: &Row, column: usize) -> Result<Digest, StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    Digest::from_bytes(bytes).ok_or_else(|| StoreError::Damaged("a digest has not 32 bytes".into()))
}

/// A time that may be NULL.
pub(super) fn time(row: &Row, column: usize) -> Result<Option<Timestamp>, StoreError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| Timestamp::new(text).map_err(|error| StoreError::Damaged(error.to_string()))).transpose()
}

/// A space's number in this store and where its log stands: space_no, log, head, chain, horizon, its chain, ancestors.
pub(super) fn space(row: &Row) -> Result<(i64, SpaceState), StoreError> {
    let state = SpaceState {
        log: id(row, 1, LogId::new)?,
        head: Seq(count(row, 2)?),
        chain: digest(row, 3)?,
        horizon: Seq(count(row, 4)?),
        horizon_chain: digest(row, 5)?,
        ancestors: lineage::from_json(row.try_get(6)?)?,
    };
    Ok((row.try_get(0)?, state))
}

/// What was decided of a group, from four columns: digest, seq, flags, result of its rejection.
pub(super) fn decided(group: &GroupId, row: &Row, column: usize) -> Result<Decided, StoreError> {
    let has_digest = row.try_get::<_, Option<&[u8]>>(column)?.is_some();
    let digest = has_digest.then(|| digest(row, column)).transpose()?;
    let outcome = match optional_count(row, column + 1)? {
        Some(seq) => DecidedAs::Accepted { seq: Seq(seq), flags: kept::flags(row.try_get(column + 2)?)? },
        None => DecidedAs::Rejected(Box::new(kept::rejection(group, row.try_get(column + 3)?)?)),
    };
    Ok(Decided { digest, outcome })
}

/// A record, from five columns: version, edit version, payload, marks, scopes.
pub(super) fn record(row: &Row, column: usize) -> Result<Record, StoreError> {
    let (payload, marks): (Option<&str>, Option<&str>) = (row.try_get(column + 2)?, row.try_get(column + 3)?);
    let marks = marks.map(|text| Marks::parse(text).map_err(|error| StoreError::Damaged(format!("marks: {error}"))));
    Ok(Record {
        version: Seq(count(row, column)?),
        edit_version: Seq(count(row, column + 1)?),
        payload: payload.map(|text| Payload::from_stored(Box::<str>::from(text))),
        marks: marks.transpose()?.map(Box::new),
        reach: sighted::reach(row.try_get(column + 4)?)?,
    })
}
