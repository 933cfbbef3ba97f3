//! The sending half of a round: batches out, verdicts in, and what to do when a request is refused as a whole.
//!
//! Two batches may be on their way at a time, so that device and server work at once. Invariant: they share no dependency,
//! both are durably noted as in flight before they leave, and the verdicts of one are applied in the transaction that notes
//! the next.
//!
//! Rejected alternative: waiting for each answer before planning on; half of the time nobody would work.

use super::exchange::{Exchanged, exchange};
use super::options::{SentBatch, SentGroup, SyncError};
use super::round::Round;
use crate::environment::BoxFuture;
use crate::error::Error;
use crate::push::{self, Batch, Walk};
use crate::settle::{Reason, park};
use crate::store::{outbox, state};
use crate::transport::Method;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gbsync_core::id::{BatchId, GroupId};
use gbsync_core::retry::{Backoff, Step};
use gbsync_core::wire::{PushAnswer, WireError, parse_answer};
use std::collections::BTreeSet;

/// Batches that may be on their way at a time.
const WINDOW: usize = 2;

/// How carefully to send, after a request was refused as a whole.
#[derive(Default)]
pub(super) struct Care {
    batches: u64,
    /// Most groups of a batch.
    most_groups: Option<usize>,
    /// A group that was refused alone without a reason that points at it.
    suspect: Option<Suspect>,
    /// Groups that a refusal pointed at once: perhaps the request was damaged on its way.
    pointed_at: BTreeSet<i64>,
    /// The groups in the report.
    parked: BTreeSet<GroupId>,
}

struct Suspect {
    local_no: i64,
    code: String,
    reason: String,
}

impl Care {
    fn window(&self) -> usize {
        if self.most_groups.is_some() || self.suspect.is_some() { 1 } else { WINDOW }
    }

    fn after_answer(&mut self) {
        self.most_groups = self.most_groups.and_then(|most| most.checked_mul(2)).filter(|most| *most < 1_000);
    }
}

/// A batch that came back, or did not.
struct Returned {
    batch: Batch,
    body: Vec<u8>,
    exchanged: Exchanged<PushAnswer>,
}

/// The batches on their way.
#[derive(Default)]
struct Flight<'c> {
    requests: FuturesUnordered<BoxFuture<'c, Returned>>,
    local_nos: BTreeSet<i64>,
}

impl<'c> Round<'c> {
    pub(super) async fn push(&mut self) -> Result<(), SyncError> {
        let path = format!("{}/push", self.space_path(&self.state()?));
        let mut walk = Walk::new(&self.limits);
        let mut flight = Flight::default();
        let mut refused: Vec<Returned> = Vec::new();
        loop {
            while refused.is_empty() && flight.requests.len() < self.care.window() {
                let Some(batch) = self.take_verdicts_and_plan(&mut walk, None, &flight, true)? else { break };
                self.launch(&mut flight, &path, batch)?;
            }
            match flight.requests.next().await {
                Some(mut returned) => {
                    match returned.exchanged.answer.take() {
                        Some(answer) => {
                            flight.local_nos.retain(|local_no| !returned.batch.local_nos().contains(local_no));
                            self.acquit(&returned.batch)?;
                            let may_plan = refused.is_empty() && flight.requests.len() < self.care.window();
                            let answered = Some((returned.batch, answer));
                            if let Some(batch) = self.take_verdicts_and_plan(&mut walk, answered, &flight, may_plan)? {
                                self.launch(&mut flight, &path, batch)?;
                            }
                        }
                        // It stays noted as in flight until it is settled.
                        None => refused.push(returned),
                    }
                }
                None if refused.is_empty() => break,
                None => {
                    self.settle_refused(&path, std::mem::take(&mut refused), &mut walk).await?;
                    flight.local_nos.clear();
                    walk = Walk::new(&self.limits);
                }
            }
        }
        match self.care.suspect.take() {
            None => Ok(()),
            // No other group was there to tell whether the group or the envelope is at fault.
            Some(suspect) => Err(self.stop(&suspect.code, &suspect.reason)?),
        }
    }

    /// One transaction: the verdicts of a batch, and the intent to send the next.
    fn take_verdicts_and_plan(
        &mut self,
        walk: &mut Walk,
        answered: Option<(Batch, PushAnswer)>,
        flight: &Flight<'_>,
        may_plan: bool,
    ) -> Result<Option<Batch>, SyncError> {
        let (clocks, random) = (self.clocks(), self.client.environment().random_u64());
        let (limits, most_groups) = (self.limits, self.care.most_groups.unwrap_or(usize::MAX));
        let (verdicts, batch) = self.client.store().write(|tx| {
            let mut verdicts = None;
            if let Some((batch, answer)) = &answered {
                let applied = push::apply(tx, batch, &answer.results, &Backoff::default(), random, clocks)?;
                if !applied.all_accepted {
                    *walk = Walk::new(&limits);
                }
                verdicts = Some(applied);
            }
            let batch = if may_plan { walk.next(tx, most_groups, &flight.local_nos, clocks.now)? } else { None };
            let mut in_flight: Vec<i64> = flight.local_nos.iter().copied().collect();
            in_flight.extend(batch.iter().flat_map(Batch::local_nos));
            state::set_in_flight(tx, &in_flight)?;
            Ok::<_, Error>((verdicts, batch))
        })?;
        if let Some(verdicts) = verdicts {
            self.care.after_answer();
            self.report.accepted += verdicts.accepted;
            self.note_parked(&verdicts.parked)?;
            self.client.notify();
        }
        Ok(batch)
    }

    fn note_parked(&mut self, local_nos: &BTreeSet<i64>) -> Result<(), Error> {
        // A group that was parked behind another may be refused once more by the server, with its own words.
        let infos = self.client.infos(local_nos)?;
        let again: BTreeSet<_> =
            infos.iter().map(|info| &info.group_id).filter(|id| !self.care.parked.insert((*id).clone())).collect();
        if !again.is_empty() {
            self.report.parked.retain(|known| !again.contains(&known.group_id));
        }
        drop(again);
        self.report.parked.extend(infos);
        Ok(())
    }

    /// Puts a batch that is noted as in flight on its way.
    fn launch(&mut self, flight: &mut Flight<'c>, path: &str, batch: Batch) -> Result<(), SyncError> {
        self.trace(&batch)?;
        flight.local_nos.extend(batch.local_nos());
        self.report.requests += 1;
        let id = BatchId::new(self.client.environment().uuid()).expect("a UUID is a valid id");
        let (body, path) = (batch.body(&id).into_bytes(), path.to_owned());
        let (transport, timeout_ms) = (self.transport, self.options.request_timeout_ms);
        flight.requests.push(Box::pin(async move {
            let read = |answer: &[u8]| read_answer(&batch, answer);
            let exchanged = exchange(transport, Method::Post, path, Some(body.clone()), timeout_ms, read).await;
            Returned { batch, body, exchanged }
        }));
        Ok(())
    }

    fn trace(&mut self, batch: &Batch) -> Result<(), Error> {
        self.care.batches += 1;
        self.report.pushed += batch.groups.len() as u64;
        let Some(on_batch) = &self.options.on_batch else { return Ok(()) };
        let groups = batch.groups.iter().map(|group| {
            let changes = push::traced(group)?;
            Ok(SentGroup { id: group.id.clone(), group_type: group.group_type.clone(), changes })
        });
        let groups = groups.collect::<Result<Vec<_>, Error>>()?;
        on_batch(&SentBatch { number: self.care.batches, records: batch.records(), groups });
        Ok(())
    }

    /// Deals with requests that brought no answer, when nothing else is on its way.
    async fn settle_refused(&mut self, path: &str, refused: Vec<Returned>, walk: &mut Walk) -> Result<(), SyncError> {
        let mut refused = refused.into_iter();
        let Some(Returned { batch, body, exchanged }) = refused.next() else { return Ok(()) };
        let read = |answer: &[u8]| read_answer(&batch, answer);
        let mut exchanged = self.insist(exchanged, Method::Post, path.to_owned(), Some(body), read).await;
        if let Ok(exchanged) = &mut exchanged
            && let Some(answer) = exchanged.answer.take()
        {
            self.acquit(&batch)?;
            self.count_attempts(refused.as_slice(), &[])?;
            self.take_verdicts_and_plan(walk, Some((batch, answer)), &Flight::default(), false)?;
            return Ok(());
        }
        // Nothing is on its way any more: the groups wait for the next batch that takes them.
        self.count_attempts(refused.as_slice(), &batch.local_nos())?;
        let exchanged = exchanged?;
        match exchanged.step {
            Step::ParkGroup(index) if index < batch.groups.len() => {
                // Once is no proof: the same bytes again, and only then is it the group.
                if self.care.pointed_at.insert(batch.groups[index].local_no) {
                    return Ok(());
                }
                self.park(batch.groups[index].local_no, &exchanged.code, &exchanged.reason)?;
            }
            Step::ParkGroup(_) | Step::SendLess => self.send_less(&batch, &exchanged)?,
            Step::NewEpoch => {
                self.want_new_epoch()?;
                self.rebase().await?;
            }
            Step::Resync => self.rebase().await?,
            _ => return Err(self.stopped("the push was refused", &exchanged)?),
        }
        Ok(())
    }

    fn count_attempts(&self, refused: &[Returned], and: &[i64]) -> Result<(), Error> {
        self.client.store().write(|tx| {
            for returned in refused {
                outbox::count_attempts(tx, &returned.batch.local_nos())?;
            }
            outbox::count_attempts(tx, and)?;
            state::set_in_flight(tx, &[])
        })
    }

    /// The request was refused as a whole: find out whether one group is at fault.
    fn send_less(&mut self, batch: &Batch, exchanged: &Exchanged<PushAnswer>) -> Result<(), SyncError> {
        if batch.groups.len() > 1 {
            self.care.most_groups = Some(batch.groups.len() / 2);
            return Ok(());
        }
        let local_no = batch.groups[0].local_no;
        if exchanged.code == "too_large" || exchanged.code == "status_413" {
            return Ok(self.park(local_no, "too_large", &exchanged.reason)?);
        }
        if self.care.suspect.as_ref().is_some_and(|suspect| suspect.local_no != local_no) {
            // Two different groups alone: it is the envelope.
            self.care.suspect = None;
            self.client.store().write(|tx| outbox::clear_waits(tx))?;
            return Err(self.stop(&exchanged.code, &exchanged.reason)?);
        }
        let (code, reason) = (exchanged.code.clone(), exchanged.reason.clone());
        let until = self.now() + Backoff::default().most_ms;
        self.client.store().write(|tx| outbox::set_waiting(tx, local_no, &code, &reason, until))?;
        self.care.suspect = Some(Suspect { local_no, code, reason });
        self.care.most_groups = Some(1);
        Ok(())
    }

    /// Another group got an answer alone, so the suspect was at fault.
    fn acquit(&mut self, batch: &Batch) -> Result<(), SyncError> {
        match self.care.suspect.take() {
            Some(suspect) if batch.groups.iter().all(|group| group.local_no != suspect.local_no) => {
                Ok(self.park(suspect.local_no, &suspect.code, &suspect.reason)?)
            }
            _ => Ok(()),
        }
    }

    fn park(&mut self, local_no: i64, code: &str, message: &str) -> Result<(), Error> {
        let now = self.now();
        let parked = self.client.store().write(|tx| park(tx, local_no, &Reason { code, message, verdict: None }, now))?;
        self.note_parked(&parked)?;
        self.client.notify();
        Ok(())
    }
}

/// An answer counts only if it is about exactly this batch.
fn read_answer(batch: &Batch, answer: &[u8]) -> Result<PushAnswer, WireError> {
    let answer = parse_answer(answer)?;
    if batch.fits(&answer.results) {
        return Ok(answer);
    }
    Err(WireError { pointer: "/results".into(), message: "are not the results of this batch".into() })
}
