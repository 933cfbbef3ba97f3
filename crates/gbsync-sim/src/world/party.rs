//! What a device and the server have in common: files that a crash leaves, and places at which they are killed.

use crate::disk::{self, Loss};
use crate::random::Random;
use anyhow::Result;
use gbsync_core::fault::{self, Hook};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a party is to be killed, and where it was.
#[derive(Debug, Default)]
pub struct Fate {
    /// The place at which it dies next.
    pub armed: Option<&'static str>,
    /// The place at which it died.
    pub died_at: Option<&'static str>,
}

/// The fate of a party, known to the places of its code on whatever thread.
#[derive(Clone, Default)]
pub struct Mortal(Arc<Mutex<Fate>>);

/// What unwinds through a party that is killed.
struct Killed;

impl Mortal {
    /// The fate.
    pub fn fate(&self) -> MutexGuard<'_, Fate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What kills the party whose files are in `folder`: nothing of it reaches the disk from then on.
    pub fn hook(&self, folder: &Path) -> Option<Hook> {
        let (fate, folder) = (self.clone(), folder.to_owned());
        Some(Arc::new(move |place| {
            {
                let mut fate = fate.fate();
                if fate.armed != Some(place) {
                    return;
                }
                *fate = Fate { armed: None, died_at: Some(place) };
            }
            disk::cut_after(&folder, 0);
            resume_unwind(Box::new(Killed));
        }))
    }

    /// Runs code of the party; `None` when it was killed in it.
    pub fn live<T>(&self, folder: &Path, run: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| fault::with_hook(self.hook(folder), run))) {
            Ok(done) => Some(done),
            Err(unwound) if unwound.is::<Killed>() => None,
            Err(unwound) => resume_unwind(unwound),
        }
    }
}

/// Makes a folder's files what a crash leaves of them, in place: they stay the same files to the system. Where only the process
/// ended, that is what they are, and what was not synced, or dropped by a sync that failed, is still not on the disk.
pub(super) fn put_image(folder: &Path, loss: Loss, random: &mut Random) -> Result<()> {
    disk::wait_until_closed(folder)?;
    if loss == Loss::None {
        disk::heal(folder);
        return Ok(());
    }
    let image = folder.with_extension("image");
    std::fs::create_dir_all(&image)?;
    disk::write_image(folder, loss, random, &image)?;
    disk::forget(folder);
    put_files(&image, folder)?;
    Ok(std::fs::remove_dir_all(&image)?)
}

/// Ends of the names of files beside a database that live no longer than the state that they belong to.
const BESIDE: [&str; 4] = ["-wal", "-shm", "-journal", "-unsynced"];

/// Puts the files of one folder in the place of another's.
pub(super) fn put_files(from: &Path, folder: &Path) -> Result<()> {
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.to_str().is_some_and(|path| BESIDE.iter().any(|end| path.ends_with(end))) {
            std::fs::remove_file(path)?;
        }
    }
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::write(folder.join(file.file_name()), std::fs::read(file.path())?)?;
    }
    Ok(())
}
