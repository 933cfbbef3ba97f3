//! One batch out, its verdicts in.
//!
//! Invariant (P3, P4): which batch is on its way is durable before its first byte leaves, and its verdicts are applied in
//! one transaction, so a crash at any moment leads to the same bytes sent again or to the verdicts kept.

use crate::closing;
use crate::error::Error;
use crate::session::Senders;
use crate::settle::{Reason, accept, park};
use crate::store::outbox::{self, StoredGroup, StoredState};
use crate::store::{Tx, clock, flag, sign_in, state, upload};
use gbsync_core::group::Header;
use gbsync_core::id::{BatchId, DeviceId, EpochId, GroupId, GroupType, RecordKey};
use gbsync_core::limits::{INCOMPLETE_ATTEMPTS, Limits};
use gbsync_core::plan::{Candidate, Placed, Planner};
use gbsync_core::retry::Backoff;
use gbsync_core::verdict::{RejectionCode, Verdict};
use gbsync_core::wire::{self, GroupResult, LogPlace};
use rusqlite::Connection;
use std::collections::BTreeSet;

/// A group of a batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchGroup {
    pub(crate) local_no: i64,
    pub(crate) id: GroupId,
    pub(crate) group_type: Option<GroupType>,
    pub(crate) records: u64,
    /// The changes, for a trace; none of a group whose changes were sent in parts.
    pub(crate) changes_json: Option<Box<str>>,
    wire: String,
}

impl BatchGroup {
    fn is_in_parts(&self) -> bool {
        self.changes_json.is_none()
    }
}

/// The groups of one request.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) groups: Vec<BatchGroup>,
    device: DeviceId,
    epoch: EpochId,
    /// Where this device stands, to which the server holds it.
    at: Option<LogPlace>,
}

impl Batch {
    /// The batch that ends an upload: the group alone, which names its parts. `None` when it is decided meanwhile.
    pub(crate) fn in_parts(tx: &Connection, local_no: i64, parts: u64) -> Result<Option<Self>, Error> {
        let Some(stored) = outbox::pending_head(tx, local_no)? else { return Ok(None) };
        let wire = wire::group_in_parts_json(&stored.header, stored.records, stored.digest, stored.bytes, parts);
        let wire = with_history(wire, &stored);
        let outbox::StoredGroup { header: Header { id, group_type, .. }, records, .. } = stored;
        let group = BatchGroup { local_no, id, group_type, records, changes_json: None, wire };
        let state = state::read(tx)?;
        let at = state.place();
        let state::State { device, epoch, .. } = state;
        Ok(Some(Self { groups: vec![group], device, epoch, at }))
    }

    /// Whether this ends an upload.
    pub(crate) fn is_in_parts(&self) -> bool {
        self.groups.iter().any(BatchGroup::is_in_parts)
    }

    pub(crate) fn local_nos(&self) -> Vec<i64> {
        self.groups.iter().map(|group| group.local_no).collect()
    }

    pub(crate) fn records(&self) -> u64 {
        self.groups.iter().map(|group| group.records).sum()
    }

    /// The request's body.
    pub(crate) fn body(&self, id: &BatchId) -> String {
        let groups = self.groups.iter().map(|group| group.wire.as_str());
        wire::push_json_at(&self.device, &self.epoch, id, self.at.as_ref(), groups)
    }

    /// Whether these are results of exactly this batch, in its order.
    pub(crate) fn fits(&self, results: &[GroupResult]) -> bool {
        let fits =
            |(group, result): (&BatchGroup, &GroupResult)| group.id == result.id && result.verdict != Verdict::Unknown;
        self.groups.len() == results.len() && self.groups.iter().zip(results).all(fits)
    }
}

/// Why a group waits that waits for no group that the server can name.
const WAITS_FOR_SERVER: &str =
    "it waits for the server: for a newer schema there, or for what other devices bring back after it was restored";

/// Bytes of a request around its only group: device, epoch and batch.
const ENVELOPE_BYTES: u64 = 1024 + 4 * gbsync_core::limits::ID_BYTES as u64;

/// Walks the outbox in seal order and fills batches; goes on where the last batch ended, so that draining a long outbox
/// takes one walk. A group that no request holds is in no batch, and what depends on it waits.
pub(crate) struct Walk {
    planner: Planner<i64, Option<String>>,
    after: i64,
    /// The last group it comes to.
    pub(crate) until: i64,
    request_bytes: u64,
    /// The first group that is to be sent in parts, and may be now.
    pub(crate) large: Option<i64>,
    /// Whether there is one that waits for others.
    pub(crate) has_waiting_large: bool,
}

impl Walk {
    /// A walk over what was sealed up to `until`.
    pub(crate) fn new(limits: &Limits, until: i64) -> Self {
        let request_bytes = limits.request_bytes;
        Self { planner: Planner::new(limits), after: 0, until, request_bytes, large: None, has_waiting_large: false }
    }

    /// The next batch; at most `most_groups` groups. `None` when nothing is left that may be sent now: what is on its way
    /// is not sent twice, and what depends on it waits for its verdict.
    pub(crate) fn next(
        &mut self,
        tx: &Connection,
        most_groups: usize,
        on_the_way: &BTreeSet<i64>,
        senders: &Senders,
        now: u64,
    ) -> Result<Option<Batch>, Error> {
        let mut groups: Vec<BatchGroup> = Vec::new();
        let (mut strangers, mut signed_in) = (Vec::new(), Vec::new());
        if self.after == 0 {
            let Some(first) = outbox::first_pending(tx)? else { return Ok(None) };
            self.after = first - 1;
        }
        let Self { planner, after, until, request_bytes, large, has_waiting_large } = self;
        outbox::each_pending(tx, *after, *request_bytes, |stored| {
            let local_no = stored.local_no;
            if local_no > *until {
                return Ok(false);
            }
            if on_the_way.contains(&local_no) {
                *after = local_no;
                return Ok(true);
            }
            let mut candidate = candidate(tx, &stored, now)?;
            if !senders.may_send(stored.header.actor.as_ref()) {
                if !stored.waits_for_sign_in {
                    strangers.push(local_no);
                }
                candidate.is_ready = false;
                planner.offer(&candidate);
                *after = local_no;
                return Ok(true);
            }
            if stored.waits_for_sign_in {
                signed_in.push(local_no);
            }
            #[cfg(feature = "mutants")]
            let stored = crate::planted::as_sent(tx, stored, senders)?;
            #[cfg(feature = "mutants")]
            if crate::planted::is_in_flight(tx, local_no)? {
                candidate.is_ready = false;
            }
            let wire = wire_of(&stored).filter(|wire| wire.len() as u64 + ENVELOPE_BYTES <= *request_bytes);
            let Some(wire) = wire else {
                let is_free = candidate.is_ready && candidate.undecided.is_empty();
                *large = large.or(is_free.then_some(local_no));
                *has_waiting_large |= candidate.is_ready && !is_free;
                candidate.is_ready = false;
                planner.offer(&candidate);
                *after = local_no;
                return Ok(true);
            };
            candidate.bytes = wire.len() as u64;
            if candidate.undecided.iter().any(|parent| on_the_way.contains(parent)) {
                return Ok(false);
            }
            let mut placed = planner.offer(&candidate);
            if placed == Placed::Closed && groups.is_empty() {
                // The batch it closed was the one before.
                placed = planner.offer(&candidate);
            }
            match placed {
                Placed::Closed => return Ok(false),
                Placed::Waits => {}
                Placed::Joined | Placed::Filled => groups.push(BatchGroup {
                    local_no,
                    id: stored.header.id,
                    group_type: stored.header.group_type,
                    records: stored.records,
                    changes_json: stored.changes_json,
                    wire,
                }),
            }
            *after = local_no;
            Ok(placed != Placed::Filled && groups.len() < most_groups)
        })?;
        for local_no in strangers {
            sign_in::wait(tx, local_no)?;
        }
        for local_no in signed_in {
            sign_in::go_on(tx, local_no)?;
        }
        if groups.is_empty() {
            return Ok(None);
        }
        let state = state::read(tx)?;
        let at = state.place();
        let state::State { device, epoch, .. } = state;
        Ok(Some(Batch { groups, device, epoch, at }))
    }
}

fn candidate(tx: &Connection, stored: &StoredGroup, now: u64) -> Result<Candidate<i64, Option<String>>, Error> {
    let mut undecided = Vec::new();
    for parent in &stored.header.depends_on {
        // A parent that this device does not know is the server's to judge.
        if let Some(standing) = outbox::standing(tx, parent)?
            && standing.state != StoredState::Accepted
        {
            undecided.push(standing.local_no);
        }
    }
    Ok(Candidate {
        group: stored.local_no,
        records: stored.records,
        bytes: stored.bytes,
        actor: stored.header.actor.as_ref().map(|actor| actor.as_str().to_owned()),
        is_ready: stored.next_attempt_at.is_none_or(|at| is_due(at, now)),
        undecided,
    })
}

/// A group in wire form, where its changes were read.
fn wire_of(stored: &StoredGroup) -> Option<String> {
    let changes = stored.changes_json.as_deref()?;
    let wire = wire::group_json_bytes(&stored.header, stored.records, stored.digest, changes);
    Some(with_history(wire, stored))
}

/// With where it stood in logs that lost it, and what it was made on if that is not the present log.
fn with_history(wire: String, stored: &StoredGroup) -> String {
    wire::made_on_another(wire::offered_again(wire, &stored.accepted_as), stored.made_on.as_ref())
}

/// A wait of this length was set under a clock that was wrong then or is wrong now.
const LONGEST_WAIT_MS: u64 = 60 * 60 * 1000;

/// Whether the time of a next attempt has come. A clock that was set back must not keep a sale for years.
pub(crate) fn is_due(at: u64, now: u64) -> bool {
    at <= now || at - now > LONGEST_WAIT_MS
}

/// What verdicts did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdicts {
    pub(crate) accepted: u64,
    /// The groups that were parked, dependents included.
    pub(crate) parked: BTreeSet<i64>,
    /// Whether every group of the batch was accepted: then the walk may go on where it is.
    pub(crate) all_accepted: bool,
    /// Whether groups that were parked may have nothing to wait for any more.
    pub(crate) frees: bool,
}

/// What time it is, in milliseconds after 1970: on this device, and by the server's clock as far as the handshake told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) now: u64,
    pub(crate) server_now: u64,
}

/// Applies the verdicts of a batch. That it is no longer on its way is for the caller to note, in the same transaction.
pub(crate) fn apply(
    tx: &Tx<'_>,
    batch: &Batch,
    results: &[GroupResult],
    backoff: &Backoff,
    random: u64,
    Clocks { now, server_now }: Clocks,
) -> Result<Verdicts, Error> {
    state::clear_failure(tx)?;
    let (generation, cursor) = state::generation_and_cursor(tx)?;
    let mut verdicts = Verdicts { all_accepted: true, ..Verdicts::default() };
    let mut is_stamped_anew = false;
    for (group, result) in batch.groups.iter().zip(results) {
        if let Verdict::Accepted { seq, flags, .. } = &result.verdict {
            verdicts.accepted += u64::from(accept(tx, group.local_no, (*seq, generation, cursor), now)?);
            // Up to the cursor the log has told of flags, and perhaps of what cleared them since.
            if *seq > cursor {
                flag::raise(tx, false, *seq, &group.id, flags)?;
            }
            verdicts.frees |= closing::by_winner(tx, group.local_no, now)?;
            continue;
        }
        verdicts.all_accepted = false;
        outbox::count_attempts(tx, &[group.local_no])?;
        // The log may have settled it since it was sent: then the log is right.
        let is_settled = |standing: outbox::Standing| matches!(standing.state, StoredState::Accepted | StoredState::Closed);
        if outbox::standing(tx, &group.id)?.is_none_or(is_settled) {
            continue;
        }
        if let Verdict::Incomplete { missing, .. } = &result.verdict
            && group.is_in_parts()
        {
            upload::lose(tx, group.local_no, missing)?;
        }
        match &result.verdict {
            Verdict::Rejected { rejection, .. } if rejection.code == RejectionCode::ClockSkew => {
                clock::stamp_anew(tx, server_now, &batch.device)?;
                // Stamped anew it may go at once, unless that did not help before.
                let did_not_help = outbox::waits_for(tx, group.local_no)?.as_deref() == Some(rejection.code.as_str());
                let until = now + if did_not_help { backoff.wait_ms(1, random, None) } else { 0 };
                is_stamped_anew |= !did_not_help;
                outbox::set_waiting(tx, group.local_no, rejection.code.as_str(), &rejection.message, until)?;
            }
            Verdict::Rejected { rejection, .. } => {
                let verdict = wire::result_json(result);
                let reason = Reason { code: rejection.code.as_str(), message: &rejection.message, verdict: Some(&verdict) };
                verdicts.parked.extend(park(tx, group.local_no, &reason, now)?);
                if closing::by_verdict(tx, group.local_no, rejection.code, &rejection.message, now)? {
                    verdicts.parked.remove(&group.local_no);
                    verdicts.frees = true;
                }
            }
            Verdict::Blocked { by } => {
                let by: Vec<&str> = by.iter().map(GroupId::as_str).collect();
                let (message, pace) = match by.is_empty() {
                    // That may take days: nobody is asked twice a second.
                    true => (WAITS_FOR_SERVER.to_owned(), outbox::attempts(tx, group.local_no)?.saturating_add(2)),
                    false => (format!("it waits for {}", by.join(", ")), 3),
                };
                // What waits for one that was stamped anew goes again with it.
                let wait_ms = backoff.wait_ms(pace, random, None).max(backoff.first_ms);
                let until = if is_stamped_anew { now } else { now + wait_ms };
                outbox::set_waiting(tx, group.local_no, "blocked", &message, until)?;
            }
            Verdict::Incomplete { message, .. } if outbox::count_incomplete(tx, group.local_no)? >= INCOMPLETE_ATTEMPTS => {
                let reason = Reason { code: "incomplete", message, verdict: None };
                verdicts.parked.extend(park(tx, group.local_no, &reason, now)?);
            }
            Verdict::Accepted { .. } | Verdict::Incomplete { .. } | Verdict::Unknown => {}
        }
    }
    Ok(verdicts)
}

/// The records of a batch's group, for a trace.
pub(crate) fn traced(connection: &Connection, group: &BatchGroup) -> Result<Vec<(RecordKey, &'static str)>, Error> {
    let changes = match &group.changes_json {
        Some(changes_json) => outbox::read_changes(changes_json)?,
        None => outbox::changes_of(connection, group.local_no)?,
    };
    Ok(changes.into_iter().map(|change| (change.key, change.edit.action())).collect())
}
