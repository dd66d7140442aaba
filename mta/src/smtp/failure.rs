//! How an SMTP dialogue can fail: at which stage, in what way, and what is left of the connection.
//! Says nothing about what the failure means for the delivery; that is `mail::judge`.

use std::io;

use mail::judge::{Failure, Stage};
use mail::reply::{Reply, ReplyError};
use thiserror::Error;

/// A dialogue that did not reach its end.
#[derive(Debug, Error)]
#[error("SMTP dialogue failed ({stage:?})")]
pub struct SmtpFailure {
    /// The phase it failed in.
    pub stage: Stage,
    /// What went wrong.
    #[source]
    pub kind: FailureKind,
    /// The connection may carry another transaction.
    pub connection_usable: bool,
    /// A byte of the final dot may have left: without a reply the outcome is unknown.
    pub dot_sent: bool,
    /// Opportunistic TLS could not be set up: worth one try in clear on a new connection.
    pub retry_in_clear: bool,
    /// What was said, at most [`super::TRANSCRIPT_BYTES_MAX`] octets.
    pub transcript: String,
}

impl SmtpFailure {
    /// The reply that refused, if there was one.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.kind {
            FailureKind::Reply(reply) => Some(reply),
            _ => None,
        }
    }

    /// The failure as `mail::judge` knows it. Nothing for a reply, which is judged as a reply.
    pub fn cause(&self) -> Option<Failure> {
        Some(match &self.kind {
            FailureKind::Reply(_) => return None,
            FailureKind::Timeout => Failure::TimedOut,
            FailureKind::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Failure::ConnectionRefused
            }
            FailureKind::Io(_) if self.stage == Stage::Connect => Failure::Unreachable,
            FailureKind::Closed | FailureKind::Io(_) => Failure::ConnectionLost,
            FailureKind::Protocol(_) => Failure::BadReply,
            FailureKind::Tls(_) => Failure::TlsFailed,
            FailureKind::TlsNotOffered => Failure::TlsNotOffered,
            FailureKind::NotOffered(Extension::EightBitMime) => Failure::EightBitMimeNotOffered,
            FailureKind::NotOffered(Extension::SmtpUtf8) => Failure::SmtpUtf8NotOffered,
            FailureKind::TooLarge { .. } => Failure::TooBigForServer,
        })
    }
}

/// What went wrong.
#[derive(Debug, Error)]
pub enum FailureKind {
    /// The server refused.
    #[error("the server answered {0}")]
    Reply(Box<Reply>),
    /// A deadline passed.
    #[error("no answer in time")]
    Timeout,
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The network failed.
    #[error("network failure")]
    Io(#[source] io::Error),
    /// The server broke the protocol.
    #[error("protocol violation")]
    Protocol(#[source] ProtocolFault),
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// TLS is required and the server does not offer STARTTLS.
    #[error("the server does not offer STARTTLS, which is required")]
    TlsNotOffered,
    /// The message needs an extension the server does not offer (5.6.3, 5.6.7).
    #[error("the server does not offer {0:?}, which this message needs")]
    NotOffered(Extension),
    /// The message is larger than the server takes (5.3.4); nothing was sent.
    #[error("the message is larger than the {size_max} octets the server takes")]
    TooLarge {
        /// The limit the server stated in EHLO, in octets.
        size_max: u64,
    },
}

impl FailureKind {
    pub(super) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

/// An extension a message may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531.
    SmtpUtf8,
}

/// How a server can break the protocol.
#[derive(Debug, Error)]
pub enum ProtocolFault {
    /// What it sent is no SMTP reply.
    #[error("not an SMTP reply")]
    Reply(#[from] ReplyError),
    /// A code that makes no sense at this stage.
    #[error("reply code {0} makes no sense here")]
    UnexpectedCode(u16),
    /// Bytes followed the reply to STARTTLS in clear (RFC 3207 section 4.2): somebody injected
    /// replies, or the server is broken; both are reasons to leave.
    #[error("clear text after the reply to STARTTLS")]
    ClearTextBeforeTls,
    /// Our own command would have held a line end or a NUL.
    #[error("a command of ours would not have been a single line")]
    UnsafeCommand,
}
