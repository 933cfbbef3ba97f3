//! One file a route: parse, ask, answer. No SQL and no policy here.

mod discard;
mod flags;
mod handshake;
mod health;
mod live;
mod log;
pub(crate) mod metrics;
mod openapi;
mod parameters;
mod parts;
mod path;
mod push;
mod rejections;
mod resolve;
mod schema;
mod snapshot;
mod verdicts;

use crate::auth::{self, Action, Admission, JwtGate, Presented};
use crate::commit::{Committer, NotCommitted, Shared};
use crate::config::{Environment, LiveConfig};
use crate::error::Refusal;
use crate::feed::Feed;
use crate::limit::{Limiter, QuotaConfig, RateConfig};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::net::peer::{Asker, Peer, Proxies};
use crate::rules::{InForce, Rules};
use crate::snapshot::Snapshots;
use crate::store::{Grant, Store, StoreError};
use crate::telemetry;
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post, put};
use gbsync_core::limits::Limits;
use gbsync_core::scope::{ScopeSet, Sight};
use gbsync_core::wire::ProblemCode;
use parameters::Parameters;
use path::Segments;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Semaphore, watch};
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::trace::TraceLayer;
use tracing::Instrument;

pub(crate) use log::no_page;

/// Reads of the store at a time; each holds a connection.
const READS: usize = 8;
/// Bytes from which compressing an answer pays.
const COMPRESSED_BYTES: u64 = 1_024;

/// What every route works with.
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) live: Live,
    pub(crate) snapshots: Snapshots,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Limits,
    pub(crate) environment: Environment,
    /// Takes the tokens of another party.
    pub(crate) jwt: Option<JwtGate>,
    pub(crate) proxies: Proxies,
    pub(crate) limiter: Limiter,
    pub(crate) reads: Arc<Semaphore>,
    /// KiB of pushes that are being received.
    pub(crate) received_kib: Arc<Semaphore>,
    /// KiB of pushes that were compressed and are being decided.
    pub(crate) inflated_kib: Arc<Semaphore>,
    /// Whether the server is about to stop, and nobody new should be sent to it.
    pub(crate) is_leaving: AtomicBool,
    /// Becomes true when the server stops.
    pub(crate) is_draining: watch::Receiver<bool>,
    pub(crate) requests: AtomicU64,
}

/// Whom a server lets in, and how often.
pub(crate) struct Gates {
    pub(crate) jwt: Option<JwtGate>,
    pub(crate) proxies: Proxies,
    pub(crate) rates: RateConfig,
    pub(crate) quotas: QuotaConfig,
}

impl App {
    pub(crate) fn new(
        shared: Shared,
        committer: Arc<Committer>,
        live: LiveConfig,
        snapshots: Snapshots,
        gates: Gates,
        is_draining: watch::Receiver<bool>,
    ) -> Self {
        let Shared { store, feed, metrics, rules, limits, environment, .. } = shared;
        let Gates { jwt, proxies, rates, quotas } = gates;
        let limiter = Limiter::new(rates, quotas, limits.request_bytes, Arc::clone(&metrics), environment.clone());
        let reads = Arc::new(Semaphore::new(READS));
        let memory_kib = || Arc::new(Semaphore::new(push::memory_kib(&limits)));
        let (received_kib, inflated_kib) = (memory_kib(), memory_kib());
        Self {
            store,
            committer,
            feed,
            live: Live::new(live),
            snapshots,
            metrics,
            rules,
            limits,
            environment,
            jwt,
            proxies,
            limiter,
            reads,
            received_kib,
            inflated_kib,
            is_leaving: AtomicBool::new(false),
            is_draining,
            requests: AtomicU64::new(0),
        }
    }

    /// Asks the store off the runtime's threads, few at a time.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| Refusal::unavailable())?;
        let store = Arc::clone(&self.store);
        let reading = tokio::task::spawn_blocking(move || {
            let answer = read(store.as_ref());
            drop(permit);
            answer
        });
        reading.await.map_err(|_| Refusal::unavailable())?.map_err(Refusal::from)
    }

    /// What a token opens, by its hash.
    pub(crate) async fn grant(&self, token_hash: [u8; 32]) -> Result<Option<Grant>, Refusal> {
        let _permit = match self.store.is_shared() {
            true => Some(self.reads.acquire().await.map_err(|_| Refusal::unavailable())?),
            false => None,
        };
        Ok(self.store.grant(token_hash).await?)
    }

    /// The schema in force; where other processes may have put another in force, after a look at the store.
    pub(crate) async fn rules_in_force(&self) -> Result<Option<Arc<InForce>>, Refusal> {
        if self.store.is_shared() {
            let rules = Arc::clone(&self.rules);
            self.read(move |store| rules.reload(store)).await?;
        }
        Ok(self.rules.current())
    }

    /// Through whose eyes a bearer sees a space, and what names that part of it.
    pub(crate) async fn sight(&self, scopes: &ScopeSet) -> Result<(Arc<Sight>, String), Refusal> {
        // Who sees everything does so under any schema.
        if *scopes == ScopeSet::All {
            return Ok((Arc::default(), scopes.name(None)));
        }
        let rules = self.rules_in_force().await?;
        let schema = rules.as_ref().map(|rules| &rules.schema);
        Ok((Arc::new(Sight::new(scopes.clone(), schema)), scopes.name(schema)))
    }

    /// The same for a device that says which part it has: 410 where that is another one.
    async fn same_sight(&self, scopes: &ScopeSet, parameters: &Parameters) -> Result<(Arc<Sight>, String), Refusal> {
        let (sight, name) = self.sight(scopes).await?;
        match parameters.text("scopeSet")?.is_some_and(|known| known != name) {
            true => Err(Refusal::resync(
                "scope_changed",
                "the device may see another part of the space now; it must bootstrap again",
            )),
            false => Ok((sight, name)),
        }
    }

    /// Whether a request may do something in a space.
    pub(crate) async fn authorize(&self, headers: &HeaderMap, action: Action, space: &str) -> Result<Admission, Refusal> {
        let presented = Presented::of(headers)?;
        let hash = presented.hash;
        let principal = match self.jwt.as_ref().filter(|_| JwtGate::is_for(presented.token)) {
            Some(jwt) => jwt.principal(presented.token, &self.store).await?,
            None => auth::of_grant(self.grant(hash).await?, &self.environment.now())?,
        };
        auth::authorize(principal, action, space)
    }
}

/// Whom a route answers.
#[derive(Clone, Copy)]
enum Access {
    /// Everybody: it tells nothing of any space.
    Open,
    /// Those who may do this in the space of the path.
    To(Action),
}

/// A route: its method, its path, whom it answers and what answers there.
type Route = (&'static str, &'static str, Access, MethodRouter<Arc<App>>);

/// Every route. The OpenAPI document names each of them.
fn routes() -> Vec<Route> {
    use Access::{Open, To};
    vec![
        ("get", "/healthz", Open, get(health::is_alive)),
        ("get", "/readyz", Open, get(health::is_ready)),
        ("get", "/v1/openapi.json", Open, get(openapi::document)),
        ("get", "/v1/spaces/{space}", To(Action::ShakeHands), get(handshake::handshake)),
        ("get", "/v1/spaces/{space}/schema", To(Action::ReadSchema), get(schema::schema)),
        ("post", "/v1/spaces/{space}/push", To(Action::Push), post(push::push)),
        ("post", "/v1/spaces/{space}/verdicts", To(Action::AskVerdicts), post(verdicts::verdicts)),
        ("post", "/v1/spaces/{space}/groups/{id}/discard", To(Action::Discard), post(discard::discard)),
        ("put", "/v1/spaces/{space}/groups/{id}/parts/{part}", To(Action::StagePart), put(parts::stage)),
        ("get", "/v1/spaces/{space}/log", To(Action::ReadLog), get(log::log)),
        ("get", "/v1/spaces/{space}/snapshot", To(Action::ReadLog), get(snapshot::snapshot)),
        ("get", "/v1/spaces/{space}/live", To(Action::ReadLog), get(live::live)),
        ("get", "/v1/spaces/{space}/log/{seq}/parts/{part}", To(Action::ReadLog), get(parts::of_log)),
        ("get", "/v1/spaces/{space}/flags", To(Action::ReadFlags), get(flags::flags)),
        ("get", "/v1/spaces/{space}/rejections", To(Action::ReadRejections), get(rejections::list)),
        ("get", "/v1/spaces/{space}/rejections/{id}", To(Action::ReadRejections), get(rejections::one)),
        ("post", "/v1/spaces/{space}/rejections/{id}/amend", To(Action::Resolve), post(resolve::amend)),
        ("post", "/v1/spaces/{space}/rejections/{id}/discard", To(Action::Resolve), post(resolve::discard)),
        ("post", "/v1/spaces/{space}/rejections/{id}/compensate", To(Action::Resolve), post(resolve::compensate)),
    ]
}

/// The service.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for (_, path, access, answers) in routes() {
        let answers = match access {
            Access::Open => answers,
            Access::To(action) => answers.route_layer(from_fn_with_state((Arc::clone(&app), action), admit)),
        };
        router = router.route(path, answers);
    }
    // A stream that is compressed waits for more before it goes on, and a range of a snapshot counts the bytes it has.
    let is_no_snapshot = NotForContentType::const_new(snapshot::CONTENT_TYPE);
    let predicate = SizeAbove::new(COMPRESSED_BYTES).and(NotForContentType::SSE).and(is_no_snapshot);
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(predicate);
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&app), count_requests))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(compression)
        .layer(TraceLayer::new_for_http())
        .with_state(app)
}

/// An answer of this protocol.
fn json(body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl From<NotCommitted> for Refusal {
    fn from(_: NotCommitted) -> Self {
        Self::unavailable()
    }
}

async fn count_requests(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response<Body> {
    let peer = request.extensions().get::<Peer>().copied();
    let asker = peer.map(|Peer(peer)| app.proxies.asker(peer, request.headers()));
    if let Some(asker) = asker {
        request.extensions_mut().insert(Asker(asker));
    }
    app.requests.fetch_add(1, Ordering::Relaxed);
    // What is at no route has no name of its own: anybody may ask for anything.
    let route = request.extensions().get::<MatchedPath>().map_or("other".into(), |path| path.as_str().to_owned());
    let method = match *request.method() {
        Method::GET | Method::POST | Method::PUT => request.method().as_str().to_owned(),
        _ => "other".to_owned(),
    };
    let span = telemetry::request(&method, &route, asker, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    telemetry::answered(&span, status);
    span.in_scope(|| tracing::debug!(client = asker.map(tracing::field::display), %method, %route, status, "answered"));
    app.metrics.answered(&route, &method, status);
    response
}

/// Lets a request in, with what it may do, or answers why not: before the route sees anything of it.
async fn admit(
    State((app, action)): State<(Arc<App>, Action)>,
    path: Segments,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let asker = request.extensions().get::<Asker>().copied();
    if let Err(refusal) = asker.map_or(Ok(()), |Asker(address)| app.limiter.address(address)) {
        return refusal.into_response();
    }
    let admitted = app.authorize(request.headers(), action, path.space()).await;
    match admitted.and_then(|admission| app.limiter.request(&admission).map(|()| admission)) {
        Ok(admission) => {
            request.extensions_mut().insert(admission);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn nothing_here() -> Refusal {
    Refusal::new(ProblemCode::NotFound, "there is nothing at this path; GET /v1/openapi.json lists what there is")
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(
        ProblemCode::MethodNotAllowed,
        "this path does not know the method; GET /v1/openapi.json lists what there is",
    )
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!("a handler panicked");
    Refusal::unavailable().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_names_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(openapi::DOCUMENT).expect("the document is JSON");
        let paths = document["paths"].as_object().expect("the document has paths");
        let mut documented: Vec<String> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("a path item").keys();
                methods.filter(|method| *method != "parameters").map(move |method| format!("{method} {path}"))
            })
            .collect();
        let mut served: Vec<String> = routes().iter().map(|(method, path, ..)| format!("{method} {path}")).collect();
        documented.sort();
        served.sort();
        assert_eq!(documented, served);
    }

    #[test]
    fn the_openapi_document_names_every_code_of_problems_and_rejections() {
        let document: serde_json::Value = serde_json::from_str(openapi::DOCUMENT).expect("the document is JSON");
        let listed = |schema: &str| -> Vec<String> {
            let codes = document["components"]["schemas"][schema]["enum"].as_array().expect("an enum");
            codes.iter().map(|code| code.as_str().expect("a word").to_owned()).collect()
        };
        let problems: Vec<&str> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(listed("ProblemCode"), problems);
        let rejections: Vec<&str> = gbsync_core::verdict::RejectionCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(listed("RejectionCode"), rejections);
        let changes: Vec<&str> = gbsync_core::verdict::ChangeCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(listed("ChangeCode"), changes);
    }
}
