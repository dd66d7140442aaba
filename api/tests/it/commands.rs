//! Cancel and reschedule: who may, what is answered, and what becomes of the mail.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use serde_json::{Value, json};
use store::EventFlags;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::owner::{Owner, TTL, queued};
use crate::platform::{Answer, Platform, email, with_key};
use crate::resend::resend;

const NOBODY: &str = "msg_01kasxq2bke9qa1bz2t0zc6800";

async fn cancel(platform: &Platform, key: &str, id: &str) -> Answer {
    let path = format!("/v1/emails/{id}/cancel");
    let request = with_key(key, Method::POST, &path).body(Body::empty());
    platform.send(request.unwrap()).await
}

pub(crate) async fn patch(platform: &Platform, key: &str, id: &str, body: Value) -> Answer {
    let path = format!("/v1/emails/{id}");
    let request = with_key(key, Method::PATCH, &path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()));
    platform.send(request.unwrap()).await
}

fn in_secs(platform: &Platform, secs: i64) -> (OffsetDateTime, Value) {
    let at = platform.state.clock.now() + time::Duration::seconds(secs);
    (at, json!({"send_at": at.format(&Rfc3339).unwrap()}))
}

pub(crate) fn statuses(answer: &Answer) -> Vec<&str> {
    let deliveries = answer.json["deliveries"].as_array().unwrap();
    deliveries
        .iter()
        .map(|one| one["status"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn mail_is_cancelled_once_and_says_so() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let owner = Owner::start(&platform).await;
    let key = &platform.live_key;
    let mut body = email();
    body["to"] = json!(["a@example.com", "b@example.com", "c@example.com"]);
    let id = platform.accepted(key, &body).await.id().to_owned();
    let rows = queued(&platform, &id).await;
    owner.deliver(&platform.state.store, &rows[..1]).await;
    for _ in 0..2 {
        let answer = cancel(&platform, key, &id).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        assert_eq!(answer.json["status"], "cancelled");
        assert_eq!(statuses(&answer), ["delivered", "cancelled", "cancelled"]);
    }
    assert!(queued(&platform, &id).await.is_empty());
    let events = platform
        .state
        .store
        .message_events(id.parse().unwrap())
        .await
        .unwrap();
    let ends = events
        .iter()
        .filter(|event| event.flags.contains(EventFlags::FINAL));
    assert_eq!(ends.count(), 3);

    let id = platform.accepted(key, &email()).await.id().to_owned();
    owner
        .deliver(&platform.state.store, &queued(&platform, &id).await)
        .await;
    cancel(&platform, key, &id)
        .await
        .refused(409, "already_sending");
    let (_, later) = in_secs(&platform, 60);
    patch(&platform, key, &id, later)
        .await
        .refused(409, "already_sending");
}

#[tokio::test]
async fn what_is_being_sent_is_not_cancelled() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let owner = Owner::start(&platform).await;
    let key = &platform.live_key;
    let id = platform.accepted(key, &email()).await.id().to_owned();
    let rows = queued(&platform, &id).await;
    let (store, now) = (&platform.state.store, platform.state.clock.now());
    let granted = store
        .note_intents(&owner.fence, &[&rows[0]], 1, now)
        .await
        .unwrap();
    assert_eq!(granted, [true]);
    cancel(&platform, key, &id)
        .await
        .refused(409, "already_sending");
    let (_, later) = in_secs(&platform, 60);
    patch(&platform, key, &id, later)
        .await
        .refused(409, "already_sending");
    assert_eq!(queued(&platform, &id).await, rows);
}

#[tokio::test]
async fn without_an_owner_the_wish_is_kept_and_later_mail_needs_none() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let (now, later) = (
        platform.accepted(key, &email()).await.id().to_owned(),
        platform.accepted(key, &email()).await.id().to_owned(),
    );
    let (at, body) = in_secs(&platform, 3_600);
    let owner = Owner::start(&platform).await;
    let answer = patch(&platform, key, &later, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert_eq!(
        (&answer.json["status"], statuses(&answer)),
        (&json!("scheduled"), vec!["scheduled"])
    );
    let row = queued(&platform, &later).await.remove(0);
    assert_eq!(
        (row.next_at, row.first_at),
        (store::micros(at), store::micros(at))
    );
    drop(owner);

    let answer = cancel(&platform, key, &later).await;
    assert_eq!(
        (answer.status, statuses(&answer)),
        (StatusCode::OK, vec!["cancelled"])
    );
    let answer = cancel(&platform, key, &now).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(
        (&answer.json["status"], statuses(&answer)),
        (&json!("cancelling"), vec!["queued"])
    );
}

#[tokio::test]
async fn a_new_time_is_checked() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let _owner = Owner::start(&platform).await;
    let key = &platform.live_key;
    let id = platform.accepted(key, &email()).await.id().to_owned();
    let check = async |body: Value, code: &str, field: &str| {
        let answer = patch(&platform, key, &id, body).await;
        answer.refused(422, "validation_failed");
        assert_eq!(answer.fields(), [(field, code)]);
    };
    check(json!({}), "required", "/send_at").await;
    check(json!({"send_at": null}), "required", "/send_at").await;
    check(json!({"send_at": "soon"}), "invalid_time", "/send_at").await;
    check(json!({"send_at": 7}), "invalid_type", "/send_at").await;
    check(
        in_secs(&platform, 30 * 86_400 + 60).1,
        "too_far",
        "/send_at",
    )
    .await;
    check(
        json!({"send_at": "2026-01-01T00:00:00Z\r\n"}),
        "invalid_time",
        "/send_at",
    )
    .await;
    check(json!({"subject": "x"}), "unknown_field", "/subject").await;
    let answer = patch(&platform, key, &id, in_secs(&platform, 29 * 86_400).1).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    let answer = patch(&platform, key, &id, in_secs(&platform, -60).1).await;
    assert_eq!(
        (answer.status, &answer.json["status"]),
        (StatusCode::OK, &json!("queued"))
    );
    let row = queued(&platform, &id).await.remove(0);
    assert!(
        row.next_at <= platform.state.clock.now() && row.next_at > row.expires_at - TTL * 10_000
    );
}

#[tokio::test]
async fn strangers_and_the_wrong_keys_reach_nothing() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let _owner = Owner::start(&platform).await;
    let stranger = platform.other_account("other.test").await;
    let reader = platform.key_with(&["emails:read"]).await;
    let id = platform
        .accepted(&platform.live_key, &email())
        .await
        .id()
        .to_owned();
    let act = json!({"action": "cancel", "filter": {}});
    let asks = async |key: &str, id: &str| {
        let (_, later) = in_secs(&platform, 60);
        [
            cancel(&platform, key, id).await,
            patch(&platform, key, id, later).await,
            resend(&platform, key, id, json!({})).await,
        ]
    };
    for key in [&stranger, &platform.test_key] {
        for answer in asks(key, &id).await {
            answer.refused(404, "not_found");
        }
        let answer = platform.post(key, "/v1/emails/actions", &act).await;
        assert_eq!(
            (answer.status, &answer.json["matched"]),
            (StatusCode::ACCEPTED, &json!(0))
        );
    }
    for id in [NOBODY, "x", "msg_%00", "dlv_01kasxq2bke9qa1bz2t0zc6801"] {
        for answer in asks(&platform.live_key, id).await {
            answer.refused(404, "not_found");
        }
    }
    for answer in asks(&reader, &id).await {
        answer.refused(403, "missing_scope");
    }
    for answer in asks("pr_live_x", &id).await {
        answer.refused(401, "invalid_api_key");
    }
    platform
        .post(&reader, "/v1/emails/actions", &act)
        .await
        .refused(403, "missing_scope");
    assert_eq!(
        queued(&platform, &id).await.len(),
        1,
        "nothing has happened to it"
    );

    // Its own mail a test key reaches.
    let own = platform
        .accepted(&platform.test_key, &email())
        .await
        .id()
        .to_owned();
    let answer = platform
        .post(&platform.test_key, "/v1/emails/actions", &act)
        .await;
    assert_eq!(answer.json["matched"], 1);
    let answer = cancel(&platform, &platform.test_key, &own).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert_eq!(queued(&platform, &id).await.len(), 1);
}
