//! `GET /healthz` and `GET /readyz`: for whoever starts and stops servers.

use super::{App, json};
use crate::error::Refusal;
use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The process answers.
pub(super) async fn is_alive() -> Response<Body> {
    json("{\"status\":\"ok\"}".into())
}

/// How long the writer may take to make a transaction.
const PATIENCE: Duration = Duration::from_secs(5);

/// The store answers and can be written, the schema is in force, and the server is not about to stop.
pub(super) async fn is_ready(State(app): State<Arc<App>>) -> Result<Response<Body>, Refusal> {
    if app.is_leaving.load(Ordering::Relaxed) || *app.is_draining.borrow() {
        return Err(Refusal::unavailable());
    }
    app.grant([0; 32]).await?;
    // A schema that is still to be put in force, or cannot be, comes before any other work.
    tokio::time::timeout(PATIENCE, app.committer.probe()).await.map_err(|_| Refusal::unavailable())??;
    Ok(json("{\"status\":\"ok\"}".into()))
}
