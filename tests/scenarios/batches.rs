//! A batch is as many mails as it has messages: each arrives filled in and signed, the same again
//! when it has to be sent again, and what they say alike is stored once.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tests::platform::Platform;
use tests::sink::{Asked, Receipt, Sink, Verdict};
use tests::{PATIENCE, take_turn, until};

const FILLED_IN: usize = 200;
const PLAIN: usize = 100;
const QUARTER_HOUR: Duration = Duration::from_secs(900);

/// Every tenth recipient is put off once, after its content was seen.
fn receiver(asked: &Asked) -> Verdict {
    if asked.local_part.ends_with('7') && asked.earlier == 0 {
        Verdict::AtDot("451 4.7.1 Greylisted, come back later")
    } else {
        Verdict::Accept
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_arrives_as_many_mails_and_is_stored_once() {
    let _turn = take_turn();
    let sink = Sink::options().script(receiver).start().await;
    let builder = Platform::builder().route("*", sink.address).clock();
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let from = format!("Acme <hello@{}>", platform.tenant.domain);
    let filled_in: Vec<Value> = (0..FILLED_IN)
        .map(|n| json!({"to": format!("v{n}@sink.test"), "variables": {"name": format!("Zoe <{n}>")}}))
        .collect();
    let template = json!({
        "from": from, "subject": "News for {{ name }}",
        "html": "<p>Hi {{ name }}</p>", "text": "Hi {{ name }}\n. and a dot",
    });
    send(&api, json!({"defaults": template, "messages": filled_in})).await;
    let plain: Vec<Value> = (0..PLAIN)
        .map(|n| json!({"to": format!("p{n}@sink.test"), "subject": format!("Plain {n}")}))
        .collect();
    let shared = json!({"from": from, "html": "<p>{{ as it is }}</p>", "text": "{{ as it is }}"});
    send(&api, json!({"defaults": shared, "messages": plain})).await;
    assert_eq!(contents(&platform).await, 2);

    // The first tries of all; those put off come again when their time has come.
    let put_off = (FILLED_IN + PLAIN) / 10;
    until("all were tried", PATIENCE, || async {
        let left: (i64, i64) =
            sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE attempt = 1) FROM queue")
                .fetch_one(&platform.pool)
                .await
                .unwrap();
        let expected = i64::try_from(put_off).unwrap();
        (left == (expected, expected)).then_some(())
    })
    .await;
    assert_eq!(sink.dots(), FILLED_IN + PLAIN);
    let clock = platform.clock.as_ref().unwrap();
    clock.advance(QUARTER_HOUR).unwrap();
    sink.has_dots(FILLED_IN + PLAIN + put_off).await;

    let mut by_recipient: HashMap<String, Vec<Receipt>> = HashMap::new();
    for receipt in sink.receipts() {
        let tries = by_recipient.entry(receipt.recipient.clone()).or_default();
        tries.push(receipt);
    }
    assert_eq!(by_recipient.len(), FILLED_IN + PLAIN);
    for (recipient, tries) in &by_recipient {
        let number: usize = recipient[1..recipient.find('@').unwrap()].parse().unwrap();
        let text = unsigned(&tries[0]);
        assert!(text.contains(&format!("To: {recipient}\r\n")), "{text}");
        if recipient.starts_with('v') {
            assert!(
                text.contains(&format!("<p>Hi Zoe &lt;{number}&gt;</p>")),
                "{text}"
            );
            assert!(
                text.contains(&format!("\r\nHi Zoe <{number}>\r\n. and a dot")),
                "{text}"
            );
            assert!(!text.contains("{{"), "{text}");
        } else {
            assert!(
                text.contains(&format!("Subject: Plain {number}\r\n")),
                "{text}"
            );
            assert!(text.contains("<p>{{ as it is }}</p>"), "{text}");
        }
        assert_eq!(tries.iter().filter(|receipt| receipt.accepted).count(), 1);
        for again in &tries[1..] {
            assert_eq!(unsigned(again), text, "a second try says something else");
        }
    }
    signatures_pass(&platform, &from).await;
}

async fn send(api: &tests::api::Api, batch: Value) {
    let answer = api.post("/v1/emails/batch?mode=strict", &batch).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let count = batch["messages"].as_array().unwrap().len();
    assert_eq!(answer.json()["data"].as_array().unwrap().len(), count);
}

async fn contents(platform: &Platform) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM content")
        .fetch_one(&platform.pool)
        .await
        .unwrap()
}

/// The mail without its signature, which tells the time of the try.
fn unsigned(receipt: &Receipt) -> String {
    let text = String::from_utf8(receipt.content.to_vec()).unwrap();
    let rest = text.strip_prefix("DKIM-Signature:").unwrap();
    // A field ends at a line that does not begin with white space (RFC 5322 section 2.2.3).
    let lines: Vec<&str> = rest.split_inclusive("\r\n").collect();
    let end = lines[1..]
        .iter()
        .position(|line| !line.starts_with([' ', '\t']))
        .unwrap();
    lines[1 + end..].concat()
}

/// The sandbox verifies what it receives with a library that is not ours.
async fn signatures_pass(platform: &Platform, from: &str) {
    let api = platform.api(0).with_key(&platform.tenant.test_key);
    let messages = |variables: bool| -> Vec<Value> {
        let one = |n: usize| {
            let mut message = json!({"to": "delivered@sandbox.test"});
            if variables {
                message["variables"] = json!({"name": n});
            }
            message
        };
        (0..3).map(one).collect()
    };
    let defaults =
        json!({"from": from, "subject": "Hi", "html": "<p>Hi {{ name }}</p>", "text": "é"});
    for variables in [true, false] {
        let batch = json!({"defaults": defaults, "messages": messages(variables)});
        send(&api, batch).await;
    }
    let received = until("all are in the sandbox", PATIENCE, || async {
        let list = api.get("/v1/sandbox/messages").await.json();
        let list = list["data"].as_array()?.clone();
        (list.len() >= 6).then_some(list)
    })
    .await;
    for message in received {
        let results = message["authentication_results"].as_str().unwrap();
        assert!(results.contains("dkim=pass"), "{message:#}");
    }
}
