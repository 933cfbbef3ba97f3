//! `GET /v1/spaces/{space}/live`: whole groups after a cursor, as soon as there are any, for as long as the device listens.

use super::App;
use super::parameters::Parameters;
use crate::auth::Admission;
use crate::error::Refusal;
use crate::live::{Listener, Opening};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, Uri, header};
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq};
use std::convert::Infallible;
use std::sync::Arc;

/// Where a browser says what it saw last.
const LAST_EVENT_ID: &str = "last-event-id";
/// Tells nginx, and what behaves like it, to pass the stream on as it comes.
const ACCEL_BUFFERING: &str = "x-accel-buffering";

pub(super) async fn live(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let parameters = Parameters::of(&uri)?;
    let (sight, scope_set) = app.same_sight(&admission.scopes, &parameters).await?;
    let mut opening = Opening {
        space: admission.space,
        after: Seq(parameters.count("after")?.unwrap_or(0)),
        log: parameters.id("log", |text| LogId::new(text))?,
        chain: parameters.read("chain", "64 hexadecimal digits", Digest::from_hex)?,
        credentials: credentials(&headers),
        ends_ms: admission.ends_ms,
        sight,
        scope_set,
    };
    if let Some(last) = last_event_id(&headers)? {
        // The chain is the one at `after`, which is behind it.
        (opening.after, opening.chain) = (last, None);
    }
    let listener = Listener::open(app, opening).await?;
    let pages = futures_util::stream::unfold(listener, |mut listener| async move {
        let bytes = listener.next().await?;
        Some((Ok::<_, Infallible>(bytes), listener))
    });
    let mut response = Response::new(Body::from_stream(pages));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// What the request bears, copied: a value as it came would keep the buffer it was read into for as long as the stream lasts.
fn credentials(headers: &HeaderMap) -> HeaderMap {
    let copied = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
    let value = headers.get(header::AUTHORIZATION).and_then(copied);
    value.map(|value| (header::AUTHORIZATION, value)).into_iter().collect()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Seq>, Refusal> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let seq = digits.and_then(|text| text.parse::<u64>().ok()).filter(|seq| *seq < 1 << 53);
    let refused = || Refusal::parameter("Last-Event-ID", "must be an integer from 0 to below 2^53");
    seq.map(|seq| Some(Seq(seq))).ok_or_else(refused)
}
