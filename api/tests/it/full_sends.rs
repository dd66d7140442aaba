//! What a single send can say beyond text: files, a later time, a pool, and no derived text.

use axum::http::StatusCode;
use mail::ids::MessageId;
use serde_json::{Value, json};
use store::PoolKind;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::platform::{Answer, Platform, email, fresh_uuid};

fn with(fields: Value) -> Value {
    let mut email = email();
    let fields = fields.as_object().unwrap().clone();
    email.as_object_mut().unwrap().extend(fields);
    email
}

async fn stored(platform: &Platform, answer: &Answer) -> String {
    let id: MessageId = answer.id().parse().unwrap();
    let stored = platform.state.store.contents(&[id]).await.unwrap();
    String::from_utf8(stored[0].bytes.to_vec()).unwrap()
}

fn text_of(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap()
}

#[tokio::test]
async fn files_go_with_the_message() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = with(json!({
        "text": null, "html": "<img src=\"cid:logo\">",
        "attachments": [
            {"filename": "résumé.pdf", "content": "UERG"},
            {"filename": "logo.png", "content": "cG5n", "content_id": "logo"},
        ],
    }));
    let answer = platform.accepted(&platform.live_key, &body).await;
    let text = stored(&platform, &answer).await;
    for part in [
        "multipart/mixed",
        "multipart/related",
        "filename*=utf-8''r%C3%A9sum%C3%A9.pdf",
        "\r\n\r\nUERG\r\n",
        "Content-ID: <logo>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("text/plain"), "null refuses it: {text}");
    let mut derived = email();
    derived["html"] = json!("<p>Hello</p><p>Ana</p>");
    derived.as_object_mut().unwrap().remove("text");
    let answer = platform.accepted(&platform.live_key, &derived).await;
    let text = stored(&platform, &answer).await;
    assert!(text.contains("Hello\r\n\r\nAna\r\n"), "{text}");
}

#[tokio::test]
async fn everything_wrong_with_files_and_handling_is_told_at_once() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = with(json!({
        "attachments": [
            {"filename": "a\r\nBcc: x", "content": "x"},
            {"filename": "../a", "content": "\u{0}", "content_type": "message/rfc822"},
            {"content_id": "a b"},
        ],
        "send_at": "tomorrow", "pool": "",
    }));
    let answer = platform.post(&platform.live_key, "/v1/emails", &body).await;
    let expected = [
        ("/attachments/0/filename", "control_character"),
        ("/attachments/0/content", "invalid_base64"),
        ("/attachments/1/filename", "invalid_filename"),
        ("/attachments/1/content", "invalid_base64"),
        ("/attachments/1/content_type", "composite_media_type"),
        ("/attachments/2/filename", "required"),
        ("/attachments/2/content", "required"),
        ("/attachments/2/content_id", "invalid_content_id"),
        ("/pool", "invalid_name"),
        ("/send_at", "invalid_time"),
    ];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);

    let check = async |fields: Value, pointer: &str, code: &str| {
        let answer = platform
            .post(&platform.live_key, "/v1/emails", &with(fields))
            .await;
        let answer = answer.refused(422, "validation_failed");
        assert_eq!(answer.fields(), [(pointer, code)], "{}", answer.json);
    };
    let file = json!({"filename": "a", "content": ""});
    check(
        json!({"attachments": vec![file.clone(); 51]}),
        "/attachments",
        "too_many",
    )
    .await;
    check(
        json!({"attachments": vec![file; 201]}),
        "/attachments",
        "too_many",
    )
    .await;
    check(json!({"attachments": null}), "/attachments", "invalid_type").await;
    check(
        json!({"attachments": [{"filename": "a", "url": "http://x"}]}),
        "/attachments/0/url",
        "unknown_field",
    )
    .await;
    for later in ["unsubscribe", "tracking", "template"] {
        check(json!({later: {}}), &format!("/{later}"), "unknown_field").await;
    }
}

#[tokio::test]
async fn attachments_have_a_bounded_size() {
    let change = |config: &mut api::ApiConfig| {
        config.message_limits.attachments_max_octets = 1_000;
        config.message_max_octets = 2_000;
    };
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let send = async |octets: usize, text: &str| {
        let content = "A".repeat(octets);
        let body =
            with(json!({"text": text, "attachments": [{"filename": "a", "content": content}]}));
        platform.post(&platform.live_key, "/v1/emails", &body).await
    };
    let answer = send(1_004, "t").await;
    let answer = answer.refused(413, "message_too_large");
    assert_eq!(answer.fields(), [("/attachments", "too_long")]);
    // Within the limit of attachments, over that of the whole.
    send(1_000, &"word ".repeat(300))
        .await
        .refused(413, "message_too_large");
    assert_eq!(send(400, "t").await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_message_for_later_is_scheduled_and_lives_from_then_on() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let store = &platform.state.store;
    let now = platform.state.clock.now();
    let at = now + Duration::hours(3);
    // Whatever day that is in UTC, its content has a place.
    store
        .make_content_partitions([at.date()].into_iter())
        .await
        .unwrap();
    let body = with(json!({"send_at": text_of(at), "expires_in": "2h"}));
    let answer = platform.accepted(&platform.live_key, &body).await;
    assert_eq!(answer.json["status"], "scheduled");
    assert_eq!(answer.json["deliveries"][0]["status"], "scheduled");
    let told = OffsetDateTime::parse(answer.json["send_at"].as_str().unwrap(), &Rfc3339).unwrap();
    assert!((told - at).abs() < Duration::milliseconds(1), "{told} {at}");

    let path = format!("/v1/emails/{}", answer.id());
    let view = platform.get(&platform.live_key, &path).await.json;
    assert_eq!(view["status"], "scheduled");
    let delivery = &view["deliveries"][0];
    assert_eq!(delivery["status"], "scheduled");
    assert_eq!(delivery["events"][0]["type"], "email.scheduled");
    assert_eq!(delivery["events"][0]["send_at"], answer.json["send_at"]);
    assert_eq!(delivery["next_attempt_at"], answer.json["send_at"]);

    let cursors: Vec<_> = (0..16)
        .map(|shard| (store::ShardNo(shard), store::Cursor::START))
        .collect();
    let due = async |at: OffsetDateTime| store.poll(&cursors, at, 100).await.unwrap();
    assert_eq!(due(at - Duration::seconds(1)).await, []);
    let rows = due(at + Duration::seconds(1)).await;
    let lives = rows[0].expires_at - rows[0].next_at;
    assert_eq!(lives, Duration::hours(2));
    assert!((rows[0].next_at - at).abs() < Duration::milliseconds(1));
    assert_eq!(store.default_partition_rows().await.unwrap(), 0);
}

#[tokio::test]
async fn a_time_that_is_over_means_now_and_one_too_far_is_refused() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let now = platform.state.clock.now();
    let past = with(json!({"send_at": text_of(now - Duration::days(400))}));
    let answer = platform.accepted(&platform.live_key, &past).await;
    assert_eq!(answer.json["status"], "queued");
    assert!(answer.json.get("send_at").is_none(), "{}", answer.json);
    let null = with(json!({"send_at": null, "pool": null}));
    platform.accepted(&platform.live_key, &null).await;
    let far = with(json!({
        "send_at": text_of(now + Duration::days(31)), "stream": "nope", "pool": "nope",
    }));
    let answer = platform.post(&platform.live_key, "/v1/emails", &far).await;
    let expected = [
        ("/stream", "unknown_stream"),
        ("/pool", "unknown_pool"),
        ("/send_at", "out_of_range"),
    ];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
}

#[tokio::test]
async fn a_pool_is_named_or_known_by_its_id() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let store = &platform.state.store;
    let id = mail::ids::PoolId::from_uuid(fresh_uuid());
    let sandbox = store.sandbox_pool().await.unwrap().unwrap();
    let name = format!("pool {id}");
    let unknown = |answer: &Answer| {
        assert_eq!(
            answer.refused(422, "validation_failed").fields(),
            [("/pool", "unknown_pool")]
        );
    };
    let send = async |key: &str, pool: &str| {
        platform
            .post(key, "/v1/emails", &with(json!({"pool": pool})))
            .await
    };
    unknown(&send(&platform.live_key, &name).await);
    let pool = store
        .create_pool(id, &name, PoolKind::Direct)
        .await
        .unwrap();
    for named in [name.as_str(), &id.to_string()] {
        let answer = send(&platform.live_key, named).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
        let message: MessageId = answer.id().parse().unwrap();
        assert_eq!(queued_pool(&platform, message).await, Some(pool.no));
    }
    // Live mail does not end in the sandbox by a slip of the pen.
    unknown(&send(&platform.live_key, &sandbox.name).await);
    unknown(&send(&platform.live_key, &sandbox.id.to_string()).await);
    let answer = send(&platform.test_key, &name).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let message: MessageId = answer.id().parse().unwrap();
    assert_eq!(queued_pool(&platform, message).await, Some(sandbox.no));
}

async fn queued_pool(platform: &Platform, message: MessageId) -> Option<store::PoolNo> {
    let cursors: Vec<_> = (0..16)
        .map(|shard| (store::ShardNo(shard), store::Cursor::START))
        .collect();
    let until = platform.state.clock.now() + Duration::minutes(1);
    let rows = platform
        .state
        .store
        .poll(&cursors, until, 1_000)
        .await
        .unwrap();
    let row = rows
        .into_iter()
        .find(|row| row.key.message == message)
        .unwrap();
    row.pool
}
