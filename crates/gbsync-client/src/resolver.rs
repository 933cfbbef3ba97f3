//! The app's own answer to refused groups, asked in the round of sync after the verdicts.

use crate::environment::Shared;
use crate::parked::ParkedGroup;
use gbsync_core::change::Edit;
use gbsync_core::id::RecordKey;

/// How often a resolver may answer for one group and those that stand in its place.
pub const RESOLVER_ATTEMPTS: u32 = 5;

/// Decides about refused groups without asking a person.
///
/// It is asked once about each group that was refused for its own sake, after what the server has was pulled, and outside
/// of any transaction. After [`RESOLVER_ATTEMPTS`] answers for one group and its replacements, a person is to decide.
///
/// ```
/// use gbsync_client::{ParkedGroup, Resolution, Resolver};
/// struct TryAgain;
/// impl Resolver for TryAgain {
///     fn resolve(&self, parked: &ParkedGroup) -> Resolution {
///         match parked.group.code.as_deref() {
///             Some("conflict") => Resolution::Retry,
///             _ => Resolution::Leave,
///         }
///     }
/// }
/// ```
pub trait Resolver: Shared {
    /// What to do about a refused group.
    fn resolve(&self, parked: &ParkedGroup) -> Resolution;
}

/// What a resolver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Send these edits in its place.
    Amend(Vec<(RecordKey, Edit)>),
    /// Send the same edits again, on what the server has now.
    Retry,
    /// Nobody wants it: the reason.
    Discard(String),
    /// A person is to decide.
    Leave,
}
