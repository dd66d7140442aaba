//! Values that attackers put into a send API: each one is refused as a whole, or arrives as the
//! literal text of the one field it was given for. Nothing of it becomes a header, a recipient or
//! a fault of the platform.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mail::address::EmailAddress;
use mail_parser::{Message, MessageParser};
use serde_json::{Value, json};
use tests::api::{Answer, Api, message};
use tests::platform::Platform;
use tests::sink::Sink;
use tests::{PATIENCE, ledger, take_turn};

/// Fields of requests that this platform does not have, and one that says what a request is not.
const NOT_OURS: [&str; 4] = [
    "click_target",
    "template_variable",
    "body",
    "idempotency_key",
];
/// Written by the platform, or able to redirect mail: at most one of each may leave.
const SINGLE: [&str; 10] = [
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "mime-version",
    "content-type",
    "return-path",
    "feedback-id",
];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_values_are_refused_or_arrive_as_literal_text() {
    let Some(cases) = corpus("api") else { return };
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let builder = Platform::builder().route("*", sink.address);
    let Some(platform) = builder.only_public_webhooks().start().await else {
        return;
    };
    let api = platform.api(0);
    let mut accepted = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let Some(answer) = give(&api, case).await else {
            continue;
        };
        match answer.status.as_u16() {
            202 => {
                accepted.insert(text(case, "id"), case);
            }
            400..=499 => assert!(answer.json()["code"].is_string(), "{case}: {answer:?}"),
            _ => wrong.push(format!("{case}: {answer:?}")),
        }
        if let Some(complaint) = judge(case, answer.status.as_u16()) {
            wrong.push(format!("{complaint}: {case}: {answer:?}"));
        }
    }
    ledger::settled(&platform.pool, PATIENCE).await;
    let receipts = sink.receipts();
    assert_eq!(
        receipts.len(),
        accepted.len(),
        "only what was accepted leaves"
    );
    for receipt in &receipts {
        let case = accepted[receipt.id.as_str()];
        assert_eq!(receipt.recipient, "ana@sink.test", "{case}");
        wrong.extend(on_the_wire(case, &receipt.content));
    }
    eprintln!(
        "hostile values: {} of {} accepted",
        accepted.len(),
        cases.len()
    );
    assert!(
        accepted.len() >= 15,
        "too much is refused: {}",
        accepted.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_takes_the_same_addresses() {
    let Some(cases) = corpus("addresses") else {
        return;
    };
    let _turn = take_turn();
    let Some(platform) = Platform::builder().start().await else {
        return;
    };
    let api = platform.api(0);
    let (mut taken, mut wrong) = (0, Vec::new());
    for case in &cases {
        let address = text(case, "address");
        let body = json!({"address": address});
        let listed = api.post("/v1/suppressions", &body).await;
        let sent = api.post("/v1/emails", &message("acme.test", address)).await;
        let (listed, sent) = (listed.status.as_u16(), sent.status.as_u16());
        let known = matches!(listed, 200 | 201 | 422) && matches!(sent, 202 | 422);
        // The parser's answers are compared with the corpus beside it.
        let known = known && (listed != 422) == EmailAddress::parse(address).is_ok();
        // A recipient may have a name and a comment around the address, an entry may not.
        let same = listed == 422 || sent == 202;
        if !known || !same {
            wrong.push(format!("listed {listed}, sent {sent}: {case}"));
        }
        taken += usize::from(listed != 422);
    }
    eprintln!("hostile addresses: {taken} of {} taken", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!((20..200).contains(&taken), "{taken}");
}

/// The cases of a part of the corpus; none, and a loud line, where it is absent. Half a surrogate
/// pair is no JSON for us.
fn corpus(part: &str) -> Option<Vec<Value>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/hostile");
    let path = root.join(part).join("cases.jsonl");
    let Ok(lines) = fs::read_to_string(&path) else {
        eprintln!("SKIPPED: hostile values: {} is not there", path.display());
        return None;
    };
    let cases = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Some(cases.collect())
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap()
}

/// Asks with the value at its place.
async fn give(api: &Api, case: &Value) -> Option<Answer> {
    let (field, value) = (text(case, "field"), text(case, "value"));
    if NOT_OURS.contains(&field) {
        return None;
    }
    if field == "webhook_url" {
        let body = json!({"url": value, "events": ["email.delivered"]});
        return Some(api.post("/v1/webhooks", &body).await);
    }
    let mut body = message("acme.test", "ana@sink.test");
    body["headers"] = json!({"X-Test-Id": case["id"]});
    let attachment = |name: &str| {
        let mut one = json!({"filename": "a.txt", "content": "aGk=", "content_type": "text/plain"});
        one[name] = value.into();
        json!([one])
    };
    match field {
        "from" | "subject" => body[field] = value.into(),
        "from_name" => body["from"] = named(value, "hello@acme.test").into(),
        "to_name" => body["to"] = json!([named(value, "ana@sink.test")]),
        "reply_to_name" => body["reply_to"] = json!([named(value, "help@acme.test")]),
        "custom_header_name" => body["headers"][value] = "1".into(),
        "custom_header_value" => body["headers"]["X-Odd"] = value.into(),
        "list_unsubscribe" => body["headers"]["List-Unsubscribe"] = value.into(),
        "tag" => body["tags"] = json!([value]),
        "metadata_value" => body["metadata"] = json!({"key": value}),
        "attachment_content_type" => body["attachments"] = attachment("content_type"),
        "attachment_filename" => body["attachments"] = attachment("filename"),
        "content_id" => body["attachments"] = attachment("content_id"),
        _ => panic!("this field is not known to the test: {case}"),
    }
    Some(api.post("/v1/emails", &body).await)
}

/// A mailbox with a quoted name (RFC 5322 section 3.2.4).
fn named(name: &str, address: &str) -> String {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{name}\" <{address}>")
}

/// What the corpus expects of the status.
fn judge(case: &Value, status: u16) -> Option<&'static str> {
    let (expect, field, value) = (
        text(case, "expect"),
        text(case, "field"),
        text(case, "value"),
    );
    let only_refused = expect.starts_with("reject") && !expect.contains("accept");
    let only_refused = only_refused && !expect.contains(" or ");
    if only_refused && status < 400 {
        return Some("should be refused");
    }
    let is_text = matches!(
        field,
        "subject" | "custom_header_value" | "tag" | "metadata_value"
    ) || field.ends_with("_name") && !field.starts_with("custom");
    let plain = !value.chars().any(char::is_control) && value.len() < 256;
    (is_text && plain && expect.starts_with("accept;") && status != 202)
        .then_some("should be accepted")
}

/// Nothing but the value's own field may differ from a message without it.
fn on_the_wire(case: &Value, content: &[u8]) -> Option<String> {
    let raw = String::from_utf8_lossy(content);
    let read = MessageParser::new().parse(content).unwrap();
    let (header, _) = raw.split_once("\r\n\r\n").unwrap();
    let mut names = BTreeMap::<String, usize>::new();
    let starts = header
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']));
    for line in starts {
        let (name, _) = line.split_once(':').unwrap_or((line, ""));
        *names.entry(name.to_ascii_lowercase()).or_default() += 1;
    }
    let injected = raw
        .split(['\r', '\n'])
        .any(|line| line.to_ascii_lowercase().starts_with("bcc:"));
    let doubled = SINGLE
        .iter()
        .find(|name| names.get(**name).is_some_and(|n| *n > 1));
    let odd = !header
        .bytes()
        .all(|b| matches!(b, b' '..=b'~' | b'\r' | b'\n' | b'\t'));
    let complaint = match (injected, doubled) {
        (true, _) => "a Bcc line left".to_owned(),
        (_, Some(name)) => format!("several {name}"),
        _ if odd => "a header is not ASCII".to_owned(),
        _ => differing(case, &read)?,
    };
    Some(format!("{complaint}: {case}\n{header}"))
}

/// What another parser reads in the value's field, if it is not the value.
fn differing(case: &Value, read: &Message<'_>) -> Option<String> {
    let name = |of: Option<&mail_parser::Address<'_>>| {
        let name = of.and_then(|list| list.first()).and_then(|one| one.name());
        name.map(str::to_owned)
    };
    let found = match text(case, "field") {
        "subject" => read.subject().map(str::to_owned),
        "from_name" => name(read.from()),
        "to_name" => name(read.to()),
        "reply_to_name" => name(read.reply_to()),
        _ => return None,
    };
    let given = text(case, "value");
    (found.as_deref() != Some(given)).then(|| format!("reads {found:?}"))
}
