//! Compressed bodies: damaged, cut, many in a row, and bombs.

use crate::stand::Stand;
use flate2::Compression;
use flate2::read::{GzEncoder, MultiGzDecoder};
use gbsync_core::limits::Limits;
use std::cell::LazyCell;
use std::io::Read;

const LIMIT_BYTES: u64 = 8 * 1024;
const ASK: &str = "/v1/spaces/shop/verdicts";

thread_local! {
    static STAND: LazyCell<Stand> =
        LazyCell::new(|| Stand::new(Limits { request_bytes: LIMIT_BYTES, ..Limits::default() }, None));
}

/// A compressed body is answered as what it inflates to is, or refused: 413 over the limit, 400 when it is no gzip.
///
/// The first byte says what the others are: a compressed body (even), or a text that is compressed here, each of its bytes
/// as often in a row as the byte says.
///
/// # Panics
/// When it is answered otherwise.
pub fn gzip_body(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let body = match kind % 2 {
        0 => rest.to_vec(),
        _ => compressed(&rest.iter().flat_map(|byte| std::iter::repeat_n(*byte, usize::from(*kind))).collect::<Vec<_>>()),
    };
    STAND.with(|stand| {
        let answer =
            stand.ask("POST", ASK, &[("content-type", b"application/json"), ("content-encoding", b"gzip")], body.clone());
        if body.len() as u64 > LIMIT_BYTES {
            return assert_eq!(answer.status, 413, "larger than the limit as it came");
        }
        // One byte more than may be held is as far as anybody has to look.
        let mut inflated = Vec::new();
        let read = MultiGzDecoder::new(body.as_slice()).take(LIMIT_BYTES + 1).read_to_end(&mut inflated);
        match read {
            Err(_) => assert_eq!(answer.status, 400, "no gzip"),
            Ok(read) if read as u64 > LIMIT_BYTES => assert_eq!(answer.status, 413, "a bomb"),
            Ok(_) => assert_eq!(answer, stand.post(ASK, inflated), "compressed and plain are answered alike"),
        }
    });
}

fn compressed(text: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    GzEncoder::new(text, Compression::best()).read_to_end(&mut body).expect("reading from memory does not fail");
    body
}
