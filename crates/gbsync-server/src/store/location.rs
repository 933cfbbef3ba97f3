//! Where a store is, and opening what is there.

use super::postgres::PostgresStore;
use super::sqlite::{self, SqliteStore};
use super::{Retainer, Store, Survey, TokenTable};
use crate::config::FaultPoint;
use crate::error::ServerError;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long an administrator's connection waits for another process's lock.
const ADMIN_PATIENCE: Duration = Duration::from_secs(10);

/// The parameters of an address that are told: where the store is and how it is reached. Nothing else, for it may be secret.
const TOLD_PARAMETERS: &[&str] = &["schema", "host", "hostaddr", "port", "user", "dbname", "sslmode", "sslrootcert"];

/// Where a store is.
///
/// ```
/// use gbsync_server::StoreLocation;
/// let location = StoreLocation::Postgres("postgres://gbsync:secret@db.example.com/shops?schema=north".into());
/// assert_eq!(location.to_string(), "postgres://gbsync@db.example.com/shops?schema=north");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A folder with an embedded SQLite file, of one process.
    Folder(PathBuf),
    /// A database of PostgreSQL 15 or newer, by its URL; any number of processes.
    Postgres(String),
}

impl StoreLocation {
    /// The folder; `None` for a database.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Postgres(_) => None,
        }
    }

    /// Takes the folder, makes it if it is not there, and opens its store; or opens a database.
    pub(crate) fn open(
        &self,
        busy_timeout: Duration,
        writers: usize,
        fault: Option<FaultPoint>,
    ) -> Result<Arc<dyn Store>, ServerError> {
        Ok(match self {
            Self::Folder(data) => {
                let lock = lock(data)?;
                Arc::new(SqliteStore::open(data, busy_timeout, fault, lock)?)
            }
            Self::Postgres(url) => Arc::new(PostgresStore::open(url, busy_timeout, writers, fault)?),
        })
    }

    /// The tokens, beside a running server; the store is made if it is not there.
    pub(crate) fn tokens(&self) -> Result<Box<dyn TokenTable>, ServerError> {
        Ok(match self {
            Self::Folder(data) => {
                std::fs::create_dir_all(data).map_err(|source| ServerError::DataFolder { path: data.into(), source })?;
                Box::new(sqlite::SqliteTokens::open(data, ADMIN_PATIENCE)?)
            }
            Self::Postgres(url) => Box::new(PostgresStore::open(url, ADMIN_PATIENCE, 1, None)?),
        })
    }

    /// What takes entries out of logs, beside a running server; `None` while another process is at it.
    pub(crate) fn retainer(&self) -> Result<Option<Box<dyn Retainer>>, ServerError> {
        match self {
            Self::Folder(data) => {
                if !data.join("gbsync.db").is_file() {
                    return Err(ServerError::NoStore { path: data.clone() });
                }
                let retainer = sqlite::SqliteRetainer::open(data, ADMIN_PATIENCE)?;
                Ok(retainer.map(|retainer| Box::new(retainer) as Box<dyn Retainer>))
            }
            Self::Postgres(url) => Ok(PostgresStore::open(url, ADMIN_PATIENCE, 1, None)?.retainer()?),
        }
    }

    /// One committed state, to be looked through beside a running server.
    pub(crate) fn survey<T>(&self, look: impl FnOnce(&mut dyn Survey) -> Result<T, ServerError>) -> Result<T, ServerError> {
        match self {
            Self::Folder(data) => sqlite::survey(data, look),
            Self::Postgres(url) => {
                let store = PostgresStore::open(url, ADMIN_PATIENCE, 1, None)?;
                look(&mut store.survey()?)
            }
        }
    }
}

impl From<PathBuf> for StoreLocation {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl From<&PathBuf> for StoreLocation {
    fn from(folder: &PathBuf) -> Self {
        Self::Folder(folder.clone())
    }
}

impl From<&Path> for StoreLocation {
    fn from(folder: &Path) -> Self {
        Self::Folder(folder.into())
    }
}

impl From<&StoreLocation> for StoreLocation {
    fn from(location: &StoreLocation) -> Self {
        location.clone()
    }
}

/// Without the password, and with what tells the store from others: so it can be pasted where a store is named.
impl std::fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = match self {
            Self::Folder(folder) => return folder.display().fmt(f),
            Self::Postgres(url) => url,
        };
        let (url, parameters) = url.split_once('?').unwrap_or((url, ""));
        let Some((scheme, rest)) = url.split_once("://") else { return f.write_str("a PostgreSQL database") };
        match rest.rsplit_once('@') {
            Some((person, host)) => write!(f, "{scheme}://{}@{host}", person.split(':').next().unwrap_or_default())?,
            None => f.write_str(url)?,
        }
        let is_told = |parameter: &&str| parameter.split_once('=').is_some_and(|(name, _)| TOLD_PARAMETERS.contains(&name));
        for (place, parameter) in parameters.split('&').filter(is_told).enumerate() {
            write!(f, "{}{parameter}", if place == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreLocation({self})")
    }
}

/// Makes the folder and takes its lock, which ends with the process however that ends.
pub(super) fn lock(data: &Path) -> Result<Arc<File>, ServerError> {
    let unusable = |source| ServerError::DataFolder { path: data.into(), source };
    std::fs::create_dir_all(data).map_err(unusable)?;
    let file = File::options().create(true).truncate(false).write(true).open(data.join("gbsync.lock")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(Arc::new(file)),
        Err(TryLockError::WouldBlock) => Err(ServerError::Locked { path: data.into() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_so_that_it_opens_the_same_store_and_without_what_is_secret() {
        for (url, told) in [
            ("postgres://u:secret@db/shops", "postgres://u@db/shops"),
            ("postgres://u:secret@db/shops?schema=north&connect_timeout=3", "postgres://u@db/shops?schema=north"),
            ("postgres://u@db/shops?password=secret&schema=north", "postgres://u@db/shops?schema=north"),
            (
                "postgres:///shops?host=/run/pg&user=u&sslmode=disable",
                "postgres:///shops?host=/run/pg&user=u&sslmode=disable",
            ),
            ("postgres://db/shops?", "postgres://db/shops"),
            ("host=db password=secret", "a PostgreSQL database"),
        ] {
            assert_eq!(StoreLocation::Postgres(url.into()).to_string(), told);
        }
    }
}
