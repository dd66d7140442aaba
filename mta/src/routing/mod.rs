//! Where mail for a domain goes: static routes and MX records become hosts in order, the site they
//! stand for, and the addresses that may be connected to (RFC 5321 section 5.1, RFC 7505).
//!
//! Decides nothing about sources, TLS policy or what a failure does to a delivery, and opens no
//! connection.

mod address;
mod cache;
mod config;
mod dns;
mod host_port;
mod route;
mod router;
mod site;

pub use address::is_forbidden;
pub use config::{DnsTimeouts, RoutingConfig, RoutingConfigError};
pub use host_port::{Host, HostPort, RouteParseError, RoutePattern, parse_route};
pub use route::{Route, RouteFailure, RouteHost};
pub use router::Router;
pub use site::SiteKey;
