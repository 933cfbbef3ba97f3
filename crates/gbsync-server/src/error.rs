//! The one table of errors: what a caller of this crate gets, and what becomes of an error on the wire.
//!
//! Invariant: a refusal is `application/problem+json` with a stable code, and nothing internal reaches its text.

use crate::store::StoreError;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use gbsync_core::wire::{Problem, ProblemCode, WireError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// After how many seconds a device looks whether a full space has room again.
const FULL_RETRY_S: u32 = 60;

/// Why a server cannot start or stop, or why a data folder cannot be administered. Each one is a sentence that says what
/// to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The folder cannot be made or written.
    #[error("the data folder {} cannot be used: {source}; choose a folder that this user may write", path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another server runs on the folder.
    #[error("another gbsync server is running on {}; stop it first or choose another folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The address is taken.
    #[error("{address} is already in use; stop what listens there or choose another address with --listen")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder has no store.
    #[error("there is no gbsync store in {}; start a server or create a token there first", path.display())]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// The store has no such space.
    #[error("there is no space {space:?} in this store; `token list` shows the spaces there are")]
    NoSpace {
        /// The space.
        space: String,
    },
    /// The keys of signed tokens cannot be used.
    #[error("the keys in {place} cannot be used: {reason}; give a JSON Web Key Set (RFC 7517)")]
    Keys {
        /// The file or URL.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The certificate or its key cannot be used.
    #[error("{} cannot be used for TLS: {problem}", path.display())]
    Certificate {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A prefix that several tokens share.
    #[error("the id {prefix:?} begins {count} tokens; give more of it")]
    AmbiguousToken {
        /// What was given.
        prefix: String,
        /// How many begin with it.
        count: usize,
    },
    /// A backup cannot be made, or cannot be restored.
    #[error("{}: {reason}", path.display())]
    Backup {
        /// What is in the way.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither was a schema given nor does the store keep one.
    #[error("this store keeps no schema; give one with --schema FILE")]
    NoSchema,
    /// A schema that comes before the one in force.
    #[error("the schema has version {given}, but version {kept} is in force; give the newest one, or count its version up")]
    SchemaOlder {
        /// The version of the one given.
        given: u64,
        /// The version in force.
        kept: u64,
    },
    /// Another schema under the version in force.
    #[error("the schema has changed since version {version} was put in force; count its version up to {}", version + 1)]
    SchemaChanged {
        /// The version of both.
        version: u64,
    },
    /// Entries are to leave logs, and it is not said where archives are to be.
    #[error("entries are to leave the logs of a database, and no folder is named for their archives; name one")]
    NoArchive,
    /// The folder of snapshots cannot be used.
    #[error("the folder of snapshots {} cannot be used: {source}; choose one that this user may write", path.display())]
    SnapshotFolder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store cannot be opened, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server broke off; what it acknowledged is stored.
    #[error("the server broke off: {0}; what it acknowledged is stored, start it again")]
    Broken(String),
}

/// An answer other than the one asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    retry_after_s: Option<u32>,
}

impl Refusal {
    /// The same, pointing at the value at fault.
    pub(crate) fn pointing_at(mut self, pointer: String) -> Self {
        self.problem.pointer = Some(pointer);
        self
    }

    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let retry_after_s = matches!(code, ProblemCode::Unavailable | ProblemCode::RateLimited).then_some(1);
        Self { problem: Problem::new(code, detail), retry_after_s }
    }

    /// No token, or none that is valid; `reason` is a word that never changes.
    pub(crate) fn unauthenticated(reason: &str, detail: impl Into<String>) -> Self {
        let mut refusal = Self::new(ProblemCode::Unauthenticated, detail);
        refusal.problem.reason = Some(reason.into());
        refusal
    }

    /// A log that turned out to be rolled back has begun anew only just now.
    pub(crate) fn log_too_soon() -> Self {
        Self::new(ProblemCode::RateLimited, "the log has begun anew less than a minute ago; try again later")
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(ProblemCode::Unavailable, "the server cannot answer now; nothing of this request took effect, try again")
    }

    /// Too much was asked; `limit` is a word that never changes.
    pub(crate) fn limited(limit: &str, detail: &str, wait: Duration) -> Self {
        let mut refusal = Self::new(ProblemCode::RateLimited, detail);
        refusal.problem.reason = Some(limit.into());
        refusal.after(wait)
    }

    /// The space is full: somebody must do something, so devices come back seldom.
    pub(crate) fn full(detail: String) -> Self {
        Self { retry_after_s: Some(FULL_RETRY_S), ..Self::new(ProblemCode::QuotaExceeded, detail) }
    }

    /// A device has pushed what it may for now: time mends it, or somebody.
    pub(crate) fn used_up(quota: &str, detail: String, wait: Duration) -> Self {
        let mut refusal = Self::new(ProblemCode::QuotaExceeded, detail);
        refusal.problem.reason = Some(quota.into());
        // Devices look in between: somebody may have raised the quota.
        refusal.after(wait.min(Duration::from_secs(FULL_RETRY_S.into())))
    }

    fn after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after_s = Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1));
        self
    }

    pub(crate) fn no_space() -> Self {
        Self::new(ProblemCode::SpaceNotFound, "there is no such space for this token; check the name of the space")
    }

    pub(crate) fn upload_too_large(limit: u64) -> Self {
        let detail = format!("the parts of this group have more than {limit} bytes, the limit of a group");
        let mut refusal = Self::new(ProblemCode::TooLarge, detail);
        refusal.problem.limit = Some(limit);
        refusal
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let mut refusal = Self::new(
            ProblemCode::TooLarge,
            format!("the body is over the limit of {limit} bytes; send fewer groups in one request"),
        );
        refusal.problem.limit = Some(limit);
        refusal
    }

    pub(crate) fn resync(reason: &str, detail: impl Into<String>) -> Self {
        let mut refusal = Self::new(ProblemCode::ResyncRequired, detail);
        refusal.problem.reason = Some(reason.into());
        refusal
    }

    pub(crate) fn parameter(name: &str, problem: &str) -> Self {
        Self::new(ProblemCode::Malformed, format!("the parameter {name} {problem}"))
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        let mut refusal = Self::new(ProblemCode::Malformed, error.message);
        refusal.problem.pointer = Some(error.pointer).filter(|pointer| !pointer.is_empty());
        refusal
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store cannot answer");
        Self::unavailable()
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        tracing::error!(%error, "a file cannot be used");
        Self::unavailable()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(self.problem.to_json()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.problem.code == ProblemCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
