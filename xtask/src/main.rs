//! `cargo xtask`: everything a developer or the CI does to this project, one command each.
//! Standard library, clap and serde_json only, so that it builds in seconds on a clean clone. Knows how to
//! call things; what a test tests or a server does is not its business.

#![cfg_attr(test, allow(clippy::unwrap_used))]
// A command-line tool: standard output is what it is for.
#![allow(clippy::print_stdout)]

mod bench;
mod bootstrap;
mod build;
mod openapi;
mod packages;
mod peers;
mod shell;
mod tidy;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use shell::Outcome;

/// Build, run, test and check Postrider.
///
/// Needs a Rust toolchain and a C compiler. What else is needed (PostgreSQL 15 or newer,
/// redis-server) is looked for first, and installed with apt-get where that is allowed: every
/// command that changes the machine is printed before it runs, and no service is started. Where
/// it is not allowed, the commands are printed for you and the exit status is 1.
///
/// PG_BINDIR names the directory of the PostgreSQL server programs (initdb, postgres, pg_ctl) if
/// they are in an unusual place.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a complete platform on this machine, ready to send.
    ///
    /// Builds postrider and runs `postrider dev`: a private PostgreSQL cluster, an account, a key,
    /// a verified sandbox domain and a sandbox that behaves like real mail providers. Nothing
    /// needs configuring; Ctrl-C stops it, data is kept for the next start.
    #[command(after_help = "Example: cargo xtask dev -- --help")]
    Dev(Forwarded),
    /// Run the tests against a real PostgreSQL, Redis and mail servers.
    ///
    /// Unpacks Postfix, Exim, OpenSMTPD, OpenDKIM, Prometheus and Chromium into target/peers (nothing
    /// is installed; skipped loudly where apt is absent), builds postrider, then runs all tests with
    /// cargo-nextest if it is there, else with cargo test. The first build takes about 5 to 8
    /// minutes on 2 cores.
    #[command(
        after_help = "Examples:\n  cargo xtask test                 everything but the fault runs\n  \
                            cargo xtask test greylist shape  tests whose names contain one of these\n  \
                            cargo xtask test faults          everything, fault runs included"
    )]
    Test(TestArgs),
    /// Measure how much one machine sends, and what others send on it.
    ///
    /// Builds an optimised postrider (10 to 30 minutes the first time), runs every row of the table
    /// one after another, about an hour and a half by the length of its runs, and prints the
    /// figures, what each process costs, and which of our bars are met. Every row starts what it needs on loopback and stops
    /// it: ourselves with a private PostgreSQL, Redis, load generator and sink; Postfix with
    /// OpenDKIM from target/peers (as root); KumoMTA if POSTRIDER_BENCH_KUMOD names its program.
    /// Rows that cannot run here are skipped loudly.
    ///
    /// With arguments after two dashes it runs only `postrider bench --self-contained` with them.
    #[command(after_help = "Examples:\n  \
                      cargo xtask bench --quick                      everything works, in some minutes\n  \
                      cargo xtask bench --json before.json\n  \
                      cargo xtask bench --compare before.json --rows http-single,webhook\n  \
                      cargo xtask bench -- --mode http-batch --seconds 10\n  \
                      cargo xtask bench -- --help")]
    Bench(bench::BenchArgs),
    /// Write openapi.yaml from the routes, or check that it is current.
    Openapi {
        /// Change nothing; fail if openapi.yaml differs from what the routes say.
        #[arg(long)]
        check: bool,
    },
    /// Check the project's own rules, those that no compiler knows.
    ///
    /// One crypto library; every file says what it is for; SQL only in `store`; no clock but
    /// service::clock; layers; sizes. Each finding names the file, the line and what to do.
    Tidy,
    /// Find or install what tests and `dev` need, unpack the other servers of the tests.
    Bootstrap,
}

#[derive(Args)]
struct Forwarded {
    /// Passed on to postrider as they are.
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

#[derive(Args)]
struct TestArgs {
    /// Run only tests whose names contain one of these. The word `faults` runs the
    /// scenarios that kill processes at their full length (POSTRIDER_FULL=1; minutes longer).
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Outcome {
    match task {
        Task::Dev(forwarded) => build::dev(&forwarded.args),
        Task::Test(test) => build::test(&test.filters),
        Task::Bench(args) => build::bench(&args),
        Task::Openapi { check } => openapi::run(check),
        Task::Tidy => tidy::run(),
        Task::Bootstrap => {
            let (tools, peers) = (bootstrap::ensure()?, peers::ensure()?);
            println!("{tools}\nMail servers for tests: {}", peers.display());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_after_two_dashes_are_passed_on() {
        let cli = Cli::try_parse_from(["cargo xtask", "dev", "--", "--port", "1"]).unwrap();
        assert!(matches!(cli.task, Task::Dev(Forwarded { args }) if args == ["--port", "1"]));
    }
}
