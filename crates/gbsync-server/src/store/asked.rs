//! What routes ask a store for, and what they are given.

use super::{FlagId, Part, SpaceState, StoreError};
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, LogId, Seq, SpaceId};
use gbsync_core::scope::{ScopeSet, Sight};
use gbsync_core::verdict::Flag;
use gbsync_core::wire::{SnapshotFlag, SnapshotRow};
use std::sync::Arc;

/// What a page is to hold.
#[derive(Debug, Clone)]
pub(crate) struct PageRequest {
    pub(crate) space: SpaceId,
    pub(crate) after: Seq,
    pub(crate) log: Option<LogId>,
    pub(crate) chain: Option<Digest>,
    pub(crate) max_records: u64,
    pub(crate) max_bytes: u64,
    /// Through whose eyes.
    pub(crate) sight: Arc<Sight>,
}

/// A page, or why there is none.
#[derive(Debug)]
pub(crate) enum Page {
    Entries { entries: Vec<String>, next: Seq, chain: Digest, head: Seq },
    NoSpace,
    BehindHorizon { horizon: Seq },
    BeyondHead { head: Seq },
    LogChanged,
}

/// Which part of a log entry is asked for.
#[derive(Debug, Clone)]
pub(crate) struct PartRequest {
    pub(crate) space: SpaceId,
    pub(crate) log: Option<LogId>,
    pub(crate) seq: Seq,
    pub(crate) number: u64,
    /// Through whose eyes.
    pub(crate) sight: Arc<Sight>,
}

/// A part of a log entry, or why there is none.
#[derive(Debug)]
pub(crate) enum LogPart {
    Body(String),
    NoSpace,
    NoPart,
    BehindHorizon { horizon: Seq },
    BeyondHead { head: Seq },
    LogChanged,
}

/// A flag in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlagInfo {
    pub(crate) id: FlagId,
    pub(crate) flag: Flag,
    pub(crate) cleared_by: Option<Seq>,
}

/// Which flags are asked for.
#[derive(Debug, Clone)]
pub(crate) struct FlagsRequest {
    pub(crate) space: SpaceId,
    /// Those that nobody has cleared, or all.
    pub(crate) is_open_only: bool,
    pub(crate) after: Option<FlagId>,
    pub(crate) most: u64,
    /// Of flags on records that are not seen there, nothing is told.
    pub(crate) scopes: ScopeSet,
}

/// Which rejections are asked for.
#[derive(Debug, Clone)]
pub(crate) struct RejectionsRequest {
    pub(crate) space: SpaceId,
    /// Those that are closed, or not; `None` for all.
    pub(crate) is_closed: Option<bool>,
    /// The last one seen.
    pub(crate) after: Option<GroupId>,
    pub(crate) most: u64,
    /// Of groups whose author saw more, nothing is told.
    pub(crate) scopes: ScopeSet,
}

/// Which state a snapshot is of.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotOf {
    pub(crate) space: SpaceId,
    pub(crate) part: Part,
}

/// Who is given the records of one committed state.
pub(crate) trait EachRecord: Send {
    /// Where the log stands in that state, and the newest schema in it: the one in force, or the one that records are being
    /// brought to. Without `true` nothing more of it is read.
    fn begin(&mut self, state: &SpaceState, schema_version: u64) -> Result<bool, StoreError>;
    /// The next record by entity and id, as bytes: those that live, and the tombstones behind the horizon.
    fn record(&mut self, row: &SnapshotRow<'_>) -> Result<(), StoreError>;
    /// The next open flag, behind the records, in the order of the log.
    fn flag(&mut self, flag: &SnapshotFlag) -> Result<(), StoreError>;
}
