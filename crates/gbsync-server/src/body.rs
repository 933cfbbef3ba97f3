//! Reading request bodies within their bounds: of size, before and after decompression, and of time.
//!
//! Invariant: no more than the limit is ever held of a body, whatever it claims to be and whatever it inflates to.

use crate::error::Refusal;
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use gbsync_core::wire::ProblemCode;
use http_body_util::BodyExt;
use std::io::Read;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a body may pause.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a body may take altogether.
const WHOLE: Duration = Duration::from_secs(300);
/// How much of a body that was refused is still read, so that its sender gets to see the answer, and for how long.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(5);

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

/// Reads a JSON body of at most `limit` bytes, before and after decompression.
///
/// # Errors
/// 415 for another type or encoding, 413 over the limit, 408 when it stalls, 400 when it breaks off or is no gzip.
pub(crate) async fn read_json(request: Request<Body>, limit: u64) -> Result<Bytes, Refusal> {
    receive_json(request, limit).await?.inflated(limit).await
}

/// A body as it came.
pub(crate) struct Received {
    bytes: Bytes,
    encoding: Encoding,
}

/// Reads a JSON body of at most `limit` bytes as it comes, still compressed if it is.
///
/// # Errors
/// As [`read_json`], but for what inflating finds.
pub(crate) async fn receive_json(request: Request<Body>, limit: u64) -> Result<Received, Refusal> {
    let (parts, body) = request.into_parts();
    let encoding = match check_headers(&parts.headers, limit) {
        Ok(encoding) => encoding,
        Err(refusal) => {
            linger(body);
            return Err(refusal);
        }
    };
    Ok(Received { bytes: collect(body, limit).await?, encoding })
}

impl Received {
    /// Bytes as they came.
    pub(crate) fn came_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it is compressed: then it may become as large as the limit.
    pub(crate) fn is_compressed(&self) -> bool {
        self.encoding == Encoding::Gzip
    }

    /// The text, inflated if it is compressed.
    pub(crate) async fn inflated(self, limit: u64) -> Result<Bytes, Refusal> {
        let Self { bytes, encoding } = self;
        match encoding {
            Encoding::Identity => Ok(bytes),
            Encoding::Gzip => tokio::task::spawn_blocking(move || inflate(&bytes, limit))
                .await
                .unwrap_or_else(|_| Err(Refusal::unavailable())),
        }
    }
}

/// The bytes that a body says it has, if it says so.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn check_headers(headers: &HeaderMap, limit: u64) -> Result<Encoding, Refusal> {
    let unsupported = |detail: &str| Err(Refusal::new(ProblemCode::UnsupportedMedia, detail));
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parameters = content_type.split(';').map(str::trim);
    if !parameters.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json")) {
        return unsupported("the content type must be application/json");
    }
    let is_utf8 = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    if !parameters.all(is_utf8) {
        return unsupported("the charset must be UTF-8");
    }
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let encoding = match (encodings.next().map(|value| value.to_str().unwrap_or_default().trim()), encodings.next()) {
        (None, _) => Encoding::Identity,
        (Some(name), None) if name.eq_ignore_ascii_case("identity") => Encoding::Identity,
        (Some(name), None) if name.eq_ignore_ascii_case("gzip") => Encoding::Gzip,
        _ => return unsupported("the content encoding must be gzip or none"),
    };
    match declared_length(headers) {
        Some(length) if length > limit => Err(Refusal::too_large(limit)),
        _ => Ok(encoding),
    }
}

async fn collect(mut body: Body, limit: u64) -> Result<Bytes, Refusal> {
    let limit_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
    let deadline = Instant::now() + WHOLE;
    let mut bytes = BytesMut::new();
    loop {
        let next = timeout_at(deadline.min(Instant::now() + PAUSE), body.frame());
        let frame = match next.await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Refusal::new(ProblemCode::Malformed, "the body broke off; send it again")),
            Ok(None) => return Ok(bytes.freeze()),
            Err(_) => {
                return Err(Refusal::new(
                    ProblemCode::TimedOut,
                    "the body came too slowly; send it again, or in smaller parts",
                ));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit_bytes {
            linger(body);
            return Err(Refusal::too_large(limit));
        }
        bytes.extend_from_slice(&data);
    }
}

/// Reads on for a while behind an answer: a connection closed on unread bytes is reset, and the answer lost.
fn linger(mut body: Body) {
    tokio::spawn(timeout(LINGER, async move {
        let mut left = LINGER_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            if read > left {
                break;
            }
            left -= read;
        }
    }));
}

/// Inflates at most one byte more than the limit.
fn inflate(bytes: &[u8], limit: u64) -> Result<Bytes, Refusal> {
    let mut out = Vec::new();
    match MultiGzDecoder::new(bytes).take(limit.saturating_add(1)).read_to_end(&mut out) {
        Ok(read) if read as u64 > limit => Err(Refusal::too_large(limit)),
        Ok(_) => Ok(out.into()),
        Err(_) => Err(Refusal::new(ProblemCode::Malformed, "the body is not valid gzip; send it again")),
    }
}
