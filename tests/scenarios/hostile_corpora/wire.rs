//! A mail that was sent with a hostile value in it, as another parser reads it: nothing but the
//! value's own place may differ from a mail without it.

use std::collections::BTreeMap;

use mail_parser::{Address, HeaderForm, Message, MessageParser};

use crate::attempts::{self, Place};
use crate::corpus::Case;

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
/// How a value may be written in HTML.
const ENTITIES: [(&str, &str); 6] = [
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&#x27;", "'"),
    ("&#x2f;", "/"),
    ("&amp;", "&"),
];

/// What is wrong with the mail.
pub(crate) fn complaint(case: &Case, place: Place, content: &[u8]) -> Option<String> {
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
        _ => differing(case, place, &read)?,
    };
    Some(format!("{complaint}\n{header}"))
}

/// What is read at the value's place, if it is not the value.
fn differing(case: &Case, place: Place, read: &Message<'_>) -> Option<String> {
    let value = case.text("value");
    match place {
        Place::Field => in_field(case, read),
        Place::Variable => filled_in(&value, read),
        Place::Link => {
            let (html, given) = (html(read), attempts::link(&value));
            (html != given).then(|| format!("the link became {html:?}"))
        }
        Place::Elsewhere => Some("this was to send nothing".to_owned()),
    }
}

fn in_field(case: &Case, read: &Message<'_>) -> Option<String> {
    let name = |of: Option<&Address<'_>>| {
        let name = of.and_then(|list| list.first()).and_then(|one| one.name());
        name.map(str::to_owned)
    };
    let found = match case.text("field").as_str() {
        "subject" => read.subject().map(str::to_owned),
        "from_name" => name(read.from()),
        "to_name" => name(read.to()),
        "reply_to_name" => name(read.reply_to()),
        "custom_header_value" => odd(read),
        _ => return None,
    };
    let given = case.text("value");
    (found.as_deref() != Some(&given)).then(|| format!("reads {found:?}"))
}

/// The value in four templates that are nothing but it: text as it is, HTML escaped.
fn filled_in(value: &str, read: &Message<'_>) -> Option<String> {
    let (subject, text, html) = (read.subject(), read.body_text(0), html(read));
    let text = text.as_deref().map(str::trim_end);
    let odd = odd(read);
    for (place, found) in [
        ("subject", subject),
        ("text", text),
        ("X-Odd", odd.as_deref()),
    ] {
        if found != Some(value) {
            return Some(format!("{place} reads {found:?}"));
        }
    }
    let inside = html
        .strip_prefix("<p>")
        .and_then(|rest| rest.strip_suffix("</p>"));
    let escaped = inside.filter(|inside| !inside.contains(['<', '>', '"', '\'']));
    let meaning = escaped.map(|escaped| {
        let entities = ENTITIES.iter();
        entities.fold(escaped.to_owned(), |text, (entity, sign)| {
            text.replace(entity, sign)
        })
    });
    (meaning.as_deref() != Some(value)).then(|| format!("html reads {html:?}"))
}

/// The header field of the sender's own, decoded.
fn odd(read: &Message<'_>) -> Option<String> {
    let odd = read.header_as("X-Odd", HeaderForm::Text).pop();
    odd.and_then(|odd| odd.as_text().map(str::to_owned))
}

fn html(read: &Message<'_>) -> String {
    let html = read.body_html(0).unwrap_or_default();
    html.trim_end().to_owned()
}
