//! Pages of the log into the base, each with the cursor in one transaction, and the overlay laid anew over what they
//! touched.
//!
//! Invariant (P2): whatever moment a crash or a reader picks, the base is a whole number of groups and the cursor says
//! which.

use crate::closing;
use crate::error::{Error, damaged};
use crate::relay::relay;
use crate::settle::{Settling, settle};
use crate::store::base::{self, Applier, BaseTable};
use crate::store::outbox::{self, StoredState};
use crate::store::state::{self, State};
use crate::store::stood::{self, Of};
use crate::store::{Tx, clock, download, flag, lost, overlay, parked, server_schema, snapshot};
use crate::{tables, view};
use gbsync_core::change::Payload;
use gbsync_core::id::{LogId, RecordKey, Seq};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::wire::{LogChange, LogGroup, LogPage, LogState};
use rusqlite::Connection;
use std::collections::BTreeSet;

/// How many records are laid anew at a time, at least, when the whole overlay is.
const RELAY_KEYS: u32 = 500;
/// What the server calls a space of which everything is seen; also one that does not say.
pub(crate) const ALL: &str = "all";

/// What a page brought.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Applied {
    pub(crate) groups: u64,
    pub(crate) records: u64,
    /// Whether groups that were parked may have nothing to wait for any more.
    pub(crate) frees: bool,
    /// Whether groups that the log turned out not to hold are offered again.
    pub(crate) reoffers: bool,
}

/// Applies a page that follows the cursor.
pub(crate) fn apply(tx: &Tx<'_>, page: &LogPage, now: u64) -> Result<Applied, Error> {
    let state = state::read(tx)?;
    #[cfg(feature = "mutants")]
    let state = crate::planted::before_page(state, page);
    let mut applied = Applied::default();
    let mut settling = Settling::default();
    let has_overlay = !overlay::is_empty(tx)?;
    let mut base = Applier::new(tx, BaseTable::Current)?;
    let mut rows = tables::Writer::new(tx);
    let (mut heard, mut met) = (None, BTreeSet::new());
    let has_parked = !parked::is_empty(tx)?;
    let is_part = state.scope_set.as_deref().is_some_and(|scope_set| scope_set != ALL);
    for entry in page.entries.iter().filter(|entry| entry.seq > state.cursor) {
        if let Some(resolution) = &entry.resolution {
            applied.frees |= closing::by_log(tx, resolution, now)?;
        }
        let Some(group) = &entry.group else { continue };
        flag::raise(tx, false, entry.seq, &group.id, &group.flags)?;
        flag::clear(tx, false, &group.clears)?;
        heard = heard.max(group.hlc.as_ref());
        let is_own = group.device == state.device;
        let own = match is_own || has_overlay {
            true => settle(tx, &group.id, is_own, (entry.seq, state.generation), now)?,
            false => None,
        };
        met.extend(own);
        if has_parked {
            applied.frees |= match own {
                Some(local_no) => closing::by_winner(tx, local_no, now)?,
                None => closing::by_foreign(tx, group, now)?,
            };
        }
        applied.records += each_change(tx, entry.seq, group, |change| {
            if change.state == LogState::Left && is(Mutant::LeavingRecordKept) {
                return Ok(());
            }
            let row = match own {
                Some(local_no) => overlay::remove(tx, &change.key, local_no)?,
                None => None,
            };
            base.apply(change)?;
            match &change.state {
                _ if has_overlay => settling.touch(&change.key, row),
                LogState::Live(payload) => rows.write(&change.key, Some(payload))?,
                LogState::Deleted | LogState::Left => rows.write(&change.key, None)?,
            }
            Ok(())
        })?;
        if is_part {
            uncover_unseen(tx, own, &mut settling)?;
        }
        // What the server did not take along is there again.
        for key in own.map(|local_no| overlay::derived_of(tx, local_no)).transpose()?.into_iter().flatten() {
            let row = own.map(|local_no| overlay::remove(tx, &key, local_no)).transpose()?.flatten();
            settling.touch(&key, row);
        }
        applied.groups += 1;
    }
    download::clear(tx)?;
    if has_overlay {
        settling.finish(tx)?;
    }
    heard.map_or(Ok(()), |heard| clock::hear(tx, heard))?;
    applied.reoffers = has_overlay && lost::reoffer_missed(tx, (state.cursor, page.next), &met)?;
    if !is(Mutant::CursorInOwnTransaction) {
        stood::remember(tx, Of::Current, state.cursor, page)?;
        state::set_cursor(tx, page.next, page.chain, page.head)?;
    }
    Ok(applied)
}

/// Takes what is left of an own group off the records that the log does not tell this device of: they lie out of its sight.
fn uncover_unseen(tx: &Tx<'_>, own: Option<i64>, settling: &mut Settling) -> Result<(), Error> {
    let Some(local_no) = own else { return Ok(()) };
    for key in outbox::keys_of(tx, local_no)? {
        if let Some(row) = overlay::remove(tx, &key, local_no)? {
            settling.touch(&key, Some(row));
        }
    }
    Ok(())
}

/// Gives each change of a group to `take`: from the page, or from its parts, which were fetched before. Answers how many.
fn each_change(
    tx: &Connection,
    seq: Seq,
    group: &LogGroup,
    mut take: impl FnMut(&LogChange) -> Result<(), Error>,
) -> Result<u64, Error> {
    match group.in_parts {
        Some(parts) => {
            download::each_part(tx, seq, parts, |changes| changes.iter().try_for_each(&mut take))?;
            Ok(parts.change_count)
        }
        None => {
            group.changes.iter().try_for_each(take)?;
            Ok(group.changes.len() as u64)
        }
    }
}

/// Begins to read the log anew into a table beside the base. What users see stays until the flip.
pub(crate) fn begin_rebase(tx: &Tx<'_>, log: &LogId, scope_set: &str) -> Result<(), Error> {
    base::create_next(tx)?;
    tables::forget(tx)?;
    flag::begin_next(tx)?;
    download::clear(tx)?;
    snapshot::forget(tx)?;
    stood::forget_next(tx)?;
    state::begin_rebase(tx, log, scope_set)
}

/// Applies a page of the log that is read anew.
pub(crate) fn apply_next(tx: &Tx<'_>, page: &LogPage, now: u64) -> Result<Applied, Error> {
    let state = state::read(tx)?;
    let rebase = state.rebase.as_ref().ok_or_else(|| damaged("gbsync_state", "no reading anew is under way"))?;
    let mut applied = Applied::default();
    let (mut base, shadows) = (Applier::new(tx, BaseTable::Next)?, tables::Follower::new(tx)?);
    for entry in page.entries.iter().filter(|entry| entry.seq > rebase.cursor) {
        if let Some(resolution) = &entry.resolution {
            closing::by_log(tx, resolution, now)?;
        }
        let Some(group) = &entry.group else { continue };
        flag::raise(tx, true, entry.seq, &group.id, &group.flags)?;
        flag::clear(tx, true, &group.clears)?;
        group.hlc.as_ref().map_or(Ok(()), |heard| clock::hear(tx, heard))?;
        if let Some(standing) = outbox::standing(tx, &group.id)?
            && (group.device == state.device || standing.state == StoredState::Accepted)
        {
            outbox::set_accepted(tx, standing.local_no, (entry.seq, state.generation + 1), 0, now)?;
            closing::by_winner(tx, standing.local_no, now)?;
        } else {
            closing::by_foreign(tx, group, now)?;
        }
        applied.records += each_change(tx, entry.seq, group, |change| {
            shadows.apply(change)?;
            base.apply(change)
        })?;
        applied.groups += 1;
    }
    download::clear(tx)?;
    stood::remember(tx, Of::Next, rebase.cursor, page)?;
    state::set_next_cursor(tx, page.next, page.chain)?;
    Ok(applied)
}

/// Puts what was read anew in the place of the base, in one transaction: own groups that the log holds leave the overlay,
/// those it lost are offered again with their bytes unchanged, and the rest is laid anew. `false`: nothing was done, because
/// the tables beside the tables are not filled.
pub(crate) fn flip(tx: &Tx<'_>) -> Result<bool, Error> {
    if !tables::are_there(tx)? {
        return Ok(false);
    }
    let State { generation, rebase, .. } = state::read(tx)?;
    let reoffered = lost::reoffer_lost(tx, generation + 1)?;
    if let Some(log) = rebase.and_then(|rebase| rebase.log) {
        lost::rename_shared_bases(tx, &log)?;
    }
    base::flip(tx)?;
    flag::flip(tx)?;
    stood::flip(tx)?;
    snapshot::forget(tx)?;
    state::end_rebase(tx)?;
    outbox::uncover_passed(tx, generation + 1)?;
    for local_no in reoffered {
        for key in outbox::keys_of(tx, local_no)? {
            cover(tx, &key, local_no)?;
        }
    }
    // Numbers of several epochs may be the same: what is offered again needs new ones.
    if outbox::has_other_epochs(tx)? {
        state::want_new_epoch(tx)?;
    }
    // First the tables: what a delete takes along is found there.
    tables::exchange(tx)?;
    show_overlay(tx)?;
    relay_all(tx)?;
    Ok(true)
}

/// Lets the tables, which have the base alone, show what the overlay has over it.
fn show_overlay(tx: &Tx<'_>) -> Result<(), Error> {
    let mut after: Option<RecordKey> = None;
    loop {
        let keys = overlay::keys_after(tx, after.as_ref(), RELAY_KEYS)?;
        let Some(last) = keys.last().cloned() else { return Ok(()) };
        for key in &keys {
            let shown = view::of(tx, key)?.payload;
            tables::write(tx, key, shown.as_ref().map(Payload::as_str))?;
        }
        after = Some(last);
    }
}

/// Puts a row of a group over a record, hidden until the overlay is laid anew.
fn cover(tx: &Tx<'_>, key: &RecordKey, local_no: i64) -> Result<(), Error> {
    let row = overlay::OverlayRow {
        local_no,
        touch: gbsync_core::depend::Touch::Edit,
        trail: gbsync_core::depend::Trail::default(),
        is_hidden: true,
        is_derived: false,
        payload: None,
    };
    overlay::put(tx, key, &row)
}

/// Lays the overlay anew where the newest schema known is another one than it is laid under. Answers whether it was.
pub(crate) fn lay_under_newest(tx: &Tx<'_>) -> Result<bool, Error> {
    let version = tx.schemas().effective().map_or(0, |schema| schema.version);
    if !server_schema::set_laid_under(tx, version)? {
        return Ok(false);
    }
    tables::forget(tx)?;
    // First the tables: what a delete takes along is found there.
    tables::refill(tx)?;
    relay_all(tx)?;
    Ok(true)
}

/// Lays the whole overlay anew, some records at a time.
pub(crate) fn relay_all(tx: &Tx<'_>) -> Result<(), Error> {
    // A group is read whole however few of its records are laid: the largest one must not be read a hundred times.
    let most_keys = outbox::most_records(tx)?.max(RELAY_KEYS);
    let mut after: Option<RecordKey> = None;
    loop {
        let keys = overlay::keys_after(tx, after.as_ref(), most_keys)?;
        let Some(last) = keys.last().cloned() else { return Ok(()) };
        relay(tx, keys.into_iter().collect::<BTreeSet<_>>())?;
        after = Some(last);
    }
}
