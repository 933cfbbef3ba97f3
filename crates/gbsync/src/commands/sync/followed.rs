//! A transport whose requests are spans, for whoever collects those of devices.

use crate::telemetry;
use gbsync_client::{BoxFuture, Download, DownloadFrom, Method, Request, Response, Streamed, Transport, TransportError};
use gbsync_server::TELEMETRY_TARGET;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The span of a whole round.
pub fn round() -> Span {
    below_environment(tracing::info_span!(target: TELEMETRY_TARGET, "sync"))
}

/// Puts a span that is below no other of this program below the one that the environment names.
fn below_environment(span: Span) -> Span {
    if let Err(error) = span.set_parent(telemetry::around()) {
        tracing::trace!(%error, "no span is followed");
    }
    span
}

/// Carries requests with another transport, each in a span of its own.
pub struct Followed<T>(pub T);

impl<T> Followed<T> {
    fn span(request: &Request) -> Span {
        let method = match request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
        };
        let path = request.path.split('?').next().unwrap_or_default();
        let span = tracing::info_span!(
            target: TELEMETRY_TARGET,
            "send",
            otel.name = method,
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = method,
            http.response.status_code = Empty,
            url.path = path
        );
        if Span::current().is_none() { below_environment(span) } else { span }
    }
}

/// Ends the span of a request with what came of it.
async fn followed<A, F>(span: Span, answer: F, status_of: fn(&A) -> Option<u16>) -> Result<A, TransportError>
where
    F: Future<Output = Result<A, TransportError>>,
{
    let answer = answer.instrument(span.clone()).await;
    match &answer {
        Ok(answer) => drop(status_of(answer).map(|status| span.record("http.response.status_code", status))),
        Err(_) => drop(span.record("otel.status_code", "ERROR")),
    }
    answer
}

impl<T: Transport> Transport for Followed<T> {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let span = Self::span(&request);
        Box::pin(followed(span, self.0.send(request), |response| Some(response.status)))
    }

    fn open(&self, request: Request) -> BoxFuture<'_, Result<Streamed, TransportError>> {
        let span = Self::span(&request);
        Box::pin(followed(span, self.0.open(request), |streamed| Some(streamed.status)))
    }

    fn download(&self, request: Request, from: DownloadFrom) -> BoxFuture<'_, Result<Option<Download>, TransportError>> {
        let span = Self::span(&request);
        let status = |download: &Option<Download>| download.as_ref().map(|download| download.streamed.status);
        Box::pin(followed(span, self.0.download(request, from), status))
    }
}
