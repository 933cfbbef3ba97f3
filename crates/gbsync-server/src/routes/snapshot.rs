//! `GET /v1/spaces/{space}/snapshot`: the full state of a space, from a file, with resume.
//!
//! Who says `Accept-Encoding: zstd` gets the file as it is; ranges count its bytes. To all others its lines are sent, and ranges
//! count those. A range that cannot be had is answered with everything, as HTTP allows, and so is one of another file than
//! `If-Range` names.

use super::App;
use super::parameters::Parameters;
use crate::auth::Admission;
use crate::error::Refusal;
use crate::snapshot::{Named, Offer, Snapshots};
use crate::store::{Part, SnapshotOf};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use bytes::Bytes;
use futures_util::stream::unfold;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

/// What it is.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";
/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;

pub(super) async fn snapshot(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let (sight, name) = app.same_sight(&admission.scopes, &Parameters::of(&uri)?).await?;
    let part = if sight.is_whole() { Part::Whole } else { Part::Seen(admission.scopes, name) };
    let begun = text(&headers, header::IF_RANGE).map(str::to_owned);
    let of = SnapshotOf { space: admission.space, part };
    let Offer::File(named, file) = Snapshots::offer(&app, of, begun.clone()).await? else { return Err(Refusal::no_space()) };
    let is_compressed = takes_zstd(&headers);
    let etag = named.etag(is_compressed);
    let length = if is_compressed { file.metadata()?.len() } else { named.length };
    let is_same = begun.is_none_or(|begun| begun == etag);
    let range = text(&headers, header::RANGE).filter(|_| is_same).and_then(|range| parse_range(range, length));
    let (from, to) = range.unwrap_or((0, length));
    let opening = tokio::task::spawn_blocking(move || open(file, is_compressed, from, to - from));
    let reader = opening.await.map_err(|_| Refusal::unavailable())??;
    let mut response = Response::new(body(reader));
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {from}-{}/{length}", to - 1));
    }
    describe(&mut response, &named, is_compressed, to - from);
    Ok(response)
}

fn describe(response: &mut Response<Body>, named: &Named, is_compressed: bool, length: u64) {
    set(response, header::CONTENT_TYPE, CONTENT_TYPE);
    set(response, header::CONTENT_LENGTH, &length.to_string());
    set(response, header::ETAG, &named.etag(is_compressed));
    set(response, header::ACCEPT_RANGES, "bytes");
    set(response, header::VARY, "accept-encoding");
    set(response, header::CACHE_CONTROL, "no-store, no-transform");
    if is_compressed {
        set(response, header::CONTENT_ENCODING, "zstd");
    }
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("numbers, digests and words are a header's value");
    response.headers_mut().insert(name, value);
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether the device says that it reads zstd.
fn takes_zstd(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=");
        name.trim().eq_ignore_ascii_case("zstd") && !matches!(weight.trim_end_matches('0'), "." | "0.") && weight != "0"
    })
}

/// Where a range of `length` bytes begins and ends; `None` for one that cannot be had, and for several.
fn parse_range(range: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = range.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (from, to) = match (first, last) {
        ("", suffix) => (length.saturating_sub(number(suffix)?), length),
        (from, "") => (number(from)?, length),
        (from, last) => (number(from)?, number(last)?.checked_add(1)?.min(length)),
    };
    (from < to).then_some((from, to))
}

/// The bytes of a file, or its lines.
type Reader = Box<dyn Read + Send>;

fn open(mut file: File, is_compressed: bool, from: u64, bytes: u64) -> io::Result<Reader> {
    if is_compressed {
        file.seek(SeekFrom::Start(from))?;
        return Ok(Box::new(file.take(bytes)));
    }
    let mut lines = zstd::stream::read::Decoder::new(file)?;
    // There is no way into the middle but through what is before it.
    io::copy(&mut Read::take(&mut lines, from), &mut io::sink())?;
    Ok(Box::new(Read::take(lines, bytes)))
}

/// Reads as fast as the device takes it, a piece at a time: what is read ahead is bounded for each device.
fn body(reader: Reader) -> Body {
    Body::from_stream(unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let reading = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let read = Read::take(&mut reader, PIECE_BYTES as u64).read_to_end(&mut piece);
            read.map(|_| (Bytes::from(piece), reader))
        });
        match reading.await.map_err(io::Error::other) {
            Ok(Ok((piece, _))) if piece.is_empty() => None,
            Ok(Ok((piece, reader))) => Some((Ok(piece), Some(reader))),
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "a snapshot cannot be read");
                Some((Err(error), None))
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_cannot_be_had_is_none() {
        for (range, expected) in [
            ("bytes=0-", Some((0, 10))),
            ("bytes=4-", Some((4, 10))),
            ("bytes=4-6", Some((4, 7))),
            ("bytes=4-99", Some((4, 10))),
            ("bytes=-3", Some((7, 10))),
            ("bytes=-99", Some((0, 10))),
            ("bytes=10-", None),
            ("bytes=-0", None),
            ("bytes=6-4", None),
            ("bytes=1-2,4-5", None),
            ("bytes=+1-", None),
            ("bytes=", None),
            ("lines=0-", None),
            ("bytes=0-18446744073709551615", None),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn a_coding_with_no_weight_is_not_taken() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_zstd(&headers)
        };
        for value in ["zstd", "gzip, ZSTD;q=0.5", "zstd;q=1.0"] {
            assert!(takes(value), "{value}");
        }
        for value in ["gzip", "", "zstd;q=0", "zstd;q=0.0", "zstd;q=0.000"] {
            assert!(!takes(value), "{value}");
        }
    }
}
