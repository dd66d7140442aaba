//! API keys as their account manages them: shown once, listed, rotated without a gap, revoked.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use crate::platform::{Answer, Platform, email, with_key};

pub(crate) const PATH: &str = "/v1/api-keys";
pub(crate) const UNKNOWN_EMAIL: &str = "/v1/emails/msg_01kasxq2bke9qa1bz2t0zc6800";

pub(crate) fn wanted(scopes: &[&str]) -> Value {
    json!({"name": "ci", "scopes": scopes})
}

pub(crate) async fn made(platform: &Platform, by: &str, body: &Value) -> (String, Answer) {
    let answer = platform.post(by, PATH, body).await;
    assert_eq!(answer.status, 201, "{}", answer.json);
    (answer.json["key"].as_str().unwrap().to_owned(), answer)
}

pub(crate) fn one(answer: &Answer) -> String {
    format!("{PATH}/{}", answer.id())
}

#[tokio::test]
async fn a_key_is_shown_once_works_and_can_be_revoked() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let owner = &platform.live_key;
    let body = json!({
        "name": " Shop ", "scopes": ["emails:send", "emails:read", "emails:send"],
        "domains": ["ACME.test"], "expires_in": "30d"
    });
    let (key, answer) = made(&platform, owner, &body).await;
    assert!(key.starts_with("pr_live_") && key.len() == 60, "{key}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let location = format!("http://127.0.0.1:8080{PATH}/{}", answer.id());
    assert_eq!(answer.headers["location"], location);
    assert_eq!(answer.json["name"], "Shop");
    assert_eq!(answer.json["scopes"], json!(["emails:send", "emails:read"]));
    assert_eq!(answer.json["domains"], json!(["acme.test"]));
    assert_eq!(answer.json["networks"], Value::Null);
    assert_eq!(answer.json["status"], "active");
    assert!(key.ends_with(&answer.json["hint"].as_str().unwrap()[11..]));
    platform.accepted(&key, &email()).await;

    let shown = platform.get(owner, &one(&answer)).await;
    let mut expected = answer.json.clone();
    expected.as_object_mut().unwrap().remove("key");
    assert_eq!(shown.json, expected);
    assert!(!String::from_utf8_lossy(&shown.octets).contains(&key[8..]));
    let listed = platform.get(owner, PATH).await;
    let data = listed.json["data"].as_array().unwrap();
    assert_eq!(data.len(), 3, "two of the set-up and this one");
    assert!(data.contains(&expected));
    let first = platform.get(owner, &format!("{PATH}?limit=1")).await;
    let next = format!(
        "{PATH}?limit=2&after={}",
        first.json["next"].as_str().unwrap()
    );
    let rest = platform.get(owner, &next).await;
    assert_eq!(
        (rest.json["has_more"].clone(), rest.json["data"][1].clone()),
        (json!(false), expected)
    );

    for _ in 0..2 {
        let gone = platform.delete(owner, &one(&answer)).await;
        assert_eq!((gone.status.as_u16(), gone.octets.len()), (204, 0));
    }
    platform
        .get(&key, UNKNOWN_EMAIL)
        .await
        .refused(401, "invalid_api_key");
    let shown = platform.get(owner, &one(&answer)).await;
    assert_eq!(shown.json["status"], "revoked");
}

#[tokio::test]
async fn a_rotation_leaves_time_to_move() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let owner = &platform.live_key;
    let (first, answer) = made(&platform, owner, &wanted(&["emails:read"])).await;
    let rotate = format!("{}/rotate", one(&answer));
    platform
        .get(&first, UNKNOWN_EMAIL)
        .await
        .refused(404, "not_found");

    // Without a body: a day.
    let bare = with_key(owner, Method::POST, &rotate)
        .body(Body::empty())
        .unwrap();
    let rotated = platform.send(bare).await;
    assert_eq!(rotated.status, 200, "{}", rotated.json);
    assert_eq!(rotated.headers["cache-control"], "no-store");
    assert_eq!(rotated.id(), answer.id());
    let untyped = with_key(owner, Method::POST, &rotate).body(Body::from("{}"));
    let answer_to_untyped = platform.send(untyped.unwrap()).await;
    answer_to_untyped.refused(415, "unsupported_media_type");
    let second = rotated.json["key"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert!(rotated.json["previous_valid_until"].is_string());
    for key in [&first, &second] {
        platform
            .get(key, UNKNOWN_EMAIL)
            .await
            .refused(404, "not_found");
    }
    // The old secret ends first, so it cannot make the new one its own.
    let (manager, manager_answer) = made(&platform, owner, &wanted(&["keys:*"])).await;
    let own = format!("{}/rotate", one(&manager_answer));
    let by_itself = platform
        .post(&manager, &own, &json!({"overlap": "1h"}))
        .await;
    assert_eq!(by_itself.status, 200, "{}", by_itself.json);
    platform
        .post(&manager, &own, &json!({}))
        .await
        .refused(403, "key_escalation");

    let rotated = platform
        .post(owner, &rotate, &json!({"overlap": "0s"}))
        .await;
    let third = rotated.json["key"].as_str().unwrap();
    assert_eq!(rotated.json["previous_valid_until"], Value::Null);
    for key in [&first, &second] {
        platform
            .get(key, UNKNOWN_EMAIL)
            .await
            .refused(401, "invalid_api_key");
    }
    platform
        .get(third, UNKNOWN_EMAIL)
        .await
        .refused(404, "not_found");
    for overlap in ["31d", "soon", "", "-1s", "99999999999999999999d"] {
        let answer = platform
            .post(owner, &rotate, &json!({"overlap": overlap}))
            .await;
        let fields = answer.refused(422, "validation_failed").fields();
        assert_eq!(fields, [("/overlap", "invalid_duration")], "{overlap}");
    }
    let answer = platform
        .post(owner, &rotate, &json!({"overlaps": "1h"}))
        .await;
    assert_eq!(
        answer.refused(422, "validation_failed").fields(),
        [("/overlaps", "unknown_field")]
    );
    platform
        .delete(owner, &one(&answer_of(&platform, owner, third).await))
        .await;
    platform
        .post(owner, &rotate, &json!({}))
        .await
        .refused(409, "key_ended");
}

/// The listed key with the hint of this secret, as an answer of its own.
async fn answer_of(platform: &Platform, owner: &str, secret: &str) -> Answer {
    let listed = platform.get(owner, PATH).await;
    let tail = &secret[secret.len() - 4..];
    let data = listed.json["data"].as_array().unwrap();
    let found = data
        .iter()
        .find(|key| key["hint"].as_str().unwrap().ends_with(tail));
    let id = found.unwrap()["id"].as_str().unwrap();
    platform.get(owner, &format!("{PATH}/{id}")).await
}

#[tokio::test]
async fn wrong_requests_are_told_all_that_is_wrong() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let owner = &platform.live_key;
    let check = async |body: Value, expected: &[(&str, &str)]| {
        let answer = platform.post(owner, PATH, &body).await;
        let fields = answer.refused(422, "validation_failed").fields();
        assert_eq!(fields, expected, "{body}");
    };
    check(json!({}), &[("/name", "required"), ("/scopes", "required")]).await;
    let body = json!({
        "name": "a\r\nb", "scopes": ["emails:sned", "emails:send", "*", "emails:send\0"],
        "domains": ["", "acme.test", "\0", "a@b"], "expires_at": "tomorrow",
        "networks": ["10.0.0.0/33", "10.0.0.0/8\n", "lo", "::ffff:10.0.0.0/104", "10.0.0.0/8"]
    });
    let expected = [
        ("/name", "control_character"),
        ("/scopes/0", "unknown_scope"),
        ("/scopes/2", "unknown_scope"),
        ("/scopes/3", "unknown_scope"),
        ("/domains/0", "unknown_domain"),
        ("/domains/2", "unknown_domain"),
        ("/domains/3", "unknown_domain"),
        ("/networks/0", "invalid_network"),
        ("/networks/1", "invalid_network"),
        ("/networks/2", "invalid_network"),
        ("/networks/3", "invalid_network"),
        ("/expires_at", "invalid_time"),
    ];
    check(body, &expected).await;
    let good = |field: &str, value: Value| {
        let mut body = wanted(&["emails:send"]);
        body[field] = value;
        body
    };
    check(
        good("name", json!("x\0")),
        &[("/name", "control_character")],
    )
    .await;
    check(good("name", json!("  ")), &[("/name", "required")]).await;
    check(
        good("name", json!("é".repeat(101))),
        &[("/name", "too_long")],
    )
    .await;
    check(good("scopes", json!([])), &[("/scopes", "required")]).await;
    check(
        good("scopes", json!(vec!["emails:send"; 51])),
        &[("/scopes", "too_many")],
    )
    .await;
    check(
        good("scopes", json!(vec!["x"; 100_000])),
        &[("/scopes", "too_many")],
    )
    .await;
    check(good("domains", json!([])), &[("/domains", "required")]).await;
    check(good("networks", json!([])), &[("/networks", "required")]).await;
    check(
        good("networks", json!(vec!["10.0.0.0/8"; 51])),
        &[("/networks", "too_many")],
    )
    .await;
    for end in ["2001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
        check(
            good("expires_at", json!(end)),
            &[("/expires_at", "out_of_range")],
        )
        .await;
    }
    for life in ["0s", "3651d"] {
        check(
            good("expires_in", json!(life)),
            &[("/expires_in", "out_of_range")],
        )
        .await;
    }
    for life in ["1w", "184467440737095516d", "100000000000000d"] {
        check(
            good("expires_in", json!(life)),
            &[("/expires_in", "invalid_duration")],
        )
        .await;
    }
    let mut both = good("expires_in", json!("1d"));
    both["expires_at"] = json!("2100-01-01T00:00:00Z");
    check(both, &[("/expires_in", "conflicting")]).await;
    check(good("id", json!("x")), &[("/id", "unknown_field")]).await;
    check(
        good("networks", Value::Null),
        &[("/networks", "invalid_type")],
    )
    .await;
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_keys() {
    let Some(platform) = Platform::start_with(|config| config.api_keys_max = 3).await else {
        return;
    };
    let owner = &platform.live_key;
    let (_, answer) = made(&platform, owner, &wanted(&["emails:send"])).await;
    let refused = platform.post(owner, PATH, &wanted(&["emails:send"])).await;
    refused.refused(409, "too_many_keys");
    platform.delete(owner, &one(&answer)).await;
    made(&platform, owner, &wanted(&["emails:send"])).await;
}

#[tokio::test]
async fn the_last_use_is_written_down_after_a_while() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (key, answer) = made(&platform, &platform.live_key, &wanted(&["emails:read"])).await;
    let shown = platform.get(&platform.live_key, &one(&answer)).await;
    assert_eq!(shown.json["last_used_at"], Value::Null);
    platform
        .get(&key, UNKNOWN_EMAIL)
        .await
        .refused(404, "not_found");
    // The server writes what was noted, whichever way the request came in.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = service::shutdown::Shutdown::new();
    let running = tokio::spawn(api::run(platform.state.clone(), listener, shutdown.clone()));
    let started = Instant::now();
    loop {
        let shown = platform.get(&platform.live_key, &one(&answer)).await;
        if shown.json["last_used_at"].is_string() {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{}",
            shown.json
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shutdown.request();
    running.await.unwrap();
}

#[tokio::test]
async fn every_scope_of_the_document_can_be_given() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let document = serde_json::to_value(api::openapi_document()).unwrap();
    let text = document["paths"].to_string();
    let mut scopes: Vec<&str> = text
        .split(r#""api_key":[""#)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    assert!(scopes.len() >= 4, "{scopes:?}");
    let able = platform
        .key_with(&[&scopes[..], &["keys:*"]].concat())
        .await;
    made(&platform, &able, &wanted(&scopes)).await;
}
