//! A snapshot as a file: compressed frames one after the other, each of whole lines and each readable without the others.
//!
//! So a device stores what one frame holds, notes where the next one begins, and goes on there. All frames together are an
//! ordinary zstd file.
//!
//! The first line counts the records and stands before them. Room is left for it, filled up with a frame that readers skip:
//! counting first would read everything twice.

use gbsync_core::wire::{SnapshotFlag, SnapshotHead, SnapshotRow, snapshot_end_json};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;
use zstd::bulk::Compressor;

/// Bytes of lines after which a frame closes. A device applies a frame in one transaction, which an app's write waits for.
const FRAME_BYTES: usize = 256 * 1024;
/// How hard it is compressed. The lowest level: what a device waits for is rather the making than the line.
const LEVEL: i32 = 1;
/// Room for the frame of the first line.
const HEAD_BYTES: usize = 1_024;
/// What a frame begins with that readers skip, and the bytes of that beginning (RFC 8878).
const SKIPPED: (u32, usize) = (0x184D_2A50, 8);

/// A file that is being written.
pub(super) struct Frames {
    path: PathBuf,
    file: BufWriter<File>,
    compressor: Compressor<'static>,
    lines: String,
    records: u64,
    /// Bytes of all lines.
    length: u64,
}

impl Frames {
    /// Begins a file; the room for its first line is left.
    pub(super) fn create((path, file): (PathBuf, File)) -> io::Result<Self> {
        let mut file = BufWriter::new(file);
        file.write_all(&[0; HEAD_BYTES])?;
        let lines = String::with_capacity(FRAME_BYTES + FRAME_BYTES / 4);
        Ok(Self { path, file, compressor: compressor()?, lines, records: 0, length: 0 })
    }

    /// Records so far.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Adds a record.
    pub(super) fn add(&mut self, row: &SnapshotRow<'_>) -> io::Result<()> {
        row.push_json(&mut self.lines);
        self.records += 1;
        self.close_if_full()
    }

    /// Adds an open flag, which is not counted.
    pub(super) fn add_flag(&mut self, flag: &SnapshotFlag) -> io::Result<()> {
        flag.push_json(&mut self.lines);
        self.close_if_full()
    }

    fn close_if_full(&mut self) -> io::Result<()> {
        if self.lines.len() >= FRAME_BYTES { self.close_frame() } else { Ok(()) }
    }

    fn close_frame(&mut self) -> io::Result<()> {
        self.length += self.lines.len() as u64;
        self.file.write_all(&self.compressor.compress(self.lines.as_bytes())?)?;
        self.lines.clear();
        Ok(())
    }

    /// Writes the last line and the first, and makes all of it durable. Answers where it is and how many bytes its lines have.
    pub(super) fn finish(mut self, head: &SnapshotHead) -> io::Result<(PathBuf, u64)> {
        self.lines.push_str(&snapshot_end_json(self.records));
        self.lines.push('\n');
        self.close_frame()?;
        let first = head.to_json() + "\n";
        self.length += first.len() as u64;
        let mut frame = self.compressor.compress(first.as_bytes())?;
        let rest = HEAD_BYTES.checked_sub(frame.len() + SKIPPED.1).and_then(|rest| u32::try_from(rest).ok());
        let rest = rest.ok_or_else(|| io::Error::other("the first line of a snapshot has no room"))?;
        frame.extend(SKIPPED.0.to_le_bytes());
        frame.extend(rest.to_le_bytes());
        frame.resize(HEAD_BYTES, 0);
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&frame)?;
        file.sync_all()?;
        Ok((self.path, self.length))
    }
}

fn compressor() -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    Ok(compressor)
}

/// What made the bytes: two versions of the library may compress the same lines to other bytes, and this one cuts frames anew.
pub(super) fn maker() -> String {
    format!("2z{}", zstd::zstd_safe::version_number())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gbsync_core::digest::Digest;
    use gbsync_core::id::{LogId, Seq};

    fn head(records: u64, log: &str) -> SnapshotHead {
        let log = LogId::new(log).expect("an id");
        SnapshotHead {
            seq: Seq((1 << 53) - 1),
            log,
            chain: Digest::of(b"x"),
            records,
            horizon: Seq(7),
            schema_version: (1 << 53) - 1,
        }
    }

    #[test]
    fn the_frames_are_one_ordinary_file_and_each_one_is_whole_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.part");
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
        let mut frames = Frames::create((path, file)).expect("begun");
        let payload = format!("{{\"x\":\"{}\"}}", "y".repeat(900));
        for record in 0..2_000 {
            let id = format!("{record:06}");
            let row = SnapshotRow {
                entity: "notes",
                id: &id,
                version: Seq(record),
                edit_version: Seq(record),
                payload: Some(&payload),
            };
            frames.add(&row).expect("written");
        }
        // The longest name that a log may have.
        let (path, length) = frames.finish(&head(2_000, &"\u{1F9FE}".repeat(64))).expect("finished");
        let bytes = std::fs::read(path).expect("the file");
        let all = zstd::stream::decode_all(bytes.as_slice()).expect("an ordinary file");
        assert_eq!(all.len() as u64, length);
        let text = String::from_utf8(all).expect("lines");
        assert_eq!(text.lines().count(), 2_002);
        assert!(text.ends_with("{\"end\":true,\"records\":2000}\n"));
        let (mut at, mut whole) = (0, 0);
        while at < bytes.len() {
            let size = zstd::zstd_safe::find_frame_compressed_size(&bytes[at..]).expect("a frame");
            let lines = zstd::stream::decode_all(&bytes[at..at + size]).expect("readable without the others");
            assert!(lines.is_empty() || lines.ends_with(b"\n"));
            (at, whole) = (at + size, whole + lines.len() as u64);
        }
        assert_eq!(whole, length);
    }
}
