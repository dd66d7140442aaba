//! What a listener asks and what it may be told: the seam between protocol and purpose.

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

/// Who is connected.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// The peer's address.
    pub peer: SocketAddr,
    /// The local address it connected to.
    pub local: SocketAddr,
    /// The TLS version, once STARTTLS has been done.
    pub tls: Option<&'static str>,
    /// The name the peer gave in EHLO or HELO; empty before it.
    pub helo: String,
}

/// The MAIL command of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailFrom {
    /// The reverse-path without brackets; empty for the null reverse-path.
    pub address: String,
    /// Announced size in octets (RFC 1870).
    pub size: Option<u64>,
    /// BODY=8BITMIME was given (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 was given (RFC 6531).
    pub smtputf8: bool,
}

/// One received message.
#[derive(Debug, Clone)]
pub struct Received {
    /// The MAIL command it came with.
    pub mail_from: MailFrom,
    /// The accepted recipients, without brackets, in the order they came.
    pub rcpts: Vec<String>,
    /// The content, dot-unstuffed, octet for octet otherwise.
    pub data: Bytes,
    /// Who sent it.
    pub session: SessionInfo,
}

/// What becomes of the connection after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Continue,
    Close,
    /// Close without a reply.
    Drop,
}

/// An answer of the handler.
#[derive(Debug, Clone)]
pub struct HandlerReply {
    pub(super) code: u16,
    pub(super) enhanced: Option<(u8, u16, u16)>,
    pub(super) text: Cow<'static, str>,
    pub(super) delay: Option<Duration>,
    pub(super) after: After,
}

impl HandlerReply {
    /// A reply with a code of three digits, optionally an enhanced code, and one line of text.
    pub fn new(
        code: u16,
        enhanced: Option<(u8, u16, u16)>,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code,
            enhanced,
            text: text.into(),
            delay: None,
            after: After::Continue,
        }
    }

    /// `250` with enhanced code 2.x.y as fits.
    pub fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(250, Some((2, 0, 0)), text)
    }

    /// No reply at all: the connection is closed at once.
    pub fn drop_connection() -> Self {
        Self {
            after: After::Drop,
            ..Self::new(421, None, "")
        }
    }

    /// The same reply after a wait.
    #[must_use]
    pub fn after_delay(self, delay: Duration) -> Self {
        Self {
            delay: Some(delay),
            ..self
        }
    }

    /// The same reply, after which the connection is closed. Implied by code 421.
    #[must_use]
    pub fn then_close(self) -> Self {
        Self {
            after: After::Close,
            ..self
        }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// True if the connection is closed instead of an answer.
    pub fn drops_connection(&self) -> bool {
        self.after == After::Drop
    }

    /// True for codes 2xx.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// Decides what a session is answered. One handler serves one connection.
///
/// A hook that never finishes holds the reply back; the session then ends with the listener.
pub trait SessionHandler: Send {
    /// The greeting; anything but 2xx closes the connection after it.
    fn on_connect(&mut self, session: &SessionInfo) -> impl Future<Output = HandlerReply> + Send {
        let _ = session;
        async { HandlerReply::new(220, None, "ESMTP") }
    }

    /// A well-formed MAIL command.
    fn on_mail(&mut self, mail_from: &MailFrom) -> impl Future<Output = HandlerReply> + Send {
        let _ = mail_from;
        async { HandlerReply::new(250, Some((2, 1, 0)), "Sender ok") }
    }

    /// A well-formed recipient, without brackets.
    fn on_rcpt(&mut self, recipient: &str) -> impl Future<Output = HandlerReply> + Send;

    /// A complete message; a 2xx answer means the handler has taken responsibility for it.
    fn on_data(&mut self, received: Received) -> impl Future<Output = HandlerReply> + Send;
}
