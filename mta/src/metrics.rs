//! What the MTA role counts.

use service::metrics::prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use service::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};

const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
const QUEUE_TIME_BUCKETS: &[f64] = &[
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0, 432_000.0,
];

/// The instruments of one node.
#[derive(Debug)]
pub(crate) struct MtaMetrics {
    pub(crate) outcomes: IntCounterVec,
    pub(crate) attempts: HistogramVec,
    pub(crate) failures: IntCounterVec,
    pub(crate) queue_time: Histogram,
    pub(crate) ambiguous: IntCounter,
    pub(crate) intent_batch: Histogram,
    pub(crate) settle_batch: Histogram,
    pub(crate) settle_missing: IntCounter,
    pub(crate) settle_refused: IntCounter,
    pub(crate) handed_in: IntCounter,
    pub(crate) parked: IntCounter,
    pub(crate) commands: IntCounterVec,
    pub(crate) own_faults: IntCounterVec,
    pub(crate) connections: IntGauge,
    pub(crate) held: IntGauge,
    pub(crate) unsettled: IntGauge,
    pub(crate) open_intents: IntGauge,
    pub(crate) shards: IntGauge,
    pub(crate) undecided: IntGauge,
    pub(crate) queue_due: IntGauge,
    pub(crate) queue_oldest: IntGauge,
}

impl MtaMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            outcomes: metrics.counters(
                "delivery_outcomes_total",
                "Settled attempts and final events by event type.",
                &["outcome"],
            )?,
            attempts: metrics.histograms(
                "attempt_duration_seconds",
                "Duration of delivery attempts, from work to reply.",
                SECONDS_BUCKETS,
                &["outcome"],
            )?,
            failures: metrics.counters(
                "attempt_failures_total",
                "Settled failures by event type and class of the cause.",
                &["outcome", "class"],
            )?,
            queue_time: metrics.histogram(
                "queue_time_seconds",
                "From acceptance (or the scheduled time) to the final event.",
                QUEUE_TIME_BUCKETS,
            )?,
            ambiguous: metrics.counter(
                "ambiguous_deliveries_total",
                "Attempts whose final dot was allowed and whose reply is unknown.",
            )?,
            intent_batch: metrics.histogram(
                "intent_batch_size",
                "Intents noted in one statement.",
                BATCH_BUCKETS,
            )?,
            settle_batch: metrics.histogram(
                "settle_batch_size",
                "Outcomes settled in one statement.",
                BATCH_BUCKETS,
            )?,
            settle_missing: metrics.counter(
                "settle_missing_total",
                "Outcomes whose delivery had been settled before.",
            )?,
            settle_refused: metrics.counter(
                "settle_refused_total",
                "Outcomes PostgreSQL refused with their texts. Not zero means a bug.",
            )?,
            handed_in: metrics.counter(
                "outcomes_handed_in_total",
                "Outcomes given to the new owner of a lost shard.",
            )?,
            parked: metrics.counter(
                "parked_deliveries_total",
                "Deliveries sent back to the queue for later without an attempt.",
            )?,
            commands: metrics.counters(
                "commands_total",
                "Commands to queued deliveries by what they came to.",
                &["result"],
            )?,
            own_faults: metrics.counters(
                "own_faults_total",
                "Deliveries not attempted because of trouble on our side.",
                &["cause"],
            )?,
            connections: metrics
                .gauge("smtp_sessions", "Outgoing SMTP sessions, busy and idle.")?,
            held: metrics.gauge("held_deliveries", "Deliveries in this node's memory.")?,
            unsettled: metrics.gauge("unsettled_outcomes", "Outcomes waiting for PostgreSQL.")?,
            open_intents: metrics.gauge(
                "open_intents",
                "Final dots allowed whose outcome is not settled yet.",
            )?,
            undecided: metrics.gauge(
                "undecided_deliveries",
                "Ambiguous deliveries of lost nodes that wait for an outcome to be handed in.",
            )?,
            shards: metrics.gauge("shards_owned", "Shards this node owns.")?,
            queue_due: metrics.gauge(
                "queue_due",
                "Deliveries due in the shards of this node (at most 100,000 counted a shard).",
            )?,
            queue_oldest: metrics.gauge(
                "queue_oldest_due_seconds",
                "Age of the oldest due delivery in the shards of this node.",
            )?,
        })
    }
}
