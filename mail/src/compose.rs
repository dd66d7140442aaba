//! Composing: a message becomes the RFC 5322 octets that are stored once and never change.
//! The same message, id and date always give the same octets. Adds nothing that belongs to a
//! single delivery (return path, signature, unsubscribe link), and never a Bcc.

use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{MultiPart, MultiPartKind, SinglePart};
use thiserror::Error;
use time::format_description::well_known::Rfc2822;
use time::{OffsetDateTime, UtcOffset};

use crate::domain_name::DomainName;
use crate::header::WORD_MAX;
use crate::header_wire::{write_mailboxes, write_plain, write_unstructured};
use crate::ids::MessageId;
use crate::message::{Body, Message};

/// Longest word of a Subject that goes unencoded, in octets.
const SUBJECT_WORD_MAX: usize = 60;

/// What the octets depend on besides the message.
#[derive(Debug, Clone, Copy)]
pub struct ComposeContext<'a> {
    /// Gives the Message-ID and the MIME boundary.
    pub message_id: MessageId,
    /// The Date field, written in UTC with whole seconds.
    pub date: OffsetDateTime,
    /// Right side of the Message-ID.
    pub message_id_domain: &'a DomainName,
}

/// A composed message: 7-bit (unless `needs_smtputf8`), CRLF only, lines of at most 998 octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// Header block, empty line, body.
    pub bytes: Vec<u8>,
    /// Where the body begins: just after the empty line.
    pub header_len: usize,
    /// The value of Message-ID, with its angle brackets.
    pub rfc_message_id: String,
    /// A header shows a non-ASCII local part, so every delivery needs SMTPUTF8 (RFC 6531). A
    /// recipient in Bcc needs it for its own delivery only, which the envelope tells.
    pub needs_smtputf8: bool,
}

/// Why a message cannot be composed.
#[derive(Debug, Error)]
pub enum ComposeError {
    /// The year has no four-digit form in RFC 5322, or is before 1900.
    #[error("could not write the date")]
    Date(#[from] time::error::Format),
}

impl Composed {
    /// The header block, each field with its CRLF, without the empty line.
    pub fn header_block(&self) -> &[u8] {
        &self.bytes[..self.header_len - 2]
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.header_len..]
    }
}

/// Composes a message.
///
/// # Errors
/// `Date` when RFC 5322 cannot write the date of the context.
pub fn compose(message: &Message, context: &ComposeContext<'_>) -> Result<Composed, ComposeError> {
    let digits = context.message_id.digits();
    let rfc_message_id = format!("<{digits}@{}>", context.message_id_domain);
    let fields = header_fields(message, context, &rfc_message_id)?;
    let needs_smtputf8 = !fields.is_ascii();

    let entity = mime_entity(message.body(), &digits);
    let mut bytes = fields.into_bytes();
    // The entity begins with its own fields; no field contains an empty line.
    let entity_fields_len = entity
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or(0, |at| at + 4);
    let header_len = bytes.len() + entity_fields_len;
    bytes.extend_from_slice(&entity);
    Ok(Composed {
        bytes,
        header_len,
        rfc_message_id,
        needs_smtputf8,
    })
}

/// All fields but those that describe the body. Written by us and not by the MIME builder, which
/// breaks no long word and leaves text alone that merely looks like an encoded word.
fn header_fields(
    message: &Message,
    context: &ComposeContext<'_>,
    rfc_message_id: &str,
) -> Result<String, ComposeError> {
    let mut out = String::with_capacity(1024);
    write_mailboxes(&mut out, "From", std::slice::from_ref(message.from()));
    if message.to().is_empty() && message.cc().is_empty() {
        // An empty group says that the recipients are hidden on purpose (RFC 5322 section 3.4).
        write_plain(&mut out, "To", "undisclosed-recipients:;");
    }
    write_mailboxes(&mut out, "To", message.to());
    write_mailboxes(&mut out, "Cc", message.cc());
    write_mailboxes(&mut out, "Reply-To", message.reply_to());
    write_unstructured(
        &mut out,
        "Subject",
        message.subject().as_str(),
        SUBJECT_WORD_MAX,
    );
    write_plain(&mut out, "Date", &rfc_date(context.date)?);
    write_plain(&mut out, "Message-ID", rfc_message_id);
    for (name, value) in message.headers() {
        write_unstructured(&mut out, name.as_str(), value.as_str(), WORD_MAX);
    }
    write_plain(&mut out, "MIME-Version", "1.0");
    Ok(out)
}

pub(crate) fn rfc_date(date: OffsetDateTime) -> Result<String, time::error::Format> {
    date.to_offset(UtcOffset::UTC).format(&Rfc2822)
}

/// The body with the fields that describe it, ending in CRLF.
fn mime_entity(body: &Body, digits: &str) -> Vec<u8> {
    match body {
        Body::Text(text) => part(ContentType::TEXT_PLAIN, text).formatted(),
        Body::Html(html) => part(ContentType::TEXT_HTML, html).formatted(),
        Body::Both { text, html } => MultiPart::builder()
            .kind(MultiPartKind::Alternative)
            // No encoded body can contain "=_" (RFC 2045 section 6.7), and whoever writes a plain
            // one cannot know the id it will get.
            .boundary(format!("=_{digits}"))
            .singlepart(part(ContentType::TEXT_PLAIN, text))
            .singlepart(part(ContentType::TEXT_HTML, html))
            .formatted(),
    }
}

fn part(content_type: ContentType, text: &str) -> SinglePart {
    let text = canonical_lines(text);
    let has_controls = text
        .bytes()
        .any(|b| b == 0x7f || (b < 0x20 && !b"\t\r\n".contains(&b)));
    let builder = SinglePart::builder().header(content_type);
    if has_controls {
        builder
            .header(ContentTransferEncoding::QuotedPrintable)
            .body(text)
    } else {
        builder.body(text)
    }
}

/// Every line end becomes CRLF, and white space at the very end goes: signers and relays
/// disagree about trailing blank lines, so none are sent (the builder adds the last CRLF).
fn canonical_lines(text: &str) -> String {
    let text = text.trim_end_matches([' ', '\t', '\r', '\n']);
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => {
                characters.next_if_eq(&'\n');
                out.push_str("\r\n");
            }
            '\n' => out.push_str("\r\n"),
            other => out.push(other),
        }
    }
    out
}
