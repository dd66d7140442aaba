//! No operation of the document is open to a key that has ended, is used from elsewhere, lacks the
//! scope or has asked too often. What a handler does itself is not reached here.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use api::keys::{KeyMode, generate};
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};

use crate::api_keys::{made, one, wanted};
use crate::platform::{ALL_SCOPES, Answer, Platform, email, insert_key, with_key};

/// An operation that needs a key.
struct Operation {
    name: String,
    method: Method,
    path: String,
    scope: String,
}

/// All of them, with a word in place of each id.
fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(api::openapi_document()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(scope) = operation["security"][0]["api_key"][0].as_str() else {
                continue;
            };
            found.push(Operation {
                name: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                path: path.replace(['{', '}'], ""),
                scope: scope.to_owned(),
            });
        }
    }
    assert!(found.len() >= 38, "{} operations", found.len());
    found
}

impl Operation {
    /// Without a body, and from an address if one is given.
    async fn ask(&self, platform: &Platform, key: &str, peer: Option<&str>) -> Answer {
        let request = with_key(key, self.method.clone(), &self.path);
        // An address of the key's networks, as anybody can write it.
        let request = request.header("x-forwarded-for", "192.0.2.1");
        let mut request = request.body(Body::empty()).unwrap();
        if let Some(peer) = peer {
            let peer: SocketAddr = peer.parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        platform.send(request).await
    }

    #[track_caller]
    fn expect(&self, answer: &Answer, status: u16, code: &str) {
        let found = (answer.status.as_u16(), answer.code());
        assert_eq!(found, (status, code), "{}: {}", self.name, answer.json);
    }
}

async fn revoked(platform: &Platform) -> String {
    let (key, answer) = made(platform, &platform.live_key, &wanted(ALL_SCOPES)).await;
    let gone = platform.delete(&platform.live_key, &one(&answer)).await;
    assert_eq!(gone.status, 204);
    key
}

async fn rotated_out(platform: &Platform) -> String {
    let (key, answer) = made(platform, &platform.live_key, &wanted(ALL_SCOPES)).await;
    let rotate = format!("{}/rotate", one(&answer));
    let body = json!({"overlap": "0s"});
    let rotated = platform.post(&platform.live_key, &rotate, &body).await;
    assert_eq!(rotated.status, 200, "{}", rotated.json);
    key
}

async fn expired(platform: &Platform) -> String {
    let end = platform.state.clock.now() - std::time::Duration::from_secs(1);
    let (state, account) = (&platform.state, &platform.account);
    insert_key(state, account, KeyMode::Live, ALL_SCOPES, Some(end))
        .await
        .1
}

async fn made_with(platform: &Platform, field: &str, value: Value) -> String {
    let mut body = wanted(ALL_SCOPES);
    body[field] = value;
    made(platform, &platform.live_key, &body).await.0
}

#[tokio::test]
async fn no_operation_is_open_to_a_key_that_may_not_be_used() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let ended = [
        generate(KeyMode::Live, [7; 32]).secret,
        revoked(&platform).await,
        rotated_out(&platform).await,
        expired(&platform).await,
    ];
    let local = made_with(&platform, "networks", json!(["192.0.2.0/24"])).await;
    for operation in operations() {
        let bare = Request::builder()
            .method(operation.method.clone())
            .uri(&operation.path);
        let answer = platform.send(bare.body(Body::empty()).unwrap()).await;
        operation.expect(&answer, 401, "missing_api_key");
        assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
        for key in &ended {
            let answer = operation.ask(&platform, key, None).await;
            operation.expect(&answer, 401, "invalid_api_key");
        }
        for elsewhere in [None, Some("198.51.100.1:9"), Some("[2001:db8::1]:9")] {
            let answer = operation.ask(&platform, &local, elsewhere).await;
            operation.expect(&answer, 403, "network_not_allowed");
        }
        let answer = operation.ask(&platform, &local, Some("192.0.2.7:9")).await;
        assert_ne!(answer.code(), "network_not_allowed", "{}", operation.name);
    }
}

#[tokio::test]
async fn every_operation_is_shut_to_a_disabled_account_until_it_is_enabled() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let sent = platform.accepted(&platform.live_key, &email()).await;
    let (store, account) = (&platform.state.store, platform.account.no);
    let now = platform.state.clock.now();
    store
        .set_account_disabled(account, true, now)
        .await
        .unwrap();
    for operation in operations() {
        for key in [&platform.live_key, &platform.test_key] {
            let answer = operation.ask(&platform, key, None).await;
            operation.expect(&answer, 403, "account_disabled");
        }
        let answer = operation.ask(&platform, &stranger, None).await;
        assert_ne!(answer.code(), "account_disabled", "{}", operation.name);
    }
    store
        .set_account_disabled(account, false, now)
        .await
        .unwrap();
    // What was accepted stayed in the queue, and the keys are what they were.
    let path = format!("/v1/emails/{}", sent.id());
    let shown = platform.get(&platform.live_key, &path).await;
    assert_eq!(shown.json["status"], "queued", "{}", shown.json);
}

#[tokio::test]
async fn every_operation_needs_its_scope_and_says_so() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let scopes: Vec<String> = operations().into_iter().map(|one| one.scope).collect();
    for scope in ALL_SCOPES {
        assert!(scopes.iter().any(|needed| needed == scope), "{scope}");
    }
    for operation in operations() {
        let rest: Vec<&str> = ALL_SCOPES
            .iter()
            .copied()
            .filter(|scope| *scope != operation.scope)
            .collect();
        assert_eq!(rest.len() + 1, ALL_SCOPES.len(), "{}", operation.name);
        let without = platform.key_with(&rest).await;
        let answer = operation.ask(&platform, &without, None).await;
        operation.expect(&answer, 403, "missing_scope");

        // With it, what is left to refuse is the request; and every answer shows the limits.
        let with = platform.key_with(&[&operation.scope]).await;
        let answer = operation.ask(&platform, &with, None).await;
        assert!(
            !matches!(answer.status.as_u16(), 401 | 403 | 429 | 500..),
            "{}: {}",
            operation.name,
            answer.json
        );
        for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
            assert!(answer.headers.contains_key(name), "{}", operation.name);
        }
    }
}

#[tokio::test]
async fn test_keys_and_keys_of_some_domains_reach_only_what_can_be_told_apart() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let of_acme = made_with(&platform, "domains", json!(["acme.test"])).await;
    for operation in operations() {
        let (test, domain) = match operation.scope.as_str() {
            "emails:send" | "emails:read" | "keys:*" => (true, true),
            "domains:*" => (false, true),
            "webhooks:*" | "suppressions:*" => (false, false),
            // Decide it, and say so in docs/decisions/0007-rate-limits.md.
            other => panic!("{} needs {other}", operation.name),
        };
        let answer = operation.ask(&platform, &platform.test_key, None).await;
        let refused = answer.code() == "test_key_not_allowed";
        assert_eq!(!refused, test, "{}: {}", operation.name, answer.json);
        let answer = operation.ask(&platform, &of_acme, None).await;
        let refused = answer.code() == "domain_not_allowed";
        assert_eq!(!refused, domain, "{}: {}", operation.name, answer.json);
    }
}

#[tokio::test]
async fn every_operation_counts() {
    let change = |config: &mut api::ApiConfig| {
        config.rate_limits.account_per_second = 0;
        config.rate_limits.key_per_second = 1;
        config.rate_limits.key_burst = NonZeroU32::MIN;
    };
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    for operation in operations() {
        // A key for each: the second of two requests within a second is one too many.
        let key = platform.key_with(&[&operation.scope]).await;
        let mut refused = None;
        for _ in 0..20 {
            let answer = operation.ask(&platform, &key, None).await;
            if answer.status == 429 {
                refused = Some(answer);
                break;
            }
        }
        let answer = refused.unwrap_or_else(|| panic!("{} is not counted", operation.name));
        operation.expect(&answer, 429, "rate_limited");
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(answer.headers["ratelimit-remaining"], "0");
    }
}
