//! Between stored columns and the types that code uses. Data that cannot have been stored is an error, never a panic.

use crate::store::{Decided, DecidedAs, SpaceState, StoreError, kept, lineage, sighted};
use gbsync_core::change::Payload;
use gbsync_core::decide::{Marks, Record};
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, InvalidId, LogId, Seq, SpaceId};
use gbsync_core::verdict::{Flag, Rejection};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A number as SQLite stores it. Numbers of the protocol are below 2^53.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).expect("numbers of the protocol are below 2^53")
}

/// Bits of a place in the `log` table that hold the `seq`: a space takes a trillion groups.
const SEQ_BITS: u32 = 40;

/// Where an entry of a space's log is stored: the space first, so that a space's entries lie together in order.
///
/// # Errors
/// [`StoreError::Damaged`] when the numbers are larger than a place can hold.
pub(super) fn place(space_no: i64, seq: Seq) -> Result<i64, StoreError> {
    let fits = seq.0 >> SEQ_BITS == 0 && (0..1 << (i64::BITS - 1 - SEQ_BITS)).contains(&space_no);
    match fits {
        true => Ok((space_no << SEQ_BITS) + stored(seq.0)),
        false => Err(StoreError::Damaged(format!("entry {seq} of space {space_no} has no place in the log's table"))),
    }
}

/// The `seq` of a place.
pub(super) fn seq_at(place: i64) -> Seq {
    Seq((place & ((1 << SEQ_BITS) - 1)).unsigned_abs())
}

/// A number that was stored.
pub(super) fn count(row: &Row<'_>, column: usize) -> Result<u64, StoreError> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| StoreError::Damaged(format!("a count is {number}")))
}

/// An id that was stored.
pub(super) fn id<T>(row: &Row<'_>, column: usize, new: impl Fn(Box<str>) -> Result<T, InvalidId>) -> Result<T, StoreError> {
    let text: Box<str> = row.get(column)?;
    new(text).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// An id that may be NULL.
pub(super) fn optional_id<T>(
    row: &Row<'_>,
    column: usize,
    new: impl Fn(Box<str>) -> Result<T, InvalidId>,
) -> Result<Option<T>, StoreError> {
    if row.get_ref(column)? == ValueRef::Null { Ok(None) } else { id(row, column, new).map(Some) }
}

/// A digest that was stored.
pub(super) fn digest(row: &Row<'_>, column: usize) -> Result<Digest, StoreError> {
    let bytes = row.get_ref(column)?;
    let bytes = bytes.as_blob().map_err(|error| StoreError::Damaged(error.to_string()))?;
    Digest::from_bytes(bytes).ok_or_else(|| StoreError::Damaged("a digest has not 32 bytes".into()))
}

/// A space's number in this store and where its log stands.
pub(super) fn space(connection: &Connection, space: &SpaceId) -> Result<Option<(i64, SpaceState)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT space_no, log, head, chain, horizon, horizon_chain, ancestors FROM spaces WHERE space = ?1",
    )?;
    let mut rows = statement.query([space.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let state = SpaceState {
        log: id(row, 1, LogId::new)?,
        head: Seq(count(row, 2)?),
        chain: digest(row, 3)?,
        horizon: Seq(count(row, 4)?),
        horizon_chain: digest(row, 5)?,
        ancestors: lineage::from_json(row.get::<_, Option<String>>(6)?.as_deref())?,
    };
    Ok(Some((row.get(0)?, state)))
}

/// What was decided of a group.
pub(super) fn decided(connection: &Connection, space_no: i64, group: &GroupId) -> Result<Option<Decided>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT digest, seq, flags FROM groups WHERE space_no = ?1 AND group_id = ?2")?;
    let mut rows = statement.query(params![space_no, group.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let digest = if row.get_ref(0)? == ValueRef::Null { None } else { Some(digest(row, 0)?) };
    let outcome = match row.get_ref(1)? {
        ValueRef::Null => DecidedAs::Rejected(Box::new(rejection(connection, space_no, group)?)),
        _ => DecidedAs::Accepted { seq: Seq(count(row, 1)?), flags: flags(row, 2)? },
    };
    Ok(Some(Decided { digest, outcome }))
}

fn flags(row: &Row<'_>, column: usize) -> Result<Vec<Flag>, StoreError> {
    kept::flags(row.get::<_, Option<String>>(column)?.as_deref())
}

/// A record: version, edit version, payload, marks, scopes.
pub(super) fn record(row: &Row<'_>) -> Result<Record, StoreError> {
    let (payload, marks): (Option<Box<str>>, Option<String>) = (row.get(2)?, row.get(3)?);
    let scopes: Option<String> = row.get(4)?;
    let marks = marks.map(|text| Marks::parse(&text).map_err(|error| StoreError::Damaged(format!("marks: {error}"))));
    Ok(Record {
        version: Seq(count(row, 0)?),
        edit_version: Seq(count(row, 1)?),
        payload: payload.map(Payload::from_stored),
        marks: marks.transpose()?.map(Box::new),
        reach: sighted::reach(scopes.as_deref())?,
    })
}

pub(super) fn rejection(connection: &Connection, space_no: i64, group: &GroupId) -> Result<Rejection, StoreError> {
    let result: Option<String> = connection
        .prepare_cached("SELECT result FROM rejections WHERE space_no = ?1 AND group_id = ?2")?
        .query_row(params![space_no, group.as_str()], |row| row.get(0))
        .optional()?;
    kept::rejection(group, result.as_deref())
}
