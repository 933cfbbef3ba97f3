//! What programs wrote through plain SQL becomes groups: in capture order, inside the transaction of whoever writes next.
//!
//! Invariant (P7, P11): everything captured becomes a numbered group, sealed or, where it cannot be, parked whole with a
//! reason; nothing is dropped, and the tables then show the local view again.
//!
//! Rejected alternative: completing in a background task of one process; a push between commit and completion would send a
//! state of the device that its user has left.

mod edits;
mod park;
mod rows;
mod values;

use crate::environment::Environment;
use crate::error::Error;
use crate::operation::seal;
use crate::operation::staging::Staging;
use crate::store::{Tx, outbox, state};
use crate::{tables, view};
use edits::edits_of;
use gbsync_core::change::{Edit, InvalidPayload, Payload};
use gbsync_core::id::{Actor, Entity, GroupId, GroupType, RecordId, RecordKey};
use gbsync_core::limits::Limits;
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::verdict::RejectionCode;
use park::{Refused, park};
use rows::Captured;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Whether anything waits to be completed.
pub(crate) fn is_waiting(connection: &Connection) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM gbsync_capture) OR EXISTS (SELECT 1 FROM gbsync_operation)";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Completes what was captured. Answers whether there was anything.
pub(crate) fn complete(tx: &Tx<'_>, environment: &Environment) -> Result<bool, Error> {
    if !is_waiting(tx)? {
        return Ok(false);
    }
    let limits = state::read(tx)?.limits;
    show_before(tx)?;
    let mut completion = Completion { tx, environment, limits, refused: BTreeMap::new(), stale: BTreeSet::new() };
    rows::each(tx, |captured| completion.take(&captured))?;
    for key in &completion.stale {
        let shown = view::of(tx, key)?;
        tables::write(tx, key, shown.payload.as_ref().map(Payload::as_str))?;
    }
    // A bracket that stands in a committed file was left behind; what was captured in it is parked by now.
    tx.execute_batch("DELETE FROM gbsync_capture; DELETE FROM gbsync_operation;")?;
    Ok(true)
}

/// Lets the rows that programs wrote show again what the local view has, where a table is asked for references and unique
/// values: an operation is held against what was there before it, and not against what was written after it.
fn show_before(tx: &Tx<'_>) -> Result<(), Error> {
    let mut statement = tx.prepare("SELECT DISTINCT entity, id FROM gbsync_capture WHERE id IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // What is no text is no id of a record.
        let (Ok(entity), Ok(id)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) else { continue };
        let Ok(key) = RecordKey::new(entity, id) else { continue };
        let rules = tx.schemas().laying(&key.entity);
        if rules.is_some_and(|rules| !rules.unique.is_empty() || rules.references().next().is_some()) {
            let shown = view::of(tx, &key)?;
            tables::write(tx, &key, shown.payload.as_ref().map(Payload::as_str))?;
        }
    }
    Ok(())
}

/// Where completing stands.
struct Completion<'t> {
    tx: &'t Tx<'t>,
    environment: &'t Environment,
    limits: Limits,
    /// Records that a refused group touched, with the last such group and whether it only incremented: what came after was
    /// written on top of it.
    refused: BTreeMap<RecordKey, (GroupId, bool)>,
    /// Records whose rows may not show the local view.
    stale: BTreeSet<RecordKey>,
}

/// Why a captured operation is parked.
struct Why {
    code: &'static str,
    message: String,
}

impl Completion<'_> {
    fn take(&mut self, captured: &Captured) -> Result<(), Error> {
        if captured.changes.is_empty() {
            return Ok(());
        }
        self.tx.prepare_cached("SAVEPOINT captured")?.execute([])?;
        if let Some(before) = self.refused_before(captured)? {
            let message = outbox::depends_on_parked(&before);
            self.refuse(captured, Some(before), &Why { code: "dependency_rejected", message })?;
            return self.release();
        }
        let why = match self.seal(captured) {
            Ok(true) => return self.release(),
            Ok(false) => {
                // It came to nothing, such as a row inserted and deleted again.
                for change in &captured.changes {
                    let key = change.key()?;
                    self.stale.insert(key);
                }
                return self.release();
            }
            Err(error @ (Error::Database(_) | Error::Damaged(_) | Error::Locked)) => return Err(error),
            Err(error) => Why { code: code_of(&error), message: error.to_string() },
        };
        self.tx.execute_batch("ROLLBACK TO captured")?;
        let before =
            if why.code == RejectionCode::DanglingReference.as_str() { self.refused_target(captured) } else { None };
        let why = match &before {
            Some(before) => Why { code: "dependency_rejected", message: outbox::depends_on_parked(before) },
            None => why,
        };
        self.refuse(captured, before, &why)?;
        self.release()
    }

    fn release(&self) -> Result<(), Error> {
        self.tx.prepare_cached("RELEASE captured")?.execute([])?;
        Ok(())
    }

    /// Seals it like any operation; `false` when nothing is left to seal.
    fn seal(&self, captured: &Captured) -> Result<bool, Error> {
        if !captured.is_closed && !is(Mutant::AbandonedBracketSent) {
            return Err(Error::LeftOpen);
        }
        let group_type = captured.group_type.clone().map(GroupType::new).transpose()?;
        let actor = captured.actor.clone().map(Actor::new).transpose()?;
        let mut staging = Staging::new(group_type, captured.root.clone(), actor, (self.limits, self.tx.schemas().clone()));
        staging.made_at = Some(captured.at);
        for change in &captured.changes {
            let key = change.key()?;
            if !change.has_text_id() {
                return Err(Error::NotJson { key, message: "the id is no text in UTF-8".into() });
            }
            let now = staging.read(self.tx, &key)?;
            for edit in edits_of(self.tx, &key, change, now.as_ref(), &self.limits)? {
                staging.stage(self.tx, key.clone(), edit)?;
            }
        }
        if staging.is_empty() {
            return Ok(false);
        }
        // Nothing can come between staging and sealing: both are inside this transaction.
        seal::seal(self.tx, self.environment, &staging, true)?;
        Ok(true)
    }

    /// The refused group that this one was written on top of.
    fn refused_before(&self, captured: &Captured) -> Result<Option<GroupId>, Error> {
        for change in &captured.changes {
            let key = change.key()?;
            if let Some((id, only_increments)) = self.refused.get(&key)
                && !(*only_increments && change.only_increments())
            {
                return Ok(Some(id.clone()));
            }
        }
        Ok(None)
    }

    /// The refused group whose record this one refers to.
    fn refused_target(&self, captured: &Captured) -> Option<GroupId> {
        let mut targets = captured.changes.iter().filter_map(|change| {
            let rules = self.tx.schemas().writing(&Entity::new(change.entity.as_str()).ok()?)?;
            let target = change.fields.iter().find_map(|(name, _, value)| {
                let reference = rules.fields.get(name)?.reference.as_ref()?;
                let Value::Text(id) = value else { return None };
                self.refused.get(&RecordKey { entity: reference.entity.clone(), id: RecordId::new(id.as_str()).ok()? })
            });
            target.map(|(id, _)| id.clone())
        });
        targets.next_back()
    }

    /// Parks it whole, and lets the rows show again what they showed before it.
    fn refuse(&mut self, captured: &Captured, depends_on: Option<GroupId>, why: &Why) -> Result<(), Error> {
        let mut changes: Vec<(RecordKey, Edit)> = Vec::new();
        for change in &captured.changes {
            let key = change.key()?;
            let shown = view::of(self.tx, &key)?.payload;
            let edits = edits::forced(self.tx, &key, change, shown.as_ref());
            changes.extend(edits.into_iter().map(|edit| (key.clone(), edit)));
            change.remove_row_without_text_id(self.tx)?;
            self.stale.insert(key);
        }
        let refused = Refused { captured, changes: &changes, depends_on, code: why.code, message: &why.message };
        let Some(id) = park(self.tx, self.environment, &refused)? else { return Ok(()) };
        for change in &captured.changes {
            let key = change.key()?;
            let only_increments = change.only_increments() && self.refused.get(&key).is_none_or(|(_, only)| *only);
            self.refused.insert(key, (id.clone(), only_increments));
        }
        Ok(())
    }
}

/// The stable code under which an operation is parked that could not be sealed.
fn code_of(error: &Error) -> &'static str {
    match error {
        Error::InvalidPayload { source: InvalidPayload::TooLarge { .. }, .. } => "too_large",
        Error::InvalidPayload { .. } | Error::NotJson { .. } | Error::InvalidId(_) => "schema_violation",
        other => other.code(),
    }
}
