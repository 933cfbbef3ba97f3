//! `POST /v1/spaces/{space}/groups/{id}/discard`: records that nobody wants a group any more, or answers its verdict
//! to who may see it.

use super::path::Segments;
use super::{App, json};
use crate::auth::Admission;
use crate::body;
use crate::commit::{Discard, DiscardOutcome};
use crate::error::Refusal;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{parse_discard, result_json};
use std::sync::Arc;

pub(super) async fn discard(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    path: Segments,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let id = path.group()?;
    let text = body::read_json(request, app.limits.request_bytes).await?;
    let request = parse_discard(&text)?;
    admission.check_actor(request.actor.as_ref())?;
    let discard = Discard { admission: admission.clone(), id: id.clone(), request };
    match app.committer.discard(discard).await? {
        DiscardOutcome::Result(result) => Ok(json(result_json(&result))),
        DiscardOutcome::Refused(refusal) => Err(*refusal),
        DiscardOutcome::AsSeen => {
            let (space, scopes, ids) = (admission.space.clone(), admission.scopes.clone(), vec![id.clone()]);
            let seen = app.read(move |store| store.verdicts(&space, ids, &scopes)).await?.pop();
            match seen.filter(|result| result.verdict != Verdict::Unknown) {
                Some(result) => Ok(json(result_json(&result))),
                None => Err(admission.sees_not(&id)),
            }
        }
        DiscardOutcome::NoSpace => Err(Refusal::no_space()),
    }
}
