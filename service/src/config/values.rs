//! The kinds of value a configuration key may have. Each is parsed once, here; an error says what
//! to write instead. Holds no file and no default.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds, from 1 to a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Seconds(u64);

const YEAR_SECS: u64 = 366 * 24 * 3_600;

impl Seconds {
    /// A default; checked when the workspace is compiled.
    pub(super) const fn constant(secs: u64) -> Self {
        assert!(secs >= 1 && secs <= YEAR_SECS);
        Self(secs)
    }

    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// As a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Seconds {
    type Error = String;

    fn try_from(secs: u64) -> Result<Self, String> {
        if (1..=YEAR_SECS).contains(&secs) {
            return Ok(Self(secs));
        }
        Err(format!(
            "{secs} is out of range: write a number of seconds from 1 to {YEAR_SECS}"
        ))
    }
}

impl From<Seconds> for u64 {
    fn from(seconds: Seconds) -> Self {
        seconds.0
    }
}

/// Values that are read from a string and written back as one.
macro_rules! string_value {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

pub(super) use string_value;

/// A host name in ASCII, lower case, without a final dot (RFC 1123 section 2.1, RFC 1035 2.3.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_label(label: &str) -> bool {
        (1..=LABEL_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > NAME_MAX || !name.split('.').all(Self::is_label) {
            return Err(format!(
                "{text:?} is not a host name: write letters, digits, hyphens and dots, such as \
                 mail.example.com (an international name in its xn-- form)"
            ));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_value!(HostName);

/// The host of a static route: a name, resolved when used, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// To be resolved.
    Name(HostName),
    /// Taken as it is.
    Address(IpAddr),
}

/// `host:port`; an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// Whom to connect to.
    pub host: Host,
    /// TCP port, not 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a host and port: write relay.example.com:25 or [2001:db8::1]:25"
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = match bare {
            Some(v6) => Some(IpAddr::V6(v6.parse().map_err(|_| wrong())?)),
            None => host.parse().ok().filter(IpAddr::is_ipv4),
        };
        let host = match address {
            Some(address) => Host::Address(address),
            None => Host::Name(host.parse().map_err(|_| wrong())?),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(IpAddr::V4(v4)) => write!(f, "{v4}:{}", self.port),
            Host::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]:{}", self.port),
        }
    }
}

string_value!(HostPort);

/// Which recipient domains a static route is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RouteDomain {
    /// One domain, without its subdomains. Comes before `Any`.
    Only(HostName),
    /// `*`: every domain that has no route of its own.
    Any,
}

impl FromStr for RouteDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        text.parse()
            .map(Self::Only)
            .map_err(|wrong| format!("{wrong}, or \"*\" for all domains"))
    }
}

impl fmt::Display for RouteDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(domain) => domain.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

string_value!(RouteDomain);

/// An address range in CIDR notation (RFC 4632 section 3.1, RFC 4291 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Whether `address` lies in the range. IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.contains_exactly(address.to_canonical())
    }
}

impl Network {
    /// Whether every address of `other` lies in this range too. An IPv4 range and the IPv6 range
    /// that IPv4 is mapped into are different ranges here.
    pub fn includes(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.prefix_bits <= other.prefix_bits
            && self.contains_exactly(other.address)
    }

    /// Whether the range is of IPv4 addresses written as IPv6 ones, which it then never contains.
    pub fn is_mapped_ipv4(&self) -> bool {
        self.address.to_canonical() != self.address
    }

    fn contains_exactly(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.prefix_bits);
        match (self.address, address) {
            (IpAddr::V4(base), IpAddr::V4(other)) => {
                let differing = base.to_bits() ^ other.to_bits();
                differing.checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(other)) => {
                let differing = base.to_bits() ^ other.to_bits();
                differing.checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a network: write 10.0.0.0/8 or fd00::/8");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits
            .parse()
            .ok()
            .filter(|bits| *bits <= bits_max)
            .ok_or_else(wrong)?;
        Ok(Self {
            address,
            prefix_bits,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

string_value!(Network);

/// Whether a file can be opened; what to do if not.
pub(super) fn readable(path: &Path) -> Result<(), String> {
    std::fs::File::open(path).map(drop).map_err(|wrong| {
        format!(
            "{} cannot be read ({wrong}): create it or correct the path",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: FromStr<Err = String> + fmt::Display>(text: &str) -> String {
        match text.parse::<T>() {
            Ok(value) => value.to_string(),
            Err(wrong) => format!("no: {}", wrong.rsplit(": ").next().unwrap()),
        }
    }

    #[test]
    fn host_names() {
        assert_eq!(shown::<HostName>("Mail.Example.COM."), "mail.example.com");
        assert_eq!(shown::<HostName>("localhost"), "localhost");
        for bad in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a b",
            "ü.example",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_with_ports() {
        for good in ["relay.test:25", "127.0.0.1:2525", "[2001:db8::1]:25"] {
            assert_eq!(shown::<HostPort>(good), good);
        }
        for bad in [
            "relay.test",
            "relay.test:0",
            "relay.test:99999",
            "2001:db8::1:25",
            "[x]:25",
            ":25",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        let holds = |network: &str, address: &str| {
            network
                .parse::<Network>()
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "192.0.2.1") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("127.0.0.1/32", "::ffff:127.0.0.1"));
        assert!(
            holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe00::1") && holds("::/0", "::1")
        );
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_include_smaller_ones_of_their_family() {
        let check = |outer: &str, inner: &str, expected: bool| {
            let (a, b): (Network, Network) = (outer.parse().unwrap(), inner.parse().unwrap());
            assert_eq!(a.includes(&b), expected, "{outer} {inner}");
        };
        check("10.0.0.0/8", "10.1.0.0/16", true);
        check("10.0.0.0/8", "10.0.0.0/8", true);
        check("10.1.0.0/16", "10.0.0.0/8", false);
        check("10.0.0.0/8", "11.0.0.0/16", false);
        check("0.0.0.0/0", "::/0", false);
        check("10.0.0.0/8", "::ffff:10.0.0.1/20", false);
        check("fd00::/8", "fd12::/16", true);
        let mapped: Network = "::ffff:10.0.0.0/104".parse().unwrap();
        assert!(mapped.is_mapped_ipv4());
    }

    #[test]
    fn seconds_are_positive_and_at_most_a_year() {
        assert!(Seconds::try_from(0).is_err() && Seconds::try_from(u64::MAX).is_err());
        assert_eq!(
            Seconds::try_from(60).unwrap().duration(),
            Duration::from_secs(60)
        );
    }
}
