//! The keys that are trusted: read from a JSON Web Key Set (RFC 7517), and read again when a token names one that is not there.
//!
//! Invariant: a known key costs no waiting, and unknown ones, however many come, cost one reading per [`JwtConfig::refresh_ms`].

use super::config::{JwtConfig, KeySource};
use super::crypto;
use crate::error::{Refusal, ServerError};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// After this long keys are read again although all are known: one that is gone is not trusted any more.
const KEPT_MS: u64 = 10 * 60 * 1000;
/// How long the other party may take to hand the keys out.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a key set.
const SET_BYTES: usize = 1024 * 1024;
/// Least bytes of a secret: those of the hash.
const SECRET_BYTES: usize = 32;

/// A key and the one algorithm that it is trusted for.
#[derive(Clone)]
pub(super) struct Trusted {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

type KeySet = BTreeMap<String, Trusted>;

/// The keys of one source.
pub(super) struct KeyRing {
    source: KeySource,
    http: reqwest::Client,
    refresh_ms: u64,
    current: RwLock<(Arc<KeySet>, u64)>,
    /// The last reading: when, and whether it failed.
    last: tokio::sync::Mutex<(u64, bool)>,
}

impl KeyRing {
    pub(super) async fn open(config: &JwtConfig, now_ms: u64) -> Result<Self, ServerError> {
        let unusable = |reason: String| ServerError::Keys { place: shown(&config.keys), reason };
        if let KeySource::Url(url) = &config.keys {
            check_url(url).map_err(unusable)?;
        }
        let http = http().map_err(|error| unusable(format!("HTTP cannot be set up: {error}")))?;
        let source = config.keys.clone();
        let ring = Self {
            source,
            http,
            refresh_ms: config.refresh_ms,
            current: RwLock::new((Arc::default(), now_ms)),
            last: tokio::sync::Mutex::new((now_ms, false)),
        };
        match ring.read().await {
            Ok(keys) => ring.put(keys, now_ms),
            Err(reason) if matches!(ring.source, KeySource::File(_)) => return Err(unusable(reason)),
            Err(reason) => {
                tracing::warn!(source = %shown(&ring.source), %reason, "no keys yet; signed tokens are answered 503 until there are");
                *ring.last.lock().await = (now_ms, true);
            }
        }
        Ok(ring)
    }

    /// The key with this id, if it is trusted.
    ///
    /// # Errors
    /// 503 when it is not known and the keys could not be read.
    pub(super) async fn find(&self, kid: &str, now_ms: u64) -> Result<Option<Trusted>, Refusal> {
        let known = self.known(kid);
        let is_old = now_ms.saturating_sub(self.read_at()) >= KEPT_MS;
        match known {
            Some(known) if !is_old => return Ok(Some(known)),
            // One request reads them again; the others go on with those there are.
            Some(known) => match self.last.try_lock() {
                Ok(mut last) => self.refresh(&mut last, now_ms).await,
                Err(_) => return Ok(Some(known)),
            },
            None => {
                let mut last = self.last.lock().await;
                // Somebody may have read it while this one waited.
                if self.known(kid).is_none() {
                    self.refresh(&mut last, now_ms).await;
                }
            }
        }
        match self.known(kid) {
            None if self.last.lock().await.1 => Err(Refusal::unavailable()),
            known => Ok(known),
        }
    }

    fn known(&self, kid: &str) -> Option<Trusted> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0.get(kid).cloned()
    }

    fn read_at(&self) -> u64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1
    }

    fn put(&self, keys: KeySet, now_ms: u64) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(keys), now_ms);
    }

    async fn refresh(&self, (at_ms, has_failed): &mut (u64, bool), now_ms: u64) {
        // A clock that was set back must not keep a new key out for years.
        if now_ms.abs_diff(*at_ms) < self.refresh_ms {
            return;
        }
        (*at_ms, *has_failed) = (now_ms, true);
        match self.read().await {
            Ok(keys) => {
                self.put(keys, now_ms);
                *has_failed = false;
            }
            Err(reason) => {
                tracing::warn!(source = %shown(&self.source), %reason, "the keys cannot be read; the old ones stay")
            }
        }
    }

    async fn read(&self) -> Result<KeySet, String> {
        match &self.source {
            KeySource::File(path) => {
                let text = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
                let (keys, problems) = parse(&text, true)?;
                problems.into_iter().next().map_or(Ok(keys), Err)
            }
            KeySource::Url(url) => {
                let (keys, problems) = parse(&self.fetch(url).await?, false)?;
                for problem in problems {
                    tracing::info!(%url, %problem, "a key is left out");
                }
                if keys.is_empty() { Err("there is no key that can be used".into()) } else { Ok(keys) }
            }
        }
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let mut response = self.http.get(url).send().await.map_err(|error| error.without_url().to_string())?;
        if response.status().as_u16() != 200 {
            return Err(format!("the answer has status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
            if body.len() + chunk.len() > SET_BYTES {
                return Err(format!("it has more than {SET_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn http() -> reqwest::Result<reqwest::Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(FETCH_TIMEOUT).redirect(reqwest::redirect::Policy::none()).build()
}

/// Keys that came over a wire that others can write on are nobody's.
fn check_url(url: &str) -> Result<(), String> {
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("it is no URL: {error}"))?;
    let is_loopback = matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match parsed.scheme() == "https" || (parsed.scheme() == "http" && is_loopback) {
        true => Ok(()),
        false => Err("the URL of keys must begin with https://".into()),
    }
}

fn shown(source: &KeySource) -> String {
    match source {
        KeySource::File(path) => path.display().to_string(),
        KeySource::Url(url) => url.clone(),
    }
}

/// The keys of a set, and what is wrong with the others.
fn parse(text: &[u8], takes_secrets: bool) -> Result<(KeySet, Vec<String>), String> {
    let set: Value = serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let Some(Value::Array(items)) = set.get("keys") else {
        return Err("it is no JSON Web Key Set: it has no list \"keys\"".into());
    };
    let (mut keys, mut problems) = (KeySet::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        match key(item, takes_secrets) {
            Ok((kid, key)) if !keys.contains_key(&kid) => drop(keys.insert(kid, key)),
            Ok((kid, _)) => problems.push(format!("the kid {kid:?} is there twice")),
            Err(problem) => problems.push(format!("key {index} {problem}")),
        }
    }
    Ok((keys, problems))
}

fn key(item: &Value, takes_secrets: bool) -> Result<(String, Trusted), String> {
    let jwk: Jwk = serde_json::from_value(item.clone()).map_err(|error| format!("is none: {error}"))?;
    let kid = jwk.common.key_id.clone().ok_or("has no kid")?;
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return Err("is for encryption".into());
    }
    let algorithm = algorithm(&jwk)?;
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| format!("cannot be used: {error}"))?;
    if crypto::family(algorithm) != Some(key.family()) {
        return Err("is of another kind than its algorithm".into());
    }
    if algorithm == Algorithm::HS256 {
        let DecodingKeyKind::SecretOrDer(secret) = key.kind() else { return Err("has no secret".into()) };
        if !takes_secrets {
            return Err("is a secret, which a URL would tell everybody".into());
        }
        if secret.len() < SECRET_BYTES {
            return Err(format!("is a secret of less than {SECRET_BYTES} bytes"));
        }
    }
    Ok((kid, Trusted { algorithm, key }))
}

/// The one algorithm of a key: the one it names, or the usual one of its kind.
fn algorithm(jwk: &Jwk) -> Result<Algorithm, String> {
    let usual = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Some(Algorithm::ES256),
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Some(Algorithm::EdDSA),
        AlgorithmParameters::OctetKey(_) => Some(Algorithm::HS256),
        _ => None,
    };
    let named = match jwk.common.key_algorithm {
        None => usual,
        Some(KeyAlgorithm::HS256) => Some(Algorithm::HS256),
        Some(KeyAlgorithm::RS256) => Some(Algorithm::RS256),
        Some(KeyAlgorithm::ES256) => Some(Algorithm::ES256),
        Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDSA),
        Some(_) => None,
    };
    named.filter(|named| Some(*named) == usual).ok_or_else(|| "is for no algorithm of HS256, RS256, ES256 and EdDSA".into())
}
