//! A writer's thread: gather, begin, decide, write, commit, answer.

use super::board::Seat;
use super::gather::Gatherer;
use super::ledger::{Ledger, Terms, want};
use super::lineage::ForkingOutcome;
use super::parts;
use super::{DiscardOutcome, NotCommitted, PushOutcome, ResolvingOutcome, Shared, Tally, Work};
use crate::error::ServerError;
use crate::store::{EpochKey, Held, Staging, StoreError, Wanted, Writer, Written};
use gbsync_core::decide::{Facts, Needs};
use gbsync_core::id::{Seq, SpaceId};
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::Verdict;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the writer rests after a transaction that failed, so that a full disk is not hammered.
const REST: Duration = Duration::from_millis(20);
/// How often uploads are looked through for expired ones, in milliseconds.
const EXPIRY_LOOK_MS: u64 = 60 * 60 * 1000;

/// Where a writer's works come from.
pub(super) enum Source {
    Queue(Gatherer),
    Board(Seat),
}

/// The state of a writer's thread.
pub(super) struct WriterLoop {
    pub(super) shared: Shared,
    source: Source,
    pub(super) tally: Arc<Tally>,
    pub(super) writer: Option<Box<dyn Writer>>,
    /// When uploads were last looked through.
    expired_at_ms: u64,
    /// Whether a schema is still to be put in force before anything is decided.
    pub(super) must_adopt: bool,
}

/// What a transaction came to, until it may be told.
pub(super) struct Transacted {
    /// Of each work.
    pub(super) outcomes: Vec<Outcome>,
    /// The logs that grew.
    pub(super) heads: BTreeMap<SpaceId, Seq>,
    /// What is left to write, by space. The store recognises the transaction by the groups in it and their places in the log.
    pub(super) written: Vec<(SpaceId, Written)>,
}

/// What a work came to, until it may be told.
pub(super) enum Outcome {
    Push(PushOutcome),
    Discard(DiscardOutcome),
    Resolve(ResolvingOutcome),
    Told,
    Probed,
    Staged(Staging),
    Forked(ForkingOutcome),
}

impl WriterLoop {
    pub(super) fn new(shared: Shared, source: Source, tally: Arc<Tally>) -> Self {
        Self { shared, source, tally, writer: None, expired_at_ms: 0, must_adopt: false }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(mut works) = self.source.next() {
            let gathered = works.len();
            works.iter_mut().for_each(Work::taken);
            self.tally.queued.fetch_sub(gathered as u64, Ordering::Relaxed);
            let started = Instant::now();
            let works = self.adopt(works);
            if works.is_empty() {
                continue;
            }
            // A defect in deciding must cost its transaction, not the server.
            let transaction = catch_unwind(AssertUnwindSafe(|| self.commit(&works)));
            match transaction {
                Ok(Ok(Transacted { outcomes, heads, .. })) => {
                    self.count(&outcomes);
                    self.shared.metrics.committed(gathered, started.elapsed());
                    for (space, head) in &heads {
                        self.shared.feed.advance(space, *head);
                        self.shared.metrics.advanced(space, *head);
                        self.shared.store.announce(space, *head);
                    }
                    for (work, outcome) in works.into_iter().zip(outcomes) {
                        answer(work, outcome);
                    }
                }
                Ok(Err(error)) => self.fail(works, &error.to_string()),
                Err(_) => self.fail(works, "deciding panicked"),
            }
        }
    }

    /// The writer, and a new one where the one before failed.
    pub(super) fn writer(&mut self) -> Result<&mut dyn Writer, StoreError> {
        match &mut self.writer {
            Some(writer) => Ok(writer.as_mut()),
            none => Ok(none.insert(self.shared.store.writer()?).as_mut()),
        }
    }

    /// Everything until what was decided is written.
    pub(super) fn transact(&mut self, works: &[Work]) -> Result<Transacted, StoreError> {
        let now_ms = self.shared.environment.now_ms();
        let (now, rules) = (Timestamp::from_unix_ms(now_ms), self.shared.rules.current());
        let schema = rules.as_ref().map(|rules| &rules.schema);
        let limits = self.shared.limits;
        let terms = Terms { limits: &limits, schema, now: &now, heal_window_ms: self.shared.heal_window_ms };
        let (upload_expiry_ms, expired_at_ms) = (self.shared.upload_expiry_ms, self.expired_at_ms);
        let writer = self.writer()?;
        writer.begin()?;
        if now_ms.abs_diff(expired_at_ms) >= EXPIRY_LOOK_MS {
            writer.expire_uploads(now_ms.saturating_sub(upload_expiry_ms))?;
            self.expired_at_ms = now_ms;
        }
        let mut by_space: BTreeMap<&SpaceId, Vec<usize>> = BTreeMap::new();
        for (index, work) in works.iter().enumerate() {
            if let Some(space) = work.space() {
                by_space.entry(space).or_default().push(index);
            }
        }
        let probed = |work: &Work| matches!(work, Work::Probe(_)).then_some(Outcome::Probed);
        let mut outcomes: Vec<Option<Outcome>> = works.iter().map(probed).collect();
        let (mut heads, mut all_written) = (BTreeMap::new(), Vec::new());
        let writer = self.writer()?;
        for (space, indexes) in by_space {
            let here: Vec<(usize, &Work)> = indexes.into_iter().map(|index| (index, &works[index])).collect();
            let Some(written) = transact_space(writer, space, &here, &mut outcomes, terms, now_ms)? else { continue };
            if let Some(entry) = written.entries.last() {
                heads.insert(space.clone(), entry.seq);
            }
            all_written.push((space.clone(), written));
        }
        let outcomes =
            outcomes.into_iter().map(|outcome| outcome.expect("every work is of one space, or asks for nothing")).collect();
        Ok(Transacted { outcomes, heads, written: all_written })
    }

    fn count(&self, outcomes: &[Outcome]) {
        self.tally.transactions.fetch_add(1, Ordering::Relaxed);
        for outcome in outcomes {
            let Outcome::Push(PushOutcome::Decided { results, .. }) = outcome else { continue };
            for result in results {
                match result.verdict {
                    Verdict::Accepted { is_duplicate: false, .. } => &self.tally.groups_accepted,
                    Verdict::Rejected { is_duplicate: false, .. } => &self.tally.groups_rejected,
                    _ => continue,
                }
                .fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Undoes the transaction, closes the connection, and tells everyone that nothing took effect.
    pub(super) fn fail(&mut self, works: Vec<Work>, error: &str) {
        tracing::error!(%error, works = works.len(), "a transaction failed; nothing of it took effect");
        self.tally.failed_transactions.fetch_add(1, Ordering::Relaxed);
        if let Some(mut writer) = self.writer.take() {
            writer.rollback();
        }
        for work in works {
            refuse(work);
        }
        std::thread::sleep(REST);
    }
}

fn transact_space(
    writer: &mut dyn Writer,
    space: &SpaceId,
    works: &[(usize, &Work)],
    outcomes: &mut [Option<Outcome>],
    terms: Terms<'_>,
    now_ms: u64,
) -> Result<Option<Written>, StoreError> {
    // Before anything is loaded: only the parts say which records a group touches.
    let assembled = works.iter().map(|(_, work)| match work {
        Work::Push(push, _) => parts::assemble(writer, push, terms.limits),
        _ => Ok(None),
    });
    let assembled = assembled.collect::<Result<Vec<_>, _>>()?;
    let mut wanted = Wanted::default();
    for ((_, work), assembled) in works.iter().zip(&assembled) {
        match work {
            Work::Push(push, _) => want(&mut wanted, assembled.as_ref().unwrap_or(&push.request), terms.schema),
            Work::Discard(discard, _) => {
                wanted.groups.insert(&discard.id);
                wanted.rejected.insert(&discard.id);
                if let Some(sealed_as) = &discard.request.sealed_as {
                    let key = EpochKey { device: sealed_as.device.clone(), epoch: sealed_as.epoch.clone() };
                    wanted.numbers.entry(key).or_default().insert(sealed_as.device_seq);
                }
            }
            Work::Resolve(resolving, _) => {
                wanted.groups.insert(&resolving.of);
                wanted.rejected.insert(&resolving.of);
                wanted.makes_groups = true;
            }
            Work::Fork(forking, _) => wanted.chains.extend(forking.places()),
            Work::Tell(..) | Work::Stage(..) | Work::Adopt(..) | Work::Probe(_) => {}
        }
    }
    let mut held = writer.load(space, &wanted)?;
    let version = terms.schema.map_or(0, |schema| schema.version);
    if held.as_ref().is_some_and(|held| !held.schema.is(version)) {
        return Err(StoreError::OtherSchema);
    }
    fork(writer, works, &mut held, outcomes, now_ms)?;
    let mut ledger = held.map(|held| Ledger::new(held, terms));
    for ((index, work), assembled) in works.iter().zip(&assembled) {
        let outcome = match (work, &mut ledger) {
            (Work::Push(push, _), Some(ledger)) => {
                let mut source = |needs: &Needs, facts: &mut Facts| writer.learn(space, needs, facts);
                let request = assembled.as_ref().unwrap_or(&push.request);
                let outcome = ledger.push(request, &push.rights, &mut source)?;
                parts::clear(writer, push, &outcome)?;
                Outcome::Push(outcome)
            }
            (Work::Push(..), None) => Outcome::Push(PushOutcome::NoSpace),
            (Work::Discard(discard, _), Some(ledger)) => Outcome::Discard(ledger.discard(discard)),
            (Work::Discard(..), None) => Outcome::Discard(DiscardOutcome::NoSpace),
            (Work::Resolve(resolving, _), Some(ledger)) => {
                let mut source = |needs: &Needs, facts: &mut Facts| writer.learn(space, needs, facts);
                Outcome::Resolve(ledger.resolve(resolving, &mut source)?)
            }
            (Work::Resolve(..), None) => Outcome::Resolve(ResolvingOutcome::NoSpace),
            (Work::Tell(told, _), _) => {
                writer.tell(told, terms.now)?;
                Outcome::Told
            }
            (Work::Stage(part, _), _) => Outcome::Staged(writer.stage(part, terms.limits.group_bytes, now_ms)?),
            (Work::Adopt(..) | Work::Probe(_) | Work::Fork(..), _) => continue,
        };
        outcomes[*index] = Some(outcome);
    }
    Ok(ledger.and_then(Ledger::finish))
}

/// Begins new logs before anything is decided: what comes with them is held to them.
fn fork(
    writer: &mut dyn Writer,
    works: &[(usize, &Work)],
    held: &mut Option<Held>,
    outcomes: &mut [Option<Outcome>],
    now_ms: u64,
) -> Result<(), StoreError> {
    for (index, work) in works {
        let Work::Fork(forking, _) = work else { continue };
        let outcome = match held {
            Some(held) => forking.fork(writer, held, now_ms)?,
            None => ForkingOutcome::Done(Seq(0)),
        };
        outcomes[*index] = Some(Outcome::Forked(outcome));
    }
    Ok(())
}

/// Nobody may be waiting any more; that changes nothing.
fn answer(work: Work, outcome: Outcome) {
    match (work, outcome) {
        (Work::Push(_, sender), Outcome::Push(outcome)) => drop(sender.send(Ok(outcome))),
        (Work::Discard(_, sender), Outcome::Discard(outcome)) => drop(sender.send(Ok(outcome))),
        (Work::Resolve(_, sender), Outcome::Resolve(outcome)) => drop(sender.send(Ok(outcome))),
        (Work::Tell(_, sender), Outcome::Told) => drop(sender.send(Ok(()))),
        (Work::Probe(sender), Outcome::Probed) => drop(sender.send(Ok(()))),
        (Work::Fork(_, sender), Outcome::Forked(outcome)) => drop(sender.send(Ok(outcome))),
        (Work::Stage(_, sender), Outcome::Staged(staging)) => drop(sender.send(Ok(staging))),
        (work, _) => refuse(work),
    }
}

fn refuse(work: Work) {
    match work {
        Work::Push(_, sender) => drop(sender.send(Err(NotCommitted))),
        Work::Discard(_, sender) => drop(sender.send(Err(NotCommitted))),
        Work::Resolve(_, sender) => drop(sender.send(Err(NotCommitted))),
        Work::Tell(_, sender) => drop(sender.send(Err(NotCommitted))),
        Work::Stage(_, sender) => drop(sender.send(Err(NotCommitted))),
        Work::Fork(_, sender) => drop(sender.send(Err(NotCommitted))),
        Work::Probe(sender) => drop(sender.send(Err(NotCommitted))),
        Work::Adopt(_, sender) => drop(sender.send(Err(ServerError::Broken("the schema was not put in force".into())))),
    }
}

impl Source {
    fn next(&mut self) -> Option<Vec<Work>> {
        match self {
            Self::Queue(gatherer) => gatherer.gather(),
            Self::Board(seat) => seat.next(),
        }
    }
}

impl Work {
    fn taken(&mut self) {
        if let Self::Push(push, _) = self {
            push.followed.taken();
        }
    }

    /// The pushes' spans of a stage of the transaction that they share.
    pub(super) fn stages(works: &[Self], name: &'static str) -> Vec<tracing::Span> {
        let stage = |work: &Self| match work {
            Self::Push(push, _) => push.followed.stage(name, works.len()),
            _ => None,
        };
        works.iter().filter_map(stage).collect()
    }

    pub(super) fn space(&self) -> Option<&SpaceId> {
        match self {
            Self::Push(push, _) => Some(&push.space),
            Self::Discard(discard, _) => Some(&discard.admission.space),
            Self::Resolve(resolving, _) => Some(&resolving.space),
            Self::Tell(told, _) => Some(&told.space),
            Self::Stage(part, _) => Some(&part.space),
            Self::Fork(forking, _) => Some(&forking.space),
            Self::Adopt(..) | Self::Probe(_) => None,
        }
    }
}
