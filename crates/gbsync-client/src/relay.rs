//! Laying the overlay anew over records whose base or whose groups changed (ARCHITECTURE.md, step 12).
//!
//! Invariant (P2): a group lies over all of its records or over none. One that cannot be laid entirely is hidden
//! entirely and still sent. What its deletes take along lies over the view with it ([`crate::cascade`]).

use crate::cascade::{self, Follows};
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
    /// It took along some of the records before.
    took_along: bool,
}

/// A record while the groups over it are laid one after the other.
#[derive(Default, Clone)]
struct Standing {
    payload: Option<Payload>,
    trail: Trail<i64>,
}

/// What is laid, and what has to be laid with it first.
struct Laying<'t> {
    tx: &'t Tx<'t>,
    has_cascades: bool,
    standings: BTreeMap<RecordKey, Standing>,
    /// The rows as they are stored.
    before: BTreeMap<(i64, RecordKey), OverlayRow>,
    follows: Follows,
    changed: Vec<(RecordKey, OverlayRow)>,
    needs: BTreeSet<RecordKey>,
}

/// Lays the overlay anew over `records`, and over more where a group begins or ceases to show or takes others along.
pub(crate) fn relay(tx: &Tx<'_>, mut records: BTreeSet<RecordKey>) -> Result<(), Error> {
    loop {
        let laid = lay_over(tx, &records)?;
        if !laid.needs.is_empty() {
            // They change with the others; the set only grows, so this ends.
            records.extend(laid.needs);
            continue;
        }
        for (key, row) in laid.changed {
            overlay::put(tx, &key, &row)?;
        }
        // What is left of the rows before was derived and is no more.
        for ((local_no, key), row) in laid.before {
            if row.is_derived {
                overlay::remove(tx, &key, local_no)?;
            }
        }
        for (key, standing) in laid.standings {
            tables::write(tx, &key, standing.payload.as_ref().map(Payload::as_str))?;
        }
        return Ok(());
    }
}

fn lay_over<'t>(tx: &'t Tx<'t>, records: &BTreeSet<RecordKey>) -> Result<Laying<'t>, Error> {
    let mut groups: BTreeMap<i64, Over> = BTreeMap::new();
    let mut laying = Laying {
        tx,
        has_cascades: cascade::has_any(tx),
        standings: records.iter().map(|key| (key.clone(), Standing::default())).collect(),
        before: BTreeMap::new(),
        follows: Follows::default(),
        changed: Vec::new(),
        needs: BTreeSet::new(),
    };
    for key in records {
        let payload = tx.schemas().renewed(key, base::read(tx, key)?.and_then(|row| row.payload));
        for row in overlay::rows_of(tx, key)? {
            let over = groups.entry(row.local_no).or_default();
            if !row.is_derived {
                over.keys.push(key.clone());
                over.was_hidden |= row.is_hidden;
            }
            over.took_along |= row.is_derived;
            laying.before.insert((row.local_no, key.clone()), row);
        }
        laying.stands(key, payload)?;
    }
    for (local_no, over) in groups {
        laying.lay(local_no, over)?;
        if !laying.needs.is_empty() {
            break;
        }
    }
    Ok(laying)
}

impl Laying<'_> {
    /// Lays one group over what the groups before it left.
    fn lay(&mut self, local_no: i64, over: Over) -> Result<(), Error> {
        let (changes, version) = outbox::sealed_changes(self.tx, local_no)?;
        let edits = by_record(&changes);
        let laid = lay_group((self.tx.schemas(), version), &edits, &over.keys, &self.standings);
        let is_hidden = laid.is_none();
        let is_partial = edits.len() > over.keys.len();
        if is_partial && !over.keys.is_empty() && over.was_hidden != is_hidden {
            self.needs.extend(edits.keys().map(|key| (*key).clone()));
            return Ok(());
        }
        let mut deleted = Vec::new();
        for key in over.keys {
            let standing = self.standings.get_mut(&key).expect("every record of the group has a standing");
            let was_there = standing.payload.is_some();
            let touch = touch(edits_of(&edits, &key), was_there);
            standing.trail = standing.trail.after(local_no, touch);
            let trail = standing.trail;
            if let Some(payload) = laid.as_ref().and_then(|laid| laid.get(&key)) {
                if was_there && payload.is_none() {
                    deleted.push(key.clone());
                }
                self.stands(&key, payload.clone())?;
            }
            let payload = if is_hidden { None } else { self.standings[&key].payload.clone() };
            self.set(key, OverlayRow { local_no, touch, trail, is_hidden, is_derived: false, payload });
        }
        if self.has_cascades {
            self.derive(local_no, &edits, over.took_along, deleted)?;
        }
        Ok(())
    }

    /// Takes along what follows from a group's deletes, level by level.
    fn derive(
        &mut self,
        local_no: i64,
        edits: &EditsByRecord<'_>,
        took_along: bool,
        mut deleted: Vec<RecordKey>,
    ) -> Result<(), Error> {
        let mut deletes = edits.iter().filter(|(_, edits)| matches!(edits.last(), Some(Edit::Delete)));
        // What was derived is derived again, from the same deletes.
        if took_along {
            self.needs.extend(deletes.map(|(key, _)| (*key).clone()).filter(is_not_in(&self.standings)));
        } else if !deletes.any(|(key, _)| self.standings.contains_key(*key)) {
            return Ok(());
        }
        self.needs.extend(overlay::derived_of(self.tx, local_no)?.into_iter().filter(is_not_in(&self.standings)));
        while let Some(target) = deleted.pop() {
            let shown = cascade::followers(self.tx, &target)?;
            self.needs.extend(shown.into_iter().filter(is_not_in(&self.standings)));
            for key in self.follows.of(&target) {
                if edits.contains_key(&key) {
                    continue;
                }
                self.stands(&key, None)?;
                let standing = self.standings.get_mut(&key).expect("what follows is laid");
                standing.trail = standing.trail.after(local_no, Touch::Delete);
                let trail = standing.trail;
                let touch = Touch::Delete;
                let row = OverlayRow { local_no, touch, trail, is_hidden: false, is_derived: true, payload: None };
                self.set(key.clone(), row);
                deleted.push(key);
            }
        }
        Ok(())
    }

    /// A record is this now.
    fn stands(&mut self, key: &RecordKey, payload: Option<Payload>) -> Result<(), Error> {
        if self.has_cascades {
            let targets = cascade::targets(self.tx, key, payload.as_ref())?;
            for target in self.follows.set(key, targets) {
                if !self.standings.contains_key(&target) && overlay::is_deleted(self.tx, &target)? {
                    self.needs.insert(target);
                }
            }
        }
        self.standings.entry(key.clone()).or_default().payload = payload;
        Ok(())
    }

    fn set(&mut self, key: RecordKey, row: OverlayRow) {
        if self.before.remove(&(row.local_no, key.clone())).as_ref() != Some(&row) {
            self.changed.push((key, row));
        }
    }
}

fn is_not_in(standings: &BTreeMap<RecordKey, Standing>) -> impl Fn(&RecordKey) -> bool {
    |key| !standings.contains_key(key)
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
    (schemas, version): (&Schemas, u64),
    edits: &EditsByRecord<'_>,
    keys: &[RecordKey],
    standings: &BTreeMap<RecordKey, Standing>,
) -> Option<BTreeMap<RecordKey, Option<Payload>>> {
    let lay_record = |key: &RecordKey| {
        let before = standings[key].payload.clone();
        let edits = edits_of(edits, key).iter();
        let after = edits.copied().try_fold(before, |state, edit| schemas.lay(key, edit, version, state.as_ref()).ok())?;
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
