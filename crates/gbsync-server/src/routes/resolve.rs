//! `POST …/rejections/{id}/amend`, `/discard` and `/compensate`: the back office closes a rejection.

use super::path::Segments;
use super::rejections::unknown;
use super::{App, json};
use crate::auth::Admission;
use crate::body;
use crate::commit::{Resolving, ResolvingOutcome};
use crate::error::Refusal;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use gbsync_core::verdict::ResolvedAs;
use gbsync_core::wire::{ProblemCode, Resolve, resolved_json};
use std::sync::Arc;

pub(super) async fn amend(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    path: Segments,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    resolve(&app, ResolvedAs::Amended, admission, &path, request).await
}

pub(super) async fn discard(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    path: Segments,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    resolve(&app, ResolvedAs::Discarded, admission, &path, request).await
}

pub(super) async fn compensate(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    path: Segments,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    resolve(&app, ResolvedAs::Compensated, admission, &path, request).await
}

async fn resolve(
    app: &App,
    resolved_as: ResolvedAs,
    admission: Admission,
    path: &Segments,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let of = path.group()?;
    let text = body::read_json(request, app.limits.request_bytes).await?;
    let request = Resolve::parse(resolved_as, &text, &app.limits)?;
    let person = admission.person(request.actor.as_ref())?;
    let uuid = app.environment.uuid();
    let Admission { space, scopes, .. } = admission;
    let resolving = Resolving { space, of, request, person, scopes, uuid };
    match app.committer.resolve(resolving).await? {
        ResolvingOutcome::Closed { resolution, seq, result, head } => {
            Ok(json(resolved_json(Some((&resolution, seq)), result.as_ref(), Some(head))))
        }
        ResolvingOutcome::Refused(result) => Ok(json(resolved_json(None, Some(&result), None))),
        ResolvingOutcome::AlreadyClosed(detail) => Err(Refusal::new(ProblemCode::AlreadyClosed, detail)),
        ResolvingOutcome::Malformed(detail) => {
            Err(Refusal::new(ProblemCode::Malformed, detail).pointing_at("/changes".into()))
        }
        ResolvingOutcome::Unknown => Err(unknown()),
        ResolvingOutcome::NoSpace => Err(Refusal::no_space()),
    }
}
