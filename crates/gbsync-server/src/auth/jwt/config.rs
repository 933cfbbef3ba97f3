//! Whom the server trusts.

use std::path::PathBuf;

/// Whom a server lets in beside the bearers of its own tokens.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    /// Bearers of signed tokens.
    pub jwt: Option<JwtConfig>,
}

/// Which JSON Web Tokens a server takes.
///
/// ```
/// use gbsync_server::{JwtConfig, KeySource};
/// let keys = KeySource::Url("https://id.example.com/.well-known/jwks.json".into());
/// let config = JwtConfig::new(keys, "https://id.example.com/", "gbsync");
/// assert_eq!(config.longest_lifetime_ms, 24 * 60 * 60 * 1000);
/// ```
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// Where the keys are.
    pub keys: KeySource,
    /// What the claim `iss` must say.
    pub issuer: String,
    /// What the claim `aud` must say, or hold.
    pub audience: String,
    /// The longest a token may be valid, in milliseconds.
    pub longest_lifetime_ms: u64,
    /// How far the clocks of the issuer and this server may be apart, in milliseconds.
    pub leeway_ms: u64,
    /// The least time between two readings of the keys, in milliseconds: however many tokens name keys that nobody knows.
    pub refresh_ms: u64,
    /// What the claims are called.
    pub claims: ClaimNames,
}

impl JwtConfig {
    /// Tokens of one issuer, for one audience, valid for at most a day, with claims called as in docs/rights.md.
    pub fn new(keys: KeySource, issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            keys,
            issuer: issuer.into(),
            audience: audience.into(),
            longest_lifetime_ms: 24 * 60 * 60 * 1000,
            leeway_ms: 30_000,
            refresh_ms: 60_000,
            claims: ClaimNames::default(),
        }
    }
}

/// Where a JSON Web Key Set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file. Secrets for HS256 are only taken from here.
    File(PathBuf),
    /// An `https` URL, or an `http` one on the loopback.
    Url(String),
}

/// What the claims are called that are not in RFC 7519. The actor is `sub`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// The spaces: a list of names, or an object of names and the roles in each.
    pub spaces: String,
    /// The roles in every space: a list.
    pub roles: String,
    /// The only device that may use the token.
    pub device: String,
    /// For whom the token may act beside its actor: a list, or `"*"`.
    pub act_as: String,
    /// Which scopes of its spaces it opens: a list, or `"*"`; all when it is absent.
    pub scopes: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            spaces: "spaces".into(),
            roles: "roles".into(),
            device: "device".into(),
            act_as: "act_as".into(),
            scopes: "scopes".into(),
        }
    }
}
