//! The rows that were run: printed for people, written for programs, compared with an earlier run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::figures::{ACCEPTED, CPU, DELIVERED, Figures, SHARE, SIGNATURES, read_json};
use super::rows::Row;
use crate::shell::{Failure, Outcome};

/// Columns: a head, the figure, what it is multiplied with, digits.
const COLUMNS: [(&str, &str, f64, usize); 12] = [
    ("accepted/s", ACCEPTED, 1.0, 0),
    ("accept p50", "accept_ms.p50", 1.0, 1),
    ("p99 ms", "accept_ms.p99", 1.0, 1),
    ("delivered/s", DELIVERED, 1.0, 0),
    ("to 250 p50", "delivery.post_to_250_ms.p50", 1.0, 0),
    ("p99 ms", "delivery.post_to_250_ms.p99", 1.0, 0),
    ("CPU µs", CPU, 1.0, 0),
    ("WAL", "cost.wal_bytes_per_message", 1.0, 0),
    ("disk", "cost.disk_bytes_per_message", 1.0, 0),
    ("MB", "cost.memory_bytes.postrider", 1e-6, 0),
    ("RSA/s", SIGNATURES, 1.0, 0),
    ("share", SHARE, 1.0, 3),
];
const NAME_WIDTH: usize = 14;
const COLUMN_WIDTH: usize = 12;
const PER_PROCESS: &str = "cost.cpu_us_per_message.";
/// Figures that a comparison shows, of rows with a load.
const COMPARED: [&str; 9] = [
    ACCEPTED,
    "accept_ms.p50",
    "accept_ms.p99",
    DELIVERED,
    "delivery.post_to_250_ms.p99",
    CPU,
    "cost.wal_bytes_per_message",
    "cost.disk_bytes_per_message",
    SHARE,
];

/// Rows with their figures.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Table(BTreeMap<Row, Figures>);

impl Table {
    pub(super) fn add(&mut self, row: Row, figures: Figures) {
        self.0.insert(row, figures);
    }

    /// The median of a figure of a row.
    pub(super) fn get(&self, row: Row, name: &str) -> Option<f64> {
        self.0.get(&row)?.get(name)
    }

    /// A figure of one row over that of another.
    pub(super) fn ratio(&self, row: Row, over: Row, name: &str) -> Option<f64> {
        Some(self.get(row, name)? / self.get(over, name)?)
    }

    /// For people: rows with a load as a table, then what each process costs, then the rows that
    /// answer other questions.
    pub(super) fn shown(&self) -> String {
        let mut out = format!("{:<NAME_WIDTH$}", "");
        for (head, ..) in COLUMNS {
            pad(&mut out, head);
        }
        out.push('\n');
        for (row, figures) in self.loads() {
            let _infallible = write!(out, "{:<NAME_WIDTH$}", row.name());
            for (_, name, unit, digits) in COLUMNS {
                let value = figures.get(name);
                let text = value.map(|value| format!("{:.digits$}", value * unit));
                pad(&mut out, text.as_deref().unwrap_or("-"));
            }
            out.push('\n');
        }
        out.push_str("\nCPU µs a message, by process\n");
        for (row, figures) in self.loads() {
            let parts = figures.below(PER_PROCESS);
            let parts: Vec<_> = parts.map(|(name, us)| format!("{name} {us:.0}")).collect();
            let _infallible = writeln!(out, "{:<NAME_WIDTH$}{}", row.name(), parts.join(", "));
        }
        out
    }

    /// What became of each figure since an earlier run.
    pub(super) fn compared_with(&self, earlier: &Self) -> String {
        let mut out = String::new();
        for (row, figures) in self.loads() {
            let Some(before) = earlier.0.get(row) else {
                continue;
            };
            let _infallible = writeln!(out, "{}", row.name());
            for name in COMPARED {
                if let (Some(before), Some(now)) = (before.get(name), figures.spread(name)) {
                    let change = (now.median / before - 1.0) * 100.0;
                    let within = now.min <= before && before <= now.max;
                    let mark = if within { "  (within the spread)" } else { "" };
                    let _infallible = writeln!(
                        out,
                        "  {name:<38} {before:>10.2} -> {:>10.2}  {change:+.1} %{mark}",
                        now.median
                    );
                }
            }
        }
        out
    }

    pub(super) fn to_json(&self) -> Value {
        let rows = self.0.iter();
        let rows = rows.map(|(row, figures)| (row.name().to_owned(), figures.to_json()));
        json!({"rows": Value::Object(rows.collect::<Map<_, _>>())})
    }

    /// An earlier run, as it was written.
    pub(super) fn read(path: &Path) -> Outcome<Self> {
        let written = read_json(path)?;
        let rows = written["rows"].as_object().into_iter().flatten();
        let known = rows
            .filter_map(|(name, figures)| Some((Row::named(name)?, Figures::from_json(figures)?)));
        let table = Self(known.collect());
        if table.0.is_empty() {
            let file = path.display();
            let what = format!("{file} holds no rows: give what --json wrote earlier");
            return Err(Failure::new(what));
        }
        Ok(table)
    }

    fn loads(&self) -> impl Iterator<Item = (&Row, &Figures)> {
        self.0.iter().filter(|(row, _)| row.is_load())
    }
}

fn pad(out: &mut String, text: &str) {
    let missing = COLUMN_WIDTH.saturating_sub(text.chars().count());
    out.extend(std::iter::repeat_n(' ', missing));
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::figures;
    use super::*;

    fn table(delivered: f64) -> Table {
        let mut table = Table::default();
        let mine = [
            (DELIVERED, delivered),
            ("cost.cpu_us_per_message.redis", 2.0),
        ];
        table.add(Row::HttpSingle, figures(&mine));
        table.add(Row::Idle, figures(&[("cpu_percent", 0.5)]));
        table
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let shown = table(900.0).shown();
        let row = shown.lines().nth(1).unwrap();
        assert!(
            row.starts_with("http-single") && row.contains(" 900 "),
            "{shown}"
        );
        assert!(row.contains(" - "), "{shown}");
        assert!(shown.contains("redis 2"), "{shown}");
        assert!(!shown.contains("idle"), "{shown}");
    }

    #[test]
    fn a_table_is_written_read_back_and_compared() {
        let file = std::env::temp_dir().join(format!("bench-{}.json", std::process::id()));
        std::fs::write(&file, table(1_000.0).to_json().to_string()).unwrap();
        let earlier = Table::read(&file).unwrap();
        std::fs::write(&file, "{}").unwrap();
        let empty = Table::read(&file).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(earlier, table(1_000.0));
        assert!(empty.contains("--json"), "{empty}");
        let compared = table(900.0).compared_with(&earlier);
        assert!(compared.contains("-10.0 %"), "{compared}");
        let same = table(1_000.0).compared_with(&earlier);
        assert!(same.contains("+0.0 %  (within the spread)"), "{same}");
    }
}
