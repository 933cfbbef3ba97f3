//! What planted bugs do where one line does not say it. Compiled for the simulator alone: see [`gbsync_core::mutant`].

use crate::client::Client;
use crate::error::{Error, damaged};
use crate::operation::staging::Staging;
use crate::session::Senders;
use crate::store::base::{Applier, BaseTable};
use crate::store::outbox::StoredGroup;
use crate::store::state::{self, State};
use crate::store::{Tx, outbox, overlay};
use crate::{tables, view};
use gbsync_core::change::{Change, Payload};
use gbsync_core::digest::Digest;
use gbsync_core::id::{DeviceSeq, RecordKey};
use gbsync_core::limits::Limits;
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::wire::{LogPage, LogState, parse_log_part};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeSet;

/// [`Mutant::WallClockOrders`], [`Mutant::RetryReordersDependents`]: the queue in another order.
pub(crate) fn in_order(sql: &str) -> String {
    let order = match () {
        () if is(Mutant::WallClockOrders) => "ORDER BY sealed_at, local_no",
        () if is(Mutant::RetryReordersDependents) => "ORDER BY attempts, local_no",
        () => "ORDER BY local_no",
    };
    sql.replace("ORDER BY local_no", order)
}

/// [`Mutant::DeviceSeqSkipped`].
pub(crate) fn skipped(device_seq: DeviceSeq, local_no: i64) -> DeviceSeq {
    if is(Mutant::DeviceSeqSkipped) && local_no % 7 == 0 { device_seq.next() } else { device_seq }
}

/// [`Mutant::OutboxRowDeletedBeforeAck`].
pub(crate) fn forget_sent(tx: &Connection, local_nos: &[i64]) -> Result<(), Error> {
    for local_no in local_nos.iter().filter(|_| is(Mutant::OutboxRowDeletedBeforeAck)) {
        tx.execute("DELETE FROM gbsync_outbox WHERE local_no = ?1", [local_no])?;
    }
    Ok(())
}

/// A group as it is sent: with some of its changes, or with its bytes written anew.
pub(crate) fn as_sent(tx: &Connection, mut stored: StoredGroup, senders: &Senders) -> Result<StoredGroup, Error> {
    stored.header.actor = senders.planted_author(stored.header.actor.take());
    let Some(text) = stored.changes_json.as_deref() else { return Ok(stored) };
    if is(Mutant::BytesSerializedAgain) {
        let attempts: u32 =
            tx.query_row("SELECT attempts FROM gbsync_outbox WHERE local_no = ?1", [stored.local_no], |row| row.get(0))?;
        if attempts > 0 {
            let text = format!("[ {}", &text[1..]);
            stored.digest = Digest::of(text.as_bytes());
            stored.changes_json = Some(text.into());
        }
        return Ok(stored);
    }
    let mut changes = outbox::read_changes(text)?;
    let all = changes.len();
    if is(Mutant::GroupSplitAtBatchLimit) {
        changes.truncate(usize::try_from(Limits::default().batch_records).unwrap_or(usize::MAX));
    }
    if is(Mutant::EditsCoalescedAcrossGroups) {
        let mut kept = Vec::new();
        for change in changes {
            if change.edit.is_increment() || !is_edited_after(tx, &change.key, stored.local_no)? {
                kept.push(change);
            }
        }
        changes = kept;
    }
    if changes.len() < all && !changes.is_empty() {
        let text = text_of(&changes);
        stored.records = changes.len() as u64;
        stored.digest = Digest::of(text.as_bytes());
        stored.bytes = text.len() as u64;
        stored.changes_json = Some(text.into());
    }
    Ok(stored)
}

fn is_edited_after(tx: &Connection, key: &RecordKey, local_no: i64) -> Result<bool, Error> {
    Ok(overlay::rows_of(tx, key)?.iter().any(|row| row.local_no > local_no && row.touch.is_edit()))
}

fn text_of(changes: &[Change]) -> String {
    let mut text = String::from("[");
    for (index, change) in changes.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        change.push_json(&mut text);
    }
    text + "]"
}

/// [`Mutant::BaseTakenAtSeal`].
pub(crate) fn based_on_now(tx: &Tx<'_>, changes: Vec<Change>) -> Result<Vec<Change>, Error> {
    if !is(Mutant::BaseTakenAtSeal) {
        return Ok(changes);
    }
    let anew = changes.into_iter().map(|change| {
        let base = view::under(tx.schemas(), tx, &change.key)?.base;
        let key = change.key.clone();
        Change::new(change.key, change.edit, base).map_err(|source| Error::InvalidPayload { key, source })
    });
    anew.collect()
}

/// [`Mutant::OpenOperationFlushed`]: two records are enough to make a group of.
pub(crate) fn flush(client: &Client, staging: &mut Staging) -> Result<(), Error> {
    let is_plain = staging.instead.is_none() && staging.given_id.is_none() && staging.group_type.is_some();
    if is(Mutant::OpenOperationFlushed) && is_plain && staging.changed().count() == 2 {
        let (group_type, root, actor) = (staging.group_type.clone(), staging.root.clone(), staging.actor.clone());
        let flushed = std::mem::replace(staging, Staging::new(group_type, root, actor, client.terms()));
        client.seal(&flushed)?;
    }
    Ok(())
}

/// [`Mutant::LastChangeDroppedOnCrash`]: the end of the transaction, and the beginning of another one. Inside a savepoint
/// that would be no such bug but an error.
pub(crate) fn is_cut_off(staging: &Staging) -> bool {
    is(Mutant::LastChangeDroppedOnCrash) && staging.instead.is_none() && staging.made_at.is_none()
}

/// [`Mutant::UndoOverwritesNewer`]: what a group is laid on.
pub(crate) fn keep_before<'k>(
    tx: &Connection,
    local_no: i64,
    keys: impl Iterator<Item = &'k RecordKey>,
) -> Result<(), Error> {
    if !is(Mutant::UndoOverwritesNewer) {
        return Ok(());
    }
    tx.execute_batch("CREATE TABLE IF NOT EXISTS planted_before(local_no, entity, id, payload)")?;
    for key in keys {
        let before = view::of(tx, key)?.payload;
        let before = before.as_ref().map(Payload::as_str);
        let sql = "INSERT INTO planted_before VALUES (?1, ?2, ?3, ?4)";
        tx.execute(sql, params![local_no, key.entity.as_str(), key.id.as_str(), before])?;
    }
    Ok(())
}

/// [`Mutant::UndoOverwritesNewer`]: puts it back.
pub(crate) fn put_back(tx: &Connection, parked: &BTreeSet<i64>) -> Result<(), Error> {
    if !is(Mutant::UndoOverwritesNewer) {
        return Ok(());
    }
    tx.execute_batch("CREATE TABLE IF NOT EXISTS planted_before(local_no, entity, id, payload)")?;
    for local_no in parked.iter().rev() {
        let sql = "UPDATE gbsync_base AS b SET payload = p.payload FROM planted_before AS p
                    WHERE p.local_no = ?1 AND p.entity = b.entity AND p.id = b.id AND p.payload IS NOT NULL";
        tx.execute(sql, [local_no])?;
    }
    Ok(())
}

/// [`Mutant::ParkedPayloadLost`].
pub(crate) fn lose_payload(tx: &Connection, parked: &BTreeSet<i64>) -> Result<(), Error> {
    for local_no in parked.iter().filter(|_| is(Mutant::ParkedPayloadLost)) {
        tx.execute("UPDATE gbsync_outbox SET changes = '[]' WHERE local_no = ?1", [local_no])?;
    }
    Ok(())
}

/// [`Mutant::PullOverwritesPendingWrite`]: nothing lies over the record any more.
pub(crate) fn uncover(tx: &Connection, key: &RecordKey) -> Result<(), Error> {
    let sql = "DELETE FROM gbsync_overlay WHERE entity = ?1 AND id = ?2";
    tx.execute(sql, [key.entity.as_str(), key.id.as_str()])?;
    Ok(())
}

/// [`Mutant::CursorSavedBeforeApply`], [`Mutant::CursorInOwnTransaction`]: moves the cursor, alone.
pub(crate) fn move_cursor(client: &Client, mutant: Mutant, page: &LogPage) -> Result<(), Error> {
    if !is(mutant) {
        return Ok(());
    }
    client.store().write(|tx| state::set_cursor(tx, page.next, page.chain, page.head))
}

/// [`Mutant::CursorSavedBeforeApply`]: the entries after the cursor are those that it has just passed.
pub(crate) fn before_page(state: State, page: &LogPage) -> State {
    let first = page.entries.first().filter(|_| is(Mutant::CursorSavedBeforeApply));
    match first {
        Some(entry) => State { cursor: gbsync_core::id::Seq(entry.seq.0 - 1), ..state },
        None => state,
    }
}

/// [`Mutant::LargeGroupVisibleEarly`].
pub(crate) fn apply_part(tx: &Tx<'_>, body: &str) -> Result<(), Error> {
    if !is(Mutant::LargeGroupVisibleEarly) {
        return Ok(());
    }
    let mut base = Applier::new(tx, BaseTable::Current)?;
    for change in parse_log_part(body.as_bytes()).map_err(|error| damaged("gbsync_download_part", error))? {
        base.apply(&change)?;
        let payload = if let LogState::Live(payload) = &change.state { Some(&**payload) } else { None };
        tables::write(tx, &change.key, payload)?;
    }
    Ok(())
}

/// [`Mutant::InFlightNotCleared`]: notes what a crash left.
pub(crate) fn keep_in_flight(tx: &Connection, left: &[i64]) -> Result<(), Error> {
    for local_no in left.iter().filter(|_| is(Mutant::InFlightNotCleared)) {
        outbox::set_waiting(tx, *local_no, "in_flight", "", 0)?;
    }
    Ok(())
}

/// [`Mutant::InFlightNotCleared`]: whether it is believed to be on its way.
pub(crate) fn is_in_flight(tx: &Connection, local_no: i64) -> Result<bool, Error> {
    if !is(Mutant::InFlightNotCleared) {
        return Ok(false);
    }
    let sql = "SELECT code = 'in_flight' FROM gbsync_outbox WHERE local_no = ?1";
    Ok(tx.query_row(sql, [local_no], |row| row.get::<_, Option<bool>>(0)).optional()?.flatten().unwrap_or(false))
}

/// [`Mutant::FailedFsyncIgnored`].
pub(crate) fn is_failed_fsync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    is(Mutant::FailedFsyncIgnored) && code == Some(rusqlite::ffi::SQLITE_IOERR_FSYNC)
}

/// [`Mutant::LastChangeDroppedOnCrash`]: the transaction ends here, and another one begins.
pub(crate) fn cut_off(tx: &Connection) -> Result<(), Error> {
    Ok(tx.execute_batch("COMMIT; BEGIN IMMEDIATE")?)
}
