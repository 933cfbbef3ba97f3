//! One round: handshake, push until nothing may be sent, pull to the head.

use super::exchange::{Exchanged, exchange};
use super::options::{SentBatch, SentGroup, SyncError, SyncOptions, SyncReport};
use crate::client::Client;
use crate::error::Error;
use crate::push::{self, Batch, Walk};
use crate::settle::{Reason, park};
use crate::store::outbox;
use crate::store::state::{self, LastError, State};
use crate::transport::{Method, Transport};
use crate::{epoch, pull};
use gbsync_core::id::{BatchId, LogId, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::retry::{Backoff, Step};
use gbsync_core::time::Timestamp;
use gbsync_core::wire::{Handshake, LogPage, PushAnswer, WireError, parse_answer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeSet;

/// Accepted groups removed in one round.
const PRUNE_GROUPS: u32 = 5_000;
/// How often a round reads the log anew before it gives up.
const REBASES: u32 = 3;
/// Characters that stand for themselves in a path (RFC 3986, unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Waits between the attempts of one round. Short: a person may be waiting for it.
const ROUND_BACKOFF: Backoff = Backoff { first_ms: 200, most_ms: 5_000 };

pub(super) struct Round<'c> {
    client: &'c Client,
    transport: &'c dyn Transport,
    options: &'c SyncOptions,
    report: SyncReport,
    limits: Limits,
    log: Option<LogId>,
    batches: u64,
    most_groups: usize,
    /// A group that was refused alone without a reason that points at it.
    suspect: Option<Suspect>,
    rebases: u32,
    attempts: u32,
}

struct Suspect {
    local_no: i64,
    code: String,
    reason: String,
}

/// What became of a batch.
enum Sent {
    Answered(PushAnswer),
    /// The plan has to be made anew.
    Refused,
}

impl<'c> Round<'c> {
    pub(super) fn new(client: &'c Client, transport: &'c dyn Transport, options: &'c SyncOptions) -> Self {
        Self {
            client,
            transport,
            options,
            report: SyncReport::default(),
            limits: Limits::default(),
            log: None,
            batches: 0,
            most_groups: usize::MAX,
            suspect: None,
            rebases: 0,
            attempts: options.attempts.max(1),
        }
    }

    pub(super) async fn run(mut self) -> Result<SyncReport, SyncError> {
        self.begin()?;
        self.handshake().await?;
        let pushed = self.push().await;
        match pushed {
            Ok(()) => self.pull().await?,
            // A queue that is stuck does not keep the device from seeing what others did.
            Err(error @ (SyncError::NotReached { .. } | SyncError::Stopped { .. })) => {
                self.attempts = 1;
                let _ = self.pull().await;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        self.finish()
    }

    fn now(&self) -> u64 {
        self.client.environment().clock.now_ms()
    }

    fn state(&self) -> Result<State, Error> {
        state::read(&self.client.store().writer())
    }

    /// Takes up what a crash left: a batch that was on its way may have arrived or not, so it is sent again.
    fn begin(&mut self) -> Result<(), SyncError> {
        let now = self.now();
        let ignores_backoff = self.options.ignores_backoff;
        self.client.store().write(|tx| {
            let state = state::read(tx)?;
            if let Some(at) = state.next_attempt_at.filter(|at| *at > now && !ignores_backoff) {
                return Err(SyncError::BackingOff { at: Timestamp::from_unix_ms(at) });
            }
            let left = state::in_flight(tx)?;
            outbox::count_attempts(tx, &left)?;
            state::set_in_flight(tx, &[])?;
            if ignores_backoff {
                outbox::clear_waits(tx)?;
            }
            Ok(())
        })
    }

    async fn handshake(&mut self) -> Result<(), SyncError> {
        let state = self.state()?;
        let mut path =
            format!("{}?device={}&epoch={}", self.space_path(&state), encoded(&state.device), encoded(&state.epoch));
        if let Some((epoch, device_seq)) = &state.previous_epoch {
            path.push_str(&format!("&previousEpoch={}&previousDeviceSeq={device_seq}", encoded(epoch)));
        }
        let shake = self.ask(Method::Get, path, None, Handshake::parse).await?;
        let Some(shake) = shake.answer else { return Err(self.stopped("the handshake was refused", &shake)?) };
        self.client.store().write(|tx| {
            let sealed_through = outbox::next_group(tx)?.device_seq.0 - 1;
            // The server knows numbers that this database never gave: it is an old copy of itself.
            let is_old_copy = shake
                .device
                .as_ref()
                .is_some_and(|device| device.epoch == state.epoch && device.device_seq.0 > sealed_through);
            if is_old_copy {
                state::want_new_epoch(tx)?;
            }
            state::set_handshake(tx, &shake.log, shake.head, &shake.limits)
        })?;
        self.client.set_limits(shake.limits);
        self.limits = Limits {
            batch_records: self.options.batch_records.unwrap_or(shake.limits.batch_records),
            batch_bytes: self.options.batch_bytes.unwrap_or(shake.limits.batch_bytes).min(shake.limits.request_bytes / 2),
            ..shake.limits
        };
        let is_another_log = state.log.as_ref().is_some_and(|log| *log != shake.log);
        self.log = Some(shake.log);
        if is_another_log || state.rebase.is_some() || self.state()?.wants_new_epoch {
            self.rebase().await?;
        }
        Ok(())
    }

    async fn push(&mut self) -> Result<(), SyncError> {
        let mut walk = Walk::new(&self.limits);
        let mut answered: Option<(Batch, PushAnswer)> = None;
        loop {
            let batch = self.take_verdicts_and_plan(&mut walk, answered.take())?;
            let Some(batch) = batch else { break };
            self.trace(&batch)?;
            match self.send(&batch).await? {
                Sent::Answered(answer) => {
                    self.acquit(&batch)?;
                    self.most_groups = self.most_groups.saturating_mul(2);
                    answered = Some((batch, answer));
                }
                Sent::Refused => walk = Walk::new(&self.limits),
            }
        }
        match self.suspect.take() {
            None => Ok(()),
            // No other group was there to tell whether the group or the envelope is at fault.
            Some(suspect) => Err(self.stop(&suspect.code, &suspect.reason)?),
        }
    }

    /// One transaction: the verdicts of the last batch, and the intent to send the next.
    fn take_verdicts_and_plan(
        &mut self,
        walk: &mut Walk,
        answered: Option<(Batch, PushAnswer)>,
    ) -> Result<Option<Batch>, SyncError> {
        let (now, random, most_groups) = (self.now(), self.client.environment().random_u64(), self.most_groups);
        let limits = self.limits;
        let (verdicts, batch) = self.client.store().write(|tx| {
            let mut verdicts = None;
            if let Some((batch, answer)) = &answered {
                let applied = push::apply(tx, batch, &answer.results, &Backoff::default(), random, now)?;
                if !applied.all_accepted {
                    *walk = Walk::new(&limits);
                }
                verdicts = Some(applied);
            }
            let batch = walk.next(tx, most_groups, now)?;
            state::set_in_flight(tx, &batch.as_ref().map(Batch::local_nos).unwrap_or_default())?;
            Ok::<_, Error>((verdicts, batch))
        })?;
        if let Some(verdicts) = verdicts {
            self.report.accepted += verdicts.accepted;
            self.note_parked(&verdicts.parked)?;
            self.client.notify();
        }
        Ok(batch)
    }

    fn note_parked(&mut self, local_nos: &BTreeSet<i64>) -> Result<(), Error> {
        let infos = self.client.infos(local_nos)?;
        self.report.parked.retain(|known| infos.iter().all(|info| info.group_id != known.group_id));
        self.report.parked.extend(infos);
        Ok(())
    }

    fn trace(&mut self, batch: &Batch) -> Result<(), Error> {
        self.batches += 1;
        self.report.pushed += batch.groups.len() as u64;
        let Some(on_batch) = &self.options.on_batch else { return Ok(()) };
        let groups = batch.groups.iter().map(|group| {
            let changes = push::traced(group)?;
            Ok(SentGroup { id: group.id.clone(), group_type: group.group_type.clone(), changes })
        });
        let groups = groups.collect::<Result<Vec<_>, Error>>()?;
        on_batch(&SentBatch { number: self.batches, records: batch.records(), groups });
        Ok(())
    }

    async fn send(&mut self, batch: &Batch) -> Result<Sent, SyncError> {
        let id = BatchId::new(self.client.environment().uuid()).expect("a UUID is a valid id");
        let path = format!("{}/push", self.space_path(&self.state()?));
        let body = batch.body(&id).into_bytes();
        let read = |body: &[u8]| {
            let answer = parse_answer(body)?;
            if batch.fits(&answer.results) { Ok(answer) } else { Err(not_this_batch()) }
        };
        let mut exchanged = self.ask(Method::Post, path, Some(body), read).await;
        if let Ok(exchanged) = &mut exchanged
            && let Some(answer) = exchanged.answer.take()
        {
            return Ok(Sent::Answered(answer));
        }
        let local_nos = batch.local_nos();
        self.client.store().write(|tx| {
            outbox::count_attempts(tx, &local_nos)?;
            state::set_in_flight(tx, &[])
        })?;
        let exchanged = exchanged?;
        match exchanged.step {
            Step::ParkGroup(index) if index < batch.groups.len() => {
                self.park(batch.groups[index].local_no, &exchanged.code, &exchanged.reason)?;
            }
            Step::ParkGroup(_) | Step::SendLess => self.send_less(batch, &exchanged)?,
            Step::NewEpoch => {
                self.client.store().write(|tx| state::want_new_epoch(tx))?;
                self.rebase().await?;
            }
            Step::Resync => self.rebase().await?,
            _ => return Err(self.stopped("the push was refused", &exchanged)?),
        }
        Ok(Sent::Refused)
    }

    /// The request was refused as a whole: find out whether one group is at fault.
    fn send_less(&mut self, batch: &Batch, exchanged: &Exchanged<PushAnswer>) -> Result<(), SyncError> {
        if batch.groups.len() > 1 {
            self.most_groups = batch.groups.len() / 2;
            return Ok(());
        }
        let local_no = batch.groups[0].local_no;
        if exchanged.code == "too_large" || exchanged.code == "status_413" {
            return Ok(self.park(local_no, "too_large", &exchanged.reason)?);
        }
        if self.suspect.as_ref().is_some_and(|suspect| suspect.local_no != local_no) {
            // Two different groups alone: it is the envelope.
            self.suspect = None;
            self.client.store().write(|tx| outbox::clear_waits(tx))?;
            return Err(self.stop(&exchanged.code, &exchanged.reason)?);
        }
        let (code, reason) = (exchanged.code.clone(), exchanged.reason.clone());
        let until = self.now() + Backoff::default().most_ms;
        self.client.store().write(|tx| outbox::set_waiting(tx, local_no, &code, &reason, until))?;
        self.suspect = Some(Suspect { local_no, code, reason });
        self.most_groups = 1;
        Ok(())
    }

    /// Another group got an answer alone, so the suspect was at fault.
    fn acquit(&mut self, batch: &Batch) -> Result<(), SyncError> {
        match self.suspect.take() {
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

    async fn pull(&mut self) -> Result<(), SyncError> {
        loop {
            let state = self.state()?;
            let path = self.log_path(&state, state.cursor, state.log.as_ref(), state.chain.as_ref().map(|c| c.to_string()));
            let mut exchanged = self.ask(Method::Get, path, None, LogPage::parse).await?;
            let Some(page) = exchanged.answer.take() else {
                if exchanged.step != Step::Resync {
                    return Err(self.stopped("the log was refused", &exchanged)?);
                }
                self.rebase().await?;
                continue;
            };
            let is_done = self.check_progress(&page, state.cursor)?;
            let now = self.now();
            if page.next > state.cursor {
                let applied = self.client.store().write(|tx| pull::apply(tx, &page, now))?;
                self.count(applied);
            }
            if is_done {
                return Ok(());
            }
        }
    }

    /// Reads the whole log anew beside the base, then puts it in its place; begins a new epoch if one is wanted.
    async fn rebase(&mut self) -> Result<(), SyncError> {
        self.rebases += 1;
        if self.rebases > REBASES {
            return Err(SyncError::NotReached { reason: "the log changes faster than it can be read".into() });
        }
        let log = self.log.clone().ok_or_else(|| Error::Damaged("no handshake before a reading anew".into()))?;
        self.client.store().write(|tx| match state::read(tx)?.rebase {
            Some(rebase) if rebase.log.as_ref() == Some(&log) && rebase.chain.is_some() => Ok(()),
            _ => pull::begin_rebase(tx, &log),
        })?;
        loop {
            let state = self.state()?;
            let Some(rebase) = &state.rebase else { break };
            let chain = rebase.chain.as_ref().map(|chain| chain.to_string());
            let path = self.log_path(&state, rebase.cursor, rebase.log.as_ref(), chain);
            let mut exchanged = self.ask(Method::Get, path, None, LogPage::parse).await?;
            let Some(page) = exchanged.answer.take() else {
                // The log changed while it was read: the next round begins with the new one.
                self.client.store().write(|tx| pull::begin_rebase(tx, &log))?;
                let reason = format!("the log changed while it was read: {}", exchanged.reason);
                return Err(SyncError::NotReached { reason });
            };
            let is_done = self.check_progress(&page, rebase.cursor)?;
            let now = self.now();
            let applied = self.client.store().write(|tx| {
                let applied = pull::apply_next(tx, &page, now)?;
                if is_done {
                    pull::flip(tx)?;
                }
                Ok::<_, Error>(applied)
            })?;
            self.count(applied);
        }
        self.client.store().write(|tx| match state::read(tx)?.wants_new_epoch {
            true => epoch::begin(tx, self.client.environment()),
            false => Ok(()),
        })?;
        self.client.notify();
        Ok(())
    }

    fn count(&mut self, applied: pull::Applied) {
        self.report.pulled_groups += applied.groups;
        self.report.pulled_records += applied.records;
        if applied.groups > 0 {
            self.client.notify();
        }
    }

    /// Whether the page reaches the head; a page that leads nowhere is no answer.
    fn check_progress(&self, page: &LogPage, cursor: Seq) -> Result<bool, SyncError> {
        if page.next < cursor || (page.next == cursor && page.head > cursor) {
            let reason = format!("a page of the log after {cursor} ends at {} of {}", page.next, page.head);
            return Err(SyncError::NotReached { reason });
        }
        Ok(page.next >= page.head)
    }

    fn finish(mut self) -> Result<SyncReport, SyncError> {
        let before = self.now().saturating_sub(self.client.retain_accepted_ms());
        self.client.store().write(|tx| {
            outbox::prune(tx, before, PRUNE_GROUPS)?;
            state::clear_failure(tx)
        })?;
        let status = self.client.status()?;
        self.report.waiting = status.pending_groups;
        self.report.cursor = status.cursor;
        self.client.notify();
        Ok(self.report)
    }

    /// Sends a request until an answer or a refusal comes that the protocol has a word for, a few times at most.
    async fn ask<T>(
        &mut self,
        method: Method,
        path: String,
        body: Option<Vec<u8>>,
        read: impl Fn(&[u8]) -> Result<T, WireError>,
    ) -> Result<Exchanged<T>, SyncError> {
        let mut failures = 0;
        loop {
            self.report.requests += 1;
            let timeout_ms = self.options.request_timeout_ms;
            let exchanged = exchange(self.transport, method, path.clone(), body.clone(), timeout_ms, &read).await;
            match exchanged.step {
                Step::Retry => {}
                Step::SignIn => {
                    self.fail(&exchanged.code, &exchanged.reason, None)?;
                    return Err(SyncError::SignIn { reason: exchanged.reason });
                }
                _ => return Ok(exchanged),
            }
            failures += 1;
            let random = self.client.environment().random_u64();
            let total = self.state()?.failures + 1;
            let next = self.now() + Backoff::default().wait_ms(total, random, exchanged.retry_after_ms);
            self.fail(&exchanged.code, &exchanged.reason, Some(next))?;
            if failures >= self.attempts {
                return Err(SyncError::NotReached { reason: exchanged.reason });
            }
            let wait_ms = ROUND_BACKOFF.wait_ms(failures, random, exchanged.retry_after_ms);
            self.client.environment().timer.sleep(wait_ms.min(ROUND_BACKOFF.most_ms)).await;
        }
    }

    fn fail(&self, code: &str, message: &str, next_ms: Option<u64>) -> Result<(), Error> {
        let now = self.now();
        let failure = LastError { code: code.into(), message: message.into(), at: Timestamp::from_unix_ms(now) };
        self.client.store().write(|tx| state::set_failure(tx, &failure, now, next_ms))?;
        self.client.notify();
        Ok(())
    }

    fn stopped<T>(&self, what: &str, exchanged: &Exchanged<T>) -> Result<SyncError, Error> {
        self.stop(&exchanged.code, &format!("{what}: {}", exchanged.reason))
    }

    fn stop(&self, code: &str, reason: &str) -> Result<SyncError, Error> {
        self.fail(code, reason, None)?;
        self.client.store().write(|tx| state::set_stopped(tx, true))?;
        Ok(SyncError::Stopped { reason: reason.to_owned() })
    }

    fn space_path(&self, state: &State) -> String {
        format!("/v1/spaces/{}", encoded(&state.space))
    }

    fn log_path(&self, state: &State, after: Seq, log: Option<&LogId>, chain: Option<String>) -> String {
        let mut path = format!("{}/log?after={after}&maxRecords={}", self.space_path(state), self.options.page_records);
        if let Some(log) = log {
            path.push_str(&format!("&log={}", encoded(log)));
        }
        if let Some(chain) = chain {
            path.push_str(&format!("&chain={chain}"));
        }
        path
    }
}

pub(super) fn encoded(id: &impl std::fmt::Display) -> String {
    utf8_percent_encode(&id.to_string(), UNRESERVED).to_string()
}

fn not_this_batch() -> WireError {
    WireError { pointer: "/results".into(), message: "are not the results of this batch".into() }
}
