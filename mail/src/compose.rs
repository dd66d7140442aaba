//! Composing: a message becomes the RFC 5322 octets that are stored once and never change.
//! The same message, id and date always give the same octets. Adds nothing that belongs to a
//! single delivery (return path, signature, unsubscribe link), and never a Bcc.

mod parts;

use thiserror::Error;
use time::format_description::well_known::Rfc2822;
use time::{OffsetDateTime, UtcOffset};

use crate::domain_name::DomainName;
use crate::header::WORD_MAX;
use crate::header_wire::{write_mailboxes, write_plain, write_unstructured};
use crate::ids::MessageId;
use crate::message::Message;
pub use parts::{ComposedHeader, Entity, compose_entity, compose_header};

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
    let header = compose_header(message, context)?;
    Ok(compose_entity(message, context.message_id).with_header(header))
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
