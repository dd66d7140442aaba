//! How a sink behaves towards each recipient domain. Values only; who asks waits and answers.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::latency::{Latency, wait};
use super::reply_mix::ReplyMix;

/// How it behaves.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Behaviour {
    /// Before the final reply.
    pub(crate) latency: Latency,
    pub(crate) replies: ReplyMix,
    /// Before every reply.
    pub(crate) tarpit: Duration,
}

/// How it behaves towards one domain and all below it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DomainBehaviour {
    /// In lower case.
    pub(crate) domain: String,
    pub(crate) behaviour: Behaviour,
}

/// How it behaves now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviours {
    /// Towards everybody who is not named.
    pub(crate) others: Behaviour,
    pub(crate) domains: Vec<DomainBehaviour>,
    /// Take content, but keep its final reply back until this is false again.
    pub(crate) hang: bool,
}

impl Behaviours {
    /// How to behave towards a recipient.
    pub(crate) fn towards(&self, recipient: &str) -> &Behaviour {
        let domain = recipient.rsplit_once('@').map(|(_, domain)| domain);
        let named = |named: &&DomainBehaviour| {
            domain.is_some_and(|domain| is_within(domain, &named.domain))
        };
        let found = self.domains.iter().find(named);
        found.map_or(&self.others, |found| &found.behaviour)
    }

    /// The behaviour towards a domain, to be changed; a domain not named yet begins like the others.
    pub(crate) fn of_domain(&mut self, domain: &str) -> &mut Behaviour {
        let domain = domain.to_ascii_lowercase();
        let known = self.domains.iter().position(|named| named.domain == domain);
        let index = known.unwrap_or_else(|| {
            let behaviour = self.others.clone();
            self.domains.push(DomainBehaviour { domain, behaviour });
            self.domains.len() - 1
        });
        &mut self.domains[index].behaviour
    }
}

/// `domain` is `named` or below it.
fn is_within(domain: &str, named: &str) -> bool {
    let Some(start) = domain.len().checked_sub(named.len()) else {
        return false;
    };
    let (below, end) = domain.as_bytes().split_at(start);
    end.eq_ignore_ascii_case(named.as_bytes()) && below.last().is_none_or(|last| *last == b'.')
}

impl FromStr for DomainBehaviour {
    type Err = anyhow::Error;

    /// `slow.test=latency:10s;reply:450=3%;tarpit:1s`
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let example = "write it like \"slow.test=latency:10s\" or \"full.test=reply:452 4.2.2 \
                       full=100%;tarpit:1s\"";
        let (domain, settings) = text
            .split_once('=')
            .with_context(|| format!("{text:?} has no =: {example}"))?;
        ensure!(!domain.trim().is_empty(), "{text:?} names no domain");
        let mut behaviour = Behaviour::default();
        for setting in settings.split(';') {
            let (key, value) = setting
                .trim()
                .split_once(':')
                .with_context(|| format!("{setting:?}: {example}"))?;
            match key {
                "latency" => behaviour.latency = value.parse()?,
                "reply" | "replies" => behaviour.replies = value.parse()?,
                "tarpit" => behaviour.tarpit = wait(value)?,
                other => bail!("{other:?} is not latency, reply or tarpit: {example}"),
            }
        }
        Ok(Self {
            domain: domain.trim().to_ascii_lowercase(),
            behaviour,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_and_all_below_it_have_their_behaviour() {
        let slow: DomainBehaviour = "Slow.test=latency:10s;tarpit:2s".parse().unwrap();
        let behaviours = Behaviours {
            domains: vec![slow],
            ..Behaviours::default()
        };
        let rows = [
            ("a@slow.test", true),
            ("a@d1.SLOW.test", true),
            ("a@notslow.test", false),
            ("a@test", false),
            ("slow.test", false),
        ];
        for (recipient, is_slow) in rows {
            let tarpit = behaviours.towards(recipient).tarpit;
            assert_eq!(tarpit == Duration::from_secs(2), is_slow, "{recipient}");
        }
    }

    #[test]
    fn replies_keep_their_own_colons_and_equals_signs() {
        let full: DomainBehaviour = "full.test=reply:dot:452 4.2.2 full=100%,mail:450:5%"
            .parse()
            .unwrap();
        let expected: ReplyMix = "dot:452 4.2.2 full=100%,mail:450:5%".parse().unwrap();
        assert_eq!(full.behaviour.replies, expected);
        for bad in [
            "slow.test",
            "=latency:1s",
            "a.test=latency",
            "a.test=speed:1s",
        ] {
            assert!(bad.parse::<DomainBehaviour>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_domain_named_later_begins_like_the_others() {
        let mut behaviours = Behaviours::default();
        behaviours.others.latency = Latency::Fixed(Duration::from_millis(5));
        behaviours.of_domain("A.test").tarpit = Duration::from_secs(1);
        behaviours.of_domain("a.test").replies = "450:1%".parse().unwrap();
        assert_eq!(behaviours.domains.len(), 1);
        let named = behaviours.towards("x@a.test");
        assert_eq!(named.latency, behaviours.others.latency);
        assert_eq!(named.tarpit, Duration::from_secs(1));
    }
}
