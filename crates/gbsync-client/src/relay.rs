//! Laying the overlay anew over records whose base or whose groups changed (DESIGN.md section 3, step 9).
//!
//! Invariant (P2): a group lies over all of its records or over none. One that cannot be laid entirely is hidden
//! entirely and still sent.

use crate::error::Error;
use crate::store::overlay::{self, OverlayRow};
use crate::store::{base, outbox};
use gbsync_core::change::{Change, Edit, Payload};
use gbsync_core::depend::{Touch, Trail};
use gbsync_core::id::RecordKey;
use gbsync_core::lay::lay;
use rusqlite::Connection;
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
pub(crate) fn relay(tx: &Connection, mut records: BTreeSet<RecordKey>) -> Result<(), Error> {
    loop {
        match lay_over(tx, &records)? {
            Laid::Done(rows) => {
                for (key, row) in rows {
                    overlay::put(tx, &key, &row)?;
                }
                return Ok(());
            }
            // The group's other records change with it; the set only grows, so this ends.
            Laid::NeedsAll(local_no) => records.extend(outbox::keys_of(tx, local_no)?),
        }
    }
}

enum Laid {
    Done(Vec<(RecordKey, OverlayRow)>),
    NeedsAll(i64),
}

fn lay_over(tx: &Connection, records: &BTreeSet<RecordKey>) -> Result<Laid, Error> {
    let mut groups: BTreeMap<i64, Over> = BTreeMap::new();
    let mut standings: BTreeMap<RecordKey, Standing> = BTreeMap::new();
    let mut before: BTreeMap<(i64, RecordKey), OverlayRow> = BTreeMap::new();
    for key in records {
        let rows = overlay::rows_of(tx, key)?;
        if rows.is_empty() {
            continue;
        }
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
        let changes = outbox::changes_of(tx, local_no)?;
        let all_keys: BTreeSet<&RecordKey> = changes.iter().map(|change| &change.key).collect();
        let laid = lay_group(&changes, &over.keys, &standings);
        let is_partial = all_keys.len() > over.keys.len();
        let is_hidden = laid.is_none();
        if is_partial && over.was_hidden != is_hidden {
            return Ok(Laid::NeedsAll(local_no));
        }
        for key in over.keys {
            let standing = standings.get_mut(&key).expect("every record of the group has a standing");
            let touch = touch(&changes, &key, standing.payload.is_some());
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
    Ok(Laid::Done(changed))
}

/// The records `keys` as the group leaves them, or `None` where one of its changes cannot be laid.
fn lay_group(
    changes: &[Change],
    keys: &[RecordKey],
    standings: &BTreeMap<RecordKey, Standing>,
) -> Option<BTreeMap<RecordKey, Option<Payload>>> {
    let mut laid: BTreeMap<RecordKey, Option<Payload>> = BTreeMap::new();
    for change in changes.iter().filter(|change| keys.contains(&change.key)) {
        let current = laid.get(&change.key).unwrap_or_else(|| &standings[&change.key].payload);
        let next = lay(&change.edit, current.as_ref()).ok()?;
        laid.insert(change.key.clone(), next);
    }
    Some(laid)
}

/// What a group does to a record, given whether the record is there before it.
fn touch(changes: &[Change], key: &RecordKey, is_there: bool) -> Touch {
    let edits = || changes.iter().filter(|change| change.key == *key).map(|change| &change.edit);
    match edits().next_back() {
        _ if edits().all(Edit::is_increment) => Touch::Increment,
        Some(Edit::Delete) => Touch::Delete,
        _ if is_there => Touch::Edit,
        _ => Touch::Create,
    }
}
