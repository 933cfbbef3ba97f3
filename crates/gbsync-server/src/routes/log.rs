//! `GET /v1/spaces/{space}/log`: whole groups after a cursor, at once or as soon as there are any.

use super::parameters::Parameters;
use super::path::Segments;
use super::{App, json};
use crate::auth::{Action, Admission};
use crate::error::Refusal;
use crate::store::{Page, PageRequest};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq, SpaceId};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::scope::Sight;
use gbsync_core::wire::page_json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Records in a page: when nothing is said, and at most.
const RECORDS: (u64, u64) = (1_000, 10_000);
/// Bytes of a page: when nothing is said, and at most.
const BYTES: (u64, u64) = (1024 * 1024, 4 * 1024 * 1024);
/// Seconds that a request may wait for the log to grow.
const LONGEST_WAIT_S: u64 = 30;

/// A page in wire form, and whether anything is in it.
struct Answer {
    body: String,
    is_empty: bool,
}

pub(super) async fn log(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    path: Segments,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let parameters = Parameters::of(&uri)?;
    let (sight, name) = app.same_sight(&admission.scopes, &parameters).await?;
    let request = page_request(&parameters, admission.space, sight)?;
    let wait_s = parameters.count("wait")?.unwrap_or(0).min(LONGEST_WAIT_S);
    let deadline = Instant::now() + Duration::from_secs(wait_s);
    // Subscribed before the read: what is committed in between wakes.
    let mut head = (wait_s > 0).then(|| app.feed.subscribe(&request.space));
    let mut is_draining = app.is_draining.clone();
    loop {
        let answer = page(&app, &request).await?;
        let Some(head) = head.as_mut().filter(|_| answer.is_empty && Instant::now() < deadline) else {
            return Ok(json(answer.body));
        };
        tokio::select! {
            _ = head.changed() => {}
            _ = tokio::time::sleep_until(deadline) => {}
            _ = is_draining.wait_for(|is_draining| *is_draining) => return Ok(json(answer.body)),
        }
        // The token may have been revoked meanwhile, or open something else.
        let admission = app.authorize(&headers, Action::ReadLog, path.space()).await?;
        if app.sight(&admission.scopes).await?.1 != name {
            return Ok(json(answer.body));
        }
    }
}

fn page_request(parameters: &Parameters, space: SpaceId, sight: Arc<Sight>) -> Result<PageRequest, Refusal> {
    let sight = if is(Mutant::ScopeFilterMissingLog) { Arc::default() } else { sight };
    Ok(PageRequest {
        space,
        after: Seq(parameters.count("after")?.unwrap_or(0)),
        log: parameters.id("log", |text| LogId::new(text))?,
        chain: parameters.read("chain", "64 hexadecimal digits", Digest::from_hex)?,
        max_records: parameters.limit("maxRecords", RECORDS.0, RECORDS.1)?,
        max_bytes: parameters.limit("maxBytes", BYTES.0, BYTES.1)?,
        sight,
    })
}

async fn page(app: &App, request: &PageRequest) -> Result<Answer, Refusal> {
    let request = request.clone();
    let after = request.after;
    let reading = app.read(move |store| {
        Ok(match store.page(&request)? {
            Page::Entries { entries, next, chain, head } => {
                let body = page_json(entries.iter().map(String::as_str), next, chain, head);
                // What is passed over is told as well, by the cursor.
                Ok(Answer { body, is_empty: entries.is_empty() && next == after })
            }
            other => Err(other),
        })
    });
    reading.await?.map_err(|none| no_page(&none, after))
}

/// Why there is no page after `after`.
pub(crate) fn no_page(none: &Page, after: Seq) -> Refusal {
    match none {
        Page::BehindHorizon { horizon } => behind_horizon(*horizon, after),
        Page::BeyondHead { head } => beyond_head(*head, after),
        Page::LogChanged => changed(),
        Page::NoSpace | Page::Entries { .. } => Refusal::no_space(),
    }
}

pub(super) fn beyond_head(head: Seq, asked: Seq) -> Refusal {
    Refusal::resync(
        "beyond_head",
        format!("the log ends at {head}, before {asked}; the server was restored or the cursor is not of this log"),
    )
}

pub(super) fn behind_horizon(horizon: Seq, asked: Seq) -> Refusal {
    Refusal::resync(
        "behind_horizon",
        format!("the log is kept behind {horizon} only, and not from {asked}; the device must load a snapshot"),
    )
}

pub(super) fn changed() -> Refusal {
    Refusal::resync("log_changed", "the log is another one than the device read; the device must bootstrap again")
}
