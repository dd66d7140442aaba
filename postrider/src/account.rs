//! `postrider account`: makes an account, keys and a domain from the command line of whoever runs
//! the platform. Asks nobody for permission: who reads the master key may do anything.

use anyhow::Context;
use api::keys::KeyMode;
use mail::domain_name::DomainName;
use serde_json::json;
use service::config::Config;
use service::shutdown::Shutdown;
use service::telemetry;

use crate::cli::AccountArgs;
use crate::output;
use crate::provision::Provisioner;
use crate::wiring::{Foundation, return_path_domain};

/// Makes what is missing and prints it as JSON.
///
/// # Errors
/// The configuration is wrong, the domain is none, or the database fails.
pub(crate) async fn run(args: AccountArgs) -> anyhow::Result<()> {
    let config = Config::load(args.config.config.as_deref())?;
    telemetry::start(&config.log)?;
    let domain = args.domain.as_deref().map(DomainName::parse).transpose();
    let domain = domain.context("--domain is not a domain name")?;
    let clock = config.open_clock(false)?;
    let foundation = Foundation::lay(&config, clock, Shutdown::new()).await?;
    let provisioner = Provisioner {
        store: &foundation.store,
        sealer: &foundation.sealer,
        clock: &foundation.clock,
    };
    let account = provisioner.account(&args.name).await?;
    let mut records = Vec::new();
    if let Some(name) = &domain {
        let made = provisioner.domain(account.no, name).await?;
        let return_path = return_path_domain(&config);
        records = provisioner.records(&made, return_path.as_ref()).await?;
    }
    let made = json!({
        "account": account.id,
        "name": account.name,
        "api_key": provisioner.new_key(account.no, KeyMode::Live).await?,
        "test_key": provisioner.new_key(account.no, KeyMode::Test).await?,
        "domain": domain.map(|name| name.to_string()),
        "dns_records": records,
    });
    output::line(&serde_json::to_string_pretty(&made)?)?;
    Ok(())
}
