//! Actions over a filter: what they reach, and how much of it at once.

use std::time::Duration;

use axum::http::{StatusCode, header};
use serde_json::{Value, json};

use crate::owner::{Owner, queued};
use crate::platform::{Platform, email};

#[tokio::test]
async fn an_action_reaches_what_fits_its_filter() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let _owner = Owner::start(&platform).await;
    let key = &platform.live_key;
    let send = async |to: &str, stream: &str, tag: &str| {
        let mut body = email();
        (body["to"], body["stream"], body["tags"]) = (json!([to]), json!(stream), json!([tag]));
        platform.accepted(key, &body).await.id().to_owned()
    };
    let (kept, news, tagged, domain) = (
        send("a@example.com", "transactional", "a").await,
        send("a@example.com", "news", "a").await,
        send("a@example.com", "transactional", "b").await,
        send("a@example.net", "transactional", "a").await,
    );
    let act = async |action: &str, filter: Value| {
        let body = json!({"action": action, "filter": filter});
        let answer = platform.post(key, "/v1/emails/actions", &body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
        assert_eq!(
            (&answer.json["complete"], &answer.json["next"]),
            (&json!(true), &Value::Null)
        );
        answer.json["matched"].as_u64().unwrap()
    };
    assert_eq!(act("cancel", json!({"stream": "news"})).await, 1);
    assert_eq!(
        act("cancel", json!({"tag": "b", "status": "queued"})).await,
        1
    );
    assert_eq!(act("cancel", json!({"domain": "EXAMPLE.net"})).await, 1);
    assert_eq!(act("cancel", json!({"domain": "never.example"})).await, 0);
    assert_eq!(act("cancel", json!({"status": "deferred"})).await, 0);
    assert_eq!(
        act("cancel", json!({"before": "2020-01-01T00:00:00Z"})).await,
        0
    );
    assert_eq!(act("retry_now", json!({})).await, 0, "all of it is due");
    for id in [&news, &tagged, &domain] {
        let path = format!("/v1/emails/{id}");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while platform.get(key, &path).await.json["status"] != "cancelled" {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{id} was not cancelled"
            );
        }
    }
    assert_eq!(queued(&platform, &kept).await.len(), 1);

    let check = async |body: Value, expected: &[(&str, &str)]| {
        let answer = platform.post(key, "/v1/emails/actions", &body).await;
        answer.refused(422, "validation_failed");
        assert_eq!(answer.fields(), expected, "{body}");
    };
    check(
        json!({}),
        &[("/action", "required"), ("/filter", "required")],
    )
    .await;
    let wrong = json!({"action": "delete", "from": "x", "filter": {
        "domain": "a\r\nb", "tag": "a\0", "status": "sent", "before": "now", "after": ""}});
    let expected = [
        ("/action", "unknown_action"),
        ("/from", "invalid"),
        ("/filter/domain", "invalid_domain"),
        ("/filter/status", "unknown_status"),
        ("/filter/tag", "invalid"),
        ("/filter/before", "invalid_time"),
        ("/filter/after", "invalid_time"),
    ];
    check(wrong, &expected).await;
    for stream in ["none", "a\0b"] {
        let body = json!({"action": "cancel", "filter": {"stream": stream}});
        check(body, &[("/filter/stream", "unknown_stream")]).await;
    }
    let body = json!({"action": "cancel", "filter": {"to": "a"}});
    check(body, &[("/filter/to", "unknown_field")]).await;
}

#[tokio::test]
async fn an_account_acts_only_on_so_much_at_once() {
    let change = |config: &mut api::ApiConfig| config.open_actions_max = 2;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let key = &platform.live_key;
    for _ in 0..3 {
        let mut body = email();
        body["to"] = json!(["a@example.com", "b@example.com"]);
        platform.accepted(key, &body).await;
    }
    let act = async |key: &str, from: &Value| {
        let mut body = json!({"action": "cancel", "filter": {}});
        if !from.is_null() {
            body["from"] = from.clone();
        }
        platform.post(key, "/v1/emails/actions", &body).await
    };
    let mut answer = act(key, &Value::Null).await;
    let mut matched = answer.json["matched"].as_u64().unwrap();
    assert!(matched >= 2, "{}", answer.json);
    let refused = act(key, &Value::Null).await;
    refused.refused(429, "too_many_commands");
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    let other = act(&stranger, &Value::Null).await;
    assert_eq!(other.status, StatusCode::ACCEPTED, "{}", other.json);

    let _owner = Owner::start(&platform).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while answer.json["complete"] == false {
        assert!(tokio::time::Instant::now() < deadline, "{matched}");
        let next = act(key, &answer.json["next"]).await;
        if next.status == StatusCode::ACCEPTED {
            matched += next.json["matched"].as_u64().unwrap();
            answer = next;
        }
    }
    assert_eq!(matched, 6);
}

#[tokio::test]
async fn an_account_walks_through_the_queue_twice_at_once_and_no_more() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = json!({"action": "cancel", "filter": {}});
    let act = || platform.post(&platform.live_key, "/v1/emails/actions", &body);
    let answers = futures_util::future::join_all((0..20).map(|_| act())).await;
    let refused = answers.iter().filter(|answer| answer.status == 429);
    assert!((1..=18).contains(&refused.clone().count()), "{answers:?}");
    for answer in refused {
        answer.refused(429, "too_many_at_once");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
    }
    assert_eq!(act().await.status, StatusCode::ACCEPTED);
}
