//! `GET /metrics`, on an address of its own: it names spaces and operations, which no token's bearer may know of all.

use super::{App, health};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, header};
use axum::routing::get;
use std::sync::Arc;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What whoever watches the server asks.
pub(crate) fn router(app: Arc<App>) -> Router {
    let router = Router::new().route("/metrics", get(metrics));
    router.route("/healthz", get(health::is_alive)).route("/readyz", get(health::is_ready)).with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response<Body> {
    let mut response = Response::new(Body::from(app.metrics.text(&app.committer.tally, &app.live)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    response
}
