//! Connections: accepted up to a bound, served, and ended when their peer is gone, too slow, or the server stops.
//!
//! Invariant: no peer holds anything for longer than a bound by doing nothing: neither by sending no request, nor by taking no
//! answer.

mod beginning;
mod patient;
pub(crate) mod peer;
pub(crate) mod tls;

use crate::config::NetConfig;
use axum::Router;
use axum::http::Request;
use beginning::Beginning;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use patient::Patient;
use peer::Peer;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tls::Tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;

/// How long to wait when the system has no more connections to give.
const EXHAUSTED_REST: Duration = Duration::from_millis(200);
/// How often a silent HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(30);

/// Serves until the server stops, then until every connection has ended. Dropping the future ends them all.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    config: NetConfig,
    tls: Option<Arc<Tls>>,
    mut drain: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(config.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let builders = Arc::new(Builders::new(&config));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = drain.wait_for(|is_draining| *is_draining) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = accepted;
        let connection = Connection { peer, place, router: router.clone(), builders: Arc::clone(&builders), config };
        let drain = drain.clone();
        match &tls {
            Some(tls) => drop(connections.spawn(encrypted(stream, tls.in_use(), connection, drain))),
            None => drop(connections.spawn(connection.serve(stream, drain))),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// How each version of HTTP is spoken.
struct Builders {
    http1: Builder<TokioExecutor>,
    http2: Builder<TokioExecutor>,
}

impl Builders {
    fn new(config: &NetConfig) -> Self {
        let mut http1 = Builder::new(TokioExecutor::new()).http1_only();
        http1.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(config.header_timeout_ms));
        let mut http2 = Builder::new(TokioExecutor::new()).http2_only();
        http2.http2().timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
        Self { http1, http2 }
    }
}

/// The next connection, when there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, IpAddr, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the places are never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and awaited: they must not wait for a second packet.
                let _ = stream.set_nodelay(true);
                return (stream, peer.ip(), place);
            }
            Err(error) => match error.kind() {
                // The peer gave up before it was accepted.
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {}
                _ => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(EXHAUSTED_REST).await;
                }
            },
        }
    }
}

/// What serves one connection.
struct Connection {
    peer: IpAddr,
    place: OwnedSemaphorePermit,
    router: Router,
    builders: Arc<Builders>,
    config: NetConfig,
}

/// The service, told of each request who opened the connection.
#[derive(Clone)]
struct Introduced {
    router: Router,
    peer: Peer,
}

impl<B> Service<Request<B>> for Introduced
where
    Router: Service<Request<B>>,
{
    type Response = <Router as Service<Request<B>>>::Response;
    type Error = <Router as Service<Request<B>>>::Error;
    type Future = <Router as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.router.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.router.call(request)
    }
}

/// Serves what is encrypted, once the peer has agreed how.
async fn encrypted(
    stream: TcpStream,
    config: Arc<rustls::ServerConfig>,
    connection: Connection,
    mut drain: watch::Receiver<bool>,
) {
    let patience = Duration::from_millis(connection.config.header_timeout_ms);
    let agreed = tokio::select! {
        biased;
        _ = drain.wait_for(|is_draining| *is_draining) => return,
        agreed = tokio::time::timeout(patience, TlsAcceptor::from(config).accept(stream)) => agreed,
    };
    match agreed {
        Ok(Ok(stream)) => connection.serve(stream, drain).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = %connection.peer, "a connection could not be encrypted"),
        Err(_) => tracing::debug!(peer = %connection.peer, "a connection was not encrypted in time"),
    }
}

impl Connection {
    async fn serve<S>(self, mut stream: S, mut drain: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, place, router, builders, config } = self;
        let beginning = tokio::select! {
            biased;
            // Nobody asked for anything yet.
            _ = drain.wait_for(|is_draining| *is_draining) => return,
            beginning = Beginning::read(&mut stream, Duration::from_millis(config.header_timeout_ms)) => beginning,
        };
        let beginning = match beginning {
            Ok(beginning) => beginning,
            Err(error) => {
                tracing::debug!(%error, %peer, "a connection asked for nothing");
                return;
            }
        };
        let builder = if beginning.is_http2() { &builders.http2 } else { &builders.http1 };
        let io = TokioIo::new(Patient::new(stream, beginning, Duration::from_millis(config.stall_timeout_ms)));
        let service = Introduced { router, peer: Peer(peer) };
        let mut serving = std::pin::pin!(builder.serve_connection(io, TowerToHyperService::new(service)));
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            _ = drain.wait_for(|is_draining| *is_draining) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "a connection broke off");
        }
        drop(place);
    }
}
