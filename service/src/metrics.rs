//! The numbers a process shows to Prometheus: one registry, made by `main` and passed in an `Arc`.
//! No global registry, so that two roles in one test do not add up.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use prometheus;

use crate::process_metrics::ProcessMetrics;

/// Put before every metric name.
const NAMESPACE: &str = "postrider";

/// Content type of `render`: the Prometheus text format.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Buckets for durations from 1 ms to 10 min, in seconds: SMTP deadlines are minutes long.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0,
];

/// A metric that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("could not register the metric {name}: each name is registered once, in Prometheus syntax")]
pub struct MetricsError {
    name: String,
    #[source]
    source: prometheus::Error,
}

/// The registry. Names are given without the `postrider_` prefix; units go last
/// (`_seconds`, `_bytes`), counters end in `_total`.
///
/// Every constructor fails if the name is taken or is not a Prometheus name.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows what the process itself uses, under the usual names (`process_cpu_seconds_total`, ...).
    ///
    /// # Errors
    /// It was done before.
    pub fn follow_process(&self) -> Result<(), MetricsError> {
        let made = ProcessMetrics::new();
        made.and_then(|process| self.registry.register(Box::new(process)))
            .map_err(|source| MetricsError {
                name: "process_cpu_seconds_total".to_owned(),
                source,
            })
    }

    /// A count that only grows.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.register(name, IntCounter::with_opts(opts(name, help)))
    }

    /// Counts told apart by labels.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, MetricsError> {
        self.register(name, IntCounterVec::new(opts(name, help), labels))
    }

    /// A whole number that goes up and down.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(name, IntGauge::with_opts(opts(name, help)))
    }

    /// Whole numbers told apart by labels.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, MetricsError> {
        self.register(name, IntGaugeVec::new(opts(name, help), labels))
    }

    /// A fraction (a rate, a share) that goes up and down.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn fraction(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        self.register(name, Gauge::with_opts(opts(name, help)))
    }

    /// Fractions told apart by labels.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn fractions(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, MetricsError> {
        self.register(name, GaugeVec::new(opts(name, help), labels))
    }

    /// A distribution; for durations take [`SECONDS_BUCKETS`].
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, MetricsError> {
        self.register(
            name,
            Histogram::with_opts(histogram_opts(name, help, buckets)),
        )
    }

    /// Distributions told apart by labels.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, MetricsError> {
        self.register(
            name,
            HistogramVec::new(histogram_opts(name, help, buckets), labels),
        )
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            // What was written before stays valid: every family stands alone.
            tracing::error!(%error, "could not render all metrics");
        }
        text
    }

    fn register<M>(&self, name: &str, made: prometheus::Result<M>) -> Result<M, MetricsError>
    where
        M: Collector + Clone + 'static,
    {
        made.and_then(|metric| {
            self.registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        })
        .map_err(|source| MetricsError {
            name: format!("{NAMESPACE}_{name}"),
            source,
        })
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

fn histogram_opts(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help)
        .namespace(NAMESPACE)
        .buckets(buckets.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_metrics_are_rendered_with_prefix_help_and_labels() {
        let metrics = Metrics::new();
        metrics
            .counter("sends_total", "Sends accepted.")
            .unwrap()
            .inc_by(3);
        let attempts = metrics
            .counters("attempts_total", "Attempts.", &["outcome"])
            .unwrap();
        attempts.with_label_values(&["deferred"]).inc();
        metrics
            .gauge("queue_depth", "Unfinished deliveries.")
            .unwrap()
            .set(-2);
        metrics
            .fraction("bounce_share", "Bounced of sent.")
            .unwrap()
            .set(0.25);
        let seconds = metrics
            .histogram("settle_seconds", "Settle batch.", SECONDS_BUCKETS)
            .unwrap();
        seconds.observe(0.004);
        let text = metrics.render();
        for line in [
            "# HELP postrider_sends_total Sends accepted.",
            "postrider_sends_total 3",
            "postrider_attempts_total{outcome=\"deferred\"} 1",
            "postrider_queue_depth -2",
            "postrider_bounce_share 0.25",
            "postrider_settle_seconds_bucket{le=\"0.0025\"} 0",
            "postrider_settle_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn the_process_is_shown_once() {
        let metrics = Metrics::new();
        metrics.follow_process().unwrap();
        assert!(metrics.follow_process().is_err());
        let text = metrics.render();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
        ] {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(
                value.is_some_and(|value| value >= 0.0),
                "{name} is not in\n{text}"
            );
        }
        assert!(!text.contains("process_resident_memory_bytes 0"), "{text}");
    }

    #[test]
    fn a_name_is_registered_once_and_must_be_valid() {
        let metrics = Metrics::new();
        metrics.counter("a_total", "A.").unwrap();
        let error = metrics.counter("a_total", "A.").unwrap_err().to_string();
        assert!(error.contains("postrider_a_total"), "{error}");
        assert!(metrics.gauge("no spaces", "A.").is_err());
    }
}
