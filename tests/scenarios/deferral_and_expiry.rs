//! What is put off is tried again when it is due, what is refused bounces, and what nobody takes
//! expires; each with the events that say so.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;
use tests::api::{event_types, message};
use tests::platform::Platform;
use tests::sink::{Asked, Sink, Verdict};
use tests::take_turn;

const MINUTE: Duration = Duration::from_secs(60);

fn receiver(asked: &Asked) -> Verdict {
    match asked.local_part.as_str() {
        "grey" if asked.earlier == 0 => Verdict::AtRcpt("451 4.7.1 Greylisted, come back later"),
        "nobody" => Verdict::AtRcpt("550 5.1.1 No such user here"),
        "spam" => Verdict::AtDot("554 5.7.1 Message refused as spam"),
        "never" => Verdict::AtRcpt("451 4.3.0 Not now"),
        _ => Verdict::Accept,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deferred_bounced_and_expired_mail_says_so() {
    let _turn = take_turn();
    let sink = Sink::options().script(receiver).start().await;
    let builder = Platform::builder().route("*", sink.address).clock();
    let Some(platform) = builder.start().await else {
        return;
    };
    let (api, clock) = (platform.api(0), platform.clock.as_ref().unwrap());
    let to = |address: &str| message(&platform.tenant.domain, address);

    let grey = api.send(&to("grey@sink.test")).await;
    let nobody = api.send(&to("nobody@sink.test")).await;
    let spam = api.send(&to("spam@sink.test")).await;
    let mut short = to("never@sink.test");
    short["expires_in"] = json!("1h");
    let never = api.send(&short).await;

    let bounced = api.becomes(&nobody, "bounced").await;
    let delivery = &bounced["deliveries"][0];
    assert_eq!(event_types(delivery), ["email.queued", "email.bounced"]);
    assert_eq!(
        delivery["attempts"][0]["class"], "invalid_recipient",
        "{delivery:#}"
    );
    assert!(
        delivery["attempts"][0]["reply"]
            .as_str()
            .unwrap()
            .starts_with("550 5.1.1")
    );
    api.becomes(&spam, "bounced").await;

    let deferred = api.becomes(&grey, "deferred").await;
    assert_eq!(
        deferred["deliveries"][0]["attempts"][0]["class"], "greylisted",
        "{deferred:#}"
    );
    assert!(
        deferred["deliveries"][0]["next_attempt_at"].is_string(),
        "{deferred:#}"
    );
    api.becomes(&never, "deferred").await;
    assert_eq!(sink.dots(), 1, "only the spam got as far as the dot");

    clock.advance(15 * MINUTE).unwrap();
    let delivered = api.becomes(&grey, "delivered").await;
    let delivery = &delivered["deliveries"][0];
    assert_eq!(
        event_types(delivery),
        ["email.queued", "email.deferred", "email.delivered"]
    );
    assert_eq!(delivery["attempts"][1]["number"], 2);
    let finals = delivery["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["final"] == true);
    assert_eq!(finals.count(), 1);

    clock.advance(60 * MINUTE).unwrap();
    let expired = api.becomes(&never, "expired").await;
    let types = event_types(&expired["deliveries"][0]);
    assert_eq!(types.first().map(String::as_str), Some("email.queued"));
    assert_eq!(types.last().map(String::as_str), Some("email.expired"));
    let finals = types.iter().filter(|kind| *kind == "email.expired").count();
    assert_eq!((finals, sink.dots()), (1, 2));
    assert_same_return_path(&sink);
}

/// Greylisting remembers the reverse path (RFC 6647), so it has to stay the same.
fn assert_same_return_path(sink: &Sink) {
    let receipts = sink.receipts();
    let grey = receipts
        .iter()
        .find(|receipt| receipt.recipient == "grey@sink.test")
        .unwrap();
    assert!(
        grey.mail_from.ends_with("@bounce.test") && grey.mail_from.len() <= 64,
        "{grey:?}"
    );
}
