//! How requests travel. A transport carries bytes and interprets no verdict.

#[cfg(feature = "native")]
mod http;

#[cfg(feature = "native")]
pub use http::HttpTransport;

use crate::environment::{BoxFuture, Shared};

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
}

/// One request to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/v1/`; ids in it are percent-encoded.
    pub path: String,
    /// A JSON body.
    pub body: Option<Vec<u8>>,
    /// How long to wait for the whole answer, in milliseconds.
    pub timeout_ms: u64,
    /// The token of whoever is signed in; `None`: the transport's own, if it has one.
    pub token: Option<Token>,
}

/// A token, which no log may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What came back: any status, any body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`, if it came.
    pub content_type: Option<String>,
    /// `Retry-After` in milliseconds, if it came as seconds.
    pub retry_after_ms: Option<u64>,
    /// The whole body, decompressed.
    pub body: Vec<u8>,
}

/// An answer that comes bit by bit: its head, and what follows.
pub struct Streamed {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`, if it came.
    pub content_type: Option<String>,
    /// `Retry-After` in milliseconds, if it came as seconds.
    pub retry_after_ms: Option<u64>,
    /// The body.
    pub body: Box<dyn Pieces>,
}

/// A body that comes bit by bit.
pub trait Pieces: Shared {
    /// The next bytes, decompressed; `None` at the end. Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, TransportError>>;
}

/// How a download is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadFrom {
    /// Whether the device reads zstd.
    pub takes_zstd: bool,
    /// The entity tag of a download that broke off, and the bytes of it that are stored: `Range` and `If-Range`.
    pub begun: Option<(String, u64)>,
}

/// A file that comes bit by bit, as it is encoded: nothing between server and device may have decompressed it.
pub struct Download {
    /// Head and body.
    pub streamed: Streamed,
    /// Its entity tag, if it came.
    pub etag: Option<String>,
    /// Whether its bytes are compressed with zstd.
    pub is_zstd: bool,
    /// The byte that the body begins with: 0 for status 200.
    pub from: u64,
}

/// Nothing came back, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// A sentence: refused, reset, timed out.
    pub message: String,
}

/// Carries requests to the server of one client.
pub trait Transport: Shared {
    /// Sends a request and reads the whole answer.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>>;

    /// Sends a request and reads the head of an answer that may last: [`Request::timeout_ms`] is for the head alone. A
    /// transport without streams keeps this default, and a watch asks at intervals.
    fn open(&self, request: Request) -> BoxFuture<'_, Result<Streamed, TransportError>> {
        let _ = request;
        Box::pin(std::future::ready(Err(TransportError { message: "this transport has no streams".into() })))
    }

    /// Sends a request for a file and reads the head of the answer; [`Request::timeout_ms`] is for the head alone. `None`:
    /// a transport without downloads, which this default is. Then a device reads the log.
    fn download(&self, request: Request, from: DownloadFrom) -> BoxFuture<'_, Result<Option<Download>, TransportError>> {
        let _ = (request, from);
        Box::pin(std::future::ready(Ok(None)))
    }
}
