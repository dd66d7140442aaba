//! Everything that speaks SMTP: claiming deliveries, routing them, talking to receivers, keeping
//! what they answered, and the listeners for what comes in.
//!
//! Imports neither `api` nor `worker`; all SQL is in `store`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
mod delivery;
pub mod journal;
mod lanes;
mod leasing;
pub mod listener;
mod metrics;
mod node;
pub mod queue;
pub mod routing;
pub mod sandbox;
mod session;
pub mod smtp;
pub mod state_dir;
mod sync;
#[cfg(test)]
mod test_bed;
mod workers;

use std::sync::Arc;

use store::QueueRow;
use thiserror::Error;
use tokio::sync::mpsc;

pub use config::{EgressSource, MtaConfig, MtaLimits, ReturnPath};
pub use node::{Dependencies, MtaHints};

use node::Node;
use workers::Queues;

/// Batches of accepted rows on their way to the lanes.
const HANDOFF_MAX: usize = 256;

/// Why a node cannot start.
#[derive(Debug, Error)]
pub enum MtaError {
    /// The state directory is unusable or in use.
    #[error(transparent)]
    StateDir(#[from] state_dir::StateDirError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    /// The routes or nameservers are unusable.
    #[error(transparent)]
    Routing(#[from] routing::RoutingConfigError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// An instrument is registered twice.
    #[error(transparent)]
    Metrics(#[from] service::metrics::MetricsError),
    /// There is no address to send from.
    #[error("no egress source is configured: add one to [mta] sources")]
    NoSource,
}

/// An MTA node, opened and not yet running.
#[derive(Debug)]
pub struct Mta {
    node: Arc<Node>,
    queues: Queues,
    hints: MtaHints,
    handoff: mpsc::Receiver<Vec<QueueRow>>,
}

impl Mta {
    /// Locks the state directory and reads the journal.
    ///
    /// # Errors
    /// [`MtaError`]: each says what to do.
    pub fn open(config: MtaConfig, given: Dependencies) -> Result<Self, MtaError> {
        let (node, queues) = Node::open(config, given)?;
        let (accepted, handoff) = mpsc::channel(HANDOFF_MAX);
        let hints = MtaHints::new(node.clone(), accepted);
        Ok(Self {
            node,
            queues,
            hints,
            handoff,
        })
    }

    /// What an acceptor in this process can know and tell.
    pub fn hints(&self) -> MtaHints {
        self.hints.clone()
    }

    /// Delivers until shutdown is requested, then drains: attempts in flight end, their outcomes
    /// are settled, the shards are released.
    pub async fn run(self) {
        let Self {
            node,
            queues,
            hints,
            handoff,
        } = self;
        drop(hints);
        workers::run(node, queues, handoff).await;
    }
}
