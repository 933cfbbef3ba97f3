//! Group commit: pushes queue here, core decides them, the store commits them, and only then is anybody answered.
//!
//! On SQLite one thread owns the one writer. It takes everything that is queued, decides it on what one transaction loads, and
//! makes it durable with one COMMIT. On PostgreSQL there are several, each busy in spaces of its own. If anything fails, nothing of
//! the transaction took effect: each of its spaces is decided by itself, and where that fails too it is answered 503, the connection
//! is closed, and the next transaction starts from what the store holds.
//!
//! Rejected alternative: a mutex around the connection. Each push would pay its own fsync.

mod adopt;
mod attempt;
mod board;
mod family;
mod flags;
mod gather;
mod ledger;
mod lineage;
mod parts;
mod room;
mod sequences;
mod writer;

use crate::auth::{Admission, Rights};
use crate::config::Environment;
use crate::error::{Refusal, ServerError};
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::rules::Rules;
use crate::store::{Staging, Store, ToldEpoch, UploadedPart};
use crate::telemetry::{self, Followed};
use board::{Board, Seat};
use gather::{Crowd, Gatherer};
use gbsync_core::id::{Actor, DeviceSeq, GroupId, Seq, SpaceId};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::scope::ScopeSet;
use gbsync_core::verdict::Resolution;
use gbsync_core::wire::{Arrival, DiscardRequest, GroupResult, PushRequest, Resolve};
pub(crate) use lineage::{Displaced, Forking, ForkingOutcome};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;

/// What the writer and the routes work on together.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Limits,
    pub(crate) environment: Environment,
    /// How long an upload may stay untouched.
    pub(crate) upload_expiry_ms: u64,
    /// How long groups of an earlier log wait for those that other devices bring back, in milliseconds.
    pub(crate) heal_window_ms: u64,
}

/// Works that may wait for the writer.
const QUEUE: usize = 1_024;

/// Groups of one device that are to be decided.
pub(crate) struct Push {
    pub(crate) space: SpaceId,
    /// Whose rights decide.
    pub(crate) rights: Rights,
    pub(crate) request: PushRequest,
    /// The size of the request, which bounds a transaction.
    pub(crate) bytes: u64,
    /// What a collector is told of its way.
    pub(crate) followed: Followed,
}

/// A group that nobody wants any more.
pub(crate) struct Discard {
    /// Who may ask it, and of which space.
    pub(crate) admission: Admission,
    pub(crate) id: GroupId,
    pub(crate) request: DiscardRequest,
}

impl Discard {
    /// Who discards it.
    fn person(&self) -> Option<Actor> {
        let sealed_by = || self.request.sealed_as.as_ref()?.actor.clone();
        self.request.actor.clone().or_else(|| self.admission.bearer.actor.clone()).or_else(sealed_by)
    }
}

/// A rejection that the back office closes.
pub(crate) struct Resolving {
    pub(crate) space: SpaceId,
    pub(crate) of: GroupId,
    pub(crate) request: Resolve,
    pub(crate) person: Actor,
    /// What that one sees, and may write.
    pub(crate) scopes: ScopeSet,
    /// Of the group that is made instead.
    pub(crate) uuid: String,
}

/// What closing a rejection comes to.
#[derive(Debug)]
pub(crate) enum ResolvingOutcome {
    Closed {
        resolution: Resolution,
        seq: Seq,
        result: Option<GroupResult>,
        head: Seq,
    },
    /// What was to take effect instead did not; nothing is changed.
    Refused(Box<GroupResult>),
    AlreadyClosed(String),
    Malformed(String),
    Unknown,
    NoSpace,
}

/// What a push comes to.
#[derive(Debug)]
pub(crate) enum PushOutcome {
    Decided {
        results: Vec<GroupResult>,
        head: Seq,
    },
    EpochReused {
        device_seq: DeviceSeq,
        known: GroupId,
        sent: GroupId,
    },
    /// The sender stands in another log, or in another history of this one; nothing took effect.
    Displaced(Displaced),
    NoSpace,
}

/// What a discard comes to.
#[derive(Debug)]
pub(crate) enum DiscardOutcome {
    Result(Box<GroupResult>),
    Refused(Box<Refusal>),
    /// It was accepted, and whether who asks is told so is up to what they see of it.
    AsSeen,
    NoSpace,
}

/// Nothing took effect; the request may be sent again.
#[derive(Debug)]
pub(crate) struct NotCommitted;

enum Work {
    Push(Box<Push>, oneshot::Sender<Result<PushOutcome, NotCommitted>>),
    Discard(Box<Discard>, oneshot::Sender<Result<DiscardOutcome, NotCommitted>>),
    Resolve(Box<Resolving>, oneshot::Sender<Result<ResolvingOutcome, NotCommitted>>),
    Tell(ToldEpoch, oneshot::Sender<Result<(), NotCommitted>>),
    Stage(Box<UploadedPart>, oneshot::Sender<Result<Staging, NotCommitted>>),
    Fork(Box<Forking>, oneshot::Sender<Result<ForkingOutcome, NotCommitted>>),
    /// Asks whether a transaction can be made.
    Probe(oneshot::Sender<Result<(), NotCommitted>>),
    /// Travels alone.
    Adopt(Box<Schema>, oneshot::Sender<Result<(), ServerError>>),
}

/// What the writer did since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Works that wait for the writer.
    pub(crate) queued: AtomicU64,
    pub(crate) pushes: AtomicU64,
    pub(crate) transactions: AtomicU64,
    pub(crate) failed_transactions: AtomicU64,
    pub(crate) groups_accepted: AtomicU64,
    pub(crate) groups_rejected: AtomicU64,
}

/// Where works wait.
enum Queue {
    /// For the one writer.
    One(Mutex<Option<SyncSender<Work>>>),
    /// For any of several.
    BySpace(Arc<Board>),
}

/// The way to the writers.
pub(crate) struct Committer {
    queue: Queue,
    threads: Mutex<Vec<JoinHandle<()>>>,
    crowd: Arc<Crowd>,
    metrics: Arc<Metrics>,
    pub(crate) tally: Arc<Tally>,
}

impl Committer {
    /// Starts the writers' threads.
    pub(crate) fn start(shared: Shared) -> std::io::Result<Self> {
        let (crowd, tally) = (Arc::new(Crowd::default()), Arc::new(Tally::default()));
        let metrics = Arc::clone(&shared.metrics);
        let (queue, sources) = match shared.store.writers() {
            0 | 1 => {
                let (sender, receiver) = sync_channel(QUEUE);
                let source = writer::Source::Queue(Gatherer::new(receiver, Arc::clone(&crowd)));
                (Queue::One(Mutex::new(Some(sender))), vec![source])
            }
            writers => {
                let board = Arc::new(Board::new(QUEUE));
                let seat = || writer::Source::Board(Seat::new(Arc::clone(&board)));
                let seats = std::iter::repeat_with(seat).take(writers).collect();
                (Queue::BySpace(board), seats)
            }
        };
        let start = |source| {
            let writer = writer::WriterLoop::new(shared.clone(), source, Arc::clone(&tally));
            #[cfg(feature = "fault-points")]
            let hook = gbsync_core::fault::hook();
            let run = move || {
                #[cfg(feature = "fault-points")]
                return gbsync_core::fault::with_hook(hook, || writer.run());
                #[cfg(not(feature = "fault-points"))]
                writer.run();
            };
            std::thread::Builder::new().name("gbsync-writer".into()).spawn(run)
        };
        let threads = sources.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self { queue, threads: Mutex::new(threads), crowd, metrics, tally })
    }

    /// Announces a push that has arrived and is being parsed, so that the transaction it will belong to can wait a moment for it.
    pub(crate) fn announce(&self) -> gather::Announced {
        self.crowd.announce()
    }

    /// Decides a push; returns after its transaction.
    pub(crate) async fn push(&self, push: Push, announced: gather::Announced) -> Result<PushOutcome, NotCommitted> {
        self.tally.pushes.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let group_type = |arrival: &Arrival| arrival.content.header()?.group_type.clone();
        let types: Vec<_> = push.request.groups.iter().map(group_type).collect();
        let started = Instant::now();
        self.queue(Work::Push(Box::new(push), sender))?;
        drop(announced);
        let outcome = receiver.await.unwrap_or(Err(NotCommitted))?;
        if let PushOutcome::Decided { results, .. } = &outcome {
            self.metrics.pushed(&types, results, started.elapsed());
            telemetry::groups(&types, results);
        }
        Ok(outcome)
    }

    /// Whether the writer can make a transaction.
    pub(crate) async fn probe(&self) -> Result<(), NotCommitted> {
        let (sender, receiver) = oneshot::channel();
        self.queue(Work::Probe(sender))?;
        receiver.await.unwrap_or(Err(NotCommitted))
    }

    /// Records a discard, or finds the verdict already given.
    pub(crate) async fn discard(&self, discard: Discard) -> Result<DiscardOutcome, NotCommitted> {
        let (sender, receiver) = oneshot::channel();
        self.queue(Work::Discard(Box::new(discard), sender))?;
        receiver.await.unwrap_or(Err(NotCommitted))
    }

    /// Closes a rejection; returns after its transaction.
    pub(crate) async fn resolve(&self, resolving: Resolving) -> Result<ResolvingOutcome, NotCommitted> {
        let (sender, receiver) = oneshot::channel();
        self.queue(Work::Resolve(Box::new(resolving), sender))?;
        receiver.await.unwrap_or(Err(NotCommitted))
    }

    /// Keeps what a device said of its epochs.
    pub(crate) async fn tell(&self, told: ToldEpoch) -> Result<(), NotCommitted> {
        let (sender, receiver) = oneshot::channel();
        self.queue(Work::Tell(told, sender))?;
        receiver.await.unwrap_or(Err(NotCommitted))
    }

    /// Begins a new log where a device has seen more of the present one than it holds.
    pub(crate) async fn fork(&self, forking: Forking) -> Result<ForkingOutcome, NotCommitted> {
        let (sender, receiver) = oneshot::channel();
        self.queue(Work::Fork(Box::new(forking), sender))?;
        receiver.await.unwrap_or(Err(NotCommitted))
    }

    /// Stages a part of a group; returns when it is durable.
    pub(crate) async fn stage(&self, part: UploadedPart) -> Result<Staging, NotCommitted> {
        let (sender, receiver) = oneshot::channel();
        self.queue(Work::Stage(Box::new(part), sender))?;
        receiver.await.unwrap_or(Err(NotCommitted))
    }

    /// Puts a newer schema in force.
    pub(crate) async fn adopt(&self, schema: Schema) -> Result<(), ServerError> {
        let stopping = || ServerError::Broken("the server is stopping or too busy".into());
        let (sender, receiver) = oneshot::channel();
        self.queue(Work::Adopt(Box::new(schema), sender)).map_err(|_| stopping())?;
        receiver.await.unwrap_or_else(|_| Err(stopping()))
    }

    fn queue(&self, work: Work) -> Result<(), NotCommitted> {
        // Before a writer can take it off.
        self.tally.queued.fetch_add(1, Ordering::Relaxed);
        let queued = match &self.queue {
            Queue::BySpace(board) => {
                board.put(work).map_err(|_| "too many works wait for a writer, or the server is stopping")
            }
            Queue::One(queue) => {
                let queue = queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
                match queue.map(|queue| queue.try_send(work)) {
                    Some(Ok(())) => Ok(()),
                    Some(Err(TrySendError::Full(_))) => Err("the writer's queue is full"),
                    Some(Err(TrySendError::Disconnected(_))) | None => Err("the server is stopping"),
                }
            }
        };
        queued.map_err(|reason| {
            self.tally.queued.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(reason, "a work is refused");
            NotCommitted
        })
    }

    /// Takes no more, decides what is queued, and waits for the writers to end. Blocks.
    pub(crate) fn close(&self) -> Result<(), String> {
        self.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let ended: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
        match ended.iter().any(Result::is_err) {
            true => Err("a writer's thread panicked".into()),
            false => Ok(()),
        }
    }
}

impl Queue {
    fn close(&self) {
        match self {
            Self::One(queue) => drop(queue.lock().unwrap_or_else(PoisonError::into_inner).take()),
            Self::BySpace(board) => board.close(),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // Writers end when they have decided what waits, also where nobody waits for them.
        self.queue.close();
    }
}
