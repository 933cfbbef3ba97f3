//! `--data DIR` and `--store URL`: where a server's store is, for every verb that works on it.

use crate::exit::{Exit, Failure};
use crate::output::shell_word;
use gbsync_server::StoreLocation;
use std::path::{Path, PathBuf};

/// The variable that names a store where no argument does: a password in an argument is seen by everybody on the machine.
pub const STORE_VARIABLE: &str = "GBSYNC_STORE";

/// Where a server's store is.
#[derive(clap::Args)]
pub struct StoreArguments {
    /// The server's folder
    #[arg(long, value_name = "DIR", conflicts_with = "store")]
    data: Option<PathBuf>,
    /// The server's PostgreSQL database, instead of a folder; or GBSYNC_STORE in the environment
    #[arg(long, value_name = "URL", value_parser = url)]
    store: Option<String>,
}

impl StoreArguments {
    /// What flags say.
    pub fn named(&self) -> Option<StoreLocation> {
        match &self.data {
            Some(folder) => Some(StoreLocation::Folder(folder.clone())),
            None => self.store.clone().map(StoreLocation::Postgres),
        }
    }

    /// What flags or the environment say; `None` when nothing does.
    pub fn given(&self) -> Option<StoreLocation> {
        self.named().or_else(of_environment)
    }

    /// What was given.
    ///
    /// # Errors
    /// A failure of usage when nothing was.
    pub fn location(&self) -> Result<StoreLocation, Failure> {
        self.given().ok_or_else(|| {
            Failure::new("usage", "no store is named").help("give --data DIR or --store URL").exit(Exit::Usage)
        })
    }

    /// The same, where nothing is to be made.
    ///
    /// # Errors
    /// A failure also when the folder is not there.
    pub fn existing(&self) -> Result<StoreLocation, Failure> {
        let location = self.location()?;
        match location.folder() {
            Some(folder) if !folder.is_dir() => {
                let failure = Failure::new("folder_not_found", format!("{} is not a folder", folder.display()));
                Err(failure.help("give --data the folder that gbsync serve runs on"))
            }
            _ => Ok(location),
        }
    }
}

/// What the environment says.
pub fn of_environment() -> Option<StoreLocation> {
    std::env::var(STORE_VARIABLE).ok().filter(|url| !url.is_empty()).map(StoreLocation::Postgres)
}

/// The argument that names a store, to paste into a shell. A password is left out.
pub fn argument(location: &StoreLocation) -> String {
    match location.folder() {
        Some(folder) => {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
            format!("--data {}", shell_word(&shown(&folder)))
        }
        None => format!("--store {}", shell_word(&location.to_string())),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn url(text: &str) -> Result<String, String> {
    match text.starts_with("postgres://") || text.starts_with("postgresql://") {
        true => Ok(text.to_owned()),
        false => Err("write it like postgres://user@host/database".into()),
    }
}
