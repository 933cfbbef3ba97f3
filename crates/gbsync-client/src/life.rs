//! Whether a file is the one that was here last, or an old copy of it put in its place, known before any server is asked.
//!
//! Beside the database lies a small file with a token and the number of the last sealed group. The database keeps the token
//! and its own inode. One that misses its companion, is behind it, or lies elsewhere on the disk may be a copy whose numbers
//! were given before: it wants a new epoch at once, and the numbers of its sequences carry that epoch's name. A file that
//! was only moved pays with one reading of the log.
//!
//! Invariant: the companion is written after the commit and never waits for the disk, so it may be behind the database, but is
//! ahead of it only when sealed groups were lost.
//!
//! Rejected alternative: to wait for the server to say so (`epoch_reused`); until then a restored till hands out receipt
//! numbers that are printed already.

use crate::environment::Environment;
use crate::error::Error;
use crate::store::{Tx, outbox, state};
use std::fs::File;
use std::io::Read as _;
#[cfg(not(unix))]
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The file beside the database, once it was read or made.
#[derive(Default)]
pub(crate) struct Companion(Mutex<Option<(File, String)>>);

impl Companion {
    /// Notes the number of a group that was sealed. What cannot be noted is noted with the next one.
    pub(crate) fn note(&self, local_no: i64) {
        if let Some((file, token)) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = write(file, token, local_no);
        }
    }

    fn keep(&self, file: File, token: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((file, token.to_owned()));
    }
}

/// Looks whether the file is what was here last; wants a new epoch where it may be a copy. In one transaction, so that two
/// processes that open a copy at once find it out once.
pub(crate) fn recognize(
    tx: &Tx<'_>,
    database: &Path,
    companion: &Companion,
    environment: &Environment,
) -> Result<(), Error> {
    let path = beside(database);
    let opened = File::options().read(true).write(true).open(&path);
    let is_missing = opened.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let (kept, last) = (state::life(tx)?, outbox::next_group(tx)?.local_no - 1);
    let identity = identity(database);
    match (kept, opened) {
        // A folder that shows no files tells nothing.
        (_, Err(_)) if !is_missing => return Ok(()),
        (Some(kept), Ok(mut file)) => {
            let fits = |(token, sealed): &(String, i64)| format!("{token} {identity}") == kept && *sealed <= last;
            if let Some((token, _)) = read(&mut file).filter(fits) {
                companion.keep(file, &token);
                return Ok(());
            }
            state::want_epoch(tx, &environment.new_epoch())?;
        }
        (Some(_), Err(_)) => state::want_epoch(tx, &environment.new_epoch())?,
        (None, _) => {}
    }
    let token = environment.uuid();
    // Before the commit: if that fails the next opening finds another token and tries again.
    let Ok(file) = make(&path, &token, last) else { return state::set_life(tx, None) };
    companion.keep(file, &token);
    state::set_life(tx, Some(&format!("{token} {identity}")))
}

fn make(path: &Path, token: &str, local_no: i64) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(true).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    write(&mut file, token, local_no)?;
    // An empty one after a loss of power would be taken for another's.
    file.sync_all()?;
    Ok(file)
}

/// Always as long as before, so that writing it over changes no length.
fn write(file: &mut File, token: &str, local_no: i64) -> std::io::Result<()> {
    let line = format!("{token} {local_no:020}\n");
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, line.as_bytes(), 0);
    #[cfg(not(unix))]
    file.rewind().and_then(|()| file.write_all(line.as_bytes()))
}

fn read(file: &mut File) -> Option<(String, i64)> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let (token, local_no) = text.trim_end().split_once(' ')?;
    Some((token.to_owned(), local_no.parse().ok()?))
}

fn beside(database: &Path) -> PathBuf {
    let mut path = database.canonicalize().unwrap_or_else(|_| database.to_owned()).into_os_string();
    path.push("-gbsync-life");
    path.into()
}

/// What tells this file from a copy of it on the same disk. Not the disk's own number: that may change with every start.
fn identity(database: &Path) -> String {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(database) {
        return std::os::unix::fs::MetadataExt::ino(&metadata).to_string();
    }
    let _ = database;
    "-".to_owned()
}
