//! A server without a socket: requests are handed to it. For simulators, and for programs that bring their own front.

use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::routes::router;
use crate::server::{Opened, close, open};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, Request, header};
use http_body_util::BodyExt;
use std::sync::{Mutex, PoisonError};
use tower::ServiceExt;

/// A server without a socket: the same routes, the same store.
pub struct LocalServer {
    router: Router,
    opened: Opened,
}

/// An answer that comes bit by bit.
pub struct LocalStream {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
    /// Nobody else has it: so it can be asked from any thread.
    body: Mutex<Body>,
}

impl LocalStream {
    /// The next bytes; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
            let frame = body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data.into());
            }
        }
    }
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAnswer {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

impl LocalServer {
    /// Takes the folder and opens the store; the address of the configuration means nothing here.
    ///
    /// # Errors
    /// [`ServerError`] as for [`crate::Server::start`].
    pub async fn open(config: ServerConfig) -> Result<Self, ServerError> {
        let opened = open(config).await?;
        Ok(Self { router: router(opened.app.clone()), opened })
    }

    /// Answers one request. A path that is no URI is answered as 400.
    pub async fn answer(&self, method: &str, path: &str, token: Option<&str>, body: Option<Vec<u8>>) -> LocalAnswer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = Vec::with_capacity(2);
        headers.extend(bearer.as_ref().map(|bearer| ("authorization", bearer.as_bytes())));
        headers.extend(body.is_some().then_some(("content-type", b"application/json".as_slice())));
        self.answer_with(method, path, &headers, body.unwrap_or_default()).await
    }

    /// Answers one request with exactly these headers, names in small letters. What cannot be written as a request is
    /// answered as 400.
    pub async fn answer_with(&self, method: &str, path: &str, headers: &[(&str, &[u8])], body: Vec<u8>) -> LocalAnswer {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
        let builder = Request::builder().method(method).uri(path);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        let Ok(request) = builder.body(Body::from(body)) else { return LocalAnswer::of(400) };
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return LocalAnswer::of(500) };
        LocalAnswer {
            content_type: text(&parts.headers, header::CONTENT_TYPE),
            retry_after_s: text(&parts.headers, header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()),
            body: body.to_bytes().into(),
            ..LocalAnswer::of(parts.status.as_u16())
        }
    }

    /// An answer that goes on for as long as somebody listens, such as the stream of the log.
    pub async fn listen(&self, path: &str, token: Option<&str>) -> LocalStream {
        let builder = Request::builder().uri(path);
        let bearer = token.map(|token| format!("Bearer {token}"));
        let builder = bearer.iter().fold(builder, |builder, bearer| builder.header(header::AUTHORIZATION, bearer));
        let Ok(request) = builder.body(Body::empty()) else {
            return LocalStream { status: 400, content_type: None, retry_after_s: None, body: Mutex::new(Body::empty()) };
        };
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        LocalStream {
            status: parts.status.as_u16(),
            content_type: text(&parts.headers, header::CONTENT_TYPE),
            retry_after_s: text(&parts.headers, header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()),
            body: Mutex::new(body),
        }
    }

    /// Nobody is woken by the next so many commits, as where a NOTIFY is lost.
    #[cfg(feature = "fault-points")]
    pub fn lose_wake_ups(&self, commits: u64) {
        self.opened.app.feed.lose(commits);
    }

    /// The status, and the first piece, of an answer that goes on for as long as somebody listens, such as the stream of the log.
    pub async fn first_piece(&self, path: &str, token: &str) -> (u16, Vec<u8>) {
        let mut stream = self.listen(path, Some(token)).await;
        (stream.status, stream.next().await.unwrap_or_default())
    }

    /// Ends the writer and closes the store.
    ///
    /// # Errors
    /// [`ServerError`] when the store could not be closed properly; what was acknowledged is stored all the same.
    pub async fn close(self) -> Result<(), ServerError> {
        let Opened { app, drain } = self.opened;
        drain.send_replace(true);
        close(app).await
    }
}

impl LocalAnswer {
    fn of(status: u16) -> Self {
        Self { status, content_type: None, retry_after_s: None, body: Vec::new() }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
