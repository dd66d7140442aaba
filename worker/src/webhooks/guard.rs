//! Where webhook calls may go: nowhere inside. An endpoint's URL is written by a customer, so
//! without this guard a call could reach the operator's own network on the customer's behalf.
//! Judges URLs and addresses; sends nothing.
//!
//! Two gates are needed, because HTTP clients never ask a resolver about a host that is an
//! address already: [`Guard::check_url`] judges those, [`Resolve`] judges what names resolve to,
//! at the moment of the connection, so that a name cannot change its mind in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use service::config::Network;
use url::{Host, Url};

use super::lookup::Lookups;

/// Special-purpose IPv4 ranges (IANA registry of RFC 6890), and their prefix lengths.
const DENIED_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private, RFC 1918
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT, RFC 6598
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, where clouds serve their metadata
    (Ipv4Addr::new(168, 63, 129, 16), 32), // public by number, metadata of Azure's machines
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private, RFC 1918
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation, RFC 5737
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays, RFC 7526
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private, RFC 1918
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks, RFC 2544
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation, RFC 5737
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation, RFC 5737
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, and broadcast
];

/// What of IPv6 is open: global unicast (RFC 4291 section 2.4). All else, from loopback to
/// multicast, is denied by not being in it.
const OPEN_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Ranges inside global unicast that lead elsewhere.
const DENIED_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation, RFC 3849
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4: an IPv4 address in disguise
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation, RFC 9637
];

/// IPv4 through a translator (RFC 6052): as good as the IPv4 address in its last 32 bits.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Why an endpoint is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a URL.
    #[error("the endpoint is not a URL")]
    NotAUrl,
    /// Neither `http` nor `https`, or no host.
    #[error("the endpoint is not an http or https URL with a host")]
    Scheme,
    /// User name or password in the URL: they would show up wherever the URL does.
    #[error("the endpoint's URL carries a user name or password")]
    Credentials,
    /// An address in a range that webhooks may not reach.
    #[error("the endpoint is at {0}, which is not a public address")]
    Address(IpAddr),
    /// A port that webhooks may not reach.
    #[error("the endpoint is at port {0}, which webhooks may not call")]
    Port(u16),
}

impl Refused {
    /// For the endpoint's owner: without what our resolver said about names of this network.
    pub fn explain(&self) -> String {
        match self {
            Self::Address(_) => "the endpoint is not at a public address".to_owned(),
            told => told.to_string(),
        }
    }
}

/// How far a call to a URL may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To public addresses and to allowed networks.
    Anywhere,
    /// To allowed networks only: the port is not one for the public Internet.
    Inside,
}

/// The judge of destinations. Clones share the list, and the threads that look names up.
#[derive(Clone, Debug)]
pub struct Guard {
    allowed: Arc<[Network]>,
    ports: Arc<[u16]>,
    reach: Reach,
    lookups: Lookups,
}

impl Guard {
    /// Public addresses at these ports, and `allowed` networks at any port besides: for
    /// development, and for operators whose receivers are on their own network.
    pub fn new(allowed: Vec<Network>, ports: Vec<u16>) -> Self {
        Self {
            allowed: allowed.into(),
            ports: ports.into(),
            reach: Reach::Anywhere,
            lookups: Lookups::default(),
        }
    }

    /// The same, as strict as calls of this reach need it.
    pub fn within(&self, reach: Reach) -> Self {
        Self {
            reach,
            ..self.clone()
        }
    }

    /// Whether a call may connect to `address`.
    pub fn permits(&self, address: IpAddr) -> bool {
        let is_allowed = || self.allowed.iter().any(|network| network.contains(address));
        (self.reach == Reach::Anywhere && is_public(address)) || is_allowed()
    }

    /// The URL of an endpoint, if it may be called, and by a client of which reach. A host that is a name is judged when it is
    /// resolved; one that is an address, in whatever notation, is judged here.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check_url(&self, text: &str) -> Result<(Url, Reach), Refused> {
        let url = Url::parse(text).map_err(|_| Refused::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        let literal = match url.host() {
            None => return Err(Refused::Scheme),
            Some(Host::Domain(_)) => None,
            // The parser has normalised 127.1, 0x7f.1 and 2130706433 to this by now.
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        };
        let port = url.port_or_known_default().ok_or(Refused::Scheme)?;
        let reach = if self.ports.contains(&port) {
            Reach::Anywhere
        } else {
            Reach::Inside
        };
        match literal {
            Some(address) if !self.permits(address) => Err(Refused::Address(address)),
            Some(address) if !self.within(reach).permits(address) => Err(Refused::Port(port)),
            None if reach == Reach::Inside && self.allowed.is_empty() => Err(Refused::Port(port)),
            _ => Ok((url, reach)),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            // The port is a dummy: the client puts in that of the URL.
            let found = guard.lookups.addresses(name.as_str().to_owned()).await?;
            let permitted: Vec<SocketAddr> = found
                .iter()
                .filter(|found| guard.permits(found.ip()))
                .copied()
                .collect();
            match found.first() {
                Some(first) if permitted.is_empty() => Err(Refused::Address(first.ip()).into()),
                _ => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    // ::ffff:127.0.0.1 is 127.0.0.1 to the system, so it must be to us.
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) if in_v6(address, NAT64) => {
            is_public_v4(Ipv4Addr::from_bits(address.to_bits() as u32))
        }
        IpAddr::V6(address) => {
            in_v6(address, OPEN_V6) && !DENIED_V6.iter().any(|range| in_v6(address, *range))
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !DENIED_V4
        .iter()
        .any(|(base, bits)| (address.to_bits() ^ base.to_bits()) >> (32 - bits) == 0)
}

fn in_v6(address: Ipv6Addr, (base, bits): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ base.to_bits()) >> (128 - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: [u16; 4] = [80, 443, 8080, 8443];

    fn guard(allowed: &[&str]) -> Guard {
        let allowed = allowed.iter().map(|network| network.parse().unwrap());
        Guard::new(allowed.collect(), PORTS.to_vec())
    }

    fn check(url: &str, expected: Result<(), Refused>) {
        assert_eq!(guard(&[]).check_url(url).map(|_| ()), expected, "{url}");
    }

    fn refused(address: &str) -> Result<(), Refused> {
        Err(Refused::Address(address.parse().unwrap()))
    }

    #[test]
    fn loopback_is_refused_in_every_notation() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "017700000001",
            "0177.0.0.1",
            "0x7f000001",
            "0X7F.0x0.0.1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "127。0。0。1",
        ] {
            check(&format!("http://{host}/hook"), refused("127.0.0.1"));
        }
        check("http://①②⑦.⓪.⓪.①/", refused("127.0.0.1"));
        check("http://[::1]/", refused("::1"));
        check("http://[::ffff:127.0.0.1]/", refused("::ffff:127.0.0.1"));
        check("http://[::ffff:7f00:1]:8080/", refused("::ffff:127.0.0.1"));
    }

    #[test]
    fn inside_addresses_are_refused() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.192",
            "100.100.100.200",
            "168.63.129.16",
        ] {
            check(&format!("https://{address}/"), refused(address));
        }
        for address in [
            "::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "2002:a9fe:a9fe::",
            "2001:0:7f00:1::",
            "fe80::a9fe:a9fe",
            "ff0e::1",
            "100::1",
            "5f00::1",
            "::7f00:1",
            "fec0::1",
            "3fff::1",
        ] {
            check(&format!("https://[{address}]/"), refused(address));
        }
    }

    #[test]
    fn public_addresses_and_names_pass() {
        for host in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "[2606:4700::1111]",
            "[64:ff9b::808:808]",
            "hooks.example.com",
            "localhost",
        ] {
            check(&format!("https://{host}:8443/hook?x=1"), Ok(()));
        }
    }

    #[test]
    fn only_plain_web_urls_pass() {
        check("hooks.example.com", Err(Refused::NotAUrl));
        check("ftp://example.com/", Err(Refused::Scheme));
        check("file:///etc/passwd", Err(Refused::Scheme));
        check("unix:/run/docker.sock", Err(Refused::Scheme));
        check("https://user@example.com/", Err(Refused::Credentials));
        check("https://:secret@example.com/", Err(Refused::Credentials));
    }

    #[test]
    fn the_operator_may_open_a_network() {
        let guard = guard(&["127.0.0.0/8"]);
        assert!(guard.check_url("http://127.1:9000/").is_ok());
        assert!(guard.check_url("http://[::ffff:127.0.0.1]:9000/").is_ok());
        assert!(guard.check_url("http://10.0.0.1/").is_err());
        assert!(guard.check_url("http://8.8.8.8:9000/").is_err());
    }

    #[test]
    fn the_public_internet_is_called_at_few_ports() {
        for port in [1, 22, 25, 2375, 3306, 5432, 6379, 9200, 11211, 65535] {
            for host in ["8.8.8.8", "[2606:4700::1111]", "hooks.example.com"] {
                check(&format!("http://{host}:{port}/"), Err(Refused::Port(port)));
            }
        }
        for url in [
            "http://a.example/",
            "https://a.example/",
            "https://a.example:8443/",
        ] {
            check(url, Ok(()));
        }
        // A name may be one of the allowed network: the address behind it will tell.
        let guard = guard(&["10.0.0.0/8"]);
        let (_, reach) = guard.check_url("http://hooks.internal:9000/").unwrap();
        assert_eq!(reach, Reach::Inside);
        let strict = guard.within(reach);
        assert!(strict.permits("10.1.2.3".parse().unwrap()));
        assert!(!strict.permits("8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn an_owner_is_not_told_what_names_mean_inside() {
        let refused = Refused::Address("10.1.2.3".parse().unwrap());
        assert!(!refused.explain().contains("10.1.2.3"));
    }

    #[tokio::test]
    async fn names_of_inside_addresses_do_not_resolve() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let error = guard(&[]).resolve(name("localhost")).await.err().unwrap();
        assert!(error.downcast_ref::<Refused>().is_some(), "{error}");
        let found = guard(&["127.0.0.0/8", "::1/128"])
            .resolve(name("localhost"))
            .await
            .unwrap();
        assert!(found.count() > 0);
    }
}
