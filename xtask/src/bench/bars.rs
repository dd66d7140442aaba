//! What we want to reach, and whether a table of rows reaches it. Reads figures, measures nothing.

use super::figures::{ACCEPTED, CPU, DELIVERED, SHARE};
use super::rows::Row;
use super::table::Table;

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

use Limit::{AtLeast, AtMost};

/// How to find the value: none where a row was not run.
type Find = fn(&Table) -> Option<f64>;

struct Bar {
    what: &'static str,
    unit: &'static str,
    limit: Limit,
    find: Find,
}

const fn bar(what: &'static str, unit: &'static str, limit: Limit, find: Find) -> Bar {
    Bar {
        what,
        unit,
        limit,
        find,
    }
}

const P99_AT_SINK: &str = "ratio.delivery.post_to_250_ms.p99";

/// In the order they are printed.
const BARS: [Bar; 26] = [
    bar("CPU a message, single", "µs", AtMost(520.0), |rows| {
        rows.get(Row::HttpSingle, CPU)
    }),
    bar("of it PostgreSQL, single", "µs", AtMost(100.0), |rows| {
        rows.get(Row::HttpSingle, "cost.cpu_us_per_message.postgresql")
    }),
    bar(
        "CPU a message, batches of 100",
        "µs",
        AtMost(440.0),
        |rows| rows.get(Row::HttpBatch, CPU),
    ),
    bar("CPU that a webhook call adds", "µs", AtMost(90.0), |rows| {
        Some(rows.get(Row::Webhook, CPU)? - rows.get(Row::HttpSingle, CPU)?)
    }),
    bar(
        "share of the RSA limit, single",
        "",
        AtLeast(0.33),
        |rows| rows.get(Row::HttpSingle, SHARE),
    ),
    bar("share of the RSA limit, batch", "", AtLeast(0.40), |rows| {
        rows.get(Row::HttpBatch, SHARE)
    }),
    bar("against KumoMTA, single", "×", AtLeast(2.2), |rows| {
        rows.ratio(Row::HttpSingle, Row::KumoMta, DELIVERED)
    }),
    bar("against KumoMTA, batch", "×", AtLeast(2.5), |rows| {
        rows.ratio(Row::HttpBatch, Row::KumoMta, DELIVERED)
    }),
    bar("against Postfix + OpenDKIM", "×", AtLeast(8.0), |rows| {
        rows.ratio(Row::HttpSingle, Row::Postfix, DELIVERED)
    }),
    bar(
        "accept p50 at half of the most",
        "ms",
        AtMost(10.0),
        |rows| rows.get(Row::Half, "accept_ms.p50"),
    ),
    bar(
        "accept p99 at half of the most",
        "ms",
        AtMost(40.0),
        |rows| rows.get(Row::Half, "accept_ms.p99"),
    ),
    bar("POST to 250 p50 at 20 %", "ms", AtMost(15.0), |rows| {
        rows.get(Row::Fifth, "delivery.post_to_250_ms.p50")
    }),
    bar("POST to 250 p99 at 20 %", "ms", AtMost(80.0), |rows| {
        rows.get(Row::Fifth, "delivery.post_to_250_ms.p99")
    }),
    bar("accept only, single", "/s", AtLeast(6_000.0), |rows| {
        rows.get(Row::AcceptOnly, ACCEPTED)
    }),
    bar(
        "against one transaction a message",
        "×",
        AtLeast(3.0),
        |rows| {
            let one_by_one = rows.get(Row::AcceptOnly, "one_by_one.accepted_per_s")?;
            Some(rows.get(Row::AcceptOnly, ACCEPTED)? / one_by_one)
        },
    ),
    bar("throughput with a long queue", "×", AtLeast(0.92), |rows| {
        rows.get(Row::Backlog, &format!("ratio.{DELIVERED}"))
    }),
    bar("memory a queued delivery", "bytes", AtMost(200.0), |rows| {
        rows.get(Row::Backlog, "memory_bytes_per_queued")
    }),
    bar("first delivery after kill -9", "s", AtMost(5.0), |rows| {
        rows.get(Row::Restart, "first_delivery_s")
    }),
    bar("p99 beside a tarpit", "×", AtMost(1.20), |rows| {
        rows.get(Row::Tarpit, P99_AT_SINK)
    }),
    bar("p99 beside a greedy account", "×", AtMost(1.25), |rows| {
        rows.get(Row::Accounts, P99_AT_SINK)
    }),
    bar("idle, of one core", "%", AtMost(1.0), |rows| {
        rows.get(Row::Idle, "cpu_percent")
    }),
    bar("idle, memory", "MB", AtMost(120.0), |rows| {
        Some(rows.get(Row::Idle, "memory_bytes")? / 1e6)
    }),
    bar("disk a message, single", "bytes", AtMost(5_500.0), |rows| {
        rows.get(Row::HttpSingle, "cost.disk_bytes_per_message")
    }),
    bar("WAL a message, single", "bytes", AtMost(5_500.0), |rows| {
        rows.get(Row::HttpSingle, "cost.wal_bytes_per_message")
    }),
    bar("disk a message, batch", "bytes", AtMost(5_500.0), |rows| {
        rows.get(Row::HttpBatch, "cost.disk_bytes_per_message")
    }),
    bar("WAL a message, batch", "bytes", AtMost(5_500.0), |rows| {
        rows.get(Row::HttpBatch, "cost.wal_bytes_per_message")
    }),
];

/// A line for each bar that the rows answer.
pub(super) fn report(rows: &Table) -> String {
    let lines = BARS.iter().filter_map(|bar| {
        let value = (bar.find)(rows)?;
        let (met, sign, limit) = match bar.limit {
            AtMost(limit) => (value <= limit, "≤", limit),
            AtLeast(limit) => (value >= limit, "≥", limit),
        };
        let verdict = if met { "met    " } else { "NOT MET" };
        let Bar { what, unit, .. } = bar;
        let (value, limit) = (shown(value), shown(limit));
        Some(format!(
            "{verdict}  {what:<34} {value:>8} {unit:<5}  {sign} {limit}\n"
        ))
    });
    lines.collect()
}

/// With as many digits as say something.
fn shown(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::figures;
    use super::*;

    #[test]
    fn bars_are_met_or_not_and_those_without_a_row_are_not_mentioned() {
        let mut rows = Table::default();
        rows.add(
            Row::HttpSingle,
            figures(&[(CPU, 500.0), (DELIVERED, 900.0)]),
        );
        rows.add(Row::Webhook, figures(&[(CPU, 600.0)]));
        rows.add(Row::Postfix, figures(&[(DELIVERED, 100.0)]));
        let report = report(&rows);
        let line = |what: &str| {
            report
                .lines()
                .find(|line| line.contains(what))
                .unwrap_or("")
        };
        assert!(line("CPU a message, single").starts_with("met"), "{report}");
        assert!(
            line("a webhook call adds").starts_with("NOT MET"),
            "{report}"
        );
        assert!(line("a webhook call adds").contains("100 µs"), "{report}");
        assert!(line("against Postfix").contains("9.00 ×"), "{report}");
        assert!(!report.contains("KumoMTA"), "{report}");
        assert_eq!(report.lines().count(), 3);
    }
}
