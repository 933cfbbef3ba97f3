//! One round: handshake, then in turns push what may be sent and pull to the head, until nothing is left to send.

use super::download::Fetched;
use super::exchange::{Exchanged, exchange};
use super::options::{SyncError, SyncOptions, SyncReport};
use super::send::Care;
use crate::client::Client;
use crate::environment::BoxFuture;
use crate::error::Error;
use crate::push::{Clocks, is_due};
use crate::requeue::requeue;
use crate::session::Senders;
use crate::status::GroupState;
use crate::store::state::{self, LastError, State};
use crate::store::{Tx, lost, outbox, parked, sequence, server_schema, sign_in, upload};
use crate::transport::{Method, Transport};
use crate::{pull, tables};
use gbsync_core::fault;
use gbsync_core::id::{LogId, Seq};
use gbsync_core::limits::Limits;
#[cfg(feature = "mutants")]
use gbsync_core::mutant::Mutant;
use gbsync_core::retry::{Backoff, Step};
use gbsync_core::time::Timestamp;
use gbsync_core::wire::{DeviceReport, LogPage, WireError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::future::{poll_fn, ready};
use std::task::Poll;

/// Bytes after which a page of the log closes.
const PAGE_BYTES: u64 = 2 * 1024 * 1024;
/// Accepted groups removed in one round.
const PRUNE_GROUPS: u32 = 5_000;
/// Records of the first page of a pull, at most.
const FIRST_RECORDS: u64 = 500;
/// Turns that whatever carries a request gets to send it before the thread works: a connection needs two or three.
const TURNS: u32 = 8;
/// Characters that stand for themselves in a path (RFC 3986, unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Waits between the attempts of one round. Short: a person may be waiting for it.
pub(super) const ROUND_BACKOFF: Backoff = Backoff { first_ms: 200, most_ms: 5_000 };

pub(super) struct Round<'c> {
    pub(super) client: &'c Client,
    pub(super) transport: &'c dyn Transport,
    pub(super) options: &'c SyncOptions,
    pub(super) report: SyncReport,
    pub(super) limits: Limits,
    pub(super) care: Care,
    /// Whose groups may go.
    pub(super) senders: Senders,
    pub(super) log: Option<LogId>,
    /// Whether a reading anew begins with a snapshot.
    pub(super) wants_snapshot: bool,
    /// What the server calls the part of the space that this token sees.
    pub(super) scope_set: String,
    /// How far the server's clock is ahead of this device's, in milliseconds.
    ahead_ms: i64,
    /// When the handshake was asked for that last said where the log stands.
    shaken_at_ms: u64,
    pub(super) rebases: u32,
    pub(super) resyncs: u32,
    pub(super) attempts: u32,
    /// Whether the pull sealed parked groups anew.
    pub(super) has_requeued: bool,
    /// Whether the push of this turn ended before all was sent.
    pub(super) has_more: bool,
    /// The last group that the push of this turn sends.
    pub(super) until: i64,
    /// Steps of a long work that were written.
    pub(super) steps: u64,
}

impl<'c> Round<'c> {
    pub(super) fn new(client: &'c Client, transport: &'c dyn Transport, options: &'c SyncOptions, senders: Senders) -> Self {
        Self {
            client,
            transport,
            options,
            report: SyncReport::default(),
            limits: Limits::default(),
            care: Care::default(),
            senders,
            log: None,
            wants_snapshot: false,
            scope_set: pull::ALL.to_owned(),
            ahead_ms: 0,
            shaken_at_ms: 0,
            rebases: 0,
            resyncs: 0,
            attempts: options.attempts.max(1),
            has_requeued: false,
            has_more: false,
            until: 0,
            steps: 0,
        }
    }

    pub(super) async fn run(mut self) -> Result<SyncReport, SyncError> {
        self.begin()?;
        self.handshake().await?;
        self.tell_discards().await?;
        loop {
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
            // Each turn of the loop settles a parked group, uses up one of a resolver's attempts, or sends what was sealed
            // during the one before or what that had no time for.
            let has_requeued = std::mem::take(&mut self.has_requeued) | std::mem::take(&mut self.has_more);
            if !self.ask_resolver()? && !has_requeued && outbox::last_no(&self.client.store().writer())? <= self.until {
                break;
            }
        }
        self.tell_discards().await?;
        self.sweep().await?;
        self.client.store().end_checkpoints();
        self.finish()
    }

    pub(super) fn now(&self) -> u64 {
        self.client.environment().clock.now_ms()
    }

    pub(super) fn clocks(&self) -> Clocks {
        let now = self.now();
        Clocks { now, server_now: now.saturating_add_signed(self.ahead_ms) }
    }

    /// The file is an old copy of itself: from now on its sequences give no number that it may have given before.
    pub(super) fn want_new_epoch(&self) -> Result<(), Error> {
        let epoch = self.client.environment().new_epoch();
        self.client.store().write(|tx| match state::read(tx)?.wanted_epoch {
            Some(_) => state::want_new_epoch(tx),
            None => state::want_epoch(tx, &epoch),
        })
    }

    pub(super) fn state(&self) -> Result<State, Error> {
        state::read(&self.client.store().writer())
    }

    /// Takes up what a crash left: a batch that was on its way may have arrived or not, so it is sent again.
    fn begin(&mut self) -> Result<(), SyncError> {
        let now = self.now();
        let ignores_backoff = self.options.ignores_backoff;
        self.client.store().write(|tx| {
            let state = state::read(tx)?;
            if let Some(at) = state.next_attempt_at.filter(|at| !is_due(*at, now) && !ignores_backoff) {
                return Err(SyncError::BackingOff { at: Timestamp::from_unix_ms(at) });
            }
            let left = state::in_flight(tx)?;
            outbox::count_attempts(tx, &left)?;
            state::set_in_flight(tx, &[])?;
            #[cfg(feature = "mutants")]
            crate::planted::keep_in_flight(tx, &left)?;
            if ignores_backoff {
                outbox::clear_waits(tx)?;
            }
            Ok(())
        })
    }

    pub(super) async fn handshake(&mut self) -> Result<(), SyncError> {
        let state = self.state()?;
        self.shaken_at_ms = self.now();
        let mut path =
            format!("{}?device={}&epoch={}", self.space_path(&state), encoded(&state.device), encoded(&state.epoch));
        if let Some((epoch, device_seq)) = &state.previous_epoch {
            path.push_str(&format!("&previousEpoch={}&previousDeviceSeq={device_seq}", encoded(epoch)));
        }
        let shake = self.shake_hands(&state, path).await?;
        let Some(shake) = shake.answer else { return Err(self.stopped("the handshake was refused", &shake)?) };
        let server_now = shake.server_time.unix_ms();
        self.senders.set_bearer(shake.token.clone());
        self.ahead_ms = server_now.saturating_sub(i64::try_from(self.now()).unwrap_or(i64::MAX));
        let sealed_through = outbox::next_group(&self.client.store().writer())?.device_seq.0 - 1;
        let is_known = |device: &DeviceReport| device.epoch == state.epoch && device.device_seq.0 > sealed_through;
        // The server knows numbers that this database never gave: it is an old copy of itself.
        if shake.device.as_ref().is_some_and(is_known) {
            self.want_new_epoch()?;
        }
        self.scope_set = shake.scope_set.as_deref().unwrap_or(pull::ALL).to_owned();
        self.client.store().write(|tx| {
            for (name, n) in shake.device.iter().flat_map(|device| &device.sequences) {
                sequence::go_on_above(tx, name, *n)?;
            }
            server_schema::set_version(tx, shake.schema_version)?;
            state::set_horizon(tx, shake.horizon)?;
            state::set_handshake(tx, &shake.log, shake.head, &self.scope_set, &shake.limits)?;
            let agreed = shake.agrees_up_to.filter(|_| shake.agrees == Some(false));
            let agreed = agreed.or((shake.agrees == Some(true)).then_some(state.cursor));
            lost::set_told(tx, &shake.log, &shake.ancestors, agreed)
        })?;
        self.fetch_schema(&state, shake.schema_version).await?;
        self.care.keeps_order = shake.schema_version > 0;
        self.client.set_limits(shake.limits);
        self.limits = Limits {
            batch_records: self.options.batch_records.unwrap_or(shake.limits.batch_records),
            batch_bytes: self.options.batch_bytes.unwrap_or(shake.limits.batch_bytes).min(shake.limits.request_bytes / 2),
            ..shake.limits
        };
        let is_renamed = self.take_name(&self.state()?, &shake.log, shake.agrees == Some(true))?;
        let is_another_log = state.log.as_ref().is_some_and(|log| *log != shake.log) && !is_renamed;
        let is_elsewhere = is_another_log || shake.agrees == Some(false);
        self.wants_snapshot = shake.horizon > Seq(0) || shake.head.0 >= self.options.snapshot_groups;
        // Nothing of the log was read: what there is of it is loaded as a whole.
        let is_new = state.cursor == Seq(0) && self.wants_snapshot;
        let is_behind = state.cursor < shake.horizon;
        // Another token, or another schema: what this device has is another part of the space.
        let is_another_part = state.scope_set.as_ref().is_some_and(|scope_set| *scope_set != self.scope_set);
        self.log = Some(shake.log);
        let must_begin_anew = is_elsewhere || is_another_part || is_new || is_behind;
        if must_begin_anew || state.rebase.is_some() || self.state()?.wants_new_epoch {
            self.rebase().await?;
        }
        Ok(())
    }

    async fn pull(&mut self) -> Result<(), SyncError> {
        let awaited = lost::unpassed(&self.client.store().writer())?;
        self.pull_to_head().await?;
        self.offer_missed(&awaited).await
    }

    async fn pull_to_head(&mut self) -> Result<(), SyncError> {
        let mut ahead: Option<BoxFuture<'_, Exchanged<LogPage>>> = None;
        loop {
            let state = self.state()?;
            let chain = state.chain.as_ref().map(ToString::to_string);
            // Nothing travels yet: a small page lets the work begin while the server reads the next one.
            let records =
                if ahead.is_some() { self.options.page_records } else { self.options.page_records.min(FIRST_RECORDS) };
            let path = self.log_path(&state, (state.cursor, records), state.log.as_ref(), chain);
            let mut exchanged = match ahead.take() {
                Some(asked) => {
                    let first = asked.await;
                    self.insist(first, Method::Get, path, None, LogPage::parse).await?
                }
                None => self.ask(Method::Get, path, None, LogPage::parse).await?,
            };
            let Some(page) = exchanged.answer.take() else {
                if exchanged.step != Step::Resync {
                    return Err(self.stopped("the log was refused", &exchanged)?);
                }
                self.resync().await?;
                continue;
            };
            if self.unknown_schema(&page).is_some() {
                self.learn_schema_of(&page).await?;
                continue;
            }
            let is_done = self.check_progress(&page, state.cursor)?;
            if !is_done {
                // The next page travels while this one is applied.
                let after = (page.next, self.options.page_records);
                let path = self.log_path(&state, after, state.log.as_ref(), Some(page.chain.to_string()));
                self.report.requests += 1;
                let timeout_ms = self.options.request_timeout_ms;
                let asked = exchange(self.transport, Method::Get, path, None, timeout_ms, LogPage::parse);
                ahead = Some(begun(Box::pin(asked)).await);
            }
            if let Fetched::Resync(_) = self.fetch_parts(&page, state.log.as_ref()).await? {
                ahead = None;
                self.rebase().await?;
                continue;
            }
            fault::point("a page arrived");
            if page.next > state.cursor {
                self.take_page(&page)?;
            }
            if is_done {
                return Ok(());
            }
        }
    }

    /// The one way in which a page becomes part of the base, however it came: in one transaction.
    pub(super) fn take_page(&mut self, page: &LogPage) -> Result<(), Error> {
        let now = self.now();
        #[cfg(feature = "mutants")]
        crate::planted::move_cursor(self.client, Mutant::CursorSavedBeforeApply, page)?;
        let (applied, has_requeued) = self.client.store().write(|tx| {
            let applied = pull::apply(tx, page, now)?;
            Ok::<_, Error>((applied, self.requeue_if(tx, applied.frees)?))
        })?;
        fault::point("a page was applied");
        #[cfg(feature = "mutants")]
        crate::planted::move_cursor(self.client, Mutant::CursorInOwnTransaction, page)?;
        self.has_requeued |= has_requeued || applied.reoffers;
        self.count(applied);
        Ok(())
    }

    /// In the transaction that settled what they waited for: seals parked groups anew. Answers whether there were any.
    pub(super) fn requeue_if(&self, tx: &Tx<'_>, frees: bool) -> Result<bool, Error> {
        Ok(frees && requeue(tx, self.client.environment(), self.client.limits())? > 0)
    }

    pub(super) fn count(&mut self, applied: pull::Applied) {
        self.report.pulled_groups += applied.groups;
        self.report.pulled_records += applied.records;
        if applied.groups > 0 {
            self.client.notify();
        }
    }

    /// Whether the page reaches the head; a page that leads nowhere is no answer.
    pub(super) fn check_progress(&self, page: &LogPage, cursor: Seq) -> Result<bool, SyncError> {
        if page.next < cursor || (page.next == cursor && page.head > cursor) {
            let reason = format!("a page of the log after {cursor} ends at {} of {}", page.next, page.head);
            return Err(SyncError::NotReached { reason });
        }
        Ok(page.next >= page.head)
    }

    fn finish(mut self) -> Result<SyncReport, SyncError> {
        // Not by the present time: a device that sleeps in the middle of a round has not heard since what the log lost meanwhile.
        let heard_at_ms = self.shaken_at_ms.min(self.now());
        let before = heard_at_ms.saturating_sub(self.client.retain_accepted_ms());
        self.client.store().write(|tx| {
            outbox::prune(tx, before, PRUNE_GROUPS)?;
            upload::forget_decided(tx)?;
            if !self.client.has_open_operation() {
                parked::prune(tx, before, PRUNE_GROUPS)?;
            }
            tables::sweep_refused(tx)?;
            state::clear_failure(tx)
        })?;
        // Some came back by themselves, or the resolver answered for them.
        for known in std::mem::take(&mut self.report.parked) {
            let now = self.client.group(&known.group_id)?;
            self.report.parked.extend(now.filter(|group| group.state == GroupState::Parked));
        }
        let status = self.client.status()?;
        self.report.waiting = status.pending_groups;
        self.report.cursor = status.cursor;
        self.client.notify();
        Ok(self.report)
    }

    /// Sends a request until an answer or a refusal comes that the protocol has a word for, a few times at most.
    pub(super) async fn ask<T>(
        &mut self,
        method: Method,
        path: String,
        body: Option<Vec<u8>>,
        read: impl Fn(&[u8]) -> Result<T, WireError>,
    ) -> Result<Exchanged<T>, SyncError> {
        self.report.requests += 1;
        let timeout_ms = self.options.request_timeout_ms;
        let first = exchange(self.transport, method, path.clone(), body.clone(), timeout_ms, &read).await;
        self.insist(first, method, path, body, read).await
    }

    /// Goes on from what a first attempt came to.
    pub(super) async fn insist<T>(
        &mut self,
        mut exchanged: Exchanged<T>,
        method: Method,
        path: String,
        body: Option<Vec<u8>>,
        read: impl Fn(&[u8]) -> Result<T, WireError>,
    ) -> Result<Exchanged<T>, SyncError> {
        let mut failures = 0;
        loop {
            match exchanged.step {
                Step::Retry => {}
                Step::SignIn => return Err(self.nobody_signed_in(&exchanged)?),
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
            self.report.requests += 1;
            let timeout_ms = self.options.request_timeout_ms;
            exchanged = exchange(self.transport, method, path.clone(), body.clone(), timeout_ms, &read).await;
        }
    }

    /// The server lets nobody in with this token: everything waits until somebody signs in.
    pub(super) fn nobody_signed_in<T>(&self, exchanged: &Exchanged<T>) -> Result<SyncError, Error> {
        self.client.store().write(|tx| sign_in::all_wait(tx, &exchanged.reason))?;
        self.fail(&exchanged.code, &exchanged.reason, None)?;
        Ok(SyncError::SignIn { reason: exchanged.reason.clone() })
    }

    pub(super) fn fail(&self, code: &str, message: &str, next_ms: Option<u64>) -> Result<(), Error> {
        let now = self.now();
        let failure = LastError { code: code.into(), message: message.into(), at: Timestamp::from_unix_ms(now) };
        self.client.store().write(|tx| state::set_failure(tx, &failure, now, next_ms))?;
        self.client.notify();
        Ok(())
    }

    pub(super) fn stopped<T>(&self, what: &str, exchanged: &Exchanged<T>) -> Result<SyncError, Error> {
        self.stop(&exchanged.code, &format!("{what}: {}", exchanged.reason))
    }

    pub(super) fn stop(&self, code: &str, reason: &str) -> Result<SyncError, Error> {
        self.fail(code, reason, None)?;
        self.client.store().write(|tx| state::set_stopped(tx, true))?;
        Ok(SyncError::Stopped { reason: reason.to_owned() })
    }

    pub(super) fn space_path(&self, state: &State) -> String {
        format!("/v1/spaces/{}", encoded(&state.space))
    }

    /// Where the page after a `seq` is, of at most so many records.
    pub(super) fn log_path(
        &self,
        state: &State,
        (after, records): (Seq, u64),
        log: Option<&LogId>,
        chain: Option<String>,
    ) -> String {
        let space = self.space_path(state);
        let mut path = format!("{space}/log?after={after}&maxRecords={records}&maxBytes={PAGE_BYTES}");
        if let Some(log) = log {
            path.push_str(&format!("&log={}", encoded(log)));
        }
        if let Some(chain) = chain {
            path.push_str(&format!("&chain={chain}"));
        }
        let scope_set = state.rebase.as_ref().map_or(&state.scope_set, |rebase| &rebase.scope_set);
        path.push_str(&scope_set_parameter(scope_set.as_deref()));
        path
    }
}

/// A request on its way, as far as it gets without an answer: work of this thread no longer holds it back.
async fn begun<'a, T: Send + 'a>(mut asked: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
    for _ in 0..TURNS {
        if let Poll::Ready(answered) = futures_util::poll!(&mut asked) {
            return Box::pin(ready(answered));
        }
        let mut is_over = false;
        let turn_of_others = poll_fn(|task| {
            if std::mem::replace(&mut is_over, true) {
                return Poll::Ready(());
            }
            task.waker().wake_by_ref();
            Poll::Pending
        });
        turn_of_others.await;
    }
    asked
}

/// Which part of the space the device has, as a parameter.
pub(super) fn scope_set_parameter(scope_set: Option<&str>) -> String {
    scope_set.map_or_else(String::new, |scope_set| format!("&scopeSet={}", utf8_percent_encode(scope_set, UNRESERVED)))
}

pub(super) fn encoded(id: &impl std::fmt::Display) -> String {
    utf8_percent_encode(&id.to_string(), UNRESERVED).to_string()
}
