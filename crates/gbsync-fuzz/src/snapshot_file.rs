//! Snapshots, as a device loads them: compressed or not, damaged, cut, of another log, and with more than they say.

use crate::stand::{Played, answered, device, handshake, run, scratch};
use gbsync_client::{
    BoxFuture, Client, Download, DownloadFrom, Pieces, Request, Response, Shared, Streamed, SyncOptions, Transport,
    TransportError,
};
use gbsync_core::digest::Digest;
use gbsync_core::id::Seq;
use gbsync_core::wire::{LogState, SnapshotHead, SnapshotLine, page_json};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests after which a round goes nowhere.
const MOST_REQUESTS: usize = 50;
/// More than any input says in lines: beyond that nobody looks.
const MOST_BYTES: u64 = 80 * 1024 * 1024;
/// The log of the server.
const LOG: &str = "log-1";

type Records = BTreeMap<(String, String), String>;

/// A snapshot is refused and nothing of it shows, or it is whole, of this log, and the device shows exactly its records at its
/// place.
///
/// The first byte says what the rest is: lines (divisible by 3), lines that are compressed here (one more), or a compressed
/// file; the second how it comes: lines of a frame, and bytes of a piece.
///
/// # Panics
/// When it is loaded otherwise, or what is whole is refused.
pub fn snapshot_file(data: &[u8]) {
    let [kind, cut, rest @ ..] = data else { return };
    let file = match kind % 3 {
        1 => compressed(rest, 1 + usize::from(cut % 5)),
        _ => rest.to_vec(),
    };
    let is_zstd = kind % 3 != 0;
    let lines = lines(&file, is_zstd);
    let told = lines.as_deref().and_then(told);
    // The log ends where the snapshot says that it was made, so that nothing but the snapshot keeps it from showing.
    let first = lines.as_deref().and_then(|lines| lines.split(|byte| *byte == b'\n').next());
    let head = first.and_then(|line| SnapshotHead::parse(line).ok()).map_or(Seq(1), |head| head.seq);
    let server =
        Server { file, is_zstd, piece: 1 + 3 * usize::from(*cut), log: Played(move |request: &Request| log(request, head)) };
    let folder = scratch();
    let client = device(folder.path(), None).expect("a new device");
    let asked = AtomicUsize::new(0);
    let options = SyncOptions { attempts: 1, snapshot_groups: 0, ..SyncOptions::default() };
    let synced = run(client.sync(&Counted { server, asked }, &options));
    let cursor = client.status().expect("the device works").cursor;
    match told {
        Some(Told { seq, records, .. }) if cursor > Seq(0) => {
            assert_eq!(cursor, seq, "the cursor is elsewhere");
            assert_eq!(shown(&client), records, "P2: the view is not what the snapshot tells");
        }
        told => {
            assert_eq!((cursor, shown(&client)), (Seq(0), Records::new()), "P2: part of a snapshot shows");
            // A compressed file may have frames that no server makes. What has no entry is at its end before it begins.
            let is_whole = told.is_some_and(|told| told.is_all && told.seq > Seq(0)) && kind % 3 != 2;
            assert!(!is_whole, "a whole snapshot was refused: {synced:?}");
        }
    }
}

/// Lines as a server compresses them: so many in each frame.
fn compressed(lines: &[u8], of_a_frame: usize) -> Vec<u8> {
    let lines: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    let frame = |lines: &[&[u8]]| zstd::bulk::compress(&lines.concat(), 1).expect("memory can be compressed");
    lines.chunks(of_a_frame).flat_map(frame).collect()
}

/// The lines of a file, by the reader of streams, which the device does not use; `None` when it is damaged.
fn lines(file: &[u8], is_zstd: bool) -> Option<Vec<u8>> {
    if !is_zstd {
        return Some(file.to_vec());
    }
    let mut lines = Vec::new();
    let read = zstd::stream::read::Decoder::new(file).ok()?.take(MOST_BYTES).read_to_end(&mut lines);
    read.ok().map(|_| lines)
}

/// What a snapshot says.
struct Told {
    /// Its place in the log.
    seq: Seq,
    records: Records,
    /// Whether nothing follows its last line. Whoever has that need not look.
    is_all: bool,
}

/// What a file says up to its last line; `None` when it is not whole, or not of the log.
fn told(file: &[u8]) -> Option<Told> {
    let mut lines =
        file.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).map(<[u8]>::trim_ascii_end);
    let SnapshotHead { seq, records: expected, .. } =
        SnapshotHead::parse(lines.next()?).ok().filter(|head| head.log.as_str() == LOG)?;
    let (mut records, mut count) = (Records::new(), 0);
    while let Some(line) = lines.next() {
        match SnapshotLine::parse(line).ok()? {
            SnapshotLine::Record(record) => {
                count += 1;
                let key = (record.key.entity.as_str().to_owned(), record.key.id.as_str().to_owned());
                match &record.state {
                    LogState::Live(payload) => records.insert(key, payload.to_string()),
                    LogState::Deleted | LogState::Left => records.remove(&key),
                };
            }
            SnapshotLine::End { records: counted } => {
                let is_all = lines.next().is_none() && file.ends_with(b"\n");
                return (counted == count && expected == count).then_some(Told { seq, records, is_all });
            }
            SnapshotLine::Flag(_) | SnapshotLine::Other => {}
        }
    }
    None
}

/// What the server says besides: its log ends where the snapshot is.
fn log(request: &Request, head: Seq) -> Option<Response> {
    match request.path.as_str() {
        path if path.contains("/log?") => {
            let none: [&str; 0] = [];
            Some(answered(200, page_json(none, head, Digest::ZERO, head)))
        }
        path if path.ends_with("/schema") => None,
        _ => Some(handshake(LOG, head)),
    }
}

fn shown(client: &Client) -> Records {
    let read = client.with_reader(|db| {
        let mut statement = db.prepare("SELECT entity, id, payload FROM gbsync_records")?;
        statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?.collect()
    });
    read.expect("the view can be read")
}

/// A server with a snapshot.
struct Server<F> {
    file: Vec<u8>,
    is_zstd: bool,
    /// Bytes of a piece.
    piece: usize,
    log: Played<F>,
}

/// A server that is not asked for ever.
struct Counted<F> {
    server: Server<F>,
    asked: AtomicUsize,
}

impl<F> Counted<F> {
    fn count(&self) {
        assert!(self.asked.fetch_add(1, Ordering::Relaxed) < MOST_REQUESTS, "P10: the device asks for ever");
    }
}

impl<F: Fn(&Request) -> Option<Response> + Shared> Transport for Counted<F> {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        self.count();
        self.server.log.send(request)
    }

    fn download(&self, _: Request, _: DownloadFrom) -> BoxFuture<'_, Result<Option<Download>, TransportError>> {
        self.count();
        let Server { file, is_zstd, piece, .. } = &self.server;
        let pieces: Vec<Vec<u8>> = file.chunks(*piece).rev().map(<[u8]>::to_vec).collect();
        let streamed = Streamed {
            status: 200,
            content_type: Some("application/x-ndjson".into()),
            retry_after_ms: None,
            body: Box::new(Body(pieces)),
        };
        let download = Download { streamed, etag: Some("\"1\"".into()), is_zstd: *is_zstd, from: 0 };
        Box::pin(std::future::ready(Ok(Some(download))))
    }
}

/// A body, its pieces from the last to the first.
struct Body(Vec<Vec<u8>>);

impl Pieces for Body {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, TransportError>> {
        Box::pin(std::future::ready(Ok(self.0.pop())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the corpus calls whole is whole, so that the target looks at what is shown.
    #[test]
    fn a_whole_snapshot_is_told_apart_from_half_a_one() {
        let input = include_bytes!("../../../fuzz/corpus/snapshot_file/plain");
        let Told { seq, records, is_all } = told(&input[2..]).expect("it is whole");
        assert_eq!((seq, records.len(), is_all), (Seq(3), 2, true));
        assert!(told(&input[2..input.len() - 1]).is_none());
    }
}
