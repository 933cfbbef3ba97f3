//! Who gets in, and what they learn of what is not theirs.

use crate::common::*;
use gbsync_core::id::SpaceId;
use gbsync_server::{ServerError, Tokens};
use serde_json::json;

#[tokio::test]
async fn a_request_without_a_valid_token_is_unauthenticated_on_every_route() {
    let app = TestApp::start().await;
    for authorization in [None, Some("Bearer gbt_0000"), Some("Basic YTpi"), Some("Bearer"), Some("Bearer  ")] {
        for (method, rest) in
            [("GET", ""), ("GET", "/log"), ("POST", "/push"), ("POST", "/verdicts"), ("POST", "/groups/g/discard")]
        {
            let mut request = app.http.request(method.parse().unwrap(), app.space_url(rest));
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let answer = Answer::of(request).await;
            answer.assert_problem(401, "unauthenticated");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
}

#[tokio::test]
async fn another_space_looks_as_if_it_did_not_exist() {
    let app = TestApp::start().await;
    token(&app.store, "other", None, None);
    let mut texts = Vec::new();
    for space in ["other", "nowhere", "%01", "%FF"] {
        for rest in ["", "/log?after=x", "/push"] {
            let url = app.url(&format!("/v1/spaces/{space}{rest}"));
            let request = if rest == "/push" { app.http.post(url).body("not json") } else { app.http.get(url) };
            let answer = Answer::of(request.bearer_auth(&app.token)).await;
            answer.assert_problem(404, "space_not_found");
            texts.push(answer.text);
        }
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[tokio::test]
async fn a_revoked_token_is_refused_from_the_next_request_on() {
    let app = TestApp::start().await;
    assert_eq!(app.get("").await.status, 200);
    let tokens = Tokens::open(&app.store).unwrap();
    let id = tokens.list().unwrap()[0].id.clone();
    assert!(tokens.revoke(&id[..8]).unwrap());
    app.get("").await.assert_problem(401, "unauthenticated");
    app.push(&[receipt("g1", 1, "r-1")]).await.assert_problem(401, "unauthenticated");
    assert_eq!(app.digest().head.0, 0);
    assert!(tokens.list().unwrap()[0].revoked_at.is_some());
    assert!(!tokens.revoke("no-such-id").unwrap());
}

#[tokio::test]
async fn a_space_made_while_the_server_runs_is_usable_at_once() {
    let app = TestApp::start().await;
    let token = token(&app.store, "new/space", None, None);
    let url = app.url("/v1/spaces/new%2Fspace");
    let handshake = Answer::of(app.http.get(url).bearer_auth(token)).await.json();
    assert_eq!((handshake["space"].as_str(), handshake["head"].as_u64()), (Some("new/space"), Some(0)));
}

#[tokio::test]
async fn a_token_of_a_device_speaks_for_no_other() {
    let mut app = TestApp::start().await;
    app.token = token(&app.store, SPACE, None, Some("till-1"));
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
    app.push_as("till-2", "e1", &[receipt("g2", 1, "r-2")]).await.assert_problem(403, "forbidden");
    app.get("?device=till-2").await.assert_problem(403, "forbidden");
    assert_eq!(app.get("").await.json()["device"]["deviceSeq"], 1);
    assert_eq!(app.digest().head.0, 1);
}

#[tokio::test]
async fn a_token_of_an_actor_sends_no_other_persons_groups() {
    let mut app = TestApp::start().await;
    app.token = token(&app.store, SPACE, Some("ann"), None);
    let groups =
        [receipt("own", 1, "r-1").actor("ann"), receipt("unnamed", 2, "r-2"), receipt("bobs", 3, "r-3").actor("bob")];
    let refused = app.push(&groups).await;
    assert_eq!(refused.json()["pointer"], "/groups/2/actor");
    refused.assert_problem(403, "forbidden");
    assert_eq!(app.digest().head.0, 0, "nothing is decided: with bob's token the group is welcome");
    assert_eq!(app.push(&groups[..2]).await.verdicts(), ["accepted", "accepted"]);
    let log = app.get("/log").await.json();
    assert_eq!((log["groups"][0]["actor"].clone(), log["groups"][1]["actor"].clone()), (json!("ann"), json!("ann")));
    assert_eq!(log["groups"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn tokens_are_not_in_the_store() {
    let app = TestApp::start().await;
    app.get("").await;
    let secret = app.token.strip_prefix("gbt_").unwrap().to_owned();
    assert_eq!(secret.len(), 64);
    if is_on_postgres() {
        let texts =
            app.stored("SELECT string_agg(tokens::text, ' ') || string_agg(encode(hash, 'escape'), ' ') FROM tokens");
        assert!(texts[0].len() > secret.len(), "{texts:?}");
        assert!(!texts[0].contains(&secret));
        return;
    }
    for file in std::fs::read_dir(app.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[tokio::test]
async fn a_prefix_that_several_tokens_share_is_refused() {
    let app = TestApp::start().await;
    let tokens = Tokens::open(&app.store).unwrap();
    for _ in 0..40 {
        token(&app.store, SPACE, None, None);
    }
    let ids: Vec<String> = tokens.list().unwrap().into_iter().map(|token| token.id).collect();
    let first = |digit: char| ids.iter().filter(|id| id.starts_with(digit)).count();
    let shared = "0123456789abcdef".chars().find(|digit| first(*digit) > 1).unwrap();
    assert!(matches!(tokens.revoke(&shared.to_string()), Err(ServerError::AmbiguousToken { .. })));
    assert!(!tokens.revoke("").unwrap());
    assert!(tokens.list().unwrap().iter().all(|token| token.revoked_at.is_none()));
}

#[tokio::test]
async fn the_handshake_says_where_the_space_stands_and_keeps_what_it_is_told() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")]).await;
    let handshake = app.get("?device=till-1&epoch=e2&previousEpoch=e1&previousDeviceSeq=2").await.json();
    assert_eq!((handshake["protocol"].as_u64(), handshake["head"].as_u64()), (Some(1), Some(2)));
    assert_eq!(handshake["device"], json!({"epoch":"e1","deviceSeq":2,"sequences":{}}));
    assert_eq!(handshake["limits"]["requestBytes"], 1_048_576);
    assert!(app.get("?device=unheard-of").await.json()["device"].is_null());
    let told = app.stored("SELECT previous_epoch, previous_seq FROM devices WHERE device = 'till-1' AND epoch = 'e2'");
    assert_eq!(told, ["e1", "2"]);
    assert!(SpaceId::new(handshake["log"].as_str().unwrap()).is_ok());
}
