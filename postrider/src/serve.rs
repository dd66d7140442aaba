//! `postrider serve`: one process of a platform, with the roles it was given, until a signal.

use std::path::Path;

use anyhow::Context;
use serde_json::json;
use service::config::{Config, ConfigError};
use service::shutdown::Shutdown;
use service::telemetry;

use crate::cli::ServeArgs;
use crate::output;
use crate::wiring::{self, BusyPort, Foundation, Listeners, Platform, Roles, Surroundings};

/// Runs the roles until SIGTERM or SIGINT; with `--check-config` only checks.
///
/// # Errors
/// The configuration is wrong, something it names cannot be reached, or a role failed.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let file = args.config.config.as_deref();
    let roles = Roles::of(&args.roles);
    let around = Surroundings {
        test_clock: args.test_clock,
        ..Surroundings::default()
    };
    if args.check_config {
        return check(file, roles, &around);
    }
    let config = Config::load(file)?;
    let clock = config.open_clock(args.test_clock)?;
    telemetry::start(&config.log)?;
    let shutdown = Shutdown::new();
    shutdown
        .follow_signals()
        .context("could not listen to signals")?;

    wiring::check(&config, roles, &around)?;
    let foundation = Foundation::lay(&config, clock, shutdown).await?;
    let listeners = Listeners::bind(&config, roles, BusyPort::Fail, "[api] listen").await?;
    let platform = Platform::start(&config, roles, &around, foundation, listeners).await?;
    announce(&platform, args.json)?;
    platform.finish().await?;
    tracing::info!("stopped; outcomes that are not settled are in the journal");
    Ok(())
}

/// All mistakes at once, also those that only this role or that would notice.
fn check(file: Option<&Path>, roles: Roles, around: &Surroundings) -> anyhow::Result<()> {
    let (config, mut problems) = Config::inspect(file, around.test_clock)?;
    for problem in wiring::problems(&config, roles, around) {
        // A value that does not even parse was left out, and is not missing.
        if !problems.iter().any(|known| known.key == problem.key) {
            problems.push(problem);
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError::Problems(problems).into());
    }
    output::line("the configuration is right")?;
    Ok(())
}

fn announce(platform: &Platform, as_json: bool) -> anyhow::Result<()> {
    let bound = platform.addresses();
    tracing::info!(
        api = bound.api.map(tracing::field::display),
        sandbox_smtp = bound.sandbox_smtp.map(tracing::field::display),
        metrics = %bound.metrics,
        "ready"
    );
    if as_json {
        let ready = json!({
            "api": bound.api,
            "sandbox_smtp": bound.sandbox_smtp,
            "metrics": bound.metrics,
            "pid": std::process::id(),
        });
        output::line(&ready.to_string())?;
    }
    Ok(())
}
