//! Postfix is found, by a static route and through DNS, takes our mail over TLS and files it as it
//! was composed; what it refuses ends or waits, as its reply says.
//!
//! The server comes from `cargo xtask bootstrap`, unpacked and not installed.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use mail_parser::MessageParser;
use serde_json::{Value, json};
use tests::api::{Api, event_types, message};
use tests::dns::Dns;
use tests::platform::Platform;
use tests::postfix::Postfix;
use tests::{place, take_turn};

const DOMAINS: [&str; 4] = ["fixed.test", "mx.test", "host.test", "xn--bcher-kva.test"];
/// RFC 5322 section 2.1.1, without the CRLF.
const LINE_MAX: usize = 998;

#[tokio::test(flavor = "multi_thread")]
async fn postfix_is_found_files_what_was_composed_and_is_heard_when_it_refuses() {
    let _turn = take_turn();
    let Some(postfix) = Postfix::start(place::free_address(), &DOMAINS).await else {
        return;
    };
    let dns = Dns::start().await;
    publish(&dns, &postfix);
    let builder = Platform::builder()
        .route("fixed.test", postfix.address)
        .nameserver(dns.address)
        .smtp_port(postfix.address.port());
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);

    let (fixed, looked_up, host) = ("127.", "relay.test", "host.test");
    files_unchanged(&api, &postfix, ["ana@fixed.test"; 2], fixed, plain()).await;
    files_unchanged(&api, &postfix, ["ana@mx.test"; 2], looked_up, odd_lines()).await;
    let long_subject = with_subject(&"Grüße 🎉 aus Köln, ".repeat(17)[..]);
    files_unchanged(&api, &postfix, ["ana@host.test"; 2], host, long_subject).await;
    let idn = ["ana@bücher.test", "ana@xn--bcher-kva.test"];
    files_unchanged(&api, &postfix, idn, looked_up, with_subject("🎉🎉")).await;

    let filed = postfix.mails().len();
    refused(&api, "nobody@mx.test", "bounced", "550 5.1.1").await;
    refused(&api, "unwanted@mx.test", "bounced", "554 5.7.1").await;
    refused(&api, "busy@mx.test", "deferred", "450 4.2.1").await;
    assert_eq!(postfix.mails().len(), filed);
}

/// One domain has a host of higher preference that is down, one has no MX and is its own host.
fn publish(dns: &Dns, postfix: &Postfix) {
    let up = postfix.address.ip().to_string().parse().unwrap();
    dns.a("down.test", Ipv4Addr::new(127, 0, 0, 2));
    dns.a("relay.test", up);
    dns.a("host.test", up);
    for domain in ["mx.test", "xn--bcher-kva.test"] {
        dns.mx(domain, 10, "down.test");
        dns.mx(domain, 20, "relay.test");
    }
}

fn plain() -> Value {
    json!({"text": "Grüße,\n.a dot\n..two\n.\n\nThe end.\n"})
}

fn odd_lines() -> Value {
    let long = "word ".repeat(1_000);
    json!({
        "text": format!("{long}\n.\n  \n\t\nFrom here on = blanks: \n \n"),
        "html": format!("<p>{}</p>\n.\n<p>ž{long}</p>\n", "x".repeat(3_000)),
    })
}

fn with_subject(subject: &str) -> Value {
    json!({"subject": subject})
}

/// Sends to the first of `to`, which Postfix knows as the second.
async fn files_unchanged(api: &Api, postfix: &Postfix, to: [&str; 2], mx: &str, fields: Value) {
    let [given, known] = to;
    let mut body = message("acme.test", given);
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let id = api.send(&body).await;
    let email = api.becomes(&id, "delivered").await;
    let attempt = &email["deliveries"][0]["attempts"][0];
    let says = |field: &str, expected: &str| {
        let found = attempt[field].as_str().unwrap_or_default();
        assert!(found.contains(expected), "{field} of {email:#}");
    };
    says("tls", "TLSv1.3");
    says("mx", mx);
    says("reply", "queued as");

    let composed = api
        .get(&format!("/v1/emails/{id}/content?format=raw"))
        .await;
    assert_eq!(composed.status, 200, "{composed:?}");
    let filed = postfix.filed(known).await;
    let above = filed.strip_suffix(&composed.text);
    let above = above.unwrap_or_else(|| panic!("{filed}\n--- is not\n{}", composed.text));
    for expected in ["\r\nDKIM-Signature: ", " with ESMTPS id "] {
        assert_eq!(above.matches(expected).count(), 1, "{expected}\n{filed}");
    }
    let longest = composed.text.split("\r\n").map(str::len).max().unwrap();
    assert!(longest <= LINE_MAX, "a line of {longest} octets\n{filed}");
    reads_as_given(&filed, &body);
}

/// Read by another parser, it says what was asked for.
fn reads_as_given(filed: &str, body: &Value) {
    let read = MessageParser::new().parse(filed.as_bytes()).unwrap();
    let subject = body["subject"].as_str().unwrap().trim_end();
    assert_eq!(read.subject().unwrap(), subject, "{filed}");
    let text = |text: &str| text.replace("\r\n", "\n").trim_end_matches('\n').to_owned();
    let parts = [("text", read.body_text(0)), ("html", read.body_html(0))];
    for (field, found) in parts {
        if let Some(given) = body[field].as_str() {
            assert_eq!(text(&found.unwrap()), text(given), "{field}\n{filed}");
        }
    }
}

async fn refused(api: &Api, to: &str, status: &str, reply: &str) {
    let id = api.send(&message("acme.test", to)).await;
    let email = api.becomes(&id, status).await;
    let delivery = &email["deliveries"][0];
    let attempt = &delivery["attempts"][0];
    let found = attempt["reply"].as_str().unwrap_or_default();
    assert!(found.starts_with(reply), "{to}: {email:#}");
    let kind = format!("email.{status}");
    assert_eq!(event_types(delivery), ["email.queued", &kind], "{email:#}");
    let is_final = &delivery["events"][1]["final"];
    assert_eq!(*is_final, status == "bounced", "{email:#}");
}
