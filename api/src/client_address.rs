//! Which address a request comes from: the peer's, or what proxies of the operator say. Nothing that
//! a client writes itself is believed.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use service::config::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address; none where it cannot be known.
pub(crate) fn of(parts: &Parts, trusted: &[Network]) -> Option<IpAddr> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    behind(peer.0.ip(), &parts.headers, trusted)
}

/// Proxies append the address they were asked from: read from the right, the first one that is no
/// proxy of ours is the client. What stands left of it may be anybody's invention.
fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let is_ours = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_ours(peer) {
        return Some(peer.to_canonical());
    }
    let mut client = peer;
    for value in headers.get_all(FORWARDED_FOR).iter().rev() {
        // A proxy of ours said something else than addresses: then nobody knows.
        for hop in value.to_str().ok()?.rsplit(',') {
            client = address(hop.trim())?;
            if !is_ours(client) {
                return Some(client.to_canonical());
            }
        }
    }
    Some(client.to_canonical())
}

/// An address, which some proxies write with a port.
fn address(text: &str) -> Option<IpAddr> {
    text.parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hop_that_is_not_ours_is_the_client() {
        let trusted: Vec<Network> = ["10.0.0.0/8", "fd00::/8"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let check = |peer: &str, values: &[&str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let found = behind(peer.parse().unwrap(), &headers, &trusted);
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(found, expected, "{peer} {values:?}");
        };
        check("192.0.2.1", &[], Some("192.0.2.1"));
        check("192.0.2.1", &["198.51.100.7"], Some("192.0.2.1"));
        check("::ffff:192.0.2.1", &[], Some("192.0.2.1"));
        check("10.0.0.1", &[], Some("10.0.0.1"));
        check("10.0.0.1", &["198.51.100.7"], Some("198.51.100.7"));
        check("::ffff:10.0.0.1", &["198.51.100.7"], Some("198.51.100.7"));
        // What the client invented stands to the left.
        check(
            "10.0.0.1",
            &["10.9.9.9, 198.51.100.7"],
            Some("198.51.100.7"),
        );
        check(
            "10.0.0.1",
            &["192.0.2.9", "198.51.100.7, fd00::2"],
            Some("198.51.100.7"),
        );
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], Some("10.0.0.3"));
        check("10.0.0.1", &["198.51.100.7:4711"], Some("198.51.100.7"));
        check("10.0.0.1", &["[2001:db8::1]:4711"], Some("2001:db8::1"));
        for nonsense in ["unknown", "", "198.51.100.7, ", "198.51.100.7,x"] {
            check("10.0.0.1", &[nonsense], None);
        }
    }
}
