//! Replays: every event of a time is told once more under its id, also across crashes, and what is
//! told for the first time does not wait for it.

use std::collections::HashSet;
use std::time::Duration;

use mail::event::EventType;
use mail::ids::{EventId, WebhookReplayId};
use store::{EndpointNo, NewReplay, ReplayState};
use uuid::Uuid;

use crate::common::{PATIENCE, Platform, Receiver, Reply};

fn floor(at: time::OffsetDateTime) -> EventId {
    let unix_ms = at.unix_timestamp_nanos() / 1_000_000;
    EventId::from_uuid(Uuid::from_u128(unix_ms.cast_unsigned() << 80))
}

async fn start_replay(platform: &Platform, no: EndpointNo) -> WebhookReplayId {
    let (id, now) = (
        WebhookReplayId::from_uuid(platform.fresh_uuid()),
        platform.clock.now(),
    );
    let new = NewReplay {
        id,
        account: platform.account.no,
        endpoint: no,
        from: floor(now - time::Duration::HOUR),
        to: floor(now + time::Duration::SECOND),
        types: &[EventType::EmailQueued],
    };
    platform.store.create_replay(&new, now).await.unwrap();
    id
}

async fn becomes_done(platform: &Platform, no: EndpointNo, id: WebhookReplayId) -> u32 {
    let waiting = async {
        loop {
            let found = platform.store.replays(no, Some(id), None, 1).await.unwrap();
            if found[0].state == ReplayState::Done {
                return found[0].events;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap()
}

#[tokio::test]
async fn a_replay_tells_everything_again_and_survives_kills() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|_| Reply::After(Duration::from_millis(5), 200)).await;
    let sent: HashSet<String> = platform
        .send(900)
        .await
        .iter()
        .map(ToString::to_string)
        .collect();
    // Made after the events: nothing is told by itself.
    let (no, _) = platform.endpoint(&receiver).await;
    let id = start_replay(&platform, no).await;
    for arrived in [100, 400] {
        let worker = platform.worker();
        receiver.has_events(arrived).await;
        worker.kill().await;
        assert!(
            receiver.events().len() < sent.len(),
            "the kill came too late"
        );
    }
    let worker = platform.worker();
    receiver.has_events(sent.len()).await;
    assert_eq!(becomes_done(&platform, no, id).await, 900);
    worker.stop().await;
    assert_eq!(receiver.events(), sent);
    assert!(platform.pending().await.is_empty());
}

#[tokio::test]
async fn new_events_do_not_wait_for_a_replay() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|_| Reply::After(Duration::from_millis(50), 200)).await;
    platform.send(2_000).await;
    let (no, _) = platform.endpoint(&receiver).await;
    let worker = platform.worker();
    start_replay(&platform, no).await;
    receiver.has_calls(20).await;
    let fresh = platform.send(1).await[0].to_string();
    let waiting = async {
        while !receiver.events().contains(&fresh) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    let told = receiver.events().len();
    assert!(told < 1_000, "{told} of 2000 were told before it");
    worker.stop().await;
}

#[tokio::test]
async fn old_events_are_told_once_more_when_they_are_asked_for() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver =
        Receiver::start(|before| Reply::Status(if before == 0 { 500 } else { 200 })).await;
    let event = platform.send(1).await[0];
    // More than calls are repeated for.
    platform.advance(Duration::from_secs(10 * 86_400)).await;
    platform.make_partitions().await;
    let (no, _) = platform.endpoint(&receiver).await;
    let (account, now) = (platform.account.no, platform.clock.now());
    let id = WebhookReplayId::from_uuid(platform.fresh_uuid());
    let asked = platform.store.replay_event(id, account, no, event, now);
    assert!(asked.await.unwrap());
    let worker = platform.worker();
    receiver.has_calls(1).await;
    platform.pending_becomes(&[1]).await;
    platform.advance(Duration::from_secs(7)).await;
    let calls = receiver.has_calls(2).await;
    assert_eq!(becomes_done(&platform, no, id).await, 1);
    assert!(
        calls
            .iter()
            .all(|call| call.header("webhook-id") == event.to_string())
    );
    worker.stop().await;
}
