//! What an API key cannot do: make a stronger one, see another account's or, as a test key, live
//! ones, send from other domains, be used from other networks.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::api_keys::{PATH, UNKNOWN_EMAIL, made, one, wanted};
use crate::platform::{Answer, Platform, email, json_request, with_key};

const UNKNOWN_KEY: &str = "/v1/api-keys/key_01kasxq2bke9qa1bz2t0zc6m4d";

/// A GET that comes from `peer`, perhaps through proxies.
async fn get_from(platform: &Platform, key: &str, peer: &str, forwarded: Option<&str>) -> Answer {
    let mut request = with_key(key, Method::GET, UNKNOWN_EMAIL);
    if let Some(forwarded) = forwarded {
        request = request.header("x-forwarded-for", forwarded);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let peer: SocketAddr = peer.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    platform.send(request).await
}

#[tokio::test]
async fn no_key_makes_a_stronger_one() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let owner = &platform.live_key;
    let body = json!({
        "name": "deputy", "scopes": ["keys:*", "emails:send"], "domains": ["acme.test"],
        "networks": ["192.0.2.0/24"], "expires_in": "1h"
    });
    let (deputy, _) = made(&platform, owner, &body).await;
    let post = async |body: &Value| {
        let request = json_request(&deputy, PATH);
        let mut request = request.body(Body::from(body.to_string())).unwrap();
        let peer: SocketAddr = "192.0.2.7:4000".parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        platform.send(request).await
    };
    let answer =
        post(&json!({"name": "x", "scopes": ["emails:*", "emails:send", "admin:*"]})).await;
    let expected = [
        ("/scopes/0", "key_escalation"),
        ("/scopes/2", "key_escalation"),
        ("/domains", "key_escalation"),
        ("/networks", "key_escalation"),
        ("/expires_at", "key_escalation"),
    ];
    assert_eq!(answer.refused(403, "key_escalation").fields(), expected);
    let answer = post(&json!({
        "name": "x", "scopes": ["emails:send"], "domains": ["acme.test", "pending.test"],
        "networks": ["192.0.2.128/25", "192.0.0.0/16"], "expires_in": "2h"
    }))
    .await;
    let expected = [
        ("/domains/1", "key_escalation"),
        ("/networks/1", "key_escalation"),
        ("/expires_at", "key_escalation"),
    ];
    assert_eq!(answer.refused(403, "key_escalation").fields(), expected);
    let answer = post(&json!({
        "name": "x", "scopes": ["emails:send"], "domains": ["acme.test"],
        "networks": ["192.0.2.9"], "expires_in": "10m"
    }))
    .await;
    assert_eq!(answer.status, 201, "{}", answer.json);
    assert_eq!(answer.json["networks"], json!(["192.0.2.9/32"]));

    // Nor does it get the secret of a stronger one.
    let (_, strong) = made(&platform, owner, &wanted(&["emails:send"])).await;
    let keeper = platform.key_with(&["keys:*"]).await;
    let rotate = format!("{}/rotate", one(&strong));
    let answer = platform.post(&keeper, &rotate, &json!({})).await;
    assert_eq!(
        answer.refused(403, "key_escalation").fields(),
        [("/scopes/0", "key_escalation")]
    );
    let plain = platform.key_with(&["emails:send"]).await;
    for answer in [
        platform.post(&plain, PATH, &wanted(&["emails:send"])).await,
        platform.get(&plain, PATH).await,
        platform.get(&plain, &one(&strong)).await,
        platform.delete(&plain, &one(&strong)).await,
        platform.post(&plain, &rotate, &json!({})).await,
    ] {
        answer.refused(403, "missing_scope");
    }
    let without = Request::get(PATH).body(Body::empty()).unwrap();
    platform.send(without).await.refused(401, "missing_api_key");
}

#[tokio::test]
async fn a_test_key_has_to_do_with_test_keys_only() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (owner, tester) = (&platform.live_key, &platform.test_key);
    let (_, live) = made(&platform, owner, &wanted(&["emails:send"])).await;
    assert_eq!(live.json["test"], false);
    let (key, test) = made(&platform, tester, &wanted(&["emails:send"])).await;
    assert!(key.starts_with("pr_test_"), "{key}");
    let body = json!({"name": "x", "scopes": ["emails:send"], "test": false});
    let answer = platform.post(tester, PATH, &body).await;
    assert_eq!(
        answer.refused(403, "key_escalation").fields(),
        [("/test", "key_escalation")]
    );
    for answer in [
        platform.get(tester, &one(&live)).await,
        platform.delete(tester, &one(&live)).await,
        platform
            .post(tester, &format!("{}/rotate", one(&live)), &json!({}))
            .await,
    ] {
        answer.refused(404, "not_found");
    }
    let listed = platform.get(tester, PATH).await;
    let listed = listed.json["data"].as_array().unwrap();
    assert!(
        listed.len() == 2 && listed.iter().all(|key| key["test"] == true),
        "{listed:?}"
    );
    assert_eq!(platform.get(owner, &one(&test)).await.status, 200);
    let body = json!({"name": "x", "scopes": ["emails:send"], "test": true});
    assert!(
        made(&platform, owner, &body)
            .await
            .0
            .starts_with("pr_test_")
    );
}

#[tokio::test]
async fn strangers_learn_nothing() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let (_, own) = made(&platform, &platform.live_key, &wanted(&["emails:send"])).await;
    for path in [
        &one(&own),
        UNKNOWN_KEY,
        "/v1/api-keys/msg_01kasxq2bke9qa1bz2t0zc6800",
        "/v1/api-keys/%00",
    ] {
        let rotate = format!("{path}/rotate");
        let answers = [
            platform.get(&stranger, path).await,
            platform.delete(&stranger, path).await,
            platform
                .post(&stranger, &rotate, &json!({"overlap": "0s"}))
                .await,
        ];
        for answer in &answers {
            answer.refused(404, "not_found");
            assert_eq!(answer.json["detail"], answers[0].json["detail"]);
        }
    }
    let listed = platform.get(&stranger, PATH).await;
    assert_eq!(listed.json["data"].as_array().unwrap().len(), 1);
    let body = json!({"name": "x", "scopes": ["emails:send"], "domains": ["acme.test"]});
    let answer = platform.post(&stranger, PATH, &body).await;
    assert_eq!(
        answer.refused(422, "validation_failed").fields(),
        [("/domains/0", "unknown_domain")]
    );
    let kept = platform.get(&platform.live_key, &one(&own)).await;
    assert_eq!(kept.json["status"], "active");
}

#[tokio::test]
async fn a_key_sends_from_its_domains_only() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let restricted = json!({"name": "x", "scopes": ["emails:send"], "domains": ["pending.test"]});
    let (key, _) = made(&platform, &platform.live_key, &restricted).await;
    let answer = platform.post(&key, "/v1/emails", &email()).await;
    answer.refused(403, "domain_not_allowed");
    let mut other = email();
    other["from"] = json!("x@pending.test");
    let answer = platform.post(&key, "/v1/emails", &other).await;
    answer.refused(403, "sender_not_verified");

    let domains = platform
        .state
        .store
        .sender_domains(platform.account.no)
        .await
        .unwrap();
    let id = domains.iter().find(|domain| domain.verified).unwrap().id;
    let by_id = json!({"name": "x", "scopes": ["emails:send"], "domains": [id.to_string()]});
    let (key, answer) = made(&platform, &platform.live_key, &by_id).await;
    assert_eq!(answer.json["domains"], json!(["acme.test"]));
    platform.accepted(&key, &email()).await;
}

#[tokio::test]
async fn a_key_is_used_from_its_networks_only() {
    let change = |config: &mut api::ApiConfig| {
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    };
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let body = json!({"name": "x", "scopes": ["emails:read"], "networks": ["192.0.2.0/24", "2001:db8::/32"]});
    let (key, _) = made(&platform, &platform.live_key, &body).await;
    let check = async |peer: &str, forwarded: Option<&str>, good: bool| {
        let answer = get_from(&platform, &key, peer, forwarded).await;
        match good {
            true => answer.refused(404, "not_found"),
            false => answer.refused(403, "network_not_allowed"),
        };
    };
    check("192.0.2.1:1", None, true).await;
    check("[2001:db8:7::1]:1", None, true).await;
    check("[::ffff:192.0.2.1]:1", None, true).await;
    check("198.51.100.1:1", None, false).await;
    // Only proxies of ours are believed, and only about the address they saw.
    check("198.51.100.1:1", Some("192.0.2.1"), false).await;
    check("10.0.0.1:1", Some("192.0.2.1"), true).await;
    check("10.0.0.1:1", Some("192.0.2.1, 198.51.100.1"), false).await;
    check(
        "10.0.0.1:1",
        Some("198.51.100.1, 192.0.2.1, 10.0.0.2"),
        true,
    )
    .await;
    check("10.0.0.1:1", Some("192.0.2.1, nonsense"), false).await;
    check("10.0.0.1:1", None, false).await;
    // Where nobody knows the address, a restricted key is of no use.
    platform
        .get(&key, UNKNOWN_EMAIL)
        .await
        .refused(403, "network_not_allowed");
    platform
        .get(&platform.live_key, UNKNOWN_EMAIL)
        .await
        .refused(404, "not_found");
}
