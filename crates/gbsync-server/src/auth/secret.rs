//! Tokens: 256 random bits that nobody can guess, so a plain SHA-256 of them is safe to keep.

use crate::config::Environment;
use sha2::{Digest, Sha256};

/// A new token.
pub(super) fn mint(environment: &Environment) -> String {
    format!("gbt_{}", hex::encode(environment.random::<32>()))
}

/// A new id for a token, random from its first digit on, so that short prefixes tell tokens apart.
pub(super) fn mint_id(environment: &Environment) -> String {
    hex::encode(environment.random::<8>())
}

/// What is kept of a token.
pub(super) fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
