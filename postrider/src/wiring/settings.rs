//! The configuration, translated for each role. Values in, values out: opens nothing but the file
//! of return path keys.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use api::{ApiConfig, RateLimits};
use mail::domain_name::DomainName;
use mail::verp::VerpKey;
use mta::journal::JournalConfig;
use mta::routing::{RoutingConfig, parse_route};
use mta::smtp::Deadlines;
use mta::{EgressSource, MtaConfig, MtaLimits, ReturnPath};
use service::config::{Config, DeadlinesConfig};
use service::resolver::Resolver;

use super::secrets;

/// The queue group that the schema knows.
const DEFAULT_GROUP: (&str, i16) = ("default", 0);
/// Until the store has given it one.
const NO_NUMBER: i32 = 0;

/// What the command knows and the configuration does not say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Nothing is looked up in DNS: mail goes to static routes only.
    pub(crate) offline: bool,
    /// Opens the inbox of the sandbox.
    pub(crate) inbox_token: Option<String>,
    /// The API answers operators' addresses too.
    pub(crate) operator_routes_on_api: bool,
    /// Domain time follows a file of a test.
    pub(crate) test_clock: bool,
}

/// Settings of the HTTP interface that listens on `bound`.
pub(crate) fn api(config: &Config, around: &Surroundings) -> ApiConfig {
    ApiConfig {
        body_max_octets: config.api.max_body_bytes.get(),
        public_url: config
            .api
            .public_url
            .to_string()
            .trim_end_matches('/')
            .to_owned(),
        sandbox_available: true,
        inbox_token: around.inbox_token.clone(),
        docs: config.api.docs,
        // The worker checks the address of every call; here only the spelling is judged.
        allow_insecure_webhooks: config.worker.allow_insecure_webhooks,
        webhook_allowed_networks: config.worker.webhook_allowed_networks.clone(),
        return_path_domain: return_path_domain(config),
        webhook_ports: config.worker.webhook_ports.clone(),
        operator_routes: around.operator_routes_on_api,
        trusted_proxies: config.api.trusted_proxies.clone(),
        rate_limits: rate_limits(&config.api),
        ..ApiConfig::default()
    }
}

fn rate_limits(config: &service::config::ApiConfig) -> RateLimits {
    let limits = &config.rate_limits;
    RateLimits {
        account_per_second: limits.account_per_second,
        account_burst: limits.account_burst,
        key_per_second: limits.key_per_second,
        key_burst: limits.key_burst,
        wrong_keys_per_second: limits.wrong_keys_per_second,
        wrong_keys_burst: limits.wrong_keys_burst,
        nodes_expected: config.nodes_expected,
    }
}

/// Settings of an MTA node whose sandbox listens on `sandbox`.
///
/// # Errors
/// A key that sending needs is missing or cannot be used.
pub(crate) fn mta(
    config: &Config,
    around: &Surroundings,
    sandbox: Option<SocketAddr>,
) -> anyhow::Result<MtaConfig> {
    Ok(MtaConfig {
        node_name: node_name(config),
        queue_group: queue_group(&config.node.group)?,
        state_dir: config.node.state_dir.clone(),
        journal: JournalConfig::default(),
        lease_ttl: config.mta.lease_ttl_secs.duration(),
        ambiguous_hold: config.mta.ambiguous_hold_secs.duration(),
        sources: sources(config),
        routing: routing(config, around)?,
        sandbox,
        return_path: return_path(config)?,
        deadlines: deadlines(&config.mta.deadlines),
        limits: MtaLimits {
            connections_per_path: count(config.mta.max_connections_per_site.get()),
            connections: count(config.mta.max_connections.get()),
            idle: config.mta.deadlines.idle_secs.duration(),
            ..MtaLimits::default()
        },
        real_time: !around.test_clock,
    })
}

/// Every key that keeps [`mta`] from working, with the reason.
pub(super) fn mta_problems(
    config: &Config,
    around: &Surroundings,
) -> Vec<(&'static str, anyhow::Error)> {
    let checked = [
        ("node.group", queue_group(&config.node.group).err()),
        ("mta.routes", routing(config, around).err()),
        (
            "return_path.domain",
            required_return_path_domain(config).err(),
        ),
        (
            "return_path.keys_file",
            required_return_path_key(config).err(),
        ),
    ];
    let wrong = checked.into_iter();
    wrong
        .filter_map(|(key, error)| Some((key, error?)))
        .collect()
}

/// Name of this node for people: as configured, or the host's.
pub(crate) fn node_name(config: &Config) -> String {
    config
        .node
        .name
        .as_ref()
        .map_or_else(host_name, ToString::to_string)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

fn queue_group(name: &str) -> anyhow::Result<i16> {
    if name == DEFAULT_GROUP.0 {
        return Ok(DEFAULT_GROUP.1);
    }
    bail!(
        "[node] group {name:?} does not exist: the only queue group is {:?}",
        DEFAULT_GROUP.0
    )
}

fn sources(config: &Config) -> Vec<EgressSource> {
    let ehlo = config
        .mta
        .ehlo
        .as_ref()
        .map_or_else(host_name, ToString::to_string);
    if config.mta.sources.is_empty() {
        if !ehlo.contains('.') {
            tracing::warn!(%ehlo, "receivers expect a full host name in EHLO: set [mta] ehlo");
        }
        return vec![EgressSource {
            number: NO_NUMBER,
            address: None,
            ehlo,
        }];
    }
    let source = |source: &service::config::SourceConfig| EgressSource {
        number: NO_NUMBER,
        address: Some(source.address),
        ehlo: source.ehlo.to_string(),
    };
    config.mta.sources.iter().map(source).collect()
}

fn routing(config: &Config, around: &Surroundings) -> anyhow::Result<RoutingConfig> {
    let routes = config.mta.routes.iter().map(|(domain, host)| {
        let text = format!("{domain}={host}");
        parse_route(&text).with_context(|| format!("[mta] routes: {text} cannot be used"))
    });
    Ok(RoutingConfig {
        routes: routes.collect::<Result<_, _>>()?,
        offline: around.offline,
        nameservers: (!config.dns.nameservers.is_empty()).then(|| config.dns.nameservers.clone()),
        allow_private: config.mta.allow_private_destinations,
        smtp_port: config.mta.smtp_port.get(),
        ..RoutingConfig::default()
    })
}

/// The platform's domain for bounces, where this process was told one.
pub(crate) fn return_path_domain(config: &Config) -> Option<DomainName> {
    let domain = config.return_path.domain.as_ref()?;
    DomainName::parse(&domain.to_string()).ok()
}

/// Looks at the records of sending domains; at none where this process keeps to itself.
///
/// # Errors
/// The system names no name servers, and neither does the configuration.
pub(crate) fn resolver(config: &Config, around: &Surroundings) -> anyhow::Result<Resolver> {
    if around.offline && config.dns.nameservers.is_empty() {
        return Ok(Resolver::offline());
    }
    Ok(Resolver::new(&config.dns.nameservers)?)
}

fn return_path(config: &Config) -> anyhow::Result<ReturnPath> {
    Ok(ReturnPath {
        domain: required_return_path_domain(config)?,
        key: Arc::new(required_return_path_key(config)?),
    })
}

fn required_return_path_domain(config: &Config) -> anyhow::Result<DomainName> {
    let domain = config.return_path.domain.as_ref().ok_or_else(|| {
        anyhow!(
            "[return_path] domain is not set: name the domain that bounces come back to, such as \
             bounces.example.com; its MX must point to this platform"
        )
    })?;
    DomainName::parse(&domain.to_string())
        .with_context(|| format!("[return_path] domain {domain} cannot be used"))
}

fn required_return_path_key(config: &Config) -> anyhow::Result<VerpKey> {
    let keys_file = config.return_path.keys_file.as_deref().ok_or_else(|| {
        anyhow!(
            "[return_path] keys_file is not set: name a file with 32 random octets in base64, \
             the same on all nodes"
        )
    })?;
    secrets::return_path_key(keys_file)
}

fn deadlines(config: &DeadlinesConfig) -> Deadlines {
    Deadlines {
        connect: config.connect_secs.duration(),
        greeting: config.greeting_secs.duration(),
        ehlo: config.ehlo_secs.duration(),
        starttls: config.starttls_secs.duration(),
        mail: config.mail_secs.duration(),
        rcpt: config.rcpt_secs.duration(),
        data: config.data_secs.duration(),
        data_block: config.data_block_secs.duration(),
        final_dot: config.final_dot_secs.duration(),
        quit: config.quit_secs.duration(),
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn sending() -> (Config, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("return-path.key");
        secrets::ensure_key_file(&key).unwrap();
        let mut config = Config::default();
        config.return_path.domain = Some("bounces.example.com".parse().unwrap());
        config.return_path.keys_file = Some(key);
        (config, dir)
    }

    #[test]
    fn routes_and_deadlines_reach_the_mta() {
        let (mut config, _dir) = sending();
        config.mta.routes = BTreeMap::from([
            ("*".parse().unwrap(), "127.0.0.1:2525".parse().unwrap()),
            ("a.example".parse().unwrap(), "[::1]:26".parse().unwrap()),
        ]);
        let around = Surroundings {
            offline: true,
            ..Surroundings::default()
        };
        let made = mta(&config, &around, None).unwrap();
        assert_eq!(made.routing.routes.len(), 2);
        assert!(made.routing.offline && made.real_time);
        assert_eq!(made.deadlines.final_dot.as_secs(), 600);
        assert_eq!(made.sources.len(), 1);
    }

    #[test]
    fn an_allowed_network_does_not_allow_plain_http() {
        let mut config = Config::default();
        config.worker.webhook_allowed_networks = vec!["10.0.0.0/8".parse().unwrap()];
        let made = |config: &Config| api(config, &Surroundings::default());
        assert!(!made(&config).allow_insecure_webhooks);
        config.worker.allow_insecure_webhooks = true;
        assert!(made(&config).allow_insecure_webhooks);
    }

    #[test]
    fn a_missing_key_is_named() {
        for (break_it, key) in [
            (
                (|config| config.return_path.domain = None) as fn(&mut Config),
                "[return_path] domain",
            ),
            (
                |config| config.return_path.keys_file = None,
                "[return_path] keys_file",
            ),
            (|config| config.node.group = "eu".to_owned(), "[node] group"),
        ] {
            let (mut config, _dir) = sending();
            break_it(&mut config);
            let error = mta(&config, &Surroundings::default(), None)
                .unwrap_err()
                .to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
