//! What the MTA role needs to know, as values: parsed and checked before it gets here.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mail::domain_name::DomainName;
use mail::verp::VerpKey;

use crate::journal::JournalConfig;
use crate::routing::RoutingConfig;
use crate::smtp::Deadlines;

/// Everything that can be set about an MTA node.
#[derive(Debug, Clone)]
pub struct MtaConfig {
    /// Name of the node in logs and in the node table.
    pub node_name: String,
    /// Queue group the node serves.
    pub queue_group: i16,
    /// Directory of the node's identity, lock and journal. Two processes cannot share it.
    pub state_dir: PathBuf,
    /// How outcomes are journaled.
    pub journal: JournalConfig,
    /// Life of a shard lease; renewed three times as often.
    pub lease_ttl: Duration,
    /// How long a take-over waits for the outcomes of the node it took from, in domain time.
    pub ambiguous_hold: Duration,
    /// Addresses to send from, at least one.
    pub sources: Vec<EgressSource>,
    /// How recipient domains become hosts.
    pub routing: RoutingConfig,
    /// SMTP address of the sandbox, where mail of test keys goes.
    pub sandbox: Option<SocketAddr>,
    /// Return path of every delivery.
    pub return_path: ReturnPath,
    /// Time limits of the SMTP dialogue.
    pub deadlines: Deadlines,
    /// Limits on connections and memory.
    pub limits: MtaLimits,
    /// The domain clock is the system's: compare it with the server's and stop sending when they
    /// differ by more than [`crate::queue::CLOCK_SKEW_MAX`]. False only under a test clock.
    pub real_time: bool,
}

/// An address to send from.
#[derive(Debug, Clone)]
pub struct EgressSource {
    /// Number in events, from [`store::Store::register_source`].
    pub number: i32,
    /// Address to bind, or the system's choice.
    pub address: Option<IpAddr>,
    /// Fully qualified name for EHLO (RFC 5321 section 4.1.1.1).
    pub ehlo: String,
}

/// The envelope sender: a token that names the delivery, at a domain of ours.
#[derive(Debug, Clone)]
pub struct ReturnPath {
    /// Domain whose MX takes the bounces.
    pub domain: DomainName,
    /// Key of the token. Fixed for a delivery's life, or greylisting sees a new sender each time.
    pub key: Arc<VerpKey>,
}

/// Limits on connections and memory.
#[derive(Debug, Clone)]
pub struct MtaLimits {
    /// Connections of one source to one site at most.
    pub connections_per_path: usize,
    /// Connections of this node at most.
    pub connections: usize,
    /// Transactions over one connection at most.
    pub messages_per_connection: u32,
    /// How long a connection may wait for the next delivery.
    pub idle: Duration,
    /// Deliveries held in memory at most; the rest stays in the queue.
    pub waiting: usize,
    /// Deliveries of one lane held in memory at most; the surplus is parked.
    pub waiting_per_lane: usize,
    /// Outcomes that may wait for PostgreSQL; beyond, no final dot is sent.
    pub unsettled: usize,
}

impl Default for MtaLimits {
    fn default() -> Self {
        Self {
            connections_per_path: 20,
            connections: 2_000,
            messages_per_connection: 100,
            idle: Duration::from_secs(20),
            waiting: 200_000,
            waiting_per_lane: 50_000,
            unsettled: 20_000,
        }
    }
}
