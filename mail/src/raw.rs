//! A message that came finished (RFC 5322): looked at, freed of what must not go out, given what
//! is missing. No octet of its body is ever changed, and no field that stays.
//!
//! Octets over 127 in the body are allowed; the transport finds them and needs 8BITMIME then.

use std::collections::HashSet;

use crate::address::EmailAddress;
use crate::address_list::parse_address_list;
use crate::compose::{ComposeContext, ComposeError, Composed, rfc_date};
use crate::handling::{Errors, Handling, HandlingFields};
use crate::ids::DELIVERIES_MAX;
use crate::mailbox::Mailbox;
use crate::message::MessageSummary;
use crate::message_fields::FieldError;
use crate::message_limits::Limits;
use crate::raw_header::{HEADER_MAX_OCTETS, RawHeader, too_long};
use crate::text::DbText;

/// RFC 5322 section 2.1.1, in octets without CRLF.
const LINE_MAX: usize = 998;
/// Room for the fields that may be added.
const ADDED_MAX: usize = 512;
/// What is kept of a Message-ID, in octets.
const MESSAGE_ID_MAX: usize = 998;

/// Who sends it to whom, when that is not what the header says, and how it is to be handled.
#[derive(Debug, Clone, Copy)]
pub struct RawFields<'a> {
    /// The envelope's sender.
    pub from: Option<&'a str>,
    /// Recipients; each text one address or several with commas. Empty: those of the header.
    pub to: &'a [String],
    /// The rest.
    pub handling: HandlingFields<'a>,
}

/// A finished message that may be sent.
#[derive(Debug, Clone)]
pub struct RawMessage {
    summary: MessageSummary,
    envelope_from: Option<EmailAddress>,
    /// Of the fields that readers show beside the author.
    named_senders: Vec<EmailAddress>,
    /// Header fields that stay, the empty line, the body.
    octets: Vec<u8>,
    /// Where the fields end and the empty line begins.
    fields_len: usize,
    has_date: bool,
    message_id: Option<String>,
    needs_smtputf8: bool,
}

impl RawMessage {
    /// Looks at a message and at what came beside it.
    ///
    /// # Errors
    /// All that is wrong; never an empty list. Errors about the octets themselves have an empty
    /// pointer and tell the place, those about a field point at `/headers/…`.
    pub fn parse(
        octets: &[u8],
        fields: RawFields<'_>,
        limits: &Limits,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let envelope_from = errors.take(fields.from.map(parse_envelope_from).transpose());
        let given = errors.take_all(parse_recipients(fields.to));
        let handling = errors.take_all(Handling::parse(fields.handling, limits));
        let parts = errors.take(check_lines(octets).and_then(|()| Parts::split(octets)));
        let from = parts
            .as_ref()
            .and_then(|parts| errors.take(from_of(&parts.header)));
        let named = parts
            .as_ref()
            .and_then(|parts| errors.take(named_senders(&parts.header)));
        let recipients = match (&parts, given) {
            (Some(parts), Some(given)) if given.is_empty() => {
                errors.take(recipients_of(&parts.header))
            }
            (_, given) => given,
        };
        let recipients = recipients.map(distinct);
        let max = limits.recipients_max.min(DELIVERIES_MAX);
        match &recipients {
            Some(recipients) if recipients.is_empty() && parts.is_some() => {
                let detail = "is required: neither the request nor the header names a recipient";
                errors.push(FieldError::new("/to", "required", detail));
            }
            Some(recipients) if recipients.len() > max => {
                let detail = format!("a message may have {max} recipients");
                errors.push(FieldError::new("/to", "too_many_recipients", detail));
            }
            _ => {}
        }
        let from = from.zip(named);
        match (envelope_from, handling, parts, from, recipients) {
            (
                Some(envelope_from),
                Some(handling),
                Some(parts),
                Some((from, named_senders)),
                Some(recipients),
            ) if errors.0.is_empty() => {
                let subject = parts.header.text("Subject");
                let summary = MessageSummary {
                    from,
                    recipients,
                    subject: line_of(&subject, limits.subject_max_octets),
                    handling,
                };
                Ok(RawMessage {
                    envelope_from,
                    named_senders,
                    ..parts.keep(summary)
                })
            }
            _ => Err(errors.0),
        }
    }

    /// What is known of it besides its octets.
    pub fn summary(&self) -> &MessageSummary {
        &self.summary
    }

    /// Whose domains must be the sender's own, beside the author's: the envelope's sender, if it was
    /// given (bounces go to the platform all the same), and whom Sender, Resent-From and
    /// Resent-Sender name, since readers show them ("on behalf of").
    pub fn other_senders(&self) -> impl Iterator<Item = &EmailAddress> {
        self.envelope_from.iter().chain(&self.named_senders)
    }

    /// Octets of the message.
    pub fn content_octets(&self) -> usize {
        self.octets.len()
    }

    /// Adds Date and Message-ID where they are missing (RFC 6409 section 8.1 and 8.2).
    ///
    /// # Errors
    /// `Date` when RFC 5322 cannot write the date of the context.
    pub fn compose(
        mut self,
        context: &ComposeContext<'_>,
    ) -> Result<(MessageSummary, Composed), ComposeError> {
        let mut added = String::new();
        if !self.has_date {
            added = format!("Date: {}\r\n", rfc_date(context.date)?);
        }
        let rfc_message_id = self.message_id.unwrap_or_else(|| {
            let digits = context.message_id.digits();
            let id = format!("<{digits}@{}>", context.message_id_domain);
            added.push_str(&format!("Message-ID: {id}\r\n"));
            id
        });
        let header_len = self.fields_len + added.len() + 2;
        self.octets
            .splice(self.fields_len..self.fields_len, added.into_bytes());
        let composed = Composed {
            bytes: self.octets,
            header_len,
            rfc_message_id,
            needs_smtputf8: self.needs_smtputf8,
        };
        Ok((self.summary, composed))
    }
}

/// A message cut in two.
struct Parts<'a> {
    header: RawHeader<'a>,
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(octets: &'a [u8]) -> Result<Self, FieldError> {
        let window = &octets[..octets.len().min(HEADER_MAX_OCTETS + 4)];
        let empty_line = window.windows(4).position(|four| four == b"\r\n\r\n");
        let (block, body) = match empty_line {
            _ if octets.starts_with(b"\r\n") => (&b""[..], &octets[2..]),
            Some(at) => (&octets[..at + 2], &octets[at + 4..]),
            // All of it is header: RFC 5322 section 3.5 leaves the body out if it likes.
            None if window.len() == octets.len() => (octets, &b""[..]),
            None => return Err(too_long()),
        };
        let header = RawHeader::parse(block)?;
        Ok(Self { header, body })
    }

    fn keep(self, summary: MessageSummary) -> RawMessage {
        let mut octets =
            Vec::with_capacity(HEADER_MAX_OCTETS.min(8192) + self.body.len() + ADDED_MAX);
        // Empty ones count as missing, and what is added must not be a second one.
        self.header.write_kept(&mut octets, &["Date", "Message-ID"]);
        let fields_len = octets.len();
        octets.extend_from_slice(b"\r\n");
        octets.extend_from_slice(self.body);
        let message_id = self.header.value("Message-ID");
        RawMessage {
            summary,
            envelope_from: None,
            named_senders: Vec::new(),
            octets,
            fields_len,
            has_date: self.header.value("Date").is_some(),
            message_id: message_id.map(|id| line_of(&id, MESSAGE_ID_MAX).into_string()),
            needs_smtputf8: self.header.needs_smtputf8,
        }
    }
}

/// Every line must be one for every server on the way: a CR or LF by itself would end it for some
/// (SMTP smuggling), and NUL is dropped by others (RFC 5322 section 2.3, RFC 5321 section 2.3.8).
fn check_lines(octets: &[u8]) -> Result<(), FieldError> {
    let refuse = |code, offset: usize, what: &str| {
        let detail = format!("octet {offset}: {what}");
        Err(FieldError::new("", code, detail))
    };
    let mut line_start = 0;
    loop {
        let rest = &octets[line_start..];
        let end = rest
            .iter()
            .position(|octet| matches!(octet, 0 | b'\r' | b'\n'));
        let length = end.unwrap_or(rest.len());
        if length > LINE_MAX {
            let what = format!("this line has more than {LINE_MAX} octets");
            return refuse("line_too_long", line_start, &what);
        }
        let at = line_start + length;
        match octets.get(at..) {
            None | Some([]) => return Ok(()),
            Some([b'\r', b'\n', ..]) => line_start = at + 2,
            Some([b'\r', ..]) => {
                return refuse("bare_cr", at, "CR without LF; lines end with both");
            }
            Some([b'\n', ..]) => {
                return refuse("bare_lf", at, "LF without CR; lines end with both");
            }
            Some(_) => return refuse("nul", at, "NUL has no place in mail"),
        }
    }
}

/// Exactly one mailbox: who it is from must be beyond doubt, since the domain is checked.
fn from_of(header: &RawHeader<'_>) -> Result<Mailbox, FieldError> {
    const POINTER: &str = "/headers/From";
    let list = header.mailboxes("From");
    let mut list = list.map_err(|error| FieldError::new(POINTER, "invalid_address", error))?;
    match (list.pop(), list.is_empty()) {
        (Some(from), true) => Ok(from),
        (Some(_), false) => {
            let detail = "must be one mailbox";
            Err(FieldError::new(POINTER, "several_senders", detail))
        }
        (None, _) => Err(FieldError::required(POINTER)),
    }
}

fn named_senders(header: &RawHeader<'_>) -> Result<Vec<EmailAddress>, FieldError> {
    let mut named = Vec::new();
    for name in ["Sender", "Resent-From", "Resent-Sender"] {
        let list = header.mailboxes(name).map_err(|error| {
            let pointer = format!("/headers/{name}");
            FieldError::new(pointer, "invalid_address", error)
        })?;
        named.extend(list.iter().map(|mailbox| mailbox.address().clone()));
    }
    Ok(named)
}

fn recipients_of(header: &RawHeader<'_>) -> Result<Vec<EmailAddress>, FieldError> {
    let mut recipients = Vec::new();
    for name in ["To", "Cc", "Bcc"] {
        let list = header.mailboxes(name).map_err(|error| {
            let pointer = format!("/headers/{name}");
            FieldError::new(pointer, "invalid_address", error)
        })?;
        recipients.extend(list.iter().map(|mailbox| mailbox.address().clone()));
    }
    Ok(recipients)
}

fn parse_envelope_from(text: &str) -> Result<EmailAddress, FieldError> {
    let invalid =
        |error: &dyn std::fmt::Display| FieldError::new("/from", "invalid_address", error);
    let list = parse_address_list(text.trim()).map_err(|error| invalid(&error))?;
    match list.as_slice() {
        [one] => Ok(one.address().clone()),
        _ => Err(invalid(&"must be one address")),
    }
}

fn parse_recipients(given: &[String]) -> Result<Vec<EmailAddress>, Vec<FieldError>> {
    let mut errors = Errors::default();
    let mut recipients = Vec::new();
    // Beyond the bound the count itself is the error; the list of errors stays short.
    for (index, text) in given.iter().take(DELIVERIES_MAX + 1).enumerate() {
        let list = parse_address_list(text.trim());
        let list =
            list.map_err(|error| FieldError::new(format!("/to/{index}"), "invalid_address", error));
        let list = errors.take(list).unwrap_or_default();
        recipients.extend(list.iter().map(|mailbox| mailbox.address().clone()));
    }
    if errors.0.is_empty() {
        Ok(recipients)
    } else {
        Err(errors.0)
    }
}

fn distinct(mut recipients: Vec<EmailAddress>) -> Vec<EmailAddress> {
    let mut seen = HashSet::new();
    recipients.retain(|address| seen.insert(address.clone()));
    recipients
}

/// Text for the database on one line, cut where it is too long.
fn line_of(text: &str, max_octets: usize) -> DbText {
    let plain: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    DbText::from_remote(plain.trim().as_bytes(), max_octets)
}

#[cfg(test)]
mod tests;
