//! What to do after a request: one table for every outcome, and how long to wait (docs/protocol.md, "What a client does with each outcome").
//!
//! Invariant: only a complete answer of this protocol is an answer. Whatever a proxy, a captive portal or a broken
//! connection says keeps everything and is tried again.

use crate::wire::{Problem, ProblemCode};

/// What came back from a request, before anybody looked at the meaning of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No connection, a reset, a timeout, or a body that ended too early.
    Lost,
    /// A status 200 whose body was read as the answer that was expected.
    Answered,
    /// A status 200 whose body is something else: an HTML page, another type, a truncated text.
    NotAnAnswer,
    /// Any other status; the problem if the body was one of this protocol's.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The body, if it could be read as a problem.
        problem: Option<Problem>,
    },
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Take the answer.
    Take,
    /// Keep everything and try the same again later.
    Retry,
    /// Send less at once: the request was refused as a whole.
    SendLess,
    /// The group at this place of the request is at fault; park it.
    ParkGroup(usize),
    /// Wait until somebody signs in, or until the token allows it.
    SignIn,
    /// The group at this place of the request waits until its actor signs in; the others need not.
    SignInAs(usize),
    /// Begin a new epoch, then bootstrap again.
    NewEpoch,
    /// Bootstrap again.
    Resync,
    /// Something is wrong that waiting does not mend: stop and say so.
    Bug,
}

/// Maps an outcome to the next step.
///
/// ```
/// use gbsync_core::retry::{Outcome, Step, classify};
/// assert_eq!(classify(&Outcome::NotAnAnswer), Step::Retry);
/// assert_eq!(classify(&Outcome::Refused { status: 401, problem: None }), Step::SignIn);
/// ```
pub fn classify(outcome: &Outcome) -> Step {
    let (status, problem) = match outcome {
        Outcome::Answered => return Step::Take,
        Outcome::Lost | Outcome::NotAnAnswer => return Step::Retry,
        Outcome::Refused { status, problem } => (*status, problem.as_ref()),
    };
    match (status, problem.map(|problem| problem.code)) {
        (400, Some(ProblemCode::Malformed)) => match problem.and_then(Problem::group_index) {
            Some(index) => Step::ParkGroup(index),
            None => Step::SendLess,
        },
        (400, Some(ProblemCode::VersionUnsupported)) => Step::Bug,
        // A bare 401 asks for a token whoever says it; a bare 403 is what a captive portal or a firewall says.
        (401, _) => Step::SignIn,
        (403, Some(_)) => match problem.and_then(Problem::actor_index) {
            Some(index) => Step::SignInAs(index),
            None => Step::SignIn,
        },
        (404, Some(ProblemCode::SpaceNotFound)) => Step::SignIn,
        (409, Some(ProblemCode::EpochReused)) => Step::NewEpoch,
        (410, Some(ProblemCode::ResyncRequired)) => Step::Resync,
        (413, _) => Step::SendLess,
        (415, Some(ProblemCode::UnsupportedMedia)) => Step::Bug,
        // Without a body of this protocol it was somebody between here and the server who spoke.
        (_, None) => Step::Retry,
        (408 | 425 | 429 | 500..=599, Some(_)) => Step::Retry,
        (_, Some(_)) => Step::Bug,
    }
}

/// Exponential backoff with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first wait.
    pub first_ms: u64,
    /// The longest wait at all.
    pub most_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first_ms: 500, most_ms: 60_000 }
    }
}

impl Backoff {
    /// How long to wait after the `failures`-th failure in a row (from 1), in milliseconds.
    ///
    /// Uniform between 0 and `first_ms * 2^(failures-1)`, at most `most_ms`: full jitter, after "Exponential Backoff And
    /// Jitter" (AWS Architecture Blog, 2015). `random` is any uniform 64 bits. A server's `Retry-After` is a lower bound.
    ///
    /// ```
    /// use gbsync_core::retry::Backoff;
    /// assert_eq!(Backoff::default().wait_ms(1, u64::MAX, None), 500);
    /// assert_eq!(Backoff::default().wait_ms(40, u64::MAX, None), 60_000);
    /// assert_eq!(Backoff::default().wait_ms(1, 0, Some(3_000)), 3_000);
    /// ```
    pub fn wait_ms(&self, failures: u32, random: u64, retry_after_ms: Option<u64>) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        let longest = self.first_ms.saturating_mul(1 << doublings).min(self.most_ms);
        let wait = (u128::from(random) * (u128::from(longest) + 1)) >> 64;
        u64::try_from(wait).unwrap_or(longest).max(retry_after_ms.unwrap_or(0))
    }
}
