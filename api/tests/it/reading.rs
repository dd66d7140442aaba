//! `GET /v1/emails/{id}`: what became of a message, and that strangers learn nothing.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mail::bounce_class::BounceClass;
use mail::event::EventType;
use mail::ids::{EventId, MessageId, NodeId};
use mail::text::DbText;
use serde_json::{Value, json};
use store::{Cursor, EventFlags, Fence, NewEvent, QueueFlags, QueueRow, Retry, Settlement};

use crate::platform::{Platform, email, fresh_uuid};

const TTL: Duration = Duration::from_secs(30);

/// The owner of all shards, who settles what the test says happened.
pub(crate) struct Owner {
    fence: Fence,
    sequence: AtomicU16,
}

impl Owner {
    pub(crate) async fn of_all_shards(platform: &Platform) -> Self {
        let store = &platform.state.store;
        let owner = NodeId::from_uuid(fresh_uuid());
        store.heartbeat(owner, "test", 0, TTL).await.unwrap();
        let shards: Vec<_> = store
            .shards(0)
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.shard)
            .collect();
        let held = store.take(owner, &shards, TTL, 0).await.unwrap();
        Self {
            fence: Fence { owner, held },
            sequence: AtomicU16::new(2),
        }
    }

    pub(crate) async fn queued(&self, platform: &Platform, id: MessageId) -> Vec<QueueRow> {
        let cursors: Vec<_> = self
            .fence
            .held
            .iter()
            .map(|(shard, _)| (*shard, Cursor::START))
            .collect();
        let until = platform.state.clock.now() + Duration::from_secs(3600);
        let mut rows = platform
            .state
            .store
            .poll(&cursors, until, 1000)
            .await
            .unwrap();
        rows.retain(|row| row.key.message == id);
        rows.sort_by_key(|row| row.key.rcpt);
        rows
    }

    pub(crate) async fn settle(&self, platform: &Platform, row: &QueueRow, event: NewEvent) {
        let is_final = event.flags.contains(EventFlags::FINAL);
        let next_at = platform.state.clock.now() + Duration::from_secs(900);
        let next = (!is_final).then_some(Retry {
            next_at,
            flags: QueueFlags::NONE,
        });
        let settlement = Settlement {
            row: row.clone(),
            next,
            event,
        };
        let settled = platform
            .state
            .store
            .settle(&self.fence, &[settlement])
            .await
            .unwrap();
        assert_eq!(settled, [true]);
    }

    pub(crate) fn event(&self, kind: EventType, flags: EventFlags, reply: &str) -> NewEvent {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        NewEvent {
            id: EventId::from_uuid(fresh_uuid()),
            kind,
            sequence,
            attempt: sequence - 1,
            flags,
            class: (kind != EventType::EmailDelivered).then_some(BounceClass::MailboxFull),
            code: None,
            enhanced: None,
            source: None,
            mx: Some("mx.example.com".to_owned()),
            tls: Some("TLSv1.3".to_owned()),
            reply: Some(DbText::from_remote(reply.as_bytes(), 1024)),
            duration_ms: Some(12),
            transcript: None,
        }
    }
}

#[tokio::test]
async fn a_message_is_shown_as_it_was_sent() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let mut body = email();
    body["tags"] = json!(["receipt"]);
    body["metadata"] = json!({"order": "7", "note": "line\nline"});
    let sent = platform.accepted(&platform.live_key, &body).await;
    let seen = platform
        .get(&platform.live_key, &format!("/v1/emails/{}", sent.id()))
        .await;
    assert_eq!(seen.status, 200, "{}", seen.json);
    let digits = sent.id().strip_prefix("msg_").unwrap();
    let delivery = &seen.json["deliveries"][0];
    let event = &delivery["events"][0];
    let expected = json!({
        "id": sent.id(), "created_at": seen.json["created_at"], "from": "Acme <hello@acme.test>",
        "subject": "Hi", "stream": "transactional",
        "rfc_message_id": format!("<{digits}@acme.test>"),
        "tags": ["receipt"], "metadata": {"order": "7", "note": "line\nline"},
        "test": false, "status": "queued",
        "deliveries": [{
            "id": sent.json["deliveries"][0]["id"], "to": "ana@example.com", "status": "queued",
            "attempts": [],
            "events": [{
                "id": event["id"], "type": "email.queued", "timestamp": event["timestamp"],
                "sequence": 1, "final": false, "out_of_band": false
            }]
        }]
    });
    assert_eq!(seen.json, expected);
    let created_at = seen.json["created_at"].as_str().unwrap();
    assert!(
        created_at.len() == 24 && created_at.ends_with('Z'),
        "{created_at}"
    );
}

#[tokio::test]
async fn each_delivery_tells_its_attempts_and_the_least_finished_one_counts() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let mut body = email();
    body["to"] = json!(["ana@example.com", "bo@example.org"]);
    let sent = platform.accepted(&platform.live_key, &body).await;
    let id: MessageId = sent.id().parse().unwrap();
    let path = format!("/v1/emails/{id}");
    let owner = Owner::of_all_shards(&platform).await;

    let rows = owner.queued(&platform, id).await;
    assert_eq!(rows.len(), 2);
    let deferred = owner.event(
        EventType::EmailDeferred,
        EventFlags::AMBIGUOUS,
        "452 4.2.2 full",
    );
    owner.settle(&platform, &rows[0], deferred).await;
    let seen = platform.get(&platform.live_key, &path).await;
    assert_eq!(statuses(&seen.json), ("queued", vec!["deferred", "queued"]));
    let first = &seen.json["deliveries"][0];
    assert!(first["next_attempt_at"].is_string(), "{first}");
    let expected = json!({
        "number": 1, "at": first["events"][1]["timestamp"], "source": null, "mx": "mx.example.com",
        "tls": "TLSv1.3", "reply": "452 4.2.2 full", "class": "mailbox_full", "duration_ms": 12,
        "ambiguous": true
    });
    assert_eq!(first["attempts"], json!([expected]));

    let rows = owner.queued(&platform, id).await;
    let delivered = owner.event(EventType::EmailDelivered, EventFlags::FINAL, "250 2.0.0 OK");
    let row = rows.iter().find(|row| row.key.rcpt == 0).unwrap();
    owner.settle(&platform, row, delivered).await;
    let seen = platform.get(&platform.live_key, &path).await;
    assert_eq!(
        statuses(&seen.json),
        ("queued", vec!["delivered", "queued"])
    );
    let first = &seen.json["deliveries"][0];
    assert_eq!(first["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(first["attempts"][1]["class"], Value::Null);
    assert_eq!(first.get("next_attempt_at"), None);
    let finals: Vec<bool> = first["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["final"] == true)
        .collect();
    assert_eq!(finals, [false, false, true]);

    let row = rows.iter().find(|row| row.key.rcpt == 1).unwrap();
    let mut bounced = owner.event(EventType::EmailBounced, EventFlags::FINAL, "550 5.1.1 no");
    (bounced.sequence, bounced.attempt) = (2, 1);
    owner.settle(&platform, row, bounced).await;
    let seen = platform.get(&platform.live_key, &path).await;
    assert_eq!(
        statuses(&seen.json),
        ("bounced", vec!["delivered", "bounced"])
    );
}

fn statuses(email: &Value) -> (&str, Vec<&str>) {
    let deliveries = email["deliveries"].as_array().unwrap();
    let of_each = deliveries
        .iter()
        .map(|delivery| delivery["status"].as_str().unwrap())
        .collect();
    (email["status"].as_str().unwrap(), of_each)
}

#[tokio::test]
async fn foreign_unknown_and_malformed_ids_are_answered_alike() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let sent = platform.accepted(&platform.live_key, &email()).await;
    let path = format!("/v1/emails/{}", sent.id());
    let foreign = platform.get(&stranger, &path).await;
    foreign.refused(404, "not_found");
    let mut shape = foreign.json.clone();
    shape["request_id"] = Value::Null;
    for id in [
        "msg_01kasxq2bke9qa1bz2t0zc6800",
        "x",
        "evt_01kasxq2bke9qa1bz2t0zc6800",
        "%00",
        "%ff",
    ] {
        let mut answer = platform
            .get(&platform.live_key, &format!("/v1/emails/{id}"))
            .await;
        answer.refused(404, "not_found");
        answer.json["request_id"] = Value::Null;
        assert_eq!(answer.json, shape, "{id}");
    }
    let delivery = sent.json["deliveries"][0]["id"].as_str().unwrap();
    let disguised = delivery.replace("dlv_", "msg_");
    let path = format!("/v1/emails/{disguised}");
    platform
        .get(&platform.live_key, &path)
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn a_test_key_sees_test_mail_only() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let live = platform.accepted(&platform.live_key, &email()).await;
    let test = platform.accepted(&platform.test_key, &email()).await;
    let path = |id: &str| format!("/v1/emails/{id}");
    let seen = platform.get(&platform.test_key, &path(test.id())).await;
    assert_eq!(seen.json["test"], true);
    platform
        .get(&platform.test_key, &path(live.id()))
        .await
        .refused(404, "not_found");
    assert_eq!(
        platform
            .get(&platform.live_key, &path(test.id()))
            .await
            .status,
        200
    );
}
