//! Addresses and send requests that were made to break platforms, held against our parsers.
//! Reads the corpora beside the repository and says so when they are not there.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use mail::address::EmailAddress;
use mail::compose::{ComposeContext, Composed, compose};
use mail::domain_name::DomainName;
use mail::ids::MessageId;
use mail::mailbox::Mailbox;
use mail::message::{Limits, Message};
use mail::message_fields::SendRequest;
use mail_parser::MessageParser;
use serde_json::{Value, json};
use time::OffsetDateTime;

/// The cases of one file, or `None` after saying loudly that they are absent. A line that is not
/// JSON in UTF-8 (lone surrogates) can never reach a parser of ours and is left out.
fn cases(folder: &str) -> Option<Vec<Value>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/corpora/hostile")
        .join(folder)
        .join("cases.jsonl");
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(
            text.lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        ),
        Err(error) => {
            eprintln!("SKIPPED: {} cannot be read: {error}", path.display());
            None
        }
    }
}

/// Why we decide otherwise than the corpus, by rule; `None` when we should agree.
fn accepted_difference(address: &str, case: &Value) -> Option<&'static str> {
    let expect = &case["expect"];
    let diagnosis = expect["diagnosis"].as_str().unwrap_or_default();
    let domain = address.rsplit('@').next().unwrap_or_default();
    if !address.contains('@') {
        Some("not an address at all: single characters from another test")
    } else if diagnosis == "ISEMAIL_RFC5321_ADDRESSLITERAL"
        || diagnosis == "ISEMAIL_RFC5321_IPV6DEPRECATED"
        || expect["accept_as_smtp_recipient"] == true && domain.ends_with(']')
    {
        Some("address literals are refused by policy")
    } else if diagnosis == "ISEMAIL_RFC5321_TLDNUMERIC" {
        Some("a last label of digits is an IP address")
    } else if !domain.contains('.') && expect["accept_as_smtp_recipient"] == true {
        Some("a mail domain needs two labels")
    } else if expect["verdict"] == "valid-syntax-reserved-domain" {
        Some("reserved names are good syntax")
    } else if domain == "xn--example.com" {
        Some("an A-label must decode")
    } else if domain == "bad.tld-2" {
        Some("which top-level domains exist is not syntax")
    } else if case["comment"] == "test_email_invalid_character_smtputf8_off" {
        Some("non-ASCII local parts are accepted")
    } else if expect["reason"]
        .as_str()
        .is_some_and(|reason| reason.contains("after normalization"))
    {
        Some("local parts are kept as given, not normalised")
    } else if address.ends_with('>') && expect["accept_as_smtp_recipient"] == true {
        Some("display names belong to mailboxes")
    } else {
        None
    }
}

#[test]
fn odd_addresses_are_accepted_and_refused_as_the_corpus_says() {
    let Some(cases) = cases("addresses") else {
        return;
    };
    let mut differences = Vec::new();
    let mut agreed = 0;
    for case in &cases {
        let address = case["address"].as_str().unwrap();
        let expected = case["expect"]["accept_as_smtp_recipient"]
            .as_bool()
            .unwrap();
        let parsed = EmailAddress::parse(address);
        if parsed.is_ok() == expected {
            agreed += 1;
            continue;
        }
        let rule = accepted_difference(address, case);
        let rule = rule.unwrap_or_else(|| panic!("{address:?}: {parsed:?}, corpus {expected}"));
        if rule == "display names belong to mailboxes" {
            Mailbox::parse(address).unwrap();
        }
        differences.push(format!("{rule}: {address:?}"));
    }
    differences.sort();
    println!(
        "agreed on {agreed} of {}; by rule:\n{}",
        cases.len(),
        differences.join("\n")
    );
    assert!(agreed >= 250, "only {agreed} of {}", cases.len());
}

fn base_request() -> Value {
    json!({"from": "a@b.example", "to": ["c@d.example"], "subject": "s", "text": "t"})
}

/// A request with the hostile value in the field it is meant for; `None` for fields that a send
/// request does not have.
fn request_with(field: &str, value: &str) -> Option<Value> {
    let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let mut request = base_request();
    match field {
        "from" => request["from"] = json!(value),
        "subject" => request["subject"] = json!(value),
        "custom_header_name" => request["headers"] = json!({ value: "x" }),
        "custom_header_value" => request["headers"] = json!({ "X-Test": value }),
        "list_unsubscribe" => request["headers"] = json!({ "List-Unsubscribe": value }),
        "from_name" => request["from"] = json!(format!("{quoted} <a@b.example>")),
        "to_name" => request["to"] = json!([format!("{quoted} <c@d.example>")]),
        "reply_to_name" => request["reply_to"] = json!([format!("{quoted} <e@f.example>")]),
        "tag" => request["tags"] = json!([value]),
        "metadata_value" => request["metadata"] = json!({ "key": value }),
        _ => return None,
    }
    Some(request)
}

fn compose_request(request: Value) -> Option<Composed> {
    let request: SendRequest = serde_json::from_value(request).unwrap();
    let message = Message::parse(request, &Limits::default()).ok()?;
    let domain = DomainName::parse("mail.example").unwrap();
    let context = ComposeContext {
        message_id: MessageId::from_time_and_random(1_790_000_000_000, [7; 10]),
        date: OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap(),
        message_id_domain: &domain,
    };
    Some(compose(&message, &context).unwrap())
}

/// After composing there is no Bcc, one of each header, and the body is still ours.
fn assert_unbroken(id: &str, composed: &Composed) {
    let headers = std::str::from_utf8(composed.header_block()).unwrap();
    assert!(headers.is_ascii(), "{id}");
    for line in headers.split("\r\n") {
        assert!(!line.contains(['\r', '\n', '\0']), "{id}: {line:?}");
        assert!(
            !line.to_ascii_lowercase().starts_with("bcc"),
            "{id}: {line:?}"
        );
        assert!(line.len() <= 998, "{id}");
    }
    for name in [
        "From:",
        "To:",
        "Subject:",
        "Date:",
        "Message-ID:",
        "MIME-Version:",
    ] {
        let count = headers
            .split("\r\n")
            .filter(|line| line.starts_with(name))
            .count();
        assert_eq!(count, 1, "{id}: {name}");
    }
    assert_eq!(composed.body(), b"t\r\n", "{id}");
}

#[test]
fn hostile_fields_are_refused_or_stay_in_their_header() {
    let Some(cases) = cases("api") else { return };
    let (mut refused, mut composed_count) = (0, 0);
    for case in &cases {
        let (id, field) = (
            case["id"].as_str().unwrap(),
            case["field"].as_str().unwrap(),
        );
        let value = case["value"].as_str().unwrap();
        let Some(request) = request_with(field, value) else {
            continue;
        };
        let expected = case["expect"].as_str().unwrap();
        let must_refuse = expected.starts_with("reject 4xx, nothing queued")
            || expected.starts_with("reject: header names")
            || expected == "reject";
        match compose_request(request) {
            Some(_) if must_refuse => panic!("{id}: accepted, corpus says {expected}"),
            Some(composed) => {
                assert_unbroken(id, &composed);
                composed_count += 1;
            }
            None => refused += 1,
        }
    }
    println!("{refused} refused, {composed_count} composed unbroken");
    assert!(refused >= 20 && composed_count >= 20);
}

#[test]
fn hostile_text_that_is_accepted_arrives_as_it_was_given() {
    let Some(cases) = cases("api") else { return };
    let mut seen = 0;
    for case in &cases {
        let (id, field) = (
            case["id"].as_str().unwrap(),
            case["field"].as_str().unwrap(),
        );
        let value = case["value"].as_str().unwrap();
        if !["subject", "from_name", "to_name"].contains(&field) {
            continue;
        }
        let Some(composed) = request_with(field, value).and_then(compose_request) else {
            continue;
        };
        let parsed = MessageParser::default().parse(&composed.bytes).unwrap();
        let arrived = match field {
            "subject" => parsed.subject(),
            "from_name" => parsed.from().and_then(|list| list.first()?.name()),
            _ => parsed.to().and_then(|list| list.first()?.name()),
        };
        assert_eq!(arrived, Some(value), "{id}");
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}
