//! What the server keeps, behind one trait of transaction-level methods.
//!
//! A writer's transaction asks for everything it needs at once, and writes everything at once, so that a push costs a
//! constant number of round trips on any store. What is decided in between is core's business and the commit room's.
//!
//! Invariant: nothing of a transaction is visible to a reader before [`Writer::commit`] returned `Ok`.

mod asked;
mod backup;
mod error;
mod held;
mod kept;
mod lineage;
mod location;
mod postgres;
mod scan;
mod schemas;
mod sighted;
mod sqlite;
mod survey;

pub(crate) use asked::{
    EachRecord, FlagInfo, FlagsRequest, LogPart, Page, PageRequest, PartRequest, RejectionsRequest, SnapshotOf,
};
pub use backup::{Manifest, SpaceInBackup, backup, read_manifest, restore};
pub use error::StoreError;
pub(crate) use held::{Decided, DecidedAs, Held, HeldRejection, Loaded, Wanted};
pub(crate) use lineage::{HealedGroup, KeptAncestor, descend, meet};
pub use lineage::{RestoredSpace, mark_restored};
pub use location::StoreLocation;
pub use scan::{Finding, Scanned, scan};
pub(crate) use schemas::{SchemaMark, SchemaWriter, StoredSchema, UpgradeStep};
pub(crate) use survey::Survey;
pub use survey::{SpaceDigest, space_digest};

use crate::auth::{ActorInfo, NewToken, TokenInfo};
use crate::feed::Feed;
use futures_util::future::BoxFuture;
use gbsync_core::decide::{Facts, IndexMoves, Needs, Record};
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, EpochId, GroupId, GroupType, LogId, RecordKey, Role, Seq, SpaceId};
use gbsync_core::scope::{ScopeSet, Trace};
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::{Flag, Resolution};
use gbsync_core::wire::{Bearer, DeviceReport, GroupResult, RejectedGroup};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// A token that exists, as its hash found it.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) token_id: String,
    pub(crate) space: SpaceId,
    pub(crate) roles: Vec<Role>,
    /// In whose names it may speak, and until when.
    pub(crate) bearer: Bearer,
    pub(crate) device: Option<DeviceId>,
    /// Which part of the space it opens.
    pub(crate) scopes: ScopeSet,
    pub(crate) is_revoked: bool,
}

/// Where a space's log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpaceState {
    pub(crate) log: LogId,
    pub(crate) head: Seq,
    pub(crate) chain: Digest,
    /// The last entry that the log has no more.
    pub(crate) horizon: Seq,
    /// The chain there.
    pub(crate) horizon_chain: Digest,
    /// The logs that this one was restored from.
    pub(crate) ancestors: Vec<KeptAncestor>,
}

/// A device in one life of its database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EpochKey {
    pub(crate) device: DeviceId,
    pub(crate) epoch: EpochId,
}

impl EpochKey {
    /// The device of groups that the back office makes. No other may call itself so.
    pub(crate) const SERVER: &str = "server";

    /// In which epoch the back office's groups are numbered, without gaps: one a log.
    pub(crate) fn of_server(log: &LogId) -> Self {
        Self {
            device: DeviceId::new(Self::SERVER).expect("a word is an id"),
            // Not the log's own id: under that the server brings records to a new schema, numbered by the log.
            epoch: EpochId::new(format!("office-{log}"))
                .or_else(|_| EpochId::new(log.as_str()))
                .expect("what names a log may name an epoch"),
        }
    }
}

/// The name of a flag: the group that it is on, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlagId {
    pub(crate) seq: Seq,
    pub(crate) place: u64,
}

impl FlagId {
    /// Reads `{seq}.{place}`; `None` for anything else, and for numbers that no log has.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let count = |text: &str| text.parse::<u64>().ok().filter(|count| *count < 1 << 53);
        let (seq, place) = text.split_once('.')?;
        Some(Self { seq: Seq(count(seq)?), place: count(place)? })
    }
}

impl std::fmt::Display for FlagId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.seq, self.place)
    }
}

/// What a transaction leaves in one space.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) decided_at: Timestamp,
    pub(crate) head: Seq,
    pub(crate) chain: Digest,
    /// In key order.
    pub(crate) records: Vec<(RecordKey, Record)>,
    /// Those of them that were supposed to be absent, in order: where one is there, nothing is written.
    pub(crate) supposed: Vec<RecordKey>,
    /// What joined (`true`) and left lists of indexes.
    pub(crate) index: IndexMoves,
    pub(crate) entries: Vec<StoredEntry>,
    pub(crate) groups: Vec<StoredGroup>,
    pub(crate) numbers: BTreeMap<EpochKey, BTreeMap<DeviceSeq, GroupId>>,
    /// Families that became part of another, in this order: `(from, into)`.
    pub(crate) merges: Vec<(GroupId, GroupId)>,
    /// New members of families: `(group, root)`.
    pub(crate) roots: BTreeMap<GroupId, GroupId>,
    /// What devices brought back of what earlier logs lost.
    pub(crate) healed: Vec<HealedGroup>,
    /// New winners: `(root, group)`.
    pub(crate) winners: BTreeMap<GroupId, GroupId>,
    /// New closures, by root.
    pub(crate) closures: BTreeMap<GroupId, Resolution>,
    /// Flags that were cleared, by the group at this place of the log.
    pub(crate) cleared: BTreeMap<FlagId, Seq>,
    /// Highest numbers learned, by device and sequence.
    pub(crate) sequences: BTreeMap<(DeviceId, String), u64>,
}

/// One log entry in wire form.
#[derive(Debug)]
pub(crate) struct StoredEntry {
    pub(crate) seq: Seq,
    pub(crate) change_count: u64,
    pub(crate) chain: Digest,
    pub(crate) entry: String,
    /// The changes and where they are cut, when the entry only names parts.
    pub(crate) parts: Option<CutChanges>,
    /// Where its changes are seen; `None` in a space without scopes.
    pub(crate) trace: Option<Trace>,
}

/// The changes of a log entry that are served in parts.
#[derive(Debug)]
pub(crate) struct CutChanges {
    pub(crate) changes: String,
    pub(crate) cuts: Vec<Range<usize>>,
}

/// A part of a group that a device uploads.
#[derive(Debug)]
pub(crate) struct UploadedPart {
    pub(crate) space: SpaceId,
    pub(crate) device: DeviceId,
    pub(crate) group: GroupId,
    pub(crate) number: u64,
    pub(crate) body: String,
}

/// What staging a part comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Staging {
    Staged,
    /// The group has its verdict; the part is not needed any more.
    Decided,
    /// The group would have more bytes than this.
    OverLimit(u64),
    NoSpace,
}

/// What is staged of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Staged {
    /// Every part, and each was handed over.
    All,
    /// These parts, or the first of them, are not there; none was handed over.
    Missing(Vec<u64>),
    /// The group has its verdict.
    Decided,
}

/// A group with its final verdict, as it is kept for ever.
#[derive(Debug)]
pub(crate) struct StoredGroup {
    pub(crate) id: GroupId,
    pub(crate) digest: Option<Digest>,
    pub(crate) source: Option<(EpochKey, DeviceSeq)>,
    pub(crate) seq: Option<Seq>,
    /// Of an accepted group: soft rules that it broke.
    pub(crate) flags: Vec<Flag>,
    /// Of a rejected group: why, and what it was.
    pub(crate) rejected: Option<StoredRejection>,
}

/// A rejected group, kept for a person to look at.
#[derive(Debug)]
pub(crate) struct StoredRejection {
    /// The result in wire form.
    pub(crate) result: String,
    pub(crate) group_type: Option<GroupType>,
    pub(crate) actor: Option<Actor>,
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) replaces: Option<GroupId>,
    /// The bytes of its changes, where they arrived.
    pub(crate) changes: Option<Box<str>>,
    /// The scopes that its author held: who sees as much sees what became of it.
    pub(crate) scopes: ScopeSet,
}

/// What a device said of its epochs at the handshake.
#[derive(Debug, Clone)]
pub(crate) struct ToldEpoch {
    pub(crate) space: SpaceId,
    pub(crate) key: EpochKey,
    pub(crate) previous: Option<(EpochId, DeviceSeq)>,
}

/// The part of a space that somebody may see. Files are named after it and records are read by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// What the holder of these scopes sees, and what names that.
    Seen(ScopeSet, String),
}

impl Part {
    /// One text a part.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Whole => "",
            Self::Seen(_, name) => name,
        }
    }

    /// Whether a record belongs to it, by where it is seen.
    fn shows(&self, reach: Option<&str>) -> Result<bool, StoreError> {
        match self {
            Self::Whole => Ok(true),
            Self::Seen(scopes, _) => Ok(scopes.sees(&sighted::reach(reach)?)),
        }
    }
}

/// What a space holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Live records.
    pub(crate) records: u64,
    /// Bytes of their payloads.
    pub(crate) bytes: u64,
}

impl Usage {
    pub(crate) fn and(self, more: Self) -> Self {
        Self { records: self.records.saturating_add(more.records), bytes: self.bytes.saturating_add(more.bytes) }
    }
}

/// What a handshake reports, from one snapshot.
#[derive(Debug)]
pub(crate) struct SpaceView {
    pub(crate) state: SpaceState,
    pub(crate) device: Option<DeviceReport>,
    /// Whether the store already knows what the device tells.
    pub(crate) knows_told: bool,
}

/// The store: reads from committed states, and writers.
pub(crate) trait Store: Send + Sync {
    /// Opens a writer; of each that failed, after closing it.
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError>;
    /// How many writers may work at a time, each in another space. With one, a transaction may hold several spaces.
    fn writers(&self) -> usize {
        1
    }
    /// Whether other processes write to it as well, so that what this one remembers may be old.
    fn is_shared(&self) -> bool {
        false
    }
    /// Tells other processes that a log has grown, after the COMMIT.
    fn announce(&self, _space: &SpaceId, _head: Seq) {}
    /// Tells `feed` of each log that other processes let grow, until the store is closed.
    fn follow(&self, _feed: &Arc<Feed>) {}
    /// The schema in force.
    fn schema(&self) -> Result<Option<StoredSchema>, StoreError>;
    /// The token with this hash, also a revoked one. Every request asks, so nobody is blocked for the answer.
    fn grant(&self, token_hash: [u8; 32]) -> BoxFuture<'_, Result<Option<Grant>, StoreError>>;
    /// Whether a token of another party was revoked here, by the id in it.
    fn is_revoked(&self, jti: &str) -> Result<bool, StoreError>;
    /// The roles of those of these actors that are known.
    fn roles_of(&self, space: &SpaceId, actors: &BTreeSet<Actor>) -> Result<BTreeMap<Actor, BTreeSet<Role>>, StoreError>;
    /// A space, and what is known of a device in it.
    fn space(
        &self,
        space: &SpaceId,
        device: Option<&DeviceId>,
        told: Option<&ToldEpoch>,
    ) -> Result<Option<SpaceView>, StoreError>;
    /// Whole groups after a place of the log.
    fn page(&self, request: &PageRequest) -> Result<Page, StoreError>;
    /// Gives one committed state, record by record; `false` when there is no such space.
    fn each_record(&self, of: &SnapshotOf, take: &mut dyn EachRecord) -> Result<bool, StoreError>;
    /// One part of an entry whose changes no page holds.
    fn log_part(&self, request: &PartRequest) -> Result<LogPart, StoreError>;
    /// What was decided of groups, in the order asked, as far as the holder of these scopes is told.
    fn verdicts(&self, space: &SpaceId, ids: Vec<GroupId>, scopes: &ScopeSet) -> Result<Vec<GroupResult>, StoreError>;
    /// Flags in the order of the log; `None` when there is no such space.
    fn flags(&self, request: &FlagsRequest) -> Result<Option<Vec<FlagInfo>>, StoreError>;
    /// Rejections in the order they came; `None` when there is no such space.
    fn rejections(&self, request: &RejectionsRequest) -> Result<Option<Vec<RejectedGroup>>, StoreError>;
    /// One rejection with all that is kept of it.
    fn rejection(&self, space: &SpaceId, id: &GroupId, scopes: &ScopeSet) -> Result<Option<RejectedGroup>, StoreError>;
    /// What a space holds; `None` when there is no such space.
    fn usage(&self, space: &SpaceId) -> Result<Option<Usage>, StoreError>;
    /// What takes entries out of logs; `None` while another process does.
    fn retainer(&self) -> Result<Option<Box<dyn Retainer>>, StoreError>;
    /// Leaves everything in order, for a clean stop.
    fn close(&self) -> Result<(), StoreError>;
}

/// An entry that may leave the log.
#[derive(Debug)]
pub(crate) struct KeptEntry {
    pub(crate) seq: Seq,
    pub(crate) chain: Digest,
    pub(crate) entry: String,
    /// How many parts its changes are in; 0: they are in the entry.
    pub(crate) parts: u64,
}

/// What takes entries out of logs, beside whoever writes: in small transactions of its own. One process at a time.
pub(crate) trait Retainer: Send {
    /// Every space.
    fn spaces(&mut self) -> Result<BTreeSet<SpaceId>, StoreError>;
    /// Where a log stands; `None` when there is no such space.
    fn state(&mut self, space: &SpaceId) -> Result<Option<SpaceState>, StoreError>;
    /// Entries behind a place, in order: at least one if there is one, then no more than so many bytes.
    fn entries(&mut self, space: &SpaceId, after: Seq, bytes: u64) -> Result<Vec<KeptEntry>, StoreError>;
    /// A part of an entry.
    fn part(&mut self, space: &SpaceId, seq: Seq, part: u64) -> Result<String, StoreError>;
    /// Removes the entries of `log` from the horizon, which must be `from`, up to `to`, which is the horizon then; `false` when
    /// the space is not as it was any more, and nothing is changed.
    fn forget(&mut self, space: &SpaceId, log: &LogId, from: Seq, to: Seq) -> Result<bool, StoreError>;
    /// Removes tombstones up to the horizon, at most so many; how many it were.
    fn bury(&mut self, space: &SpaceId, most: u64) -> Result<u64, StoreError>;
}

/// What a new token is beside what it opens.
pub(crate) struct Made<'m> {
    pub(crate) token_id: &'m str,
    pub(crate) hash: [u8; 32],
    /// Of its space, if that is new.
    pub(crate) log: &'m LogId,
    pub(crate) now: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
}

/// The tokens and actors of a store, beside servers that run on it.
pub(crate) trait TokenTable: Send + Sync {
    /// Adds a token, its space if it is new, and its actor if that one's roles are not known.
    fn add(&self, new: &NewToken, made: &Made<'_>) -> Result<(), StoreError>;
    /// Every token, in the order made.
    fn list(&self) -> Result<Vec<TokenInfo>, StoreError>;
    /// The tokens whose id begins so.
    fn with_prefix(&self, prefix: &str) -> Result<Vec<TokenInfo>, StoreError>;
    /// Revokes a token; one that is revoked keeps its time.
    fn revoke(&self, token_id: &str, now: &Timestamp) -> Result<(), StoreError>;
    /// Refuses a token that another party signed, by the id in it; one that is refused keeps its time.
    fn revoke_jwt(&self, jti: &str, now: &Timestamp) -> Result<(), StoreError>;
    /// Keeps somebody's roles; `false` when there is no such space.
    fn set_actor(&self, space: &SpaceId, actor: &Actor, roles: &BTreeSet<Role>, now: &Timestamp)
    -> Result<bool, StoreError>;
    /// Everybody whose roles are known.
    fn actors(&self) -> Result<Vec<ActorInfo>, StoreError>;
    /// Forgets somebody's roles; `false` when they were not known.
    fn remove_actor(&self, space: &SpaceId, actor: &Actor) -> Result<bool, StoreError>;
}

/// A writer. Every error leaves it useless: roll back, drop it and open another.
pub(crate) trait Writer: SchemaWriter + Send {
    /// Begins a transaction. From the first call that names a space, no other writer can enter that space.
    fn begin(&mut self) -> Result<(), StoreError>;
    /// Loads what is wanted; `None` when there is no such space.
    fn load(&mut self, space: &SpaceId, wanted: &Wanted<'_>) -> Result<Option<Held>, StoreError>;
    /// Loads what is wanted of several spaces, each named once: together, where that saves round trips.
    fn load_all(&mut self, wanted: &[(&SpaceId, Wanted<'_>)]) -> Result<Vec<Loaded>, StoreError> {
        wanted.iter().map(|(space, wanted)| Ok(Loaded::of(self.load(space, wanted)?))).collect()
    }
    /// Loads what a decision needs.
    fn learn(&mut self, space: &SpaceId, needs: &Needs, facts: &mut Facts) -> Result<(), StoreError>;
    /// Writes what was decided.
    fn write(&mut self, space: &SpaceId, written: &Written) -> Result<(), StoreError>;
    /// Gives a space another log, with these ancestors.
    fn fork(&mut self, space: &SpaceId, log: &LogId, ancestors: &[KeptAncestor]) -> Result<(), StoreError>;
    /// Keeps what a device said of its epochs.
    fn tell(&mut self, told: &ToldEpoch, at: &Timestamp) -> Result<(), StoreError>;
    /// Stages a part of a group of at most `group_bytes`. Where a device's uploads take too much room, the longest untouched go.
    fn stage(&mut self, part: &UploadedPart, group_bytes: u64, now_ms: u64) -> Result<Staging, StoreError>;
    /// Hands the staged parts of a group to `take`, in order, until it says that it has enough.
    fn staged(
        &mut self,
        space: &SpaceId,
        device: &DeviceId,
        group: &GroupId,
        parts: u64,
        take: &mut dyn FnMut(&str) -> Result<bool, StoreError>,
    ) -> Result<Staged, StoreError>;
    /// Removes what is staged of a group.
    fn unstage(&mut self, space: &SpaceId, device: &DeviceId, group: &GroupId) -> Result<(), StoreError>;
    /// Removes uploads that were not touched since.
    fn expire_uploads(&mut self, before_ms: u64) -> Result<(), StoreError>;
    /// Makes all of it durable.
    fn commit(&mut self) -> Result<(), StoreError>;
    /// Writes what was decided last and makes all of it durable: together, where that saves a round trip.
    fn finish(&mut self, written: &[(SpaceId, Written)]) -> Result<(), StoreError> {
        written.iter().try_for_each(|(space, written)| self.write(space, written))?;
        self.commit()
    }
    /// Undoes all of it.
    fn rollback(&mut self);
}
