//! Where a webhook may go, as far as the URL itself tells. What a name resolves to is checked
//! again by whoever calls it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use service::config::Network;
use url::{Host, Url};

/// Longest URL, in octets.
const URL_MAX: usize = 2048;

/// A URL that a webhook may be registered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebhookUrl(Url);

/// Why a URL is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WebhookUrlError {
    Invalid,
    TooLong,
    NotHttps,
    Credentials,
    Fragment,
    PrivateHost,
    Port,
}

impl WebhookUrlError {
    /// Code and sentence for the field.
    pub(crate) fn explain(self) -> (&'static str, &'static str) {
        match self {
            Self::Invalid => (
                "invalid_url",
                "must be an absolute URL such as https://a.example/x",
            ),
            Self::TooLong => ("too_long", "is longer than 2048 octets"),
            Self::NotHttps => ("invalid_url", "must begin with https://"),
            Self::Credentials => (
                "invalid_url",
                "must not hold a user name or password: calls are signed instead",
            ),
            Self::Fragment => ("invalid_url", "must not hold a fragment"),
            Self::PrivateHost => (
                "private_host",
                "must not lead to this machine, a private or a reserved network",
            ),
            Self::Port => (
                "port_not_allowed",
                "has a port that webhooks may not call; leave it out, or use 8443",
            ),
        }
    }
}

impl WebhookUrl {
    /// Reads a URL by these rules.
    ///
    /// # Errors
    /// See [`WebhookUrlError`].
    pub(crate) fn parse(text: &str, rules: &UrlRules<'_>) -> Result<Self, WebhookUrlError> {
        if text.len() > URL_MAX {
            return Err(WebhookUrlError::TooLong);
        }
        // The parser drops tabs and line ends silently; a URL with them is a mistake.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(WebhookUrlError::Invalid);
        }
        let url = Url::parse(text).map_err(|_| WebhookUrlError::Invalid)?;
        match url.scheme() {
            "https" => {}
            "http" if rules.allow_insecure => {}
            _ => return Err(WebhookUrlError::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(WebhookUrlError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(WebhookUrlError::Fragment);
        }
        let host = url.host().ok_or(WebhookUrlError::Invalid)?;
        if !rules.allow(&host) {
            return Err(WebhookUrlError::PrivateHost);
        }
        if !rules.allow_port(&host, url.port_or_known_default()) {
            return Err(WebhookUrlError::Port);
        }
        Ok(Self(url))
    }

    /// The URL as it will be called.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// What the operator allows beyond HTTPS to the public Internet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UrlRules<'a> {
    /// Plain HTTP and private hosts are good too.
    pub(crate) allow_insecure: bool,
    /// Private networks that may be called.
    pub(crate) networks: &'a [Network],
    /// Ports for hosts outside of them.
    pub(crate) ports: &'a [u16],
}

impl UrlRules<'_> {
    fn allow(&self, host: &Host<&str>) -> bool {
        self.allow_insecure || self.may_be_inside(host) || !is_private_host(host)
    }

    fn allow_port(&self, host: &Host<&str>, port: Option<u16>) -> bool {
        let is_known = port.is_some_and(|port| self.ports.contains(&port));
        self.allow_insecure || self.may_be_inside(host) || is_known
    }

    fn may_be_inside(&self, host: &Host<&str>) -> bool {
        let is_allowed = |address: IpAddr| {
            self.networks
                .iter()
                .any(|network| network.contains(address))
        };
        match host {
            Host::Ipv4(address) => is_allowed(IpAddr::V4(*address)),
            Host::Ipv6(address) => is_allowed(IpAddr::V6(*address)),
            // Only the address behind the name can tell, which the caller looks at.
            Host::Domain(_) => !self.networks.is_empty(),
        }
    }
}

/// The parser has turned every odd spelling of an address (`127.1`, `0x7f.1`) into an address.
fn is_private_host(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => !is_public(IpAddr::V4(*address)),
        Host::Ipv6(address) => !is_public(IpAddr::V6(*address)),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            // RFC 6761 section 6.3, RFC 6762 section 3, RFC 9476 and ICANN's name for private use;
            // a name of one label can only be local.
            let local = [".localhost", ".local", ".internal"];
            !name.contains('.') || local.iter().any(|suffix| name.ends_with(suffix))
        }
    }
}

/// Whether an address is reached over the public Internet (IANA special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_public_v4(inner),
            // Only 2000::/3 is given out for the public Internet.
            None => {
                let s = address.segments();
                let special = match s[0] {
                    0x2001 => s[1] < 0x200 || s[1] == 0xdb8,
                    0x3fff => s[1] < 0x1000,
                    _ => false,
                };
                s[0] & 0xe000 == 0x2000 && !special
            }
        },
    }
}

/// The IPv4 address inside a mapped (`::ffff:0:0/96`), translated (`64:ff9b::/96`, RFC 6052) or
/// 6to4 (`2002::/16`) address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let joined = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(joined(high, low))
        }
        [0x2002, high, low, ..] => Some(joined(high, low)),
        _ => None,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a >= 240
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xfe == 18)
        // Public by number: where Azure's machines find their metadata.
        || address.octets() == [168, 63, 129, 16];
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: UrlRules<'static> = UrlRules {
        allow_insecure: false,
        networks: &[],
        ports: &[80, 443, 8080, 8443],
    };

    fn check(text: &str, expected: Result<&str, WebhookUrlError>) {
        let found = WebhookUrl::parse(text, &RULES);
        assert_eq!(
            found.as_ref().map(WebhookUrl::as_str).map_err(|e| *e),
            expected,
            "{text}"
        );
    }

    #[test]
    fn public_https_urls_are_taken() {
        check(
            "https://hooks.example.com/a?b=c",
            Ok("https://hooks.example.com/a?b=c"),
        );
        check(
            "https://Hooks.Example.com:8443",
            Ok("https://hooks.example.com:8443/"),
        );
        check(
            "https://bücher.example/",
            Ok("https://xn--bcher-kva.example/"),
        );
        check("https://8.8.8.8/x", Ok("https://8.8.8.8/x"));
        check("https://[2606:4700::1]/", Ok("https://[2606:4700::1]/"));
    }

    #[test]
    fn other_forms_are_refused() {
        check("http://hooks.example.com/", Err(WebhookUrlError::NotHttps));
        check("ftp://hooks.example.com/", Err(WebhookUrlError::NotHttps));
        check("file:///etc/passwd", Err(WebhookUrlError::NotHttps));
        check("https://", Err(WebhookUrlError::Invalid));
        check("/relative", Err(WebhookUrlError::Invalid));
        check(
            "https://hooks.example.com/\r\nX: y",
            Err(WebhookUrlError::Invalid),
        );
        check(
            "https://hooks.example.com/\0",
            Err(WebhookUrlError::Invalid),
        );
        check(
            "https://a:b@hooks.example.com/",
            Err(WebhookUrlError::Credentials),
        );
        check(
            "https://hooks.example.com/#a",
            Err(WebhookUrlError::Fragment),
        );
        let long = format!("https://hooks.example.com/{}", "a".repeat(URL_MAX));
        check(&long, Err(WebhookUrlError::TooLong));
    }

    #[test]
    fn few_ports_are_allowed() {
        for port in [1, 22, 25, 2375, 3306, 5432, 6379, 8000, 9200, 65535] {
            let url = format!("https://hooks.example.com:{port}/");
            check(&url, Err(WebhookUrlError::Port));
        }
        check("https://hooks.example.com:0/", Err(WebhookUrlError::Port));
        check(
            "https://hooks.example.com:65536/",
            Err(WebhookUrlError::Invalid),
        );
    }

    #[test]
    fn an_allowed_network_allows_its_hosts_and_no_plain_http() {
        let networks = ["10.0.0.0/8".parse().unwrap()];
        let rules = UrlRules {
            networks: &networks,
            ..RULES
        };
        let check = |text: &str, expected: Option<WebhookUrlError>| {
            assert_eq!(WebhookUrl::parse(text, &rules).err(), expected, "{text}");
        };
        check("https://10.1.2.3/", None);
        check("https://10.1.2.3:9000/", None);
        check("https://hooks.internal:9000/", None);
        check("https://8.8.8.8:9000/", Some(WebhookUrlError::Port));
        check("https://hooks.internal/", None);
        check("https://192.168.0.1/", Some(WebhookUrlError::PrivateHost));
        check("https://127.0.0.1/", Some(WebhookUrlError::PrivateHost));
        check("http://10.1.2.3/", Some(WebhookUrlError::NotHttps));
        check("http://hooks.example.com/", Some(WebhookUrlError::NotHttps));
    }

    #[test]
    fn private_hosts_are_refused_in_every_spelling() {
        let hosts = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
            "0x7f000001",
            "017700000001",
            "127.0.0.1.",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::1]",
            "[2002:a9fe:a9fe::]",
            "[2001:0:7f00:1::]",
            "[::7f00:1]",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "[fe80::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "[2001:db8::1]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "printer.local",
            "metadata.google.internal",
            "intranet",
        ];
        let insecure = UrlRules {
            allow_insecure: true,
            ..RULES
        };
        for host in hosts {
            check(
                &format!("https://{host}/"),
                Err(WebhookUrlError::PrivateHost),
            );
            assert!(
                WebhookUrl::parse(&format!("http://{host}:9000/"), &insecure).is_ok(),
                "{host}"
            );
        }
    }
}
