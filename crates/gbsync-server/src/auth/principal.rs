//! Who asks: what a token proves, before anybody looks at what is asked.

use super::secret;
use crate::error::Refusal;
use crate::store::Grant;
use axum::http::{HeaderMap, header};
use gbsync_core::id::{DeviceId, Role, SpaceId};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::scope::ScopeSet;
use gbsync_core::time::Timestamp;
use gbsync_core::wire::Bearer;
use std::collections::{BTreeMap, BTreeSet};

/// Somebody whose token is valid now.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// What the token is called in logs; never the token.
    pub(crate) name: String,
    /// The spaces that the token opens, and what its bearer may do in each.
    pub(crate) spaces: BTreeMap<SpaceId, BTreeSet<Role>>,
    /// In whose names it may speak.
    pub(crate) bearer: Bearer,
    /// From when on the token is refused, in milliseconds after 1970.
    pub(crate) ends_ms: Option<u64>,
    /// The only device it may speak for.
    pub(crate) device: Option<DeviceId>,
    /// Which part of its spaces it opens.
    pub(crate) scopes: ScopeSet,
}

/// The token that a request bears, and what the store knows it by.
pub(crate) struct Presented<'h> {
    pub(crate) token: &'h str,
    pub(crate) hash: [u8; 32],
}

impl<'h> Presented<'h> {
    /// The token in a request's headers.
    pub(crate) fn of(headers: &'h HeaderMap) -> Result<Self, Refusal> {
        let bearer = || {
            let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
        };
        let missing = "a valid token is needed as `Authorization: Bearer TOKEN`; make one with `gbsync token create`";
        let token = bearer().ok_or_else(|| Refusal::unauthenticated("missing", missing))?;
        Ok(Self { token, hash: secret::hash(token) })
    }
}

/// Who bears a token of this server's own, if the store knows it.
///
/// # Errors
/// 401 for a token that is unknown, revoked or expired.
pub(crate) fn of_grant(grant: Option<Grant>, now: &Timestamp) -> Result<Principal, Refusal> {
    let unknown = "this token is not known here; make one with `gbsync token create`";
    let grant = grant.ok_or_else(|| Refusal::unauthenticated("unknown", unknown))?;
    let Grant { token_id, space, roles, bearer, device, scopes, is_revoked } = grant;
    if is_revoked && !is(Mutant::RevokedTokenServed) {
        let detail = format!("the token {token_id} was revoked; make another with `gbsync token create`");
        return Err(Refusal::unauthenticated("revoked", detail));
    }
    let end = bearer.expires_at.as_ref().filter(|_| !is(Mutant::ExpiredTokenServed));
    if let Some(ended) = end.filter(|end| end.unix_ms() <= now.unix_ms()) {
        let detail = format!("the token {token_id} expired at {ended}; make another with `gbsync token create`");
        return Err(Refusal::unauthenticated("expired", detail));
    }
    let ends_ms = end.map(|end| u64::try_from(end.unix_ms()).unwrap_or(0));
    let spaces = [(space, roles.into_iter().collect())].into();
    Ok(Principal { name: token_id, spaces, bearer, ends_ms, device, scopes })
}
