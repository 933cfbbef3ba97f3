//! A writer's thread: gather, begin, decide, write, commit, answer.

use super::board::Seat;
use super::gather::Gatherer;
use super::ledger::Terms;
use super::lineage::ForkingOutcome;
use super::room::Room;
use super::{DiscardOutcome, NotCommitted, PushOutcome, ResolvingOutcome, Shared, Tally, Work};
use crate::error::ServerError;
use crate::store::{Loaded, Staging, StoreError, Writer, Written};
use gbsync_core::id::{Seq, SpaceId};
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Whether records are held for new because their authors made them.
    pub(super) supposes: bool,
}

/// What a transaction came to, until it may be told.
pub(super) struct Transacted {
    /// Of each work; `None` of one whose space has to be decided alone.
    pub(super) outcomes: Vec<Option<Outcome>>,
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
        Self { shared, source, tally, writer: None, expired_at_ms: 0, must_adopt: false, supposes: true }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(mut works) = self.source.next() {
            let gathered = works.len();
            works.iter_mut().for_each(Work::taken);
            self.tally.queued.fetch_sub(gathered as u64, Ordering::Relaxed);
            let works = self.adopt(works);
            if works.is_empty() {
                continue;
            }
            for works in by_space(self.decide_all(works)) {
                // Of one space, which is waited for: nothing is put aside once more.
                self.decide_all(works);
            }
        }
    }

    /// Decides works in one transaction and answers them. Those that are put aside are given back: where another writer holds their
    /// space, and all of them where a transaction of several spaces failed, which must not cost one space what another brings about.
    fn decide_all(&mut self, works: Vec<Work>) -> Vec<Work> {
        let (gathered, started) = (works.len(), Instant::now());
        let spaces: BTreeSet<Option<&SpaceId>> = works.iter().map(Work::space).collect();
        let is_of_several = spaces.len() > 1;
        // A defect in deciding must cost its transaction, not the server.
        let transaction = catch_unwind(AssertUnwindSafe(|| self.commit(&works)));
        // What passes was waited for already, and is of no space: a database that is away is away for each of them.
        let (error, is_of_all) = match transaction {
            Ok(Ok(Transacted { outcomes, heads, .. })) => {
                let put_aside = outcomes.iter().filter(|outcome| outcome.is_none()).count();
                self.count(outcomes.iter().flatten());
                self.shared.metrics.committed(gathered - put_aside, started.elapsed());
                for (space, head) in &heads {
                    self.shared.feed.advance(space, *head);
                    self.shared.metrics.advanced(space, *head);
                    self.shared.store.announce(space, *head);
                }
                let mut aside = Vec::with_capacity(put_aside);
                for (work, outcome) in works.into_iter().zip(outcomes) {
                    match outcome {
                        Some(outcome) => answer(work, outcome),
                        None => aside.push(work),
                    }
                }
                return aside;
            }
            Ok(Err(error)) => (error.to_string(), error.is_passing()),
            Err(_) => ("deciding panicked".to_owned(), false),
        };
        if !is_of_several || is_of_all {
            self.fail(works, &error);
            return Vec::new();
        }
        tracing::warn!(%error, works = works.len(), "a transaction of several spaces failed; each is decided by itself");
        self.forget_writer();
        works
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
        let supposes = self.supposes;
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
        let rooms = by_space.into_iter().map(|(space, indexes)| {
            let works = indexes.into_iter().map(|index| (index, &works[index]));
            Room::enter(writer, space, works.collect(), terms)
        });
        let rooms = rooms.collect::<Result<Vec<_>, _>>()?;
        let wanted: Vec<_> = rooms.iter().map(|room| (room.space, room.wanted(terms, supposes))).collect();
        let loaded = writer.load_all(&wanted)?;
        for ((room, (_, wanted)), loaded) in rooms.iter().zip(wanted).zip(loaded) {
            let held = match loaded {
                Loaded::Held(held) => Some(*held),
                Loaded::NoSpace => None,
                Loaded::Alone => continue,
            };
            let Some(written) = room.transact(writer, (held, wanted), &mut outcomes, terms, now_ms)? else { continue };
            if let Some(entry) = written.entries.last() {
                heads.insert(room.space.clone(), entry.seq);
            }
            all_written.push((room.space.clone(), written));
        }
        Ok(Transacted { outcomes, heads, written: all_written })
    }

    fn count<'o>(&self, outcomes: impl Iterator<Item = &'o Outcome>) {
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
        self.forget_writer();
        for work in works {
            refuse(work);
        }
        std::thread::sleep(REST);
    }

    /// Undoes the transaction and closes the connection.
    fn forget_writer(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            writer.rollback();
        }
    }
}

/// Works by their space, in the order they came.
fn by_space(works: Vec<Work>) -> impl Iterator<Item = Vec<Work>> {
    let mut spaces: BTreeMap<Option<SpaceId>, Vec<Work>> = BTreeMap::new();
    for work in works {
        spaces.entry(work.space().cloned()).or_default().push(work);
    }
    spaces.into_values()
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
