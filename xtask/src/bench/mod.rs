//! `cargo xtask bench`: the whole table in one go, ourselves and the peers beside us, and what of
//! the bars it meets. Puts the rows in order; how one is measured is elsewhere.

mod bars;
mod figures;
mod kumomta;
mod ours;
mod peer;
mod plan;
mod postfix;
mod processes;
mod rows;
mod running;
mod sink;
mod table;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::bootstrap::Tools;
use crate::peers;
use crate::shell::{Failure, Outcome};
use figures::Figures;
use ours::Ours;
use plan::Plan;
use rows::Row;
use table::Table;

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Short loads, one each: shows that everything works, in some minutes.
    #[arg(long)]
    quick: bool,
    /// Repeat each load so often and take the medians; default 5, quick 1.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Length of a load; default 20, quick 5.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Only these rows, separated by commas; see --list.
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    rows: Vec<String>,
    /// Print the rows and what each measures, run nothing.
    #[arg(long)]
    list: bool,
    /// Write the figures to FILE.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print what changed since an earlier run, whose --json wrote FILE.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Where all programs keep their data, on the disk to be measured; default: /var/tmp.
    ///
    /// A directory in memory makes commits look free.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    work_dir: PathBuf,
    /// Passed on to `postrider bench --self-contained` as they are; no table is made then.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

/// Runs the rows, with a program that was built before, and prints what they came to.
pub(crate) fn run(args: &BenchArgs, program: PathBuf, tools: &Tools) -> Outcome {
    let wanted = wanted(&args.rows)?;
    // Before an hour of measuring: a file that cannot be read is found out at once.
    let earlier = args.compare.as_deref().map(Table::read).transpose()?;
    let bench = Bench {
        plan: Plan::new(args.quick, args.runs, args.seconds),
        work_dir: args.work_dir.clone(),
        program,
        tools,
    };
    let (mut table, mut skipped) = (Table::default(), Vec::new());
    for row in wanted {
        eprintln!("\n== {}: {}", row.name(), row.about());
        match bench.measure(row, &table) {
            Ok(figures) => table.add(row, figures),
            Err(failure) => {
                eprintln!("SKIPPED: {}: {failure}", row.name());
                skipped.push(row.name());
            }
        }
        // Written after each row: an hour's work is not lost with the last one.
        if let Some(path) = &args.json {
            write(path, &table)?;
        }
    }
    println!("\n{}\n{}", machine(), table.shown());
    print!("{}", bars::report(&table));
    if let Some(earlier) = earlier {
        println!("\nsince the earlier run\n{}", table.compared_with(&earlier));
    }
    if skipped.is_empty() {
        return Ok(());
    }
    println!("skipped: {}", skipped.join(", "));
    Ok(())
}

/// What `--list` prints.
pub(crate) fn is_list(args: &BenchArgs) -> bool {
    if args.list {
        for row in Row::ALL {
            println!("{:<14} {}", row.name(), row.about());
        }
    }
    args.list
}

struct Bench<'a> {
    plan: Plan,
    work_dir: PathBuf,
    program: PathBuf,
    tools: &'a Tools,
}

impl Bench<'_> {
    fn measure(&self, row: Row, table: &Table) -> Outcome<Figures> {
        match row {
            Row::Postfix => self.peer(postfix::measure),
            Row::KumoMta => self.peer(kumomta::measure),
            _ => {
                let ours = Ours {
                    program: self.program.clone(),
                    tools: self.tools,
                    plan: self.plan,
                    work_dir: Some(self.work_dir.clone()),
                };
                ours.run(row, table)
            }
        }
    }

    fn peer(&self, measure: fn(&Path, &Path, &Path, Plan) -> Outcome<Figures>) -> Outcome<Figures> {
        let peers_dir = peers::ensure()?;
        let dir = self
            .work_dir
            .join(format!("postrider-peer-{}", std::process::id()));
        let made = fs::create_dir(&dir)
            .and_then(|()| fs::set_permissions(&dir, Permissions::from_mode(0o755)));
        made.map_err(|error| Failure::new(format!("could not make {}: {error}", dir.display())))?;
        let figures = measure(&self.program, &peers_dir, &dir, self.plan);
        // Left behind, it takes room and does no harm.
        let _ = fs::remove_dir_all(&dir);
        figures
    }
}

fn wanted(names: &[String]) -> Outcome<Vec<Row>> {
    if names.is_empty() {
        return Ok(Row::ALL.to_vec());
    }
    let row = |name: &String| {
        Row::named(name).ok_or_else(|| {
            Failure::new(format!("{name:?} is no row: see cargo xtask bench --list"))
        })
    };
    let mut rows = names.iter().map(row).collect::<Outcome<Vec<_>>>()?;
    // Some need figures of those before them.
    rows.sort();
    rows.dedup();
    Ok(rows)
}

fn write(path: &Path, table: &Table) -> Outcome {
    fs::write(path, format!("{:#}\n", table.to_json()))
        .map_err(|error| Failure::new(format!("could not write {}: {error}", path.display())))
}

/// Where this was measured, in one line.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(|| "?".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} × {}, {} memory, Linux {}",
        field(&cpu, "model name"),
        field(&memory, "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_run_in_their_order_whatever_the_order_of_their_names() {
        let names = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let rows = wanted(&names("idle,at-50-percent,http-single,idle")).unwrap();
        assert_eq!(rows, [Row::HttpSingle, Row::Half, Row::Idle]);
        assert_eq!(wanted(&[]).unwrap().len(), Row::ALL.len());
        let failure = wanted(&names("fast")).unwrap_err().to_string();
        assert!(failure.contains("--list"), "{failure}");
    }
}
