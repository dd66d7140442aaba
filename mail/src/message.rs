//! A message: one send whose every field has been looked at.
//! Composes nothing and asks no one: whether the sender may use the domain is not known here.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::address::EmailAddress;
use crate::attachments::{Attachment, parse_attachments};
use crate::derived_text::text_of_html;
use crate::handling::{Errors, Handling, HandlingFields};
use crate::header::{HeaderName, HeaderValue};
use crate::ids::DELIVERIES_MAX;
use crate::mailbox::Mailbox;
use crate::message_fields::{
    FieldError, GivenText, OneOrMany, SendRequest, StreamName, header_error, member, parse_line,
    parse_mailbox,
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
    attachments: Vec<Attachment>,
    handling: Handling,
}

/// What is known of a message besides its octets: all that is needed once they are composed.
#[derive(Debug, Clone)]
pub struct MessageSummary {
    /// Who it is from.
    pub from: Mailbox,
    /// Every address once; the position is its recipient number.
    pub recipients: Vec<EmailAddress>,
    /// Decoded, on one line.
    pub subject: DbText,
    /// How it is to be handled.
    pub handling: Handling,
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
        let attachments = errors.take_all(parse_attachments(
            request.attachments,
            body.as_ref(),
            limits,
        ));
        let handling = HandlingFields {
            tags: &request.tags,
            metadata: &request.metadata,
            stream: request.stream.as_deref(),
            pool: request.pool.as_deref(),
            send_at: request.send_at.as_deref(),
            expires_in: request.expires_in.as_deref(),
            require_tls: request.require_tls.unwrap_or(false),
        };
        let handling = errors.take_all(Handling::parse(handling, limits));

        match (from, subject, body, attachments, handling) {
            (Some(from), Some(subject), Some(body), Some(attachments), Some(handling))
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
                    attachments,
                    handling,
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

    /// What is attached, in the order given.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// How it is to be handled.
    pub fn handling(&self) -> &Handling {
        &self.handling
    }

    /// Tags, as given.
    pub fn tags(&self) -> &[DbText] {
        self.handling.tags()
    }

    /// Metadata; never copied into a header.
    pub fn metadata(&self) -> &BTreeMap<DbText, DbText> {
        self.handling.metadata()
    }

    /// The stream, if one was named.
    pub fn stream(&self) -> Option<&StreamName> {
        self.handling.stream()
    }

    /// How long to try, if the sender said.
    pub fn expires_in(&self) -> Option<Duration> {
        self.handling.expires_in()
    }

    /// Whether clear text and unauthenticated TLS are ruled out.
    pub fn require_tls(&self) -> bool {
        self.handling.require_tls()
    }

    /// Octets that go into the body, about: what composing takes is in proportion.
    pub fn content_octets(&self) -> usize {
        let attached: usize = self.attachments.iter().map(Attachment::encoded_len).sum();
        let texts = self.html().map_or(0, str::len) + self.text().map_or(0, str::len);
        attached.saturating_add(texts)
    }

    /// What is left to know once the message is composed.
    pub fn into_summary(self) -> MessageSummary {
        MessageSummary {
            from: self.from,
            recipients: self.recipients,
            subject: self.subject,
            handling: self.handling,
        }
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

fn parse_body(html: Option<String>, text: GivenText, limits: &Limits) -> Result<Body, FieldError> {
    let derives = matches!(text, GivenText::Absent);
    let text = text.into_option();
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
        (Some(html), None) => {
            let room = limits.content_max_octets - html.len();
            let text = derives.then(|| text_of_html(&html, room)).flatten();
            Ok(match given(text) {
                Some(text) => Body::Both { text, html },
                None => Body::Html(html),
            })
        }
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
