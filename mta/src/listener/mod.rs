//! SMTP server engine: speaks the protocol strictly, asks a [`SessionHandler`] what to answer.
//!
//! Used for bounces and reports, for submission and for the sink. Must not know what becomes of
//! a message, and must not accept any end of data but CRLF.CRLF (RFC 5321 section 4.1.1.4).

mod channel;
mod command;
mod config;
mod data;
mod handler;
mod server;
mod session;
mod tls;
mod transaction;

pub use config::ListenerConfig;
pub use handler::{HandlerReply, MailFrom, Received, SessionHandler, SessionInfo};
pub use server::serve;
pub use tls::{ServerTlsError, server_tls_from_pem, server_tls_self_signed};
