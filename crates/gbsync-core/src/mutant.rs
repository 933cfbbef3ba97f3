//! Bugs that can be planted on purpose, one at a time, to show that the simulator finds each (docs/proof.md).
//!
//! Invariant: without the cargo feature `mutants` no bug can be planted: [`is`] is a constant `false` and the branches behind
//! it are not compiled into anything. The `gbsync` program refuses to be compiled with the feature.
//!
//! Rejected alternative: patches that are applied to a copy of the sources. They rot, and nobody sees it.

macro_rules! mutants {
    ($($variant:ident $name:literal $bug:literal)*) => {
        /// A bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $(#[doc = $bug] $variant,)*
        }

        impl Mutant {
            /// Every bug, in the order of the design's list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name under which it is planted.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What is wrong with the engine then.
            pub fn bug(self) -> &'static str {
                match self { $(Self::$variant => $bug,)* }
            }
        }
    };
}

mutants! {
    AckBeforeCommit "ack-before-commit" "The server answers before its COMMIT, whatever that comes to."
    OutboxRowDeletedBeforeAck "outbox-row-deleted-before-ack" "A group leaves the outbox when it is sent."
    CursorSavedBeforeApply "cursor-saved-before-apply" "The cursor passes a page in a transaction before the page's."
    CursorInOwnTransaction "cursor-in-own-transaction" "The cursor passes a page in a transaction after the page's."
    GroupSplitAtBatchLimit "group-split-at-batch-limit" "A batch takes as many changes of a group as fit."
    GroupSplitAtLogPage "group-split-at-log-page" "A page of the log takes as many changes of a group as fit."
    LastChangeDroppedOnCrash "last-change-dropped-on-crash" "The last record of a group is laid in a transaction of its own."
    EditsCoalescedAcrossGroups "edits-coalesced-across-groups" "An edit leaves its group when a later group edits the record."
    NoDeduplication "no-deduplication" "The server decides a group anew each time that it arrives."
    DedupInOwnTransaction "dedup-in-own-transaction" "That a group was decided is noted in a transaction after its effect."
    DedupForgottenTooEarly "dedup-forgotten-too-early" "That a group was decided is forgotten three groups later."
    DedupWithoutDigest "dedup-without-digest" "A known id is answered as known, whatever the bytes."
    SeqOutsideLock "seq-outside-lock" "The next seq is drawn from a counter that a failed transaction does not set back."
    DependentsSentAfterRejection "dependents-sent-after-rejection" "What depends on a rejected group stays in the queue."
    UndoOfRejectedAlone "undo-of-rejected-alone" "Only the rejected group leaves the view; what depends on it is parked and still shows."
    UndoOverwritesNewer "undo-overwrites-newer" "Undo puts back what was there when the group was sealed."
    ParkedPayloadLost "parked-payload-lost" "A parked group keeps its reason and not its changes."
    RetryReordersDependents "retry-reorders-dependents" "What was tried before goes behind what was not."
    PullOverwritesPendingWrite "pull-overwrites-pending-write" "A pulled record takes the place of what is pending over it."
    BaseTakenAtSeal "base-taken-at-seal" "The base of an edit is what is there when the operation is sealed."
    OwnChainByLastDevice "own-chain-by-last-device" "An edit does not conflict if the same device edited the record last."
    IncrementsDependent "increments-dependent" "An increment waits for the increment before it."
    GroupAndReplacementAccepted "group-and-replacement-accepted" "The server does not ask whether another one of the family was accepted."
    OverlayShowsAcceptedTwice "overlay-shows-accepted-twice" "A group that the log brings before its answer stays in the overlay."
    SynchronousNormal "synchronous-normal" "A device does not wait for the disk at COMMIT."
    FailedFsyncIgnored "failed-fsync-ignored" "A device takes a COMMIT whose fsync failed for done."
    OpenOperationFlushed "open-operation-flushed" "What is staged of an operation becomes a group before it is sealed."
    InFlightNotCleared "in-flight-not-cleared" "What a crash left in flight is never sent again."
    BytesSerializedAgain "bytes-serialized-again" "A retry writes a group's changes anew, and not with the same bytes."
    DeviceSeqSkipped "device-seq-skipped" "Every seventh group skips a number of its device."
    DeviceSeqReused "device-seq-reused" "The number of the last group is given again once that group is pruned."
    EpochCloneAccepted "epoch-clone-accepted" "The server takes two groups under one number of one epoch."
    FutureCursorAccepted "future-cursor-accepted" "A cursor beyond the head is answered with an empty page."
    WallClockOrders "wall-clock-orders" "Groups are sent in the order of their time, not of their numbers."
    DuplicateKeyAccepted "duplicate-key-accepted" "An object that has a key twice is read."
    SpaceFilterMissing "space-filter-missing" "The route for verdicts looks into every space."
    LargeGroupVisibleEarly "large-group-visible-early" "The parts of a large group are applied as they come."
    TombstoneRemovedTooEarly "tombstone-removed-too-early" "Tombstones are removed that the horizon has not passed."
    SnapshotFlippedUnfinished "snapshot-flipped-unfinished" "A snapshot that ended early is taken for a whole one."
    SnapshotCursorWrong "snapshot-cursor-wrong" "Who has loaded a snapshot goes on one entry behind it."
    ForgottenBeforeArchived "forgotten-before-archived" "Entries leave the log before the archive that has them is durable."
    AbandonedBracketSent "abandoned-bracket-sent" "A bracket that was never closed becomes a group."
    ScopeFilterMissingLive "scope-filter-missing-live" "The stream of the log tells of every scope, whoever listens."
    ScopeFilterMissingLog "scope-filter-missing-log" "A page of the log tells of every scope, whoever asks."
    ReofferedOnUntranslatedBase "reoffered-on-untranslated-base" "A version of a lost log is read as one of the present log."
    FutureCursorAfterRestore "future-cursor-after-restore" "A restored server takes a cursor beyond its head for one at its head."
    LostGroupStaysAccepted "lost-group-stays-accepted" "A group that went with a lost log stays accepted on its device."
    SentUnderAnotherActor "sent-under-another-actor" "A device sends every group in the name of whoever is signed in."
    SentWithAnyToken "sent-with-any-token" "A device sends every group with the token of whoever is signed in."
    ExpiredTokenServed "expired-token-served" "The server does not look when a token ends."
    RevokedTokenServed "revoked-token-served" "The server does not look whether a token was revoked."
    RolesOfTheSender "roles-of-the-sender" "The roles of who sends decide, and not those of who sealed."
    NotifyLostWithoutPolling "notify-lost-without-polling" "Where a wake-up is lost, nobody looks whether a log has grown."
    LeavingRecordKept "leaving-record-kept" "A device keeps a record that leaves its scopes."
}

/// Whether bugs can be planted in this build.
pub const CAN_BE_PLANTED: bool = cfg!(feature = "mutants");

/// Whether this bug is planted: never, in a build without the feature `mutants`.
///
/// ```
/// use gbsync_core::mutant::{Mutant, is};
/// assert!(Mutant::ALL.iter().all(|mutant| !is(*mutant)));
/// ```
#[cfg(not(feature = "mutants"))]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(not(feature = "mutants"))]
const _: () = {
    let mut place = 0;
    while place < Mutant::ALL.len() {
        assert!(!is(Mutant::ALL[place]));
        place += 1;
    }
};

#[cfg(feature = "mutants")]
pub use planted::{decides_for, is, made_by, plant, was_last_edited_by_sender};

#[cfg(feature = "mutants")]
mod planted {
    use super::Mutant;
    use crate::id::Seq;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// One more than the place of the planted bug; 0 for none.
    static PLANTED: AtomicUsize = AtomicUsize::new(0);

    /// Plants a bug in the whole process, in the place of the one before.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.store(mutant.map_or(0, |mutant| mutant as usize + 1), Ordering::SeqCst);
    }

    /// Whether this bug is planted.
    pub fn is(mutant: Mutant) -> bool {
        PLANTED.load(Ordering::Relaxed) == mutant as usize + 1
    }

    /// What [`Mutant::OwnChainByLastDevice`] goes by.
    #[derive(Default)]
    struct Makers {
        sender: String,
        by_seq: BTreeMap<Seq, String>,
    }

    thread_local! {
        static MAKERS: RefCell<Makers> = RefCell::default();
    }

    /// Notes which device made the entries of the log.
    pub fn made_by(by_seq: BTreeMap<Seq, String>) {
        MAKERS.with_borrow_mut(|makers| makers.by_seq = by_seq);
    }

    /// Notes whose group is decided next.
    pub fn decides_for(device: &str) {
        MAKERS.with_borrow_mut(|makers| makers.sender = device.to_owned());
    }

    /// Whether the sender of the group that is decided made this entry.
    pub fn was_last_edited_by_sender(seq: Seq) -> bool {
        is(Mutant::OwnChainByLastDevice)
            && MAKERS.with_borrow(|makers| makers.by_seq.get(&seq).is_some_and(|maker| *maker == makers.sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn one_bug_is_planted_at_a_time() {
        for planted in Mutant::ALL {
            plant(Some(*planted));
            assert!(Mutant::ALL.iter().all(|mutant| is(*mutant) == (mutant == planted)));
        }
        plant(None);
        assert!(Mutant::ALL.iter().all(|mutant| !is(*mutant)));
    }
}
