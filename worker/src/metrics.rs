//! What the worker shows to Prometheus. Labels hold results only: an endpoint or an account in a
//! label would make a series for each customer.

use service::metrics::prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge};
use service::metrics::{Metrics, MetricsError};

/// Buckets for the age of an event when its endpoint had it, in seconds: from the quickest call
/// to the end of the retries.
const AGE_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3_600.0, 21_600.0,
    86_400.0,
];

/// Numbers of the webhook loops.
#[derive(Clone, Debug)]
pub(crate) struct WebhookMetrics {
    /// Calls made, by what came of them: taken, gone, status, timeout, refused, connection.
    pub(crate) calls: IntCounterVec,
    /// Calls that never ended well, by why: exhausted, too_old, no_endpoint, no_payload.
    pub(crate) given_up: IntCounterVec,
    /// Calls that went to the table of pending ones.
    pub(crate) set_aside: IntCounter,
    /// Seconds from event to 2xx.
    pub(crate) age_seconds: Histogram,
    /// How far reading is behind, in seconds; 0 when the end of the log was seen.
    pub(crate) lag_seconds: Gauge,
    /// First calls waiting or under way.
    pub(crate) open_calls: IntGauge,
    /// Dispatchers held by this process.
    pub(crate) dispatchers: IntGauge,
    /// Endpoints with pending calls, of all workers.
    pub(crate) endpoints_pending: IntGauge,
    /// Endpoints whose events are set aside at once.
    pub(crate) endpoints_failing: IntGauge,
    /// Calls that are missing in the log of calls.
    pub(crate) unlogged: IntCounter,
}

impl WebhookMetrics {
    /// # Errors
    /// They were registered before: one worker a registry.
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            calls: metrics.counters(
                "webhook_calls_total",
                "Webhook calls made, by result.",
                &["result"],
            )?,
            given_up: metrics.counters(
                "webhook_given_up_total",
                "Webhook calls that will not be made again, by reason.",
                &["reason"],
            )?,
            set_aside: metrics.counter(
                "webhook_set_aside_total",
                "First webhook calls that failed or waited too long and are repeated later.",
            )?,
            age_seconds: metrics.histogram(
                "webhook_event_age_seconds",
                "Age of an event when its endpoint took it.",
                AGE_BUCKETS,
            )?,
            lag_seconds: metrics.fraction(
                "webhook_log_lag_seconds",
                "How far the webhook dispatchers are behind the event log.",
            )?,
            open_calls: metrics.gauge(
                "webhook_open_calls",
                "First webhook calls waiting or under way.",
            )?,
            dispatchers: metrics.gauge(
                "webhook_dispatchers",
                "Webhook dispatchers held by this process.",
            )?,
            endpoints_pending: metrics.gauge(
                "webhook_endpoints_pending",
                "Endpoints with calls that are to be repeated.",
            )?,
            endpoints_failing: metrics.gauge(
                "webhook_endpoints_failing",
                "Endpoints that failed so often in a row that their events are set aside.",
            )?,
            unlogged: metrics.counter(
                "webhook_unlogged_total",
                "Webhook calls missing in the log of calls, which could not keep up.",
            )?,
        })
    }
}

/// Numbers of the upkeep of the database.
#[derive(Clone, Debug)]
pub(crate) struct UpkeepMetrics {
    /// Rows that no partition took; anything but 0 is an alarm.
    pub(crate) default_partition_rows: IntGauge,
    /// Shards whose mail nobody sends.
    pub(crate) shards_unowned: IntGauge,
    /// Age of the oldest open write transaction: webhooks cannot be ahead of it.
    pub(crate) oldest_write_seconds: Gauge,
}

impl UpkeepMetrics {
    /// # Errors
    /// They were registered before: one worker a registry.
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            default_partition_rows: metrics.gauge(
                "default_partition_rows",
                "Rows in DEFAULT partitions: must be 0, else day partitions were missing.",
            )?,
            shards_unowned: metrics.gauge(
                "shards_unowned",
                "Shards that no living MTA node owns: their mail waits.",
            )?,
            oldest_write_seconds: metrics.fraction(
                "oldest_write_transaction_seconds",
                "Age of the oldest open write transaction: webhooks wait for it.",
            )?,
        })
    }
}

/// Numbers of the search index.
#[derive(Clone, Debug)]
pub(crate) struct SearchMetrics {
    /// How far the index is behind, in seconds; 0 when the end of the log was seen, and on workers
    /// that do not fill it.
    pub(crate) lag_seconds: Gauge,
    /// Deliveries written, those written again included.
    pub(crate) rows: IntCounter,
    /// 1 on the worker that fills the index.
    pub(crate) reader: IntGauge,
}

impl SearchMetrics {
    /// # Errors
    /// They were registered before: one worker a registry.
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            lag_seconds: metrics.fraction(
                "search_lag_seconds",
                "How far the search index is behind the event log.",
            )?,
            rows: metrics.counter(
                "search_rows_total",
                "Deliveries written to the search index.",
            )?,
            reader: metrics.gauge(
                "search_reader",
                "1 on the worker that fills the search index.",
            )?,
        })
    }
}
