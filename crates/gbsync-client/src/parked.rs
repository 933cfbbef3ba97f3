//! What a person or the app can do about a parked group: look at it with both versions, amend, retry or discard it.
//!
//! Amending and retrying seal a new group that names the one it `replaces`; bytes that were sealed never change, and the
//! server accepts at most one of them.

use crate::client::Client;
use crate::error::{Error, damaged};
use crate::operation::staging::{MadeBy, Staging};
use crate::operation::{Operation, Sealed};
use crate::requeue::{edits_of, reseal, staging_instead, still_wanted};
use crate::status::{GroupFilter, GroupInfo};
use crate::store::parked::{self, Kept};
use crate::store::{discards, outbox};
use gbsync_core::change::{Edit, Payload};
use gbsync_core::fault;
use gbsync_core::id::{GroupId, RecordKey, Seq};
use gbsync_core::verdict::CurrentRecord;
use rusqlite::{Connection, Row};

/// A group that waits for somebody to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedGroup {
    /// What it is and why it was refused: [`GroupInfo::code`] and [`GroupInfo::message`].
    pub group: GroupInfo,
    /// The rule at fault, where a rule is.
    pub rule: Option<String>,
    /// Its changes, in order.
    pub changes: Vec<ParkedChange>,
    /// How often the resolver answered for this group and those it stands for.
    pub resolver_attempts: u32,
}

/// One change of a parked group, with both versions of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedChange {
    /// Its place in the group.
    pub index: usize,
    /// The record.
    pub key: RecordKey,
    /// What was tried.
    pub edit: Edit,
    /// Why: its own code where the server named one, else the group's.
    pub code: Option<String>,
    /// What it was made on, where that was still known when the group was parked.
    pub base: Option<Payload>,
    /// The record as the server was last heard to have it; `None` where there is none.
    pub current: Option<CurrentRecord>,
}

impl Client {
    /// The groups that wait for somebody to decide, in seal order.
    ///
    /// # Errors
    /// [`Error`] when the database fails or what is stored is damaged.
    pub fn parked(&self) -> Result<Vec<ParkedGroup>, Error> {
        let groups = self.groups(GroupFilter::Parked, usize::MAX)?;
        groups.into_iter().map(|group| self.parked_of(group)).collect()
    }

    /// One parked group; `None` in any other state.
    ///
    /// # Errors
    /// [`Error`] when the database fails or what is stored is damaged.
    pub fn parked_group(&self, id: &GroupId) -> Result<Option<ParkedGroup>, Error> {
        let group = self.group(id)?.filter(|group| group.state == crate::GroupState::Parked);
        group.map(|group| self.parked_of(group)).transpose()
    }

    fn parked_of(&self, group: GroupInfo) -> Result<ParkedGroup, Error> {
        let rule = group.rejection().and_then(|rejection| rejection.rule);
        let mut reader = self.store().reader();
        let tx = reader.transaction()?;
        let changes = changes_of(&tx, &group.group_id)?;
        let resolver_attempts = parked::resolver_attempts(&tx, &group.group_id)?;
        Ok(ParkedGroup { group, rule, changes, resolver_attempts })
    }

    /// Writes a new operation in the place of a parked group: other edits, the same type, root and actor.
    ///
    /// The new group is made on what the device shows now, and names the parked one as `replaces`. Of both at most one is
    /// ever accepted, whoever amends where.
    ///
    /// ```no_run
    /// # use gbsync_client::{Client, Error, ParkedGroup};
    /// fn sell_another(client: &Client, refused: &ParkedGroup) -> Result<(), Error> {
    ///     client.amend::<Error>(&refused.group.group_id, |op| {
    ///         op.upsert("receipts", "r-1", r#"{"total":"3.00"}"#)?;
    ///         op.increment("stock", "pencil", r#"{"quantity":-1}"#)
    ///     })?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotParked`] when the group is not parked (any more); what `write` answers; why sealing failed. Nothing is
    /// changed then.
    pub fn amend<E: From<Error>>(
        &self,
        id: &GroupId,
        write: impl FnOnce(&mut Operation) -> Result<(), E>,
    ) -> Result<Sealed, E> {
        let old = self.open_parked(id)?;
        self.write_instead(staging_instead(&old, MadeBy::Person, self.terms()), write)
    }

    fn write_instead<E: From<Error>>(
        &self,
        staging: Staging,
        write: impl FnOnce(&mut Operation) -> Result<(), E>,
    ) -> Result<Sealed, E> {
        let mut operation = Operation::new(self.clone(), staging);
        write(&mut operation)?;
        Ok(operation.seal()?)
    }

    /// As [`Client::amend`], but begins with the edits of the parked group, the flags it clears and what it waits for, so
    /// that `write` says only what differs.
    ///
    /// # Errors
    /// As [`Client::amend`]; [`Error::CannotLay`] when an old edit makes no sense on what the device shows now.
    pub fn revise<E: From<Error>>(
        &self,
        id: &GroupId,
        write: impl FnOnce(&mut Operation) -> Result<(), E>,
    ) -> Result<Sealed, E> {
        let old = self.open_parked(id)?;
        let edits = edits_of(&self.store().reader(), &self.store().schemas(), &old)?;
        let mut staging = staging_instead(&old, MadeBy::Person, self.terms());
        staging.depends_on = still_wanted(&self.store().reader(), &old)?;
        staging.clears.clone_from(&old.clears);
        self.write_instead(staging, |operation| {
            edits.into_iter().try_for_each(|(key, edit)| operation.stage(key, edit))?;
            write(operation)
        })
    }

    /// Sends a parked group's edits again, as a new group on what the device shows now.
    ///
    /// # Errors
    /// [`Error::NotParked`] when the group is not parked (any more); [`Error::CannotLay`] when an edit makes no sense on
    /// what the device shows now. Nothing is changed then.
    pub fn retry(&self, id: &GroupId) -> Result<Sealed, Error> {
        self.seal_instead(id, None, MadeBy::Person)
    }

    /// Seals these edits, or the old ones, in the place of a parked group.
    pub(crate) fn seal_instead(
        &self,
        id: &GroupId,
        edits: Option<Vec<(RecordKey, Edit)>>,
        made_by: MadeBy,
    ) -> Result<Sealed, Error> {
        let limits = self.limits();
        let sealed = self.store().write(|tx| {
            let old = parked::open(tx, id)?;
            let (edits, depends_on) = match edits {
                Some(edits) => (edits, Vec::new()),
                None => (edits_of(tx, tx.schemas(), &old)?, still_wanted(tx, &old)?),
            };
            reseal(tx, self.environment(), limits, &old, &edits, depends_on, made_by)
        })?;
        self.notify();
        Ok(sealed)
    }

    /// Closes a parked group that nobody wants any more. It is kept, with the reason, and the server is told at the next
    /// sync; if it turns out to have accepted the group, that stands.
    ///
    /// # Errors
    /// [`Error::NoReason`] without a reason; [`Error::NotParked`] when the group is not parked (any more).
    pub fn discard(&self, id: &GroupId, reason: &str) -> Result<(), Error> {
        let reason = checked_reason(reason)?;
        let (now, actor) = (self.environment().clock.now_ms(), self.actor());
        self.store().write(|tx| discards::discard(tx, id, reason, actor.as_ref(), now))?;
        fault::point("a discard was noted");
        self.notify();
        Ok(())
    }

    fn open_parked(&self, id: &GroupId) -> Result<Kept, Error> {
        parked::open(&self.store().reader(), id)
    }
}

fn checked_reason(reason: &str) -> Result<&str, Error> {
    let (reason, limit) = (reason.trim(), gbsync_core::limits::REASON_BYTES);
    if reason.is_empty() || reason.len() > limit { Err(Error::NoReason { limit }) } else { Ok(reason) }
}

fn changes_of(tx: &Connection, id: &GroupId) -> Result<Vec<ParkedChange>, Error> {
    let Some(standing) = outbox::standing(tx, id)? else { return Ok(Vec::new()) };
    let edits = outbox::changes_of(tx, standing.local_no)?;
    let sql =
        "SELECT idx, code, base_payload, current_payload, current_version FROM gbsync_parked_change WHERE group_id = ?1";
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query([id.as_str()])?;
    let mut told = std::collections::BTreeMap::new();
    while let Some(row) = rows.next()? {
        told.insert(row.get::<_, u64>(0)?, told_of(row)?);
    }
    let changes = edits.into_iter().enumerate().map(|(index, change)| {
        let (code, base, current) =
            told.remove(&(index as u64)).ok_or_else(|| damaged("gbsync_parked_change", "a change is missing"))?;
        Ok(ParkedChange { index, key: change.key, edit: change.edit, code, base, current })
    });
    changes.collect()
}

type Told = (Option<String>, Option<Payload>, Option<CurrentRecord>);

fn told_of(row: &Row<'_>) -> Result<Told, Error> {
    let payload = |index| -> Result<Option<Box<str>>, Error> { Ok(row.get(index)?) };
    let version: u64 = row.get(4)?;
    let current = match version {
        0 => None,
        version => Some(CurrentRecord { version: Seq(version), payload: payload(3)?, reach: Default::default() }),
    };
    Ok((row.get(1)?, payload(2)?.map(Payload::from_stored), current))
}
