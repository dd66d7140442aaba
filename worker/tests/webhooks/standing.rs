//! Endpoints that fail for days or answer 410 are switched off and their account is told; what
//! waited for them is not lost. And the log of what was called.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mail::event::EventType;
use mail::ids::WebhookCallId;
use serde_json::Value;
use store::{CallFilter, CallRecord, CallResult, DisabledReason, EndpointChange, EndpointNo};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::common::{PATIENCE, Platform, Received, Receiver, Reply, SECRET};
use crate::{verify, verify_with};

const DAY: Duration = Duration::from_secs(86_400);

/// A receiver whose answer can be changed.
async fn receiver(status: u16) -> (Receiver, Arc<AtomicU16>) {
    let answer = Arc::new(AtomicU16::new(status));
    let answers = Arc::clone(&answer);
    let started = Receiver::start(move |_| Reply::Status(answers.load(Ordering::SeqCst))).await;
    (started, answer)
}

async fn becomes<T>(what: &str, found: impl AsyncFn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("did not happen: {what}"))
}

async fn disabled(platform: &Platform, no: EndpointNo) -> DisabledReason {
    becomes("the endpoint is disabled", async || {
        let all = platform.store.endpoints(platform.account.no).await.unwrap();
        let found = all.iter().find(|one| one.no == no).unwrap();
        found.disabled.map(|(_, reason)| reason)
    })
    .await
}

async fn calls(platform: &Platform, no: EndpointNo, count: usize) -> Vec<CallRecord> {
    becomes("the calls are in the log", async || {
        let lowest = WebhookCallId::from_uuid(Uuid::nil());
        let filter = CallFilter::default();
        let found = platform.store.calls(no, filter, lowest, None, 100).await;
        Some(found.unwrap()).filter(|found| found.len() >= count)
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_fails_for_five_days_is_switched_off_and_the_others_are_told() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let ((failing, answer), (well, _)) = (receiver(500).await, receiver(200).await);
    let (no, id) = platform.endpoint(&failing).await;
    let told = [EventType::WebhookDisabled];
    platform
        .endpoint_for(&platform.account, &well.url, &told)
        .await;
    let worker = platform.worker();
    platform.send(1).await;
    becomes("the first failure is noted", async || {
        let all = platform.store.endpoints(platform.account.no).await.unwrap();
        all.into_iter().find(|one| one.no == no)?.failing_since
    })
    .await;
    platform.advance(5 * DAY).await;
    platform.make_partitions().await;
    // What was to be repeated is too old by now: a new event shows that it still fails.
    let event = platform.send(1).await[0];
    assert_eq!(disabled(&platform, no).await, DisabledReason::Failing);

    let call = &well.has_calls(1).await[0];
    let body: Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(body["type"], "webhook.disabled");
    assert_eq!(body["data"]["id"], id.to_string());
    assert_eq!(body["data"]["reason"], "failing");

    // Nothing is called any more, and nothing is lost.
    let before = failing.calls().len();
    platform.advance(Duration::from_secs(60)).await;
    platform.send(3).await;
    worker.shows("postrider_webhook_open_calls 0").await;
    assert_eq!(failing.calls().len(), before);
    answer.store(200, Ordering::SeqCst);
    let enable = EndpointChange {
        enabled: Some(true),
        ..EndpointChange::default()
    };
    let (account, now) = (platform.account.no, platform.clock.now());
    let changed = platform.store.change_endpoint(account, id, enable, now);
    assert!(changed.await.unwrap().unwrap().enabled);
    becomes("the call that waited is made", async || {
        let calls = failing.calls();
        let last = calls.last()?;
        (calls.len() > before && last.header("webhook-id") == event.to_string()).then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn one_good_answer_begins_the_five_days_anew() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (receiver, answer) = receiver(500).await;
    let (no, _) = platform.endpoint(&receiver).await;
    let worker = platform.worker();
    let state = async || {
        let all = platform.store.endpoints(platform.account.no).await.unwrap();
        all.into_iter().find(|one| one.no == no).unwrap()
    };
    platform.send(1).await;
    becomes("it fails", async || state().await.failing_since).await;
    answer.store(200, Ordering::SeqCst);
    platform.advance(Duration::from_secs(7)).await;
    becomes("it has recovered", async || {
        state().await.failing_since.is_none().then_some(())
    })
    .await;
    answer.store(500, Ordering::SeqCst);
    platform.advance(5 * DAY).await;
    platform.make_partitions().await;
    platform.send(1).await;
    becomes("it fails again", async || state().await.failing_since).await;
    worker.stop().await;
    assert!(state().await.enabled);
}

#[tokio::test]
async fn an_endpoint_that_answers_410_is_switched_off_at_once() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (gone, _) = receiver(410).await;
    let (no, _) = platform.endpoint(&gone).await;
    let worker = platform.worker();
    platform.send(1).await;
    assert_eq!(disabled(&platform, no).await, DisabledReason::Gone);
    let made = calls(&platform, no, 1).await;
    assert_eq!((made[0].result, made[0].next_at), (CallResult::Gone, None));
    worker.stop().await;
}

#[tokio::test]
async fn a_410_of_the_url_before_is_a_failed_call_and_the_new_url_gets_it() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let answer = Arc::new(Notify::new());
    let told = Arc::clone(&answer);
    let old = Receiver::start(move |_| Reply::Once(Arc::clone(&told), 410)).await;
    let (new, _) = receiver(200).await;
    let (no, id) = platform.endpoint(&old).await;
    let worker = platform.worker();
    let event = platform.send(1).await[0];
    old.has_calls(1).await;
    let moved = EndpointChange {
        url: Some(&new.url),
        ..EndpointChange::default()
    };
    let (account, now) = (platform.account.no, platform.clock.now());
    let changed = platform.store.change_endpoint(account, id, moved, now);
    assert!(changed.await.unwrap().is_some());
    answer.notify_one();
    let made = calls(&platform, no, 1).await;
    assert_eq!(made[0].result, CallResult::Gone);
    assert!(made[0].next_at.is_some(), "it is repeated");
    platform.pending_becomes(&[1]).await;
    platform.advance(Duration::from_secs(7)).await;
    let call = &new.has_calls(1).await[0];
    assert_eq!(call.header("webhook-id"), event.to_string());
    let all = platform.store.endpoints(account).await.unwrap();
    assert!(all[0].enabled && all[0].disabled.is_none());
    worker.stop().await;
}

#[tokio::test]
async fn every_call_is_in_the_log_with_what_was_answered() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let receiver = Receiver::start(|before| match before {
        0 => Reply::Body(503, "not today"),
        _ => Reply::Body(200, "thanks"),
    })
    .await;
    let (no, _) = platform.endpoint(&receiver).await;
    let (refused, _) = platform
        .endpoint_for(
            &platform.account,
            "http://169.254.169.254/latest/meta-data/",
            &[EventType::EmailQueued],
        )
        .await;
    let worker = platform.worker();
    let event = platform.send(1).await[0];
    platform.pending_becomes(&[1, 1]).await;
    platform.advance(Duration::from_secs(7)).await;
    let made = calls(&platform, no, 2).await;
    worker.stop().await;
    let shown: Vec<_> = made
        .iter()
        .map(|call| {
            (
                call.attempt,
                call.result,
                call.status,
                call.response.as_str(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (2, CallResult::Taken, Some(200), "thanks"),
            (1, CallResult::Status, Some(503), "not today"),
        ]
    );
    assert!(
        made.iter()
            .all(|call| call.event == event && !call.is_replay)
    );
    assert!(made[1].next_at.is_some() && made[0].next_at.is_none());
    let made = calls(&platform, refused, 2).await;
    assert!(
        made.iter()
            .all(|call| call.result == CallResult::Refused && call.status.is_none())
    );
}

#[tokio::test]
async fn a_replaced_secret_signs_beside_the_new_one() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (receiver, _) = receiver(200).await;
    let (no, id) = platform.endpoint(&receiver).await;
    let (store, now) = (&platform.store, platform.clock.now());
    let new = b"another secret, as long as that.";
    let until = now + time::Duration::DAY;
    let account = platform.account.no;
    store
        .rotate_endpoint_secret(account, id, new, &platform.sealer, Some(until))
        .await
        .unwrap();
    let worker = platform.worker();
    platform.send(1).await;
    let call = &receiver.has_calls(1).await[0];
    assert_eq!(call.header("webhook-signature").split(' ').count(), 2);
    for family in ["webhook", "svix"] {
        assert!(verify_with(call, family, SECRET) && verify_with(call, family, new));
        assert!(!verify_with(call, family, b"a third secret"));
    }
    platform.advance(DAY).await;
    platform.make_partitions().await;
    platform.send(1).await;
    let call = &receiver.has_calls(2).await[1];
    assert!(verify_with(call, "webhook", new) && !verify_with(call, "webhook", SECRET));
    worker.stop().await;
    assert!(
        store
            .endpoint(no, &platform.sealer)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_test_is_told_before_what_waits() {
    const WAITING: usize = 50;
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (receiver, answer) = receiver(500).await;
    let (_, id) = platform.endpoint(&receiver).await;
    let worker = platform.worker();
    platform.send(WAITING).await;
    worker.shows("postrider_webhook_endpoints_failing 1").await;
    worker.shows("postrider_webhook_open_calls 0").await;
    answer.store(200, Ordering::SeqCst);
    let before = receiver.calls().len();
    let event = mail::ids::EventId::from_uuid(platform.fresh_uuid());
    let account = platform.account.no;
    assert!(
        platform
            .store
            .test_endpoint(account, id, event)
            .await
            .unwrap()
    );
    let test = event.to_string();
    let is_test = |call: &Received| call.header("webhook-id") == test;
    let calls = receiver.becomes(|calls| calls.iter().any(is_test)).await;
    let place = calls.iter().position(is_test).unwrap();
    // What is due for another try may be called just before; the many that wait come later.
    assert!(place - before < WAITING / 2, "{place} after {before}");
    let told: Value = serde_json::from_slice(&calls[place].body).unwrap();
    assert_eq!(told["type"], "webhook.test");
    assert_eq!(told["data"]["id"], id.to_string());
    verify(&calls[place], "webhook");
    worker.stop().await;
}
