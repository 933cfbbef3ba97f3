//! What was written, in order.

use std::path::PathBuf;

/// One thing that happened to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Bytes were written at an offset.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Box<[u8]>,
    },
    /// The file was cut or lengthened to a size.
    Truncate {
        /// Bytes it has from then on.
        size: u64,
    },
    /// Everything written before is on the disk.
    Sync,
    /// The file was deleted.
    Delete,
}

/// Something that somebody was told, between two writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The app was told that an operation is saved: its token.
    Saved(String),
    /// The device was told that these groups are accepted.
    Acknowledged(Vec<String>),
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file changed.
    File {
        /// Which.
        path: PathBuf,
        /// How.
        op: Op,
    },
    /// Somebody was told something.
    Told(Mark),
}

/// Everything that happened, in order.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// The journal of the files below a folder, and of the marks.
    #[must_use]
    pub fn below(&self, folder: &std::path::Path) -> Self {
        let is_here = |entry: &&Entry| match entry {
            Entry::File { path, .. } => path.starts_with(folder),
            Entry::Told(_) => true,
        };
        Self { entries: self.entries.iter().filter(is_here).cloned().collect() }
    }
}
