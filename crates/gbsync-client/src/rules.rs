//! The rules of the schema held against a group before it is sealed: the server's own code on what this device knows.
//!
//! Invariant: nothing is decided here. What this passes the server may still refuse, because others wrote meanwhile; what
//! this refuses would have been refused on what the person saw.
//!
//! Rejected alternative: to leave it all to the server; a wrong total would come back when the customer is gone.

use crate::error::Error;
use crate::store::{Tx, lists};
use crate::view;
use gbsync_core::change::{Change, Payload};
use gbsync_core::decide::{self, Facts, Needs, Record};
use gbsync_core::id::{GroupType, RecordKey, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;

/// Holds the changes of a group against the rules. `seen` are records that are known to be so still.
///
/// # Errors
/// [`Error::RuleViolated`] names the rule and the change at fault. A rule whose violation only flags is none.
pub(crate) fn check<'s>(
    tx: &Tx<'_>,
    changes: &[Change],
    group_type: Option<&GroupType>,
    limits: &Limits,
    seen: impl Iterator<Item = (&'s RecordKey, Option<&'s Payload>)>,
) -> Result<(), Error> {
    let Some(schema) = tx.schemas().effective() else { return Ok(()) };
    let changes = tx.schemas().translated(changes, tx.schemas().app_version());
    let mut facts = Facts::default();
    seen.for_each(|(key, payload)| facts.learn_record(key.clone(), payload.map(|payload| known(Some(payload.clone())))));
    // Asked for at first, so that nothing is evaluated twice.
    let needs = facts.missing(decide::wanted(&changes, Some(schema), group_type));
    learn(tx, schema, needs, &mut facts)?;
    loop {
        match decide::check(&changes, &facts, schema, group_type, limits) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(rejection)) => {
                let index = rejection.changes.first().map(|change| change.index);
                let (code, rule, message) = (rejection.code, rejection.rule, rejection.message);
                return Err(Error::RuleViolated { code, rule, message, index });
            }
            Err(needs) => learn(tx, schema, needs, &mut facts)?,
        }
    }
}

/// A record as the local view shows it. Versions say nothing here: conflicts are the server's to find.
fn known(payload: Option<Payload>) -> Record {
    Record { version: Seq(0), edit_version: Seq(0), payload, marks: None, reach: Default::default() }
}

fn learn(tx: &Tx<'_>, schema: &Schema, needs: Needs, facts: &mut Facts) -> Result<(), Error> {
    for key in needs.records {
        let view = view::under(tx.schemas(), tx, &key)?;
        // One that was deleted is another thing than one that never was: an ignored reference may be made to it.
        let ever_was = view.payload.is_some() || view.was_deleted();
        facts.learn_record(key, ever_was.then(|| known(view.payload)));
    }
    for list in needs.index {
        let ids = lists::members(tx, schema, &list)?;
        facts.learn_index(list, ids);
    }
    Ok(())
}
