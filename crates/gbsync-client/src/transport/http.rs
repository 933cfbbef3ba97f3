//! HTTP with reqwest and rustls.

use super::{Download, DownloadFrom, Method, Pieces, Request, Response, Streamed, Token, Transport, TransportError};
use crate::environment::BoxFuture;
use crate::session::{TokenProvider, status_of, with_token};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Bodies of this many bytes and more are compressed, except on the loopback.
const COMPRESS_BYTES: usize = 2048;
/// Most bytes of an answer.
const ANSWER_BYTES: usize = 160 * 1024 * 1024;
/// Most bytes of a refusal that are read.
const REFUSAL_BYTES: usize = 1024 * 1024;

/// The most bytes that room is made for before they come.
const BELIEVED_BYTES: usize = 8 * 1024 * 1024;

/// The native transport.
pub struct HttpTransport {
    client: reqwest::Client,
    server: String,
    tokens: Arc<dyn TokenProvider>,
    trace_parent: Option<Arc<TraceParent>>,
    compresses: bool,
}

/// Says to which span of a trace a request belongs that is sent now.
type TraceParent = dyn Fn() -> Option<String> + Send + Sync;

impl HttpTransport {
    /// A transport to `server`, e.g. `https://sync.example.com`.
    ///
    /// # Errors
    /// [`TransportError`] when the URL is none or TLS cannot be set up.
    ///
    /// ```
    /// use gbsync_client::{FixedToken, HttpTransport};
    /// assert!(HttpTransport::new("http://127.0.0.1:4680", std::sync::Arc::new(FixedToken("gbt_…".into()))).is_ok());
    /// assert!(HttpTransport::new("127.0.0.1", std::sync::Arc::new(FixedToken("gbt_…".into()))).is_err());
    /// ```
    pub fn new(server: &str, tokens: Arc<dyn TokenProvider>) -> Result<Self, TransportError> {
        let refuse = |reason: &dyn std::fmt::Display| TransportError {
            message: format!("{server:?} is no server's URL: {reason}; write it like https://sync.example.com"),
        };
        let url = reqwest::Url::parse(server).map_err(|error| refuse(&error))?;
        let host = match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) => host,
            _ => return Err(refuse(&"it does not begin with http:// or https://")),
        };
        let is_loopback = matches!(host, "localhost" | "[::1]") || host.starts_with("127.");
        // Another part of the program may have chosen a provider before; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder();
        if url.scheme() == "http" {
            // Reading the system's certificates takes longer than many a round.
            builder = builder.tls_certs_only([]);
        }
        let client = builder
            .connect_timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .gzip(!is_loopback)
            .user_agent(concat!("gbsync/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| TransportError { message: format!("HTTP cannot be set up: {}", causes(&error)) })?;
        let server = server.trim_end_matches('/').to_owned();
        Ok(Self { client, server, tokens, trace_parent: None, compresses: !is_loopback })
    }

    /// The same, with each request below the span that `trace_parent` names when it is sent: a `traceparent` of the W3C's Trace
    /// Context. Nothing is sent for `None`, nor for what no header can hold.
    ///
    /// ```
    /// # use gbsync_client::{FixedToken, HttpTransport};
    /// let transport = HttpTransport::new("http://127.0.0.1:4680", std::sync::Arc::new(FixedToken("gbt_…".into()))).unwrap();
    /// let followed = transport.with_trace_parent(|| Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()));
    /// # drop(followed);
    /// ```
    #[must_use]
    pub fn with_trace_parent(self, trace_parent: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self { trace_parent: Some(Arc::new(trace_parent)), ..self }
    }

    fn prepare(&self, request: Request) -> reqwest::RequestBuilder {
        let url = format!("{}{}", self.server, request.path);
        let mut builder = match request.method {
            Method::Get => self.client.get(url),
            Method::Post => self.client.post(url),
            Method::Put => self.client.put(url),
        };
        if let Some(Token(token)) = request.token {
            builder = builder.bearer_auth(token);
        }
        let trace_parent = self.trace_parent.as_ref().and_then(|trace_parent| trace_parent());
        if let Some(value) = trace_parent.and_then(|text| reqwest::header::HeaderValue::try_from(text).ok()) {
            builder = builder.header("traceparent", value);
        }
        if let Some(body) = request.body {
            builder = builder.header("Content-Type", "application/json");
            builder = if self.compresses && body.len() >= COMPRESS_BYTES {
                builder.header("Content-Encoding", "gzip").body(gzip(&body))
            } else {
                builder.body(body)
            };
        }
        builder
    }

    async fn exchange(&self, request: Request) -> Result<Response, TransportError> {
        let timeout = Duration::from_millis(request.timeout_ms);
        let mut response = self.prepare(request).timeout(timeout).send().await.map_err(lost)?;
        let (status, content_type, retry_after_ms) = head_of(&response);
        let most = if status == 200 { ANSWER_BYTES } else { REFUSAL_BYTES };
        // What a proxy says is only believed within reason.
        let announced = response.content_length().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        let mut body = Vec::with_capacity(announced.min(BELIEVED_BYTES));
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > most {
                return Err(TransportError { message: format!("the answer is longer than {most} bytes") });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, content_type, retry_after_ms, body })
    }

    async fn fetch(&self, request: Request, from: DownloadFrom) -> Result<Option<Download>, TransportError> {
        let timeout = Duration::from_millis(request.timeout_ms);
        // Said here, so that the HTTP library decompresses nothing.
        let coding = if from.takes_zstd { "zstd" } else { "identity" };
        let mut builder = self.prepare(request).header("Accept-Encoding", coding);
        if let Some((etag, at)) = &from.begun {
            builder = builder.header("Range", format!("bytes={at}-")).header("If-Range", etag);
        }
        let sent = tokio::time::timeout(timeout, builder.send()).await;
        let response = sent.map_err(|_| TransportError { message: "no answer came in time".into() })?.map_err(lost)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let first = |range: &str| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok();
        let at = match response.status().as_u16() {
            206 => header("content-range").and_then(first).ok_or_else(|| TransportError {
                message: "a part of a file came that does not say which; is a proxy between?".into(),
            })?,
            _ => 0,
        };
        let (etag, is_zstd) = (header("etag").map(str::to_owned), header("content-encoding") == Some("zstd"));
        let (status, content_type, retry_after_ms) = head_of(&response);
        let streamed = Streamed { status, content_type, retry_after_ms, body: Box::new(Body(response)) };
        Ok(Some(Download { streamed, etag, is_zstd, from: at }))
    }

    async fn begin(&self, request: Request) -> Result<Streamed, TransportError> {
        let timeout = Duration::from_millis(request.timeout_ms);
        let sent = tokio::time::timeout(timeout, self.prepare(request).send()).await;
        let response = sent.map_err(|_| TransportError { message: "no answer came in time".into() })?.map_err(lost)?;
        let (status, content_type, retry_after_ms) = head_of(&response);
        Ok(Streamed { status, content_type, retry_after_ms, body: Box::new(Body(response)) })
    }
}

/// Status, `Content-Type` and `Retry-After` in milliseconds.
fn head_of(response: &reqwest::Response) -> (u16, Option<String>, Option<u64>) {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let seconds = header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    let retry_after_ms = seconds.map(|seconds| seconds.saturating_mul(1000));
    (response.status().as_u16(), header("content-type").map(str::to_owned), retry_after_ms)
}

/// The rest of an answer.
struct Body(reqwest::Response);

impl Pieces for Body {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, TransportError>> {
        Box::pin(async { Ok(self.0.chunk().await.map_err(lost)?.map(Vec::from)) })
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        if request.token.is_some() {
            return Box::pin(self.exchange(request));
        }
        let send = |request| -> BoxFuture<'_, _> { Box::pin(self.exchange(request)) };
        Box::pin(with_token(self.tokens.as_ref(), request, send, |response| response.status))
    }

    fn open(&self, request: Request) -> BoxFuture<'_, Result<Streamed, TransportError>> {
        if request.token.is_some() {
            return Box::pin(self.begin(request));
        }
        let open = |request| -> BoxFuture<'_, _> { Box::pin(self.begin(request)) };
        Box::pin(with_token(self.tokens.as_ref(), request, open, |streamed| streamed.status))
    }

    fn download(&self, request: Request, from: DownloadFrom) -> BoxFuture<'_, Result<Option<Download>, TransportError>> {
        if request.token.is_some() {
            return Box::pin(self.fetch(request, from));
        }
        let fetch = move |request| -> BoxFuture<'_, _> { Box::pin(self.fetch(request, from.clone())) };
        Box::pin(with_token(self.tokens.as_ref(), request, fetch, status_of))
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

fn lost(error: reqwest::Error) -> TransportError {
    TransportError { message: causes(&error) }
}

/// An error with its causes, without the URL: the reader knows which server it is about.
fn causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = cause.to_string();
        source = cause.source();
    }
    message
}
