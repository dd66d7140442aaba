//! Questions about a platform that one load cannot answer: what a long queue, a receiver that
//! dawdles or a greedy account does to everybody else, how soon a killed process delivers again,
//! what one costs that has nothing to do. Chooses the question and reports; each answer is in a
//! file of its own.

mod accounts;
mod backlog;
mod fill;
mod idle;
mod pairs;
mod restart;
mod tarpit;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use service::shutdown::Shutdown;

use super::args::BenchArgs;
use super::connection::Authorization;
use super::content::Correspondence;
use super::own_platform::OwnPlatform;
use super::own_runs::OwnRuns;
use super::report::{RunReport, Table};
use super::summary::{Spread, Summary};
use crate::output;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Load beside --queued deliveries that are due tomorrow, against the same load without them.
    Backlog,
    /// Kill the platform while --queued deliveries wait, start it: when is the first delivered?
    Restart,
    /// Load beside --queued deliveries to a domain that waits 10 s before every reply, against the
    /// same load without them.
    Tarpit,
    /// Load of --accounts accounts beside one with --queued deliveries due, against the same load
    /// without them.
    Accounts,
    /// Nothing at all.
    Idle,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Answer {
    scenario: &'static str,
    /// Deliveries in the queue, and accounts, where the question is about them.
    queued: Option<u64>,
    accounts: Option<u32>,
    /// How the load was put on, if there was one.
    pace: Option<String>,
    pairs: Vec<Pair>,
    /// By path. Of pairs: `a.` without what is asked about, `b.` with it, `ratio.` b over a of each
    /// pair, `noise.` how far two runs of a in a row are apart.
    summary: Summary,
}

/// The load without and with what is asked about.
#[derive(Debug, Serialize)]
struct Pair {
    a: RunReport,
    b: RunReport,
}

/// What every scenario is told.
struct Question<'a> {
    args: &'a BenchArgs,
    stop: &'a Shutdown,
}

/// Answers the question and prints the answer.
///
/// # Errors
/// A platform cannot be started or does not answer, or the results cannot be written.
pub(super) async fn run(
    args: &BenchArgs,
    scenario: Scenario,
    stop: &Shutdown,
) -> anyhow::Result<()> {
    let question = Question { args, stop };
    let answer = match scenario {
        Scenario::Backlog => backlog::run(&question).await?,
        Scenario::Restart => restart::run(&question).await?,
        Scenario::Tarpit => tarpit::run(&question).await?,
        Scenario::Accounts => accounts::run(&question).await?,
        Scenario::Idle => idle::run(&question).await?,
    };
    output::line(&answer.table())?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&answer)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

impl Question<'_> {
    /// Loads with these senders on a platform.
    fn runs<'p>(
        &self,
        platform: &'p OwnPlatform,
        who: Correspondence,
        keys: Vec<Authorization>,
    ) -> OwnRuns<'p> {
        OwnRuns {
            platform,
            who,
            keys,
            size: self.args.size,
            seed: self.args.seed,
        }
    }

    fn time(&self) -> Duration {
        let seconds = self.args.seconds.map(Duration::from_secs);
        seconds.unwrap_or(pairs::TIME_DEFAULT)
    }

    /// An answer of single figures.
    fn figures(&self, scenario: &'static str, figures: BTreeMap<&str, Vec<f64>>) -> Answer {
        let spreads = figures.into_iter().filter_map(|(path, values)| {
            let spread = Spread::of(values)?;
            Some((path.to_owned(), spread))
        });
        Answer {
            scenario,
            queued: None,
            accounts: None,
            pace: None,
            pairs: Vec::new(),
            summary: spreads.collect(),
        }
    }
}

impl Answer {
    /// Lines for people.
    fn table(&self) -> String {
        const SHOWN: [(&str, &str, f64); 7] = [
            ("delivered/s", "delivery.delivered_per_s", 1.0),
            ("accept p99 ms", "accept_ms.p99", 1.0),
            ("to 250 p50 ms", "delivery.post_to_250_ms.p50", 1.0),
            ("to 250 p99 ms", "delivery.post_to_250_ms.p99", 1.0),
            ("CPU µs", "cost.platform_cpu_us_per_message", 1.0),
            ("  postgresql", "cost.cpu_us_per_message.postgresql", 1.0),
            ("memory MB", "cost.memory_bytes.postrider", 1e-6),
        ];
        let mut table = Table::default();
        let what = [
            self.queued.map(|count| format!("{count} queued")),
            self.accounts.map(|count| format!("{count} accounts")),
            self.pace.clone(),
        ];
        let what: Vec<_> = what.into_iter().flatten().collect();
        table.row(self.scenario, what.join(", "));
        if !self.pairs.is_empty() {
            let head = format!(
                "{} pairs: without, with, ratio (spread), noise",
                self.pairs.len()
            );
            table.row("", head);
        }
        for (name, path, unit) in SHOWN {
            let of = |side: &str| self.summary.get(&format!("{side}.{path}"));
            if let (Some(a), Some(b), Some(ratio)) = (of("a"), of("b"), of("ratio")) {
                let noise = of("noise").map_or(0.0, |noise| noise.median);
                let text = format!(
                    "{:.1}  {:.1}  {:.3} ({:.3} to {:.3})  ±{:.0}%",
                    a.median * unit,
                    b.median * unit,
                    ratio.median,
                    ratio.min,
                    ratio.max,
                    noise * 100.0
                );
                table.row(name, text);
            }
        }
        let single = self.summary.iter().filter(|(path, _)| {
            let sides = ["a.", "b.", "ratio.", "noise."];
            !sides.iter().any(|side| path.starts_with(side))
        });
        for (path, Spread { median, min, max }) in single {
            table.row(path, format!("{median:.2}  ({min:.2} to {max:.2})"));
        }
        table.0
    }
}
