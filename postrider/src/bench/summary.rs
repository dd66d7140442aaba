//! All runs of a benchmark as one: of every figure the median, and the least and the most it was.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::report::{RunReport, Table};
use super::samples::median;

/// The whole benchmark, as it is written to a file.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) profile: &'static str,
    pub(super) mode: String,
    pub(super) pace: String,
    pub(super) message_bytes: usize,
    pub(super) domains: u32,
    pub(super) seed: u64,
    pub(super) runs: Vec<RunReport>,
    /// By the path of the figure in a run, such as `delivery.post_to_250_ms.p99`.
    pub(super) summary: Summary,
}

/// A figure over all runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// Every figure, by its path.
pub(super) type Summary = BTreeMap<String, Spread>;

/// Every figure that all runs have.
///
/// # Errors
/// A run cannot be written as JSON.
pub(super) fn summarize(runs: &[RunReport]) -> serde_json::Result<Summary> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in runs {
        for (path, value) in figures(run)? {
            all.entry(path).or_default().push(value);
        }
    }
    let complete = all
        .into_iter()
        .filter(|(_, values)| values.len() == runs.len());
    Ok(complete
        .filter_map(|(path, values)| Some((path, Spread::of(values)?)))
        .collect())
}

/// The figures of one run, by their paths.
///
/// # Errors
/// The run cannot be written as JSON.
pub(super) fn figures(run: &RunReport) -> serde_json::Result<BTreeMap<String, f64>> {
    let mut figures = BTreeMap::new();
    collect("", &serde_json::to_value(run)?, &mut figures);
    figures.remove("run");
    Ok(figures)
}

fn collect(path: &str, value: &Value, figures: &mut BTreeMap<String, f64>) {
    match value {
        Value::Number(number) => {
            figures.extend(number.as_f64().map(|number| (path.to_owned(), number)));
        }
        Value::Object(members) => {
            for (name, member) in members {
                let inner = match path {
                    "" => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                collect(&inner, member, figures);
            }
        }
        _ => {}
    }
}

impl Spread {
    /// None of no values.
    pub(super) fn of(values: Vec<f64>) -> Option<Self> {
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        Some(Self {
            median: median(values)?,
            min,
            max,
        })
    }
}

/// Lines for people: the figures one looks at, each with its median and its spread.
pub(super) fn table(summary: &Summary, runs: usize) -> String {
    const SHOWN: [(&str, &str, usize); 12] = [
        ("accepted/s", "accepted_per_s", 0),
        ("accept p50 ms", "accept_ms.p50", 1),
        ("accept p99 ms", "accept_ms.p99", 1),
        ("delivered/s", "delivery.delivered_per_s", 0),
        ("to 250 p50 ms", "delivery.post_to_250_ms.p50", 0),
        ("to 250 p99 ms", "delivery.post_to_250_ms.p99", 0),
        ("CPU µs", "cost.platform_cpu_us_per_message", 0),
        ("  postrider", "cost.cpu_us_per_message.postrider", 0),
        ("  postgresql", "cost.cpu_us_per_message.postgresql", 0),
        ("WAL bytes", "cost.wal_bytes_per_message", 0),
        ("of signatures", "delivered_per_signature", 3),
        ("one by one/s", "one_by_one.accepted_per_s", 0),
    ];
    let mut table = Table::default();
    table.row(&format!("{runs} runs"), "median (least to most)");
    for (name, path, digits) in SHOWN {
        if let Some(Spread { median, min, max }) = summary.get(path) {
            let text = format!("{median:.digits$}  ({min:.digits$} to {max:.digits$})");
            table.row(name, text);
        }
    }
    table.0
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::example;
    use super::*;

    #[test]
    fn the_summary_is_the_median_and_the_spread_of_each_figure() {
        let runs = [example(400.0), example(500.0), example(300.0)];
        let summary = summarize(&runs).unwrap();
        let delivered = summary["delivery.delivered_per_s"];
        let expected = Spread {
            median: 400.0,
            min: 300.0,
            max: 500.0,
        };
        assert_eq!(delivered, expected);
        assert!(table(&summary, 3).contains("delivered/s       400  (300 to 500)"));
        assert!(!summary.contains_key("run"));
    }

    #[test]
    fn a_figure_that_a_run_lacks_has_no_median() {
        let mut runs = [example(400.0), example(500.0)];
        runs[1].delivery = None;
        assert!(!summarize(&runs).unwrap().contains_key("delivery.delivered"));
    }
}
