//! A message: one send whose every field has been looked at.
//! Composes nothing and asks no one: whether the sender may use the domain is not known here.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::address::EmailAddress;
use crate::header::{HeaderName, HeaderValue};
use crate::ids::DELIVERIES_MAX;
use crate::mailbox::Mailbox;
use crate::message_fields::{
    FieldError, OneOrMany, SendRequest, StreamName, header_error, member, parse_duration,
    parse_line, parse_mailbox, parse_text,
};
pub use crate::message_limits::Limits;
use crate::text::DbText;

/// What the message says, in the forms the sender gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Plain text only.
    Text(String),
    /// HTML only.
    Html(String),
    /// The same in both forms; the reader's program chooses.
    Both {
        /// Plain text.
        text: String,
        /// HTML.
        html: String,
    },
}

/// One send: at least one recipient, a sender, a subject and a body, none of it with NUL.
#[derive(Debug, Clone)]
pub struct Message {
    from: Mailbox,
    to: Vec<Mailbox>,
    cc: Vec<Mailbox>,
    bcc: Vec<Mailbox>,
    reply_to: Vec<Mailbox>,
    recipients: Vec<EmailAddress>,
    subject: DbText,
    body: Body,
    headers: Vec<(HeaderName, HeaderValue)>,
    tags: Vec<DbText>,
    metadata: BTreeMap<DbText, DbText>,
    stream: Option<StreamName>,
    expires_in: Option<Duration>,
    require_tls: bool,
}

impl Message {
    /// Looks at every field of a request.
    ///
    /// # Errors
    /// All that is wrong, at once and in the order of the fields; never an empty list.
    pub fn parse(request: SendRequest, limits: &Limits) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let from = errors.take(parse_from(request.from.as_deref()));
        check_recipient_count(&request, limits, &mut errors);
        let to = parse_mailboxes("/to", &request.to, &mut errors);
        let cc = parse_mailboxes("/cc", &request.cc, &mut errors);
        let bcc = parse_mailboxes("/bcc", &request.bcc, &mut errors);
        if request.reply_to.as_slice().len() > limits.reply_to_max {
            errors.push(FieldError::too_many("/reply_to", limits.reply_to_max));
        }
        let reply_to = parse_mailboxes("/reply_to", &request.reply_to, &mut errors);
        let subject = errors.take(parse_subject(request.subject.as_deref(), limits));
        let body = errors.take(parse_body(request.html, request.text, limits));
        let headers = parse_headers(&request.headers, limits, &mut errors);
        let tags = parse_tags(&request.tags, limits, &mut errors);
        let metadata = parse_metadata(&request.metadata, limits, &mut errors);
        let stream = errors.take(parse_stream(request.stream.as_deref()));
        let expires_in = errors.take(parse_expires_in(request.expires_in.as_deref(), limits));

        match (from, subject, body, stream, expires_in) {
            (Some(from), Some(subject), Some(body), Some(stream), Some(expires_in))
                if errors.0.is_empty() =>
            {
                Ok(Self {
                    from,
                    recipients: distinct_addresses([&to, &cc, &bcc]),
                    to,
                    cc,
                    bcc,
                    reply_to,
                    subject,
                    body,
                    headers,
                    tags,
                    metadata,
                    stream,
                    expires_in,
                    require_tls: request.require_tls.unwrap_or(false),
                })
            }
            _ => Err(errors.0),
        }
    }

    /// Who the message is from.
    pub fn from(&self) -> &Mailbox {
        &self.from
    }

    /// Shown as To; may repeat an address, as the sender wrote it.
    pub fn to(&self) -> &[Mailbox] {
        &self.to
    }

    /// Shown as Cc.
    pub fn cc(&self) -> &[Mailbox] {
        &self.cc
    }

    /// Shown nowhere.
    pub fn bcc(&self) -> &[Mailbox] {
        &self.bcc
    }

    /// Where answers go, if not to the sender.
    pub fn reply_to(&self) -> &[Mailbox] {
        &self.reply_to
    }

    /// Every address once, in the order to, cc, bcc. The position of an address is its recipient
    /// number. At least one, at most [`DELIVERIES_MAX`].
    pub fn recipients(&self) -> impl ExactSizeIterator<Item = &EmailAddress> {
        self.recipients.iter()
    }

    /// Subject, unencoded, on one line.
    pub fn subject(&self) -> &DbText {
        &self.subject
    }

    /// The body in the forms given.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// HTML form of the body.
    pub fn html(&self) -> Option<&str> {
        match &self.body {
            Body::Html(html) | Body::Both { html, .. } => Some(html),
            Body::Text(_) => None,
        }
    }

    /// Plain text form of the body.
    pub fn text(&self) -> Option<&str> {
        match &self.body {
            Body::Text(text) | Body::Both { text, .. } => Some(text),
            Body::Html(_) => None,
        }
    }

    /// The sender's own header fields; no name twice.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Tags, as given.
    pub fn tags(&self) -> &[DbText] {
        &self.tags
    }

    /// Metadata; never copied into a header.
    pub fn metadata(&self) -> &BTreeMap<DbText, DbText> {
        &self.metadata
    }

    /// The stream, if one was named.
    pub fn stream(&self) -> Option<&StreamName> {
        self.stream.as_ref()
    }

    /// How long to try, if the sender said.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// Whether clear text and unauthenticated TLS are ruled out.
    pub fn require_tls(&self) -> bool {
        self.require_tls
    }
}

/// Collects errors so that parsing can go on after the first.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    fn take<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }
}

fn parse_from(text: Option<&str>) -> Result<Mailbox, FieldError> {
    parse_mailbox("/from", text.ok_or_else(|| FieldError::required("/from"))?)
}

fn check_recipient_count(request: &SendRequest, limits: &Limits, errors: &mut Errors) {
    let max = limits.recipients_max.min(DELIVERIES_MAX);
    let count: usize = [&request.to, &request.cc, &request.bcc]
        .iter()
        .map(|list| list.as_slice().len())
        .sum();
    if count == 0 {
        errors.push(FieldError::required("/to"));
    } else if count > max {
        let detail = format!("to, cc and bcc together may have {max} recipients");
        errors.push(FieldError::new("/to", "too_many_recipients", detail));
    }
}

fn parse_mailboxes(pointer: &str, list: &OneOrMany, errors: &mut Errors) -> Vec<Mailbox> {
    let parse = |(index, text): (usize, &String)| {
        let at = match list {
            OneOrMany::One(_) => pointer.to_owned(),
            OneOrMany::Many(_) => format!("{pointer}/{index}"),
        };
        errors.take(parse_mailbox(&at, text))
    };
    // Beyond the bound the count itself is the error; the list of errors stays short.
    list.as_slice()
        .iter()
        .take(DELIVERIES_MAX)
        .enumerate()
        .filter_map(parse)
        .collect()
}

fn distinct_addresses(lists: [&Vec<Mailbox>; 3]) -> Vec<EmailAddress> {
    let mut seen = HashSet::new();
    let mailboxes = lists.into_iter().flatten();
    mailboxes
        .map(Mailbox::address)
        .filter(|address| seen.insert(*address))
        .cloned()
        .collect()
}

fn parse_subject(text: Option<&str>, limits: &Limits) -> Result<DbText, FieldError> {
    let text = text.ok_or_else(|| FieldError::required("/subject"))?;
    parse_line("/subject", text, limits.subject_max_octets)
}

fn parse_body(
    html: Option<String>,
    text: Option<String>,
    limits: &Limits,
) -> Result<Body, FieldError> {
    let octets = |part: &Option<String>| part.as_ref().map_or(0, String::len);
    for (pointer, part) in [("/html", &html), ("/text", &text)] {
        if part.as_ref().is_some_and(|part| part.contains('\0')) {
            return Err(FieldError::new(
                pointer,
                "control_character",
                "contains NUL",
            ));
        }
    }
    if octets(&html).saturating_add(octets(&text)) > limits.content_max_octets {
        let pointer = if octets(&html) > octets(&text) {
            "/html"
        } else {
            "/text"
        };
        return Err(FieldError::too_long(pointer, limits.content_max_octets));
    }
    let given = |part: Option<String>| part.filter(|part| !part.is_empty());
    match (given(html), given(text)) {
        (Some(html), Some(text)) => Ok(Body::Both { text, html }),
        (Some(html), None) => Ok(Body::Html(html)),
        (None, Some(text)) => Ok(Body::Text(text)),
        (None, None) => Err(FieldError::new(
            "/html",
            "required",
            "html or text is required",
        )),
    }
}

fn parse_headers(
    given: &BTreeMap<String, String>,
    limits: &Limits,
    errors: &mut Errors,
) -> Vec<(HeaderName, HeaderValue)> {
    if given.len() > limits.headers_max {
        errors.push(FieldError::too_many("/headers", limits.headers_max));
        return Vec::new();
    }
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(given.len());
    for (name, value) in given {
        let at = || member("/headers", name);
        let name = HeaderName::parse(name).map_err(|error| header_error(at(), error));
        let value = HeaderValue::parse(value).map_err(|error| header_error(at(), error));
        let (Some(name), Some(value)) = (errors.take(name), errors.take(value)) else {
            continue;
        };
        if headers.iter().any(|(earlier, _)| *earlier == name) {
            errors.push(FieldError::new(
                at(),
                "duplicate_header",
                "is given in two spellings",
            ));
        }
        headers.push((name, value));
    }
    headers
}

fn parse_tags(given: &[String], limits: &Limits, errors: &mut Errors) -> Vec<DbText> {
    if given.len() > limits.tags_max {
        errors.push(FieldError::too_many("/tags", limits.tags_max));
        return Vec::new();
    }
    let parse = |(index, tag): (usize, &String)| {
        let pointer = format!("/tags/{index}");
        if tag.is_empty() {
            errors.push(FieldError::new(
                pointer,
                "empty",
                "a tag has at least one character",
            ));
            return None;
        }
        errors.take(parse_line(&pointer, tag, limits.tag_max_octets))
    };
    given.iter().enumerate().filter_map(parse).collect()
}

fn parse_metadata(
    given: &BTreeMap<String, String>,
    limits: &Limits,
    errors: &mut Errors,
) -> BTreeMap<DbText, DbText> {
    if given.len() > limits.metadata_max {
        errors.push(FieldError::too_many("/metadata", limits.metadata_max));
        return BTreeMap::new();
    }
    let mut metadata = BTreeMap::new();
    for (key, value) in given {
        let pointer = member("/metadata", key);
        if key.is_empty() {
            errors.push(FieldError::new(
                &pointer,
                "empty",
                "a key has at least one character",
            ));
        }
        let key = errors.take(parse_line(&pointer, key, limits.metadata_key_max_octets));
        let value = errors.take(parse_text(
            &pointer,
            value,
            limits.metadata_value_max_octets,
        ));
        if let (Some(key), Some(value)) = (key, value) {
            metadata.insert(key, value);
        }
    }
    metadata
}

fn parse_stream(text: Option<&str>) -> Result<Option<StreamName>, FieldError> {
    let parse = |text| {
        let detail = "must be 1 to 64 characters of a-z, 0-9, _ and -";
        StreamName::parse(text).ok_or_else(|| FieldError::new("/stream", "invalid_name", detail))
    };
    text.map(parse).transpose()
}

fn parse_expires_in(text: Option<&str>, limits: &Limits) -> Result<Option<Duration>, FieldError> {
    let parse = |text| {
        let duration = parse_duration(text).ok_or_else(|| {
            let detail = "must be a whole number and one of s, m, h, d, such as 4h";
            FieldError::new("/expires_in", "invalid_duration", detail)
        })?;
        if !limits.expires_in.contains(&duration) {
            let (min, max) = (limits.expires_in.start(), limits.expires_in.end());
            let detail = format!(
                "must be from {} to {} seconds",
                min.as_secs(),
                max.as_secs()
            );
            return Err(FieldError::new("/expires_in", "out_of_range", detail));
        }
        Ok(duration)
    };
    text.map(parse).transpose()
}
