//! What the operator decides about the HTTP interface. Values only: reads no file.

use std::num::NonZeroU32;
use std::time::Duration;

use mail::domain_name::DomainName;
use mail::message::Limits;
use service::config::Network;
use store::RetentionClass;

/// Settings of the HTTP interface.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// How much one message may hold.
    pub message_limits: Limits,
    /// Largest request body after decompression, in octets.
    pub body_max_octets: usize,
    /// Octets of request bodies in memory at once, all requests together.
    pub bodies_max_octets: usize,
    /// How long a request waits for room for its body before it is asked to come back.
    pub body_room_timeout: Duration,
    /// Largest message after composing, in octets.
    pub message_max_octets: usize,
    /// Messages in one batch.
    pub batch_messages_max: usize,
    /// Largest content of a batch after composing, in octets; what is shared counts once.
    pub batch_max_octets: usize,
    /// How long a client may take to send one request body.
    pub body_timeout: Duration,
    /// How long a client may take to send the header of one request, and how long a connection
    /// may rest between two.
    pub header_timeout: Duration,
    /// How long one request may take in all, its body included.
    pub request_timeout: Duration,
    /// How long a stop waits for the requests under way.
    pub drain_timeout: Duration,
    /// Connections held at once; more wait in the backlog of the socket.
    pub connections_max: usize,
    /// How people reach this interface, without a slash at the end.
    pub public_url: String,
    /// How long content is kept.
    pub retention: RetentionClass,
    /// Whether test keys have a sandbox to send to.
    pub sandbox_available: bool,
    /// Opens `GET /inbox?token=…`, which shows everything the sandbox received, to all accounts'
    /// mail alike. For development; absent: no such route.
    pub inbox_token: Option<String>,
    /// Whether `/docs`, `/openapi.json` and `/openapi.yaml` are answered.
    pub docs: bool,
    /// Whether webhook URLs may be plain HTTP and on this machine or a private network.
    pub allow_insecure_webhooks: bool,
    /// Private networks that HTTPS webhooks may be in.
    pub webhook_allowed_networks: Vec<Network>,
    /// Ports that webhooks may have on the public Internet.
    pub webhook_ports: Vec<u16>,
    /// Webhook endpoints that one account may have.
    pub webhook_endpoints_max: usize,
    /// Commands of actions that one account may have waiting to be carried out.
    pub open_actions_max: u64,
    /// Sending domains that one account may have.
    pub domains_max: usize,
    /// The platform's domain for bounces, which subdomains of sending domains lead to.
    pub return_path_domain: Option<DomainName>,
    /// Keys that one account may have, revoked and expired ones not counted.
    pub api_keys_max: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// How often callers may ask.
    pub rate_limits: RateLimits,
    /// Whether `/healthz`, `/readyz` and `/metrics` are answered here too.
    pub operator_routes: bool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            message_limits: Limits::default(),
            body_max_octets: 40 * 1024 * 1024,
            bodies_max_octets: 256 * 1024 * 1024,
            body_room_timeout: Duration::from_secs(5),
            message_max_octets: 40 * 1024 * 1024,
            batch_messages_max: 1_000,
            batch_max_octets: 64 * 1024 * 1024,
            body_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(20),
            connections_max: 10_000,
            public_url: "http://127.0.0.1:8080".to_owned(),
            retention: RetentionClass::Week,
            sandbox_available: false,
            inbox_token: None,
            docs: true,
            allow_insecure_webhooks: false,
            webhook_allowed_networks: Vec::new(),
            webhook_ports: vec![80, 443, 8080, 8443],
            webhook_endpoints_max: 50,
            open_actions_max: 50_000,
            domains_max: 100,
            return_path_domain: None,
            api_keys_max: 100,
            trusted_proxies: Vec::new(),
            rate_limits: RateLimits::default(),
            operator_routes: true,
        }
    }
}

/// How often callers may ask. A rate of 0 a second is no limit.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// Requests a second of one account.
    pub account_per_second: u32,
    /// Requests at once, after a rest.
    pub account_burst: NonZeroU32,
    /// Requests a second with one key.
    pub key_per_second: u32,
    /// Requests at once, after a rest.
    pub key_burst: NonZeroU32,
    /// Requests a second with wrong keys from one client address.
    pub wrong_keys_per_second: u32,
    /// Requests at once, after a rest.
    pub wrong_keys_burst: NonZeroU32,
    /// Processes that share the limits: the part of each while Redis is away.
    pub nodes_expected: NonZeroU32,
}

impl Default for RateLimits {
    fn default() -> Self {
        let count = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            account_per_second: 500,
            account_burst: count(1_000),
            key_per_second: 500,
            key_burst: count(1_000),
            wrong_keys_per_second: 10,
            wrong_keys_burst: count(100),
            nodes_expected: NonZeroU32::MIN,
        }
    }
}
