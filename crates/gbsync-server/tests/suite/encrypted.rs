//! TLS of the server's own.

use crate::common::*;
use gbsync_server::{Server, ServerError, TlsConfig};
use reqwest::{Certificate, Client};
use std::path::Path;
use std::time::Duration;

/// Puts a new certificate for `localhost` and its key into files; the certificate.
fn issue(files: &TlsConfig) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

fn files(folder: &Path) -> TlsConfig {
    TlsConfig { certificate: folder.join("server.crt"), key: folder.join("server.key") }
}

/// Who trusts this certificate alone, and keeps no connection.
fn trusting(certificate: &str) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = Certificate::from_pem(certificate.as_bytes()).unwrap();
    Client::builder().no_proxy().tls_certs_only([certificate]).pool_max_idle_per_host(0).build().unwrap()
}

fn url(app: &TestApp) -> String {
    let server = app.server.as_ref().unwrap();
    assert!(server.url().starts_with("https://127.0.0.1:"));
    format!("https://localhost:{}", server.local_addr().port())
}

async fn start(certificates: &Path) -> TestApp {
    TestApp::with(|config| config.tls = Some(files(certificates))).await
}

#[tokio::test]
async fn a_server_with_a_certificate_is_reached_encrypted_and_in_no_other_way() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = issue(&files(folder.path()));
    let app = start(folder.path()).await;
    let push = |http: &Client, url: String| {
        let request = http.post(format!("{url}/v1/spaces/{SPACE}/push")).bearer_auth(&app.token);
        request.header("content-type", "application/json").body(envelope("till-1", "e1", &[receipt("g1", 1, "r-1")]))
    };
    let response = push(&trusting(&certificate), url(&app)).send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    let old = Client::builder().no_proxy().tls_certs_only([Certificate::from_pem(certificate.as_bytes()).unwrap()]);
    let response = push(&old.http1_only().build().unwrap(), url(&app)).send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (reqwest::Version::HTTP_11, 200));
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    assert!(push(&trusting(&stranger), url(&app)).send().await.is_err());
    let plain = url(&app).replace("https:", "http:");
    assert!(push(&http(), plain).send().await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_in_use_without_a_restart_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let first = issue(&files);
    let app = start(folder.path()).await;
    let health = async |certificate: &str| {
        let sent = trusting(certificate).get(format!("{}/healthz", url(&app))).send().await;
        sent.map(|response| response.status().as_u16()).ok()
    };
    assert_eq!(health(&first).await, Some(200));
    let second = issue(&files);
    app.server.as_ref().unwrap().reload_tls().unwrap();
    assert_eq!((health(&first).await, health(&second).await), (None, Some(200)));
    std::fs::write(&files.certificate, "nothing of use").unwrap();
    let error = app.server.as_ref().unwrap().reload_tls().unwrap_err().to_string();
    assert!(error.contains("server.crt") && error.contains("no certificate in it"), "{error}");
    assert_eq!(health(&second).await, Some(200));
    // Nobody says that they have changed: it is seen.
    let third = issue(&files);
    let deadline = std::time::Instant::now() + Duration::from_secs(40);
    while health(&third).await != Some(200) {
        assert!(std::time::Instant::now() < deadline, "the new files were not seen");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_what_to_do_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let refusal = async || {
        let mut config = config(folder.path());
        config.tls = Some(files.clone());
        match Server::start(config).await {
            Err(error @ ServerError::Certificate { .. }) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it started"),
        }
    };
    let expect = |error: String, parts: [&str; 2]| assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    expect(refusal().await, ["server.crt", "must be able to read it"]);
    issue(&files);
    let key = std::fs::read(&files.key).unwrap();
    std::fs::remove_file(&files.key).unwrap();
    expect(refusal().await, ["server.key", "must be able to read it"]);
    std::fs::copy(&files.certificate, &files.key).unwrap();
    expect(refusal().await, ["server.key", "no private key in it"]);
    issue(&files);
    std::fs::write(&files.key, key).unwrap();
    expect(refusal().await, ["server.key", "is not the key of"]);
    assert!(!folder.path().join("gbsync.db").exists());
}
