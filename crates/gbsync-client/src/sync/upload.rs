//! A group that no request holds, on its way beside the queue: its parts are staged one after the other while ordinary
//! batches go on, and then it is pushed alone, by its parts.
//!
//! Invariant: which parts the server has is durable before the next one is sent, so a crash costs one part; where the cuts
//! are never changes during an upload, unless a part is refused as too large: then it begins anew with smaller ones.
//!
//! Rejected alternative: sending parts as if they were batches. A part has no verdict, and a group that needs hours must
//! not hold up the sales behind it.

use super::exchange::{Exchanged, exchange};
use super::options::{SyncError, Transfer};
use super::round::{ROUND_BACKOFF, Round, encoded};
use super::send::{Flight, Landed};
use crate::error::Error;
use crate::push::{Batch, Walk};
use crate::store::{outbox, state, upload};
use crate::transport::Method;
use gbsync_core::fault;
use gbsync_core::id::GroupId;
use gbsync_core::retry::{Backoff, Step};
use gbsync_core::wire::{WireError, cut, parse_part_answer, part_json};
use std::collections::BTreeSet;
use std::ops::Range;

/// The group that is being uploaded.
pub(super) struct Upload {
    pub(super) local_no: i64,
    group_id: GroupId,
    changes: Box<str>,
    part_bytes: u64,
    cuts: Vec<Range<usize>>,
    staged: BTreeSet<u64>,
}

/// A part that came back, or did not.
pub(super) struct LandedPart {
    local_no: i64,
    number: u64,
    exchanged: Exchanged<u64>,
}

/// Why an upload rests until a later round.
pub(super) struct Stalled {
    step: Step,
    code: String,
    reason: String,
}

impl Upload {
    fn next(&self) -> Option<u64> {
        (0..self.cuts.len() as u64).find(|number| !self.staged.contains(number))
    }

    fn cut_at(&mut self, part_bytes: u64) {
        self.cuts = cut(&self.changes, part_bytes);
        self.part_bytes = part_bytes;
    }

    fn transfer(&self) -> Transfer {
        let (done, parts) = (self.staged.len() as u64, self.cuts.len() as u64);
        Transfer { group_id: self.group_id.clone(), is_upload: true, done, parts }
    }
}

impl<'c> Round<'c> {
    /// Puts the next thing of an upload on its way: a part, or at the end the push that names the parts.
    pub(super) fn upload_on(&mut self, flight: &mut Flight<'c>, walk: &Walk, path: &str) -> Result<(), SyncError> {
        if flight.is_uploading() {
            return Ok(());
        }
        let mut upload = match (flight.upload.take(), walk.large) {
            (Some(upload), _) => upload,
            (None, Some(local_no)) if !self.care.has_stalled(local_no) => match self.begin_upload(local_no)? {
                Some(upload) => upload,
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        match upload.next() {
            Some(number) => self.launch_part(flight, &mut upload, number)?,
            None => {
                let parts = upload.cuts.len() as u64;
                let in_flight: Vec<i64> = flight.in_flight().chain([upload.local_no]).collect();
                let batch = self.client.store().write(|tx| {
                    state::set_in_flight(tx, &in_flight)?;
                    Batch::in_parts(tx, upload.local_no, parts)
                })?;
                // The log settled it meanwhile: then there is nothing left to send.
                let Some(batch) = batch else { return Ok(()) };
                self.launch(flight, path, batch)?;
            }
        }
        flight.upload = Some(upload);
        Ok(())
    }

    /// Takes an upload up where it was, or begins it.
    fn begin_upload(&self, local_no: i64) -> Result<Option<Upload>, Error> {
        let request_bytes = self.limits.request_bytes;
        self.client.store().write(|tx| {
            let Some(stored) = outbox::pending_head(tx, local_no)? else { return Ok(None) };
            let (group_id, is_over) = (stored.header.id, self.is_over(stored.records, stored.bytes));
            let changes = outbox::changes_text(tx, local_no)?;
            let progress = match upload::read(tx, local_no)? {
                Some(progress) => progress,
                None => {
                    upload::begin(tx, local_no, request_bytes)?;
                    upload::Progress { part_bytes: request_bytes, staged: BTreeSet::new() }
                }
            };
            let mut upload =
                Upload { local_no, group_id, changes, part_bytes: 0, cuts: Vec::new(), staged: progress.staged };
            upload.cut_at(progress.part_bytes);
            if is_over {
                // The server will reject it by what the push says of it; its parts would only be in the way.
                upload.staged = (0..upload.cuts.len() as u64).collect();
            }
            Ok(Some(upload))
        })
    }

    fn is_over(&self, records: u64, bytes: u64) -> bool {
        records > self.limits.group_records || bytes > self.limits.group_bytes
    }

    /// Sends a part, several times if need be: ordinary batches go on meanwhile.
    fn launch_part(&mut self, flight: &mut Flight<'c>, upload: &mut Upload, number: u64) -> Result<(), SyncError> {
        fault::point("a part leaves");
        let state = self.state()?;
        let (space, group, device) = (self.space_path(&state), encoded(&upload.group_id), encoded(&state.device));
        let path = format!("{space}/groups/{group}/parts/{number}?device={device}");
        let index = usize::try_from(number).expect("a part's number is the place of its cut");
        let body = part_json(&upload.changes, &upload.cuts[index]).into_bytes();
        let (transport, timeout_ms, attempts) = (self.transport, self.options.request_timeout_ms, self.attempts);
        let (environment, local_no) = (self.client.environment(), upload.local_no);
        self.report.requests += 1;
        flight.has_part = true;
        flight.requests.push(Box::pin(async move {
            let mut failures = 0;
            loop {
                let read = |answer: &[u8]| read_answer(answer, number);
                let exchanged = exchange(transport, Method::Put, path.clone(), Some(body.clone()), timeout_ms, read).await;
                failures += 1;
                if exchanged.step != Step::Retry || failures >= attempts {
                    return Landed::Part(LandedPart { local_no, number, exchanged });
                }
                let wait_ms = ROUND_BACKOFF.wait_ms(failures, environment.random_u64(), exchanged.retry_after_ms);
                environment.timer.sleep(wait_ms.min(ROUND_BACKOFF.most_ms)).await;
            }
        }));
        Ok(())
    }

    /// Takes the answer to a part. Answers what is to be settled when nothing else is on its way.
    pub(super) fn part_landed(
        &mut self,
        flight: &mut Flight<'c>,
        landed: LandedPart,
    ) -> Result<Option<LandedPart>, SyncError> {
        fault::point("a part was answered");
        flight.has_part = false;
        let LandedPart { local_no, number, exchanged } = &landed;
        let Some(upload) = flight.upload.as_mut().filter(|upload| upload.local_no == *local_no) else { return Ok(None) };
        match exchanged.step {
            Step::Take => {
                self.client.store().write(|tx| upload::acknowledge(tx, *local_no, *number))?;
                upload.staged.insert(*number);
                if let Some(on_transfer) = &self.options.on_transfer {
                    on_transfer(&upload.transfer());
                }
            }
            Step::SendLess if exchanged.is_too_large() => {
                let cut = usize::try_from(*number).ok().and_then(|index| upload.cuts.get(index).cloned());
                let bytes = cut.as_ref().map_or(0, |cut| cut.len() as u64 + 2);
                let smaller = bytes.min(upload.part_bytes) / 2;
                upload.cut_at(smaller);
                if cut.is_none_or(|cut| upload.cuts.contains(&cut)) {
                    // One change alone: there is nothing left to cut.
                    flight.upload = None;
                    self.park(*local_no, "too_large", &exchanged.reason)?;
                    return Ok(None);
                }
                upload.staged.clear();
                self.client.store().write(|tx| upload::begin(tx, *local_no, smaller))?;
            }
            Step::SignIn | Step::SignInAs(_) | Step::NewEpoch | Step::Resync | Step::SendLess | Step::ParkGroup(_) => {
                flight.upload = None;
                return Ok(Some(landed));
            }
            Step::Retry | Step::Bug => {
                flight.upload = None;
                self.stall(landed)?;
            }
        }
        Ok(None)
    }

    /// Lets an upload rest: whatever is between here and the server takes no parts now, and others must not wait for that.
    fn stall(&mut self, landed: LandedPart) -> Result<(), Error> {
        let LandedPart { local_no, exchanged, .. } = landed;
        let Exchanged { step, code, reason, .. } = exchanged;
        let wait_ms = Backoff::default().wait_ms(3, self.client.environment().random_u64(), exchanged.retry_after_ms);
        let until = self.now() + wait_ms.max(Backoff::default().first_ms);
        self.client.store().write(|tx| {
            outbox::count_attempts(tx, &[local_no])?;
            outbox::set_waiting(tx, local_no, &code, &reason, until)
        })?;
        self.care.stalled.insert(local_no, Stalled { step, code, reason });
        Ok(())
    }

    /// Deals with a part that was refused in a way that is not about this part alone.
    pub(super) async fn settle_part(&mut self, landed: LandedPart) -> Result<(), SyncError> {
        let LandedPart { local_no, exchanged, .. } = landed;
        self.count_attempts(&[], &[local_no])?;
        match exchanged.step {
            Step::SignIn | Step::SignInAs(_) => Err(self.nobody_signed_in(&exchanged)?),
            // Once is no proof: the same bytes again, and only then is it the group.
            Step::SendLess if exchanged.is_pointed && self.care.pointed_at.insert(local_no) => Ok(()),
            Step::SendLess if exchanged.is_pointed => Ok(self.park(local_no, &exchanged.code, &exchanged.reason)?),
            Step::SendLess | Step::ParkGroup(_) => self.send_less(&[local_no], &exchanged.code, &exchanged.reason),
            _ => self.act_on(&[local_no], &exchanged).await,
        }
    }

    /// How a push ends in which an upload stalled: as far as the others go, it is done.
    pub(super) fn report_stalled(&mut self) -> Result<(), SyncError> {
        let Some((_, Stalled { step, code, reason })) = self.care.stalled.pop_first() else { return Ok(()) };
        if step != Step::Retry {
            return Err(self.stop(&code, &format!("a part of a large group was refused: {reason}"))?);
        }
        let wait_ms = Backoff::default().wait_ms(1, self.client.environment().random_u64(), None);
        self.fail(&code, &reason, Some(self.now() + wait_ms))?;
        Err(SyncError::NotReached { reason })
    }
}

/// An answer counts only if it is about this part.
fn read_answer(answer: &[u8], number: u64) -> Result<u64, WireError> {
    match parse_part_answer(answer)? {
        part if part == number => Ok(part),
        _ => Err(WireError { pointer: "/part".into(), message: "is not the part that was sent".into() }),
    }
}
