//! What one run of a benchmark found: as JSON for programs that compare, as a table for people.
//! Numbers only go in here; nothing is measured.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::machine::Machine;
use super::meters::Cost;
use super::one_by_one::OneByOne;
use super::samples::Percentiles;

/// One run of the load.
#[derive(Debug, Serialize)]
pub(super) struct RunReport {
    pub(super) run: u32,
    /// Messages answered 202.
    pub(super) accepted: u64,
    /// Messages that were not accepted, by kind of error.
    pub(super) errors: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub(super) seconds: f64,
    pub(super) accepted_per_s: f64,
    /// From when a request was due until its answer, milliseconds.
    pub(super) accept_ms: Option<Percentiles>,
    /// With a platform of its own that sends.
    pub(super) delivery: Option<DeliveryReport>,
    /// Of webhook calls, where somebody is called.
    pub(super) webhook_calls: Option<u64>,
    /// With a platform of its own.
    pub(super) cost: Option<Cost>,
    /// Delivered a second over the signatures the machine can make in one.
    pub(super) delivered_per_signature: Option<f64>,
    /// With --one-by-one.
    pub(super) one_by_one: Option<OneByOne>,
}

/// What happened behind the 202.
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
        if let Some(calls) = self.webhook_calls {
            table.row("webhook", format!("{calls} calls"));
        }
        if let Some(cost) = &self.cost {
            cost.add_to(&mut table);
            table.row("machine", self.machine(&cost.machine));
        }
        if let Some(OneByOne {
            accepted,
            accepted_per_s,
            cpu_us_per_message,
            ..
        }) = self.one_by_one
        {
            let times = self.accepted_per_s / accepted_per_s.max(1e-9);
            table.row(
                "one by one",
                format!(
                    "{accepted}  ({accepted_per_s:.0}/s and {cpu_us_per_message:.0} µs, each in a \
                     transaction of its own; above is {times:.1} times that rate)"
                ),
            );
        }
        table.0
    }

    fn machine(&self, machine: &Machine) -> String {
        let Machine {
            cores,
            rsa_2048_signatures_per_s: signatures,
        } = machine;
        let share = self
            .delivered_per_signature
            .map_or_else(String::new, |share| {
                format!("; delivered/s is {share:.2} of that")
            });
        format!("{signatures:.0} RSA-2048 signatures/s on {cores} cores{share}")
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
    }
}

impl Cost {
    fn add_to(&self, table: &mut Table) {
        table.row(
            "platform",
            format!("{:.0} µs CPU a message", self.platform_cpu_us_per_message),
        );
        for (process, cpu_us) in &self.cpu_us_per_message {
            let memory = self.memory_bytes.get(process);
            let memory = memory.map_or_else(String::new, |octets| {
                format!(", {:.0} MB memory", *octets as f64 / 1e6)
            });
            table.row(process, format!("{cpu_us:.0} µs CPU a message{memory}"));
        }
        table.row(
            "WAL",
            format!("{:.0} bytes a message", self.wal_bytes_per_message),
        );
        table.row(
            "disk",
            format!("{:.0} bytes a message", self.disk_bytes_per_message),
        );
    }
}

#[derive(Default)]
pub(super) struct Table(pub(super) String);

impl Table {
    pub(super) fn row(&mut self, name: &str, value: impl AsRef<str>) {
        let _infallible = writeln!(self.0, "{name:<17} {}", value.as_ref());
    }

    fn percentiles(&mut self, name: &str, found: Option<Percentiles>) {
        if let Some(Percentiles { p50, p90, p99, max }) = found {
            let text = format!("p50 {p50:.1} ms, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}");
            self.row(name, text);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn example(delivered_per_s: f64) -> RunReport {
        let points = Percentiles {
            p50: 1.25,
            p90: 2.0,
            p99: 3.5,
            max: 9.0,
        };
        RunReport {
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
                delivered_per_s,
                post_to_250_ms: Some(points),
            }),
            webhook_calls: Some(1_000),
            cost: Some(Cost {
                cpu_us_per_message: BTreeMap::from([("postrider", 512.4), ("generator", 10.0)]),
                platform_cpu_us_per_message: 512.4,
                memory_bytes: BTreeMap::from([("postrider", 64_000_000)]),
                wal_bytes_per_message: 9_000.2,
                disk_bytes_per_message: 8_000.0,
                machine: Machine {
                    cores: 2,
                    rsa_2048_signatures_per_s: 4_000.0,
                },
            }),
            delivered_per_signature: Some(delivered_per_s / 4_000.0),
            one_by_one: Some(OneByOne {
                accepted: 250,
                seconds: 2.0,
                accepted_per_s: 125.0,
                cpu_us_per_message: 900.0,
            }),
        }
    }

    #[test]
    fn the_table_shows_what_the_json_holds() {
        let report = example(400.0);
        let table = report.table();
        for part in [
            "accepted          1000  (500/s)",
            "errors            2 × HTTP 503 unavailable",
            "duplicates        1",
            "webhook           1000 calls",
            "platform          512 µs CPU a message",
            "postrider         512 µs CPU a message, 64 MB memory",
            "generator         10 µs CPU a message\n",
            "WAL               9000 bytes a message",
            "4000 RSA-2048 signatures/s on 2 cores; delivered/s is 0.10 of that",
            "(125/s and 900 µs, each in a transaction of its own; above is 4.0 times that rate)",
        ] {
            assert!(table.contains(part), "{part}\n{table}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["delivery"]["post_to_250_ms"]["p99"], 3.5);
        assert_eq!(json["errors"]["HTTP 503 unavailable"], 2);
    }
}
