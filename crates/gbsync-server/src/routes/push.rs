//! `POST /v1/spaces/{space}/push`: groups in, verdicts out.

use super::log::{beyond_head, changed};
use super::{App, json};
use crate::auth::Admission;
use crate::body;
use crate::commit::{Displaced, Push, PushOutcome};
use crate::error::Refusal;
use crate::limit::SpaceQuotas;
use crate::telemetry::Followed;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use gbsync_core::limits::Limits;
use gbsync_core::wire::{ProblemCode, PushRequest, WireError, answer_json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes from which parsing moves off the runtime's threads.
const LARGE_BYTES: usize = 64 * 1024;
/// KiB of pushes that are in memory at a time, at least.
const MEMORY_KIB: u64 = 24 * 1024;
/// How long a push waits for that memory.
const MEMORY_WAIT: Duration = Duration::from_secs(10);

pub(super) async fn push(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    headers: HeaderMap,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let (text, came_bytes, _memory) = receive(&app, &headers, request).await?;
    let announced = app.committer.announce();
    let bytes = text.len() as u64;
    let request = parse(text, app.limits).await?;
    admission.check_device(&request.device)?;
    app.limiter.of_unbound(&admission, &request.device)?;
    app.limiter.bytes(&admission, &request.device, came_bytes)?;
    admission.check_actors(&request)?;
    SpaceQuotas::check(&app, &admission.space, &request, bytes).await?;
    let acts_as = admission.acts_as(&request);
    let others = match acts_as.is_empty() {
        true => BTreeMap::new(),
        false => {
            let space = admission.space.clone();
            app.read(move |store| store.roles_of(&space, &acts_as)).await?
        }
    };
    let rights = admission.rights(&request, others)?;
    let at = request.at.as_ref().map(|at| at.seq);
    let followed = Followed::push(&admission.space, &request.device, request.groups.len());
    let push = Push { space: admission.space, rights, request, bytes, followed };
    match app.committer.push(push, announced).await? {
        PushOutcome::Decided { results, head } => Ok(json(answer_json(&results, Some(head)))),
        PushOutcome::NoSpace => Err(Refusal::no_space()),
        PushOutcome::Displaced(Displaced::LogChanged) => Err(changed()),
        PushOutcome::Displaced(Displaced::BeyondHead { head }) => Err(beyond_head(head, at.unwrap_or_default())),
        PushOutcome::EpochReused { device_seq, known, sent } => Err(Refusal::new(
            ProblemCode::EpochReused,
            format!(
                "deviceSeq {device_seq} of this epoch is known as {known}, not {sent}; nothing of the request took \
                 effect: begin a new epoch and number the undecided groups anew"
            ),
        )),
    }
}

/// Memory that a body holds until it is dealt with.
pub(super) struct Memory {
    _received: OwnedSemaphorePermit,
    _inflated: Option<OwnedSemaphorePermit>,
}

/// Reads a body within the request limit when there is memory for it: the text, and how many bytes came.
pub(super) async fn receive(
    app: &App,
    headers: &HeaderMap,
    request: Request<Body>,
) -> Result<(Bytes, u64, Memory), Refusal> {
    let most = app.limits.request_bytes;
    let declared = body::declared_length(headers).unwrap_or(most).min(most);
    let received_kib = reserve(&app.received_kib, declared).await?;
    let received = body::receive_json(request, most).await?;
    // A slow device holds only what it sends while it sends; what that inflates to is held from when all of it is here.
    let inflated_kib = match received.is_compressed() {
        true => Some(reserve(&app.inflated_kib, most).await?),
        false => None,
    };
    let came_bytes = received.came_bytes();
    let text = received.inflated(most).await?;
    Ok((text, came_bytes, Memory { _received: received_kib, _inflated: inflated_kib }))
}

/// KiB of pushes that may be in memory at a time: always enough for two of the largest.
pub(super) fn memory_kib(limits: &Limits) -> usize {
    let two = limits.request_bytes.div_ceil(1024).saturating_mul(2);
    usize::try_from(two.max(MEMORY_KIB)).unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS)
}

/// Waits until there is memory for this many bytes.
async fn reserve(memory_kib: &Arc<Semaphore>, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
    let kib = u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
    let permits = Arc::clone(memory_kib).acquire_many_owned(kib);
    match tokio::time::timeout(MEMORY_WAIT, permits).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Refusal::unavailable()),
    }
}

async fn parse(text: Bytes, limits: Limits) -> Result<PushRequest, Refusal> {
    if text.len() < LARGE_BYTES {
        return Ok(PushRequest::parse(&text, &limits)?);
    }
    let parsing = tokio::task::spawn_blocking(move || PushRequest::parse(&text, &limits));
    let parsed: Result<PushRequest, WireError> = parsing.await.map_err(|_| Refusal::unavailable())?;
    Ok(parsed?)
}
