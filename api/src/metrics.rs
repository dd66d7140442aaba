//! The numbers of the HTTP interface. Labels are taken from closed lists, never from a request.

use service::metrics::prometheus::{Histogram, IntCounter, IntCounterVec};
use service::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};

/// Counters and distributions of this role; clones share them.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    pub(crate) requests: IntCounterVec,
    pub(crate) accept_seconds: Histogram,
    pub(crate) accepted_messages: IntCounter,
    pub(crate) accepted_deliveries: IntCounter,
    pub(crate) suppressed_deliveries: IntCounter,
    pub(crate) rate_limited: IntCounterVec,
    pub(crate) rate_limits_alone: IntCounter,
}

impl ApiMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name is taken: they were registered before.
    pub fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            requests: metrics.counters(
                "api_requests_total",
                "Requests answered, by route and status.",
                &["route", "status"],
            )?,
            accept_seconds: metrics.histogram(
                "api_accept_seconds",
                "From a composed message to its commit.",
                SECONDS_BUCKETS,
            )?,
            accepted_messages: metrics.counter(
                "accepted_messages_total",
                "Messages committed and answered with 202.",
            )?,
            accepted_deliveries: metrics.counter(
                "accepted_deliveries_total",
                "Deliveries of the accepted messages.",
            )?,
            suppressed_deliveries: metrics.counter(
                "accepted_suppressed_deliveries_total",
                "Of them, those that ended at once: their recipient is suppressed.",
            )?,
            rate_limited: metrics.counters(
                "api_rate_limited_total",
                "Requests refused because there were too many, by whose limit it was.",
                &["limit"],
            )?,
            rate_limits_alone: metrics.counter(
                "api_rate_limits_alone_total",
                "Requests counted by this node alone, because Redis is configured and not there.",
            )?,
        })
    }
}
