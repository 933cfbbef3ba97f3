//! `GET /v1/spaces/{space}/schema`: what operations must look like. It changes rarely: a device asks with the tag it has.

use super::{App, json};
use crate::error::Refusal;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use gbsync_core::wire::ProblemCode;
use std::sync::Arc;

pub(super) async fn schema(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response<Body>, Refusal> {
    let Some(rules) = app.rules_in_force().await? else {
        return Err(Refusal::new(ProblemCode::NotFound, "this server has no schema: every operation is accepted as it is"));
    };
    let tag = format!("\"{}\"", rules.schema.version);
    let mut response = if asks_for_another_than(&headers, &tag) {
        json(rules.text.clone())
    } else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    };
    let tag = HeaderValue::from_str(&tag).map_err(|_| Refusal::unavailable())?;
    response.headers_mut().insert(header::ETAG, tag);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

fn asks_for_another_than(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // Compressing on the way may have weakened the tag.
    let mut known = known.flat_map(|value| value.split(',')).map(|known| known.trim().trim_start_matches("W/"));
    !known.any(|known| known == tag || known == "*")
}
