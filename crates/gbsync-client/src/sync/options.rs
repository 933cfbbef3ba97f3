//! What a caller says to a round and hears from it.

use crate::error::Error;
use crate::status::GroupInfo;
use gbsync_core::id::{GroupId, GroupType, RecordKey, Seq};
use std::sync::Arc;

/// What is called with each batch before it is sent.
#[cfg(not(target_arch = "wasm32"))]
pub type OnBatch = Arc<dyn Fn(&SentBatch) + Send + Sync>;
/// What is called with each batch before it is sent.
#[cfg(target_arch = "wasm32")]
pub type OnBatch = Arc<dyn Fn(&SentBatch)>;

/// What is called with each part of a large group that arrived, there or here.
#[cfg(not(target_arch = "wasm32"))]
pub type OnTransfer = Arc<dyn Fn(&Transfer) + Send + Sync>;
/// What is called with each part of a large group that arrived, there or here.
#[cfg(target_arch = "wasm32")]
pub type OnTransfer = Arc<dyn Fn(&Transfer)>;

/// How far a group is that travels in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The group.
    pub group_id: GroupId,
    /// Whether it goes to the server, or comes from it.
    pub is_upload: bool,
    /// Parts that arrived.
    pub done: u64,
    /// All parts.
    pub parts: u64,
}

/// How to sync.
#[derive(Clone)]
pub struct SyncOptions {
    /// Changes after which a batch closes; the server's limit when absent.
    pub batch_records: Option<u64>,
    /// Bytes after which a batch closes; the server's limit when absent.
    pub batch_bytes: Option<u64>,
    /// Tries at once what failed before, instead of waiting for its next attempt.
    pub ignores_backoff: bool,
    /// How often a request that got no answer is sent again before the round gives up.
    pub attempts: u32,
    /// How long one request may take, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long to wait for another process that syncs the same database, in milliseconds.
    pub lock_wait_ms: u64,
    /// Records after which a page of the log closes.
    pub page_records: u64,
    /// Entries from which on a new device, or one that has to begin anew, loads a snapshot instead of the log. Below, the log
    /// is read as fast (2,000 sales of which no record changed: a quarter faster) and tells more, such as who closed what;
    /// above, it names most records more than once, and a snapshot once. A device behind the horizon loads one in any case.
    pub snapshot_groups: u64,
    /// Whether a watch listens to the server's stream; otherwise, and where there is none, it asks again and again.
    pub live: bool,
    /// Called with each batch before it is sent.
    pub on_batch: Option<OnBatch>,
    /// Called with each part of a large group that arrived.
    pub on_transfer: Option<OnTransfer>,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            batch_records: None,
            batch_bytes: None,
            ignores_backoff: true,
            attempts: 4,
            request_timeout_ms: 60_000,
            lock_wait_ms: 30_000,
            page_records: 2_500,
            snapshot_groups: 10_000,
            live: true,
            on_batch: None,
            on_transfer: None,
        }
    }
}

/// A batch as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentBatch {
    /// Its number in the round, from 1.
    pub number: u64,
    /// Its changes.
    pub records: u64,
    /// Its groups, in seal order.
    pub groups: Vec<SentGroup>,
}

/// A group of a batch as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentGroup {
    /// Its id.
    pub id: GroupId,
    /// The kind of operation; `None` for a change made outside any.
    pub group_type: Option<GroupType>,
    /// Its changes: record and action.
    pub changes: Vec<(RecordKey, &'static str)>,
}

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReport {
    /// Groups sent, each time it was sent.
    pub pushed: u64,
    /// Groups accepted.
    pub accepted: u64,
    /// Groups parked in this round, dependents included.
    pub parked: Vec<GroupInfo>,
    /// Groups that are still undecided.
    pub waiting: u64,
    /// Groups pulled.
    pub pulled_groups: u64,
    /// Records pulled.
    pub pulled_records: u64,
    /// The cursor after the round.
    pub cursor: Seq,
    /// Requests made.
    pub requests: u64,
}

/// Why a round ended early. Everything that was written is kept, and the next round goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// No answer came that could be trusted. Try again later.
    #[error("the server was not reached: {reason}; everything is kept and will be sent again")]
    NotReached {
        /// What happened.
        reason: String,
    },
    /// An earlier failure says to wait.
    #[error("the next attempt is at {at}")]
    BackingOff {
        /// When.
        at: gbsync_core::time::Timestamp,
    },
    /// The token is missing, revoked, or for another space.
    #[error("the server does not let this device in: {reason}; sign in again or get another token")]
    SignIn {
        /// What the server said.
        reason: String,
    },
    /// Something is wrong that waiting does not mend.
    #[error("the queue stopped: {reason}; everything is kept, report this")]
    Stopped {
        /// What the server said.
        reason: String,
    },
    /// Another process syncs this database.
    #[error("{holder} is syncing this database; try again when it is done")]
    Busy {
        /// Who.
        holder: String,
    },
    /// The lock beside the database cannot be made.
    #[error(
        "the lock file beside the database cannot be made: {reason}; check the folder's permissions and the disk's space"
    )]
    NoLock {
        /// What the system said.
        reason: String,
    },
    /// A runtime for the blocking call cannot be made.
    #[error("a runtime cannot be started: {reason}")]
    NoRuntime {
        /// What the system said.
        reason: String,
    },
    /// The local database failed.
    #[error(transparent)]
    Local(#[from] Error),
}

impl SyncError {
    /// The stable code of this error.
    ///
    /// ```
    /// assert_eq!(gbsync_client::SyncError::NotReached { reason: "reset".into() }.code(), "not_reached");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotReached { .. } => "not_reached",
            Self::BackingOff { .. } => "backing_off",
            Self::SignIn { .. } => "sign_in",
            Self::Stopped { .. } => "stopped",
            Self::Busy { .. } => "busy",
            Self::NoLock { .. } => "no_lock",
            Self::NoRuntime { .. } => "no_runtime",
            Self::Local(error) => error.code(),
        }
    }
}
