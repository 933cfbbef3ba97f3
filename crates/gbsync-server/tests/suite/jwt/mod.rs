//! Tokens that another party signed.

mod issuer;
mod key_sets;

use crate::common::*;
use gbsync_server::{Environment, JwtConfig, KeySource, Tokens};
use issuer::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// The time of a test's server, in seconds after 1970.
const NOW_S: u64 = 1_800_000_000;

/// A server that trusts keys, under a clock that the test moves.
struct Trusting {
    app: TestApp,
    now_ms: Arc<AtomicU64>,
    _keys: TempDir,
}

fn clock(now_ms: &Arc<AtomicU64>) -> Environment {
    let now_ms = Arc::clone(now_ms);
    Environment::new(move || now_ms.load(Ordering::Relaxed), |bytes| getrandom::fill(bytes).unwrap())
}

fn write(folder: &TempDir, keys: &[Value]) -> PathBuf {
    let path = folder.path().join("keys.json");
    std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    path
}

impl Trusting {
    async fn start(keys: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::with(KeySource::File(write(&folder, keys)), folder).await
    }

    async fn with(source: KeySource, folder: TempDir) -> Self {
        let now_ms = Arc::new(AtomicU64::new(NOW_S * 1_000));
        let environment = clock(&now_ms);
        let app = TestApp::with(|config| {
            config.environment = environment;
            config.auth.jwt = Some(JwtConfig::new(source, ISSUER, AUDIENCE));
        });
        Self { app: app.await, now_ms, _keys: folder }
    }

    async fn log(&self, token: &str) -> Answer {
        Answer::of(self.app.http.get(self.app.space_url("/log")).bearer_auth(token)).await
    }

    /// `in`, or the status and the reason.
    async fn said(&self, token: &str) -> String {
        let answer = self.log(token).await;
        match answer.status {
            200 => "in".into(),
            401 => {
                answer.assert_problem(401, "unauthenticated");
                answer.json()["reason"].as_str().unwrap().to_owned()
            }
            status => format!("{status} {}", answer.json()["code"].as_str().unwrap()),
        }
    }

    fn pass(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_let_in() {
    let keys = [Key::secret(), Key::rsa(), Key::ec(), Key::ed()];
    let jwks: Vec<Value> = keys.iter().map(|key| key.jwk(key.algorithm())).collect();
    let server = Trusting::start(&jwks).await;
    for key in &keys {
        assert_eq!(server.said(&key.token(key.algorithm(), &claims(NOW_S))).await, "in", "{}", key.algorithm());
    }
}

#[tokio::test]
async fn a_claim_says_which_scopes_a_token_opens_and_one_that_says_nothing_sensible_opens_none() {
    let rsa = Key::rsa();
    let server = Trusting::start(&[rsa.jwk("rsa")]).await;
    let with = |value: Value| rsa.token("rsa", &changed(claims(NOW_S), "scopes", value));
    let opened = async |token: String| {
        let answer = Answer::of(server.app.http.get(server.app.space_url("")).bearer_auth(token)).await;
        if answer.status == 200 { answer.json()["scopes"].clone() } else { answer.json()["reason"].clone() }
    };
    assert_eq!(opened(rsa.token("rsa", &claims(NOW_S))).await, Value::Null, "everything");
    assert_eq!(opened(with(json!("*"))).await, Value::Null);
    assert_eq!(opened(with(json!(["south", "north"]))).await, json!(["north", "south"]));
    assert_eq!(opened(with(json!([]))).await, json!([]));
    for wrong in [json!("north"), json!({}), json!([7]), json!([""]), json!(true)] {
        assert_eq!(opened(with(wrong.clone())).await, "bad_claims", "{wrong}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_in_order_is_refused_with_its_own_word() {
    let (rsa, ec, ed) = (Key::rsa(), Key::ec(), Key::ed());
    let server = Trusting::start(&[rsa.jwk("rsa"), ec.jwk("ec")]).await;
    let fine = claims(NOW_S);
    let with = |name: &str, value: Value| rsa.token("rsa", &changed(fine.clone(), name, value));
    let headed = |header: Value| rsa.token_with(&header, &fine);
    let unsigned = |alg: &str| format!("{}.", unsigned(&json!({"alg": alg, "kid": "rsa"}), &fine));
    // The public key as a secret: the oldest trick there is.
    let public = rsa.jwk("rsa")["n"].as_str().unwrap().to_owned();
    let message = issuer::unsigned(&json!({"alg": "HS256", "kid": "rsa"}), &fine);
    let confused = format!("{message}.{}", base64(&hmac(public.as_bytes(), message.as_bytes())));
    let other_payload = {
        let [head, _, signature] =
            with("sub", json!("x")).split('.').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        format!("{head}.{}.{signature}", base64(fine.to_string().as_bytes()))
    };
    let hour = 3_600;
    let table: Vec<(&str, String, &str)> = vec![
        ("in order", rsa.token("rsa", &fine), "in"),
        ("no signature", unsigned("none"), "wrong_algorithm"),
        ("no signature, in other letters", unsigned("NoNe"), "wrong_algorithm"),
        ("no signature under the name of one", unsigned("RS256"), "bad_signature"),
        ("the public key as a secret", confused, "wrong_algorithm"),
        ("another algorithm of the same key", headed(json!({"alg": "PS256", "kid": "rsa"})), "wrong_algorithm"),
        ("another key's algorithm", ec.token_with(&json!({"alg": "ES256", "kid": "rsa"}), &fine), "wrong_algorithm"),
        ("another key", ed.token_with(&json!({"alg": "RS256", "kid": "rsa"}), &fine), "bad_signature"),
        ("another payload", other_payload, "bad_signature"),
        ("no kid", headed(json!({"alg": "RS256"})), "no_kid"),
        ("unknown kid", ed.token("ed", &fine), "unknown_kid"),
        ("extensions", headed(json!({"alg": "RS256", "kid": "rsa", "crit": ["exp"]})), "malformed"),
        ("no token", "a.b.c".into(), "malformed"),
        ("wrong audience", with("aud", json!("another")), "wrong_audience"),
        ("one of several audiences", with("aud", json!(["another", AUDIENCE])), "in"),
        ("no audience", with("aud", Value::Null), "bad_claims"),
        ("wrong issuer", with("iss", json!("https://evil.example.com/")), "wrong_issuer"),
        ("no issuer", with("iss", Value::Null), "bad_claims"),
        ("expired", with("exp", json!(NOW_S - 31)), "expired"),
        ("expired within the leeway", with("exp", json!(NOW_S - 20)), "in"),
        ("a fraction of a second", rsa.token("rsa", &changed(fine.clone(), "exp", json!(NOW_S as f64 + 0.5))), "in"),
        ("no end", with("exp", Value::Null), "bad_claims"),
        ("an end that is a text", with("exp", json!("tomorrow")), "bad_claims"),
        ("valid for too long", with("exp", json!(NOW_S + 25 * hour)), "too_long_lived"),
        ("valid for too long from the past", with("iat", json!(NOW_S - 24 * hour)), "too_long_lived"),
        ("not yet valid", with("nbf", json!(NOW_S + 31)), "not_yet_valid"),
        ("made tomorrow", with("iat", json!(NOW_S + hour)), "not_yet_valid"),
        ("no actor", with("sub", Value::Null), "bad_claims"),
        ("no spaces", with("spaces", Value::Null), "bad_claims"),
        ("spaces that are none", with("spaces", json!([""])), "bad_claims"),
        ("roles that are no list", with("roles", json!("admin")), "bad_claims"),
        ("act_as that is no list", with("act_as", json!("mia")), "bad_claims"),
        ("another space", with("spaces", json!(["elsewhere"])), "404 space_not_found"),
    ];
    for (name, token, expected) in &table {
        assert_eq!(server.said(token).await, *expected, "{name}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_in_order_is_refused_by_every_route() {
    let (rsa, ed) = (Key::rsa(), Key::ed());
    let server = Trusting::start(&[rsa.jwk("rsa")]).await;
    let fine = changed(changed(claims(NOW_S), "roles", json!(["admin"])), "sub", json!("ann"));
    let with = |name: &str, value: Value| rsa.token("rsa", &changed(fine.clone(), name, value));
    Tokens::open(&server.app.store).unwrap().revoke_jwt("revoked").unwrap();
    let refused = [
        ("wrong_algorithm", format!("{}.", unsigned(&json!({"alg": "none", "kid": "rsa"}), &fine))),
        ("wrong_algorithm", ed.token("rsa", &fine)),
        ("wrong_audience", with("aud", json!("another"))),
        ("expired", with("exp", json!(NOW_S - 31))),
        ("unknown_kid", ed.token("ed", &fine)),
        ("revoked", with("jti", json!("revoked"))),
    ];
    let in_order = rsa.token("rsa", &fine);
    for (number, row) in crate::rights::rows().into_iter().filter(|row| row.is_closed()).enumerate() {
        let ask = |token: &str| row.request(&server.app, number as u64 + 1).bearer_auth(token);
        let head = server.app.digest().head;
        for (why, token) in &refused {
            let answer = Answer::of(ask(token)).await;
            answer.assert_problem(401, "unauthenticated");
            assert_eq!(answer.json()["reason"], *why, "{}", row.route);
        }
        assert_eq!(server.app.digest().head, head, "{}", row.route);
        let status = ask(&in_order).send().await.unwrap().status();
        assert!(!matches!(status.as_u16(), 401 | 403), "{}: {status}", row.route);
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_from_the_next_request_on() {
    let key = Key::ed();
    let server = Trusting::start(&[key.jwk("k")]).await;
    let token = key.token("k", &claims(NOW_S));
    assert_eq!(server.said(&token).await, "in");
    Tokens::open(&server.app.store).unwrap().revoke_jwt("token-1").unwrap();
    assert_eq!(server.said(&token).await, "revoked");
    assert_eq!(server.said(&key.token("k", &changed(claims(NOW_S), "jti", json!("token-2")))).await, "in");
}

#[tokio::test]
async fn a_token_ends_while_the_server_runs() {
    let key = Key::ed();
    let server = Trusting::start(&[key.jwk("k")]).await;
    let token = key.token("k", &claims(NOW_S));
    server.pass(3_600_000 + 29_000);
    assert_eq!(server.said(&token).await, "in");
    server.pass(1_000);
    assert_eq!(server.said(&token).await, "expired");
}

#[tokio::test]
async fn actor_device_roles_and_act_as_of_a_token_hold() {
    let key = Key::ed();
    let mut server = Trusting::start(&[key.jwk("k")]).await;
    let mut claims = changed(claims(NOW_S), "device", json!("till-1"));
    claims = changed(claims, "spaces", json!({"shop": ["admin"], "depot": []}));
    claims = changed(claims, "act_as", json!(["mia"]));
    token(&server.app.store, "depot", None, None);
    server.app.token = key.token("k", &claims);
    let app = &server.app;
    assert_eq!(app.get("").await.json()["token"]["actor"], "cashier-7");
    assert_eq!(app.get("").await.json()["token"]["actAs"], json!(["mia"]));
    assert_eq!(app.push(&[receipt("g-1", 1, "r-1")]).await.verdicts(), ["accepted"]);
    assert_eq!(app.get("/log").await.json()["groups"][0]["actor"], "cashier-7");
    app.push_as("till-2", "e1", &[receipt("g-2", 1, "r-2")]).await.assert_problem(403, "forbidden");
    app.push(&[receipt("g-2", 2, "r-2").actor("bob")]).await.assert_problem(403, "forbidden");
    assert_eq!(app.get("/rejections").await.status, 200, "admin in the shop");
    let depot = app.http.get(app.url("/v1/spaces/depot/rejections")).bearer_auth(&app.token);
    Answer::of(depot).await.assert_problem(403, "forbidden");
}

#[tokio::test]
async fn tokens_of_the_servers_own_are_still_let_in() {
    let server = Trusting::start(&[Key::ed().jwk("k")]).await;
    assert_eq!(server.app.get("/log").await.status, 200);
    let other = TestApp::start().await;
    let jwt = Key::ed().token("k", &claims(NOW_S));
    let answer = Answer::of(other.http.get(other.space_url("/log")).bearer_auth(jwt)).await;
    answer.assert_problem(401, "unauthenticated");
    assert_eq!(answer.json()["reason"], "unknown");
}
