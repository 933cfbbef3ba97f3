//! Laying the overlay anew over records whose base or whose groups changed (ARCHITECTURE.md, step 12).
//!
//! Invariant (P2): a group lies over all of its records or over none. One that cannot be laid entirely is hidden
//! entirely and still sent.

use crate::error::Error;
use crate::schemas::Schemas;
use crate::store::overlay::{self, OverlayRow};
use crate::store::{Tx, base, outbox};
use crate::tables;
use gbsync_core::change::{Change, Edit, Payload};
use gbsync_core::depend::{Touch, Trail};
use gbsync_core::id::RecordKey;
use std::collections::{BTreeMap, BTreeSet};

/// A group that lies over some of the records that are laid anew.
#[derive(Default)]
struct Over {
    keys: Vec<RecordKey>,
    was_hidden: bool,
}

/// A record while the groups over it are laid one after the other.
#[derive(Default, Clone)]
struct Standing {
    payload: Option<Payload>,
    trail: Trail<i64>,
}

/// Lays the overlay anew over `records`, and over more where a group begins or ceases to show.
pub(crate) fn relay(tx: &Tx<'_>, mut records: BTreeSet<RecordKey>) -> Result<(), Error> {
    loop {
        match lay_over(tx, &records)? {
            Laid::Done(rows, standings) => {
                for (key, row) in rows {
                    overlay::put(tx, &key, &row)?;
                }
                for (key, standing) in standings {
                    tables::write(tx, &key, standing.payload.as_ref().map(Payload::as_str))?;
                }
                return Ok(());
            }
            // The group's other records change with it; the set only grows, so this ends.
            Laid::NeedsAll(local_no) => records.extend(outbox::keys_of(tx, local_no)?),
        }
    }
}

enum Laid {
    /// The overlay's rows that changed, and every record as it shows now.
    Done(Vec<(RecordKey, OverlayRow)>, BTreeMap<RecordKey, Standing>),
    NeedsAll(i64),
}

fn lay_over(tx: &Tx<'_>, records: &BTreeSet<RecordKey>) -> Result<Laid, Error> {
    let mut groups: BTreeMap<i64, Over> = BTreeMap::new();
    let mut standings: BTreeMap<RecordKey, Standing> = BTreeMap::new();
    let mut before: BTreeMap<(i64, RecordKey), OverlayRow> = BTreeMap::new();
    for key in records {
        let rows = overlay::rows_of(tx, key)?;
        let payload = base::read(tx, key)?.and_then(|row| row.payload);
        standings.insert(key.clone(), Standing { payload, trail: Trail::default() });
        for row in rows {
            let over = groups.entry(row.local_no).or_default();
            over.keys.push(key.clone());
            over.was_hidden |= row.is_hidden;
            before.insert((row.local_no, key.clone()), row);
        }
    }
    let mut changed = Vec::new();
    for (local_no, over) in groups {
        let (changes, version) = outbox::sealed_changes(tx, local_no)?;
        let edits = by_record(&changes);
        let laid = lay_group((tx.schemas(), version), &edits, &over.keys, &standings);
        let is_partial = edits.len() > over.keys.len();
        let is_hidden = laid.is_none();
        if is_partial && over.was_hidden != is_hidden {
            return Ok(Laid::NeedsAll(local_no));
        }
        for key in over.keys {
            let standing = standings.get_mut(&key).expect("every record of the group has a standing");
            let touch = touch(edits_of(&edits, &key), standing.payload.is_some());
            standing.trail = standing.trail.after(local_no, touch);
            if let Some(payload) = laid.as_ref().and_then(|laid| laid.get(&key)) {
                standing.payload = payload.clone();
            }
            let payload = if is_hidden { None } else { standing.payload.clone() };
            let row = OverlayRow { local_no, touch, trail: standing.trail, is_hidden, payload };
            if before.remove(&(local_no, key.clone())).as_ref() != Some(&row) {
                changed.push((key, row));
            }
        }
    }
    Ok(Laid::Done(changed, standings))
}

/// A group's edits of each record, in order.
type EditsByRecord<'c> = BTreeMap<&'c RecordKey, Vec<&'c Edit>>;

fn by_record(changes: &[Change]) -> EditsByRecord<'_> {
    let mut edits = EditsByRecord::new();
    for change in changes {
        edits.entry(&change.key).or_default().push(&change.edit);
    }
    edits
}

fn edits_of<'e, 'c>(edits: &'e EditsByRecord<'c>, key: &RecordKey) -> &'e [&'c Edit] {
    edits.get(key).map_or(&[], Vec::as_slice)
}

/// The records `keys` as the group leaves them, or `None` where one of its changes cannot be laid.
fn lay_group(
    (rules, version): (&Schemas, u64),
    edits: &EditsByRecord<'_>,
    keys: &[RecordKey],
    standings: &BTreeMap<RecordKey, Standing>,
) -> Option<BTreeMap<RecordKey, Option<Payload>>> {
    let lay_record = |key: &RecordKey| {
        let before = standings[key].payload.clone();
        let after = edits_of(edits, key)
            .iter()
            .try_fold(before, |state, edit| rules.lay(key, edit, version, state.as_ref()).ok())?;
        Some((key.clone(), after))
    };
    keys.iter().map(lay_record).collect()
}

/// What a group does to a record, given whether the record is there before it.
fn touch(edits: &[&Edit], is_there: bool) -> Touch {
    match edits.last() {
        _ if edits.iter().all(|edit| edit.is_increment()) => Touch::Increment,
        Some(Edit::Delete) => Touch::Delete,
        _ if is_there => Touch::Edit,
        _ => Touch::Create,
    }
}
