//! One transaction until it is known what became of it: begun again where another was in the way or the connection went away.
//!
//! Invariant: what is answered is what the store holds. A COMMIT whose outcome is unknown is resolved by looking up all groups
//! that it decided, with their places in the log: another process may have decided some of them since. Under the lock of their
//! space, so that the connection that was lost can no longer be at work there.

use super::Work;
use super::writer::{Transacted, WriterLoop};
use crate::store::{DecidedAs, StoreError, StoredGroup, Wanted, Written};
use gbsync_core::fault;
use gbsync_core::id::{GroupId, SpaceId};
use gbsync_core::mutant::{Mutant, is};
use std::time::{Duration, Instant};

/// How long a transaction is begun again, in all: shorter than a device waits for its answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long the first pause is; each next one is twice as long, up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

impl WriterLoop {
    /// One durable transaction.
    pub(super) fn commit(&mut self, works: &[Work]) -> Result<Transacted, StoreError> {
        let (deadline, mut pause) = (Instant::now() + PATIENCE, PAUSES.0);
        self.supposes = true;
        loop {
            let error = match self.attempt(works, deadline) {
                Err(error @ StoreError::Taken(_)) if self.supposes => {
                    tracing::debug!(%error, "what was supposed to be new is looked up");
                    self.undo(&error);
                    self.supposes = false;
                    continue;
                }
                Err(error) if error.is_passing() && Instant::now() < deadline => error,
                ended => return ended,
            };
            tracing::debug!(%error, "the transaction is begun again");
            self.undo(&error);
            if matches!(error, StoreError::OtherSchema) {
                self.follow_schema()?;
                continue;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn attempt(&mut self, works: &[Work], deadline: Instant) -> Result<Transacted, StoreError> {
        let deciding = Work::stages(works, "decide");
        let transacted = self.transact(works)?;
        drop(deciding);
        fault::point("a transaction was decided");
        let _committing = Work::stages(works, "commit");
        match self.writer()?.finish(&transacted.written) {
            Ok(()) => {
                fault::point("a transaction was committed");
                Ok(transacted)
            }
            Err(_) if is(Mutant::AckBeforeCommit) => Ok(transacted),
            // What left no groups changes nothing when it is done again.
            Err(error @ StoreError::Uncertain(_))
                if transacted.written.iter().all(|(_, written)| written.groups.is_empty()) =>
            {
                Err(error)
            }
            Err(error @ StoreError::Uncertain(_)) => match self.has_landed(&transacted.written, deadline)? {
                true => Ok(transacted),
                false => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Whether a transaction of a connection that was lost took effect.
    fn has_landed(&mut self, written: &[(SpaceId, Written)], deadline: Instant) -> Result<bool, StoreError> {
        loop {
            self.undo(&StoreError::Uncertain(String::new()));
            let decided = written.iter().filter(|(_, written)| !written.groups.is_empty());
            let found = decided.map(|(space, written)| self.look_up(space, &written.groups)).collect::<Result<Vec<_>, _>>();
            match found {
                Err(error) if error.is_passing() && Instant::now() < deadline => std::thread::sleep(PAUSES.1),
                found => return Ok(found?.into_iter().all(|is_there| is_there)),
            }
        }
    }

    fn look_up(&mut self, space: &SpaceId, groups: &[StoredGroup]) -> Result<bool, StoreError> {
        let writer = self.writer()?;
        writer.begin()?;
        let wanted = Wanted { groups: groups.iter().map(|group| &group.id).collect(), ..Wanted::default() };
        let held = writer.load(space, &wanted)?;
        writer.rollback();
        let Some(held) = held else { return Ok(false) };
        let place = |group: &GroupId| match held.groups.get(group)?.outcome {
            DecidedAs::Accepted { seq, .. } => Some(Some(seq)),
            DecidedAs::Rejected(_) => Some(None),
        };
        Ok(groups.iter().all(|group| place(&group.id) == Some(group.seq)))
    }

    /// Ends the transaction; a connection that may be lost is closed.
    fn undo(&mut self, error: &StoreError) {
        if let Some(writer) = &mut self.writer {
            writer.rollback();
        }
        if matches!(error, StoreError::Lost(_) | StoreError::Uncertain(_)) {
            self.writer = None;
        }
    }

    /// Decides by the schema that the store holds from now on, and finishes what another process left half done.
    fn follow_schema(&mut self) -> Result<(), StoreError> {
        self.put_in_force(None).map_err(|error| match error {
            crate::error::ServerError::Store(error) => error,
            other => StoreError::Damaged(other.to_string()),
        })
    }
}
