//! Where keys come from, and when they are read again.

use super::*;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use gbsync_server::{Server, ServerError};
use std::net::SocketAddr;
use std::sync::Mutex;

/// The issuer's server of keys: what it answers, and how often it was asked.
struct KeyServer {
    url: String,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicU64>,
}

impl KeyServer {
    async fn start(keys: &[Value]) -> Self {
        let answer = Arc::new(Mutex::new((200, String::new())));
        let asked = Arc::new(AtomicU64::new(0));
        let (said, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let answers = move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            let (status, body) = said.lock().unwrap().clone();
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/jwks.json", get(answers))).await });
        let server = Self { url, answer, asked };
        server.says(200, keys);
        server
    }

    fn says(&self, status: u16, keys: &[Value]) {
        *self.answer.lock().unwrap() = (status, json!({ "keys": keys }).to_string());
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    async fn trusted(&self) -> Trusting {
        Trusting::with(KeySource::Url(self.url.clone()), tempfile::tempdir().unwrap()).await
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_at_most_once_a_minute() {
    let (old, new) = (Key::ed(), Key::ec());
    let keys = KeyServer::start(&[old.jwk("old")]).await;
    let server = keys.trusted().await;
    let (by_old, by_new) = (old.token("old", &claims(NOW_S)), new.token("new", &claims(NOW_S)));
    assert_eq!((server.said(&by_old).await.as_str(), keys.asked()), ("in", 1));
    keys.says(200, &[old.jwk("old"), new.jwk("new")]);
    for _ in 0..5 {
        assert_eq!(server.said(&by_new).await, "unknown_kid");
    }
    assert_eq!(keys.asked(), 1);
    server.pass(60_000);
    assert_eq!((server.said(&by_new).await.as_str(), keys.asked()), ("in", 2));
    for kid in 0..50 {
        assert_eq!(server.said(&new.token(&format!("guess-{kid}"), &claims(NOW_S))).await, "unknown_kid");
    }
    assert_eq!(keys.asked(), 2, "whoever guesses makes no traffic");
}

#[tokio::test]
async fn a_key_that_was_taken_away_is_not_trusted_for_long() {
    let (old, new) = (Key::ed(), Key::ec());
    let keys = KeyServer::start(&[old.jwk("old")]).await;
    let server = keys.trusted().await;
    let by_old = old.token("old", &claims(NOW_S));
    keys.says(200, &[new.jwk("new")]);
    assert_eq!(server.said(&by_old).await, "in");
    server.pass(10 * 60_000);
    assert_eq!(server.said(&by_old).await, "unknown_kid");
}

#[tokio::test]
async fn a_key_server_that_fails_costs_nobody_who_is_known_and_is_no_verdict_on_others() {
    let (old, new) = (Key::ed(), Key::ec());
    let keys = KeyServer::start(&[old.jwk("old")]).await;
    let server = keys.trusted().await;
    keys.says(500, &[]);
    server.pass(11 * 60_000);
    assert_eq!(server.said(&old.token("old", &claims(NOW_S))).await, "in");
    assert_eq!(server.said(&new.token("new", &claims(NOW_S))).await, "503 unavailable");
    keys.says(200, &[new.jwk("new")]);
    server.pass(60_000);
    assert_eq!(server.said(&new.token("new", &claims(NOW_S))).await, "in");
}

#[tokio::test]
async fn a_server_starts_before_its_key_server_and_lets_in_later() {
    let key = Key::ed();
    let keys = KeyServer::start(&[]).await;
    keys.says(503, &[]);
    let server = keys.trusted().await;
    let token = key.token("k", &claims(NOW_S));
    assert_eq!(server.said(&token).await, "503 unavailable");
    keys.says(200, &[key.jwk("k")]);
    server.pass(60_000);
    assert_eq!(server.said(&token).await, "in");
}

#[tokio::test]
async fn a_secret_that_a_url_tells_is_nobodys() {
    let (secret, key) = (Key::secret(), Key::ed());
    let keys = KeyServer::start(&[secret.jwk("secret"), key.jwk("k")]).await;
    let server = keys.trusted().await;
    assert_eq!(server.said(&key.token("k", &claims(NOW_S))).await, "in");
    assert_eq!(server.said(&secret.token("secret", &claims(NOW_S))).await, "unknown_kid");
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_a_token_names_a_new_one() {
    let (old, new) = (Key::ed(), Key::ec());
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, &[old.jwk("old")]);
    let server = Trusting::with(KeySource::File(path.clone()), folder).await;
    std::fs::write(path, json!({"keys": [new.jwk("new")]}).to_string()).unwrap();
    server.pass(60_000);
    assert_eq!(server.said(&new.token("new", &claims(NOW_S))).await, "in");
    assert_eq!(server.said(&old.token("old", &claims(NOW_S))).await, "unknown_kid");
}

#[tokio::test]
async fn keys_that_cannot_be_used_keep_the_server_from_starting() {
    let ed = Key::ed().jwk("k");
    let wrong = |name: &str, value: Value| changed(ed.clone(), name, value);
    let short = json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": base64(b"too short")});
    let sets = [
        ("not JSON".to_owned(), "no JSON"),
        ("{}".into(), "no JSON Web Key Set"),
        (json!({"keys": [wrong("kid", Value::Null)]}).to_string(), "has no kid"),
        (json!({"keys": [wrong("alg", json!("RS256"))]}).to_string(), "no algorithm of"),
        (json!({"keys": [wrong("crv", json!("Ed448"))]}).to_string(), "key 0"),
        (json!({"keys": [wrong("use", json!("enc"))]}).to_string(), "for encryption"),
        (json!({"keys": [ed, ed]}).to_string(), "twice"),
        (json!({"keys": [short]}).to_string(), "less than 32 bytes"),
    ];
    for (text, problem) in sets {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, &text).unwrap();
        let refused = start(folder.path(), KeySource::File(path)).await;
        assert!(refused.contains(problem), "{text}: {refused}");
    }
    let folder = tempfile::tempdir().unwrap();
    let refused = start(folder.path(), KeySource::Url("http://id.example.com/jwks.json".into())).await;
    assert!(refused.contains("https://"), "{refused}");
}

async fn start(folder: &std::path::Path, keys: KeySource) -> String {
    let mut config = config(folder.join("server"));
    config.auth.jwt = Some(JwtConfig::new(keys, ISSUER, AUDIENCE));
    match Server::start(config).await {
        Err(error @ ServerError::Keys { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started"),
    }
}
