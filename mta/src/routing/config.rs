//! What the router is told: static routes, name servers, limits.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::net::NetError;
use thiserror::Error;

use super::host_port::{HostPort, RoutePattern};

/// How routes are found.
#[derive(Debug, Clone)]
pub struct RoutingConfig {
    /// Static routes: they come before DNS, a domain's own before `*`.
    pub routes: Vec<(RoutePattern, HostPort)>,
    /// Nothing is looked up: a domain without a static route has none. Mail from development
    /// machines stays on them.
    pub offline: bool,
    /// Name servers to ask; the system's when `None`.
    pub nameservers: Option<Vec<SocketAddr>>,
    /// Whether hosts found in DNS may have private and loopback addresses.
    pub allow_private: bool,
    /// Whether this node can send over IPv6.
    pub ipv6: bool,
    /// How long DNS may take.
    pub timeouts: DnsTimeouts,
    /// How many hosts one attempt tries.
    pub mx_hosts_max: usize,
    /// The port of hosts found in DNS.
    pub smtp_port: u16,
    /// How many look-ups run at a time; others wait.
    pub lookups_max: usize,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            offline: false,
            nameservers: None,
            allow_private: false,
            ipv6: true,
            timeouts: DnsTimeouts::default(),
            mx_hosts_max: 5,
            smtp_port: 25,
            lookups_max: 256,
        }
    }
}

/// How long DNS may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsTimeouts {
    /// One query to one name server.
    pub query: Duration,
    /// How often a query is sent again after a timeout.
    pub retries: usize,
    /// One look-up with everything it takes: waiting for a turn, aliases, repeated queries.
    pub whole: Duration,
}

impl Default for DnsTimeouts {
    fn default() -> Self {
        Self {
            query: Duration::from_secs(5),
            retries: 2,
            whole: Duration::from_secs(30),
        }
    }
}

/// Why there can be no router.
#[derive(Debug, Error)]
pub enum RoutingConfigError {
    /// Two targets for one pattern.
    #[error("there are two static routes for {0}: keep one")]
    DuplicateRoute(RoutePattern),
    /// An empty list of name servers.
    #[error("the list of name servers is empty: name one, or leave it out to use the system's")]
    NoNameServers,
    /// `mx_hosts_max`, `lookups_max` or `smtp_port` is 0.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The system's resolver configuration cannot be used.
    #[error(
        "cannot use the system's name servers (/etc/resolv.conf): name servers can be configured instead"
    )]
    System(#[source] NetError),
    /// The resolver cannot be built.
    #[error("cannot set up the resolver")]
    Resolver(#[source] NetError),
}
