//! Static routes as the operator writes them: `example.com=relay.internal:2525`, `*=[::1]:1025`.
//! Text to types and back; looks nothing up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use mail::domain_name::{DomainName, DomainNameError};
use thiserror::Error;

/// Which recipient domains a static route is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RoutePattern {
    /// This domain, without what lies below it.
    Domain(DomainName),
    /// Every domain without a route of its own.
    Any,
}

/// A host by name or address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address; used as it is.
    Ip(IpAddr),
    /// A name; looked up whenever it is needed.
    Name(DomainName),
}

/// A host and the port it listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// Why a text is no static route.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteParseError {
    /// No `=`.
    #[error("a route looks like DOMAIN=HOST:PORT or *=HOST:PORT; there is no '='")]
    NoEquals,
    /// What stands before `=`.
    #[error("the route's {0:?} is neither a domain nor '*'")]
    Pattern(String, #[source] DomainNameError),
    /// No port behind the host.
    #[error("{0:?} lacks a port: write HOST:PORT, [IPV6]:PORT")]
    NoPort(String),
    /// Not a number from 1 to 65535.
    #[error("{0:?} is no port number (1 to 65535)")]
    Port(String),
    /// An IPv6 address without brackets: where it ends and the port begins cannot be told.
    #[error("{0:?} is ambiguous: write an IPv6 address as [ADDRESS]:PORT")]
    Brackets(String),
    /// The host is no name and no address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Host(String),
}

/// Reads `DOMAIN=HOST:PORT` or `*=HOST:PORT`.
///
/// # Errors
/// See [`RouteParseError`].
pub fn parse_route(text: &str) -> Result<(RoutePattern, HostPort), RouteParseError> {
    let (pattern, target) = text.split_once('=').ok_or(RouteParseError::NoEquals)?;
    Ok((pattern.trim().parse()?, target.trim().parse()?))
}

impl FromStr for RoutePattern {
    type Err = RouteParseError;

    fn from_str(text: &str) -> Result<Self, RouteParseError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        DomainName::parse_host(text)
            .map(Self::Domain)
            .map_err(|error| RouteParseError::Pattern(text.to_owned(), error))
    }
}

impl FromStr for HostPort {
    type Err = RouteParseError;

    fn from_str(text: &str) -> Result<Self, RouteParseError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest
                    .split_once(']')
                    .ok_or_else(|| RouteParseError::Host(text.to_owned()))?;
                let address: Ipv6Addr = address
                    .parse()
                    .map_err(|_| RouteParseError::Host(address.to_owned()))?;
                (Host::Ip(address.into()), rest.strip_prefix(':'))
            }
            None => {
                let (host, port) = match text.rsplit_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                if host.contains(':') {
                    return Err(RouteParseError::Brackets(text.to_owned()));
                }
                (host.parse()?, port)
            }
        };
        let port = port.ok_or_else(|| RouteParseError::NoPort(text.to_owned()))?;
        Ok(Self {
            host,
            port: parse_port(port)?,
        })
    }
}

impl FromStr for Host {
    type Err = RouteParseError;

    fn from_str(text: &str) -> Result<Self, RouteParseError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        DomainName::parse_host(text)
            .map(Self::Name)
            .map_err(|_| RouteParseError::Host(text.to_owned()))
    }
}

fn parse_port(text: &str) -> Result<u16, RouteParseError> {
    // `parse` alone would take "+25".
    text.parse()
        .ok()
        .filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| RouteParseError::Port(text.to_owned()))
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(address) => SocketAddr::new(*address, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_written_back() {
        for text in [
            "example.com=127.0.0.1:2525",
            "*=relay.example.net:25",
            "*=mailpit:1025",
            "localhost=[::1]:1025",
            "xn--bcher-kva.example=[2001:db8::1]:65535",
        ] {
            let (pattern, target) = parse_route(text).unwrap();
            assert_eq!(format!("{pattern}={target}"), text);
        }
        let (pattern, target) = parse_route(" Bücher.Example = Relay.Example:25 ").unwrap();
        assert_eq!(
            format!("{pattern}={target}"),
            "xn--bcher-kva.example=relay.example:25"
        );
    }

    #[test]
    fn what_is_no_route_is_a_typed_error() {
        use RouteParseError::*;
        let check = |text: &str, expected: RouteParseError| {
            assert_eq!(parse_route(text).unwrap_err(), expected, "{text}");
        };
        let text = str::to_owned;
        check("example.com", NoEquals);
        check("a b=h:25", Pattern(text("a b"), DomainNameError::Syntax));
        check("=h:25", Pattern(text(""), DomainNameError::Empty));
        check("**=h:25", Pattern(text("**"), DomainNameError::Syntax));
        check("*=host", NoPort(text("host")));
        check("*=[::1]", NoPort(text("[::1]")));
        check("*=[::1]25", NoPort(text("[::1]25")));
        check("*=host:", Port(text("")));
        check("*=host:0", Port(text("0")));
        check("*=host:+25", Port(text("+25")));
        check("*=host:65536", Port(text("65536")));
        check("*=::1:25", Brackets(text("::1:25")));
        check("*=[::1:25", Host(text("[::1:25")));
        check("*=[127.0.0.1]:25", Host(text("127.0.0.1")));
        check("*=:25", Host(text("")));
        check("*=ho st:25", Host(text("ho st")));
        check("*=", Host(text("")));
    }
}
