//! `postrider admin`: what an operator sets up and looks at, directly on the database. Asks nobody
//! for permission: who can read the configuration and the master key may do anything.

mod account;
mod args;
mod domain;
mod key;
mod pool;
mod show;

use anyhow::{Context, bail};
use mail::domain_name::DomainName;
use mail::ids::AccountId;
use service::config::Config;
use service::shutdown::Shutdown;
use service::telemetry;
use store::{Account, Store};

use crate::provision::Provisioner;
use crate::wiring::{Foundation, return_path_domain};
use args::Noun;

pub(crate) use args::AdminArgs;

/// Longest name of an account or pool, in characters.
const NAME_CHARS_MAX: usize = 100;

/// Runs one command and prints what it made or found.
///
/// # Errors
/// The configuration is wrong, the database fails, or what was asked for does not exist.
pub(crate) async fn run(args: AdminArgs) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref())?;
    telemetry::start(&config.log)?;
    let clock = config.open_clock(false)?;
    let foundation = Foundation::lay(&config, clock, Shutdown::new()).await?;
    let desk = Desk {
        store: &foundation.store,
        provisioner: Provisioner {
            store: &foundation.store,
            sealer: &foundation.sealer,
            clock: &foundation.clock,
        },
        return_path: return_path_domain(&config),
    };
    let shown = match args.noun {
        Noun::Account(command) => desk.account(command).await?,
        Noun::Key(command) => desk.key(command).await?,
        Noun::Domain(command) => desk.domain(command).await?,
        Noun::Pool(command) => desk.pool(command).await?,
        Noun::Source(command) => desk.source(command).await?,
    };
    shown.print(args.json)?;
    Ok(())
}

/// What the commands work with.
struct Desk<'a> {
    store: &'a Store,
    provisioner: Provisioner<'a>,
    /// The platform's domain for bounces, if the configuration names one.
    return_path: Option<DomainName>,
}

impl Desk<'_> {
    /// The account of this id or name.
    async fn find_account(&self, named: &str) -> anyhow::Result<Account> {
        let found = match named.parse::<AccountId>() {
            Ok(id) => self.store.account_by_id(id).await?,
            Err(_) => self.store.account_by_name(named).await?,
        };
        found.with_context(|| {
            format!("there is no account {named:?}: `postrider admin account list` shows them all")
        })
    }
}

/// Names go to terminals and logs of people, so they are short and hold nothing invisible.
fn check_name(name: &str) -> anyhow::Result<()> {
    let length = name.chars().count();
    if length == 0 || length > NAME_CHARS_MAX || name.trim() != name {
        bail!("a name has 1 to {NAME_CHARS_MAX} characters, and no space at its ends");
    }
    if name.chars().any(char::is_control) {
        bail!("a name has no control characters");
    }
    // Otherwise it could not be told from an id.
    if name.parse::<AccountId>().is_ok() {
        bail!("a name must not look like an account id");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_visible() {
        assert!(check_name("Zoë & Söhne").is_ok() && check_name(&"x".repeat(100)).is_ok());
        let id = format!("acc_{}", "0".repeat(26));
        for bad in ["", " a", "a\nb", "a\0", "a\u{1b}[2J", &"x".repeat(101), &id] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
