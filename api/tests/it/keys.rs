//! Who may ask: keys, their scopes, their end; and that errors look alike.

use std::time::Duration;

use api::keys::{KeyMode, generate};
use axum::body::Body;
use axum::http::{Method, Request, header};

use crate::platform::{ALL_SCOPES, Platform, email, insert_key, json_request, with_key};

const UNKNOWN: &str = "/v1/emails/msg_01kasxq2bke9qa1bz2t0zc6800";

#[tokio::test]
async fn without_a_key_the_answer_says_how_to_send_one() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let answer = platform
        .send(Request::get(UNKNOWN).body(Body::empty()).unwrap())
        .await;
    answer.refused(401, "missing_api_key");
    assert_eq!(
        answer.headers[header::WWW_AUTHENTICATE],
        "Bearer realm=\"postrider\""
    );
    let detail = answer.json["detail"].as_str().unwrap();
    assert!(
        detail.contains("Authorization: Bearer pr_live_"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_the_body_is_read() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let unknown = generate(KeyMode::Live, [3; 32]).secret;
    for key in [
        "",
        "pr_live_",
        "x",
        &unknown,
        &platform.live_key.to_uppercase(),
    ] {
        let request = json_request(key, "/v1/emails")
            .body(Body::from("not json"))
            .unwrap();
        let answer = platform.send(request).await;
        answer.refused(401, "invalid_api_key");
        let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
}

#[tokio::test]
async fn revoked_and_expired_keys_are_refused() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (state, account) = (&platform.state, &platform.account);
    let now = state.clock.now();
    let (id, key) = insert_key(state, account, KeyMode::Live, ALL_SCOPES, None).await;
    platform.accepted(&key, &email()).await;
    let of = store::KeysOf {
        account: account.no,
        only_test: false,
        within_domains: None,
    };
    state.store.revoke_key(of, id, now).await.unwrap();
    platform
        .get(&key, UNKNOWN)
        .await
        .refused(401, "invalid_api_key");

    let past = now - Duration::from_secs(1);
    let (_, key) = insert_key(state, account, KeyMode::Live, ALL_SCOPES, Some(past)).await;
    platform
        .get(&key, UNKNOWN)
        .await
        .refused(401, "invalid_api_key");
    let future = now + Duration::from_secs(3600);
    let (_, key) = insert_key(state, account, KeyMode::Live, ALL_SCOPES, Some(future)).await;
    platform.get(&key, UNKNOWN).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let reader = platform.key_with(&["emails:read"]).await;
    let answer = platform.post(&reader, "/v1/emails", &email()).await;
    answer.refused(403, "missing_scope");
    let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("scope=\"emails:send\""), "{challenge}");
    platform
        .get(&reader, UNKNOWN)
        .await
        .refused(404, "not_found");
    platform
        .get(&reader, "/v1/webhooks")
        .await
        .refused(403, "missing_scope");

    let sender = platform.key_with(&["emails:send"]).await;
    platform.accepted(&sender, &email()).await;
    platform
        .get(&sender, UNKNOWN)
        .await
        .refused(403, "missing_scope");
    platform
        .get(&sender, "/v1/sandbox/messages")
        .await
        .refused(403, "missing_scope");

    let area = platform.key_with(&["emails:*"]).await;
    platform.accepted(&area, &email()).await;
    let nothing = platform.key_with(&[]).await;
    platform
        .get(&nothing, UNKNOWN)
        .await
        .refused(403, "missing_scope");
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_problems_too() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    for path in [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/emails/",
        "/v1/emails/a/b",
        "/inbox?token=",
    ] {
        platform
            .get(&platform.live_key, path)
            .await
            .refused(404, "not_found");
    }
    let answer = platform
        .get(&platform.live_key, "/v1/emails/actions/")
        .await;
    answer.refused(404, "not_found");
    let path = "/v1/domains/dom_01kasxq2bke9qa1bz2t0zc6m4d/verify";
    let answer = platform.get(&platform.live_key, path).await;
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.headers[header::ALLOW], "POST");
    let invented = Method::from_bytes(b"INVENTED").unwrap();
    let request = with_key(&platform.live_key, invented, "/v1/webhooks").body(Body::empty());
    platform
        .send(request.unwrap())
        .await
        .refused(405, "method_not_allowed");
    let metrics = platform.state.registry.render();
    assert!(
        metrics.contains("route=\"other /v1/webhooks\",status=\"405\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("route=\"unmatched\",status=\"404\""),
        "{metrics}"
    );
    assert!(
        !metrics.contains("nothing") && !metrics.contains("INVENTED"),
        "{metrics}"
    );
}
