//! A webhook endpoint that fails is called again until it takes the event, under the same id, and
//! one that hangs keeps nothing from the others.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tests::api::message;
use tests::platform::Platform;
use tests::receiver::{Call, Manner, WebhookReceiver};
use tests::sink::Sink;
use tests::{PATIENCE, take_turn};

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

fn ids(calls: &[Call]) -> std::collections::BTreeSet<String> {
    calls
        .iter()
        .map(|call| call.header("webhook-id").to_owned())
        .collect()
}
