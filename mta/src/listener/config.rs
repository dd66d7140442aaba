//! Limits and identity of a listener. Values only.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

/// How a listener presents itself and what it bears.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Our name in the greeting and the EHLO reply.
    pub host_name: String,
    /// Largest content in octets, before dot-stuffing; announced as SIZE (RFC 1870).
    pub max_message_bytes: usize,
    /// Recipients a transaction may have; at least 100 (RFC 5321 section 4.5.3.1.8).
    pub max_recipients: usize,
    /// Longest wait for a complete command, or for progress while content arrives
    /// (RFC 5321 section 4.5.3.2.7: at least 5 minutes on the public network).
    pub idle_timeout: Duration,
    /// Longest time one message's content may take in total.
    pub data_timeout: Duration,
    /// Connections served at once; more are answered 421 and closed.
    pub max_connections: usize,
    /// Protocol errors between two accepted messages before the connection is closed with 421.
    pub max_errors: u32,
    /// Commands that bring no mail forward (RSET, NOOP, EHLO ...) between two accepted messages.
    pub max_idle_commands: u32,
    /// Certificate for STARTTLS; without it STARTTLS is not offered.
    pub tls: Option<Arc<ServerConfig>>,
    /// How long sessions may go on after shutdown was requested.
    pub shutdown_grace: Duration,
}

impl ListenerConfig {
    /// Defaults for a listener on the public network.
    pub fn new(host_name: impl Into<String>) -> Self {
        Self {
            host_name: host_name.into(),
            max_message_bytes: 50 * 1024 * 1024,
            max_recipients: 100,
            idle_timeout: Duration::from_mins(5),
            data_timeout: Duration::from_mins(30),
            max_connections: 1000,
            max_errors: 20,
            max_idle_commands: 100,
            tls: None,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
