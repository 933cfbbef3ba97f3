//! Which folder a server keeps its snapshots in.
//!
//! Beside a store in a folder it is a folder in that one, which one server runs on. A server on a database takes one of its own
//! in the system's temporary folder, held by a lock that ends with the process: the next server takes it over with what is left
//! in it, so that crashes do not fill the disk.

use crate::config::SnapshotConfig;
use crate::error::ServerError;
use crate::store::StoreLocation;
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// How many servers of one machine find a folder of their own.
const FOLDERS: usize = 256;

/// The folder, and what holds it.
pub(super) fn folder(
    config: &SnapshotConfig,
    store: &StoreLocation,
) -> Result<(Option<PathBuf>, Option<File>), ServerError> {
    if let Some(folder) = &config.folder {
        return Ok((Some(folder.clone()), None));
    }
    if let Some(data) = store.folder() {
        return Ok((Some(data.join("snapshots")), None));
    }
    for number in 0..FOLDERS {
        let folder = std::env::temp_dir().join(format!("gbsync-snapshots-{number}"));
        if let Ok(lock) = hold(&folder) {
            return Ok((Some(folder), Some(lock)));
        }
    }
    // A server without snapshots is one all the same: devices read the log.
    tracing::warn!("there is no folder for snapshots; name one with snapshots.folder");
    Ok((None, None))
}

fn hold(folder: &PathBuf) -> io::Result<File> {
    super::shelf::make_private(folder)?;
    // Somebody else may have made it for everybody to read.
    #[cfg(unix)]
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    lock.try_lock()?;
    Ok(lock)
}
