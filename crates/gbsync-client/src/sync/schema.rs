//! The server's schema: fetched once a version, where it is another one than the app's, and kept in the file.
//!
//! Invariant: groups are sealed and sent in the app's names whatever the server has; only what lies over the base is laid
//! anew, in the same round and before a page of the log brings records in the new names.

use super::options::SyncError;
use super::round::Round;
use crate::pull;
use crate::store::server_schema;
use crate::store::state::State;
use crate::transport::Method;
use gbsync_core::schema::Schema;
use gbsync_core::wire::{LogGroup, LogPage, WireError};
use serde_json::Value;

impl Round<'_> {
    /// The version of the schema that a page brings records to, where this device does not know yet that the server has it:
    /// the server got it after the handshake. Applied now, the page would leave columns empty whose fields have new names.
    pub(super) fn unknown_schema(&self, page: &LogPage) -> Option<u64> {
        let known = self.client.store().schemas().server.version;
        let brought = page.entries.iter().filter_map(|entry| brought_by(entry.group.as_ref()?));
        brought.max().filter(|version| *version > known)
    }

    /// Shakes hands again for a page that brings records to a schema which the server got since.
    ///
    /// # Errors
    /// [`SyncError::NotReached`] while the server is still about it.
    pub(super) async fn learn_schema_of(&mut self, page: &LogPage) -> Result<(), SyncError> {
        self.handshake().await?;
        match self.unknown_schema(page) {
            None => Ok(()),
            Some(version) => Err(still_upgrading(version)),
        }
    }

    /// Fetches the schema of the version that the handshake told, and lays the overlay anew where that changes it.
    ///
    /// A schema that this version of gbsync cannot read is left: the server understands what is sent without it.
    pub(super) async fn fetch_schema(&mut self, state: &State, version: u64) -> Result<(), SyncError> {
        let known = self.client.store().schemas();
        let is_known = known.app_version() == version || known.server.schema.is_some_and(|schema| schema.version == version);
        if version > 0 && !is_known {
            let path = format!("{}/schema", self.space_path(state));
            let answered = self.ask(Method::Get, path, None, |body| read_schema(body, version)).await?;
            if let Some(schema) = answered.answer.flatten() {
                self.client.store().write(|tx| server_schema::keep(tx, version, &schema.to_json()))?;
            }
        }
        let is_laid_anew = self.client.store().write(pull::lay_under_newest)?;
        if is_laid_anew {
            self.client.notify();
        }
        Ok(())
    }
}

/// The schema of a version, or `None` where this version of gbsync cannot read it. A text that was cut on its way, or is another
/// version's, is no answer: taken for a schema that cannot be read, it would leave columns empty.
fn read_schema(body: &[u8], version: u64) -> Result<Option<Schema>, WireError> {
    let wrong = |message: String| WireError { pointer: String::new(), message };
    let told: Value = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    if told.get("version").and_then(Value::as_u64) != Some(version) {
        return Err(wrong(format!("not the schema of version {version}")));
    }
    Ok(Schema::parse(&String::from_utf8_lossy(body)).ok())
}

/// A page can be understood when the server has the schema in force that it brings records to.
pub(super) fn still_upgrading(version: u64) -> SyncError {
    SyncError::NotReached { reason: format!("the server is bringing its records to version {version} of the schema") }
}

/// The version that a group brings records to: one of the server's own, which says so in its id.
fn brought_by(group: &LogGroup) -> Option<u64> {
    let version = group.id.as_str().strip_prefix("schema-upgrade:")?.split(':').next()?;
    (group.device.as_str() == "server").then(|| version.parse().ok())?
}
