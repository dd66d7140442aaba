//! A webhook endpoint that fails is called again until it takes the event, under the same id, and
//! one that hangs keeps nothing from the others. Secrets are replaced without a gap, events are
//! told once more when asked for, and an endpoint that fails for days is called no more.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mail::ids::MessageId;
use serde_json::{Value, json};
use tests::api::{Api, message};
use tests::platform::Platform;
use tests::receiver::{Call, Manner, WebhookReceiver};
use tests::sink::Sink;
use tests::{PATIENCE, take_turn, until};

/// After so long an endpoint that always fails is disabled.
const DAYS: Duration = Duration::from_secs(5 * 86_400);

#[tokio::test(flavor = "multi_thread")]
async fn failing_endpoints_get_their_events_later_and_hold_up_nobody() {
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let builder = Platform::builder().route("*", sink.address).clock();
    let Some(mut platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let (well, failing, hanging) = (
        WebhookReceiver::start().await,
        WebhookReceiver::start().await,
        WebhookReceiver::start().await,
    );
    failing.behave(Manner::Status(500));
    hanging.behave(Manner::Hangs);
    let delivered = ["email.delivered"];
    api.create_webhook(&well.url, &delivered).await;
    let secret = api.create_webhook(&failing.url, &delivered).await;
    api.create_webhook(&hanging.url, &delivered).await;

    let body = message(&platform.tenant.domain, "ana@sink.test");
    let id = api.send(&body).await;
    api.becomes(&id, "delivered").await;
    for receiver in [&well, &failing, &hanging] {
        receiver
            .has("it was called", |calls| !calls.is_empty())
            .await;
    }
    for number in 0..5 {
        let id = api.send(&body).await;
        api.becomes(&id, "delivered").await;
        well.has("the others do not wait", |calls| calls.len() == number + 2)
            .await;
    }

    // What is still to be called survives the process.
    failing
        .has("all events came once", |calls| ids(calls).len() == 6)
        .await;
    let status = tokio::task::block_in_place(|| platform.nodes[0].terminate(PATIENCE));
    assert!(status.unwrap().success());
    platform.nodes[0].restart().await;
    failing.behave(Manner::Status(204));
    platform
        .clock
        .as_ref()
        .unwrap()
        .advance(Duration::from_secs(8))
        .unwrap();
    let taken = |calls: &[Call]| {
        let taken = calls.iter().filter(|call| call.answered == 204).cloned();
        ids(&taken.collect::<Vec<_>>()).len()
    };
    let calls = failing
        .has("all events were taken", |calls| taken(calls) == 6)
        .await;
    assert_eq!(ids(&calls).len(), 6, "a second try has another id");
    assert!(calls.iter().all(|call| call.is_signed("webhook", &secret)));
}

/// Waits until the only webhook is as wanted, and returns it.
async fn webhook_becomes(api: &Api, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, PATIENCE, || async {
        let listed = api.get("/v1/webhooks").await.json();
        let found = listed["data"][0].clone();
        wanted(&found).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_overlap_and_a_replay_survives_kills() {
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let builder = Platform::builder().route("*", sink.address).clock();
    let Some(mut platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let receiver = WebhookReceiver::start().await;
    let old_secret = api
        .create_webhook(&receiver.url, &["email.delivered"])
        .await;
    let webhook = webhook_becomes(&api, "it is there", |found| !found.is_null()).await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());

    let overlap = json!({"overlap": "1h"});
    let rotated = api.post(&format!("{path}/rotate-secret"), &overlap).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    let new_secret = rotated.json()["secret"].as_str().unwrap().to_owned();
    let body = message(&platform.tenant.domain, "ana@sink.test");
    for _ in 0..40 {
        api.send(&body).await;
    }
    let calls = receiver
        .has("everything was told", |calls| ids(calls).len() == 40)
        .await;
    // The secret may be up to five seconds old.
    assert!(
        calls
            .iter()
            .all(|call| call.is_signed("webhook", &old_secret))
    );
    let both = |call: &Call| {
        ["webhook", "svix"].iter().all(|prefix| {
            call.is_signed(prefix, &old_secret) && call.is_signed(prefix, &new_secret)
        })
    };
    let tested = api.post(&format!("{path}/test"), &json!({})).await;
    assert_eq!(tested.status, 202, "{tested:?}");
    let test = tested.json()["event_id"].as_str().unwrap().to_owned();
    receiver
        .has("it was tested", |calls| {
            calls
                .last()
                .is_some_and(|call| call.header("webhook-id") == test && both(call))
        })
        .await;

    // Everything once more, with kills in between.
    receiver.behave(Manner::Slowly(Duration::from_millis(60), 200));
    let from = webhook_events_since(&calls);
    let asked = api
        .post(&format!("{path}/replay"), &json!({"from": from}))
        .await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let replay = format!("{path}/replays/{}", asked.json()["id"].as_str().unwrap());
    let first = calls.len() + 1;
    let again = |calls: &[Call]| ids(&calls[first..]).len();
    for some in [5, 15] {
        receiver
            .has("some was told again", |calls| again(calls) >= some)
            .await;
        tokio::task::block_in_place(|| platform.nodes[0].kill());
        assert!(again(&receiver.calls()) < 40, "the kill came too late");
        platform.nodes[0].restart().await;
    }
    let calls = receiver
        .has("all was told again", |calls| again(calls) == 40)
        .await;
    assert_eq!(ids(&calls[first..]), {
        let mut told = ids(&calls[..first]);
        told.remove(&test);
        told
    });
    let done = until("the replay is done", PATIENCE, || async {
        let shown = api.get(&replay).await.json();
        (shown["status"] == "done").then_some(shown)
    })
    .await;
    assert_eq!((&done["events"], &done["waiting"]), (&json!(40), &json!(0)));

    // The log of calls shows it; what it lost with the kills were calls before the last start.
    let event = calls.last().unwrap().header("webhook-id").to_owned();
    let list = format!("{path}/calls?event={event}&status=succeeded");
    until("the log shows the replayed call", PATIENCE, || async {
        let shown = api.get(&list).await.json();
        let data = shown["data"].as_array().unwrap();
        data.iter().any(|call| call["replay"] == true).then_some(())
    })
    .await;
}

/// A time before the events of these calls.
fn webhook_events_since(calls: &[Call]) -> String {
    let times = calls
        .iter()
        .map(|call| call.json()["timestamp"].as_str().unwrap().to_owned());
    times.min().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_for_days_is_disabled_until_its_owner_enables_it() {
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let builder = Platform::builder().route("*", sink.address).clock();
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let receiver = WebhookReceiver::start().await;
    receiver.behave(Manner::Status(500));
    api.create_webhook(&receiver.url, &["email.delivered"])
        .await;
    let body = message(&platform.tenant.domain, "ana@sink.test");
    let first: MessageId = api.send(&body).await.parse().unwrap();
    webhook_becomes(&api, "it fails", |found| found["failing_since"].is_string()).await;
    let clock = platform.clock.as_ref().unwrap();
    clock.advance(DAYS).unwrap();
    // The platform lives five days later a moment later.
    let later_ms = first.unix_ms() + u64::try_from(DAYS.as_millis()).unwrap();
    let id = until("time has moved", PATIENCE, || async {
        let id = api.send(&body).await;
        let sent: MessageId = id.parse().unwrap();
        (sent.unix_ms() >= later_ms).then_some(id)
    })
    .await;
    let found = webhook_becomes(&api, "it is disabled", |found| {
        found["status"] == "disabled"
    })
    .await;
    assert_eq!(found["disabled_reason"], "failing");

    api.becomes(&id, "delivered").await;
    receiver.behave(Manner::Status(200));
    let path = format!("/v1/webhooks/{}", found["id"].as_str().unwrap());
    let request = api.request(reqwest::Method::PATCH, &path);
    let enabled = api
        .ask(request.json(&json!({"enabled": true})))
        .await
        .unwrap();
    assert_eq!(enabled.json()["status"], "enabled", "{enabled:?}");
    clock.advance(Duration::from_secs(8)).unwrap();
    receiver
        .has("what waited is told", |calls| {
            calls.iter().any(|call| {
                call.answered == 200 && call.json()["data"]["message_id"] == id.as_str()
            })
        })
        .await;
}

fn ids(calls: &[Call]) -> std::collections::BTreeSet<String> {
    calls
        .iter()
        .map(|call| call.header("webhook-id").to_owned())
        .collect()
}
