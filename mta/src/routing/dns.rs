//! DNS questions with answers in our words: records with how long they are good for, or one of
//! three ways to have none. The only file that knows the resolver library.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::Semaphore;

use super::cache::{NEGATIVE_TTL_MIN, TTL_MAX, TTL_MIN};
use super::config::{RoutingConfig, RoutingConfigError};

/// Records and how long they may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub(super) records: Vec<T>,
    pub(super) ttl: Duration,
}

/// Why there are no records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// NXDOMAIN.
    NoName { ttl: Duration },
    /// The name has no records of this type.
    NoRecords { ttl: Duration },
    /// DNS could not tell.
    Trouble(String),
}

/// One MX record: preference, and the host's name as text, `.` for the null MX.
pub(super) type Mx = (u16, String);

/// The resolver with its bounds.
#[derive(Debug)]
pub(super) struct Dns {
    resolver: TokioResolver,
    turns: Semaphore,
    whole: Duration,
}

impl Dns {
    pub(super) fn new(config: &RoutingConfig) -> Result<Self, RoutingConfigError> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = match &config.nameservers {
            Some(servers) if servers.is_empty() => return Err(RoutingConfigError::NoNameServers),
            Some(servers) => TokioResolver::builder_with_config(resolver_config(servers), provider),
            None => TokioResolver::builder_tokio().map_err(RoutingConfigError::System)?,
        };
        set_options(builder.options_mut(), config);
        Ok(Self {
            resolver: builder.build().map_err(RoutingConfigError::Resolver)?,
            turns: Semaphore::new(config.lookups_max),
            whole: config.timeouts.whole,
        })
    }

    pub(super) async fn mx(&self, domain: &str) -> Result<Found<Mx>, Missing> {
        self.lookup(domain, RecordType::MX, |data| match data {
            RData::MX(mx) => Some((mx.preference, text_of(&mx.exchange))),
            _ => None,
        })
        .await
    }

    pub(super) async fn ipv4(&self, host: &str) -> Result<Found<IpAddr>, Missing> {
        self.lookup(host, RecordType::A, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        })
        .await
    }

    pub(super) async fn ipv6(&self, host: &str) -> Result<Found<IpAddr>, Missing> {
        self.lookup(host, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .await
    }

    async fn lookup<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Found<T>, Missing> {
        // With the last dot: the search list of the machine has no place in mail routing.
        let name = Name::from_ascii(format!("{name}."))
            .map_err(|error| Missing::Trouble(format!("{name} cannot be asked for: {error}")))?;
        let answer = tokio::time::timeout(self.whole, async {
            let _turn = self.turns.acquire().await.ok();
            self.resolver.lookup(name, kind).await
        })
        .await;
        let lookup = match answer {
            Ok(Ok(lookup)) => lookup,
            Ok(Err(error)) => return Err(missing(error)),
            Err(_) => return Err(Missing::Trouble("no answer in time".to_owned())),
        };
        let ttl = lookup
            .valid_until()
            .saturating_duration_since(Instant::now());
        let records: Vec<T> = lookup
            .answers()
            .iter()
            .filter_map(|record| pick(&record.data))
            .collect();
        if records.is_empty() {
            return Err(empty(&lookup, ttl));
        }
        Ok(Found { records, ttl })
    }
}

/// An answer of aliases only, which lead nowhere.
fn empty(lookup: &Lookup, ttl: Duration) -> Missing {
    if lookup.message().response_code == ResponseCode::NXDomain {
        Missing::NoName { ttl }
    } else {
        Missing::NoRecords { ttl }
    }
}

fn missing(error: NetError) -> Missing {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
            match none.response_code {
                ResponseCode::NXDomain => Missing::NoName { ttl },
                ResponseCode::NoError => Missing::NoRecords { ttl },
                code => Missing::Trouble(format!("the name server answered {code}")),
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Missing::Trouble(format!("the name server answered {code}"))
        }
        NetError::Timeout => Missing::Trouble("no answer in time".to_owned()),
        other => Missing::Trouble(other.to_string()),
    }
}

/// Lower case without the last dot; `.` for the root.
fn text_of(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    match text.strip_suffix('.') {
        Some("") | None => text,
        Some(rest) => rest.to_owned(),
    }
}

fn resolver_config(servers: &[SocketAddr]) -> ResolverConfig {
    let on_port = |mut connection: ConnectionConfig, port| {
        connection.port = port;
        connection
    };
    let servers = servers
        .iter()
        .map(|server| {
            let connections = vec![
                on_port(ConnectionConfig::udp(), server.port()),
                on_port(ConnectionConfig::tcp(), server.port()),
            ];
            NameServerConfig::new(server.ip(), true, connections)
        })
        .collect();
    ResolverConfig::from_name_servers(servers)
}

fn set_options(options: &mut ResolverOpts, config: &RoutingConfig) {
    options.timeout = config.timeouts.query;
    options.attempts = config.timeouts.retries;
    options.max_active_requests = config.lookups_max * 2;
    // Where mail goes is for the public DNS to say, not for a file on this machine.
    options.use_hosts_file = ResolveHosts::Never;
    // Addresses are cached in here, within the same bounds as our routes.
    options.cache_size = 65_536;
    options.positive_min_ttl = Some(TTL_MIN);
    options.positive_max_ttl = Some(TTL_MAX);
    options.negative_min_ttl = Some(NEGATIVE_TTL_MIN);
    options.negative_max_ttl = Some(TTL_MAX);
}
