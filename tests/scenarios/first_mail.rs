//! The first minute with Postrider: one command, one POST, a signed email in the sandbox, and
//! webhooks that the public Standard Webhooks library accepts. And again after a crash.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use tests::api::{Api, message};
use tests::dev::Dev;
use tests::python::Python;
use tests::receiver::{Call, WebhookReceiver};
use tests::{PATIENCE, place, take_turn, until};

const EVENTS: [&str; 2] = ["email.queued", "email.delivered"];

#[tokio::test(flavor = "multi_thread")]
async fn one_command_and_one_post_bring_a_signed_email_and_signed_webhooks() {
    let _turn = take_turn();
    let dir = place::directory();
    // As deep as a clone may be; PostgreSQL's socket has to stay short all the same.
    let data_dir = dir.path().join("d".repeat(120));
    let dev = tokio::task::block_in_place(|| Dev::start(&data_dir, &[]));
    eprintln!("ready after {:?}, the first time", dev.took);

    let receiver = WebhookReceiver::start().await;
    let api = Api::at(dev.field("api_url"), dev.field("api_key"));
    let secret = api.create_webhook(&receiver.url, &EVENTS).await;
    let domain = dev.field("sandbox_domain").to_owned();
    let to = format!("delivered@{domain}");
    let id = api.send(&message(&domain, &to)).await;
    let email = api.becomes(&id, "delivered").await;
    assert_eq!(
        email["deliveries"][0]["attempts"][0]["ambiguous"], false,
        "{email:#}"
    );

    let received = until("the mail is in the inbox", PATIENCE, || async {
        let inbox = reqwest::get(dev.field("inbox_url")).await.unwrap();
        let inbox: Value = inbox.json().await.unwrap();
        inbox["data"].as_array()?.first().cloned()
    })
    .await;
    let results = received["authentication_results"]
        .as_str()
        .unwrap_or_default();
    assert!(results.contains("dkim=pass"), "{received:#}");

    let calls = receiver
        .has("both events arrived", |calls| calls.len() >= 2)
        .await;
    check_calls(&calls, &secret, &id);
    verify_with_public_library(&calls, &secret);

    // A test key reaches the sandbox whatever the recipient's domain.
    let test_api = api.with_key(dev.field("test_key"));
    let id = test_api
        .send(&message(&domain, "unknown@elsewhere.test"))
        .await;
    test_api.becomes(&id, "bounced").await;

    let (key, first) = (dev.field("api_key").to_owned(), id);
    tokio::task::block_in_place(|| dev.kill());
    let dev = tokio::task::block_in_place(|| Dev::start(&data_dir, &[]));
    eprintln!("ready after {:?}, after a crash", dev.took);
    assert_eq!(
        dev.field("api_key"),
        key,
        "the key is the same after a restart"
    );
    let api = Api::at(dev.field("api_url"), &key);
    api.becomes(&first, "bounced").await;
    let id = api.send(&message(&domain, &to)).await;
    api.becomes(&id, "delivered").await;
}

fn check_calls(calls: &[Call], secret: &str, id: &str) {
    let mut kinds: Vec<String> = calls.iter().map(Call::kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["email.delivered", "email.queued"]);
    for call in calls {
        for prefix in ["webhook", "svix"] {
            assert!(call.is_signed(prefix, secret), "{prefix}: {call:?}");
        }
        let event = call.json();
        assert_eq!(event["data"]["message_id"], id, "{event:#}");
        assert_eq!(
            event["data"]["final"],
            json!(call.kind() == "email.delivered"),
            "{event:#}"
        );
        assert_eq!(call.header("webhook-id"), event["id"], "{event:#}");
    }
    let mut forged = calls[0].clone();
    forged.body = axum::body::Bytes::from_static(b"{}");
    assert!(!forged.is_signed("webhook", secret), "any body is taken");
}

const VERIFY: &str = "
import json, sys
from standardwebhooks import Webhook
for call in json.load(sys.stdin):
    Webhook(call['secret']).verify(call['body'], call['headers'])
print('true')
";

fn verify_with_public_library(calls: &[Call], secret: &str) {
    let Some(python) = Python::with_library("standardwebhooks==1.0.0", "standardwebhooks") else {
        return;
    };
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let call = |call: &Call| {
        let headers: Value = names
            .iter()
            .map(|name| (*name, call.header(name)))
            .collect();
        json!({"secret": secret, "headers": headers, "body": String::from_utf8_lossy(&call.body)})
    };
    assert_eq!(python.run(VERIFY, &calls.iter().map(call).collect()), true);
}
