//! Webhook calls, as promised to those who receive them: signed, at least once, repeated until
//! taken, and no endpoint waits for another.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod common;
#[path = "webhooks/isolation.rs"]
mod isolation;
#[path = "webhooks/replaying.rs"]
mod replaying;
#[path = "webhooks/standing.rs"]
mod standing;

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{PATIENCE, Platform, Received, Receiver, Reply, SECRET};
use mail::event::{EmailEventData, EventEnvelope, EventType};
use mail::ids::{EventId, NodeId};
use uuid::Uuid;

fn verify(call: &Received, family: &str) {
    assert!(verify_with(call, family, SECRET));
}

/// What a receiver's library does (Standard Webhooks, "Verifying webhooks"): one of the signatures
/// must fit.
fn verify_with(call: &Received, family: &str, secret: &[u8]) -> bool {
    let header = |name: &str| call.header(&format!("{family}-{name}")).to_owned();
    let signed = [
        header("id").as_bytes(),
        b".",
        header("timestamp").as_bytes(),
        b".",
        &call.body,
    ]
    .concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    header("signature").split(' ').any(|signature| {
        let tag = STANDARD.decode(signature.strip_prefix("v1,").unwrap());
        hmac::verify(&key, &signed, &tag.unwrap()).is_ok()
    })
}

#[tokio::test]
async fn an_event_arrives_signed_and_in_its_published_shape() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|_| Reply::Status(204)).await;
    platform.endpoint(&receiver).await;
    let worker = platform.worker();
    let events = platform.send(1).await;

    let calls = receiver.has_calls(1).await;
    verify(&calls[0], "webhook");
    verify(&calls[0], "svix");
    assert_eq!(calls[0].header("content-type"), "application/json");
    assert!(calls[0].header("user-agent").starts_with("Postrider/"));
    let told: EventEnvelope<EmailEventData> = serde_json::from_slice(&calls[0].body).unwrap();
    assert_eq!(
        (told.id, told.event_type),
        (events[0], EventType::EmailQueued)
    );
    assert_eq!(calls[0].header("webhook-id"), events[0].to_string());
    assert_eq!((told.sequence, told.data.final_), (Some(1), false));
    assert_eq!(told.data.to, "ana@example.com");
    assert_eq!(told.data.delivery_id.message(), told.data.message_id);
    assert_eq!(told.data.stream.as_deref(), Some("receipts"));
    assert_eq!(told.data.tags, ["receipt"]);
    assert_eq!(
        told.data.metadata.get("order").map(String::as_str),
        Some("7")
    );
    worker
        .shows(r#"postrider_webhook_calls_total{result="taken"} 1"#)
        .await;
    worker.stop().await;
    assert!(platform.pending().await.is_empty());
}

#[tokio::test]
async fn a_call_is_repeated_on_schedule_until_it_is_taken() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver =
        Receiver::start(|before| Reply::Status(if before < 2 { 500 } else { 200 })).await;
    platform.endpoint(&receiver).await;
    let worker = platform.worker();
    let events = platform.send(1).await;

    receiver.has_calls(1).await;
    platform.pending_becomes(&[1]).await;
    platform.advance(Duration::from_secs(7)).await;
    receiver.has_calls(2).await;
    platform.pending_becomes(&[2]).await;
    platform.advance(Duration::from_secs(7)).await;
    platform.advance(Duration::from_secs(361)).await;
    let calls = receiver.has_calls(3).await;
    platform.pending_becomes(&[]).await;

    assert_eq!(calls.len(), 3);
    for call in &calls {
        verify(call, "webhook");
        assert_eq!(call.header("webhook-id"), events[0].to_string());
        assert_eq!(call.body, calls[0].body);
    }
    assert_ne!(
        calls[0].header("webhook-timestamp"),
        calls[2].header("webhook-timestamp")
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_call_is_given_up_after_the_last_of_the_schedule() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|_| Reply::Status(503)).await;
    platform.endpoint(&receiver).await;
    let worker = platform.worker();
    platform.send(1).await;
    for made in 1..8 {
        platform.pending_becomes(&[made]).await;
        platform.advance(Duration::from_secs(9 * 3_600)).await;
        if made >= 6 {
            platform.advance(Duration::from_secs(3 * 3_600 + 60)).await;
        }
    }
    platform.pending_becomes(&[]).await;
    worker
        .shows(r#"postrider_webhook_given_up_total{reason="exhausted"} 1"#)
        .await;
    assert_eq!(receiver.calls().len(), 8);
    worker.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_not_called_again() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|_| Reply::Status(410)).await;
    platform.endpoint(&receiver).await;
    let worker = platform.worker();
    platform.send(1).await;
    worker
        .shows(r#"postrider_webhook_calls_total{result="gone"} 1"#)
        .await;
    worker.stop().await;
    assert!(platform.pending().await.is_empty());
}

#[tokio::test]
async fn an_endpoint_that_hangs_delays_no_other() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let hanging = Receiver::start(|_| Reply::Never).await;
    let quick = Receiver::start(|_| Reply::Status(200)).await;
    platform.endpoint(&hanging).await;
    platform.endpoint(&quick).await;
    let worker = platform.worker();
    platform.send(1).await;
    quick.has_events(1).await;

    // More than the window holds for one endpoint.
    let started = std::time::Instant::now();
    platform.send(600).await;
    quick.has_events(601).await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "took {:?}",
        started.elapsed()
    );

    // All calls to the hanging one leave the window, and with it the memory.
    worker.shows("postrider_webhook_open_calls 0").await;
    assert_eq!(platform.pending().await.len(), 601);
    worker.shows("postrider_webhook_endpoints_failing 1").await;

    // Repeated calls of the one do not delay new events of the other either.
    platform.send(10).await;
    quick.has_events(611).await;
    worker.stop().await;
    assert_eq!(quick.calls().len(), 611);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_and_not_asked_for_twice() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|_| Reply::After(Duration::from_secs(7), 200)).await;
    platform.endpoint(&receiver).await;
    let worker = platform.worker();
    platform.send(1).await;
    platform.pending_becomes(&[1]).await;
    platform.pending_becomes(&[]).await;
    assert_eq!(receiver.calls().len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_recovered_endpoint_gets_everything_it_missed() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver =
        Receiver::start(|before| Reply::Status(if before < 20 { 500 } else { 200 })).await;
    platform.endpoint(&receiver).await;
    let worker = platform.worker();
    for _ in 0..4 {
        platform.send(25).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    for _ in 0..20 {
        platform.advance(Duration::from_secs(400)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    receiver.has_events(100).await;
    platform.pending_becomes(&[]).await;
    worker.shows("postrider_webhook_endpoints_failing 0").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_killed_worker_loses_no_event() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|_| Reply::After(Duration::from_millis(20), 200)).await;
    platform.endpoint(&receiver).await;
    let mut sent: Vec<EventId> = Vec::new();
    for kills in 1..=3 {
        let worker = platform.worker();
        sent.extend(platform.send(400).await);
        // In the middle of them.
        receiver.has_events(sent.len() - 250).await;
        worker.kill().await;
        assert!(
            receiver.events().len() < sent.len(),
            "kill {kills} came too late"
        );
    }
    let worker = platform.worker();
    receiver.has_events(sent.len()).await;
    let arrived = receiver.events();
    assert!(
        sent.iter()
            .all(|event| arrived.contains(&event.to_string()))
    );
    worker.stop().await;
}

#[tokio::test]
async fn another_node_goes_on_where_a_stopped_one_ended() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    platform.endpoint(&receiver).await;
    let first = platform.worker();
    platform.send(50).await;
    receiver.has_events(50).await;
    first.stop().await;
    platform.send(50).await;
    let second = platform.worker_of(NodeId::from_uuid(Uuid::new_v4()));
    receiver.has_events(100).await;
    second.stop().await;
    assert_eq!(
        receiver.calls().len(),
        100,
        "orderly stops cause no repetition"
    );
}

#[tokio::test]
async fn two_workers_share_the_dispatchers() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let first = platform.worker();
    first.shows("postrider_webhook_dispatchers 16").await;
    let second = platform.worker_of(NodeId::from_uuid(Uuid::new_v4()));
    first.shows("postrider_webhook_dispatchers 8").await;
    second.shows("postrider_webhook_dispatchers 8").await;
    first.stop().await;
    second.shows("postrider_webhook_dispatchers 16").await;
    second.stop().await;
}

#[tokio::test]
async fn a_worker_prepares_the_partitions_of_the_week() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let worker = platform.worker();
    let made = async {
        loop {
            let days: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^event_\\d{8}$'",
            )
            .fetch_one(&platform.pool)
            .await
            .unwrap();
            if days == 9 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.unwrap();
    worker.shows("postrider_default_partition_rows 0").await;
    worker.stop().await;
}
