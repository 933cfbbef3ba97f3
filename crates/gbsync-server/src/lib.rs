//! The server side of `gbsync`: spaces, tokens, push, verdicts and the log on an embedded SQLite file or on PostgreSQL.
//!
//! A push is parsed and checked where it arrives, decided by `gbsync_core::decide` inside one durable transaction that it
//! shares with the pushes that arrive beside it, and answered after the COMMIT. The log is stored in wire form, so that
//! serving it parses nothing.
//!
//! Invariant: nothing outside the store's transaction remembers what was decided; a failed COMMIT leaves no trace.

mod auth;
mod body;
mod commit;
mod config;
mod error;
mod feed;
mod limit;
mod live;
mod local;
mod metrics;
mod net;
#[cfg(feature = "mutants")]
mod planted;
mod retention;
mod routes;
mod rules;
mod server;
mod shown;
mod snapshot;
mod store;
mod telemetry;

pub use auth::{ActorInfo, Actors, AuthConfig, ClaimNames, CreatedToken, JwtConfig, KeySource, NewToken, TokenInfo, Tokens};
pub use config::{Environment, FaultPoint, LiveConfig, NetConfig, RetentionConfig, ServerConfig, SnapshotConfig, TlsConfig};
pub use error::ServerError;
pub use limit::{QuotaConfig, RateConfig};
pub use local::{LocalAnswer, LocalServer, LocalStream};
pub use net::peer::{ForwardedHeader, Proxies};
pub use retention::{Retained, archives_of, retain};
pub use server::{Counters, Server};
pub use store::{
    Finding, Manifest, RestoredSpace, Scanned, SpaceDigest, SpaceInBackup, StoreError, StoreLocation, backup, mark_restored,
    read_manifest, restore, scan, space_digest,
};
pub use telemetry::TELEMETRY_TARGET;
