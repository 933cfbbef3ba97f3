//! Files as a crash leaves them.

use super::journal::{Entry, Journal, Mark, Op};
use crate::random::Random;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes that a disk writes at once or not at all.
const SECTOR: usize = 512;

/// What becomes of writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of them are lost.
    All,
    /// The first so many of them are there.
    Prefix,
    /// Any of them are there, in order.
    Subset,
    /// Any of them are there, and some of those are cut between two sectors.
    Torn,
    /// None of them are lost: the process was killed, and the system went on.
    None,
}

impl Loss {
    /// Every mode of a loss of power.
    pub const ALL: [Self; 4] = [Self::All, Self::Prefix, Self::Subset, Self::Torn];
}

/// Synced changes of a file that are kept before its content is made from them: most files are never looked at.
const MOST_KEPT: usize = 256;

/// One file, as far as it is on the disk, and what is not yet.
#[derive(Debug, Clone, Default)]
pub(super) struct OnDisk {
    /// Its content before the changes that are kept; `None` while nothing of it is on the disk.
    durable: Option<Vec<u8>>,
    changes: Vec<Op>,
    /// How many of the changes are on the disk too.
    synced: usize,
    /// What whoever reads it sees until power is lost, since a sync of it failed; `None` while every change is kept.
    seen: Option<Vec<u8>>,
}

/// Walks a journal and makes images of the files at each place.
pub struct Images<'j> {
    journal: &'j Journal,
    place: usize,
    files: BTreeMap<PathBuf, OnDisk>,
    told: Vec<&'j Mark>,
}

impl<'j> Images<'j> {
    /// Before anything happened.
    pub fn of(journal: &'j Journal) -> Self {
        Self { journal, place: 0, files: BTreeMap::new(), told: Vec::new() }
    }

    /// What was told before this place.
    pub fn told(&self) -> &[&'j Mark] {
        &self.told
    }

    /// Goes on by one entry; `false` at the end. Answers whether a file changed.
    pub fn step(&mut self) -> Option<bool> {
        let entry = self.journal.entries.get(self.place)?;
        self.place += 1;
        match entry {
            Entry::Told(mark) => {
                self.told.push(mark);
                Some(false)
            }
            Entry::File { path, op } => {
                self.files.entry(path.clone()).or_default().note(op.clone());
                Some(true)
            }
        }
    }

    /// Writes the files as a crash at this place leaves them, into `to` instead of `from`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, loss: Loss, random: &mut Random, from: &Path, to: &Path) -> std::io::Result<()> {
        let files = self.files.iter().filter_map(|(path, file)| Some((path.strip_prefix(from).ok()?, file)));
        files.into_iter().try_for_each(|(path, file)| write_file(file, loss, random, &to.join(path)))
    }
}

/// Writes a file as a crash leaves it.
pub(super) fn write_file(file: &OnDisk, loss: Loss, random: &mut Random, to: &Path) -> std::io::Result<()> {
    let Some(content) = file.after(loss, random) else { return Ok(()) };
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(to, content)
}

impl OnDisk {
    /// A file that was on the disk before anybody looked.
    pub(super) fn there(content: Vec<u8>) -> Self {
        Self { durable: Some(content), ..Self::default() }
    }

    /// A sync fails: the system takes what was not synced for clean, so it is still read and never written any more.
    pub(super) fn fail_sync(&mut self) {
        if self.seen.is_none() {
            let content = self.after(Loss::None, &mut Random::of(0));
            self.seen = content;
        }
        self.changes.truncate(self.synced);
    }

    /// Takes one change.
    pub(super) fn note(&mut self, op: Op) {
        if let Some(seen) = &mut self.seen {
            apply(seen, &op, None);
        }
        match op {
            Op::Sync => {
                let content = self.durable.get_or_insert_default();
                if self.changes.len() > MOST_KEPT {
                    self.changes.drain(..).for_each(|op| apply(content, &op, None));
                }
                self.synced = self.changes.len();
            }
            // SQLite deletes only what it no longer needs; the journaled metadata of a file system is taken as kept.
            Op::Delete => *self = Self::default(),
            op => self.changes.push(op),
        }
    }

    /// The content after a crash; `None` for a file that is not there.
    fn after(&self, loss: Loss, random: &mut Random) -> Option<Vec<u8>> {
        if let (Loss::None, Some(seen)) = (loss, &self.seen) {
            return Some(seen.clone());
        }
        let (synced, pending) = self.changes.split_at(self.synced);
        let mut content = match (&self.durable, pending.is_empty()) {
            (None, true) => return None,
            (durable, _) => durable.clone().unwrap_or_default(),
        };
        synced.iter().for_each(|op| apply(&mut content, op, None));
        let kept = match loss {
            Loss::All => 0,
            Loss::Prefix => random.below(pending.len() + 1),
            Loss::Subset | Loss::Torn | Loss::None => pending.len(),
        };
        for op in &pending[..kept] {
            match loss {
                Loss::Subset | Loss::Torn if random.below(2) == 0 => {}
                Loss::Torn if random.below(3) == 0 => apply(&mut content, op, Some(random)),
                _ => apply(&mut content, op, None),
            }
        }
        Some(content)
    }
}

/// Applies a write or truncation; with `torn` only some of its first sectors.
fn apply(content: &mut Vec<u8>, op: &Op, torn: Option<&mut Random>) {
    match op {
        Op::Write { offset, bytes } => {
            let start = usize::try_from(*offset).unwrap_or(usize::MAX);
            let bytes = match torn {
                Some(random) => &bytes[..(random.below(bytes.len() / SECTOR + 1) * SECTOR).min(bytes.len())],
                None => bytes,
            };
            let end = start.saturating_add(bytes.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(bytes);
        }
        Op::Truncate { size } => content.resize(usize::try_from(*size).unwrap_or(usize::MAX), 0),
        Op::Sync | Op::Delete => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(ops: Vec<Op>) -> Journal {
        let entry = |op| Entry::File { path: "/d/a".into(), op };
        Journal { entries: ops.into_iter().map(entry).collect() }
    }

    fn write(offset: u64, bytes: &[u8]) -> Op {
        Op::Write { offset, bytes: bytes.into() }
    }

    fn content(journal: &Journal, loss: Loss) -> Option<Vec<u8>> {
        let mut images = Images::of(journal);
        while images.step().is_some() {}
        images.files[Path::new("/d/a")].after(loss, &mut Random::of(1))
    }

    #[test]
    fn what_was_synced_is_there_and_the_rest_may_be_lost() {
        let journal = journal(vec![write(0, b"abcd"), Op::Sync, write(2, b"XY"), write(4, b"ef")]);
        assert_eq!(content(&journal, Loss::All).as_deref(), Some(b"abcd".as_slice()));
        let seen: std::collections::BTreeSet<Vec<u8>> = (0..50)
            .filter_map(|seed| {
                let mut images = Images::of(&journal);
                while images.step().is_some() {}
                images.files[Path::new("/d/a")].after(Loss::Subset, &mut Random::of(seed))
            })
            .collect();
        assert_eq!(seen.len(), 4, "{seen:?}");
    }

    #[test]
    fn what_a_failed_sync_did_not_write_is_read_until_power_is_lost_and_no_later_sync_writes_it() {
        let mut file = OnDisk::default();
        let mut random = Random::of(1);
        [write(0, b"abcd"), Op::Sync, write(2, b"XY"), write(4, b"ef")].into_iter().for_each(|op| file.note(op));
        file.fail_sync();
        [write(1, b"Z"), Op::Sync].into_iter().for_each(|op| file.note(op));
        assert_eq!(file.after(Loss::None, &mut random).as_deref(), Some(b"aZXYef".as_slice()));
        for loss in Loss::ALL {
            assert_eq!(file.after(loss, &mut random).as_deref(), Some(b"aZcd".as_slice()), "{loss:?}");
        }
        file.note(Op::Delete);
        assert_eq!(file.after(Loss::None, &mut random), None);
    }

    #[test]
    fn a_torn_write_ends_between_two_sectors() {
        let journal = journal(vec![write(0, &[7; 1_024])]);
        let mut images = Images::of(&journal);
        while images.step().is_some() {}
        for seed in 0..100 {
            let content = images.files[Path::new("/d/a")].after(Loss::Torn, &mut Random::of(seed)).unwrap_or_default();
            assert!([0, 512, 1_024].contains(&content.len()), "{}", content.len());
        }
    }

    #[test]
    fn a_deleted_file_is_gone() {
        let journal = journal(vec![write(0, b"abcd"), Op::Sync, Op::Delete]);
        assert_eq!(content(&journal, Loss::All), None);
    }
}
