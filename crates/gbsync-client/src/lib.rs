//! The device side of `gbsync`: operations, the outbox, push and pull, and the local view, on one SQLite file.
//!
//! A business operation is written into an operation context and sealed: local data and group become durable in one
//! transaction. From then on the group travels whole, is accepted or refused whole, and is shown whole. See [`Client`].
//!
//! The crate decides nothing that `gbsync-core` decides: it stores, sends, fetches and lays.

mod apply;
mod capture;
mod cascade;
mod client;
mod closing;
mod environment;
mod epoch;
mod error;
mod life;
mod lock;
mod operation;
mod parked;
#[cfg(feature = "mutants")]
mod planted;
mod pull;
mod push;
mod relay;
mod requeue;
mod resolver;
mod rules;
mod schemas;
mod sequences;
mod session;
mod settle;
mod status;
mod store;
mod sync;
mod tables;
mod transport;
mod view;
mod watch;

pub use apply::{Applied, LineResult};
pub use client::{Client, Config, Remote};
pub use environment::{BoxFuture, Clock, Environment, Random, Shared, Timer};
pub use error::Error;
pub use operation::{IntoPayload, Json, Operation, Sealed, Written, operation_scope, operation_scope_sync};
pub use parked::{ParkedChange, ParkedGroup};
pub use resolver::{RESOLVER_ATTEMPTS, Resolution, Resolver};
pub use session::{FixedToken, NoToken, TokenProvider};
pub use status::{ClientDigest, GroupFilter, GroupInfo, GroupState, Status, WaitsFor};
pub use store::Durability;
pub use store::state::LastError;
pub use sync::{Following, OnTransfer, SentBatch, SentGroup, SyncError, SyncObserver, SyncOptions, SyncReport, Transfer};
#[cfg(feature = "native")]
pub use transport::HttpTransport;
pub use transport::{Download, DownloadFrom, Method, Pieces, Request, Response, Streamed, Token, Transport, TransportError};
pub use watch::{Watch, WatchedRow};
