//! `GET /v1/openapi.json`: the contract in a form that machines read.

use super::json;
use axum::body::Body;
use axum::http::Response;

/// The document, written by hand.
pub(super) const DOCUMENT: &str = include_str!("../openapi.json");

/// The document needs no token: it tells nothing of any space.
pub(super) async fn document() -> Response<Body> {
    json(DOCUMENT.into())
}
