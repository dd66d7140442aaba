//! The program: reads the command line, prepares what the whole process shares, and hands over to
//! one command. Decides nothing that belongs to a role.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod admin;
mod bench;
mod cli;
mod dev;
mod migrate;
mod openapi;
mod output;
mod provision;
mod serve;
mod sink;
mod wait;
mod wiring;

use std::process::ExitCode;

use clap::Parser;
use service::config::ConfigError;

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status for a wrong command line (clap's own) and for a wrong configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // Whoever comes first decides for the process; nobody comes before the first line of main.
    let _already_chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            if error.is::<ConfigError>() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Openapi => openapi::run(),
        Command::Account(args) => on_runtime(account::run(args)),
        Command::Admin(args) => on_runtime(admin::run(args)),
        Command::Migrate(args) => on_runtime(migrate::run(args)),
        Command::Serve(args) => on_runtime(serve::run(args)),
        Command::Dev(args) => on_runtime(dev::run(args)),
        Command::Bench(args) => on_runtime(bench::run(*args)),
        Command::Sink(args) => sink::run(args),
    }
}

fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    // What is still blocked (a look-up, a log on a full disk) must not keep the process alive.
    runtime.shutdown_background();
    result
}
