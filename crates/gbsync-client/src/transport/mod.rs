//! How requests travel. A transport carries bytes and interprets no verdict.

#[cfg(feature = "native")]
mod http;

#[cfg(feature = "native")]
pub use http::{FixedToken, HttpTransport, TokenProvider};

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
}
