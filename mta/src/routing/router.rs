//! The router: from a recipient's domain to hosts, from a host to addresses.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mail::domain_name::DomainName;
use mail::judge::Failure;
use moka::future::Cache;

use super::address::is_forbidden;
use super::cache::{Known, new_cache};
use super::config::{RoutingConfig, RoutingConfigError};
use super::dns::{Dns, Found, Missing, Mx};
use super::host_port::RoutePattern;
use super::route::{Route, RouteFailure, RouteHost};

/// Addresses of one host and family that are used at most.
const ADDRESSES_MAX: usize = 8;

/// Finds routes; made once and shared.
#[derive(Debug)]
pub struct Router {
    by_domain: HashMap<DomainName, Arc<Route>>,
    for_all: Option<Arc<Route>>,
    /// None: offline.
    dns: Option<Dns>,
    cache: Cache<DomainName, Known>,
    config: RoutingConfig,
}

impl Router {
    /// Builds a router; asks nothing yet.
    ///
    /// # Errors
    /// See [`RoutingConfigError`].
    pub fn new(config: RoutingConfig) -> Result<Self, RoutingConfigError> {
        let checks = [
            ("mx_hosts_max", config.mx_hosts_max),
            ("lookups_max", config.lookups_max),
            ("smtp_port", config.smtp_port.into()),
        ];
        if let Some((name, _)) = checks.into_iter().find(|(_, value)| *value == 0) {
            return Err(RoutingConfigError::Zero(name));
        }
        let mut by_domain = HashMap::new();
        let mut for_all = None;
        for (pattern, target) in &config.routes {
            let route = Arc::new(Route::of_static(target));
            let duplicate = match pattern {
                RoutePattern::Any => for_all.replace(route).is_some(),
                RoutePattern::Domain(domain) => match by_domain.entry(domain.clone()) {
                    Entry::Occupied(_) => true,
                    Entry::Vacant(vacant) => {
                        vacant.insert(route);
                        false
                    }
                },
            };
            if duplicate {
                return Err(RoutingConfigError::DuplicateRoute(pattern.clone()));
            }
        }
        let dns = if config.offline {
            None
        } else {
            Some(Dns::new(&config)?)
        };
        Ok(Self {
            by_domain,
            for_all,
            dns,
            cache: new_cache(),
            config,
        })
    }

    /// Where mail for `domain` goes, from the static routes, memory, or DNS.
    ///
    /// # Errors
    /// Final: `NoSuchDomain`, `NoMailHost`, `NullMx`. Not final: `DnsTrouble`, also for a domain
    /// without a static route on a node that is offline: only that domain has to wait.
    pub async fn route(&self, domain: &DomainName) -> Result<Arc<Route>, RouteFailure> {
        if let Some(route) = self.by_domain.get(domain).or(self.for_all.as_ref()) {
            return Ok(Arc::clone(route));
        }
        let Some(dns) = &self.dns else {
            return Err(RouteFailure::new(
                Failure::DnsTrouble,
                format!(
                    "no route for {domain}: this node is offline, dev never sends to the internet"
                ),
            ));
        };
        let known = self
            .cache
            .get_with_by_ref(domain, self.look_up(dns, domain))
            .await;
        known.route
    }

    /// RFC 5321 section 5.1: MX records, and only when there are none, the domain itself.
    async fn look_up(&self, dns: &Dns, domain: &DomainName) -> Known {
        let (route, ttl) = match dns.mx(domain.as_str()).await {
            Ok(found) => (self.mx_route(domain, &found.records), found.ttl),
            Err(Missing::NoRecords { .. }) => self.implicit_mx(dns, domain).await,
            Err(Missing::NoName { ttl }) => {
                let detail = format!("{domain} does not exist (NXDOMAIN)");
                (Err(RouteFailure::new(Failure::NoSuchDomain, detail)), ttl)
            }
            Err(Missing::Trouble(why)) => {
                let detail = format!("MX records of {domain} cannot be looked up: {why}");
                (
                    Err(RouteFailure::new(Failure::DnsTrouble, detail)),
                    Duration::ZERO,
                )
            }
        };
        Known::new(route.map(Arc::new), ttl)
    }

    /// Hosts of an MX set. However useless the set is, the domain's own address takes no mail:
    /// RFC 5321 section 5.1 forbids it.
    fn mx_route(&self, domain: &DomainName, records: &[Mx]) -> Result<Route, RouteFailure> {
        // RFC 7505 section 3. Beside other records a null MX means nothing.
        if records.iter().all(|(_, name)| name == ".") {
            let detail = format!("{domain} takes no mail (null MX)");
            return Err(RouteFailure::new(Failure::NullMx, detail));
        }
        let hosts: Vec<_> = records
            .iter()
            .filter(|(_, name)| is_host_name(name))
            .map(|(preference, name)| self.host(name, *preference))
            .collect();
        if hosts.is_empty() {
            let detail = format!("no MX record of {domain} has a usable host name");
            return Err(RouteFailure::new(Failure::NoMailHost, detail));
        }
        Ok(Route::of_hosts(hosts, self.config.mx_hosts_max))
    }

    /// Both families are asked for, also on a node without IPv6: a domain that has only the other
    /// one is out of reach, not without a host.
    async fn implicit_mx(
        &self,
        dns: &Dns,
        domain: &DomainName,
    ) -> (Result<Route, RouteFailure>, Duration) {
        let name = domain.as_str();
        let (v4, v6) = tokio::join!(dns.ipv4(name), dns.ipv6(name));
        match either(v4, v6) {
            Ok(found) => {
                let route = Route::of_hosts(vec![self.host(name, 0)], self.config.mx_hosts_max);
                (Ok(route), found.ttl)
            }
            Err(Missing::Trouble(why)) => {
                let detail = format!("addresses of {domain} cannot be looked up: {why}");
                (
                    Err(RouteFailure::new(Failure::DnsTrouble, detail)),
                    Duration::ZERO,
                )
            }
            Err(Missing::NoName { ttl } | Missing::NoRecords { ttl }) => {
                let detail = format!("{domain} has neither MX nor address records");
                (Err(RouteFailure::new(Failure::NoMailHost, detail)), ttl)
            }
        }
    }

    fn host(&self, name: &str, preference: u16) -> RouteHost {
        RouteHost {
            name: name.to_owned(),
            port: self.config.smtp_port,
            preference,
            is_static: false,
        }
    }

    /// The addresses of a route's host, IPv4 first, at most eight a family.
    ///
    /// # Errors
    /// About this host only, another host of the route may do: `NoMailHost` when it has no
    /// address, `ForbiddenAddress` when it has none that may be connected to, `Unreachable` when
    /// it has only IPv6 and this node does not, `DnsTrouble`. An operator's host that cannot be
    /// resolved is always `DnsTrouble`: no mail bounces for a mistake in a configuration.
    pub async fn addresses(&self, host: &RouteHost) -> Result<Vec<SocketAddr>, RouteFailure> {
        if host.is_static {
            return self.static_addresses(host).await;
        }
        let Some(dns) = &self.dns else {
            let detail = format!("{} is not looked up: this node is offline", host.name);
            return Err(RouteFailure::new(Failure::DnsTrouble, detail));
        };
        let found = dns_addresses(dns, host).await?.records;
        let allowed: Vec<_> = found
            .iter()
            .copied()
            .filter(|address| self.config.allow_private || !is_forbidden(*address))
            .collect();
        if allowed.is_empty() {
            let detail = format!("{} has only private or reserved addresses", host.name);
            return Err(RouteFailure::new(Failure::ForbiddenAddress, detail));
        }
        let usable = self.with_port(allowed, host.port);
        if usable.is_empty() {
            let detail = format!(
                "{} has only IPv6 addresses, which this node cannot use",
                host.name
            );
            return Err(RouteFailure::new(Failure::Unreachable, detail));
        }
        Ok(usable)
    }

    async fn static_addresses(&self, host: &RouteHost) -> Result<Vec<SocketAddr>, RouteFailure> {
        if let Ok(address) = host.name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, host.port)]);
        }
        let resolved = match (&self.dns, &self.config.nameservers) {
            (Some(dns), Some(_)) => dns_addresses(dns, host)
                .await
                .map(|found| found.records)
                .map_err(|failure| failure.detail),
            // The operator's names mean what they mean on this machine: hosts file, search list.
            _ => self.system_addresses(host).await,
        };
        let usable = resolved.map(|addresses| self.with_port(addresses, host.port));
        match usable {
            Ok(usable) if !usable.is_empty() => Ok(usable),
            Ok(_) => Err("it has only IPv6 addresses, which this node cannot use".to_owned()),
            Err(why) => Err(why),
        }
        .map_err(|why| {
            let detail = format!("static route to {}: {why}", host.name);
            RouteFailure::new(Failure::DnsTrouble, detail)
        })
    }

    async fn system_addresses(&self, host: &RouteHost) -> Result<Vec<IpAddr>, String> {
        let lookup = tokio::net::lookup_host((host.name.as_str(), host.port));
        let found = tokio::time::timeout(self.config.timeouts.whole, lookup)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(found.map(|address| address.ip()).collect())
    }

    fn with_port(&self, mut addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
        addresses.retain(|address| self.config.ipv6 || address.is_ipv4());
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
        let of_family = |family: Vec<IpAddr>| family.into_iter().take(ADDRESSES_MAX);
        of_family(v4)
            .chain(of_family(v6))
            .map(|address| SocketAddr::new(address, port))
            .collect()
    }
}

async fn dns_addresses(dns: &Dns, host: &RouteHost) -> Result<Found<IpAddr>, RouteFailure> {
    let (v4, v6) = tokio::join!(dns.ipv4(&host.name), dns.ipv6(&host.name));
    either(v4, v6).map_err(|missing| match missing {
        Missing::NoName { .. } => {
            let detail = format!("mail host {} does not exist (NXDOMAIN)", host.name);
            RouteFailure::new(Failure::NoMailHost, detail)
        }
        Missing::NoRecords { .. } => {
            let detail = format!("mail host {} has no address", host.name);
            RouteFailure::new(Failure::NoMailHost, detail)
        }
        Missing::Trouble(why) => {
            let detail = format!("addresses of {} cannot be looked up: {why}", host.name);
            RouteFailure::new(Failure::DnsTrouble, detail)
        }
    })
}

/// Both families together. One that has addresses makes up for trouble with the other; without
/// addresses, trouble counts for more than absence, because absence is final.
fn either(
    v4: Result<Found<IpAddr>, Missing>,
    v6: Result<Found<IpAddr>, Missing>,
) -> Result<Found<IpAddr>, Missing> {
    match (v4, v6) {
        (Ok(mut v4), Ok(v6)) => {
            v4.records.extend(v6.records);
            v4.ttl = v4.ttl.min(v6.ttl);
            Ok(v4)
        }
        (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
        (Err(trouble @ Missing::Trouble(_)), Err(_)) => Err(trouble),
        (Err(_), Err(v6)) => Err(v6),
    }
}

/// Letters, digits, hyphen, dot, and the underscore that some mail hosts have against RFC 1123.
/// Anything else in an exchange is no name of a host, and would spoil keys and logs.
fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}
