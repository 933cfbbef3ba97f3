//! Tokens that another party signed: JSON Web Tokens (RFC 7519), with the keys that this server trusts.
//!
//! Invariant: the algorithm is the key's and never the token's choice, and nothing of a token is believed before its signature.
//! Rejected alternative: asking the other party about each token; a device would wait for two servers instead of one.

mod claims;
mod config;
mod crypto;
mod keys;

pub use config::{AuthConfig, ClaimNames, JwtConfig, KeySource};

use super::principal::Principal;
use crate::config::Environment;
use crate::error::{Refusal, ServerError};
use crate::store::Store;
use claims::Claims;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Header, Validation, decode, decode_header};
use keys::{KeyRing, Trusted};
use std::sync::Arc;

/// What every token of this server's own begins with.
const OWN: &str = "gbt_";

/// Lets in whoever bears a token that a trusted key signed.
pub(crate) struct JwtGate {
    config: JwtConfig,
    keys: KeyRing,
    environment: Environment,
}

/// One indexed read, off the runtime's threads where it goes to a database.
async fn is_revoked(jti: &str, store: &Arc<dyn Store>) -> Result<bool, Refusal> {
    if !store.is_shared() {
        return Ok(store.is_revoked(jti)?);
    }
    let (jti, store) = (jti.to_owned(), Arc::clone(store));
    let reading = tokio::task::spawn_blocking(move || store.is_revoked(&jti));
    Ok(reading.await.map_err(|_| Refusal::unavailable())??)
}

impl JwtGate {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`ServerError::Keys`] when a file has none that can be used. A URL that does not answer is asked again later.
    pub(crate) async fn open(config: JwtConfig, environment: Environment) -> Result<Self, ServerError> {
        crypto::install();
        let keys = KeyRing::open(&config, environment.now_ms()).await?;
        Ok(Self { config, keys, environment })
    }

    /// Whether a text is a signed token and none of this server's own.
    pub(crate) fn is_for(token: &str) -> bool {
        !token.starts_with(OWN) && token.split('.').count() == 3
    }

    /// Who bears a token.
    ///
    /// # Errors
    /// 401 with a sentence that says what to do; 503 while the keys cannot be fetched.
    pub(crate) async fn principal(&self, token: &str, store: &Arc<dyn Store>) -> Result<Principal, Refusal> {
        let header = decode_header(token).map_err(|error| unreadable(&error))?;
        let key = self.key(&header).await?;
        let mut validation = Validation::new(key.algorithm);
        validation.set_audience(&[&self.config.audience]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        // Times are judged by this server's own clock, below.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let claims = decode::<Claims>(token, &key.key, &validation).map_err(|error| self.refused(&error))?.claims;
        let ends_ms = self.check_times(&claims)?;
        if let Some(jti) = claims.text("jti")
            && is_revoked(jti, store).await?
        {
            return Err(refuse("revoked", "the token was revoked; sign in again"));
        }
        claims.principal(&self.config.claims, ends_ms).map_err(|problem| {
            let detail = format!("the token says not what this server needs: {problem}; mend what the issuer puts into it");
            Refusal::unauthenticated("bad_claims", detail)
        })
    }

    async fn key(&self, header: &Header) -> Result<Trusted, Refusal> {
        if header.crit.is_some() {
            return Err(refuse("malformed", "the token's header demands extensions (crit) that this server does not know"));
        }
        let Some(kid) = &header.kid else {
            return Err(refuse("no_kid", "the token's header names no key (kid); the issuer must put it there"));
        };
        let Some(key) = self.keys.find(kid, self.environment.now_ms()).await? else {
            return Err(refuse(
                "unknown_kid",
                "the token was signed with a key that this server does not trust; sign in again",
            ));
        };
        match key.algorithm == header.alg {
            true => Ok(key),
            false => Err(wrong_algorithm()),
        }
    }

    /// From when on the token is refused, in milliseconds after 1970.
    fn check_times(&self, claims: &Claims) -> Result<u64, Refusal> {
        let leeway_s = i128::from(self.config.leeway_ms / 1_000);
        let longest_s = i128::from(self.config.longest_lifetime_ms / 1_000);
        let now_s = i128::from(self.environment.now_ms() / 1_000);
        let exp = claims.time("exp").ok_or_else(|| refuse("bad_claims", "the token does not say when it ends (exp)"))?;
        if exp + leeway_s <= now_s {
            return Err(refuse("expired", "the token has expired; sign in again"));
        }
        let from = claims.time("iat").map_or(now_s, |iat| iat.min(now_s));
        if exp - from > longest_s + leeway_s {
            let detail = format!(
                "the token is valid for longer than {longest_s} s, the most that this server takes; let the issuer make shorter ones"
            );
            return Err(Refusal::unauthenticated("too_long_lived", detail));
        }
        let begins = claims.time("nbf").into_iter().chain(claims.time("iat")).max();
        match begins.is_some_and(|begins| begins > now_s + leeway_s) {
            true => {
                Err(refuse("not_yet_valid", "the token is not valid yet; compare the clocks of the issuer and this server"))
            }
            false => Ok(u64::try_from((exp + leeway_s) * 1_000).unwrap_or(u64::MAX)),
        }
    }

    fn refused(&self, error: &Error) -> Refusal {
        match error.kind() {
            ErrorKind::InvalidAudience => {
                let audience = &self.config.audience;
                Refusal::unauthenticated(
                    "wrong_audience",
                    format!("the token is not for this server; ask for one for {audience:?}"),
                )
            }
            ErrorKind::InvalidIssuer => {
                refuse("wrong_issuer", "the token is of an issuer whom this server does not trust; sign in where it does")
            }
            ErrorKind::MissingRequiredClaim(claim) => {
                let detail = format!("the token has no claim {claim:?}; the issuer must put it there");
                Refusal::unauthenticated("bad_claims", detail)
            }
            ErrorKind::InvalidAlgorithm => wrong_algorithm(),
            ErrorKind::InvalidSignature => {
                refuse("bad_signature", "the token's signature is not that of its key; sign in again")
            }
            _ => unreadable(error),
        }
    }
}

fn refuse(reason: &str, detail: &str) -> Refusal {
    Refusal::unauthenticated(reason, detail)
}

fn wrong_algorithm() -> Refusal {
    refuse("wrong_algorithm", "the token is not signed with the algorithm of its key; let the issuer use that one")
}

fn unreadable(error: &Error) -> Refusal {
    match error.kind() {
        // JSON, but with an algorithm that nobody here has heard of, `none` among them.
        ErrorKind::Json(json) if json.is_data() => wrong_algorithm(),
        _ => refuse("malformed", "the token is no signed JSON Web Token; send what the issuer gave, unchanged"),
    }
}
