//! `PUT /v1/spaces/{space}/groups/{id}/parts/{n}` and `GET /v1/spaces/{space}/log/{seq}/parts/{n}`: groups that no request
//! and no page holds.

use super::parameters::Parameters;
use super::path::Segments;
use super::{App, json, log, push};
use crate::auth::Admission;
use crate::error::Refusal;
use crate::limit::SpaceQuotas;
use crate::store::{LogPart, PartRequest, Staging, UploadedPart};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, Uri};
use bytes::Bytes;
use gbsync_core::id::{DeviceId, LogId, Seq};
use gbsync_core::limits::{GROUP_PARTS, Limits};
use gbsync_core::wire::{ProblemCode, WireError, parse_part, part_answer_json};
use std::sync::Arc;

/// Stages one part of a group for the device that sends it.
pub(super) async fn stage(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    path: Segments,
    uri: Uri,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let device = Parameters::of(&uri)?.id("device", |text| DeviceId::new(text))?;
    if let Some(device) = &device {
        admission.check_device(device)?;
    }
    let Some(device) = device.or_else(|| admission.device.clone()) else {
        return Err(Refusal::parameter("device", "is needed: this token is not bound to a device"));
    };
    let (group, number) = (path.group()?, path.part()?);
    if number >= GROUP_PARTS {
        let detail = format!("a group has at most {GROUP_PARTS} parts, numbered from 0; send larger ones");
        return Err(Refusal::new(ProblemCode::Malformed, detail));
    }
    app.limiter.of_unbound(&admission, &device)?;
    let (text, came_bytes, _memory) = push::receive(&app, &headers, request).await?;
    app.limiter.bytes(&admission, &device, came_bytes)?;
    let body = check(text, app.limits).await?;
    SpaceQuotas::check_part(&app, &admission.space, &device, body.len() as u64).await?;
    let part = UploadedPart { space: admission.space, device, group, number, body };
    match app.committer.stage(part).await? {
        Staging::Staged | Staging::Decided => Ok(json(part_answer_json(number))),
        Staging::OverLimit(limit) => Err(Refusal::upload_too_large(limit)),
        Staging::NoSpace => Err(Refusal::no_space()),
    }
}

/// Reads a part, so that what is staged can be put together.
async fn check(text: Bytes, limits: Limits) -> Result<String, Refusal> {
    let checking = move || {
        parse_part(&text, &limits)?;
        String::from_utf8(text.into()).map_err(|_| WireError { pointer: String::new(), message: "is not UTF-8".into() })
    };
    Ok(tokio::task::spawn_blocking(checking).await.map_err(|_| Refusal::unavailable())??)
}

/// Hands out one part of an entry of the log.
pub(super) async fn of_log(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    path: Segments,
    uri: Uri,
) -> Result<Response<Body>, Refusal> {
    let parameters = Parameters::of(&uri)?;
    let log = parameters.id("log", |text| LogId::new(text))?;
    let (seq, number) = (Seq(path.seq()?), path.part()?);
    let (sight, _) = app.same_sight(&admission.scopes, &parameters).await?;
    let request = PartRequest { space: admission.space, log, seq, number, sight };
    match app.read(move |store| store.log_part(&request)).await? {
        LogPart::Body(body) => Ok(json(body)),
        LogPart::NoSpace => Err(Refusal::no_space()),
        LogPart::NoPart => {
            Err(Refusal::new(ProblemCode::NotFound, format!("entry {seq} of the log has no part {number}; read its entry")))
        }
        LogPart::BehindHorizon { horizon } => Err(log::behind_horizon(horizon, seq)),
        LogPart::BeyondHead { head } => Err(log::beyond_head(head, seq)),
        LogPart::LogChanged => Err(log::changed()),
    }
}
