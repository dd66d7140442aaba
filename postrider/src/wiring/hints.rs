//! Whom a commit of new mail is told to: the MTA of this process, other processes over Redis, the
//! webhook dispatchers of this process. Every hint may be lost.

use std::sync::Arc;
use std::time::Duration;

use mail::retry::StreamClass;
use mta::MtaHints;
use service::metrics::prometheus::{Histogram, IntCounter};
use service::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};
use store::{AcceptObserver, QueueHints, QueueRow, RedisHints, ShardNo, StoredMessage};
use tokio::sync::Notify;

/// Buckets for the number of deliveries in one commit.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 150.0, 200.0, 256.0];

/// The hints of one process.
pub(super) struct Hints {
    /// The MTA in this process.
    pub(super) local: Option<MtaHints>,
    /// The others.
    pub(super) redis: Option<RedisHints>,
    /// Rung for the webhook dispatchers: `queued` events are in the log.
    pub(super) events_committed: Arc<Notify>,
}

impl QueueHints for Hints {
    fn preferred(&self, class: StreamClass) -> Vec<ShardNo> {
        self.local
            .as_ref()
            .map_or_else(Vec::new, |local| local.preferred(class))
    }

    fn takes_messages(&self) -> bool {
        self.local.as_ref().is_some_and(MtaHints::takes_messages)
    }

    fn accepted(&self, rows: Vec<QueueRow>, messages: Vec<Arc<StoredMessage>>) {
        self.events_committed.notify_one();
        let own = self.own_shards();
        let (mine, others): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| own.contains(&row.shard));
        if let Some(local) = self.local.as_ref().filter(|_| !mine.is_empty()) {
            local.accepted(mine, messages);
        }
        if let Some(redis) = self.redis.as_ref().filter(|_| !others.is_empty()) {
            redis.accepted(others, Vec::new());
        }
    }

    fn commanded(&self, shards: &[ShardNo]) {
        // Those that were cancelled directly.
        self.events_committed.notify_one();
        let own = self.own_shards();
        if let Some(local) = &self.local {
            local.commanded(shards);
        }
        if let Some(redis) = &self.redis
            && shards.iter().any(|shard| !own.contains(shard))
        {
            redis.commanded(shards);
        }
    }
}

impl Hints {
    fn own_shards(&self) -> Vec<ShardNo> {
        [StreamClass::Transactional, StreamClass::Broadcast]
            .into_iter()
            .flat_map(|class| self.preferred(class))
            .collect()
    }
}

/// The numbers of the group commit.
pub(super) struct AcceptMetrics {
    deliveries: Histogram,
    commit_seconds: Histogram,
    octets: IntCounter,
    refused: IntCounter,
}

impl AcceptMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name is taken.
    pub(super) fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            deliveries: metrics.histogram(
                "accept_batch_deliveries",
                "Deliveries in one commit of accepted mail.",
                BATCH_BUCKETS,
            )?,
            commit_seconds: metrics.histogram(
                "accept_commit_seconds",
                "One commit of accepted mail.",
                SECONDS_BUCKETS,
            )?,
            octets: metrics
                .counter("accepted_octets_total", "Plain octets of accepted content.")?,
            refused: metrics.counter(
                "accept_refused_total",
                "Requests refused because too much waited to be committed.",
            )?,
        })
    }
}

impl AcceptObserver for AcceptMetrics {
    fn committed(&self, deliveries: usize, octets: usize, took: Duration) {
        self.deliveries.observe(deliveries as f64);
        self.commit_seconds.observe(took.as_secs_f64());
        self.octets.inc_by(octets as u64);
    }

    fn refused(&self) {
        self.refused.inc();
    }
}
