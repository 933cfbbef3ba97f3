//! Spans of this program, sent to a collector by OpenTelemetry's protocol, OTLP over HTTP.
//!
//! Invariant: nothing is made or sent unless a key, a flag or the standard's environment variables name a collector. One that is
//! slow or gone holds nothing up: spans wait in a bounded queue for a thread of its own, and are dropped when it is full.
//!
//! Rejected alternative: OTLP over gRPC, a second HTTP stack in the program for what every collector also takes over the first.

use crate::exit::Failure;
use crate::output::Output;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::{OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::collections::HashMap;
use std::time::Duration;

/// How long the collector may take for one request, and the last ones at the end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The variable in which whoever starts a program names the span that it belongs to.
const TRACE_PARENT: &str = "TRACEPARENT";
/// What a request is sent to below the address of a collector, as the standard says.
const EXAMPLE: &str = "write it like http://127.0.0.1:4318/v1/traces";

/// What collects the spans of this process.
pub struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// Begins to send to a collector as [`Self::of_environment`] does, with an address that beats the environment's.
    ///
    /// # Errors
    /// A failure when the address is none.
    pub fn start(endpoint: &str, per_mille: Option<u64>, service: &'static str) -> Result<Option<Self>, Failure> {
        if is_disabled() {
            return Ok(None);
        }
        Self::to("telemetry.endpoint", endpoint.to_owned(), per_mille, service).map(Some)
    }

    /// Begins to send where the standard's variables say so: of a thousand traces that nobody else began, so many, or as many as
    /// `OTEL_TRACES_SAMPLER` says. They are often set for many programs at a time, so what cannot be used is a note and no more.
    pub fn of_environment(per_mille: Option<u64>, service: &'static str, output: &Output) -> Option<Self> {
        let said = [OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT]
            .into_iter()
            .find_map(|name| variable(name).map(|text| (name, text)));
        let (name, text) = said.filter(|_| !is_disabled())?;
        let endpoint = match name {
            OTEL_EXPORTER_OTLP_ENDPOINT => format!("{}/v1/traces", text.trim_end_matches('/')),
            _ => text,
        };
        Self::to(name, endpoint, per_mille, service).inspect_err(|failure| output.note(failure)).ok()
    }

    fn to(named_by: &str, endpoint: String, per_mille: Option<u64>, service: &'static str) -> Result<Self, Failure> {
        let refused = |reason: &str| {
            Failure::new("telemetry", format!("{named_by}: nothing can be sent to {endpoint:?}: {reason}")).help(EXAMPLE)
        };
        let url = reqwest::Url::parse(&endpoint).map_err(|error| refused(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(refused("it is no http or https URL"));
        }
        // Another part of the program may have chosen a provider before; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&endpoint)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| refused(&error.to_string()))?;
        let mut provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(service));
        if let Some(per_mille) = per_mille {
            let share = Sampler::TraceIdRatioBased(per_mille.min(1_000) as f64 / 1_000.0);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(share)));
        }
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self(provider.build()))
    }

    /// What makes spans.
    pub fn tracer(&self) -> SdkTracer {
        self.0.tracer("gbsync")
    }

    /// Sends what is left. Blocks, for some seconds at most.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(PATIENCE) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Whether the standard's variables say that nothing is to be sent, whatever else says where to.
fn is_disabled() -> bool {
    variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|text| text == "none")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.trim().is_empty())
}

/// Who this is, unless the standard's variables say it.
fn resource(service: &'static str) -> Resource {
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|text| text.contains("service.name="));
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if is_named { resource.build() } else { resource.with_service_name(service).build() }
}

/// The span that a request sent now belongs to: that of this program, or the one that the environment names.
pub fn trace_parent() -> Option<String> {
    let context = Context::current();
    if !context.span().span_context().is_valid() {
        return variable(TRACE_PARENT);
    }
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut headers);
    headers.remove("traceparent")
}

/// The span that the environment names, for what belongs to none of this program's.
pub fn around() -> Context {
    let headers: HashMap<_, _> = variable(TRACE_PARENT).map(|text| ("traceparent".to_owned(), text)).into_iter().collect();
    TraceContextPropagator::new().extract_with_context(&Context::new(), &headers)
}
