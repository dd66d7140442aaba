//! Mail that is sent once more: what it says, to whom, and as whose.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use mail::ids::MessageId;
use serde_json::{Value, json};

use crate::commands::statuses;
use crate::owner::queued;
use crate::platform::{Answer, Platform, email, json_request, with_key};

pub(crate) async fn resend(platform: &Platform, key: &str, id: &str, body: Value) -> Answer {
    platform
        .post(key, &format!("/v1/emails/{id}/resend"), &body)
        .await
}

#[tokio::test]
async fn an_email_is_sent_once_more_with_its_content() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let mut body = email();
    body["to"] = json!(["ana@example.com", "bo@example.org"]);
    (body["tags"], body["metadata"]) = (json!(["receipt"]), json!({"order": "7"}));
    let id = platform.accepted(key, &body).await.id().to_owned();
    let again = resend(&platform, key, &id, json!({})).await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.json);
    assert_eq!(statuses(&again), ["queued", "queued"]);
    let some = resend(&platform, key, &id, json!({"to": ["Bo <bo@EXAMPLE.org>"]})).await;
    assert_eq!(some.json["deliveries"][0]["to"], "bo@example.org");
    assert_eq!(queued(&platform, some.id()).await.len(), 1);
    let empty = with_key(key, Method::POST, &format!("/v1/emails/{id}/resend")).body(Body::empty());
    assert_eq!(
        platform.send(empty.unwrap()).await.status,
        StatusCode::ACCEPTED
    );

    let shown = platform
        .get(key, &format!("/v1/emails/{}", again.id()))
        .await
        .json;
    assert_eq!(
        (&shown["tags"], &shown["metadata"]["order"]),
        (&json!(["receipt"]), &json!("7"))
    );
    let ids: Vec<MessageId> = [&id, again.id()].map(|id| id.parse().unwrap()).to_vec();
    let mut contents = platform.state.store.contents(&ids).await.unwrap();
    contents.sort_by_key(|content| content.id);
    let [first, second] = contents.as_slice() else {
        panic!("{contents:?}")
    };
    assert_eq!(first.body_hash, second.body_hash);
    assert_eq!(
        first.bytes[first.header_len..],
        second.bytes[second.header_len..]
    );
    let header = String::from_utf8(second.bytes[..second.header_len].to_vec()).unwrap();
    assert!(
        header.contains(&format!("Message-ID: {}\r\n", second.rfc_message_id)),
        "{header}"
    );
    assert_ne!(first.rfc_message_id, second.rfc_message_id);

    for (to, expected) in [
        (json!([]), vec![("/to", "required")]),
        (
            json!(["eve@example.com"]),
            vec![("/to/0", "not_a_recipient")],
        ),
        (
            json!(["ana@example.com", "x\r\nbcc: y"]),
            vec![("/to/1", "not_a_recipient")],
        ),
        (
            json!(vec!["ana@example.com"; 101]),
            vec![("/to", "too_many")],
        ),
    ] {
        let answer = resend(&platform, key, &id, json!({"to": to})).await;
        answer.refused(422, "validation_failed");
        assert_eq!(answer.fields(), expected);
    }
}

#[tokio::test]
async fn a_resend_counts_once_keeps_its_mode_and_needs_its_domain() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let id = platform
        .accepted(&platform.test_key, &email())
        .await
        .id()
        .to_owned();
    let path = format!("/v1/emails/{id}/resend");
    let once = async |body: &str| {
        let request = json_request(&platform.live_key, &path).header("Idempotency-Key", "k");
        platform
            .send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    };
    let (first, second) = (once("{}").await, once("{}").await);
    assert_eq!(first.id(), second.id());
    assert_eq!(second.headers["idempotent-replayed"], "true");
    once(r#"{"to":["ana@example.com"]}"#)
        .await
        .refused(409, "idempotency_mismatch");
    let shown = platform
        .get(&platform.live_key, &format!("/v1/emails/{}", first.id()))
        .await;
    assert_eq!(shown.json["test"], true, "test mail never becomes live");
    let sandbox = platform.state.store.sandbox_pool().await.unwrap().unwrap();
    assert_eq!(
        queued(&platform, first.id()).await[0].pool,
        Some(sandbox.no)
    );
}
