//! The sending half of a round: batches out, verdicts in, and what to do when a request is refused as a whole.
//!
//! Two batches may be on their way at a time, so that device and server work at once. Invariant: they share no dependency,
//! both are durably noted as in flight before they leave, and the verdicts of one are applied in the transaction that notes
//! the next. Under a schema there is one at a time: what comes in and what goes out of a stock share no dependency, and yet
//! the second is refused if it overtakes the first. A group that no request holds is uploaded beside them (`upload.rs`).
//!
//! Rejected alternative: waiting for each answer before planning on; half of the time nobody would work.

use super::exchange::{Exchanged, exchange, is_too_large};
use super::options::{SentBatch, SentGroup, SyncError};
use super::round::Round;
use super::upload::{LandedPart, Stalled, Upload};
use crate::environment::BoxFuture;
use crate::error::Error;
use crate::push::{self, Batch, Walk};
use crate::requeue::requeue;
use crate::settle::{Reason, park};
use crate::store::{outbox, state};
use crate::transport::Method;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gbsync_core::fault;
use gbsync_core::id::{BatchId, GroupId};
use gbsync_core::retry::{Backoff, Step};
use gbsync_core::wire::{PushAnswer, WireError, parse_answer};
use std::collections::{BTreeMap, BTreeSet};

/// Batches that may be on their way at a time.
const WINDOW: usize = 2;

/// How long a turn of a round begins to send batches, in milliseconds: then the log is read, and the next turn sends on.
const SENDING_MS: u64 = 10 * 1000;

/// How carefully to send, after a request was refused as a whole.
#[derive(Default)]
pub(super) struct Care {
    batches: u64,
    /// Whether the server decides by a schema, which may refuse a group that overtakes another.
    pub(super) keeps_order: bool,
    /// Most groups of a batch.
    most_groups: Option<usize>,
    /// A group that was refused alone without a reason that points at it.
    suspect: Option<Suspect>,
    /// Groups that a refusal pointed at once: perhaps the request was damaged on its way.
    pub(super) pointed_at: BTreeSet<i64>,
    /// The groups in the report.
    parked: BTreeSet<GroupId>,
    /// Groups in parts that rest until a later round.
    pub(super) stalled: BTreeMap<i64, Stalled>,
}

struct Suspect {
    local_no: i64,
    code: String,
    reason: String,
}

impl Care {
    fn window(&self) -> usize {
        if self.keeps_order || self.most_groups.is_some() || self.suspect.is_some() { 1 } else { WINDOW }
    }

    pub(super) fn has_stalled(&self, local_no: i64) -> bool {
        self.stalled.contains_key(&local_no)
    }

    fn after_answer(&mut self) {
        self.most_groups = self.most_groups.and_then(|most| most.checked_mul(2)).filter(|most| *most < 1_000);
    }
}

/// A batch that came back, or did not.
pub(super) struct Returned {
    batch: Batch,
    body: Vec<u8>,
    exchanged: Exchanged<PushAnswer>,
}

/// What comes back.
pub(super) enum Landed {
    Batch(Returned),
    Part(LandedPart),
}

/// What is on its way.
#[derive(Default)]
pub(super) struct Flight<'c> {
    pub(super) requests: FuturesUnordered<BoxFuture<'c, Landed>>,
    /// The groups of ordinary batches.
    local_nos: BTreeSet<i64>,
    /// The group that is uploaded, and whether a part of it is on its way, or the push that ends it.
    pub(super) upload: Option<Upload>,
    pub(super) has_part: bool,
    ending: Option<i64>,
}

impl Flight<'_> {
    fn batches(&self) -> usize {
        self.requests.len() - usize::from(self.has_part) - usize::from(self.ending.is_some())
    }

    pub(super) fn is_uploading(&self) -> bool {
        self.has_part || self.ending.is_some()
    }

    /// The groups of pushes that are on their way.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = i64> {
        self.local_nos.iter().copied().chain(self.ending)
    }

    fn note(&mut self, batch: &Batch) {
        match batch.is_in_parts() {
            true => self.ending = batch.local_nos().first().copied(),
            false => self.local_nos.extend(batch.local_nos()),
        }
    }

    fn forget(&mut self, batch: &Batch) {
        if batch.is_in_parts() {
            (self.ending, self.upload) = (None, None);
        }
        self.local_nos.retain(|local_no| !batch.local_nos().contains(local_no));
    }

    fn forget_all(&mut self) {
        self.local_nos.clear();
        (self.ending, self.upload) = (None, None);
    }
}

impl<'c> Round<'c> {
    /// Sends what is sealed by now, or as much of it as goes in [`SENDING_MS`]. The rest, and what is sealed meanwhile, waits until
    /// the log was read: a device whose people never rest, or whose pushes fail again and again, would see nothing of what
    /// others do.
    pub(super) async fn push(&mut self) -> Result<(), SyncError> {
        let path = format!("{}/push", self.space_path(&self.state()?));
        self.until = self.client.store().write(|tx| outbox::last_no(tx))?;
        let mut walk = self.walk();
        let mut flight = Flight::default();
        let (mut refused, mut refused_part, mut accepted) = (Vec::new(), None, 0);
        let (began, before) = (self.now(), self.care.batches);
        loop {
            let may_send = refused.is_empty() && refused_part.is_none();
            // Whom a suspicion falls on is found out in one turn. Each turn sends something, whatever the clock says.
            let may_rest = self.care.batches > before && self.care.suspect.is_none();
            let is_over = may_rest && self.now().saturating_sub(began) >= SENDING_MS;
            while may_send && !is_over && flight.batches() < self.care.window() {
                let Some(batch) = self.take_verdicts_and_plan(&mut walk, None, &flight, true)? else { break };
                self.launch(&mut flight, &path, batch)?;
            }
            if may_send && !is_over {
                self.upload_on(&mut flight, &walk, &path)?;
            }
            match flight.requests.next().await {
                Some(Landed::Batch(mut returned)) => match returned.exchanged.answer.take() {
                    Some(answer) => {
                        flight.forget(&returned.batch);
                        self.acquit(&returned.batch)?;
                        let may_plan = may_send && !is_over && flight.batches() < self.care.window();
                        let answered = Some((returned.batch, answer));
                        if let Some(batch) = self.take_verdicts_and_plan(&mut walk, answered, &flight, may_plan)? {
                            self.launch(&mut flight, &path, batch)?;
                        }
                    }
                    // It stays noted as in flight until it is settled.
                    None => refused.push(returned),
                },
                Some(Landed::Part(landed)) => {
                    refused_part = self.part_landed(&mut flight, landed)?;
                    if flight.upload.is_none() {
                        walk = self.walk();
                    }
                }
                None if !may_send => {
                    self.settle_refused(&path, std::mem::take(&mut refused), &mut walk).await?;
                    if let Some(landed) = refused_part.take() {
                        self.settle_part(landed).await?;
                    }
                    flight.forget_all();
                    walk = self.walk();
                }
                None if is_over => {
                    self.has_more = true;
                    return Ok(());
                }
                // What a group in parts waited for was perhaps accepted since the walk passed it.
                None if walk.has_waiting_large && self.report.accepted > accepted => {
                    accepted = self.report.accepted;
                    walk = self.walk();
                }
                None => break,
            }
        }
        match self.care.suspect.take() {
            None => self.report_stalled(),
            // No other group was there to tell whether the group or the envelope is at fault.
            Some(suspect) => Err(self.stop(&suspect.code, &suspect.reason)?),
        }
    }

    fn walk(&self) -> Walk {
        Walk::new(&self.limits, self.until)
    }

    /// One transaction: the verdicts of a batch, and the intent to send the next.
    fn take_verdicts_and_plan(
        &mut self,
        walk: &mut Walk,
        answered: Option<(Batch, PushAnswer)>,
        flight: &Flight<'_>,
        may_plan: bool,
    ) -> Result<Option<Batch>, SyncError> {
        if answered.is_some() {
            fault::point("verdicts arrived");
        }
        let (clocks, random) = (self.clocks(), self.client.environment().random_u64());
        let (limits, most_groups) = (self.limits, self.care.most_groups.unwrap_or(usize::MAX));
        let mut until = self.until;
        let (verdicts, batch) = self.client.store().write(|tx| {
            let mut verdicts = None;
            if let Some((batch, answer)) = &answered {
                let applied = push::apply(tx, batch, &answer.results, &Backoff::default(), random, clocks)?;
                if applied.frees && requeue(tx, self.client.environment(), self.client.limits())? > 0 {
                    until = outbox::last_no(tx)?;
                    walk.until = until;
                }
                // What depends on a group in parts was passed over while it was uploaded.
                if !applied.all_accepted || batch.is_in_parts() {
                    *walk = Walk::new(&limits, until);
                }
                verdicts = Some(applied);
            }
            let batch =
                if may_plan { walk.next(tx, most_groups, &flight.local_nos, &self.senders, clocks.now)? } else { None };
            let mut in_flight: Vec<i64> = flight.in_flight().collect();
            in_flight.extend(batch.iter().flat_map(Batch::local_nos));
            state::set_in_flight(tx, &in_flight)?;
            #[cfg(feature = "mutants")]
            crate::planted::forget_sent(tx, &in_flight)?;
            Ok::<_, Error>((verdicts, batch))
        })?;
        fault::point(if verdicts.is_some() { "verdicts were taken" } else { "groups were noted as in flight" });
        self.until = until;
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
    pub(super) fn launch(&mut self, flight: &mut Flight<'c>, path: &str, batch: Batch) -> Result<(), SyncError> {
        self.trace(&batch)?;
        flight.note(&batch);
        self.report.requests += 1;
        let id = BatchId::new(self.client.environment().uuid()).expect("a UUID is a valid id");
        let (body, path) = (batch.body(&id).into_bytes(), path.to_owned());
        let (transport, timeout_ms) = (self.transport, self.options.request_timeout_ms);
        flight.requests.push(Box::pin(async move {
            let read = |answer: &[u8]| read_answer(&batch, answer);
            let exchanged = exchange(transport, Method::Post, path, Some(body.clone()), timeout_ms, read).await;
            Landed::Batch(Returned { batch, body, exchanged })
        }));
        Ok(())
    }

    fn trace(&mut self, batch: &Batch) -> Result<(), Error> {
        self.care.batches += 1;
        self.report.pushed += batch.groups.len() as u64;
        let Some(on_batch) = &self.options.on_batch else { return Ok(()) };
        let groups = batch.groups.iter().map(|group| {
            let changes = push::traced(&self.client.store().writer(), group)?;
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
        self.act_on(&batch.local_nos(), &exchanged).await
    }

    /// Does what a refusal of a whole request asks for.
    pub(super) async fn act_on<T>(&mut self, local_nos: &[i64], exchanged: &Exchanged<T>) -> Result<(), SyncError> {
        match exchanged.step {
            Step::ParkGroup(index) if index < local_nos.len() => {
                // Once is no proof: the same bytes again, and only then is it the group.
                if self.care.pointed_at.insert(local_nos[index]) {
                    return Ok(());
                }
                self.park(local_nos[index], &exchanged.code, &exchanged.reason)?;
            }
            Step::ParkGroup(_) | Step::SendLess => self.send_less(local_nos, &exchanged.code, &exchanged.reason)?,
            Step::SignInAs(index) if index < local_nos.len() => {
                let author = self.client.store().write(|tx| outbox::pending_head(tx, local_nos[index]))?;
                match author.and_then(|stored| stored.header.actor) {
                    Some(author) => self.senders.refuse(author),
                    None => return Err(self.nobody_signed_in(exchanged)?),
                }
            }
            Step::SignInAs(_) => return Err(self.nobody_signed_in(exchanged)?),
            Step::NewEpoch => {
                self.want_new_epoch()?;
                self.rebase().await?;
            }
            Step::Resync => self.resync().await?,
            _ => return Err(self.stopped("the push was refused", exchanged)?),
        }
        Ok(())
    }

    pub(super) fn count_attempts(&self, refused: &[Returned], and: &[i64]) -> Result<(), Error> {
        self.client.store().write(|tx| {
            for returned in refused {
                outbox::count_attempts(tx, &returned.batch.local_nos())?;
            }
            outbox::count_attempts(tx, and)?;
            state::set_in_flight(tx, &[])
        })
    }

    /// The request was refused as a whole: find out whether one group is at fault.
    pub(super) fn send_less(&mut self, local_nos: &[i64], code: &str, reason: &str) -> Result<(), SyncError> {
        if local_nos.len() > 1 {
            self.care.most_groups = Some(local_nos.len() / 2);
            return Ok(());
        }
        let local_no = local_nos[0];
        if is_too_large(code) {
            return Ok(self.park(local_no, "too_large", reason)?);
        }
        if self.care.suspect.as_ref().is_some_and(|suspect| suspect.local_no != local_no) {
            // Two different groups alone: it is the envelope.
            self.care.suspect = None;
            self.client.store().write(|tx| outbox::clear_waits(tx))?;
            return Err(self.stop(code, reason)?);
        }
        let until = self.now() + Backoff::default().most_ms;
        self.client.store().write(|tx| outbox::set_waiting(tx, local_no, code, reason, until))?;
        self.care.suspect = Some(Suspect { local_no, code: code.to_owned(), reason: reason.to_owned() });
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

    pub(super) fn park(&mut self, local_no: i64, code: &str, message: &str) -> Result<(), Error> {
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
