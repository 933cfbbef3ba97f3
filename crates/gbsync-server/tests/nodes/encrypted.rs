//! An encrypted way to PostgreSQL.

use super::common::*;
use super::refusal;
use gbsync_cluster::Cluster;
use gbsync_server::{Server, StoreLocation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A certificate for `localhost` that nobody signed, and its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_spoken_to_encrypted_and_only_if_it_is_the_one_that_is_meant() {
    let (certificate, key) = certificate();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (trusted, other) = (file("trusted.pem", &certificate), file("other.pem", &self::certificate().0));
    let cluster = Cluster::start_encrypted(&certificate, &key).unwrap();
    let port = cluster.port().unwrap();
    let url = |host: &str, rest: &str| format!("postgres://postgres@{host}:{port}/postgres?schema=s1&{rest}");

    let store = StoreLocation::Postgres(url("localhost", &format!("sslmode=verify-full&sslrootcert={trusted}")));
    let node = Server::start(config(&store)).await.unwrap();
    let (token, http) = (token(&store, SPACE, None, None), http());
    let request = http.post(format!("{}/v1/spaces/{SPACE}/push", node.url())).bearer_auth(&token);
    let request = request.header("content-type", "application/json");
    let answer = Answer::of(request.body(envelope("till-1", "e1", &[receipt("g1", 1, "r-1")]))).await;
    assert_eq!(answer.verdicts(), ["accepted"]);
    let sql = "SELECT count(*) > 2, bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                WHERE a.application_name = 'gbsync'";
    let encrypted = gbsync_cluster::ask(&cluster.url("postgres"), sql).unwrap();
    assert_eq!(encrypted, [[Some("t".to_owned()), Some("t".to_owned())]]);
    node.stop().await.unwrap();

    let error = refusal(url("localhost", &format!("sslmode=require&sslrootcert={other}"))).await;
    assert!(error.contains("certificate"), "{error}");
    // The system's certificates know nothing of this one.
    let error = refusal(url("localhost", "sslmode=require")).await;
    assert!(error.contains("certificate"), "{error}");
    let error = refusal(url("127.0.0.1", &format!("sslmode=require&sslrootcert={trusted}"))).await;
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_cannot_encrypt_is_refused_where_that_was_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // What PostgreSQL says to the question whether it encrypts, where it does not.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut question = [0; 8];
            stream.read_exact(&mut question).await.unwrap();
            stream.write_all(b"N").await.unwrap();
        }
    });
    let error = refusal(format!("postgres://postgres@localhost:{port}/postgres?sslmode=require")).await;
    assert!(error.contains("TLS"), "{error}");
}
