//! `POST /v1/spaces/{space}/verdicts`: what was decided of groups whose answer got lost.

use super::{App, json};
use crate::auth::Admission;
use crate::body;
use crate::error::Refusal;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use gbsync_core::wire::{answer_json, parse_verdicts_request};
use std::sync::Arc;

pub(super) async fn verdicts(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let text = body::read_json(request, app.limits.request_bytes).await?;
    let ids = parse_verdicts_request(&text)?;
    let answer =
        app.read(move |store| Ok(answer_json(&store.verdicts(&admission.space, ids, &admission.scopes)?, None))).await?;
    Ok(json(answer))
}
