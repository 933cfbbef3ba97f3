//! The folder of the files: how they are called, which are kept, and what is removed.
//!
//! Invariant: nothing here is the only copy of anything. Any file may be removed at any time, and is made again when somebody
//! asks.

use super::frames;
use crate::store::{SnapshotOf, StoreError};
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq};
use gbsync_core::wire::SnapshotHead;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// What a finished file's name ends with.
const FINISHED: &str = ".ndjson.zst";
/// What an unfinished one's ends with.
const UNFINISHED: &str = ".part";
/// Characters of a key: no two spaces of a server share them.
const KEY: usize = 32;

/// What a file is of: a log, and the part of it that somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    pub(super) fn of(of: &SnapshotOf, log: &LogId) -> Self {
        let digest = Digest::of(format!("{}\0{log}\0{}", of.space, of.part.key()).as_bytes()).to_string();
        Self(digest[..KEY].to_owned())
    }
}

/// A finished file, as its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    key: String,
    pub(crate) seq: Seq,
    pub(crate) horizon: Seq,
    pub(crate) chain: Digest,
    /// Bytes of its lines, not compressed.
    pub(crate) length: u64,
    /// The schema that its first line names: in force or not, it moves without the log where no record changes.
    pub(crate) schema_version: u64,
}

impl Named {
    pub(super) fn new(key: &Key, head: &SnapshotHead, length: u64) -> Self {
        let SnapshotHead { seq, horizon, chain, schema_version, .. } = *head;
        Self { key: key.0.clone(), seq, horizon, chain, length, schema_version }
    }

    fn parse(name: &str) -> Option<Self> {
        let fields: Vec<&str> = name.strip_suffix(FINISHED)?.split('-').collect();
        // Without a schema, and from before it was named, the last one is missing.
        let (fields, schema_version) = match fields.as_slice() {
            [fields @ .., version] if fields.len() == 5 => (fields, version.strip_prefix('s')?.parse().ok()?),
            fields => (fields, 0),
        };
        let [key, seq, horizon, chain, length] = fields else { return None };
        Some(Self {
            key: (*key).to_owned(),
            seq: Seq(seq.parse().ok()?),
            horizon: Seq(horizon.parse().ok()?),
            chain: Digest::from_hex(chain)?,
            length: length.parse().ok()?,
            schema_version,
        })
    }

    fn file_name(&self) -> String {
        let Self { key, seq, horizon, chain, length, .. } = self;
        format!("{key}-{seq}-{horizon}-{chain}-{length}{}{FINISHED}", self.schema())
    }

    fn schema(&self) -> String {
        if self.schema_version > 0 { format!("-s{}", self.schema_version) } else { String::new() }
    }

    /// Its entity tag, quotes included: as it is, or with its lines not compressed. The same wherever it was made.
    pub(crate) fn etag(&self, is_compressed: bool) -> String {
        let Self { key, seq, horizon, chain, .. } = self;
        let (chain, schema) = (&chain.to_string()[..16], self.schema());
        match is_compressed {
            true => format!("\"{key}-{seq}-{horizon}-{chain}{schema}-{}\"", frames::maker()),
            false => format!("\"{key}-{seq}-{horizon}-{chain}{schema}\""),
        }
    }

    /// Whether an entity tag is of this file.
    pub(super) fn is_called(&self, etag: &str) -> bool {
        [true, false].iter().any(|is_compressed| self.etag(*is_compressed) == etag)
    }
}

/// The folder.
pub(super) struct Shelf {
    folder: Option<PathBuf>,
    keep: usize,
    bytes: u64,
    begun: AtomicU64,
}

impl Shelf {
    /// Takes the folder, which is made when the first file is, and removes what a crash left unfinished.
    pub(super) fn open(folder: Option<PathBuf>, keep: usize, bytes: u64) -> io::Result<Self> {
        let shelf = Self { folder, keep: keep.max(1), bytes, begun: AtomicU64::new(0) };
        for (name, _) in shelf.entries()? {
            if name.ends_with(UNFINISHED) {
                shelf.remove(&name);
            }
        }
        Ok(shelf)
    }

    fn entries(&self) -> io::Result<Vec<(String, std::fs::Metadata)>> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let read = match std::fs::read_dir(folder) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = Vec::new();
        for entry in read {
            let entry = entry?;
            // One that goes away meanwhile is not there.
            if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) {
                entries.push((name, metadata));
            }
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }

    /// The finished files of a key, the newest last.
    pub(super) fn of(&self, key: &Key) -> io::Result<Vec<Named>> {
        let names = self.entries()?.into_iter().filter_map(|(name, _)| Named::parse(&name));
        let mut named: Vec<Named> = names.filter(|named| named.key == key.0).collect();
        named.sort_by_key(|named| (named.seq, named.horizon, named.schema_version));
        Ok(named)
    }

    /// Opens a finished file; `None` when it is gone.
    pub(super) fn take(&self, named: &Named) -> Option<File> {
        File::open(self.folder.as_ref()?.join(named.file_name())).ok()
    }

    /// Begins a file that nobody sees yet, for its owner's eyes alone: it holds everybody's business data.
    pub(super) fn unfinished(&self, key: &Key) -> Result<(PathBuf, File), StoreError> {
        let none = || io::Error::other("there is no folder for snapshots; name one with snapshots.folder");
        let folder = self.folder.as_ref().ok_or_else(none).map_err(StoreError::Snapshot)?;
        make_private(folder).map_err(StoreError::Snapshot)?;
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{}-{number}{UNFINISHED}", key.0, std::process::id()));
        let mut options = File::options();
        options.create(true).truncate(true).read(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(StoreError::Snapshot)?;
        Ok((path, file))
    }

    /// Gives a file that is durable its name, and removes what is over the bounds.
    pub(super) fn put(&self, unfinished: &Path, named: Named) -> io::Result<(Named, File)> {
        let folder = self.folder.as_ref().ok_or_else(|| io::Error::other("there is no folder for snapshots"))?;
        let path = folder.join(named.file_name());
        std::fs::rename(unfinished, &path)?;
        let file = File::open(path)?;
        self.prune(&named);
        Ok((named, file))
    }

    /// Keeps the newest files of each key, and of all of them no more than so many bytes; the one just made in any case. Whoever
    /// reads a removed one reads on.
    fn prune(&self, just_made: &Named) {
        let Ok(entries) = self.entries() else { return };
        let mut named: Vec<(Named, u64, SystemTime)> = Vec::new();
        for (name, metadata) in entries {
            let Some(found) = Named::parse(&name) else { continue };
            named.push((found, metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
        }
        named
            .sort_by(|(a, _, a_made), (b, _, b_made)| (b == just_made, b_made, b.seq).cmp(&(a == just_made, a_made, a.seq)));
        let mut bytes = 0_u64;
        for (index, (found, size, _)) in named.iter().enumerate() {
            let of_key = named[..index].iter().filter(|(other, ..)| other.key == found.key).count();
            bytes = bytes.saturating_add(*size);
            if found != just_made && (of_key >= self.keep || bytes > self.bytes) {
                self.remove(&found.file_name());
            }
        }
    }

    fn remove(&self, name: &str) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = std::fs::remove_file(folder.join(name)) {
            tracing::warn!(%error, name, "a file of snapshots cannot be removed");
        }
    }
}

/// Makes a folder that its owner alone looks into.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
