//! How parked groups are closed by what the server says: a resolution in the log, another group of the family that took
//! effect, a verdict that leaves nothing to decide.
//!
//! Invariant: the first to close wins, and that is whom the server says. A group that may still be on its way stays open
//! until its own verdict comes, and takes over then what the log said before. Payload and first reason stay.
//!
//! Each function answers whether groups that waited for the closed one may be sealed anew (`requeue.rs`).

use crate::error::Error;
use crate::store::outbox::{self, StoredState};
use crate::store::parked::{self, Closing};
use crate::store::{discards, family};
use gbsync_core::id::GroupId;
use gbsync_core::verdict::{RejectionCode, Resolution, ResolvedAs};
use gbsync_core::wire::LogGroup;
use rusqlite::Connection;

/// The state of a group that was closed like this.
fn state_of(resolved_as: ResolvedAs) -> &'static str {
    match resolved_as {
        ResolvedAs::Amended => "replaced",
        ResolvedAs::Discarded => "discarded",
        ResolvedAs::Compensated => "compensated",
    }
}

/// Takes over a resolution that the log tells: closes what this device holds of the family.
pub(crate) fn by_log(tx: &Connection, resolution: &Resolution, now: u64) -> Result<bool, Error> {
    let Some(standing) = outbox::standing(tx, &resolution.of)? else { return Ok(false) };
    // Its verdict may not have arrived yet: what the log said is kept for then.
    parked::note(tx, standing.local_no)?;
    family::note_closure(tx, standing.local_no, resolution, now)?;
    let closing = Closing {
        state: state_of(resolution.resolved_as),
        by: resolution.by.as_ref(),
        actor: resolution.actor.as_ref(),
        reason: resolution.reason.as_deref(),
    };
    for member in family::members(tx, standing.local_no)? {
        match member.state {
            StoredState::Parked | StoredState::Closed => parked::close(tx, member.local_no, &closing, now)?,
            StoredState::Pending | StoredState::Accepted => {}
        }
        discards::forget(tx, &member.id)?;
    }
    Ok(true)
}

/// Notes that a group of this outbox took effect: whatever else of its family is here has nothing left to do.
pub(crate) fn by_winner(tx: &Connection, local_no: i64, now: u64) -> Result<bool, Error> {
    if !family::is_noted(tx, local_no)? {
        return Ok(false);
    }
    let Some(winner) = outbox::id_of(tx, local_no)? else { return Ok(false) };
    close_others(tx, local_no, &winner, now)?;
    Ok(true)
}

/// Looks whether a group of the log took effect in the place of one of this outbox.
pub(crate) fn by_foreign(tx: &Connection, group: &LogGroup, now: u64) -> Result<bool, Error> {
    let Some(replaced) = &group.replaces else { return Ok(false) };
    if outbox::standing(tx, &group.id)?.is_some() {
        return Ok(false);
    }
    let Some(standing) = outbox::standing(tx, replaced)? else { return Ok(false) };
    parked::note(tx, standing.local_no)?;
    close_others(tx, standing.local_no, &group.id, now)?;
    Ok(true)
}

fn close_others(tx: &Connection, local_no: i64, winner: &GroupId, now: u64) -> Result<(), Error> {
    let closing = Closing { state: "replaced", by: Some(winner), actor: None, reason: None };
    for member in family::members(tx, local_no)? {
        let is_open = match member.state {
            StoredState::Parked => true,
            StoredState::Closed => !member.is_closed_by_log && member.replaced_by.is_none(),
            StoredState::Pending | StoredState::Accepted => false,
        };
        if is_open && member.id != *winner {
            parked::close(tx, member.local_no, &closing, now)?;
        }
        // One that was never sent has a number that no report could account for.
        if member.state != StoredState::Accepted && member.id != *winner && member.attempts == 0 {
            discards::intend(tx, &member.id, &format!("{winner} took effect in its place"), None)?;
        }
    }
    Ok(())
}

/// What remains to do about a group whose rejection was just noted: nothing, where the verdict or the log closed it already.
/// Answers whether it is closed.
pub(crate) fn by_verdict(
    tx: &Connection,
    local_no: i64,
    code: RejectionCode,
    message: &str,
    now: u64,
) -> Result<bool, Error> {
    if family::take_over_closure(tx, local_no, now)? {
        return Ok(true);
    }
    let closing = match code {
        // Who took its place stands in the log, or will.
        RejectionCode::AlreadyReplaced => Closing { state: "replaced", by: None, actor: None, reason: Some(message) },
        RejectionCode::Discarded => Closing { state: "discarded", by: None, actor: None, reason: Some(message) },
        RejectionCode::Superseded => Closing { state: "superseded", by: None, actor: None, reason: Some(message) },
        _ => return Ok(false),
    };
    let winner = match code {
        RejectionCode::AlreadyReplaced => family::accepted(tx, local_no)?,
        _ => None,
    };
    parked::close(tx, local_no, &Closing { by: winner.as_ref(), ..closing }, now)?;
    Ok(true)
}
