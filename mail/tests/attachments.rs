//! What readers find in a composed message with attachments: every octet of every file, under its
//! name, where it belongs.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mail::compose::{ComposeContext, Composed, compose};
use mail::dkim::body_hash;
use mail::domain_name::DomainName;
use mail::ids::MessageId;
use mail::message::{Body, Limits, Message};
use mail::message_fields::FieldError;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;
use serde_json::{Value, json};
use time::OffsetDateTime;

fn parse(fields: Value) -> Result<Message, Vec<FieldError>> {
    let mut request = json!({"from": "a@b.example", "to": "c@d.example", "subject": "s"});
    let fields = fields.as_object().unwrap().clone();
    request.as_object_mut().unwrap().extend(fields);
    Message::parse(serde_json::from_value(request).unwrap(), &Limits::default())
}

fn composed(fields: Value) -> Composed {
    let domain = DomainName::parse("mail.example").unwrap();
    let context = ComposeContext {
        message_id: MessageId::from_time_and_random(1_790_000_000_000, [7; 10]),
        date: OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap(),
        message_id_domain: &domain,
    };
    compose(&parse(fields).unwrap(), &context).unwrap()
}

fn file(name: &str, octets: &[u8]) -> Value {
    json!({"filename": name, "content": BASE64.encode(octets)})
}

fn assert_wire_safe(composed: &Composed) {
    assert!(composed.bytes.is_ascii());
    assert!(!composed.needs_smtputf8);
    let text = std::str::from_utf8(&composed.bytes).unwrap();
    assert!(text.ends_with("\r\n"));
    assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']));
    assert!(text.split("\r\n").all(|line| line.len() <= 998));
    assert!(text[..composed.header_len].ends_with("\r\n\r\n"));
}

#[test]
fn a_message_with_everything_has_this_form() {
    let composed = composed(json!({
        "text": "Hi", "html": "<img src=\"cid:logo\">",
        "attachments": [
            file("a.pdf", b"PDF"),
            {"filename": "logo.png", "content": "cG5n", "content_id": "logo"},
            {"filename": "résumé.txt", "content": "", "content_type": "text/plain; charset=us-ascii"},
        ],
    }));
    assert_wire_safe(&composed);
    let digits = "01m3250v00ew3re1r70w3ge100";
    let expected = [
        "Content-Type: multipart/mixed; boundary=\"=_m_D\"",
        "",
        "--=_m_D",
        "Content-Type: multipart/alternative; boundary=\"=_D\"",
        "",
        "--=_D",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 7bit",
        "",
        "Hi",
        "--=_D",
        "Content-Type: multipart/related; boundary=\"=_r_D\";",
        " type=\"text/html\"",
        "",
        "--=_r_D",
        "Content-Type: text/html; charset=utf-8",
        "Content-Transfer-Encoding: 7bit",
        "",
        "<img src=\"cid:logo\">",
        "--=_r_D",
        "Content-Type: image/png",
        "Content-Disposition: inline;",
        " filename=\"logo.png\"",
        "Content-ID: <logo>",
        "Content-Transfer-Encoding: base64",
        "",
        "cG5n",
        "--=_r_D--",
        "--=_D--",
        "--=_m_D",
        "Content-Type: application/pdf",
        "Content-Disposition: attachment;",
        " filename=\"a.pdf\"",
        "Content-Transfer-Encoding: base64",
        "",
        "UERG",
        "--=_m_D",
        "Content-Type: text/plain;",
        " charset=us-ascii",
        "Content-Disposition: attachment;",
        " filename*=utf-8''r%C3%A9sum%C3%A9.txt;",
        " filename=\"r_sum_.txt\"",
        "Content-Transfer-Encoding: base64",
        "",
        "--=_m_D--",
        "",
    ];
    let expected = expected.join("\r\n").replace("_D", &format!("_{digits}"));
    let text = String::from_utf8(composed.bytes).unwrap();
    let (_, entity) = text.split_once("MIME-Version: 1.0\r\n").unwrap();
    assert_eq!(entity, expected);
}

#[test]
fn readers_get_every_file_as_it_was() {
    let every_octet: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let files: [(&str, &[u8]); 6] = [
        ("invoice.pdf", &every_octet),
        ("Grüße 🎉.txt", b"line\r\n.\r\nline"),
        ("日本語の名前.csv", "a;é\n".as_bytes()),
        ("quote \"it\".bin", b"\0\0\0"),
        ("empty.zip", b""),
        (&"n".repeat(255), b"long"),
    ];
    let attachments: Vec<Value> = files
        .iter()
        .map(|(name, octets)| file(name, octets))
        .collect();
    for body in [
        json!({"text": "t"}),
        json!({"html": "<p>h</p>", "text": null}),
        json!({"html": "<p>h</p>", "text": "t"}),
    ] {
        let mut body = body;
        body["attachments"] = json!(attachments);
        let composed = composed(body);
        assert_wire_safe(&composed);
        let parsed = MessageParser::default().parse(&composed.bytes).unwrap();
        assert_eq!(parsed.attachment_count(), files.len());
        for (found, (name, octets)) in parsed.attachments().zip(files) {
            assert_eq!(found.attachment_name(), Some(name));
            assert_eq!(found.contents(), octets, "{name}");
        }
    }
}

#[test]
fn pictures_in_the_text_go_with_the_html() {
    let composed = composed(json!({
        "html": "<img src=\"cid:a@x\"> <img src=\"cid:b\">", "text": null,
        "attachments": [
            {"filename": "a.png", "content": "AAAA", "content_id": "a@x", "disposition": "inline"},
            {"filename": "b.gif", "content": "BBBB", "content_id": "b"},
            {"filename": "c.gif", "content": "CCCC", "content_id": "c", "disposition": "attachment"},
            {"filename": "d.gif", "content": "DDDD", "disposition": "inline"},
        ],
    }));
    assert_wire_safe(&composed);
    let parsed = MessageParser::default().parse(&composed.bytes).unwrap();
    let of = |kind: &str| {
        let part = parsed.parts.iter().find(|part| {
            part.content_type()
                .is_some_and(|found| found.subtype() == Some(kind))
        });
        match &part.unwrap().body {
            PartType::Multipart(children) => children.len(),
            other => panic!("{kind}: {other:?}"),
        }
    };
    assert_eq!((of("mixed"), of("related")), (3, 3));
    let ids: Vec<_> = parsed
        .parts
        .iter()
        .filter_map(|part| part.content_id())
        .collect();
    assert_eq!(ids, ["a@x", "b", "c"]);
}

#[test]
fn text_is_derived_unless_it_was_given_or_refused() {
    let html = "<p>Hello <a href=\"https://x.example\">there</a></p>";
    let body = |fields: Value| parse(fields).unwrap().body().clone();
    let text = "Hello there (https://x.example)".to_owned();
    let html_owned = html.to_owned();
    assert_eq!(
        body(json!({"html": html})),
        Body::Both {
            text,
            html: html_owned.clone()
        }
    );
    assert_eq!(
        body(json!({"html": html, "text": null})),
        Body::Html(html_owned.clone())
    );
    assert_eq!(
        body(json!({"html": html, "text": ""})),
        Body::Html(html_owned)
    );
    let picture = "<img src=\"https://x.example/a.png\">";
    assert_eq!(
        body(json!({"html": picture})),
        Body::Html(picture.to_owned())
    );
    let errors = parse(json!({"text": null})).unwrap_err();
    assert_eq!(
        (errors[0].pointer.as_str(), errors[0].code),
        ("/html", "required")
    );
}

#[test]
fn all_that_is_wrong_with_attachments_is_told_at_once() {
    let errors = parse(json!({
        "text": "t", "send_at": "soon", "pool": "a\r\nb",
        "attachments": [
            {"filename": "../x", "content": "a b c d"},
            file("ok.txt", b"x"),
            {"filename": "a\r\nBcc: x@y.example", "content_type": "text"},
            {"filename": "logo.png", "content": "", "content_id": "logo"},
            {"filename": "logo.png", "content": "", "content_id": "logo", "disposition": "attachment"},
        ],
    }))
    .unwrap_err();
    let found: Vec<(&str, &str)> = errors
        .iter()
        .map(|e| (e.pointer.as_str(), e.code))
        .collect();
    let expected = [
        ("/attachments/0/filename", "invalid_filename"),
        ("/attachments/0/content", "invalid_base64"),
        ("/attachments/2/filename", "control_character"),
        ("/attachments/2/content", "required"),
        ("/attachments/2/content_type", "invalid_media_type"),
        ("/attachments/3/content_id", "no_html"),
        ("/attachments/4/content_id", "duplicate_content_id"),
        ("/pool", "control_character"),
        ("/send_at", "invalid_time"),
    ];
    assert_eq!(found, expected);
    let many = vec![file("a", b""); 51];
    let errors = parse(json!({"text": "t", "attachments": many})).unwrap_err();
    assert_eq!(
        (errors[0].pointer.as_str(), errors[0].code),
        ("/attachments", "too_many")
    );
}

#[test]
fn twenty_megabytes_take_seconds_at_most() {
    let octets: Vec<u8> = (0..20_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let fields = json!({"text": "t", "attachments": [file("big.bin", &octets)]});
    let started = Instant::now();
    let composed = composed(fields);
    let hash = body_hash(composed.body());
    // Without optimisation on a busy machine; a step that is not linear would take hours.
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    println!("20 MB composed and hashed in {:?}", started.elapsed());
    assert_ne!(hash, [0; 32]);
    assert!(composed.bytes.len() > octets.len() * 4 / 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_name_and_any_octets_arrive(
        name in "\\PC{1,60}",
        octets in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let fields = json!({"text": "t", "attachments": [file(&name, &octets)]});
        if parse(fields.clone()).is_ok() {
            let composed = composed(fields);
            assert_wire_safe(&composed);
            let parsed = MessageParser::default().parse(&composed.bytes).unwrap();
            let found = parsed.attachment(0).unwrap();
            prop_assert_eq!(found.contents(), &octets[..]);
            prop_assert_eq!(found.attachment_name().map(str::trim), Some(name.trim()));
        }
    }
}
