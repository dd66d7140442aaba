//! The two parts of a composed message, made apart: the fields that are a message's own, and the
//! MIME entity that many messages can share. Decides nothing about who shares what.

use super::{ComposeContext, ComposeError, Composed, header_fields};
use crate::ids::MessageId;
use crate::message::Message;
use crate::mime::write_entity;

/// Every field but those that describe the body, each with its CRLF, and no empty line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposedHeader {
    /// From, To, Subject, Date, Message-ID and so on, MIME-Version last.
    pub text: String,
    /// The value of Message-ID, with its angle brackets.
    pub rfc_message_id: String,
    /// A field shows a non-ASCII local part, so every delivery needs SMTPUTF8 (RFC 6531).
    pub needs_smtputf8: bool,
}

/// The body behind the fields that describe it (RFC 2045 section 2.4): 7-bit, CRLF only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Fields, empty line, body.
    pub bytes: Vec<u8>,
    /// Where the body begins: just after the empty line.
    pub header_len: usize,
}

impl Entity {
    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.header_len..]
    }

    /// The whole message: the entity's fields end the header.
    pub fn with_header(self, header: ComposedHeader) -> Composed {
        let header_len = header.text.len() + self.header_len;
        let mut bytes = header.text.into_bytes();
        bytes.extend_from_slice(&self.bytes);
        Composed {
            bytes,
            header_len,
            rfc_message_id: header.rfc_message_id,
            needs_smtputf8: header.needs_smtputf8,
        }
    }
}

/// Composes the fields that are the message's own.
///
/// # Errors
/// `Date` when RFC 5322 cannot write the date of the context.
pub fn compose_header(
    message: &Message,
    context: &ComposeContext<'_>,
) -> Result<ComposedHeader, ComposeError> {
    let digits = context.message_id.digits();
    let rfc_message_id = format!("<{digits}@{}>", context.message_id_domain);
    let text = header_fields(message, context, &rfc_message_id)?;
    Ok(ComposedHeader {
        needs_smtputf8: !text.is_ascii(),
        text,
        rfc_message_id,
    })
}

/// Composes the body and the fields that describe it. `boundary_from` gives the MIME boundary: the
/// message's own id, or that of the first of those that share the entity.
pub fn compose_entity(message: &Message, boundary_from: MessageId) -> Entity {
    let mut bytes = Vec::new();
    let header_len = write_entity(&mut bytes, message, &boundary_from.digits());
    Entity { bytes, header_len }
}
