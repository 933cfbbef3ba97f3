//! What planted bugs do where one line does not say it. Compiled for the simulator alone: see [`gbsync_core::mutant`].

use crate::store::{Page, PageRequest, SpaceState, StoreError, Written};
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, LogId, Seq};
use gbsync_core::mutant::{Mutant, is, made_by};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Groups after which [`Mutant::DedupForgottenTooEarly`] forgets one.
const REMEMBERED: u64 = 3;

thread_local! {
    static DRAWN: RefCell<BTreeMap<LogId, Seq>> = RefCell::default();
}

/// [`Mutant::SeqOutsideLock`]: the counter of a log.
pub(crate) fn drawn(log: &LogId, next: Seq) -> Seq {
    if !is(Mutant::SeqOutsideLock) {
        return next;
    }
    DRAWN.with_borrow_mut(|drawn| {
        let last = drawn.entry(log.clone()).or_default();
        *last = next.max(last.next());
        *last
    })
}

/// [`Mutant::OwnChainByLastDevice`]: who made which entry.
pub(crate) fn learn_makers(connection: &Connection) -> Result<(), StoreError> {
    if !is(Mutant::OwnChainByLastDevice) {
        return Ok(());
    }
    let mut statement = connection.prepare_cached("SELECT entry ->> '$.seq', entry ->> '$.device' FROM log")?;
    let rows =
        statement.query_map([], |row| Ok((Seq(row.get(0)?), row.get::<_, Option<String>>(1)?.unwrap_or_default())))?;
    made_by(rows.collect::<Result<_, _>>()?);
    Ok(())
}

/// [`Mutant::NoDeduplication`]: the decision before is overwritten.
pub(crate) fn forget_decision(connection: &Connection, space_no: i64, id: &GroupId) -> Result<(), StoreError> {
    if is(Mutant::NoDeduplication) {
        let id = params![space_no, id.as_str()];
        connection.execute("DELETE FROM rejections WHERE space_no = ?1 AND group_id = ?2", id)?;
        connection.execute("DELETE FROM groups WHERE space_no = ?1 AND group_id = ?2", id)?;
    }
    Ok(())
}

/// [`Mutant::DedupInOwnTransaction`], [`Mutant::DedupForgottenTooEarly`].
pub(crate) fn end_of_write(
    connection: &Connection,
    space_no: i64,
    written: &Written,
    write_groups: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if is(Mutant::DedupInOwnTransaction) {
        connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        gbsync_core::fault::point("a transaction was committed");
        write_groups()?;
    }
    if is(Mutant::DedupForgottenTooEarly) {
        let before = i64::try_from(written.head.0.saturating_sub(REMEMBERED)).unwrap_or(0);
        connection.execute("DELETE FROM groups WHERE space_no = ?1 AND seq <= ?2", [space_no, before])?;
    }
    Ok(())
}

/// [`Mutant::FutureCursorAccepted`], [`Mutant::FutureCursorAfterRestore`].
pub(crate) fn beyond(request: &PageRequest, state: &SpaceState) -> Option<Page> {
    let is_restored = is(Mutant::FutureCursorAfterRestore) && !state.ancestors.is_empty();
    let is_beyond = (is(Mutant::FutureCursorAccepted) || is_restored) && request.after > state.head;
    let chain = request.chain.unwrap_or(Digest::ZERO);
    is_beyond.then(|| Page::Entries { entries: Vec::new(), next: request.after, chain, head: state.head })
}

/// [`Mutant::GroupSplitAtLogPage`]: an entry with as many changes as there is room for on a page of `most`.
pub(crate) fn cut(entry: &str, records: u64, most: u64) -> String {
    let over = usize::try_from(records.saturating_sub(most)).unwrap_or(usize::MAX);
    let parsed = serde_json::from_str::<serde_json::Value>(entry).ok().filter(|_| is(Mutant::GroupSplitAtLogPage));
    let Some(mut parsed) = parsed.filter(|_| over > 0) else { return entry.to_owned() };
    if let Some(changes) = parsed["changes"].as_array_mut() {
        changes.truncate(changes.len().saturating_sub(over).max(1));
    }
    parsed.to_string()
}

/// [`Mutant::SpaceFilterMissing`]: the space where a group was decided, whichever that is.
pub(crate) fn any_space(connection: &Connection, asked: Option<i64>, id: &GroupId) -> Result<Option<i64>, StoreError> {
    if !is(Mutant::SpaceFilterMissing) {
        return Ok(asked);
    }
    let sql = "SELECT space_no FROM groups WHERE group_id = ?1";
    Ok(connection.query_row(sql, [id.as_str()], |row| row.get(0)).optional()?.or(asked))
}
