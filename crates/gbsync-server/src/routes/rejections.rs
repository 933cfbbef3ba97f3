//! `GET …/rejections` and `GET …/rejections/{id}`: what was refused, for the back office.

use super::parameters::Parameters;
use super::path::Segments;
use super::{App, json};
use crate::auth::Admission;
use crate::error::Refusal;
use crate::store::RejectionsRequest;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use gbsync_core::id::GroupId;
use gbsync_core::wire::{ProblemCode, rejection_json, rejections_json};
use std::sync::Arc;

/// Rejections in an answer: when nothing is said, and at most.
const REJECTIONS: (u64, u64) = (100, 1_000);

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    uri: Uri,
) -> Result<Response<Body>, Refusal> {
    let parameters = Parameters::of(&uri)?;
    let request = RejectionsRequest {
        space: admission.space,
        is_closed: match parameters.choice("state", &["open", "closed", "all"])? {
            "open" => Some(false),
            "closed" => Some(true),
            _ => None,
        },
        after: parameters.id("after", |text| GroupId::new(text))?,
        most: parameters.limit("limit", REJECTIONS.0, REJECTIONS.1)?,
        scopes: admission.scopes,
    };
    let found = app.read(move |store| store.rejections(&request)).await?.ok_or_else(Refusal::no_space)?;
    Ok(json(rejections_json(&found)))
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    path: Segments,
) -> Result<Response<Body>, Refusal> {
    let id = path.group()?;
    let found = app.read(move |store| store.rejection(&admission.space, &id, &admission.scopes)).await?;
    found.map(|found| json(rejection_json(&found))).ok_or_else(unknown)
}

pub(super) fn unknown() -> Refusal {
    Refusal::new(ProblemCode::NotFound, "no group with this id was rejected; GET …/rejections lists those that were")
}
