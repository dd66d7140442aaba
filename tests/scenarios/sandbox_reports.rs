//! The sandbox through the program: each of its behaviours has the outcome that docs/sandbox.md
//! tells, and what comes back later is a report that others can read, sent where it belongs.

#![allow(clippy::unwrap_used)]

use std::fs;

use mail_auth::report::Feedback;
use serde_json::{Value, json};
use tests::api::{Api, event_types, message};
use tests::dev::Dev;
use tests::receiver::{Call, WebhookReceiver};
use tests::sink::{Receipt, Sink};
use tests::{PATIENCE, place, take_turn, until};

/// The table of docs/sandbox.md: word, status, reply, type of the event that tells.
const BEHAVIOURS: [(&str, &str, &str, &str); 9] = [
    ("delivered", "delivered", "250 2.0.0", "email.delivered"),
    ("slow", "delivered", "250 2.0.0", "email.delivered"),
    ("bounce-later", "delivered", "250 2.0.0", "email.delivered"),
    ("complaint", "delivered", "250 2.0.0", "email.delivered"),
    ("greylist", "deferred", "451 4.7.1", "email.deferred"),
    ("tempfail", "deferred", "451 4.3.0", "email.deferred"),
    ("mailbox-full", "deferred", "552 5.2.2", "email.deferred"),
    ("unknown", "bounced", "550 5.1.1", "email.bounced"),
    ("spam-block", "bounced", "554 5.7.1", "email.bounced"),
];

fn start(dir: &tempfile::TempDir, arguments: &[&str]) -> (Dev, Api) {
    let data_dir = dir.path().join("data");
    let dev = tokio::task::block_in_place(|| Dev::start(&data_dir, arguments));
    let api = Api::at(dev.field("api_url"), dev.field("api_key"));
    (dev, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_behaviour_is_reached_by_local_part_and_by_domain() {
    let _turn = take_turn();
    let dir = place::directory();
    let (dev, api) = start(&dir, &[]);
    let test_api = api.with_key(dev.field("test_key"));
    let mut sent = Vec::new();
    for (word, ..) in BEHAVIOURS {
        let live = [
            format!("{word}@sandbox.test"),
            format!("{word}+tag@sandbox.test"),
            format!("ana@{word}.sandbox.test"),
        ];
        for to in live {
            sent.push((
                api.clone(),
                api.send(&message("sandbox.test", &to)).await,
                word,
            ));
        }
        let to = format!("{word}.2@customer.example");
        let id = test_api.send(&message("sandbox.test", &to)).await;
        sent.push((test_api.clone(), id, word));
    }
    let mut greylisted = Vec::new();
    for (api, id, word) in sent {
        let (_, status, reply, event) = BEHAVIOURS.into_iter().find(|one| one.0 == word).unwrap();
        let email = api.becomes(&id, status).await;
        let delivery = &email["deliveries"][0];
        assert_eq!(
            delivery["attempts"][0]["reply"].as_str().map(code),
            Some(reply),
            "{email:#}"
        );
        assert_eq!(event_types(delivery), ["email.queued", event], "{email:#}");
        if word == "greylist" {
            greylisted.push((api, id));
        }
    }
    for (address, count) in [
        ("unknown@sandbox.test", 1),
        ("ana@unknown.sandbox.test", 1),
        ("unknown.2@customer.example", 0),
        ("spam-block@sandbox.test", 0),
        ("mailbox-full@sandbox.test", 0),
    ] {
        let path = format!("/v1/suppressions?address={address}");
        let found = api.get(&path).await.json();
        assert_eq!(
            found["data"].as_array().unwrap().len(),
            count,
            "{address}: {found:#}"
        );
    }
    // The second try need not be waited for.
    let again = json!({"action": "retry_now", "filter": {"status": "deferred"}});
    for (api, id) in greylisted {
        let answer = api.post("/v1/emails/actions", &again).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let email = api.becomes(&id, "delivered").await;
        let attempts = email["deliveries"][0]["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{email:#}");
    }
}

/// `250 2.0.0` of `250 2.0.0 text`.
fn code(reply: &str) -> &str {
    reply.get(..9).unwrap_or(reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_shown_beside_the_mail_they_are_about() {
    let _turn = take_turn();
    let dir = place::directory();
    let (_dev, api) = start(&dir, &[]);
    for to in ["bounce-later@sandbox.test", "complaint@sandbox.test"] {
        let id = api.send(&message("sandbox.test", to)).await;
        api.becomes(&id, "delivered").await;
        let report = until(&format!("the report of {to}"), PATIENCE, || async {
            let list = api.get("/v1/sandbox/messages").await.json();
            let own = |one: &&Value| one["message_id"] == *id && one["mail_from"] == "";
            list["data"].as_array()?.iter().find(own).cloned()
        })
        .await;
        assert_eq!(
            report["from"],
            "Mail Delivery System <mailer-daemon@mx.sandbox.test>"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_go_to_the_server_that_takes_them() {
    let _turn = take_turn();
    let sink = Sink::options().starttls().start().await;
    let dir = place::directory();
    let config = dir.path().join("dev.toml");
    let text = format!("[sandbox]\nreports_to = \"{}\"\n", sink.address);
    fs::write(&config, text).unwrap();
    let (_dev, api) = start(&dir, &["--config", config.to_str().unwrap()]);
    let receiver = WebhookReceiver::start().await;
    api.create_webhook(&receiver.url, &["email.delivered"])
        .await;

    let mut body = message("sandbox.test", "bounce-later@sandbox.test");
    let bounced = api.send(&body).await;
    sink.has_dots(1).await;
    body["to"] = json!(["ana@complaint.sandbox.test"]);
    let complained = api.send(&body).await;
    sink.has_dots(2).await;

    let receipts = sink.receipts();
    for (receipt, id) in receipts.iter().zip([&bounced, &complained]) {
        let digits = id.strip_prefix("msg_").unwrap();
        assert_eq!(
            (receipt.mail_from.as_str(), receipt.tls),
            ("", true),
            "{receipt:?}"
        );
        // The return path of the mail's only delivery (see `mail::verp`).
        let delivery = format!("b-{}01", &digits[..24]);
        assert!(receipt.recipient.starts_with(&delivery), "{receipt:?} {id}");
        assert!(
            receipt.recipient.ends_with("@bounce.sandbox.test"),
            "{receipt:?}"
        );
        assert!(
            text_of(receipt).contains(&format!("\r\nIn-Reply-To: <{digits}@")),
            "{}",
            text_of(receipt)
        );
    }
    check_bounce(&receipts[0]);
    check_complaint(&receipts[1]);
    let told = receiver
        .has("both deliveries are told", |calls| calls.len() >= 2)
        .await;
    let told_of = |call: &Call| {
        call.json()["data"]["message_id"]
            .as_str()
            .map(str::to_owned)
    };
    for id in [bounced, complained] {
        assert!(told.iter().any(|call| told_of(call).as_ref() == Some(&id)));
    }
}

fn text_of(receipt: &Receipt) -> String {
    String::from_utf8(receipt.content.to_vec()).unwrap()
}

/// RFC 3464, section 2, and RFC 6522.
fn check_bounce(receipt: &Receipt) {
    let text = text_of(receipt);
    let report = "Content-Type: multipart/report; report-type=delivery-status;\r\n";
    assert!(text.contains(report), "{text}");
    let status = text
        .split("Content-Type: message/delivery-status\r\n\r\n")
        .nth(1)
        .unwrap();
    let (message, recipient) = status.split_once("\r\n\r\n").unwrap();
    assert!(message.starts_with("Reporting-MTA: dns; mx.sandbox.test\r\nArrival-Date: "));
    for field in [
        "Final-Recipient: rfc822; bounce-later@sandbox.test\r\n",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n",
    ] {
        assert_eq!(recipient.matches(field).count(), 1, "{field} in {text}");
    }
    let returned = text
        .split("Content-Type: text/rfc822-headers\r\n\r\n")
        .nth(1)
        .unwrap();
    assert!(returned.contains("\r\nSubject: Your receipt\r\n"), "{text}");
}

/// RFC 5965, as another library reads it.
fn check_complaint(receipt: &Receipt) {
    let feedback = Feedback::parse_rfc5322(&receipt.content).unwrap();
    assert_eq!(format!("{:?}", feedback.feedback_type()), "Abuse");
    let sender = format!("<{}>", receipt.recipient);
    assert_eq!(feedback.original_mail_from(), Some(sender.as_str()));
    let recipient = Some("<ana@complaint.sandbox.test>");
    assert_eq!(feedback.original_rcpt_to(), recipient);
    assert_eq!(feedback.reported_domain(), ["sandbox.test"]);
    assert!(feedback.source_ip().is_some_and(|ip| ip.is_loopback()));
    let headers = feedback.headers().unwrap_or_default();
    assert!(headers.contains("Subject: Your receipt"), "{headers}");
}
