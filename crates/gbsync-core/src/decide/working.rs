//! The records that a group touches, as it leaves them: what every stage after the conflicts judges.
//!
//! Invariant: a record has one slot, slots stand in the order of first touch, and derived ones come after those.

use super::conflict::continued;
use super::marks::{Marked, after_edit};
use super::refusal::{invalid, whole};
use super::scopes::reach_after;
use super::types::{self, rule};
use super::{Cause, Facts, Needs, Outcome, Record, Standing};
use crate::change::{Change, Edit, Payload};
use crate::clock::Hlc;
use crate::id::{Entity, RecordId, RecordKey, Scope, Seq};
use crate::json::Node;
use crate::lay::{LayError, lay, lay_node};
use crate::limits::Limits;
use crate::schema::{EntityRules, OnConflict, Schema};
use crate::scope::ScopeSet;
use crate::verdict::{ChangeCode, Rejection, RejectionCode};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Records of a group up to which it is quicker to look at each than to sort them.
pub(super) const FEW: usize = 16;

/// One record that a group touches.
pub(super) struct Slot<'a> {
    pub(super) key: &'a RecordKey,
    /// The change that touched it first; of a derived one, the delete that it follows from.
    pub(super) index: usize,
    /// None without a schema.
    pub(super) rules: Option<&'a EntityRules>,
    pub(super) existing: Option<&'a Record>,
    pub(super) cause: Option<Cause>,
    /// Where it is seen from this group on, beside where it lies and where it was brought before.
    pub(super) brought: BTreeSet<Scope>,
    payload: Option<Payload>,
    /// The value of `payload`, where there are rules.
    after: Option<Rc<Node<'a>>>,
    before: OnceCell<Option<Rc<Node<'a>>>>,
    is_edited: bool,
    /// The group that its first edit was made on.
    base_group: Option<Seq>,
}

impl<'a> Slot<'a> {
    /// The record as the group leaves it; `None` where it is not there.
    pub(super) fn after(&self) -> Option<&Rc<Node<'a>>> {
        self.after.as_ref()
    }

    /// The record as it was before the group.
    pub(super) fn before(&self) -> Option<&Rc<Node<'a>>> {
        let parse = || Some(Rc::new(self.existing?.payload.as_ref()?.node()));
        self.before.get_or_init(parse).as_ref()
    }

    /// Whether the record was there before the group.
    pub(super) fn existed(&self) -> bool {
        self.existing.is_some_and(|record| record.payload.is_some())
    }

    /// Where a refusal points.
    pub(super) fn place(&self) -> (usize, &'a RecordKey) {
        (self.index, self.key)
    }

    /// Whether a change has been laid on it.
    fn is_touched(&self) -> bool {
        self.is_edited || self.payload.is_some()
    }

    fn outcome(self, seq: Seq, hlc: Option<&Hlc>) -> Outcome {
        let policy = self.rules.map_or(OnConflict::Reject, |rules| rules.on_conflict);
        let marks = match policy {
            OnConflict::Reject | OnConflict::Accept => None,
            _ if !self.is_edited => self.existing.and_then(|record| record.marks.clone()),
            policy => {
                let (before, after) = (self.before().map(|node| &**node), self.after().map(|node| &**node));
                let edit = Marked { seq, base_group: self.base_group, hlc, before, after };
                after_edit(policy, self.existing, &edit)
            }
        };
        let edit_version = self.existing.filter(|_| !self.is_edited).map_or(seq, |record| record.edit_version);
        let reach = reach_after(&self);
        let record = Record { version: seq, edit_version, payload: self.payload, marks, reach };
        Outcome { key: self.key.clone(), record, cause: self.cause }
    }
}

/// All records that a group touches.
pub(super) struct Working<'a> {
    pub(super) schema: Option<&'a Schema>,
    pub(super) facts: &'a Facts,
    pub(super) limits: &'a Limits,
    /// The scopes that the group's author holds; `None` where rights are not asked, as on a device.
    pub(super) scopes: Option<&'a ScopeSet>,
    pub(super) slots: Vec<Slot<'a>>,
    /// Where the slots of records are; empty while there are few.
    places: BTreeMap<&'a RecordKey, usize>,
    laid_bytes: u64,
}

impl<'a> Working<'a> {
    pub(super) fn new(schema: Option<&'a Schema>, facts: &'a Facts, limits: &'a Limits) -> Self {
        Self { schema, facts, limits, scopes: None, slots: Vec::new(), places: BTreeMap::new(), laid_bytes: 0 }
    }

    /// Lays every change on what the ones before it left. `given` are the payloads; empty without a schema.
    pub(super) fn lay(
        &mut self,
        changes: &'a [Change],
        given: Vec<Option<Node<'a>>>,
        standing: Option<&Standing>,
    ) -> Result<(), Rejection> {
        self.slots.reserve(changes.len());
        let mut given = given.into_iter();
        for (index, change) in changes.iter().enumerate() {
            let at = self.open(&change.key, index);
            let slot = &mut self.slots[at];
            let laid = match slot.rules {
                None => lay_text(slot, change),
                Some(rules) => lay_value(slot, change, given.next().flatten(), rules),
            };
            laid.map_err(|error| cannot_lay(index, change, self.facts, self.schema.is_some(), &error))?;
            if !change.edit.is_increment() && !slot.is_edited {
                slot.is_edited = true;
                slot.base_group = standing.and_then(|standing| continued(change, standing));
            }
            self.check_laid(at, index, change)?;
        }
        Ok(())
    }

    /// The place of a record's slot, made where there is none.
    fn open(&mut self, key: &'a RecordKey, index: usize) -> usize {
        if let Some(at) = self.place(key) {
            return at;
        }
        let existing = self.facts.found(key);
        let rules = self.schema.and_then(|schema| schema.entity(&key.entity));
        self.slots.push(Slot {
            key,
            index,
            rules,
            existing,
            cause: None,
            brought: BTreeSet::new(),
            payload: None,
            after: None,
            before: OnceCell::new(),
            is_edited: false,
            base_group: None,
        });
        // The first that is one too many to look at each sorts them all.
        if self.slots.len() > FEW {
            let sorted = self.places.len();
            self.places.extend(self.slots.iter().enumerate().skip(sorted).map(|(at, slot)| (slot.key, at)));
        }
        self.slots.len() - 1
    }

    fn place(&self, key: &RecordKey) -> Option<usize> {
        if self.slots.len() <= FEW {
            return self.slots.iter().position(|slot| slot.key == key);
        }
        self.places.get(key).copied()
    }

    /// Bounds what a change leaves, and asks for what the record must have.
    fn check_laid(&mut self, at: usize, index: usize, change: &Change) -> Result<(), Rejection> {
        let (slot, facts, place) = (&self.slots[at], self.facts, (index, &change.key));
        let bytes = slot.payload.as_ref().map_or(0, |payload| payload.as_str().len() as u64);
        let is_given = matches!(change.edit, Edit::Upsert(_)) && slot.rules.is_none();
        if !is_given && bytes > self.limits.payload_bytes {
            let limit = self.limits.payload_bytes;
            let message = format!("change {index} would leave {} with {bytes} bytes, over the limit of {limit}", change.key);
            return Err(invalid(RejectionCode::TooLarge, None, message, place, facts));
        }
        // Many small increments of large records are few bytes on the wire and much work here, under everybody's lock.
        self.laid_bytes += bytes;
        if self.laid_bytes > self.limits.group_bytes {
            let limit = self.limits.group_bytes;
            let message = format!("the group would leave over {limit} bytes of records; write it as several");
            return Err(invalid(RejectionCode::TooLarge, None, message, place, facts));
        }
        let (Some(rules), Some(after)) = (slot.rules, &slot.after) else { return Ok(()) };
        match types::missing(rules, after, &change.edit) {
            None => Ok(()),
            Some((field, problem)) => {
                let message = format!("change {index} would leave {} without a value: {problem}", change.key);
                let rule = rule(&change.key.entity, field);
                Err(invalid(RejectionCode::SchemaViolation, rule, message, place, facts))
            }
        }
    }

    /// The slot of a record, where the group touches it.
    pub(super) fn slot(&self, key: &RecordKey) -> Option<&Slot<'a>> {
        self.place(key).map(|place| &self.slots[place])
    }

    /// The slot of the record that a reference names, where the group touches it.
    pub(super) fn named(&self, entity: &Entity, id: &str) -> Option<&Slot<'a>> {
        if self.slots.len() <= FEW {
            return self.slots.iter().find(|slot| slot.key.id.as_str() == id && slot.key.entity == *entity);
        }
        self.slot(&RecordKey { entity: entity.clone(), id: RecordId::new(id).ok()? })
    }

    /// Deletes a record because the one that it refers to is deleted by the change `index`. The place of its slot.
    pub(super) fn cascade(&mut self, key: &'a RecordKey, index: usize) -> Result<usize, Rejection> {
        let at = self.open(key, index);
        let slot = &mut self.slots[at];
        (slot.payload, slot.after, slot.is_edited, slot.cause) = (None, None, true, Some(Cause::Cascade));
        self.check_room(0)?;
        Ok(at)
    }

    /// Brings a record that is there along to these scopes, because the record at `by` refers to it. The place of its slot;
    /// `None` where it is not known.
    pub(super) fn bring(&mut self, key: &RecordKey, by: usize, to: &BTreeSet<Scope>) -> Option<usize> {
        let at = match self.place(key) {
            Some(at) => at,
            None => {
                let (key, record) = self.facts.entry(key)?;
                let payload = record?.payload.as_ref()?;
                let at = self.open(key, self.slots[by].index);
                let slot = &mut self.slots[at];
                (slot.payload, slot.after) = (Some(payload.clone()), Some(Rc::new(payload.node())));
                slot.cause = Some(Cause::Closure);
                at
            }
        };
        self.slots[at].brought.extend(to.iter().cloned());
        Some(at)
    }

    /// The name of a record in a message to the group's author, who may not see it. It is asked for where that is not known.
    pub(super) fn name_of(&self, key: &RecordKey, needs: &mut Needs) -> String {
        let is_seen = match (self.scopes, self.slot(key), self.facts.record(key)) {
            (None | Some(ScopeSet::All), ..) | (_, Some(_), _) => true,
            (Some(scopes), None, Some(record)) => record.is_none_or(|record| scopes.sees(&record.reach)),
            (Some(_), None, None) => {
                needs.records.insert(key.clone());
                false
            }
        };
        if is_seen { key.to_string() } else { "a record that its author does not see".to_owned() }
    }

    /// Refuses a group that would touch so many records more than it does, before they are loaded.
    pub(super) fn check_room(&self, more: usize) -> Result<(), Rejection> {
        let limit = self.limits.group_records;
        if (self.slots.len() + more) as u64 <= limit {
            return Ok(());
        }
        let message = format!("the delete would take more than {limit} records with it; delete them in several groups");
        Err(whole(RejectionCode::TooLarge, None, message))
    }

    /// What the group leaves, at its place in the log.
    pub(super) fn into_outcomes(self, seq: Seq, hlc: Option<&Hlc>) -> Vec<Outcome> {
        self.slots.into_iter().map(|slot| slot.outcome(seq, hlc)).collect()
    }
}

/// Without rules nobody looks into an upsert, so nothing is parsed.
fn lay_text(slot: &mut Slot<'_>, change: &Change) -> Result<(), LayError> {
    let existing = slot.existing.and_then(|record| record.payload.as_ref());
    let state = if slot.is_touched() { slot.payload.as_ref() } else { existing };
    slot.payload = lay(&change.edit, state, None)?;
    Ok(())
}

fn lay_value<'a>(
    slot: &mut Slot<'a>,
    change: &'a Change,
    given: Option<Node<'a>>,
    rules: &EntityRules,
) -> Result<(), LayError> {
    let is_touched = slot.is_touched();
    let (touched, existing) = (slot.after.take(), slot.existing);
    let state = || match touched {
        Some(node) => Some(Rc::unwrap_or_clone(node)),
        None if is_touched => None,
        None => Some(existing?.payload.as_ref()?.node()),
    };
    let laid = lay_node(&change.edit, given, state, Some(rules))?.map(|laid| laid.into_payload(&change.edit));
    let (payload, node) = laid.unzip();
    (slot.payload, slot.after) = (payload, node.map(Rc::new));
    Ok(())
}

fn cannot_lay(index: usize, change: &Change, facts: &Facts, has_schema: bool, error: &LayError) -> Rejection {
    let (key, message) = (&change.key, format!("change {index} on {}: {error}", change.key));
    let (code, change_code, field) = match error {
        LayError::Missing => (RejectionCode::Conflict, ChangeCode::Missing, None),
        LayError::NotANumber { field, .. } => (RejectionCode::SchemaViolation, ChangeCode::Invalid, Some(field)),
        LayError::OutOfRange { field } => (RejectionCode::BoundViolation, ChangeCode::Invalid, Some(field)),
    };
    let rule = field.filter(|_| has_schema).map(|field| rule(&key.entity, field));
    let mut rejection = invalid(code, rule, message, (index, key), facts);
    rejection.changes.iter_mut().for_each(|change| change.code = change_code);
    rejection
}
