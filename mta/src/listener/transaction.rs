//! The state of one mail transaction on the server side: what may come next.

use bytes::BytesMut;

use super::handler::{HandlerReply, MailFrom};

/// An open transaction: MAIL was accepted.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) mail_from: MailFrom,
    pub(super) rcpts: Vec<String>,
    /// Content that came by BDAT so far; present once the first chunk was taken (RFC 3030).
    pub(super) chunks: Option<BytesMut>,
}

impl Transaction {
    pub(super) fn new(mail_from: MailFrom) -> Self {
        Self {
            mail_from,
            rcpts: Vec::new(),
            chunks: None,
        }
    }

    /// Whether another recipient fits the order of commands and the limit.
    pub(super) fn may_add_recipient(
        &self,
        recipient: &str,
        max_recipients: usize,
    ) -> Result<(), HandlerReply> {
        if self.chunks.is_some() {
            return Err(bad_sequence("RCPT after BDAT"));
        }
        if self.rcpts.len() >= max_recipients {
            return Err(HandlerReply::new(
                452,
                Some((4, 5, 3)),
                "Too many recipients",
            ));
        }
        if !recipient.is_ascii() && !self.mail_from.smtputf8 {
            return Err(needs_smtputf8());
        }
        Ok(())
    }
}

/// Whether DATA may be answered 354.
pub(super) fn may_send_data(transaction: Option<&Transaction>) -> Result<(), HandlerReply> {
    match transaction {
        None => Err(bad_sequence("Need MAIL first")),
        // Mixing the two is not allowed (RFC 3030 section 2).
        Some(open) if open.chunks.is_some() => Err(bad_sequence("DATA after BDAT")),
        Some(open) if open.rcpts.is_empty() => Err(HandlerReply::new(
            554,
            Some((5, 5, 1)),
            "No valid recipients",
        )),
        Some(_) => Ok(()),
    }
}

/// Whether a MAIL command may open a transaction.
pub(super) fn may_open(mail: &MailFrom, max_message_bytes: usize) -> Result<(), HandlerReply> {
    if mail
        .size
        .is_some_and(|size| size > max_message_bytes as u64)
    {
        return Err(too_large());
    }
    if !mail.address.is_ascii() && !mail.smtputf8 {
        return Err(needs_smtputf8());
    }
    Ok(())
}

pub(super) fn bad_sequence(text: &'static str) -> HandlerReply {
    HandlerReply::new(503, Some((5, 5, 1)), text)
}

pub(super) fn too_large() -> HandlerReply {
    HandlerReply::new(552, Some((5, 3, 4)), "Message too large")
}

fn needs_smtputf8() -> HandlerReply {
    HandlerReply::new(553, Some((5, 6, 7)), "Address needs SMTPUTF8")
}
