//! The command line of `postrider admin`, and its manual.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// Configuration file (TOML); without it, defaults and POSTRIDER_* variables
    #[arg(long, value_name = "FILE", env = "POSTRIDER_CONFIG", global = true)]
    pub(super) config: Option<PathBuf>,

    /// Print JSON: an object for what was made or changed, an array for a list
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(super) noun: Noun,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Noun {
    /// Accounts: the tenants that mail, keys and domains belong to
    #[command(subcommand)]
    Account(AccountCommand),
    /// API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Sending domains
    #[command(subcommand)]
    Domain(DomainCommand),
    /// Pools, which requests may name to choose the way their mail goes
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Sources: the addresses mail is sent from
    #[command(subcommand)]
    Source(SourceCommand),
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum AccountCommand {
    /// Make an account with its two streams, transactional and broadcast.
    ///
    /// It can send once it has a key (`admin key create`) and a verified domain (`POST
    /// /v1/domains`, or `admin domain create`).
    #[command(after_help = "Example: postrider admin account create acme")]
    Create {
        /// Name, not taken by another account
        name: String,
    },
    /// Show all accounts, with the number of their live keys and verified domains.
    List,
    /// Shut an account out: all its keys are refused, until it is enabled.
    ///
    /// Running processes notice within 5 seconds and answer 403 account_disabled, to keys made
    /// meanwhile as well. Mail that was accepted before is still delivered, scheduled mail too,
    /// and webhooks are still called.
    #[command(after_help = "Example: postrider admin account disable acme")]
    Disable {
        /// Name or id (acc_...)
        account: String,
    },
    /// Let an account in again that was disabled, with the keys it has.
    ///
    /// Running processes notice within 5 seconds. Keys that were revoked stay revoked.
    #[command(after_help = "Example: postrider admin account enable acme")]
    Enable {
        /// Name or id (acc_...)
        account: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum KeyCommand {
    /// Make an API key and print it. It is shown this once and cannot be read again.
    ///
    /// Without --scope it may do everything in its account.
    #[command(
        after_help = "Examples:\n  postrider admin key create --account acme\n  \
                      postrider admin key create --account acme --scope emails:send --expires-in-days 90\n  \
                      postrider admin key create --account acme --test --json | jq -r .key"
    )]
    Create {
        /// Whose: name or id (acc_...)
        #[arg(long)]
        account: String,
        /// A test key: whatever it sends ends in the sandbox
        #[arg(long)]
        test: bool,
        /// What it may do; may be repeated: emails:send, emails:read, domains:*, suppressions:*,
        /// templates:*, webhooks:*, stats:read, pools:*, keys:*, admin:*
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Let it end by itself after so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
        expires_in_days: Option<u16>,
    },
    /// Show keys by id and the end of their text, revoked ones too.
    List {
        /// Only of this account: name or id (acc_...)
        #[arg(long)]
        account: Option<String>,
    },
    /// Revoke a key. Running processes notice within 5 seconds; it cannot be undone.
    #[command(after_help = "Example: postrider admin key revoke key_01kayz...")]
    Revoke {
        /// Id, as `admin key list` shows it
        key: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum DomainCommand {
    /// Give an account a domain to send from, on the operator's word, and print its DNS records.
    ///
    /// The domain counts as verified at once: nobody is asked to prove anything. Publish the
    /// records before mail is sent: without the required one receivers will not believe the
    /// signatures, the others are recommended. They are those of POST /v1/domains; the one for the
    /// return path is there when [return_path] domain is configured. Customers who
    /// prove their domains themselves use POST /v1/domains.
    #[command(
        after_help = "Example: postrider admin domain create mail.acme.example --account acme"
    )]
    Create {
        /// Name of the domain
        domain: String,
        /// Whose: name or id (acc_...)
        #[arg(long)]
        account: String,
    },
    /// Show the domains of an account.
    List {
        /// Whose: name or id (acc_...)
        #[arg(long)]
        account: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum PoolCommand {
    /// Make a pool. A request may name it ("pool": "bulk"); its mail goes to the recipients' hosts.
    #[command(after_help = "Example: postrider admin pool create bulk")]
    Create {
        /// Name, not taken by another pool
        name: String,
    },
    /// Show all pools.
    List,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum SourceCommand {
    /// Show the addresses that nodes send or have sent from.
    ///
    /// A source belongs to the machine that has the address, so it is added there, in [mta]
    /// sources of the configuration, and is listed from the node's next start on.
    List,
}
