//! `GET /healthz` and `GET /readyz`: for whoever starts and stops servers.

use super::{App, json};
use crate::error::Refusal;
use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use std::sync::Arc;

/// The process answers.
pub(super) async fn is_alive() -> Response<Body> {
    json("{\"status\":\"ok\"}".into())
}

/// The store answers, and the server is not about to stop.
pub(super) async fn is_ready(State(app): State<Arc<App>>) -> Result<Response<Body>, Refusal> {
    if *app.is_draining.borrow() {
        return Err(Refusal::unavailable());
    }
    app.read(|store| store.grant(&[0; 32])).await?;
    Ok(json("{\"status\":\"ok\"}".into()))
}
