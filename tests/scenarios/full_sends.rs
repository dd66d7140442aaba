//! Everything one send can hold arrives as it was sent: files octet by octet, pictures beside their
//! HTML, a text nobody wrote, and finished messages unchanged; signed, all of it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Api, event_types};
use tests::dev::Dev;
use tests::{PATIENCE, place, take_turn, until};
use time::format_description::well_known::Rfc3339;

#[tokio::test(flavor = "multi_thread")]
async fn files_pictures_and_finished_messages_arrive_as_they_were_sent() {
    let _turn = take_turn();
    let dir = place::directory();
    let dev = tokio::task::block_in_place(|| Dev::start(dir.path(), &[]));
    let api = Api::at(dev.field("api_url"), dev.field("api_key"));
    let domain = dev.field("sandbox_domain").to_owned();

    composed(&api, &domain).await;
    finished(&api, &domain).await;
    scheduled(&api, &domain).await;
}

/// Attachments of every octet, a picture in the text, and no text of its own.
async fn composed(api: &Api, domain: &str) {
    let octets: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let content = BASE64.encode(&octets);
    let id = api
        .send(&json!({
            "from": format!("Acme <hello@{domain}>"),
            "to": [format!("delivered@{domain}")],
            "subject": "🎉 ".repeat(30) + &"x".repeat(300),
            "html": "<h1>Hello</h1><p>See <a href=\"https://x.example/a\">this</a><img src=\"cid:logo\"></p>",
            "attachments": [
                {"filename": "Résumé 🎉.bin", "content": content},
                {"filename": "logo.png", "content": "cG5n", "content_id": "logo"},
            ],
        }))
        .await;
    api.becomes(&id, "delivered").await;
    let (received, raw) = arrived(api, &id).await;
    assert_passes(&received);
    let parts = content.as_bytes().chunks(76);
    let lines: Vec<&str> = parts
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    for part in [
        lines.join("\r\n").as_str(),
        "Hello\r\n\r\nSee this (https://x.example/a)\r\n",
        "Content-ID: <logo>\r\n",
        "\r\n\r\ncG5n\r\n",
        "filename*=utf-8''R%C3%A9sum%C3%A9%20%F0%9F%8E%89.bin",
    ] {
        let shown: String = part.chars().take(80).collect();
        assert!(raw.contains(part), "{shown} did not arrive");
    }
}

/// Leading dots, white space at the ends of lines, no end of the last one: nothing is mended.
async fn finished(api: &Api, domain: &str) {
    let body = ".\r\n..dots\r\n  spaces \t\r\n\r\n=?utf-8?q?not_a_header?=\r\n--\r\nthe end";
    let fields = format!(
        "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_again?=\r\nX-Own:   two\r\n\tlines\r\n\
         From: Acme <hello@{domain}>\r\nTo: Somebody <not-the-envelope@else.test>\r\n\
         Message-ID: <own.id@{domain}>\r\nDate: Mon, 21 Sep 2026 14:13:20 +0000\r\n"
    );
    let path = format!("/v1/emails/raw?to=delivered@{domain}&tag=raw");
    let request = api
        .request(Method::POST, &path)
        .header("content-type", "message/rfc822")
        .body(format!("Bcc: hidden@else.test\r\n{fields}\r\n{body}"));
    let answer = api.ask(request).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let email = api.becomes(&id, "delivered").await;
    assert_eq!(email["subject"], "Grüße again");
    let (received, raw) = arrived(api, &id).await;
    assert_passes(&received);
    // The last line gets its end from the transport, which knows no other way.
    assert!(raw.ends_with(&format!("{fields}\r\n{body}\r\n")), "{raw}");
    assert!(!raw.contains("hidden@else.test"), "{raw}");
}

/// A time that is near: it waits, and then goes.
async fn scheduled(api: &Api, domain: &str) {
    let now = service::clock::Clock::system().now();
    let send_at = (now + Duration::from_secs(3)).format(&Rfc3339).unwrap();
    let answer = api
        .post(
            "/v1/emails",
            &json!({
                "from": format!("hello@{domain}"), "to": format!("delivered@{domain}"),
                "subject": "Later", "text": "t", "send_at": send_at,
            }),
        )
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["status"], "scheduled", "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let email = api.becomes(&id, "delivered").await;
    let events = event_types(&email["deliveries"][0]);
    assert_eq!(events, ["email.scheduled", "email.delivered"]);
    let delivered = email["deliveries"][0]["events"][1]["timestamp"]
        .as_str()
        .unwrap();
    let due = answer.json()["send_at"].as_str().unwrap().to_owned();
    // Both are written alike, so they compare as text.
    assert!(delivered >= due.as_str(), "{delivered} is before {due}");
}

fn assert_passes(received: &Value) {
    let results = received["authentication_results"].as_str().unwrap();
    assert!(results.contains("dkim=pass"), "{received:#}");
}

/// What the sandbox has of a message, and its octets.
async fn arrived(api: &Api, id: &str) -> (Value, String) {
    let received = until("the mail is in the sandbox", PATIENCE, || async {
        let list = api.get("/v1/sandbox/messages").await.json();
        let list = list["data"].as_array()?.clone();
        list.into_iter().find(|message| message["message_id"] == id)
    })
    .await;
    let path = format!(
        "/v1/sandbox/messages/{}/raw",
        received["id"].as_str().unwrap()
    );
    let raw = api.get(&path).await;
    assert_eq!(raw.status, 200);
    (received, raw.text)
}
