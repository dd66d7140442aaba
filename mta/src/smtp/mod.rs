//! SMTP client: one connection, one transaction at a time, every failure with its stage.
//!
//! Written for bulk delivery: MAIL, RCPT and DATA leave in one write where the server allows it
//! (RFC 2920), and the final dot is a step of its own, so that a caller can put a gate before it.
//! Does not resolve names, choose hosts or sources, retry, or decide what a reply means.

mod capabilities;
mod config;
mod connection;
mod content;
mod failure;
mod stream;
mod tls;
mod transaction;
mod transcript;
mod wire;

pub use capabilities::{Capabilities, Limits};
pub use config::{ConnectConfig, Deadlines};
pub use connection::Connection;
pub use content::{ContentError, WireContent};
pub use failure::{Extension, FailureKind, ProtocolFault, SmtpFailure};
pub use mail::judge::Stage;
pub use tls::{TlsMode, opportunistic_client_config, webpki_client_config};
pub use transaction::Transaction;
pub use transcript::TRANSCRIPT_BYTES_MAX;

pub(crate) use stream::Stream;
