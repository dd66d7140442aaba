//! `POST /v1/emails/batch` and variables: what is refused, and with which words.

use axum::body::Body;
use axum::http::StatusCode;
use mail::ids::MessageId;
use serde_json::{Value, json};

use crate::batch::{PATH, STRICT, newsletter};
use crate::platform::{Platform, email, json_request};

#[tokio::test]
async fn a_single_email_may_have_variables_too() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let mut body = email();
    body["subject"] = json!("Hi {{ name }}");
    body["html"] = json!("<p>{{ name }}{% if vip %}!{% endif %}</p>");
    body["variables"] = json!({"name": "<Ana>", "vip": true});
    let answer = platform.accepted(&platform.live_key, &body).await;
    let id: MessageId = answer.id().parse().unwrap();
    let stored = platform.state.store.contents(&[id]).await.unwrap();
    let text = String::from_utf8_lossy(&stored[0].bytes);
    assert!(text.contains("Subject: Hi <Ana>\r\n"), "{text}");
    assert!(text.contains("<p>&lt;Ana&gt;!</p>"), "{text}");

    let check = async |field: &str, value: Value, pointer: &str, code: &str| {
        let mut body = body.clone();
        body[field] = value;
        let answer = platform.post(&platform.live_key, "/v1/emails", &body).await;
        let fields = answer.refused(422, "validation_failed").fields();
        assert!(fields.contains(&(pointer, code)), "{}", answer.json);
    };
    check(
        "subject",
        json!("{{ nmae }}"),
        "/variables",
        "undefined_variable",
    )
    .await;
    check("html", json!("{{ name"), "/html", "template_syntax").await;
    check(
        "html",
        json!("{% for a in range(9999) %}{% for b in range(9999) %}.{% endfor %}{% endfor %}"),
        "/html",
        "template_too_complex",
    )
    .await;
    check(
        "headers",
        json!({"X-A": "{{ nmae }}"}),
        "/variables",
        "undefined_variable",
    )
    .await;
    check("variables", json!([]), "/variables", "invalid_type").await;
    check(
        "variables",
        json!({"name": "x".repeat(70_000)}),
        "/variables",
        "too_long",
    )
    .await;
    // Without variables nothing is a template.
    body["variables"] = Value::Null;
    let answer = platform.accepted(&platform.live_key, &body).await;
    let id: MessageId = answer.id().parse().unwrap();
    let stored = platform.state.store.contents(&[id]).await.unwrap();
    assert!(stored[0].bytes.windows(10).any(|w| w == b"{{ name }}"));
}

#[tokio::test]
async fn no_variable_breaks_out_of_its_line() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    for text in ["a\r\nBcc: x@evil.test", "a\nb", "a\rb", "a\0b", "a\u{85}b"] {
        for (field, value) in [
            ("subject", json!("Hi {{ name }}")),
            ("headers", json!({"X-A": "{{ name }}"})),
        ] {
            let mut single = email();
            single[field] = value;
            single["variables"] = json!({"name": text});
            let batch = json!([single, single]);
            for (path, body) in [("/v1/emails", &single), (PATH, &batch)] {
                let answer = platform.post(&platform.live_key, path, body).await;
                let fields = answer.refused(422, "validation_failed").fields();
                assert!(fields[0].1 == "control_character", "{}", answer.json);
            }
        }
    }
    let body = newsletter(json!([
        {"to": "ana@example.com", "variables": {"name": "a\0"}},
        {"to": "ana@example.com", "variables": {"name": "a\0"}, "subject": "plain", "headers": {"X-A": "b"}},
    ]));
    let answer = platform.post(&platform.live_key, PATH, &body).await;
    let fields = answer.refused(422, "validation_failed").fields();
    assert!(
        fields.contains(&("/defaults/html", "control_character")),
        "{}",
        answer.json
    );
}

#[tokio::test]
async fn a_strict_batch_is_sent_as_a_whole_or_not_at_all() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let mut messages = vec![email(), email(), email()];
    messages[1]["to"] = json!(["x"]);
    messages[2]["from"] = json!("a@pending.test");
    let answer = platform.post(key, STRICT, &json!(messages)).await;
    let expected = [
        ("/1/to/0", "invalid_address"),
        ("/2/from", "sender_not_verified"),
    ];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
    let metrics = platform.state.registry.render();
    assert!(
        metrics.contains("postrider_accepted_messages_total 0"),
        "{metrics}"
    );
    let answer = platform.post(key, STRICT, &json!([email(), email()])).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    // Nothing good: refused in any mode, and what is wrong with the defaults is told once.
    let body = json!({
        "defaults": {"from": "nobody", "subject": "a\nb"},
        "messages": [{"to": "a@example.com"}, {"to": "b@example.com"}],
    });
    let answer = platform.post(key, PATH, &body).await;
    let expected = [
        ("/defaults/from", "invalid_address"),
        ("/defaults/subject", "control_character"),
        ("/messages/0/html", "required"),
        ("/messages/1/html", "required"),
    ];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
}

#[tokio::test]
async fn what_is_no_batch_is_refused() {
    let change = |config: &mut api::ApiConfig| config.batch_messages_max = 3;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let check = async |body: Value, pointer: &str, code: &str| {
        let answer = platform.post(&platform.live_key, PATH, &body).await;
        let fields = answer.refused(422, "validation_failed").fields();
        assert_eq!(fields, [(pointer, code)], "{body}");
    };
    check(json!([]), "", "empty").await;
    check(json!({"messages": []}), "/messages", "empty").await;
    check(json!({}), "/messages", "required").await;
    check(json!(7), "", "invalid_type").await;
    check(json!({"messages": {}}), "/messages", "invalid_type").await;
    check(
        json!({"messages": [email()], "default": {}}),
        "/default",
        "unknown_field",
    )
    .await;
    check(
        json!({"defaults": [], "messages": [email()]}),
        "/defaults",
        "invalid_type",
    )
    .await;
    check(
        json!({"defaults": {"a": 1}, "messages": [email()]}),
        "/defaults/a",
        "unknown_field",
    )
    .await;
    check(
        json!({"defaults": {"variables": 7}, "messages": [email()]}),
        "/defaults/variables",
        "invalid_type",
    )
    .await;
    check(json!(vec![email(); 4]), "", "too_many").await;
    check(
        json!({"messages": vec![json!({}); 20_000]}),
        "/messages",
        "too_many",
    )
    .await;
    let answer = platform
        .send(
            json_request(&platform.live_key, PATH)
                .body(Body::from("[{]"))
                .unwrap(),
        )
        .await;
    answer.refused(400, "malformed_json");
    let answer = platform
        .post(
            &platform.live_key,
            "/v1/emails/batch?mode=x",
            &json!([email()]),
        )
        .await;
    answer.refused(422, "invalid_parameter");
    let answer = platform
        .post(
            &platform.live_key,
            "/v1/emails/batch?mod=strict",
            &json!([email()]),
        )
        .await;
    answer.refused(422, "invalid_parameter");
}

#[tokio::test]
async fn content_is_bounded_in_all() {
    let change = |config: &mut api::ApiConfig| {
        config.message_max_octets = 20_000;
        config.batch_max_octets = 40_000;
    };
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let with_text = |text: String| {
        let mut email = email();
        email["text"] = json!(text);
        email
    };
    let messages = json!([
        with_text("word ".repeat(2_400)),
        with_text("mots ".repeat(2_400)),
        with_text("Wort ".repeat(2_400)),
        with_text("word ".repeat(2_400)),
        with_text("ord ".repeat(6_000)),
    ]);
    let answer = platform.batch(&messages).await;
    let codes: Vec<&str> = answer.json["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["error"]["code"].as_str().unwrap_or("sent"))
        .collect();
    // Shared content counts once; the last is too large by itself.
    assert_eq!(codes, ["sent", "sent", "sent", "sent", "message_too_large"]);
    let answer = platform
        .post(
            &platform.live_key,
            STRICT,
            &json!([
                with_text("word ".repeat(2_400)),
                with_text("mots ".repeat(2_400)),
                with_text("Wort ".repeat(2_400)),
                with_text("verb ".repeat(2_400)),
            ]),
        )
        .await;
    let expected = [("/3", "message_too_large")];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
}

#[tokio::test]
async fn what_comes_out_of_templates_is_bounded_in_all() {
    let change = |config: &mut api::ApiConfig| config.batch_max_octets = 10_000;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let mut body = newsletter(json!(vec![json!({"to": "ana@example.com"}); 30]));
    body["defaults"]["html"] = json!("{{ name }}".to_owned() + &"x".repeat(3_990));
    let answer = platform.batch(&body).await;
    let items = answer.json["data"].as_array().unwrap();
    let refused: Vec<_> = items
        .iter()
        .filter_map(|item| item["error"]["code"].as_str())
        .collect();
    // 80,000 octets come to 20 of 4,000, and one to pass the bound with.
    assert!((8..=10).contains(&refused.len()), "{refused:?}");
    assert!(refused.iter().all(|code| *code == "message_too_large"));
    assert!(items[..20].iter().all(|item| item["status"] == "queued"));
}

#[tokio::test]
async fn a_batch_needs_the_right_key() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = json!([email(), email()]);
    platform
        .post("nonsense", PATH, &body)
        .await
        .refused(401, "invalid_api_key");
    let reader = platform.key_with(&["emails:read"]).await;
    platform
        .post(&reader, PATH, &body)
        .await
        .refused(403, "missing_scope");
    let stranger = platform.other_account("other.test").await;
    let answer = platform.post(&stranger, PATH, &body).await;
    let expected = [
        ("/0/from", "sender_not_verified"),
        ("/1/from", "sender_not_verified"),
    ];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
    let answer = platform.post(&platform.test_key, PATH, &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let id = answer.json["data"][0]["id"].as_str().unwrap().to_owned();
    let shown = platform
        .get(&platform.test_key, &format!("/v1/emails/{id}"))
        .await;
    assert_eq!(shown.json["test"], true);
    platform
        .get(&stranger, &format!("/v1/emails/{id}"))
        .await
        .refused(404, "not_found");
}
