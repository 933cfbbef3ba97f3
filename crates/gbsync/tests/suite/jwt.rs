//! Tokens that another party signed, with a real server that is told by flags or by its file whom it trusts.

#[allow(dead_code)]
#[path = "../../../gbsync-server/tests/suite/jwt/issuer.rs"]
mod issuer;

use crate::shop::{Serving, Shop, receipt};
use issuer::{AUDIENCE, ISSUER, Key, changed, claims, unsigned};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The status that the log answers to a token, and why it was refused.
fn said(server: &Serving, token: &str) -> (u64, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = "GET /v1/spaces/shop/log HTTP/1.1\r\nhost: x\r\nconnection: close";
    write!(stream, "{head}\r\nauthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body["reason"].as_str().unwrap_or_default().to_owned())
}

/// Lets in a till of the issuer's, and nobody whose token is not in order.
fn assert_trusts(shop: &Shop, server: &Serving, key: &Key, roles: &str) {
    // A space is made with its first token.
    shop.token();
    let mut fine = claims(now_s());
    let cashier = fine.as_object_mut().unwrap().remove("roles").unwrap();
    fine = changed(fine, roles, cashier);
    let token = key.token("k", &fine);
    shop.run(&["init", "till.db", "--server", &server.url, "--space", "shop", "--actor", "cashier-7", "--token", &token])
        .done();
    shop.apply("till.db", &receipt("r-1"));
    shop.run(&["sync", "till.db"]).done();
    assert_eq!(shop.digest("till.db"), shop.server_digest());
    assert_eq!(shop.value("till.db", "SELECT state FROM gbsync_group"), "accepted");

    let with = |name: &str, value: Value| key.token("k", &changed(fine.clone(), name, value));
    let other = Key::ec();
    let refused = [
        ("wrong_algorithm", format!("{}.", unsigned(&json!({"alg": "none", "kid": "k"}), &fine))),
        ("wrong_algorithm", other.token("k", &fine)),
        ("wrong_audience", with("aud", json!("another"))),
        ("wrong_issuer", with("iss", json!("https://evil.example.com/"))),
        ("expired", with("exp", json!(now_s() - 60))),
        ("too_long_lived", with("exp", json!(now_s() + 3 * 3_600))),
        ("unknown_kid", other.token("other", &fine)),
        ("bad_signature", Key::ed().token("k", &fine)),
    ];
    for (why, token) in refused {
        assert_eq!(said(server, &token), (401, why.to_owned()));
    }
    assert_eq!(said(server, &token).0, 200);
    shop.run(&["token", "revoke", "--data", "server", "--jwt", "token-1"]).done();
    assert_eq!(said(server, &token), (401, "revoked".to_owned()));
    shop.apply("till.db", &receipt("r-2"));
    assert_eq!(shop.run(&["sync", "till.db", "--json"]).json_error(1)["code"], "sign_in");
    let state = "SELECT state FROM gbsync_group ORDER BY device_seq DESC LIMIT 1";
    assert_eq!(shop.value("till.db", state), "waiting_for_sign_in");
}

fn with_keys(key: &Key) -> (Shop, String) {
    let shop = Shop::new();
    shop.write("keys.json", &json!({"keys": [key.jwk("k")]}).to_string());
    let keys = shop.path("keys.json").display().to_string();
    (shop, keys)
}

#[test]
fn a_server_that_is_told_by_flags_lets_in_whom_the_issuer_signed_for_and_nobody_else() {
    let key = Key::ed();
    let (shop, keys) = with_keys(&key);
    let flags = ["--jwt-keys", &keys, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-lifetime", "2h"];
    let server = Serving::start_with(&shop.data(), "127.0.0.1:0", &flags);
    assert_trusts(&shop, &server, &key, "roles");
    assert_eq!(server.terminate().code, Some(0));
}

#[test]
fn a_server_that_is_told_by_its_file_does_the_same_and_reads_the_claims_that_it_names() {
    let key = Key::ed();
    let (shop, keys) = with_keys(&key);
    let trusted = json!({"jwt_keys": keys, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "roles_claim": "groups"});
    let lines = trusted.as_object().unwrap().iter().map(|(name, value)| format!("{name} = {value}\n"));
    shop.write("server.toml", &format!("[auth]\njwt_lifetime_ms = 7200000\n{}", lines.collect::<String>()));
    let file = shop.path("server.toml").display().to_string();
    let server = Serving::start_with(&shop.data(), "127.0.0.1:0", &["--config", &file]);
    assert_trusts(&shop, &server, &key, "groups");
    assert_eq!(server.terminate().code, Some(0));
}

#[test]
fn a_server_that_is_told_half_of_it_does_not_start() {
    let (shop, keys) = with_keys(&Key::ed());
    for flags in [vec!["--jwt-keys", &keys], vec!["--jwt-issuer", ISSUER], vec!["--jwt-keys", &keys, "--jwt-issuer", ISSUER]]
    {
        let refused = shop.run(&[&["serve", "--data", "server", "--json"], &flags[..]].concat()).json_error(1);
        assert_eq!(refused["code"], "config", "{flags:?}");
    }
}
