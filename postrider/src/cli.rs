//! The command line, and its manual: every command and option explains itself.
//! Reads arguments only; nothing is opened or started here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use service::config::{HostPort, RouteDomain};

use crate::admin::AdminArgs;
use crate::bench::BenchArgs;
use crate::sink::SinkArgs;

/// Send email from your own servers: an HTTP API in, SMTP out, every outcome a signed webhook.
///
/// One program plays every part. `postrider dev` is a complete platform on one machine, for
/// trying and for writing code against. `postrider serve` is the real thing, in one process or in
/// many on one PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "postrider",
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 done, 1 something failed, 2 the command line or the \
                  configuration is wrong, 130 stopped by a second signal.\n\
                  Results go to standard output, logs to standard error."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a complete platform on this machine, with nothing to configure.
    ///
    /// Starts a private PostgreSQL from the programs installed here, all roles in one process, an
    /// account with API keys, a verified domain to send from, and a sandbox that receives mail and
    /// behaves like real mail providers. Prints commands to try. Mail leaves this machine only
    /// where --route says so; without it nothing is ever sent to the internet.
    ///
    /// Data and keys stay in the data directory and are there at the next start. Ctrl-C stops
    /// everything.
    #[command(after_help = "Examples:\n  \
                      postrider dev\n  \
                      postrider dev --data-dir ./pr --listen 127.0.0.1:9000\n  \
                      postrider dev --route '*=127.0.0.1:1025'        everything to a local mail catcher\n  \
                      postrider dev --json | head -1 | jq -r .api_key   for scripts")]
    Dev(DevArgs),
    /// Run one or more roles until a signal.
    ///
    /// api takes mail in over HTTP, mta sends it, worker calls webhooks and keeps the database in
    /// shape. A process may play any of them; any number of processes work on one PostgreSQL, and
    /// wake each other over Redis if there is one. Each process with the role mta or worker needs
    /// a state directory of its own, on a local disk ([node] state_dir).
    ///
    /// On SIGTERM or SIGINT the API stops accepting, requests and SMTP transactions under way end,
    /// outcomes are stored, and the rest of the queue is left to others. A second signal leaves at
    /// once; nothing accepted is lost by that either.
    #[command(after_help = "Examples:\n  \
                      postrider migrate --config /etc/postrider.toml\n  \
                      postrider serve --config /etc/postrider.toml --roles api,mta,worker\n  \
                      postrider serve --config /etc/postrider.toml --check-config")]
    Serve(ServeArgs),
    /// Bring the database to the schema of this version.
    ///
    /// Applies the migrations that are missing, in order and forward only, and makes the
    /// partitions of the coming week. Safe to repeat, and safe to run from several places at once.
    /// Run it before a new version is started.
    #[command(after_help = "Example: postrider migrate --config /etc/postrider.toml")]
    Migrate(ConfigArgs),
    /// Make an account, or add to one: API keys, a verified sending domain.
    ///
    /// Prints JSON with what was made. Keys are shown this once and cannot be read again. The
    /// domain is taken as verified on the operator's word; its DNS records are printed.
    /// Needs the database and the master key of the configuration, no running process.
    #[command(
        after_help = "Example: postrider account --config /etc/postrider.toml --name acme --domain mail.acme.example"
    )]
    Account(AccountArgs),
    /// Set up and look at accounts, keys, domains, pools and sources, as the operator.
    ///
    /// Works on the database of the configuration and needs its master key, but no running
    /// process; running ones see changes within 10 seconds. Prints a table, or with --json an
    /// object or array. After `postrider migrate`, these three bring a new installation to its
    /// first mail:
    ///
    /// postrider admin account create acme;
    /// postrider admin domain create mail.acme.example --account acme;
    /// postrider admin key create --account acme
    #[command(after_help = "Examples:\n  \
                      postrider admin --config /etc/postrider/postrider.toml account create acme\n  \
                      postrider admin key create --account acme --scope emails:send\n  \
                      postrider admin key list --json\n\n\
                      Without --config the file is that of the variable POSTRIDER_CONFIG.")]
    Admin(AdminArgs),
    /// Print the HTTP contract (OpenAPI, YAML).
    #[command(after_help = "Example: postrider openapi > openapi.yaml")]
    Openapi,
    #[command(after_help = "Examples:\n  \
                      postrider sink --listen 127.0.0.1:2525 --http 127.0.0.1:8026\n  \
                      postrider sink --latency exp:50ms --replies '451 4.7.1 later=5%' --starttls\n  \
                      postrider sink --reply 250:95%,450:3%,550:2% --domain slow.test=tarpit:10s")]
    Sink(SinkArgs),
    #[command(after_help = "Examples:\n  \
                      postrider bench --self-contained --messages 20000\n  \
                      postrider bench --self-contained --rate 500 --seconds 60 --json result.json\n  \
                      postrider bench --self-contained --mode http-batch --webhook --runs 5\n  \
                      postrider bench --self-contained --accept-only --one-by-one\n  \
                      postrider bench --target http://127.0.0.1:8025 --key pr_test_... --from hello@sandbox.test")]
    Bench(Box<BenchArgs>),
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file (TOML); without it, defaults and POSTRIDER_* variables
    ///
    /// Every key can also be set in the environment, which wins: [api] listen is
    /// POSTRIDER_API__LISTEN. The keys are explained in deploy/config/default.toml.
    #[arg(long, value_name = "FILE", env = "POSTRIDER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// What this process does
    #[arg(
        long,
        value_name = "ROLE,...",
        value_delimiter = ',',
        default_value = "api,mta,worker"
    )]
    pub(crate) roles: Vec<Role>,

    /// Allow [test] clock_file, which moves this process's time. For tests only
    #[arg(long)]
    pub(crate) test_clock: bool,

    /// Check the configuration, print every mistake, start nothing
    #[arg(long)]
    pub(crate) check_config: bool,

    /// Print one line of JSON on standard output when ready, with the bound addresses
    ///
    /// {"api","sandbox_smtp","metrics","pid"}; what this process does not serve is null.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The HTTP interface.
    Api,
    /// Sending by SMTP.
    Mta,
    /// Webhooks and upkeep.
    Worker,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AccountArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Name of the account; made if there is none of that name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,

    /// Domain the account may send from, with a DKIM key of its own
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DevArgs {
    /// Where data and keys are kept between starts
    ///
    /// Default: ~/.local/share/postrider-dev, or /var/lib/postrider-dev for root. One process at a
    /// time. Started as root, PostgreSQL runs as another user, who must be able to reach it.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Where the HTTP interface listens; port 0 takes free ports for everything
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8025")]
    pub(crate) listen: SocketAddr,

    /// Print one line of JSON when ready, instead of commands to try
    ///
    /// {"api_url","api_key","test_key","sandbox_domain","sandbox_smtp","inbox_url","metrics_url",
    /// "data_dir"}
    #[arg(long)]
    pub(crate) json: bool,

    /// Send mail for DOMAIN (or '*': every other domain) to one SMTP host; may be repeated
    #[arg(long = "route", value_name = "DOMAIN=HOST:PORT", value_parser = parse_route)]
    pub(crate) routes: Vec<(RouteDomain, HostPort)>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

fn parse_route(text: &str) -> Result<(RouteDomain, HostPort), String> {
    let (domain, host) = text
        .split_once('=')
        .ok_or("write DOMAIN=HOST:PORT, for example '*=127.0.0.1:1025'")?;
    Ok((domain.parse()?, host.parse()?))
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
    fn roles_and_routes_are_read() {
        let cli = Cli::try_parse_from(["postrider", "serve", "--roles", "mta,worker"]).unwrap();
        assert!(
            matches!(cli.command, Command::Serve(args) if args.roles == [Role::Mta, Role::Worker])
        );
        let dev = [
            "postrider",
            "dev",
            "--route",
            "*=127.0.0.1:25",
            "--route",
            "a.test=[::1]:26",
        ];
        let Command::Dev(args) = Cli::try_parse_from(dev).unwrap().command else {
            panic!()
        };
        assert_eq!(args.routes[0].0, RouteDomain::Any);
        assert_eq!(args.routes[1].1.to_string(), "[::1]:26");
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for wrong in [
            &["serve", "--roles", "cook"][..],
            &["dev", "--route", "a.test"],
            &["dev", "--route", "a.test=host"],
            &["dev", "--listen", "here"],
            &["account"],
        ] {
            let args = ["postrider"].iter().chain(wrong);
            assert!(Cli::try_parse_from(args).is_err(), "{wrong:?}");
        }
    }
}
