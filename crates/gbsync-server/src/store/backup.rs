//! Backups of a folder's store: a folder with one SQLite file and a manifest that says what is in it.
//!
//! Invariants: a backup is one committed state, and its folder has its name only when everything in it is on the disk and was
//! read again. A store that was restored has its name only when each of its logs is marked as restored.
//!
//! Rejected alternative: SQLite's backup interface, page by page. It begins anew whenever somebody else writes, and so never
//! ends beside a busy server; `VACUUM INTO` reads one state while the server goes on writing. A database of PostgreSQL is backed
//! up by its own tools (docs/decisions/0031).

use super::{RestoredSpace, StoreLocation, space_digest, sqlite};
use crate::config::Environment;
use crate::error::ServerError;
use gbsync_core::id::{LogId, SpaceId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The file of the manifest.
const MANIFEST: &str = "manifest.json";
/// The version of manifests written and read here.
const VERSION: u64 = 1;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The version of this manifest.
    pub manifest: u64,
    /// The format of the store's file.
    pub format: i64,
    /// When the backup was made.
    pub made_at: String,
    /// The file beside the manifest.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// The spaces in it, by name.
    pub spaces: Vec<SpaceInBackup>,
}

/// A space in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceInBackup {
    /// Its name.
    pub space: String,
    /// Its log.
    pub log: String,
    /// The last `seq`.
    pub head: u64,
    /// The chain there.
    pub chain: String,
    /// Live records.
    pub records: u64,
    /// Their digest, as `gbsync digest` prints it.
    pub digest: String,
}

/// Backs up the store of a folder, also while a server runs on it. `told`: bytes written and bytes to write, now and then.
///
/// # Errors
/// [`ServerError::Backup`] when `to` is there, or what was written is not what was read; [`ServerError::NoStore`];
/// [`ServerError::Store`]. Then there is no `to`.
pub fn backup(
    data: &Path,
    to: &Path,
    environment: &Environment,
    told: impl FnMut(u64, u64) + Send + 'static,
) -> Result<Manifest, ServerError> {
    let source = sqlite::store_file(data);
    if !source.is_file() {
        return Err(ServerError::NoStore { path: data.into() });
    }
    if to.exists() {
        return Err(unusable(to, "there is something of this name already; choose another"));
    }
    let partial = beside(to, ".partial");
    let made = make(&source, &partial, environment, told).and_then(|manifest| {
        std::fs::rename(&partial, to).and_then(|()| sync_folder_of(to)).map_err(|error| unusable(to, &error.to_string()))?;
        Ok(manifest)
    });
    if made.is_err() {
        // What is left of it is of no use; the next attempt begins anew.
        let _ = std::fs::remove_dir_all(&partial);
    }
    made
}

fn make(
    source: &Path,
    partial: &Path,
    environment: &Environment,
    told: impl FnMut(u64, u64) + Send + 'static,
) -> Result<Manifest, ServerError> {
    let failed = |error: std::io::Error| unusable(partial, &error.to_string());
    if partial.exists() {
        std::fs::remove_dir_all(partial).map_err(failed)?;
    }
    std::fs::create_dir_all(partial).map_err(failed)?;
    private_folder(partial).map_err(failed)?;
    let copy = sqlite::store_file(partial);
    sqlite::copy_into(source, &copy, told)?;
    let (format, logs) = sqlite::verified(&copy)?;
    let spaces = logs.into_iter().map(|(space, log, head, chain)| {
        let digest = space_digest(StoreLocation::Folder(partial.into()), &space)?;
        Ok(SpaceInBackup {
            space: space.to_string(),
            log: log.to_string(),
            head: head.0,
            chain: chain.to_string(),
            records: digest.records,
            digest: digest.digest.to_string(),
        })
    });
    let spaces = spaces.collect::<Result<Vec<_>, ServerError>>()?;
    let (bytes, sha256) = digest_of(&copy).map_err(failed)?;
    let manifest = Manifest {
        manifest: VERSION,
        format,
        made_at: environment.now().to_string(),
        file: copy.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        bytes,
        sha256,
        spaces,
    };
    let text = serde_json::to_string_pretty(&manifest).expect("a manifest is plain data");
    let mut file = File::create(partial.join(MANIFEST)).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all()).map_err(failed)?;
    File::open(&copy).and_then(|copy| copy.sync_all()).map_err(failed)?;
    File::open(partial).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(manifest)
}

/// Reads what a backup says of itself.
///
/// # Errors
/// [`ServerError::Backup`] when it is none, or of a newer version.
pub fn read_manifest(from: &Path) -> Result<Manifest, ServerError> {
    let path = from.join(MANIFEST);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| unusable(from, &format!("{} cannot be read: {error}", path.display())))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| unusable(from, &format!("its manifest cannot be read: {error}")))?;
    match manifest.manifest {
        VERSION => Ok(manifest),
        newer => Err(unusable(from, &format!("its manifest has version {newer}; install a newer version of gbsync"))),
    }
}

/// Puts a backup into a folder that has no store, with a new log in every space, whose ancestor is the one in the backup.
///
/// # Errors
/// [`ServerError::Backup`] when the backup is not what its manifest says, or the folder has a store;
/// [`ServerError::Locked`]; [`ServerError::Store`]. Then the folder has no store.
pub fn restore(
    from: &Path,
    data: &Path,
    environment: &Environment,
    mut told: impl FnMut(u64, u64),
) -> Result<(Manifest, Vec<RestoredSpace>), ServerError> {
    let manifest = read_manifest(from)?;
    let source = sqlite::store_file(from);
    if source.file_name().and_then(|name| name.to_str()) != Some(manifest.file.as_str()) {
        return Err(unusable(from, "its manifest names a file that a backup of a folder does not have"));
    }
    let _lock = super::location::lock(data)?;
    let target = sqlite::store_file(data);
    let in_the_way = ["", "-wal", "-shm"].iter().map(|end| beside(&target, end)).find(|path| path.exists());
    if let Some(path) = in_the_way {
        let problem = format!("{} is there, and nothing is ever overwritten; move it away first", path.display());
        return Err(unusable(data, &problem));
    }
    let partial = beside(&target, ".restoring");
    let restored = take_over(&manifest, &source, &partial, environment, &mut told);
    let restored = restored.and_then(|restored| {
        std::fs::rename(&partial, &target)
            .and_then(|()| sync_folder_of(&target))
            .map_err(|error| unusable(data, &error.to_string()))?;
        Ok(restored)
    });
    if restored.is_err() {
        let _ = remove_unfinished(&partial);
    }
    Ok((manifest, restored?))
}

/// Removes what an attempt left that was killed. SQLite's helper files first: beside another file of that name, what is in them
/// would be taken for a part of it.
fn remove_unfinished(partial: &Path) -> std::io::Result<()> {
    for end in ["-wal", "-shm", ""] {
        match std::fs::remove_file(beside(partial, end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn take_over(
    manifest: &Manifest,
    source: &Path,
    partial: &Path,
    environment: &Environment,
    told: &mut impl FnMut(u64, u64),
) -> Result<Vec<RestoredSpace>, ServerError> {
    let failed = |error: std::io::Error| unusable(partial, &error.to_string());
    let read = |error: std::io::Error| unusable(source, &error.to_string());
    remove_unfinished(partial).map_err(failed)?;
    let (mut from, mut to) = (File::open(source).map_err(read)?, private_file(partial).map_err(failed)?);
    let (mut sha, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1024 * 1024]);
    loop {
        let count = from.read(&mut buffer).map_err(read)?;
        if count == 0 {
            break;
        }
        sha.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(failed)?;
        bytes += count as u64;
        told(bytes, manifest.bytes);
    }
    to.sync_all().map_err(failed)?;
    drop(to);
    if (bytes, hex::encode(sha.finalize())) != (manifest.bytes, manifest.sha256.clone()) {
        let problem = "its bytes are not those that its manifest tells of: it was damaged or changed; take another backup";
        return Err(unusable(source, problem));
    }
    let (_, logs) = sqlite::verified(partial)?;
    let told: Vec<_> = manifest.spaces.iter().map(|space| (&*space.space, &*space.log, space.head, &*space.chain)).collect();
    let found: Vec<_> = logs.iter().map(|(space, log, head, chain)| (space, log, head.0, chain.to_string())).collect();
    let found: Vec<_> =
        found.iter().map(|(space, log, head, chain)| (space.as_str(), log.as_str(), *head, &**chain)).collect();
    if told != found {
        return Err(unusable(source, "its spaces are not those that its manifest tells of; take another backup"));
    }
    let new_log = || LogId::new(environment.uuid()).expect("a UUID is an id");
    let restored = sqlite::mark(partial, environment.now_ms(), new_log)?;
    File::open(partial).and_then(|file| file.sync_all()).map_err(failed)?;
    Ok(restored)
}

/// A log in a file: its space, its id, its head and the chain there.
pub(super) type LogInFile = (SpaceId, LogId, gbsync_core::id::Seq, gbsync_core::digest::Digest);

fn unusable(path: &Path, problem: &str) -> ServerError {
    ServerError::Backup { path: path.into(), reason: problem.to_owned() }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn digest_of(path: &Path) -> std::io::Result<(u64, String)> {
    let (mut file, mut sha, mut bytes, mut buffer) = (File::open(path)?, Sha256::new(), 0, vec![0; 1024 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hex::encode(sha.finalize()))),
            count => {
                sha.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}

fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Everybody's business data is in it.
fn private_folder(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
