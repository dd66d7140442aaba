//! What a connection is opened with: where to, from where, under which name, how patient.
//! Holds values only; it decides nothing about routes, sources or TLS policy.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::tls::TlsMode;

/// Everything needed to open one SMTP connection.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// Address and port of the receiving host.
    pub remote: SocketAddr,
    /// Name of the receiving host (the MX name): used for SNI and certificate checks.
    pub host_name: String,
    /// Local address to bind, or the system's choice.
    pub source: Option<IpAddr>,
    /// Our own name in EHLO: the fully qualified name of the source (RFC 5321 section 4.1.1.1).
    pub ehlo: String,
    /// Whether and how STARTTLS is used.
    pub tls: TlsMode,
    /// How long each phase may take.
    pub deadlines: Deadlines,
}

/// The longest time each phase may take; a peer that trickles bytes does not extend it.
///
/// The defaults are the minima of RFC 5321 section 4.5.3.2, except connect and QUIT, for which
/// it states none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// TCP connection established.
    pub connect: Duration,
    /// The 220 greeting.
    pub greeting: Duration,
    /// Reply to EHLO or HELO.
    pub ehlo: Duration,
    /// Reply to STARTTLS, and after that the TLS handshake (each).
    pub starttls: Duration,
    /// Reply to MAIL and to RSET.
    pub mail: Duration,
    /// Reply to RCPT.
    pub rcpt: Duration,
    /// Reply to DATA.
    pub data: Duration,
    /// Each block of content handed to the network.
    pub data_block: Duration,
    /// Reply to the final dot. A short value here makes duplicates.
    pub final_dot: Duration,
    /// Reply to QUIT; nothing depends on it any more.
    pub quit: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_mins(1);
        Self {
            connect: Duration::from_secs(30),
            greeting: 5 * MINUTE,
            ehlo: 5 * MINUTE,
            starttls: 3 * MINUTE,
            mail: 5 * MINUTE,
            rcpt: 5 * MINUTE,
            data: 2 * MINUTE,
            data_block: 3 * MINUTE,
            final_dot: 10 * MINUTE,
            quit: Duration::from_secs(10),
        }
    }
}

impl Deadlines {
    /// The same limit for every phase: for probes, `doctor` and tests.
    pub const fn uniform(limit: Duration) -> Self {
        Self {
            connect: limit,
            greeting: limit,
            ehlo: limit,
            starttls: limit,
            mail: limit,
            rcpt: limit,
            data: limit,
            data_block: limit,
            final_dot: limit,
            quit: limit,
        }
    }
}
