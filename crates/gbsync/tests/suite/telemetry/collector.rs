//! A collector for tests: takes OTLP over HTTP as the standard's own messages, and keeps every span.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::runtime::Runtime;

/// What came, with the name of the service that sent it.
#[derive(Default)]
pub struct Collected {
    pub spans: Vec<(String, Span)>,
    /// The bodies as they came.
    pub bytes: Vec<u8>,
}

/// A running collector; gone when it is dropped.
pub struct Collector {
    /// Its address, without a path.
    pub url: String,
    collected: Arc<Mutex<Collected>>,
    _runtime: Runtime,
}

impl Collector {
    pub fn start() -> Self {
        let collected = Arc::<Mutex<Collected>>::default();
        let keep = {
            let collected = Arc::clone(&collected);
            move |body: Bytes| async move {
                let Ok(request) = ExportTraceServiceRequest::decode(body.clone()) else { return StatusCode::BAD_REQUEST };
                let mut collected = collected.lock().unwrap();
                collected.bytes.extend_from_slice(&body);
                for of_process in request.resource_spans {
                    let service = of_process.resource.as_ref().map(|resource| text(&resource.attributes, "service.name"));
                    let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
                    collected.spans.extend(spans.map(|span| (service.clone().unwrap_or_default(), span)));
                }
                StatusCode::OK
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(keep));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, collected, _runtime: runtime }
    }

    /// What came so far.
    pub fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap()
    }
}

impl Collected {
    /// The spans that a service sent under a name.
    pub fn named(&self, service: &str, name: &str) -> Vec<&Span> {
        self.spans.iter().filter(|(by, span)| by == service && span.name == name).map(|(_, span)| span).collect()
    }

    /// The one span that a service sent under a name.
    #[track_caller]
    pub fn one(&self, service: &str, name: &str) -> &Span {
        let found = self.named(service, name);
        assert_eq!(found.len(), 1, "{name} of {service} among {:?}", self.names());
        found[0]
    }

    /// Who sent what.
    pub fn names(&self) -> Vec<(&str, &str)> {
        self.spans.iter().map(|(by, span)| (by.as_str(), span.name.as_str())).collect()
    }

    /// Whether the bytes of any request hold this.
    pub fn holds(&self, part: &str) -> bool {
        self.bytes.windows(part.len()).any(|window| window == part.as_bytes())
    }
}

/// An attribute as a text; empty where there is none.
pub fn said(span: &Span, key: &str) -> String {
    text(&span.attributes, key)
}

fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|attribute| attribute.value.as_ref());
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        _ => String::new(),
    }
}
