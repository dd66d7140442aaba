//! The name of a site: the group of hosts that act as one receiver, so that limits follow whoever
//! runs the hosts and not the domain they serve.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::host_port::HostPort;
use super::route::RouteHost;

/// Octets of the longest key.
const KEY_BYTES_MAX: usize = 255;

/// Names a site; cheap to clone. Two domains with the same set of MX hosts share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteKey(Arc<str>);

impl SiteKey {
    /// The host names in order of preference, equal ones sorted and joined by commas, ranks joined
    /// by `>`. The order belongs to the name: a connection made for one domain is used for others of
    /// its site, and must lead to the host they prefer as well (RFC 5321 section 5.1). A set too
    /// long for that is named by its first host and a digest of all, so that no one can choose a set
    /// that shares another's key.
    pub(super) fn of_hosts(hosts: &[RouteHost]) -> Self {
        let mut ranked: Vec<(u16, &str)> = hosts
            .iter()
            .map(|host| (host.preference, host.name.as_str()))
            .collect();
        ranked.sort_unstable();
        ranked.dedup();
        let ranks = ranked.chunk_by(|a, b| a.0 == b.0);
        let joined = ranks
            .map(|rank| {
                rank.iter()
                    .map(|(_, name)| *name)
                    .collect::<Vec<_>>()
                    .join(",")
            })
            .collect::<Vec<_>>()
            .join(">");
        if joined.len() <= KEY_BYTES_MAX {
            return Self(joined.into());
        }
        let digest = digest(&SHA256, joined.as_bytes());
        let hex: String = digest
            .as_ref()
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // A name is at most 253 octets; what is cut is in the digest.
        let first: String = ranked[0].1.chars().take(200).collect();
        Self(format!("{first}#{hex}").into())
    }

    /// `route:host:port`.
    pub(super) fn of_static(target: &HostPort) -> Self {
        Self(format!("route:{target}").into())
    }

    /// The key as it stands in logs and metrics.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for SiteKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(names: &[&str]) -> String {
        let hosts: Vec<_> = names
            .iter()
            .map(|name| RouteHost {
                name: (*name).to_owned(),
                port: 25,
                preference: 0,
                is_static: false,
            })
            .collect();
        SiteKey::of_hosts(&hosts).to_string()
    }

    #[test]
    fn the_order_of_hosts_does_not_matter() {
        assert_eq!(
            key(&["mx2.example", "mx1.example", "mx2.example"]),
            "mx1.example,mx2.example"
        );
    }

    #[test]
    fn long_sets_keep_short_and_distinct_keys() {
        let mut names: Vec<_> = (0..40)
            .map(|n| format!("mx{n:02}.mail.example.net"))
            .collect();
        let refs = |names: &[String]| key(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let first = refs(&names);
        assert!(first.starts_with("mx00.mail.example.net#") && first.len() < KEY_BYTES_MAX);
        names.pop();
        assert_ne!(refs(&names), first);
    }
}
