//! `postrider migrate`: brings the database to the schema of this version. Starts no role.

use service::config::Config;
use service::telemetry;

use crate::cli::ConfigArgs;
use crate::output;
use crate::wiring::{self, Foundation};

/// Applies what is missing, makes the coming days' partitions, and says what it did.
///
/// # Errors
/// The configuration is wrong, the database is not reachable, or a migration fails.
pub(crate) async fn run(args: ConfigArgs) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref())?;
    telemetry::start(&config.log)?;
    let applied = wiring::migrate(&config).await?;
    let clock = config.open_clock(false)?;
    let store = Foundation::connect_store(&config, "migrate").await?;
    wiring::prepare_database(&store, &clock).await?;
    if applied.is_empty() {
        output::line("the schema is up to date")?;
    }
    for migration in applied {
        output::line(&format!("applied {migration}"))?;
    }
    Ok(())
}
