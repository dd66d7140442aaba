//! `POST /v1/emails`: what is taken, what is refused, and that a key makes it count once.

use axum::body::Body;
use axum::http::{StatusCode, header};
use mail::ids::{DeliveryId, MessageId};
use serde_json::{Value, json};

use crate::platform::{Answer, Platform, email, json_request};

/// The email with one field changed.
fn with(field: &str, value: Value) -> Value {
    let mut email = email();
    email[field] = value;
    email
}

async fn send_with_idempotency(platform: &Platform, key: &str, name: &str, body: &Value) -> Answer {
    let request = json_request(key, "/v1/emails").header("Idempotency-Key", name);
    platform
        .send(request.body(Body::from(body.to_string())).unwrap())
        .await
}

#[tokio::test]
async fn a_message_is_accepted_with_a_delivery_for_each_address() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = json!({
        "from": "Acme <hello@acme.test>", "to": ["Ana <ana@example.com>", "bo@example.org"],
        "cc": "cy@example.net", "bcc": ["ANA <ana@example.com>", "di@bücher.example"],
        "reply_to": "help@acme.test", "subject": "Grüße", "html": "<p>Hi</p>", "text": "Hi",
        "headers": {"X-Order": "7"}, "tags": ["receipt"], "metadata": {"order": "7"},
        "stream": "news", "expires_in": "4h", "require_tls": true
    });
    let answer = platform.accepted(&platform.live_key, &body).await;
    let id: MessageId = answer.id().parse().unwrap();
    assert_eq!(answer.json["status"], "queued");
    let deliveries = answer.json["deliveries"].as_array().unwrap();
    let addresses: Vec<&str> = deliveries
        .iter()
        .map(|d| d["to"].as_str().unwrap())
        .collect();
    let expected = [
        "ana@example.com",
        "bo@example.org",
        "cy@example.net",
        "di@xn--bcher-kva.example",
    ];
    assert_eq!(addresses, expected);
    for (number, delivery) in (0..).zip(deliveries) {
        let delivery_id: DeliveryId = delivery["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(delivery_id, id.delivery(number));
        assert_eq!(delivery["status"], "queued");
    }
    let stored = platform.state.store.contents(&[id]).await.unwrap();
    assert_eq!(stored.len(), 1);
    let text = String::from_utf8_lossy(&stored[0].bytes);
    assert!(text.contains("X-Order: 7\r\n"), "{text}");
    assert!(
        text.contains(&format!("Message-ID: <{}@acme.test>\r\n", id.digits())),
        "{text}"
    );
    assert!(!text.contains("bcher-kva"), "a Bcc never shows: {text}");
    let metrics = platform.state.registry.render();
    assert!(
        metrics.contains("postrider_accepted_messages_total 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("postrider_accepted_deliveries_total 4"),
        "{metrics}"
    );
    let line = "postrider_api_requests_total{route=\"POST /v1/emails\",status=\"202\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_large_message_is_composed_and_kept_whole() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let text = "A line of text that says the same again.\r\n".repeat(20_000);
    let answer = platform
        .accepted(&platform.live_key, &with("text", json!(text)))
        .await;
    let id: MessageId = answer.id().parse().unwrap();
    let stored = platform.state.store.contents(&[id]).await.unwrap();
    assert!(stored[0].bytes.len() > 800_000);
}

#[tokio::test]
async fn a_sender_needs_a_verified_domain_of_the_own_account() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let other_key = platform.other_account("other.test").await;
    let check = async |key: &str, from: &str, words: &str| {
        let answer = platform
            .post(key, "/v1/emails", &with("from", json!(from)))
            .await;
        answer.refused(403, "sender_not_verified");
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
    };
    check(
        &platform.live_key,
        "a@pending.test",
        "pending.test is not verified: publish",
    )
    .await;
    check(
        &platform.live_key,
        "a@unknown.test",
        "unknown.test is not a domain of this",
    )
    .await;
    check(
        &platform.live_key,
        "a@other.test",
        "other.test is not a domain of this",
    )
    .await;
    check(
        &platform.live_key,
        "a@sub.acme.test",
        "sub.acme.test is not a domain",
    )
    .await;
    check(
        &other_key,
        "a@acme.test",
        "acme.test is not a domain of this account",
    )
    .await;
    platform
        .accepted(&platform.live_key, &with("from", json!("a@ACME.test")))
        .await;
}

#[tokio::test]
async fn all_wrong_fields_are_told_at_once() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = json!({"from": "nobody", "to": ["ana@example.com", "x"], "expires_in": "soon"});
    let answer = platform.post(&platform.live_key, "/v1/emails", &body).await;
    answer.refused(422, "validation_failed");
    let expected = [
        ("/from", "invalid_address"),
        ("/to/1", "invalid_address"),
        ("/subject", "required"),
        ("/html", "required"),
        ("/expires_in", "invalid_duration"),
    ];
    assert_eq!(answer.fields(), expected);
    let answer = platform
        .post(
            &platform.live_key,
            "/v1/emails",
            &with("stream", json!("nope")),
        )
        .await;
    assert_eq!(
        answer.refused(422, "validation_failed").fields(),
        [("/stream", "unknown_stream")]
    );
}

#[tokio::test]
async fn no_field_takes_control_characters_where_they_could_do_harm() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    // Subject, addresses, headers, tags and keys end up in lines; NUL goes nowhere at all.
    let injections = ["a\r\nBcc: x@evil.test", "a\nb", "a\rb", "a\0b"];
    for text in injections {
        let bodies = [
            with("from", json!(format!("{text} <hello@acme.test>"))),
            with("from", json!(format!("hello{text}@acme.test"))),
            with("to", json!([format!("{text} <ana@example.com>")])),
            with("cc", json!([format!("ana@example.com{text}")])),
            with("bcc", json!(format!("\"{text}\"@example.com"))),
            with("reply_to", json!(format!("{text} <a@example.com>"))),
            with("subject", json!(text)),
            with("headers", json!({"X-A": text})),
            with("headers", json!({text: "a"})),
            with("tags", json!([text])),
            with("metadata", json!({text: "a"})),
            with("stream", json!(text)),
            with("expires_in", json!(text)),
            with(text, json!("a")),
        ];
        for body in bodies {
            let answer = platform.post(&platform.live_key, "/v1/emails", &body).await;
            answer.refused(422, "validation_failed");
            assert!(!answer.fields().is_empty(), "{body}");
        }
    }
    for field in ["html", "text"] {
        let answer = platform
            .post(
                &platform.live_key,
                "/v1/emails",
                &with(field, json!("a\0b")),
            )
            .await;
        answer.refused(422, "validation_failed");
    }
    let nul = with("metadata", json!({"a": "b\0"}));
    platform
        .post(&platform.live_key, "/v1/emails", &nul)
        .await
        .refused(422, "validation_failed");
}

#[tokio::test]
async fn headers_of_the_platform_cannot_be_set() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    for name in [
        "Bcc",
        "from",
        "Message-ID",
        "DKIM-Signature",
        "Return-Path",
        "Received",
        "Date",
    ] {
        let body = with("headers", json!({name: "x"}));
        let answer = platform.post(&platform.live_key, "/v1/emails", &body).await;
        let pointer = format!("/headers/{name}");
        let expected = [(pointer.as_str(), "reserved_header")];
        assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
    }
}

#[tokio::test]
async fn a_message_has_a_bounded_number_of_recipients_and_a_bounded_size() {
    let change = |config: &mut api::ApiConfig| config.message_max_octets = 10_000;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let many: Vec<String> = (0..51)
        .map(|number| format!("a{number}@example.com"))
        .collect();
    let answer = platform
        .post(&platform.live_key, "/v1/emails", &with("to", json!(many)))
        .await;
    assert_eq!(
        answer.refused(422, "validation_failed").fields(),
        [("/to", "too_many_recipients")]
    );
    let long = with("text", json!("word ".repeat(3_000)));
    let answer = platform.post(&platform.live_key, "/v1/emails", &long).await;
    answer.refused(413, "message_too_large");
}

#[tokio::test]
async fn the_same_key_and_body_count_once() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let first = send_with_idempotency(&platform, key, "order-7", &email()).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let second = send_with_idempotency(&platform, key, "order-7", &email()).await;
    assert_eq!(second.status, StatusCode::ACCEPTED);
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_eq!(second.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(second.octets, first.octets);
    let other_body = with("subject", json!("Other"));
    send_with_idempotency(&platform, key, "order-7", &other_body)
        .await
        .refused(409, "idempotency_mismatch");
    let other_key = send_with_idempotency(&platform, key, "order-8", &email()).await;
    assert_ne!(other_key.id(), first.id());
    let test_mode = send_with_idempotency(&platform, &platform.test_key, "order-7", &email()).await;
    assert!(!test_mode.headers.contains_key("idempotent-replayed"));
    let other_account = platform.other_account("other.test").await;
    let other_sender = with("from", json!("hello@other.test"));
    let stranger = send_with_idempotency(&platform, &other_account, "order-7", &other_sender).await;
    assert_ne!(stranger.id(), first.id());
    let no_key = "two words";
    send_with_idempotency(&platform, key, no_key, &email())
        .await
        .refused(400, "invalid_idempotency_key");
}

#[tokio::test]
async fn requests_at_the_same_moment_with_one_key_count_once() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = email();
    let key = &platform.live_key;
    let one = || send_with_idempotency(&platform, key, "rush", &body);
    let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
    for answer in [&b, &c, &d] {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
        assert_eq!(answer.id(), a.id());
    }
}

#[tokio::test]
async fn a_test_key_sends_to_the_sandbox_or_not_at_all() {
    let Some(platform) = Platform::start_with(|config| config.sandbox_available = false).await
    else {
        return;
    };
    let answer = platform
        .post(&platform.test_key, "/v1/emails", &email())
        .await;
    answer.refused(422, "sandbox_unavailable");
    platform.accepted(&platform.live_key, &email()).await;
}
