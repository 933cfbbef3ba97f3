//! The segments of a path that name things.

use crate::error::Refusal;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use gbsync_core::id::GroupId;
use gbsync_core::wire::ProblemCode;

/// The named segments, percent-decoded. A name that cannot be decoded is the name of nothing.
pub(super) struct Segments {
    space: String,
    id: String,
    seq: String,
    part: String,
}

impl Segments {
    /// The space's name, as the path has it.
    pub(super) fn space(&self) -> &str {
        &self.space
    }

    /// The group's id.
    pub(super) fn group(&self) -> Result<GroupId, Refusal> {
        let invalid = |error: gbsync_core::id::InvalidId| {
            Refusal::new(ProblemCode::Malformed, format!("the group id in the path {}", error.problem))
        };
        GroupId::new(self.id.as_str()).map_err(invalid)
    }

    /// The number of a part.
    pub(super) fn part(&self) -> Result<u64, Refusal> {
        number("part", &self.part)
    }

    /// The place of an entry.
    pub(super) fn seq(&self) -> Result<u64, Refusal> {
        number("seq", &self.seq)
    }
}

fn number(name: &str, text: &str) -> Result<u64, Refusal> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number: &u64| is_plain && *number < (1 << 40)).ok_or_else(|| {
        Refusal::new(ProblemCode::Malformed, format!("the {name} in the path must be an integer from 0, not {text:?}"))
    })
}

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let mut segments = Self { space: String::new(), id: String::new(), seq: String::new(), part: String::new() };
        let Ok(params) = RawPathParams::from_request_parts(parts, state).await else { return Ok(segments) };
        for (name, value) in &params {
            match name {
                "space" => segments.space = value.into(),
                "id" => segments.id = value.into(),
                "seq" => segments.seq = value.into(),
                "part" => segments.part = value.into(),
                _ => {}
            }
        }
        Ok(segments)
    }
}
