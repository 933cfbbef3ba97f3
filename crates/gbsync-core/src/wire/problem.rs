//! Errors of whole requests: `application/problem+json` (RFC 9457).

use super::read::{Fields, WireError, parse, push_text};
use crate::json::push_string;

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// Why a whole request was refused. The words never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ProblemCode {
            $($(#[$doc])* $variant,)*
        }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The title that goes with it.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// The code with this word.
            pub fn from_wire(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == word)
            }
        }
    };
}

problem_codes! {
    /// The request cannot be read.
    Malformed = "malformed", 400, "The request is malformed";
    /// Another version of the protocol is needed.
    VersionUnsupported = "version_unsupported", 400, "This version of the protocol is not supported";
    /// No token, or none that is valid.
    Unauthenticated = "unauthenticated", 401, "A valid token is needed";
    /// The token does not allow this.
    Forbidden = "forbidden", 403, "The token does not allow this";
    /// No such space, or none that the token may know of.
    SpaceNotFound = "space_not_found", 404, "There is no such space";
    /// No such route.
    NotFound = "not_found", 404, "There is nothing here";
    /// The route does not know the method.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here";
    /// The body came too slowly.
    TimedOut = "timed_out", 408, "The request took too long to arrive";
    /// A number of this epoch is known under another id.
    EpochReused = "epoch_reused", 409, "The epoch's numbers are already used by other groups";
    /// Somebody closed the rejection before.
    AlreadyClosed = "already_closed", 409, "The rejection is already closed";
    /// The device must bootstrap again.
    ResyncRequired = "resync_required", 410, "The device must bootstrap again";
    /// Too many bytes.
    TooLarge = "too_large", 413, "The request is too large";
    /// Neither JSON nor an encoding that is known.
    UnsupportedMedia = "unsupported_media", 415, "The content type or encoding is not supported";
    /// Too many requests.
    RateLimited = "rate_limited", 429, "Too many requests";
    /// The space holds as much as it may.
    QuotaExceeded = "quota_exceeded", 507, "The space is full";
    /// The server cannot answer now.
    Unavailable = "unavailable", 503, "The server cannot answer now";
}

/// The body of a refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code.
    pub code: ProblemCode,
    /// A sentence for people: what to do.
    pub detail: String,
    /// RFC 6901 pointer to the input at fault.
    pub pointer: Option<String>,
    /// Of `resync_required`: `behind_horizon`, `log_changed`, `beyond_head` or `scope_changed`. Of `unauthenticated`: what is
    /// wrong with the token, such as `expired`.
    pub reason: Option<String>,
    /// Of `too_large`: the limit in bytes.
    pub limit: Option<u64>,
}

impl Problem {
    /// A problem with a code and a sentence.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), pointer: None, reason: None, limit: None }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`WireError`] when it is none of this protocol's: a proxy's page, for instance.
    pub fn parse(text: &[u8]) -> Result<Self, WireError> {
        let (node, _) = parse(text, 16)?;
        let fields = Fields::of(&node)?;
        let code = fields.text("code")?;
        Ok(Self {
            code: ProblemCode::from_wire(code)
                .ok_or_else(|| WireError::new(format!("{code:?} is no code")).within("code"))?,
            detail: fields.optional_text("detail")?.unwrap_or_default().into(),
            pointer: fields.optional_text("pointer")?.map(Into::into),
            reason: fields.optional_text("reason")?.map(Into::into),
            limit: fields.optional_count("limit")?,
        })
    }

    /// The body in wire form.
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"type\":");
        push_string(&mut out, &format!("urn:gbsync:problem:{}", self.code.as_str()));
        push_text(&mut out, "title", self.code.title());
        out.push_str(&format!(",\"status\":{}", self.code.status()));
        push_text(&mut out, "code", self.code.as_str());
        push_text(&mut out, "detail", &self.detail);
        for (name, text) in [("pointer", &self.pointer), ("reason", &self.reason)] {
            if let Some(text) = text {
                push_text(&mut out, name, text);
            }
        }
        if let Some(limit) = self.limit {
            out.push_str(&format!(",\"limit\":{limit}"));
        }
        out.push('}');
        out
    }

    /// The place of the group at fault in the request, if the pointer is under `/groups/i`.
    pub fn group_index(&self) -> Option<usize> {
        let step = self.pointer.as_deref()?.strip_prefix("/groups/")?.split('/').next()?;
        // RFC 6901 writes an index without a sign and without leading zeros.
        step.parse().ok().filter(|index: &usize| index.to_string() == step)
    }

    /// The place of the group whose actor is at fault, if the pointer is `/groups/i/actor`.
    pub fn actor_index(&self) -> Option<usize> {
        self.group_index().filter(|index| self.pointer.as_deref() == Some(&format!("/groups/{index}/actor")))
    }
}
