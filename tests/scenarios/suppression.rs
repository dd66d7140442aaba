//! Nobody is sent to against the suppression list: neither what comes later, nor what waits for
//! another try when its recipient enters the list.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::api::{Api, event_types, message};
use tests::platform::Platform;
use tests::receiver::WebhookReceiver;
use tests::sink::{Sink, Verdict};
use tests::take_turn;

/// How often each local part was named in RCPT.
type Named = Arc<Mutex<HashMap<String, usize>>>;

async fn receiver(named: Named) -> Sink {
    let script = move |asked: &tests::sink::Asked| {
        let mut named = named.lock().unwrap();
        *named.entry(asked.local_part.clone()).or_default() += 1;
        match asked.local_part.as_str() {
            "nobody" => Verdict::AtRcpt("550 5.1.1 No such user here"),
            "busy" => Verdict::AtRcpt("451 4.3.0 Not now"),
            "guarded" => Verdict::AtRcpt("550 5.7.1 Your address is on a blocklist"),
            _ => Verdict::Accept,
        }
    };
    Sink::options().script(script).start().await
}

async fn entries(api: &Api, address: &str) -> Vec<Value> {
    let address = address.replace('@', "%40");
    let answer = api
        .get(&format!("/v1/suppressions?address={address}"))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["data"].as_array().unwrap().clone()
}

fn is_final(event: &Value) -> bool {
    event["final"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_is_tried_once_and_whoever_is_listed_no_more() {
    let _turn = take_turn();
    let named = Named::default();
    let times = |local_part: &str| named.lock().unwrap().get(local_part).copied();
    let sink = receiver(named.clone()).await;
    let builder = Platform::builder().route("*", sink.address).clock();
    let Some(platform) = builder.start().await else {
        return;
    };
    let (api, clock) = (platform.api(0), platform.clock.as_ref().unwrap());
    let to = |address: &str| message(&platform.tenant.domain, address);
    let hook = WebhookReceiver::start().await;
    let secret = api.create_webhook(&hook.url, &["email.suppressed"]).await;

    // Deferred first, so that its next try is due while the rest happens.
    let busy = api.send(&to("busy@sink.test")).await;
    api.becomes(&busy, "deferred").await;

    let first = api.send(&to("nobody@sink.test")).await;
    let bounced = api.becomes(&first, "bounced").await;
    let listed = entries(&api, "NOBODY@sink.test").await;
    assert_eq!(listed.len(), 1, "{listed:#?}");
    assert_eq!(listed[0]["reason"], "hard_bounce");
    let delivery = &bounced["deliveries"][0];
    let expected = json!({
        "event_id": delivery["events"][1]["id"], "message_id": first, "delivery_id": delivery["id"],
    });
    assert_eq!(listed[0]["source"], expected);

    let answer = api.post("/v1/emails", &to("Nobody@sink.test")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["status"], "suppressed", "{answer:#}");
    assert_eq!(answer["deliveries"][0]["status"], "suppressed");
    let second = api.email(answer["id"].as_str().unwrap()).await;
    assert_eq!(second["status"], "suppressed", "{second:#}");
    assert_eq!(times("nobody"), Some(1));
    assert_eq!(times("Nobody"), None, "the second is not tried");
    let calls = hook
        .has("the first suppression", |calls| !calls.is_empty())
        .await;
    let told = calls[0].json();
    assert!(calls[0].is_signed("webhook", &secret));
    assert_eq!(
        (&told["type"], &told["sequence"]),
        (&json!("email.suppressed"), &json!(1))
    );
    assert_eq!(told["data"]["message_id"], answer["id"]);
    assert!(
        is_final(&told["data"]) && told["data"].get("attempt").is_none(),
        "{told:#}"
    );

    // What is said about us proves nothing about the address.
    let guarded = api.send(&to("guarded@sink.test")).await;
    api.becomes(&guarded, "bounced").await;
    assert!(entries(&api, "guarded@sink.test").await.is_empty());
    // Nor does a test.
    let tester = api.with_key(&platform.tenant.test_key);
    let test = tester.send(&to("unknown@sink.test")).await;
    tester.becomes(&test, "bounced").await;
    assert!(entries(&api, "unknown@sink.test").await.is_empty());

    // On the list while it waits: the next try does not happen.
    let answer = api
        .post("/v1/suppressions", &json!({"address": "BUSY@sink.test"}))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    clock.advance(Duration::from_secs(3_600)).unwrap();
    let ended = api.becomes(&busy, "suppressed").await;
    let delivery = &ended["deliveries"][0];
    let expected = ["email.queued", "email.deferred", "email.suppressed"];
    assert_eq!(event_types(delivery), expected);
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
    let events = delivery["events"].as_array().unwrap();
    assert_eq!(events.iter().filter(|event| is_final(event)).count(), 1);
    assert_eq!(times("busy"), Some(1));
    let calls = hook
        .has("the second suppression", |calls| calls.len() == 2)
        .await;
    let told = calls[1].json();
    assert_eq!(told["data"]["message_id"], busy.as_str());
    assert_eq!(told["sequence"], 3);

    // Off the list it is sent to again, and proves itself dead again.
    let id = listed[0]["id"].as_str().unwrap();
    let path = format!("/v1/suppressions/{id}");
    let delete = api.request(reqwest::Method::DELETE, &path);
    assert_eq!(api.ask(delete).await.unwrap().status, 204);
    let third = api.send(&to("nobody@sink.test")).await;
    api.becomes(&third, "bounced").await;
    assert_eq!(times("nobody"), Some(2));
    assert_eq!(entries(&api, "nobody@sink.test").await.len(), 1);
    assert_eq!(sink.dots(), 0);
}
