//! `postrider dev`: a complete platform on one machine, from nothing. Puts together what `serve`
//! needs (database, keys, an account, a domain, routes) and then runs the same roles.

mod data_dir;
mod welcome;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use api::keys::KeyMode;
use mail::domain_name::DomainName;
use service::config::{Config, Host, HostName, HostPort, RouteDomain};
use service::pg_cluster::{ClusterOptions, Durability, PgCluster, default_base_dir};
use service::shutdown::Shutdown;
use service::telemetry;
use store::Store;

use crate::cli::DevArgs;
use crate::output;
use crate::provision::Provisioner;
use crate::wiring::{BusyPort, Foundation, Listeners, Platform, Roles, Surroundings, secrets};
use data_dir::{DataDir, DevKeys};
use welcome::Welcome;

const DATABASE: &str = "postrider";
const ACCOUNT: &str = "dev";
/// Whom webhooks may call from a developer's machine: itself, its containers, its own network.
const WEBHOOK_NETWORKS: [&str; 5] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
];

/// Runs the platform until Ctrl-C.
///
/// # Errors
/// The data directory is in use or not usable, PostgreSQL cannot be started, a port is taken, or
/// a role failed.
pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let config = Config::load(args.config.config.as_deref())?;
    telemetry::start(&config.log)?;
    let shutdown = Shutdown::new();
    shutdown
        .follow_signals()
        .context("could not listen to signals")?;
    let dir = args.data_dir.clone().map_or_else(default_base_dir, Ok)?;
    let data = DataDir::open(&dir)?;
    let cluster = start_postgres(data.postgres()).await?;
    let served = serve(&args, config, &data, &cluster, shutdown).await;
    let stopped = tokio::task::spawn_blocking(|| cluster.stop()).await?;
    served?;
    stopped.context("PostgreSQL was left running; the next start takes it over")?;
    Ok(())
}

async fn start_postgres(base_dir: PathBuf) -> anyhow::Result<PgCluster> {
    if !base_dir.join("data").exists() {
        tracing::info!("making a private PostgreSQL cluster; this happens once");
    }
    let start = move || {
        let options = ClusterOptions {
            base_dir,
            durability: Durability::Durable,
            bin_dir: None,
        };
        let cluster = PgCluster::start(options)?;
        cluster.create_database(DATABASE)?;
        Ok::<_, service::pg_cluster::PgError>(cluster)
    };
    Ok(tokio::task::spawn_blocking(start).await??)
}

/// Everything between the start and the stop of PostgreSQL.
async fn serve(
    args: &DevArgs,
    config: Config,
    data: &DataDir,
    cluster: &PgCluster,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let url = cluster.url(DATABASE);
    Store::migrate(&url)
        .await
        .context("could not migrate the private database")?;
    let keys = data.keys()?;
    let mut config = configure(args, config, data, &url)?;
    let clock = config.open_clock(false)?;
    let foundation = Foundation::lay(&config, clock, shutdown).await?;
    provision(&foundation, &config, &keys).await?;
    let setting = listen_setting(args.listen);
    let secondary = BusyPort::TakeAnother;
    let listeners = Listeners::bind(&config, Roles::ALL, secondary, &setting).await?;
    let bound = listeners.addresses()?;
    let api = bound.api.context("the API has no port")?;
    let sandbox = bound.sandbox_smtp.context("the sandbox has no port")?;
    let public_url = format!("http://{}", reachable(api));
    config.api.public_url = public_url.parse().map_err(|wrong: String| anyhow!(wrong))?;
    for domain in sandbox_domains(&config.sandbox.domain)? {
        let route = config.mta.routes.entry(RouteDomain::Only(domain));
        route.or_insert_with(|| to_address(sandbox));
    }

    let around = Surroundings {
        offline: true,
        inbox_token: Some(keys.inbox_token.clone()),
        operator_routes_on_api: true,
        test_clock: false,
    };
    let platform = Platform::start(&config, Roles::ALL, &around, foundation, listeners).await?;
    let welcome = Welcome {
        inbox_url: format!("{public_url}/inbox?token={}", keys.inbox_token),
        metrics_url: format!("http://{}/metrics", reachable(bound.metrics)),
        api_url: public_url,
        api_key: keys.api_key,
        test_key: keys.test_key,
        sandbox_domain: config.sandbox.domain.to_string(),
        sandbox_smtp: sandbox.to_string(),
        data_dir: data.path().display().to_string(),
        routes: args.routes.clone(),
    };
    let shown = if args.json {
        serde_json::to_string(&welcome)?
    } else {
        welcome.for_people()
    };
    // A reader that left after the first line is no reason to stop.
    if let Err(error) = output::line(&shown) {
        tracing::warn!(%error, "could not print the addresses");
    }
    platform.finish().await
}

/// What decides about the API's address here, with an example that is not the present one.
fn listen_setting(present: SocketAddr) -> String {
    let mut another = present;
    another.set_port(present.port().checked_add(1).unwrap_or(8025));
    format!("address: postrider dev --listen {another}")
}

/// What the file says, with everything this command decides itself.
fn configure(
    args: &DevArgs,
    mut config: Config,
    data: &DataDir,
    url: &str,
) -> anyhow::Result<Config> {
    let text = |wrong: String| anyhow!(wrong);
    config.database.url = url.parse().map_err(text)?;
    config.node.state_dir = data.node();
    config.api.listen = args.listen;
    if args.listen.port() == 0 {
        config.sandbox.listen.set_port(0);
        config.metrics.listen.set_port(0);
    }
    for address in [&mut config.sandbox.listen, &mut config.metrics.listen] {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    // What another platform's file says about the way out must not send a developer's mail.
    if !config.mta.routes.is_empty() || !config.mta.sources.is_empty() || config.redis.url.is_some()
    {
        tracing::warn!(
            "[mta] routes, [mta] sources and [redis] url are not used here; see --route"
        );
    }
    config.mta.routes = args.routes.iter().cloned().collect();
    config.mta.sources.clear();
    config.redis.url = None;
    config.worker.allow_insecure_webhooks = true;
    let sandbox = config.sandbox.domain.clone();
    if config.mta.ehlo.is_none() {
        config.mta.ehlo = Some(format!("mta.{sandbox}").parse().map_err(text)?);
    }
    config.return_path.domain = Some(format!("bounce.{sandbox}").parse().map_err(text)?);
    config.return_path.keys_file = Some(key_file(data, "return-path.key")?);
    config.secrets.master_key_file = Some(key_file(data, "master.key")?);
    for network in WEBHOOK_NETWORKS {
        config
            .worker
            .webhook_allowed_networks
            .push(network.parse().map_err(text)?);
    }
    Ok(config)
}

fn key_file(data: &DataDir, name: &str) -> anyhow::Result<PathBuf> {
    let path = data.path().join(name);
    secrets::ensure_key_file(Path::new(&path))?;
    Ok(path)
}

async fn provision(foundation: &Foundation, config: &Config, keys: &DevKeys) -> anyhow::Result<()> {
    let Foundation {
        store,
        sealer,
        clock,
        ..
    } = foundation;
    let provisioner = Provisioner {
        store,
        sealer,
        clock,
    };
    let account = provisioner.account(ACCOUNT).await?;
    for (mode, key) in [
        (KeyMode::Live, &keys.api_key),
        (KeyMode::Test, &keys.test_key),
    ] {
        provisioner.known_key(account.no, mode, key).await?;
    }
    let domain = DomainName::parse(&config.sandbox.domain.to_string())
        .context("[sandbox] domain cannot be used")?;
    provisioner.domain(account.no, &domain).await?;
    Ok(())
}

/// The sandbox's domain, and those below it that behave in a way of their own.
fn sandbox_domains(own: &HostName) -> anyhow::Result<Vec<HostName>> {
    let below = mta::sandbox::behaviours().map(|word| format!("{word}.{own}").parse());
    let below: Result<Vec<_>, String> = below.collect();
    let mut domains = below
        .map_err(|wrong| anyhow!(wrong))
        .context("[sandbox] domain is too long")?;
    domains.push(own.clone());
    Ok(domains)
}

/// An address that a client on this machine can use.
fn reachable(mut bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() {
        bound.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    bound
}

fn to_address(address: SocketAddr) -> HostPort {
    let address = reachable(address);
    HostPort {
        host: Host::Address(address.ip()),
        port: address.port(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn another_address_is_named_as_the_command_takes_it() {
        let check = |present: &str, example: &str| {
            let told = listen_setting(present.parse().unwrap());
            assert!(
                told.ends_with(&format!("postrider dev --listen {example}")),
                "{told}"
            );
        };
        check("127.0.0.1:8025", "127.0.0.1:8026");
        check("[::1]:65535", "[::1]:8025");
    }

    #[test]
    fn dev_decides_what_must_stay_on_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("dev")).unwrap();
        let line = [
            "postrider",
            "dev",
            "--listen",
            "127.0.0.1:0",
            "--route",
            "*=127.0.0.1:2500",
        ];
        let Command::Dev(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!()
        };
        let mut given = Config::default();
        given.metrics.listen = "0.0.0.0:9464".parse().unwrap();
        given.sandbox.listen = "[::]:2526".parse().unwrap();
        given.redis.url = Some("redis://other.example:6379".parse().unwrap());
        given.mta.routes.insert(
            "a.example".parse().unwrap(),
            "smart.example:25".parse().unwrap(),
        );
        let made = configure(&args, given, &data, "postgres://u@h/d").unwrap();
        assert_eq!(
            made.return_path.domain.unwrap().as_str(),
            "bounce.sandbox.test"
        );
        assert_eq!(
            (made.sandbox.listen.port(), made.metrics.listen.port()),
            (0, 0)
        );
        assert!(made.sandbox.listen.ip().is_loopback() && made.metrics.listen.ip().is_loopback());
        assert!(made.redis.url.is_none() && made.worker.allow_insecure_webhooks);
        assert_eq!(made.mta.routes.len(), 1, "those of the command line only");
        assert_eq!(
            made.mta.routes[&RouteDomain::Any].to_string(),
            "127.0.0.1:2500"
        );
        assert!(
            made.node
                .state_dir
                .starts_with(dir.path().canonicalize().unwrap())
        );
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(
            made.worker
                .webhook_allowed_networks
                .iter()
                .any(|net| net.contains(loopback))
        );
        assert!(made.secrets.master_key_file.unwrap().exists());
    }
}
