//! The worker role: every background duty that is not about speaking SMTP. It calls webhooks and
//! keeps the database in shape.
//!
//! Never writes the queue and never imports another role: what it knows of mail comes from the
//! event log. Any number of workers may run; webhook dispatchers are leased among them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod domains;
mod metrics;
mod search;
mod search_pages;
mod upkeep;
pub mod webhooks;

use std::num::NonZeroU32;
use std::sync::Arc;

use mail::domain_name::DomainName;
use mail::ids::NodeId;
use service::clock::Clock;
use service::config::Network;
use service::metrics::{Metrics, MetricsError};
use service::resolver::Resolver;
use service::shutdown::Shutdown;
use store::{Sealer, Store};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use domains::{DomainMetrics, Domains};
use metrics::{SearchMetrics, UpkeepMetrics, WebhookMetrics};
use search::Indexer;
use upkeep::Upkeep;
use webhooks::{Dispatcher, Identity, Replayer, Retrier, Webhooks};

/// What a worker has to be told.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The node this worker runs on; after a restart it takes its own leases back at once.
    pub node: NodeId,
    /// The node's name, for people.
    pub name: String,
    /// Most first calls under way at once, and most repeated ones.
    pub max_webhook_calls: NonZeroU32,
    /// Private networks that webhooks may call; all others are refused.
    pub webhook_allowed_networks: Vec<Network>,
    /// Looks at the records of sending domains.
    pub resolver: Resolver,
    /// The platform's domain for bounces, which subdomains of sending domains lead to.
    pub return_path_domain: Option<DomainName>,
    /// Ports that webhooks may call on the public Internet; allowed networks have no such limit.
    pub webhook_ports: Vec<u16>,
    /// Rung by whoever commits events in this process. Rings may be lost: it only makes the
    /// dispatchers quicker than their polling.
    pub events_committed: Arc<Notify>,
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A second worker on the same registry.
    #[error("could not register the worker's metrics")]
    Metrics(#[from] MetricsError),
    /// No root certificates on this machine, most likely.
    #[error("could not set up the HTTP client of webhook calls: are root certificates installed?")]
    HttpClient(#[from] reqwest::Error),
    /// A duty broke down, which is a fault of the program.
    #[error("a background duty of the worker broke down")]
    BrokeDown(#[from] tokio::task::JoinError),
}

/// Runs the worker until `shutdown`; then lets calls under way end, for five seconds at most.
/// Dropping the future instead is like a crash: nothing is lost, some calls are made twice.
///
/// # Errors
/// See [`WorkerError`]. Trouble with the database is no error: it is waited out.
pub async fn run(
    config: WorkerConfig,
    store: Store,
    sealer: Sealer,
    clock: Clock,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> Result<(), WorkerError> {
    let upkeep = Upkeep {
        store: store.clone(),
        clock: clock.clone(),
        metrics: UpkeepMetrics::register(&metrics)?,
        shutdown: shutdown.clone(),
    };
    let indexer = Indexer {
        store: store.clone(),
        clock: clock.clone(),
        metrics: SearchMetrics::register(&metrics)?,
        owner: Indexer::owner_of(config.node),
    };
    let domains = Domains {
        store: store.clone(),
        clock: clock.clone(),
        resolver: config.resolver.clone(),
        return_path: config.return_path_domain.clone(),
        events_committed: config.events_committed.clone(),
        metrics: DomainMetrics::register(&metrics)?,
        shutdown: shutdown.clone(),
    };
    let webhook_metrics = WebhookMetrics::register(&metrics)?;
    let (webhooks, recorder) = Webhooks::new(&config, store, sealer, clock, webhook_metrics)?;
    let identity = Identity::of_node(config.node, config.name);
    let dispatcher = Dispatcher::new(webhooks.clone(), identity);
    let replayer = Replayer::new(webhooks.clone());
    let retrier = Retrier::new(webhooks);

    let mut duties = JoinSet::new();
    duties.spawn(upkeep.run());
    duties.spawn(indexer.run(shutdown.clone()));
    duties.spawn(domains.run());
    duties.spawn(dispatcher.run(config.events_committed, shutdown.clone()));
    duties.spawn(replayer.run(shutdown.clone()));
    duties.spawn(retrier.run(shutdown));
    duties.spawn(recorder.run());
    while let Some(ended) = duties.join_next().await {
        ended?;
    }
    Ok(())
}
