//! What a benchmark found: as JSON for programs that compare, as a table for people. Numbers only
//! go in here; nothing is measured.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::machine::Machine;
use super::samples::Percentiles;

/// One run of the load.
#[derive(Debug, Serialize)]
pub(super) struct RunReport {
    pub(super) run: u32,
    /// Answered 202.
    pub(super) accepted: u64,
    /// By kind.
    pub(super) errors: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub(super) seconds: f64,
    pub(super) accepted_per_s: f64,
    /// From when a message was due until its answer, milliseconds.
    pub(super) accept_ms: Option<Percentiles>,
    /// With a platform of its own only.
    pub(super) delivery: Option<DeliveryReport>,
}

/// What happened behind the 202, and what it cost.
#[derive(Debug, Serialize)]
pub(super) struct DeliveryReport {
    /// Different messages the sink took.
    pub(super) delivered: u64,
    /// Messages it took more than once.
    pub(super) duplicates: u64,
    /// From the first POST to the last receipt.
    pub(super) seconds: f64,
    pub(super) delivered_per_s: f64,
    /// From POST to the sink's 250, milliseconds; the resolution is one.
    pub(super) post_to_250_ms: Option<Percentiles>,
    /// Processor time a delivered message, by process, microseconds.
    pub(super) cpu_us_per_message: BTreeMap<&'static str, f64>,
    /// Memory at the end of the load, octets, by process.
    pub(super) memory_bytes: BTreeMap<&'static str, u64>,
    /// Write-ahead log a delivered message.
    pub(super) wal_bytes_per_message: f64,
    /// Growth of the database a delivered message.
    pub(super) disk_bytes_per_message: f64,
    pub(super) machine: Machine,
    /// Delivered a second over the signatures the machine can make in one.
    pub(super) delivered_per_signature: f64,
}

/// The whole benchmark.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) profile: &'static str,
    pub(super) pace: String,
    pub(super) message_bytes: usize,
    pub(super) seed: u64,
    pub(super) runs: Vec<RunReport>,
}

impl RunReport {
    /// Lines of name and value.
    pub(super) fn table(&self) -> String {
        let mut table = Table::default();
        table.row(
            &format!("run {}", self.run),
            format!("{:.1} s", self.seconds),
        );
        table.row(
            "accepted",
            format!("{}  ({:.0}/s)", self.accepted, self.accepted_per_s),
        );
        table.percentiles("accept", self.accept_ms);
        for (kind, count) in &self.errors {
            table.row("errors", format!("{count} × {kind}"));
        }
        if let Some(delivery) = &self.delivery {
            delivery.add_to(&mut table);
        }
        table.0
    }
}

impl DeliveryReport {
    fn add_to(&self, table: &mut Table) {
        let Self {
            delivered,
            delivered_per_s,
            seconds,
            duplicates,
            ..
        } = self;
        table.row(
            "delivered",
            format!("{delivered}  ({delivered_per_s:.0}/s over {seconds:.1} s)"),
        );
        if *duplicates > 0 {
            table.row("duplicates", duplicates.to_string());
        }
        table.percentiles("POST to 250", self.post_to_250_ms);
        for (process, cpu_us) in &self.cpu_us_per_message {
            let memory = self.memory_bytes.get(process).copied().unwrap_or_default() as f64 / 1e6;
            let cost = format!("{cpu_us:.0} µs CPU a message, {memory:.0} MB memory");
            table.row(process, cost);
        }
        table.row(
            "WAL",
            format!("{:.0} bytes a message", self.wal_bytes_per_message),
        );
        table.row(
            "disk",
            format!("{:.0} bytes a message", self.disk_bytes_per_message),
        );
        let Machine {
            cores,
            rsa_2048_signatures_per_s,
        } = self.machine;
        table.row(
            "machine",
            format!(
                "{rsa_2048_signatures_per_s:.0} RSA-2048 signatures/s on {cores} cores; \
                 delivered/s is {:.2} of that",
                self.delivered_per_signature
            ),
        );
    }
}

#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: impl AsRef<str>) {
        let _infallible = writeln!(self.0, "{name:<12} {}", value.as_ref());
    }

    fn percentiles(&mut self, name: &str, found: Option<Percentiles>) {
        if let Some(Percentiles { p50, p90, p99, max }) = found {
            let text = format!("p50 {p50:.1} ms, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}");
            self.row(name, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_the_json_holds() {
        let points = Percentiles {
            p50: 1.25,
            p90: 2.0,
            p99: 3.5,
            max: 9.0,
        };
        let report = RunReport {
            run: 1,
            accepted: 1_000,
            errors: BTreeMap::from([("HTTP 503 unavailable".to_owned(), 2)]),
            seconds: 2.0,
            accepted_per_s: 500.0,
            accept_ms: Some(points),
            delivery: Some(DeliveryReport {
                delivered: 1_000,
                duplicates: 1,
                seconds: 2.5,
                delivered_per_s: 400.0,
                post_to_250_ms: Some(points),
                cpu_us_per_message: BTreeMap::from([("postrider", 512.4)]),
                memory_bytes: BTreeMap::from([("postrider", 64_000_000)]),
                wal_bytes_per_message: 9_000.2,
                disk_bytes_per_message: 8_000.0,
                machine: Machine {
                    cores: 2,
                    rsa_2048_signatures_per_s: 4_000.0,
                },
                delivered_per_signature: 0.1,
            }),
        };
        let table = report.table();
        for part in [
            "accepted     1000  (500/s)",
            "errors       2 × HTTP 503 unavailable",
            "duplicates   1",
            "postrider    512 µs CPU a message, 64 MB memory",
            "WAL          9000 bytes a message",
            "4000 RSA-2048 signatures/s on 2 cores; delivered/s is 0.10 of that",
        ] {
            assert!(table.contains(part), "{part}\n{table}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["delivery"]["post_to_250_ms"]["p99"], 3.5);
        assert_eq!(json["errors"]["HTTP 503 unavailable"], 2);
    }
}
