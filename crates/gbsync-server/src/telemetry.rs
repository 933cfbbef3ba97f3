//! What a collector is told of a request by OpenTelemetry: a span for it, and below that of a push one for each stage on the
//! way to its COMMIT and one for each group, with its `syncGroupId`.
//!
//! Invariant: spans hold ids, kinds, outcomes and durations; never a payload, a header or a token. Where nobody collects them
//! they are never made, and nothing here waits for who does.
//!
//! Rejected alternative: an exporter in this crate. Who embeds the server has one already; the standard's own interfaces,
//! `tracing` and the propagator of `opentelemetry`, are all that this needs.

use axum::http::HeaderMap;
use gbsync_core::id::{DeviceId, GroupType, SpaceId};
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::GroupResult;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use std::net::IpAddr;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of the spans that are for collectors and for no log.
pub const TELEMETRY_TARGET: &str = "gbsync_telemetry";
/// Most groups of a push that have a span of their own; a device's batch has fewer, a stranger's may fill a request.
const MOST_GROUPS: usize = 256;

/// The headers of a request, as a propagator reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// The span of a request, below that of the client if its `traceparent` names one.
pub(crate) fn request(method: &str, route: &str, asker: Option<IpAddr>, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: TELEMETRY_TARGET,
        parent: None,
        "request",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = %route,
        http.response.status_code = Empty,
        client.address = asker.map(display),
        space = Empty,
        device = Empty,
        groups = Empty
    );
    if span.is_disabled() {
        return span;
    }
    span.record("otel.name", format!("{method} {route}"));
    let extract = |propagator: &dyn opentelemetry::propagation::TextMapPropagator| {
        propagator.extract_with_context(&Context::new(), &Headers(headers))
    };
    let client = global::get_text_map_propagator(extract);
    if client.span().span_context().is_valid()
        && let Err(error) = span.set_parent(client)
    {
        tracing::debug!(%error, "the span of a client is not followed");
    }
    span
}

/// How a request was answered.
pub(crate) fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The spans of a push while it is on its way to the COMMIT.
#[derive(Debug)]
pub(crate) struct Followed {
    request: Span,
    /// Until a writer takes it.
    gathering: Span,
}

impl Followed {
    /// Follows the push of the request that is being answered here.
    pub(crate) fn push(space: &SpaceId, device: &DeviceId, groups: usize) -> Self {
        let current = Span::current();
        let is_followed = current.metadata().is_some_and(|metadata| metadata.target() == TELEMETRY_TARGET);
        let request = if is_followed { current } else { Span::none() };
        request.record("space", space.as_str()).record("device", device.as_str()).record("groups", groups);
        let gathering = stage(&request, "gather", 0);
        Self { request, gathering }
    }

    /// A writer has it.
    pub(crate) fn taken(&mut self) {
        self.gathering = Span::none();
    }

    /// A stage of the transaction that it shares with so many works; the stage lasts until the span is dropped.
    pub(crate) fn stage(&self, name: &'static str, works: usize) -> Option<Span> {
        (!self.request.is_disabled()).then(|| stage(&self.request, name, works))
    }
}

/// The request's span is handed to the writer beside the push, so it says its name as a field of the one kind of span.
fn stage(request: &Span, name: &'static str, works: usize) -> Span {
    if request.is_disabled() {
        return Span::none();
    }
    let works = Some(works).filter(|works| *works > 0);
    tracing::info_span!(target: TELEMETRY_TARGET, parent: request, "stage", otel.name = name, works)
}

/// What became of the groups of the push that is being answered here.
pub(crate) fn groups(types: &[Option<GroupType>], results: &[GroupResult]) {
    for (group_type, result) in types.iter().zip(results).take(MOST_GROUPS) {
        let (verdict, code, seq, is_duplicate) = match &result.verdict {
            Verdict::Accepted { seq, is_duplicate, .. } => ("accepted", None, Some(seq.0), Some(*is_duplicate)),
            Verdict::Rejected { rejection, is_duplicate, .. } => {
                ("rejected", Some(rejection.code.as_str()), None, Some(*is_duplicate))
            }
            Verdict::Blocked { .. } => ("blocked", None, None, None),
            _ => ("incomplete", None, None, None),
        };
        drop(tracing::info_span!(
            target: TELEMETRY_TARGET,
            "group",
            syncGroupId = %result.id,
            syncGroupType = group_type.as_ref().map(GroupType::as_str),
            verdict,
            code,
            seq,
            is_duplicate
        ));
    }
}
