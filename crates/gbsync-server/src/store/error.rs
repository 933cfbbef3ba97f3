//! Why a store did not do what it was asked, and what the writer makes of it.

use std::path::PathBuf;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was written by a newer version.
    #[error("{store} has format {found}, this version of gbsync knows formats up to {known}; install a newer version")]
    Newer {
        /// The file or the database.
        store: String,
        /// Its format.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// The file is something else.
    #[error("{} is not a gbsync store: {reason}; choose another folder", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// Stored data that cannot have been stored by this code.
    #[error("the store is damaged: {0}; restore it from a backup")]
    Damaged(String),
    /// The disk failed, and what it dropped then cannot be written again yet.
    #[error("{} cannot be used: a sync of its log failed, and writing it again does too: {source}; see that the disk is well", path.display())]
    Unsynced {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// SQLite says no.
    #[error("the store cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL says no.
    #[error("PostgreSQL cannot do what it was asked: {0}")]
    Postgres(String),
    /// PostgreSQL is set up so that it may lose what it acknowledged, or cannot keep groups whole.
    #[error("PostgreSQL must not be used like this: {0}")]
    Unsafe(String),
    /// The address of the store says something that is not understood.
    #[error("the store's address is not understood: {0}; write it like postgres://user@host/database")]
    Address(String),
    /// There is no connection to PostgreSQL; nothing of the transaction took effect.
    #[error("PostgreSQL cannot be reached: {0}; see that it runs and that the store's address is right")]
    Lost(String),
    /// Another transaction was in the way; nothing of this one took effect.
    #[error("PostgreSQL wants the transaction again: {0}")]
    Collided(String),
    /// A record, or something else that was to be new, is there; nothing of the transaction took effect.
    #[error("the store holds already what was to be new: {0}")]
    Taken(String),
    /// The connection went away during COMMIT: the transaction took effect entirely or not at all.
    #[error("whether the transaction took effect is not known: {0}")]
    Uncertain(String),
    /// A file of a snapshot cannot be written or read.
    #[error("a snapshot cannot be made: {0}; see that its folder can be written and has room")]
    Snapshot(std::io::Error),
    /// A file of an archive cannot be written. Nothing has left the log without one.
    #[error("an archive of the log cannot be written: {0}; see that its folder can be written and has room")]
    Archive(std::io::Error),
    /// Another process has put another schema in force, or is about to.
    #[error("another schema is in force than this process decides by")]
    OtherSchema,
}

impl StoreError {
    /// The same for one more who asked.
    pub(crate) fn told_again(&self) -> Self {
        match self {
            Self::Lost(text) => Self::Lost(text.clone()),
            Self::Collided(text) => Self::Collided(text.clone()),
            Self::Postgres(text) => Self::Postgres(text.clone()),
            Self::Damaged(text) => Self::Damaged(text.clone()),
            other => Self::Postgres(other.to_string()),
        }
    }

    /// Whether the same transaction may succeed when it is begun again.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Collided(_) | Self::Uncertain(_) | Self::OtherSchema)
    }
}
