//! What a composed message promises: readers see what the sender wrote, and the octets are such
//! that every server on the way can take them unchanged.

#![allow(clippy::unwrap_used)]

use mail::compose::{ComposeContext, Composed, compose};
use mail::domain_name::DomainName;
use mail::ids::MessageId;
use mail::message::{Limits, Message};
use mail::message_fields::{FieldError, SendRequest};
use mail_parser::MessageParser;
use proptest::prelude::*;
use serde_json::{Value, json};
use time::OffsetDateTime;

fn parse(request: Value) -> Result<Message, Vec<FieldError>> {
    Message::parse(serde_json::from_value(request).unwrap(), &Limits::default())
}

fn compose_message(message: &Message) -> Composed {
    let domain = DomainName::parse("mail.example").unwrap();
    let context = ComposeContext {
        message_id: MessageId::from_time_and_random(1_790_000_000_000, [7; 10]),
        date: OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap(),
        message_id_domain: &domain,
    };
    compose(message, &context).unwrap()
}

fn composed(request: Value) -> Composed {
    compose_message(&parse(request).unwrap())
}

/// A request with these fields on top of the least that is needed.
fn with(fields: Value) -> Value {
    let mut request = json!({"from": "a@b.example", "to": "c@d.example", "subject": "s"});
    request
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    request
}

fn assert_wire_safe(composed: &Composed) {
    let text = std::str::from_utf8(&composed.bytes).unwrap();
    assert!(text.is_ascii());
    assert!(text.ends_with("\r\n"));
    assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']));
    assert!(text.split("\r\n").all(|line| line.len() <= 998));
    assert_eq!(
        &composed.bytes[composed.header_len - 4..composed.header_len],
        b"\r\n\r\n"
    );
    let headers = std::str::from_utf8(composed.header_block()).unwrap();
    assert!(
        headers
            .split("\r\n")
            .all(|line| line.is_empty() || !line.trim().is_empty())
    );
}

#[test]
fn a_message_is_composed_in_this_form() {
    let composed = composed(json!({
        "from": "Acme <hello@acme.example>",
        "to": ["Ana <ana@example.com>", "b@bücher.example"],
        "cc": "\"Doe, J.\" <j@example.com>",
        "bcc": ["hidden@example.com"],
        "reply_to": "help@acme.example",
        "subject": "Grüße",
        "text": "Hi\n.dot\r\n\r\n \r\n",
        "html": "<p>Hi</p>",
        "headers": {"X-Order": "7"},
    }));
    let expected = [
        "From: Acme <hello@acme.example>",
        "To: Ana <ana@example.com>, b@xn--bcher-kva.example",
        "Cc: \"Doe, J.\" <j@example.com>",
        "Reply-To: help@acme.example",
        "Subject: =?utf-8?B?R3LDvMOfZQ==?=",
        "Date: Mon, 21 Sep 2026 14:13:20 +0000",
        "Message-ID: <01m3250v00ew3re1r70w3ge100@mail.example>",
        "X-Order: 7",
        "MIME-Version: 1.0",
        "Content-Type: multipart/alternative; boundary=\"=_01m3250v00ew3re1r70w3ge100\"",
        "",
        "--=_01m3250v00ew3re1r70w3ge100",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 7bit",
        "",
        "Hi",
        ".dot",
        "--=_01m3250v00ew3re1r70w3ge100",
        "Content-Type: text/html; charset=utf-8",
        "Content-Transfer-Encoding: 7bit",
        "",
        "<p>Hi</p>",
        "--=_01m3250v00ew3re1r70w3ge100--",
        "",
    ];
    assert_eq!(
        String::from_utf8(composed.bytes.clone()).unwrap(),
        expected.join("\r\n")
    );
    assert!(expected[6].ends_with(&composed.rfc_message_id));
    assert!(!composed.needs_smtputf8);
    assert_wire_safe(&composed);
}

#[test]
fn the_same_message_gives_the_same_octets() {
    let message = parse(with(json!({"text": "é", "html": "<b>é</b>"}))).unwrap();
    assert_eq!(compose_message(&message), compose_message(&message));
}

#[test]
fn readers_see_the_subject_that_was_sent() {
    for subject in [
        "🎉 Sale 🎉 now",
        "=?utf-8?q?fake?=",
        "two  spaces and é  é twice",
        &"x".repeat(300),
        "word é ".repeat(40).trim_end(),
        &"👩‍👩‍👧".repeat(30),
        &"b".repeat(998),
    ] {
        let composed = composed(with(json!({"subject": subject, "text": "t"})));
        assert_wire_safe(&composed);
        let parsed = MessageParser::default().parse(&composed.bytes).unwrap();
        assert_eq!(parsed.subject(), Some(subject));
        let headers = std::str::from_utf8(composed.header_block()).unwrap();
        assert!(
            headers.split("\r\n").all(|line| line.len() <= 78),
            "{headers}"
        );
    }
}

#[test]
fn readers_see_the_body_that_was_sent() {
    for text in [
        ".\r\n..\r\n.dot",
        "long ".repeat(500).trim_end(),
        &"x".repeat(5000),
        "日本語のメール\r\n改行",
        "bell \u{7} and escape \u{1b}[1m",
        "trailing space \r\nnext",
        "From here\r\n>From there",
    ] {
        let composed = composed(with(json!({"text": text})));
        assert_wire_safe(&composed);
        let parsed = MessageParser::default().parse(&composed.bytes).unwrap();
        assert_eq!(parsed.body_text(0).unwrap().trim_end(), text, "{text:?}");
    }
}

#[test]
fn no_white_space_lines_are_left_at_the_end_of_a_body() {
    for text in [
        "hello",
        "hello\r\n",
        "hello\n  \n\t\n",
        "hello   ",
        "hello\r\r",
    ] {
        assert_eq!(
            composed(with(json!({"text": text}))).body(),
            b"hello\r\n",
            "{text:?}"
        );
    }
}

#[test]
fn hidden_recipients_alone_leave_no_trace() {
    let mut request = with(json!({"bcc": ["x@y.example"], "text": "t"}));
    request.as_object_mut().unwrap().remove("to");
    let composed = composed(request);
    let text = String::from_utf8(composed.bytes).unwrap();
    assert!(text.contains("To: undisclosed-recipients:;\r\n"));
    assert!(!text.contains("x@y.example") && !text.contains("Bcc"));
}

#[test]
fn only_a_shown_non_ascii_local_part_needs_smtputf8() {
    assert!(composed(with(json!({"cc": "josé@d.example", "text": "t"}))).needs_smtputf8);
    assert!(!composed(with(json!({"bcc": "josé@d.example", "text": "t"}))).needs_smtputf8);
    assert!(!composed(with(json!({"cc": "José <jose@é.example>", "text": "t"}))).needs_smtputf8);
}

#[test]
fn long_custom_values_are_folded_and_long_links_are_left_whole() {
    let link = format!("<https://x.example/{}>", "u".repeat(200));
    let composed = composed(with(json!({
        "text": "t",
        "headers": {
            "List-Unsubscribe": link,
            "References": "<id@x.example> ".repeat(40),
            "X-Note": "né ".repeat(60),
        },
    })));
    assert_wire_safe(&composed);
    let headers = std::str::from_utf8(composed.header_block()).unwrap();
    assert!(headers.contains(&format!("List-Unsubscribe: {link}\r\n")));
    assert!(
        headers
            .split("\r\n")
            .all(|line| line.len() <= 78 || line.contains("https://"))
    );
    let parsed = MessageParser::default().parse(&composed.bytes).unwrap();
    let note = parsed.header_raw("X-Note").unwrap();
    assert!(note.is_ascii() && note.contains("=?utf-8?"));
}

#[test]
fn recipients_are_counted_once_in_order() {
    let message = parse(json!({
        "from": "a@b.example", "subject": "s", "text": "t",
        "to": ["one@x.example", "Two <two@x.example>", "one@X.example"],
        "cc": ["two@x.example", "three@x.example"],
        "bcc": ["One@x.example"],
    }))
    .unwrap();
    let recipients: Vec<String> = message.recipients().map(ToString::to_string).collect();
    assert_eq!(
        recipients,
        [
            "one@x.example",
            "two@x.example",
            "three@x.example",
            "One@x.example"
        ]
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let errors = parse(json!({
        "to": ["good@x.example", "bad"],
        "cc": "also bad",
        "subject": "a\r\nBcc: x@y.example",
        "html": "\u{0}",
        "headers": {"Bcc": "x", "X-A": "a\nb", "x-b": "1", "X-B": "2", "a/b c": "3"},
        "tags": ["", "ok", "x".repeat(65)],
        "metadata": {"k": "\u{0}"},
        "stream": "No Such",
        "expires_in": "9d",
    }))
    .unwrap_err();
    let found: Vec<(&str, &str)> = errors
        .iter()
        .map(|e| (e.pointer.as_str(), e.code))
        .collect();
    let expected = [
        ("/from", "required"),
        ("/to/1", "invalid_address"),
        ("/cc", "invalid_address"),
        ("/subject", "control_character"),
        ("/html", "control_character"),
        ("/headers/Bcc", "reserved_header"),
        ("/headers/X-A", "control_character"),
        ("/headers/a~1b c", "invalid_header_name"),
        ("/headers/x-b", "duplicate_header"),
        ("/tags/0", "empty"),
        ("/tags/2", "too_long"),
        ("/metadata/k", "control_character"),
        ("/stream", "invalid_name"),
        ("/expires_in", "out_of_range"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn counts_and_lengths_have_bounds() {
    let check = |fields: Value, pointer: &str, code: &str| {
        let errors = parse(with(fields)).unwrap_err();
        assert_eq!(
            (errors[0].pointer.as_str(), errors[0].code),
            (pointer, code)
        );
    };
    let many: Vec<String> = (0..51).map(|n| format!("u{n}@x.example")).collect();
    check(
        json!({"to": many, "text": "t"}),
        "/to",
        "too_many_recipients",
    );
    check(json!({"to": [], "text": "t"}), "/to", "required");
    check(
        json!({"reply_to": many, "text": "t"}),
        "/reply_to",
        "too_many",
    );
    check(json!({"tags": many, "text": "t"}), "/tags", "too_many");
    check(
        json!({"subject": "x".repeat(999), "text": "t"}),
        "/subject",
        "too_long",
    );
    check(json!({"text": ""}), "/html", "required");
    check(
        json!({"text": "t", "metadata": {"k": "v".repeat(513)}}),
        "/metadata/k",
        "too_long",
    );
    check(
        json!({"text": "t", "expires_in": "soon"}),
        "/expires_in",
        "invalid_duration",
    );
    let limits = Limits {
        content_max_octets: 3,
        ..Limits::default()
    };
    let request: SendRequest = serde_json::from_value(with(json!({"text": "four"}))).unwrap();
    assert_eq!(
        Message::parse(request, &limits).unwrap_err()[0].code,
        "too_long"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_accepted_is_composed_wire_safe(
        name in "\\PC{0,90}",
        subject in "\\PC{0,200}",
        text in "(\\PC|[\t\r\n\u{1}]){0,300}",
        html in prop::option::of("[ -~\r\né]{0,2000}"),
        header in "( |\\PC|[a-z]){0,300}",
    ) {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let request = with(json!({
            "from": format!("\"{quoted}\" <a@b.example>"),
            "subject": subject,
            "text": format!("t{text}"),
            "html": html,
            "headers": {"X-Free-Text": header},
        }));
        if let Ok(message) = parse(request) {
            let composed = compose_message(&message);
            assert_wire_safe(&composed);
            let parsed = MessageParser::default().parse(&composed.bytes).unwrap();
            let id = composed.rfc_message_id.trim_matches(['<', '>']);
            prop_assert_eq!(parsed.message_id(), Some(id));
            let from = parsed.from().and_then(|list| list.first()?.address());
            prop_assert_eq!(from, Some("a@b.example"));
        }
    }
}
