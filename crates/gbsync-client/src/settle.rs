//! What becomes of a sealed group on its device: accepted, parked, or taken into the base by the log.
//!
//! Invariant (P7): a group and what depends on it leave the local view as a unit, and nothing is deleted: payload and
//! reason stay until somebody decides.

use crate::cascade;
use crate::error::Error;
use crate::relay::relay;
use crate::store::outbox::{self, StoredState};
use crate::store::{Tx, base, overlay, parked};
use crate::tables;
use gbsync_core::change::Payload;
use gbsync_core::id::{GroupId, RecordKey, Seq};
use gbsync_core::mutant::{Mutant, is};
use std::collections::{BTreeMap, BTreeSet};

/// Why a group is parked.
pub(crate) struct Reason<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    /// The server's result, as it came.
    pub(crate) verdict: Option<&'a str>,
}

/// Parks an undecided group and all that wait for it. Answers what was parked, in seal order.
pub(crate) fn park(tx: &Tx<'_>, local_no: i64, reason: &Reason<'_>, now: u64) -> Result<BTreeSet<i64>, Error> {
    let mut parked = BTreeSet::from([local_no]);
    keep_bases(tx, local_no)?;
    outbox::set_parked(tx, local_no, reason.code, reason.message, reason.verdict, now)?;
    let mut unseen = vec![local_no];
    while let Some(parent) = unseen.pop() {
        let Some(parent) = outbox::id_of(tx, parent)? else { continue };
        let message = outbox::depends_on_parked(&parent);
        for child in outbox::pending_children(tx, &parent)? {
            if !is(Mutant::DependentsSentAfterRejection) && parked.insert(child) {
                keep_bases(tx, child)?;
                outbox::set_parked(tx, child, "dependency_rejected", &message, None, now)?;
                unseen.push(child);
            }
        }
    }
    let mut touched = BTreeSet::new();
    for parked_no in parked.iter().filter(|no| !is(Mutant::UndoOfRejectedAlone) || **no == local_no) {
        touched.extend(take_off(tx, *parked_no, true)?);
    }
    #[cfg(feature = "mutants")]
    crate::planted::put_back(tx, &parked)?;
    relay(tx, touched)?;
    #[cfg(feature = "mutants")]
    crate::planted::lose_payload(tx, &parked)?;
    Ok(parked)
}

/// Keeps what the changes of a group were made on, for whoever has to decide about it: before anything leaves the view.
fn keep_bases(tx: &Tx<'_>, local_no: i64) -> Result<(), Error> {
    for (index, change) in outbox::changes_of(tx, local_no)?.into_iter().enumerate() {
        let payload = match &change.base.group {
            Some(group) => match outbox::standing(tx, group)? {
                Some(standing) => overlay::row_of(tx, &change.key, standing.local_no)?.and_then(|row| row.payload),
                None => None,
            },
            // A pull may have brought another state since; then it is not known any more.
            None => base::read(tx, &change.key)?
                .filter(|row| row.edit_version == change.base.version && change.base.version.0 > 0)
                .and_then(|row| row.payload),
        };
        if let Some(payload) = payload {
            parked::keep_base(tx, local_no, index, &payload)?;
        }
    }
    Ok(())
}

/// Takes a group off the local view. Answers the records it lay over.
fn take_off(tx: &Tx<'_>, local_no: i64, becomes_parked: bool) -> Result<BTreeSet<RecordKey>, Error> {
    let mut keys = outbox::keys_of(tx, local_no)?;
    keys.extend(overlay::derived_of(tx, local_no)?);
    for key in &keys {
        let row = overlay::remove(tx, key, local_no)?;
        if let Some(row) = row.filter(|row| becomes_parked && !row.is_hidden) {
            tables::keep_refused(tx, local_no, key, row.payload.as_ref())?;
        }
    }
    Ok(keys)
}

/// The records whose overlay changed while a page of the log was applied.
#[derive(Default)]
pub(crate) struct Settling {
    /// For each record: the last own row that the log took over, while nothing but own groups touched it.
    settled: BTreeMap<RecordKey, Option<(i64, Option<Payload>)>>,
}

impl Settling {
    /// Notes that a change of the log touched a record; `own` is the row that the group had over it here.
    pub(crate) fn touch(&mut self, key: &RecordKey, own: Option<overlay::OverlayRow>) {
        let own = own.filter(|row| !row.is_hidden).map(|row| (row.local_no, row.payload));
        match self.settled.get_mut(key) {
            None => {
                self.settled.insert(key.clone(), own);
            }
            // Taken over in another order than they were laid here: what lies over them was laid on something else.
            Some(Some((before, _))) if own.as_ref().is_some_and(|(local_no, _)| local_no < before) => {
                self.settled.insert(key.clone(), None);
            }
            Some(settled) if settled.is_some() => *settled = own,
            Some(_) => {}
        }
    }

    /// Lays the overlay anew where that can change anything, and shows what is left of a record: not where the log took
    /// over the oldest groups of a record in order and left what they had left here.
    pub(crate) fn finish(self, tx: &Tx<'_>) -> Result<(), Error> {
        let is_empty = overlay::is_empty(tx)?;
        if is_empty && tx.tables().next().is_none() {
            return Ok(());
        }
        let (mut stale, has_cascades) = (BTreeSet::new(), !is_empty && cascade::has_any(tx));
        for (key, settled) in self.settled {
            let earliest = if is_empty { None } else { overlay::earliest(tx, &key)? };
            if earliest.is_none() && tx.table(&key.entity).is_none() && !has_cascades {
                continue;
            }
            let confirmed = base::read(tx, &key)?.and_then(|row| row.payload);
            // A record that came with the page may refer to one that is deleted here.
            if earliest.is_none() && has_cascades && cascade::is_taken_along(tx, &key, confirmed.as_ref())? {
                stale.insert(key);
                continue;
            }
            let is_same = match settled {
                Some((local_no, left)) if earliest.is_none_or(|earliest| local_no < earliest) => confirmed == left,
                _ => false,
            };
            match earliest {
                _ if is_same => {}
                None => tables::write(tx, &key, confirmed.as_ref().map(Payload::as_str))?,
                #[cfg(feature = "mutants")]
                Some(_) if is(Mutant::PullOverwritesPendingWrite) => {
                    crate::planted::uncover(tx, &key)?;
                    tables::write(tx, &key, confirmed.as_ref().map(Payload::as_str))?;
                }
                Some(_) => {
                    stale.insert(key);
                }
            }
        }
        relay(tx, stale)
    }
}

/// Notes that the server answered that it has a group as `seq`. Answers whether that is news.
///
/// One that the cursor has passed already, because another device brought the same line under the same given id, leaves
/// the overlay at once: no page will settle it.
pub(crate) fn accept(
    tx: &Tx<'_>,
    local_no: i64,
    (seq, generation, cursor): (Seq, u64, Seq),
    now: u64,
) -> Result<bool, Error> {
    let is_news = outbox::set_accepted(tx, local_no, (seq, generation), 1, now)?;
    if is_news && seq <= cursor {
        let touched = take_off(tx, local_no, false)?;
        relay(tx, touched)?;
    }
    Ok(is_news)
}

/// Settles a group of this outbox that the log holds. Answers its local number, under which its rows are to be taken off.
pub(crate) fn settle(
    tx: &Tx<'_>,
    id: &GroupId,
    is_own: bool,
    (seq, generation): (Seq, u64),
    now: u64,
) -> Result<Option<i64>, Error> {
    let Some(standing) = outbox::standing(tx, id)? else { return Ok(None) };
    if standing.state == StoredState::Pending && is(Mutant::OverlayShowsAcceptedTwice) {
        return Ok(None);
    }
    // Two devices may apply the same line with the same given id. Only the server can say whether the bytes are the same.
    if !is_own && standing.state != StoredState::Accepted {
        return Ok(None);
    }
    // The log is right whatever was believed here: a group can be parked as a dependent and yet have arrived before.
    if standing.state != StoredState::Accepted {
        outbox::set_accepted(tx, standing.local_no, (seq, generation), 0, now)?;
    }
    Ok(Some(standing.local_no))
}
