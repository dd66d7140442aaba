//! Webhooks after they were made: changed, given another secret, tested and looked at.

use axum::body::Body;
use axum::http::Method;
use mail::ids::{EventId, WebhookCallId, WebhookEndpointId};
use mail::text::DbText;
use serde_json::{Value, json};
use store::{CallRecord, CallResult, EndpointSummary};

use crate::platform::{Answer, Platform, fresh_uuid, json_request, with_key};
use crate::webhook_replays::event;

const PATH: &str = "/v1/webhooks";

pub(crate) async fn made(platform: &Platform) -> String {
    let body = json!({"url": "https://hooks.example.com/a", "events": ["email.queued"]});
    let made = platform.post(&platform.live_key, PATH, &body).await;
    assert_eq!(made.status, 201, "{}", made.json);
    format!("{PATH}/{}", made.id())
}

async fn stored(platform: &Platform, path: &str) -> EndpointSummary {
    let id: WebhookEndpointId = path.rsplit('/').next().unwrap().parse().unwrap();
    let all = platform.state.store.endpoints(platform.account.no).await;
    all.unwrap().into_iter().find(|one| one.id == id).unwrap()
}

async fn patch(platform: &Platform, key: &str, path: &str, body: &Value) -> Answer {
    let request = with_key(key, Method::PATCH, path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()));
    platform.send(request.unwrap()).await
}

async fn bare_post(platform: &Platform, key: &str, path: &str) -> Answer {
    let request = with_key(key, Method::POST, path).body(Body::empty());
    platform.send(request.unwrap()).await
}

#[tokio::test]
async fn a_webhook_changes_in_what_is_named() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (key, path) = (&platform.live_key, made(&platform).await);
    let before = platform.get(key, &path).await.json;
    let answer = patch(
        &platform,
        key,
        &path,
        &json!({"events": ["email.bounced", "webhook.disabled"]}),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    assert_eq!(
        answer.json["events"],
        json!(["email.bounced", "webhook.disabled"])
    );
    assert_eq!(answer.json["url"], before["url"]);
    let answer = patch(&platform, key, &path, &json!({"url": "https://b.example/"})).await;
    assert_eq!(answer.json["url"], "https://b.example/");
    assert_eq!(platform.get(key, &path).await.json, answer.json);

    let off = patch(&platform, key, &path, &json!({"enabled": false})).await;
    assert_eq!(
        (&off.json["status"], &off.json["disabled_reason"]),
        (&json!("disabled"), &json!("owner"))
    );
    assert!(off.json["disabled_at"].is_string());
    for action in ["test", "replay"] {
        let body = json!({"from": "2020-01-01T00:00:00Z"});
        let one = json!({"event_id": "evt_01kasxq2bke9qa1bz2t0zc6m4d"});
        let body = if action == "test" { body } else { one };
        let answer = platform.post(key, &format!("{path}/{action}"), &body).await;
        answer.refused(409, "webhook_disabled");
    }
    let on = patch(&platform, key, &path, &json!({"enabled": true})).await;
    assert_eq!(on.json["status"], "enabled");
    assert!(on.json.get("disabled_reason").is_none() && on.json.get("disabled_at").is_none());
}

#[tokio::test]
async fn a_wrong_change_is_refused_with_all_that_is_wrong_and_changes_nothing() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (key, path) = (&platform.live_key, made(&platform).await);
    let before = platform.get(key, &path).await.json;
    let check = async |body: Value, expected: &[(&str, &str)]| {
        let answer = patch(&platform, key, &path, &body).await;
        assert_eq!(
            answer.refused(422, "validation_failed").fields(),
            expected,
            "{body}"
        );
    };
    check(json!({}), &[("", "required")]).await;
    check(json!({"secret": "x"}), &[("/secret", "unknown_field")]).await;
    check(
        json!({"url": "http://a.example/", "events": [], "enabled": false}),
        &[("/url", "invalid_url"), ("/events", "required")],
    )
    .await;
    for url in [
        "https://169.254.169.254/latest/meta-data/",
        "https://2852039166/",
        "https://0xa9.254.0251.254/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[::ffff:169.254.169.254]/",
        "https://①⑥⑨.②⑤④.①⑥⑨.②⑤④/",
        "https://metadata.google.internal./",
    ] {
        check(json!({"url": url}), &[("/url", "private_host")]).await;
    }
    check(
        json!({"url": "https://a.example:6379/"}),
        &[("/url", "port_not_allowed")],
    )
    .await;
    check(
        json!({"url": "https://a.example/\r\nX: y"}),
        &[("/url", "invalid_url")],
    )
    .await;
    check(
        json!({"url": "https://a.example/\u{0}"}),
        &[("/url", "invalid_url")],
    )
    .await;
    check(
        json!({"events": ["webhook.test"]}),
        &[("/events/0", "unknown_event")],
    )
    .await;
    assert_eq!(platform.get(key, &path).await.json, before);
}

#[tokio::test]
async fn a_rotated_secret_is_shown_once_and_the_one_before_signs_for_a_while() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (key, path) = (&platform.live_key, made(&platform).await);
    let rotate = format!("{path}/rotate-secret");
    let (store, sealer) = (&platform.state.store, &platform.state.sealer);
    let no = stored(&platform, &path).await.no;
    let first = store.endpoint(no, sealer).await.unwrap().unwrap().secret;

    let answer = bare_post(&platform, key, &rotate).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let secret = answer.json["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    let found = store.endpoint(no, sealer).await.unwrap().unwrap();
    let now = platform.state.clock.now();
    assert_eq!(found.secrets(now).last(), Some(first.as_slice()));
    let (_, until) = found.previous.as_ref().unwrap();
    let left = *until - now;
    assert!(
        left > time::Duration::hours(23) && left <= time::Duration::hours(24),
        "{left}"
    );

    let answer = platform.post(key, &rotate, &json!({"overlap": "0s"})).await;
    assert!(answer.json.get("previous_secret_until").is_none());
    assert_eq!(
        store.endpoint(no, sealer).await.unwrap().unwrap().previous,
        None
    );
    for overlap in ["", "1", "8d", "-1h", "99999999999999999999d", "1h\u{0}"] {
        let answer = platform
            .post(key, &rotate, &json!({"overlap": overlap}))
            .await;
        let fields = answer.refused(422, "validation_failed").fields();
        assert_eq!(fields, [("/overlap", "invalid_duration")], "{overlap}");
    }
    let answer = platform
        .post(key, &rotate, &json!({"secret": "whsec_x"}))
        .await;
    answer.refused(422, "validation_failed");
    // Without a body nothing needs to be said about it; with one, that it is JSON.
    let text = with_key(key, Method::POST, &rotate).body(Body::from("overlap=1h"));
    platform
        .send(text.unwrap())
        .await
        .refused(415, "unsupported_media_type");
}

#[tokio::test]
async fn calls_are_listed_filtered_and_paged() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (key, path) = (&platform.live_key, made(&platform).await);
    let list = format!("{path}/calls");
    assert_eq!(platform.get(key, &list).await.json["data"], json!([]));

    let tested = bare_post(&platform, key, &format!("{path}/test")).await;
    assert_eq!(tested.status, 202, "{}", tested.json);
    let event: EventId = tested.json["event_id"].as_str().unwrap().parse().unwrap();
    let endpoint = stored(&platform, &path).await.no;
    let pending = platform
        .state
        .store
        .due_calls(platform.state.clock.now(), 10, 10);
    let pending = pending.await.unwrap();
    assert!(
        pending
            .iter()
            .any(|call| (call.endpoint, call.event_id) == (endpoint, event))
    );

    let mut calls: Vec<CallRecord> = (0..3)
        .map(|number| CallRecord {
            id: WebhookCallId::from_uuid(fresh_uuid()),
            endpoint,
            event,
            subject: fresh_uuid(),
            kind: mail::event::EventType::WebhookTest,
            attempt: number + 1,
            result: if number == 2 {
                CallResult::Taken
            } else {
                CallResult::Status
            },
            status: Some(if number == 2 { 204 } else { 500 }),
            response: DbText::from_remote(b"a\nb", 100),
            duration_ms: 7,
            next_at: None,
            is_replay: false,
        })
        .collect();
    calls.sort_by_key(|call| std::cmp::Reverse(call.id));
    platform.state.store.log_calls(&calls).await.unwrap();
    let ids = |answer: &Answer| -> Vec<String> {
        let data = answer.json["data"].as_array().unwrap();
        data.iter()
            .map(|call| call["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let expected: Vec<String> = calls.iter().map(|call| call.id.to_string()).collect();
    let all = platform.get(key, &list).await;
    assert_eq!(ids(&all), expected);
    let failed = platform.get(key, &format!("{list}?status=failed")).await;
    assert_eq!(failed.json["data"].as_array().unwrap().len(), 2);
    let one = &failed.json["data"][0];
    assert_eq!(
        (
            &one["error"],
            &one["response_status"],
            &one["response"],
            &one["type"]
        ),
        (
            &json!("status"),
            &json!(500),
            &json!("a\\x0ab"),
            &json!("webhook.test")
        )
    );
    let taken = platform
        .get(key, &format!("{list}?status=succeeded&event={event}"))
        .await;
    assert_eq!(taken.json["data"].as_array().unwrap().len(), 1);
    assert!(taken.json["data"][0].get("error").is_none());
    let first = platform.get(key, &format!("{list}?limit=2")).await;
    let next = first.json["next"].as_str().unwrap();
    let rest = platform
        .get(key, &format!("{list}?limit=2&after={next}"))
        .await;
    assert_eq!([ids(&first), ids(&rest)].concat(), expected);
    for query in [
        "status=bad",
        "event=x",
        "event=msg_1",
        "after=x",
        "limit=0",
        "x=1",
        "event=%00",
    ] {
        let answer = platform.get(key, &format!("{list}?{query}")).await;
        answer.refused(422, "invalid_parameter");
    }
}

#[tokio::test]
async fn nobody_else_reaches_a_webhook() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let path = made(&platform).await;
    let event = event(&platform).await;
    let body = json!({"event_id": event});
    let replay = platform
        .post(&platform.live_key, &format!("{path}/replay"), &body)
        .await;
    let stranger = platform.other_account("other.test").await;
    let own = platform
        .post(
            &stranger,
            PATH,
            &json!({"url": "https://a.example/", "events": ["email.queued"]}),
        )
        .await;
    let own = format!("{PATH}/{}", own.id());
    // Somebody else's event, and somebody else's replay, by way of an own webhook.
    let foreign = platform
        .post(&stranger, &format!("{own}/replay"), &body)
        .await;
    foreign.refused(404, "not_found");
    let foreign = platform
        .get(&stranger, &format!("{own}/replays/{}", replay.id()))
        .await;
    foreign.refused(404, "not_found");

    let missing = format!("{PATH}/{}", WebhookEndpointId::from_uuid(fresh_uuid()));
    let narrow = platform.key_with(&["emails:send", "emails:read"]).await;
    let change = json!({"enabled": false});
    for (key, path, status, code) in [
        (&stranger, &path, 404, "not_found"),
        (&platform.live_key, &missing, 404, "not_found"),
        (
            &platform.live_key,
            &format!("{PATH}/whk_\u{7f}"),
            404,
            "not_found",
        ),
        (&narrow, &path, 403, "missing_scope"),
        (&platform.test_key, &path, 403, "test_key_not_allowed"),
        (&"x".to_owned(), &path, 401, "invalid_api_key"),
    ] {
        let path = path.replace('\u{7f}', "%7f");
        let at = |rest: &str| format!("{path}{rest}");
        let one = at(&format!("/replays/{}", replay.id()));
        for answer in [
            patch(&platform, key, &path, &change).await,
            bare_post(&platform, key, &at("/rotate-secret")).await,
            bare_post(&platform, key, &at("/test")).await,
            platform.get(key, &at("/calls")).await,
            platform.post(key, &at("/replay"), &body).await,
            platform.get(key, &at("/replays")).await,
            platform.get(key, &one).await,
            platform.delete(key, &one).await,
        ] {
            answer.refused(status, code);
        }
    }
    let bare = platform.send(
        axum::http::Request::get(format!("{path}/calls"))
            .body(Body::empty())
            .unwrap(),
    );
    bare.await.refused(401, "missing_api_key");
    let shown = platform.get(&platform.live_key, &path).await;
    assert_eq!(shown.json["status"], "enabled");
    let torn = json_request(&platform.live_key, &format!("{path}/replay")).body(Body::from("{"));
    platform
        .send(torn.unwrap())
        .await
        .refused(400, "malformed_json");
}
