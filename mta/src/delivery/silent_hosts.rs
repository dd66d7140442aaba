//! Addresses that did not take a connection lately. They are tried last for a while, so that one host
//! of several that is down does not cost every new connection its time. Nothing is given up on: where
//! no other address answers, these are tried all the same.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mail::judge::Stage;

use crate::smtp::{FailureKind, SmtpFailure};
use crate::sync::lock;

/// How long an address is tried last: shorter than the first pause before a delivery is tried again,
/// so that a host that came back is found by the next attempt.
const REMEMBERED: Duration = Duration::from_secs(240);
/// Addresses remembered at once; beyond, those whose time is over are let go, then all.
const ADDRESSES_MAX: usize = 10_000;

/// From where to where: another source may reach what one does not.
type Way = (Option<IpAddr>, SocketAddr);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SilentHosts {
    since: Mutex<HashMap<Way, Instant>>,
}

impl SilentHosts {
    /// Whether it is to be tried last at this moment.
    pub(crate) fn holds(&self, source: Option<IpAddr>, address: SocketAddr, now: Instant) -> bool {
        let since = lock(&self.since);
        let since = since.get(&(source, address));
        since.is_some_and(|since| now.duration_since(*since) < REMEMBERED)
    }

    /// Remembers how an attempt to connect ended.
    pub(crate) fn note(
        &self,
        source: Option<IpAddr>,
        address: SocketAddr,
        failure: Option<&SmtpFailure>,
        now: Instant,
    ) {
        let mut since = lock(&self.since);
        if !failure.is_some_and(is_silence) {
            since.remove(&(source, address));
            return;
        }
        if since.len() >= ADDRESSES_MAX {
            since.retain(|_, since| now.duration_since(*since) < REMEMBERED);
        }
        if since.len() >= ADDRESSES_MAX {
            since.clear();
        }
        since.insert((source, address), now);
    }
}

/// Nobody there. Who greets, even with a refusal, is.
fn is_silence(failure: &SmtpFailure) -> bool {
    match failure.stage {
        Stage::Connect => true,
        Stage::Greeting => matches!(failure.kind, FailureKind::Timeout),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(stage: Stage, kind: FailureKind) -> SmtpFailure {
        SmtpFailure {
            stage,
            kind,
            connection_usable: false,
            dot_sent: false,
            retry_in_clear: false,
            transcript: String::new(),
        }
    }

    #[test]
    fn who_does_not_answer_comes_last_for_a_while() {
        let (hosts, now) = (SilentHosts::default(), Instant::now());
        let (address, other) = (
            "192.0.2.1:25".parse().unwrap(),
            "192.0.2.2:25".parse().unwrap(),
        );
        let source = Some("198.51.100.1".parse().unwrap());
        let silence = failure(Stage::Connect, FailureKind::Timeout);
        hosts.note(source, address, Some(&silence), now);
        assert!(hosts.holds(source, address, now));
        assert!(!hosts.holds(source, other, now) && !hosts.holds(None, address, now));
        assert!(!hosts.holds(source, address, now + REMEMBERED));
        hosts.note(source, address, None, now);
        assert!(!hosts.holds(source, address, now), "it answered");
    }

    #[test]
    fn who_greets_is_there_whatever_it_says() {
        let (hosts, now) = (SilentHosts::default(), Instant::now());
        let address = "192.0.2.1:25".parse().unwrap();
        let holds = |stage, kind| {
            hosts.note(None, address, Some(&failure(stage, kind)), now);
            hosts.holds(None, address, now)
        };
        assert!(holds(Stage::Greeting, FailureKind::Timeout));
        assert!(!holds(Stage::Greeting, FailureKind::Closed));
        assert!(!holds(Stage::Mail, FailureKind::Timeout));
    }

    #[test]
    fn memory_is_bounded() {
        let (hosts, now) = (SilentHosts::default(), Instant::now());
        let silence = failure(Stage::Connect, FailureKind::Timeout);
        for number in 0..=ADDRESSES_MAX {
            let ip = IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
            hosts.note(None, SocketAddr::new(ip, 25), Some(&silence), now);
        }
        assert!(lock(&hosts.since).len() <= ADDRESSES_MAX);
    }
}
