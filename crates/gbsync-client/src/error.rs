//! What can go wrong on a device, with a stable code and a sentence that says what to do.

use gbsync_core::change::InvalidPayload;
use gbsync_core::group::InvalidGroup;
use gbsync_core::id::{GroupId, InvalidId, RecordKey};
use gbsync_core::lay::LayError;
use gbsync_core::verdict::RejectionCode;

/// What can go wrong on a device. Verdicts are no errors: see [`crate::GroupInfo`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An id or name is not one. Correct it and write again.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// A payload is not one. Correct it and write again.
    #[error("{key}: {source}")]
    InvalidPayload {
        /// The record.
        key: RecordKey,
        /// What is wrong.
        source: InvalidPayload,
    },
    /// A value could not be turned into JSON.
    #[error("{key}: the value cannot be written as JSON: {message}")]
    NotJson {
        /// The record.
        key: RecordKey,
        /// What the serializer said.
        message: String,
    },
    /// An edit makes no sense on the record as it is here. Nothing was staged; the operation goes on without it.
    #[error("{key}: cannot {action}: {source}")]
    CannotLay {
        /// The record.
        key: RecordKey,
        /// The edit.
        action: &'static str,
        /// Why not.
        source: LayError,
    },
    /// The operation's changes are no group. Nothing of it was stored.
    #[error(transparent)]
    InvalidGroup(#[from] InvalidGroup),
    /// One change does not fit one request to the server. Nothing of its operation was stored.
    #[error(
        "{key}: the change has {bytes} bytes and the server takes {limit} in one request; keep large content out of records"
    )]
    ChangeTooLarge {
        /// The record.
        key: RecordKey,
        /// Bytes it has in wire form.
        bytes: u64,
        /// Bytes a request may have.
        limit: u64,
    },
    /// An operation ended without a change: there is nothing to seal.
    #[error("the operation changed nothing, so there is nothing to save")]
    EmptyOperation,
    /// The operation breaks a rule of the schema. Nothing of it was stored; correct it and write again.
    #[error("{message}{}", rule.as_ref().map(|rule| format!(" (rule {rule})")).unwrap_or_default())]
    RuleViolated {
        /// The code that the server would refuse it with.
        code: RejectionCode,
        /// The rule: a field, a reference, a shape, or an invariant by its name.
        rule: Option<String>,
        /// What is wrong.
        message: String,
        /// The place of the change at fault in the operation, where one is.
        index: Option<usize>,
    },
    /// A text is no name of a flag. Take one of `gbsync_flag.flag_id`.
    #[error("{0:?} is no flag; gbsync_flag.flag_id names them, like 42.0")]
    InvalidFlag(String),
    /// A program left an operation open that it wrote through SQL.
    #[error("a program ended without closing the operation; look at what it wrote, then retry, amend or discard it")]
    LeftOpen,
    /// A scope's writes went to another database than its first one.
    #[error("an operation scope writes to one database; this one began with another")]
    AnotherClient,
    /// The id was given to another group before.
    #[error("{0} was applied before; its outcome is in gbsync_group")]
    AlreadyApplied(GroupId),
    /// No such group is kept here.
    #[error("{0} is not kept on this device; `gbsync outbox list --all` shows what is")]
    UnknownGroup(GroupId),
    /// Only a parked group can be amended, retried or discarded.
    #[error("{id} is {state}, not parked: only a parked group can be amended, retried or discarded")]
    NotParked {
        /// The group.
        id: GroupId,
        /// What it is instead.
        state: String,
    },
    /// Discarding needs a reason.
    #[error("say why, in 1 to {limit} bytes: whoever looks for the sale later must find out")]
    NoReason {
        /// Most bytes of a reason.
        limit: usize,
    },
    /// The file is not an SQLite database.
    #[error("{path} is not an SQLite database; name another file")]
    NotSqlite {
        /// The file.
        path: String,
    },
    /// The file has no gbsync tables.
    #[error("{path} is not set up for gbsync; run `gbsync init {path} --server URL --space SPACE` first")]
    NotInitialized {
        /// The file.
        path: String,
    },
    /// The file already belongs to a space.
    #[error("{path} already belongs to space {space} on {server}")]
    AlreadyInitialized {
        /// The file.
        path: String,
        /// Its server.
        server: String,
        /// Its space.
        space: String,
    },
    /// The file was written by a newer version.
    #[error("{path} was written by a newer gbsync (format {format}, this one knows {known}); install that version")]
    NewerFormat {
        /// The file.
        path: String,
        /// Its format.
        format: i64,
        /// The newest format this version knows.
        known: i64,
    },
    /// The rules that the program brings are older than those of the file. Nothing was changed.
    #[error(
        "the file is kept under version {stored} of its schema and this program brings {brought}; install the newer program"
    )]
    OlderSchema {
        /// The version that the program brings.
        brought: u64,
        /// The version that the file has.
        stored: u64,
    },
    /// The rules that the program brings are others than those of the file, under the same version. Nothing was changed.
    #[error("the schema was changed but is version {version} still; raise its version")]
    SameSchemaVersion {
        /// The version of both.
        version: u64,
    },
    /// Something of the app's in the file has the name of a table that the schema makes. Nothing was changed.
    #[error("the file has a table or view {name:?} of its own; rename it, or the entity of the schema")]
    TableTaken {
        /// The name.
        name: String,
    },
    /// No table can be made for an entity of the schema. Nothing was changed.
    #[error("the schema cannot be used here: {0}")]
    UnusableSchema(String),
    /// The file cannot be written.
    #[error("{path} cannot be written: {reason}; check the permissions of the file and its folder")]
    ReadOnly {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The disk failed, and what it dropped then cannot be written again yet. Nothing was changed; what was saved is still there.
    #[error(
        "{path} cannot be used: a sync of its log failed, and writing it again does too: {reason}; see that the disk is well"
    )]
    Unsynced {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Another process holds the database for too long.
    #[error("another process is writing to the database; try again")]
    Locked,
    /// What is stored contradicts itself. Keep the file and report it.
    #[error("the stored data is damaged: {0}; keep a copy of the file and report this")]
    Damaged(String),
    /// SQLite failed.
    #[error("the local database failed: {0}; nothing half was stored: check the disk's space and health, then try again")]
    Database(rusqlite::Error),
}

impl Error {
    /// The stable code of this error.
    ///
    /// ```
    /// assert_eq!(gbsync_client::Error::EmptyOperation.code(), "empty_operation");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidId(_) => "invalid_id",
            Self::InvalidPayload { .. } => "invalid_payload",
            Self::NotJson { .. } => "not_json",
            Self::CannotLay { source: LayError::Missing, .. } => "missing",
            Self::CannotLay { source: LayError::NotANumber { .. }, .. } => "schema_violation",
            Self::CannotLay { source: LayError::OutOfRange { .. }, .. } => "bound_violation",
            Self::InvalidGroup(InvalidGroup::TooLarge { .. } | InvalidGroup::TooManyRecords { .. }) => "too_large",
            Self::InvalidGroup(_) => "invalid_group",
            Self::ChangeTooLarge { .. } => "too_large",
            Self::EmptyOperation => "empty_operation",
            Self::RuleViolated { code, .. } => code.as_str(),
            Self::InvalidFlag(_) => "invalid_flag",
            Self::LeftOpen => "operation_left_open",
            Self::AnotherClient => "another_client",
            Self::AlreadyApplied(_) => "already_applied",
            Self::UnknownGroup(_) => "unknown_group",
            Self::NotParked { .. } => "not_parked",
            Self::NoReason { .. } => "no_reason",
            Self::NotSqlite { .. } => "not_sqlite",
            Self::NotInitialized { .. } => "not_initialized",
            Self::AlreadyInitialized { .. } => "already_initialized",
            Self::NewerFormat { .. } => "newer_format",
            Self::OlderSchema { .. } => "older_schema",
            Self::SameSchemaVersion { .. } => "same_schema_version",
            Self::TableTaken { .. } => "table_taken",
            Self::UnusableSchema(_) => "unusable_schema",
            Self::ReadOnly { .. } => "read_only",
            Self::Unsynced { .. } => "unsynced",
            Self::Locked => "locked",
            Self::Damaged(_) => "damaged",
            Self::Database(_) => "database",
        }
    }

    /// Whether waiting may mend it: another process that writes for long, a disk that is full.
    pub(crate) fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, OutOfMemory, SystemIoFailure};
        match self {
            Self::Locked | Self::Unsynced { .. } => true,
            Self::Database(error) => {
                matches!(error.sqlite_error_code(), Some(DiskFull | SystemIoFailure | CannotOpen | OutOfMemory))
            }
            _ => false,
        }
    }

    /// Turns why a log cannot be written again into a sentence.
    pub(crate) fn of_unsynced(error: rusqlite::Error, path: &std::path::Path) -> Self {
        use rusqlite::ErrorCode::{DiskFull, SystemIoFailure};
        match error.sqlite_error_code() {
            Some(DiskFull | SystemIoFailure) => {
                Self::Unsynced { path: path.display().to_string(), reason: error.to_string() }
            }
            _ => Self::about_file(error, path),
        }
    }

    /// Turns what SQLite says of a whole file into a sentence about that file.
    pub(crate) fn about_file(error: rusqlite::Error, path: &std::path::Path) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, NotADatabase, PermissionDenied, ReadOnly};
        let path = path.display().to_string();
        match error.sqlite_error_code() {
            Some(NotADatabase) => Self::NotSqlite { path },
            Some(ReadOnly | CannotOpen | PermissionDenied) => Self::ReadOnly { path, reason: error.to_string() },
            _ => error.into(),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => Self::Locked,
            _ => Self::Database(error),
        }
    }
}

/// Marks stored data that cannot be what this product wrote.
pub(crate) fn damaged(what: &str, detail: impl std::fmt::Display) -> Error {
    Error::Damaged(format!("{what}: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_passes_and_damage_does_not() {
        let sqlite = |code| Error::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        assert!(sqlite(rusqlite::ffi::SQLITE_FULL).may_pass());
        assert!(sqlite(rusqlite::ffi::SQLITE_IOERR).may_pass());
        assert!(sqlite(rusqlite::ffi::SQLITE_BUSY).may_pass());
        assert!(!sqlite(rusqlite::ffi::SQLITE_CORRUPT).may_pass());
        assert!(!Error::Damaged("a row is missing".into()).may_pass());
    }
}
