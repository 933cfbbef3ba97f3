//! One request and the look at what came back: an answer, or why it is none.

use crate::transport::{Method, Request, Response, Transport};
use gbsync_core::retry::{Outcome, Step, classify};
use gbsync_core::wire::{Problem, WireError};

/// The longest wait that a `Retry-After` may ask for: whatever a proxy says, the queue is looked at every hour.
const LONGEST_RETRY_AFTER_MS: u64 = 60 * 60 * 1000;

/// What came back, classified.
pub(super) struct Exchanged<T> {
    pub(super) step: Step,
    /// The answer when the step is to take it.
    pub(super) answer: Option<T>,
    /// A stable code and a sentence for every other step.
    pub(super) code: String,
    pub(super) reason: String,
    /// Whether the server pointed at a place in the body.
    pub(super) is_pointed: bool,
    pub(super) retry_after_ms: Option<u64>,
}

impl<T> Exchanged<T> {
    /// Whether somebody on the way said that the request is too large.
    pub(super) fn is_too_large(&self) -> bool {
        is_too_large(&self.code)
    }
}

/// Whether a refusal with this code says that the request is too large.
pub(super) fn is_too_large(code: &str) -> bool {
    matches!(code, "too_large" | "status_413")
}

/// Sends a request and reads the answer with `read`. A status 200 is an answer only if its type is JSON and `read` takes it.
pub(super) async fn exchange<T>(
    transport: &dyn Transport,
    method: Method,
    path: String,
    body: Option<Vec<u8>>,
    timeout_ms: u64,
    read: impl FnOnce(&[u8]) -> Result<T, WireError>,
) -> Exchanged<T> {
    let sent = transport.send(Request { method, path, body, timeout_ms, token: None }).await;
    let (outcome, answer, code, reason, retry_after_ms) = match sent {
        Err(error) => (Outcome::Lost, None, "lost".to_owned(), error.message, None),
        Ok(response) if response.status == 200 => match read_answer(&response, read) {
            Ok(answer) => (Outcome::Answered, Some(answer), String::new(), String::new(), None),
            Err(reason) => (Outcome::NotAnAnswer, None, "not_an_answer".into(), reason, None),
        },
        Ok(response) => {
            let status = response.status;
            let problem = Problem::parse(&response.body).ok();
            let (code, reason) = match &problem {
                Some(problem) => (problem.code.as_str().to_owned(), problem.detail.clone()),
                None => (format!("status_{status}"), format!("status {status} without an answer of the protocol")),
            };
            (Outcome::Refused { status, problem }, None, code, reason, response.retry_after_ms)
        }
    };
    let is_pointed = match &outcome {
        Outcome::Refused { problem: Some(problem), .. } => problem.pointer.is_some(),
        _ => false,
    };
    let step = classify(&outcome);
    let retry_after_ms = retry_after_ms.map(|wait_ms| wait_ms.min(LONGEST_RETRY_AFTER_MS));
    Exchanged { step, answer, code, reason, is_pointed, retry_after_ms }
}

fn read_answer<T>(response: &Response, read: impl FnOnce(&[u8]) -> Result<T, WireError>) -> Result<T, String> {
    let content_type = response.content_type.as_deref().unwrap_or("no type");
    if !content_type.trim_start().to_ascii_lowercase().starts_with("application/json") {
        return Err(format!(
            "status 200 with {content_type} instead of application/json: is a proxy or a login page between?"
        ));
    }
    read(&response.body).map_err(|error| format!("status 200 with a body that is no answer: {error}"))
}
