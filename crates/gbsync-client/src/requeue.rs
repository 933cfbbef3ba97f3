//! Sealing anew in the place of a parked group, and doing so by itself for what waited for a parked one that is settled now.
//!
//! Invariant: what frees dependents and their new groups are one transaction, so that no crash leaves one without the
//! other; they keep their seal order, and each waits for what stands in the place of what it waited for.
//!
//! Rejected alternative: sending the old bytes again. Their bases name groups that never took effect.

use crate::environment::Environment;
use crate::error::Error;
use crate::operation::staging::{Instead, MadeBy, Staging};
use crate::operation::{Sealed, seal};
use crate::schemas::Schemas;
use crate::store::parked::{self, Kept};
use crate::store::{Tx, outbox, state};
use gbsync_core::change::{Change, Edit};
use gbsync_core::id::{GroupId, RecordKey, Seq};
use gbsync_core::limits::Limits;
use rusqlite::Connection;

/// What became of a group that another one waits for.
enum Parent {
    /// Nothing to wait for but perhaps this group.
    Settled(Option<GroupId>),
    /// Still undecided, parked, or discarded.
    Open,
}

/// Seals anew what was parked only because of groups that are settled now, in seal order. Answers how many there were.
pub(crate) fn requeue(tx: &Tx<'_>, environment: &Environment, limits: Limits) -> Result<u64, Error> {
    let (_, cursor) = state::generation_and_cursor(tx)?;
    let mut requeued = 0;
    for id in parked::dependents(tx)? {
        let old = parked::open(tx, &id)?;
        let Some(depends_on) = settled(tx, &old.depends_on, cursor)? else { continue };
        let edits = edits_of(tx, tx.schemas(), &old)?;
        match attempt(tx, |tx| reseal(tx, environment, limits, &old, &edits, depends_on, MadeBy::Requeue)) {
            Ok(_) => requeued += 1,
            Err(error @ (Error::Database(_) | Error::Damaged(_) | Error::Locked)) => return Err(error),
            Err(error) => {
                let message = format!(
                    "what it waited for is settled, but it cannot be laid on what is there now: {error}; amend or discard it"
                );
                parked::set_message(tx, old.local_no, &message)?;
            }
        }
    }
    Ok(requeued)
}

/// What a group waits for that is settled but not in the base; `None` while anything is open.
fn settled(tx: &Tx<'_>, depends_on: &[GroupId], cursor: Seq) -> Result<Option<Vec<GroupId>>, Error> {
    let mut waits_for = Vec::new();
    for id in depends_on {
        match parent(tx, id, cursor)? {
            Parent::Settled(over) => waits_for.extend(over),
            Parent::Open => return Ok(None),
        }
    }
    Ok(Some(waits_for))
}

fn parent(tx: &Connection, id: &GroupId, cursor: Seq) -> Result<Parent, Error> {
    let id = parked::stands_for(tx, id)?;
    // One that is not kept is in the base for long, or was made elsewhere and came with the log.
    let Some(kept) = parked::kept(tx, &id)? else { return Ok(Parent::Settled(None)) };
    Ok(match kept.state.as_str() {
        "accepted" => Parent::Settled(kept.seq.is_some_and(|seq| seq > cursor).then_some(id)),
        // Its own predecessor was freed in this very way: both travel one behind the other.
        "sealed" | "waiting_for_sign_in" if kept.is_requeued => Parent::Settled(Some(id)),
        "compensated" | "superseded" => Parent::Settled(None),
        _ => Parent::Open,
    })
}

/// What a person's retry of a group waits for: what is settled or on its way; what is parked or discarded is left out, since
/// the person decides without it.
pub(crate) fn still_wanted(tx: &Connection, old: &Kept) -> Result<Vec<GroupId>, Error> {
    let (_, cursor) = state::generation_and_cursor(tx)?;
    let mut waits_for = Vec::new();
    for id in &old.depends_on {
        match parent(tx, id, cursor)? {
            Parent::Settled(over) => waits_for.extend(over),
            Parent::Open => {
                let id = parked::stands_for(tx, id)?;
                let is_pending =
                    outbox::standing(tx, &id)?.is_some_and(|parent| parent.state == outbox::StoredState::Pending);
                waits_for.extend(is_pending.then_some(id));
            }
        }
    }
    Ok(waits_for)
}

/// The edits of a kept group, without the bases they were made on.
pub(crate) fn edits_of(tx: &Connection, schemas: &Schemas, old: &Kept) -> Result<Vec<(RecordKey, Edit)>, Error> {
    let (changes, version) = outbox::sealed_changes(tx, old.local_no)?;
    // Sealed again they are made under the app's present schema.
    let edit = |change: &Change| schemas.rewritten(&change.key, &change.edit, version).into_owned();
    Ok(changes.iter().map(|change| (change.key.clone(), edit(change))).collect())
}

/// A staging for a group in the place of a parked one: the same type, root and actor.
pub(crate) fn staging_instead(old: &Kept, made_by: MadeBy, terms: (Limits, Schemas)) -> Staging {
    let mut staging = Staging::new(old.group_type.clone(), old.root.clone(), old.actor.clone(), terms);
    staging.instead = Some(Instead { of: old.id.clone(), made_by });
    staging
}

/// Seals edits on the current view as a new group in the place of a parked one.
pub(crate) fn reseal(
    tx: &Tx<'_>,
    environment: &Environment,
    limits: Limits,
    old: &Kept,
    edits: &[(RecordKey, Edit)],
    depends_on: Vec<GroupId>,
    made_by: MadeBy,
) -> Result<Sealed, Error> {
    let mut staging = staging_instead(old, made_by, (limits, tx.schemas().clone()));
    staging.depends_on = depends_on;
    staging.clears.clone_from(&old.clears);
    for (key, edit) in edits {
        staging.stage(tx, key.clone(), edit.clone())?;
    }
    // Nothing can come between staging and sealing: both are inside this transaction.
    seal::seal(tx, environment, &staging, true)
}

/// Runs `work` so that a failure leaves nothing of it in the transaction.
fn attempt<T>(tx: &Tx<'_>, work: impl FnOnce(&Tx<'_>) -> Result<T, Error>) -> Result<T, Error> {
    tx.prepare_cached("SAVEPOINT instead")?.execute([])?;
    let done = work(tx);
    if done.is_err() {
        tx.execute_batch("ROLLBACK TO instead")?;
    }
    tx.prepare_cached("RELEASE instead")?.execute([])?;
    done
}
