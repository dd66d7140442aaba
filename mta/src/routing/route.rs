//! A route: the hosts that take mail for a domain, in the order to try them. Values only.

use mail::judge::Failure;
use thiserror::Error;

use super::host_port::HostPort;
use super::site::SiteKey;

/// Hosts of one route that are kept at most; what a domain lists beyond is ignored.
const HOSTS_KEPT_MAX: usize = 64;

/// Where mail for a domain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The receiver behind the hosts: what limits attach to.
    pub site: SiteKey,
    /// At least one host, by preference, then by name.
    pub hosts: Vec<RouteHost>,
    /// The operator named the host; DNS had no say.
    pub is_static: bool,
    /// How many hosts one attempt tries.
    hosts_tried_max: usize,
}

/// One host of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteHost {
    /// Lower-case name without the last dot, or an IP address (static routes only).
    pub name: String,
    /// The port to connect to.
    pub port: u16,
    /// Lower comes first.
    pub preference: u16,
    /// The operator named it: it may have any address, also a private one.
    pub is_static: bool,
}

/// Why there is no way to a domain or host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct RouteFailure {
    /// What it means for the delivery.
    pub failure: Failure,
    /// What happened, for events and logs.
    pub detail: String,
}

impl RouteFailure {
    pub(super) fn new(failure: Failure, detail: impl Into<String>) -> Self {
        Self {
            failure,
            detail: detail.into(),
        }
    }
}

impl Route {
    /// A route over hosts found in DNS; `hosts` is not empty. The order of records in an answer
    /// changes from query to query and must not change the route.
    pub(super) fn of_hosts(mut hosts: Vec<RouteHost>, hosts_tried_max: usize) -> Self {
        hosts.sort_by(|a, b| (a.preference, &a.name).cmp(&(b.preference, &b.name)));
        let mut seen = std::collections::HashSet::new();
        hosts.retain(|host| seen.insert(host.name.clone()));
        hosts.truncate(HOSTS_KEPT_MAX);
        Self {
            site: SiteKey::of_hosts(&hosts),
            hosts,
            is_static: false,
            hosts_tried_max,
        }
    }

    /// A route to one address that the operator configured.
    pub fn to_address(address: std::net::SocketAddr) -> Self {
        Self::of_static(&HostPort {
            host: super::Host::Ip(address.ip()),
            port: address.port(),
        })
    }

    pub(super) fn of_static(target: &HostPort) -> Self {
        let name = match &target.host {
            super::Host::Ip(address) => address.to_string(),
            super::Host::Name(name) => name.to_string(),
        };
        let host = RouteHost {
            name,
            port: target.port,
            preference: 0,
            is_static: true,
        };
        Self {
            site: SiteKey::of_static(target),
            hosts: vec![host],
            is_static: true,
            hosts_tried_max: 1,
        }
    }

    /// The hosts one attempt should try, best first: by preference, equal ones in an order that
    /// depends on `random_seed` and spreads the load over them (RFC 5321 section 5.1).
    pub fn order(&self, random_seed: u64) -> Vec<&RouteHost> {
        let mut order: Vec<_> = self.hosts.iter().enumerate().collect();
        order.sort_by_key(|(index, host)| (host.preference, mix(random_seed, *index as u64)));
        order.truncate(self.hosts_tried_max);
        order.into_iter().map(|(_, host)| host).collect()
    }
}

/// A well-spread number for a seed and an index (the finisher of SplitMix64).
fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn host(name: &str, preference: u16) -> RouteHost {
        RouteHost {
            name: name.to_owned(),
            port: 25,
            preference,
            is_static: false,
        }
    }

    #[test]
    fn the_order_of_the_answer_does_not_change_the_route() {
        let hosts = [host("b", 10), host("a", 10), host("c", 5), host("b", 20)];
        let mut reversed = hosts.to_vec();
        reversed.reverse();
        let route = Route::of_hosts(hosts.to_vec(), 5);
        assert_eq!(route, Route::of_hosts(reversed, 5));
        let names: Vec<_> = route.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["c", "a", "b"]);
        assert_eq!(route.site.as_str(), "c>a,b");
    }

    #[test]
    fn equal_preferences_share_the_load_and_others_keep_their_place() {
        let hosts = vec![host("a", 10), host("b", 10), host("c", 10), host("z", 20)];
        let route = Route::of_hosts(hosts, 4);
        let mut first: HashMap<&str, u32> = HashMap::new();
        for seed in 0..3000 {
            let order = route.order(seed);
            assert_eq!((order.len(), order[3].name.as_str()), (4, "z"));
            *first.entry(order[0].name.as_str()).or_default() += 1;
        }
        assert!(
            first.len() == 3 && first.values().all(|n| (800..1200).contains(n)),
            "{first:?}"
        );
        assert_eq!(route.order(7), route.order(7));
    }

    #[test]
    fn an_attempt_tries_a_bounded_number_of_hosts() {
        let hosts: Vec<_> = (0..500).map(|n| host(&format!("mx{n}"), 10)).collect();
        let route = Route::of_hosts(hosts, 5);
        assert_eq!(
            (route.hosts.len(), route.order(1).len()),
            (HOSTS_KEPT_MAX, 5)
        );
    }
}
