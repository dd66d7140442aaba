//! The rows of our own: each is a call of `postrider bench --self-contained`, whose figures are
//! read from what it writes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::figures::{DELIVERED, Figures};
use super::plan::Plan;
use super::rows::Row;
use super::table::Table;
use crate::bootstrap::Tools;
use crate::shell::{Failure, Outcome, run_to_end};

/// Seconds of the load that finds out what an open loop is a share of.
const MAXIMUM_SECONDS: u64 = 10;

/// Runs our own rows.
pub(super) struct Ours<'a> {
    pub(super) program: PathBuf,
    pub(super) tools: &'a Tools,
    pub(super) plan: Plan,
    /// Where to keep data while it runs; none: the system's temporary directory.
    pub(super) work_dir: Option<PathBuf>,
}

impl Ours<'_> {
    /// Runs one row; `table` has the rows before it.
    pub(super) fn run(&self, row: Row, table: &Table) -> Outcome<Figures> {
        let seconds = self.plan.seconds.to_string();
        let runs = self.plan.runs.to_string();
        let mut args = match row {
            Row::HttpBatch => words("--mode http-batch"),
            Row::Webhook => words("--webhook"),
            Row::AcceptOnly => words("--accept-only --one-by-one"),
            Row::Fifth => vec!["--rate".to_owned(), self.rate(0.2, table)?],
            Row::Half => vec!["--rate".to_owned(), self.rate(0.5, table)?],
            Row::Backlog => self.scenario("backlog", self.plan.backlog),
            Row::Restart => self.scenario("restart", self.plan.backlog),
            Row::Tarpit => self.scenario("tarpit", self.plan.tarpit),
            Row::Accounts => {
                let mut args = self.scenario("accounts", self.plan.greedy);
                args.extend(["--accounts".to_owned(), self.plan.accounts.to_string()]);
                args
            }
            Row::Idle => self.scenario("idle", 0),
            Row::HttpSingle | Row::Postfix | Row::KumoMta => Vec::new(),
        };
        args.extend(["--runs".to_owned(), runs]);
        if !args.iter().any(|arg| arg == "--seconds") {
            args.extend(["--seconds".to_owned(), seconds]);
        }
        self.measure(&args)
    }

    fn scenario(&self, name: &str, queued: u64) -> Vec<String> {
        let Plan {
            pairs,
            pair_seconds,
            ..
        } = self.plan;
        words(&format!(
            "--scenario {name} --queued {queued} --pairs {pairs} --seconds {pair_seconds}"
        ))
    }

    /// A share of what http-single delivers, as an option's value.
    fn rate(&self, share: f64, table: &Table) -> Outcome<String> {
        let known = table.get(Row::HttpSingle, DELIVERED);
        let most = match known {
            Some(most) => most,
            None => {
                let args = words(&format!("--seconds {MAXIMUM_SECONDS}"));
                let found = self.measure(&args)?.get(DELIVERED);
                found.ok_or_else(|| Failure::new("nothing was delivered"))?
            }
        };
        Ok(format!("{:.0}", (most * share).max(1.0)))
    }

    fn measure(&self, args: &[String]) -> Outcome<Figures> {
        let file = std::env::temp_dir().join(format!("postrider-row-{}.json", std::process::id()));
        let mut command = Command::new(&self.program);
        command
            .args(["bench", "--self-contained", "--json"])
            .arg(&file)
            .args(args);
        if let Some(dir) = &self.work_dir {
            command.arg("--work-dir").arg(dir);
        }
        self.tools.name_to(&mut command);
        run_to_end(&mut command)?;
        let figures = Figures::read(&file);
        // Left behind, it does no harm.
        let _ = fs::remove_file(&file);
        figures
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
