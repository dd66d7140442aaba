//! Cancel, reschedule, resend, and actions over a filter: who may, what is answered, and what
//! becomes of the mail.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use mail::event::EventType;
use mail::ids::{EventId, MessageId, NodeId};
use serde_json::{Value, json};
use store::{Cursor, EventFlags, Fence, NewEvent, QueueRow, Settlement, Store};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinHandle;

use crate::platform::{Answer, Platform, email, fresh_uuid, json_request, with_key};

const TTL: Duration = Duration::from_secs(60);
const NOBODY: &str = "msg_01kasxq2bke9qa1bz2t0zc6800";

/// Owns all shards, and carries commands out as long as it lives.
struct Owner {
    fence: Fence,
    task: JoinHandle<()>,
}

impl Owner {
    async fn start(platform: &Platform) -> Self {
        let store = platform.state.store.clone();
        let owner = NodeId::from_uuid(fresh_uuid());
        let shards = store.all_shards().await.unwrap();
        let held = store.take(owner, &shards, TTL, 0).await.unwrap();
        let fence = Fence { owner, held };
        let (state, own) = (platform.state.clone(), fence.clone());
        let task = tokio::spawn(async move {
            loop {
                let open = store.open_commands(&shards, 200, 50).await.unwrap();
                let found = store.find_commands(&open).await.unwrap();
                let now = state.clock.now();
                store.run_commands(&own, &found, now).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { fence, task }
    }

    /// Delivers a message, as far as its events tell.
    async fn deliver(&self, store: &Store, rows: &[QueueRow]) {
        let event = |row: &QueueRow| NewEvent {
            id: EventId::from_uuid(fresh_uuid()),
            kind: EventType::EmailDelivered,
            sequence: row.attempt + 2,
            attempt: row.attempt + 1,
            flags: EventFlags::FINAL,
            class: None,
            code: None,
            enhanced: None,
            source: None,
            mx: None,
            tls: None,
            reply: None,
            duration_ms: None,
            transcript: None,
        };
        let settlements: Vec<Settlement> = rows
            .iter()
            .map(|row| Settlement {
                row: row.clone(),
                next: None,
                event: event(row),
            })
            .collect();
        let settled = store.settle(&self.fence, &settlements).await.unwrap();
        assert!(settled.iter().all(|one| *one));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn queued(platform: &Platform, id: &str) -> Vec<QueueRow> {
    let id: MessageId = id.parse().unwrap();
    let shards = platform.state.store.all_shards().await.unwrap();
    let cursors: Vec<_> = shards.iter().map(|shard| (*shard, Cursor::START)).collect();
    let until = platform.state.clock.now() + Duration::from_secs(40 * 86_400);
    let mut rows = platform
        .state
        .store
        .poll(&cursors, until, 10_000)
        .await
        .unwrap();
    rows.retain(|row| row.key.message == id);
    rows.sort_by_key(|row| row.key.rcpt);
    rows
}

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

async fn resend(platform: &Platform, key: &str, id: &str, body: Value) -> Answer {
    platform
        .post(key, &format!("/v1/emails/{id}/resend"), &body)
        .await
}

fn in_secs(platform: &Platform, secs: i64) -> (OffsetDateTime, Value) {
    let at = platform.state.clock.now() + time::Duration::seconds(secs);
    (at, json!({"send_at": at.format(&Rfc3339).unwrap()}))
}

fn statuses(answer: &Answer) -> Vec<&str> {
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
