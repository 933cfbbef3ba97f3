//! An archive: entries that left a log, one a line, and beside it a file with its digest.
//!
//! The first line says of which log it is and what chain it goes on from, the last one how many entries it has and the chain
//! behind them, so that an archive can be checked like a log, and archives can be put one behind the other.
//!
//! Invariant: a file has its name only when all of it is durable, name and digest included.

use crate::snapshot::make_private;
use crate::store::{KeptEntry, SpaceState};
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq, SpaceId};
use gbsync_core::json::push_string;
use gbsync_core::time::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use zstd::stream::write::Encoder;

/// How hard it is compressed: it is written once and kept for years.
const LEVEL: i32 = 9;
/// What stands for itself in the name of a folder.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
/// Characters of a space's name in that of its folder; longer ones are told apart by their digest.
const NAME: usize = 100;

/// The folder of a space's archives.
pub(super) fn folder_of(folder: &Path, space: &SpaceId) -> PathBuf {
    let name = utf8_percent_encode(space.as_str(), PLAIN).to_string();
    match name.len() <= NAME {
        true => folder.join(name),
        false => folder.join(format!("{}-{}", &name[..NAME], &Digest::of(space.as_str().as_bytes()).to_string()[..16])),
    }
}

/// An archive that is being written.
pub(super) struct Archive {
    folder: PathBuf,
    unfinished: PathBuf,
    file: Encoder<'static, Hashing>,
    log: LogId,
    from: Seq,
    last: Option<(Seq, Digest)>,
    entries: u64,
    bytes: u64,
}

/// One that is durable.
pub(super) struct Finished {
    pub(super) path: PathBuf,
    /// The last entry in it.
    pub(super) to: Seq,
}

impl Archive {
    /// Begins the archive of what follows the horizon.
    pub(super) fn create(folder: &Path, space: &SpaceId, state: &SpaceState) -> io::Result<Self> {
        let folder = folder_of(folder, space);
        make_private(&folder)?;
        // One process at a time: what has this name was left by a crash.
        let unfinished = folder.join("unfinished.part");
        let mut options = File::options();
        options.create(true).truncate(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = Hashing { file: BufWriter::new(options.open(&unfinished)?), hasher: Sha256::new() };
        let mut file = Encoder::new(file, LEVEL)?;
        file.include_checksum(true)?;
        let (log, from) = (state.log.clone(), state.horizon);
        let mut archive = Self { folder, unfinished, file, log, from, last: None, entries: 0, bytes: 0 };
        let mut head = String::from("{\"space\":");
        push_string(&mut head, space.as_str());
        head.push_str(",\"log\":");
        push_string(&mut head, archive.log.as_str());
        head.push_str(&format!(",\"after\":{from},\"chain\":\"{}\"}}\n", state.horizon_chain));
        archive.write(&head)?;
        Ok(archive)
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        self.bytes += line.len() as u64;
        self.file.write_all(line.as_bytes())
    }

    /// Bytes so far, not compressed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds an entry, as the log has it.
    pub(super) fn add(&mut self, kept: &KeptEntry) -> io::Result<()> {
        (self.last, self.entries) = (Some((kept.seq, kept.chain)), self.entries + 1);
        self.write(&format!("{{\"chain\":\"{}\",\"entry\":{}}}\n", kept.chain, kept.entry))
    }

    /// Adds a part of the entry before.
    pub(super) fn add_part(&mut self, seq: Seq, part: u64, changes: &str) -> io::Result<()> {
        self.write(&format!("{{\"seq\":{seq},\"part\":{part},\"changes\":{changes}}}\n"))
    }

    /// Writes the last line and makes file, digest and their names durable.
    pub(super) fn finish(mut self, now: &Timestamp) -> io::Result<Finished> {
        let (to, chain) = self.last.ok_or_else(|| io::Error::other("an archive of nothing"))?;
        let end = format!("{{\"end\":true,\"entries\":{},\"to\":{to},\"chain\":\"{chain}\"}}\n", self.entries);
        self.write(&end)?;
        let Hashing { file, hasher } = self.file.finish()?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let day = now.as_str().get(..10).unwrap_or("undated");
        let log = &Digest::of(self.log.as_str().as_bytes()).to_string()[..8];
        let name = format!("{day}-{log}-{:016}-{to:016}.ndjson.zst", self.from.0 + 1, to = to.0);
        let path = self.folder.join(&name);
        // First the digest: an archive that has its name has one.
        let digest = self.folder.join(format!("{name}.sha256"));
        let mut file = File::create(&digest)?;
        file.write_all(format!("{}  {name}\n", hex::encode(hasher.finalize())).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&self.unfinished, &path)?;
        for folder in self.folder.ancestors().take(3) {
            sync(folder)?;
        }
        Ok(Finished { path, to })
    }
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// A file whose digest is made while it is written.
struct Hashing {
    file: BufWriter<File>,
    hasher: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
