//! The operation context: one mechanism behind three faces.
//!
//! `client.operation(…, |op| …)`, `client.begin(…)` with `operation.seal()`, and the ambient `operation_scope(…)` all
//! stage into the same structure and seal through the same function.
//!
//! Rejected alternative: keeping a database transaction open for the length of an operation; one slow form would block
//! every other writer, and a pull.

mod payload;
mod scope;
pub(crate) mod seal;
pub(crate) mod staging;
mod waits;

pub use payload::{IntoPayload, Json};
pub(crate) use scope::in_scope;
pub use scope::{operation_scope, operation_scope_sync};

use crate::client::{Client, OpenOperation};
use crate::error::Error;
use gbsync_core::change::{Edit, Payload};
use gbsync_core::id::{Actor, DeviceSeq, GroupId, RecordKey};
use staging::Staging;

/// A group that is durable on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its id.
    pub group_id: GroupId,
    /// Its number on this device: without gaps.
    pub device_seq: DeviceSeq,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It joined the operation scope around it and becomes durable with it.
    Staged,
    /// It stood alone and is durable as a group of one.
    Sealed(Sealed),
}

/// A business action being written. Dropping it leaves nothing behind.
///
/// ```
/// # use gbsync_client::{Client, Config, Remote};
/// # let folder = tempfile::tempdir().unwrap();
/// # let remote = Remote { server: "http://127.0.0.1:1".into(), space: gbsync_core::id::SpaceId::new("shop").unwrap() };
/// # let client = Client::create(Config::new(folder.path().join("till.db")), &remote).unwrap();
/// let mut sale = client.begin("receipt-create", "receipt-001")?;
/// sale.upsert("receipts", "receipt-001", r#"{"total":"120.00"}"#)?;
/// sale.upsert("payments", "payment-001", r#"{"receiptId":"receipt-001","amount":"120.00"}"#)?;
/// assert_eq!(sale.seal()?.device_seq.0, 1);
/// # Ok::<(), gbsync_client::Error>(())
/// ```
#[must_use = "an operation that is not sealed leaves nothing behind"]
pub struct Operation {
    client: Client,
    staging: Staging,
    _is_open: OpenOperation,
}

impl Operation {
    pub(crate) fn new(client: Client, staging: Staging) -> Self {
        let _is_open = client.open_operation();
        Self { client, staging, _is_open }
    }

    /// The record shall be this, whatever it was.
    ///
    /// # Errors
    /// [`Error`] when an id or the payload is none; the operation goes on without this change.
    pub fn upsert(&mut self, entity: &str, id: &str, payload: impl IntoPayload) -> Result<(), Error> {
        self.write(entity, id, Edit::Upsert, payload)
    }

    /// Merges members into a record (RFC 7396: `null` removes one).
    ///
    /// # Errors
    /// [`Error::CannotLay`] when the record is not there.
    pub fn patch(&mut self, entity: &str, id: &str, payload: impl IntoPayload) -> Result<(), Error> {
        self.write(entity, id, Edit::Patch, payload)
    }

    /// Adds numbers to fields of a record. Never conflicts with another increment or with an edit of other fields.
    ///
    /// # Errors
    /// [`Error::CannotLay`] when the record is not there or a field holds something else than a number.
    pub fn increment(&mut self, entity: &str, id: &str, deltas: impl IntoPayload) -> Result<(), Error> {
        self.write(entity, id, Edit::Increment, deltas)
    }

    /// The record shall be gone.
    ///
    /// # Errors
    /// [`Error::CannotLay`] when it is not there.
    pub fn delete(&mut self, entity: &str, id: &str) -> Result<(), Error> {
        let key = RecordKey::new(entity, id)?;
        let Self { client, staging, .. } = self;
        let look = client.store().look()?;
        staging.begin_at(look.stamp());
        staging.stage(&look, key, Edit::Delete)
    }

    /// The record as this operation sees it, its own changes included. Also takes the base that a later change of the
    /// record in this operation is judged by.
    ///
    /// # Errors
    /// [`Error`] when an id is none or the database fails.
    pub fn read(&mut self, entity: &str, id: &str) -> Result<Option<Payload>, Error> {
        let key = RecordKey::new(entity, id)?;
        let Self { client, staging, .. } = self;
        let look = client.store().look()?;
        staging.begin_at(look.stamp());
        staging.read(&look, &key)
    }

    /// Lets the group wait for another one, beside those it waits for anyway.
    pub fn depends_on(&mut self, group: GroupId) {
        self.staging.depends_on.push(group);
    }

    /// Clears a flag of an accepted group (`gbsync_flag`): somebody saw to it.
    ///
    /// # Errors
    /// [`Error::InvalidFlag`] when this is the name of none, such as `42.0`.
    pub fn clears(&mut self, flag_id: &str) -> Result<(), Error> {
        let is_count = |text: &str| (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        match flag_id.split_once('.') {
            Some((seq, place)) if is_count(seq) && is_count(place) => self.staging.clears.push(flag_id.into()),
            _ => return Err(Error::InvalidFlag(flag_id.to_owned())),
        }
        Ok(())
    }

    /// Says who makes the group, instead of the client's actor.
    pub fn actor(&mut self, actor: Actor) {
        self.staging.actor = Some(actor);
    }

    /// Gives the group an id instead of minting one: sealing a second group with it is refused.
    pub fn given_id(&mut self, id: GroupId) {
        self.staging.given_id = Some(id);
    }

    /// Makes the changes a durable group, with the local view they make, in one transaction.
    ///
    /// # Errors
    /// [`Error::EmptyOperation`] without a change; [`Error::InvalidGroup`] and [`Error::ChangeTooLarge`] over a limit;
    /// [`Error::Locked`] when another process writes for too long. Nothing is stored then.
    pub fn seal(self) -> Result<Sealed, Error> {
        self.client.seal(&self.staging)
    }

    /// Stages an edit that was made before.
    pub(crate) fn stage(&mut self, key: RecordKey, edit: Edit) -> Result<(), Error> {
        let Self { client, staging, .. } = self;
        let look = client.store().look()?;
        staging.begin_at(look.stamp());
        staging.stage(&look, key, edit)
    }

    fn write(&mut self, entity: &str, id: &str, make: fn(Payload) -> Edit, payload: impl IntoPayload) -> Result<(), Error> {
        let key = RecordKey::new(entity, id)?;
        let Self { client, staging, .. } = self;
        // The value is the app's code: it may read or write itself.
        let text = payload.into_json().map_err(|message| Error::NotJson { key: key.clone(), message })?;
        let look = client.store().look()?;
        staging.begin_at(look.stamp());
        staging.write(&look, key, make, &text)?;
        drop(look);
        #[cfg(feature = "mutants")]
        crate::planted::flush(client, staging)?;
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.staging.is_empty()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}
