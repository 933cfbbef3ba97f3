//! What somebody is told of what a store holds, by the scopes that are stored beside it. One place for both stores.
//!
//! Invariant: whoever sees everything is told what is stored, byte for byte, and nothing is looked into.

use super::{DecidedAs, StoreError};
use gbsync_core::id::Seq;
use gbsync_core::scope::{Reach, ScopeSet, Sight, Trace, Unreadable};
use gbsync_core::verdict::Verdict;

/// The scopes in a column; NULL stands for everything.
pub(super) fn scope_set(text: Option<&str>) -> Result<ScopeSet, StoreError> {
    ScopeSet::parse(text).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// Where a record is seen, from its column; NULL stands for everywhere.
pub(super) fn reach(text: Option<&str>) -> Result<Reach, StoreError> {
    Reach::parse(text).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// What is told of a group to somebody who knows its id.
///
/// `trace`: of an accepted one, what its entry is stored with; `None` where the log holds it no more. `author`: of a rejected
/// one, the scopes of its author. Of a group that somebody sees nothing of, nothing is known.
pub(super) fn verdict(
    decided: DecidedAs,
    trace: Option<Option<&str>>,
    author: Option<&str>,
    scopes: &ScopeSet,
) -> Result<Verdict, StoreError> {
    match decided {
        DecidedAs::Accepted { seq, mut flags } => {
            let trace = trace.flatten().map(Trace::parse).transpose();
            let trace = trace.map_err(|error| StoreError::Damaged(error.to_string()))?;
            if trace.as_ref().is_some_and(|trace| !trace.is_told(scopes)) {
                return Ok(Verdict::Unknown);
            }
            if trace.is_some_and(|trace| !trace.is_whole(scopes)) {
                flags.clear();
            }
            Ok(Verdict::Accepted { seq, is_duplicate: true, flags })
        }
        DecidedAs::Rejected(rejection) if scopes.covers(&scope_set(author)?) => {
            Ok(Verdict::Rejected { rejection: rejection.told_to(scopes), is_duplicate: true })
        }
        DecidedAs::Rejected(_) => Ok(Verdict::Unknown),
    }
}

/// A part of a log entry as it is told; `None` where nothing of the entry is.
pub(super) fn log_part(
    sight: &Sight,
    seq: Seq,
    body: &str,
    skipped: impl FnOnce() -> Result<u64, StoreError>,
    trace: Option<&str>,
) -> Result<Option<String>, StoreError> {
    match sight.of_entry(trace).map_err(damaged)? {
        Some(true) => Ok(Some(body.to_owned())),
        Some(false) => Ok(None),
        None => Ok(Some(sight.part(&seq.to_string(), body, skipped()?, trace).map_err(damaged)?)),
    }
}

/// How many changes of an entry in parts are told, where nothing is stored beside it that says so.
pub(super) fn told_in_parts<B: AsRef<str>>(sight: &Sight, bodies: impl IntoIterator<Item = B>) -> Result<u64, StoreError> {
    bodies.into_iter().map(|body| sight.told_of_untraced(body.as_ref()).map_err(damaged)).sum()
}

pub(super) fn damaged(error: Unreadable) -> StoreError {
    StoreError::Damaged(error.to_string())
}
