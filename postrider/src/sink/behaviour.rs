//! How a sink answers: which refusals, how often, and how late. Parsing and drawing only.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mail::reply::EnhancedCode;
use mta::listener::HandlerReply;
use rand::RngExt;

/// Longest wait before a reply that can be asked for.
const LATENCY_MAX: Duration = Duration::from_mins(60);

/// Wait before the final reply to a message.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Latency {
    #[default]
    None,
    Fixed(Duration),
    Uniform(Duration, Duration),
    Exponential {
        mean: Duration,
    },
}

impl Latency {
    /// Draws one wait.
    pub(crate) fn draw(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Fixed(wait) => Some(wait),
            Self::Uniform(from, to) => Some(rand::rng().random_range(from..=to)),
            Self::Exponential { mean } => {
                // Inverse of the distribution function; 1 - x is never zero for x in [0, 1).
                let x: f64 = rand::random();
                let wait = mean.as_secs_f64() * -(1.0 - x).ln();
                Some(Duration::from_secs_f64(wait).min(LATENCY_MAX))
            }
        }
    }
}

impl FromStr for Latency {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(Self::Exponential {
                mean: milliseconds(mean)?,
            });
        }
        if let Some((from, to)) = text.split_once('-') {
            let (from, to) = (milliseconds(from)?, milliseconds(to)?);
            ensure!(
                from <= to,
                "latency {text}: the first value must not be the larger one"
            );
            return Ok(Self::Uniform(from, to));
        }
        milliseconds(text).map(Self::Fixed)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Fixed(wait) => write!(f, "{}ms", wait.as_millis()),
            Self::Uniform(from, to) => write!(f, "{}ms-{}ms", from.as_millis(), to.as_millis()),
            Self::Exponential { mean } => write!(f, "exp:{}ms", mean.as_millis()),
        }
    }
}

fn milliseconds(text: &str) -> anyhow::Result<Duration> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => match text.strip_suffix('s') {
            Some(digits) => (digits, 1000),
            None => (text, 1),
        },
    };
    let value: u64 = digits
        .parse()
        .with_context(|| format!("{text:?} is not a time such as 20ms or 2s"))?;
    let wait = Duration::from_millis(value.saturating_mul(unit));
    ensure!(wait <= LATENCY_MAX, "{text} is longer than an hour");
    Ok(wait)
}

/// The command a refusal answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalStage {
    Mail,
    Rcpt,
    /// The final dot.
    Dot,
}

/// One kind of answer that is not "accepted".
#[derive(Debug, Clone, PartialEq)]
struct Refusal {
    stage: RefusalStage,
    /// Nothing: the connection is closed without a reply.
    reply: Option<RefusalReply>,
    /// Of all commands of the stage, 0 to 1.
    share: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct RefusalReply {
    code: u16,
    enhanced: Option<(u8, u16, u16)>,
    text: String,
}

/// Which commands are refused, how often and how; what is left over is accepted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ReplyMix {
    refusals: Vec<Refusal>,
}

impl ReplyMix {
    /// Draws the refusal of one command, or nothing if it is accepted.
    pub(crate) fn draw(&self, stage: RefusalStage) -> Option<HandlerReply> {
        if self.refusals.is_empty() {
            return None;
        }
        let mut left: f64 = rand::random();
        for refusal in self
            .refusals
            .iter()
            .filter(|refusal| refusal.stage == stage)
        {
            if left < refusal.share {
                return Some(match &refusal.reply {
                    Some(reply) => {
                        HandlerReply::new(reply.code, reply.enhanced, reply.text.clone())
                    }
                    None => HandlerReply::drop_connection(),
                });
            }
            left -= refusal.share;
        }
        None
    }
}

impl FromStr for ReplyMix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        let refusals = items
            .map(parse_refusal)
            .collect::<anyhow::Result<Vec<_>>>()?;
        for stage in [RefusalStage::Mail, RefusalStage::Rcpt, RefusalStage::Dot] {
            let of_stage = refusals.iter().filter(|refusal| refusal.stage == stage);
            let total: f64 = of_stage.map(|refusal| refusal.share).sum();
            ensure!(
                total <= 1.0 + 1e-9,
                "more than 100% of the {stage:?} replies are refusals"
            );
        }
        Ok(Self { refusals })
    }
}

fn parse_refusal(item: &str) -> anyhow::Result<Refusal> {
    let example = "write it like \"451 4.7.1 greylisted=5%\" or \"dot:drop=0.1%\"";
    let (reply, share) = item
        .rsplit_once('=')
        .with_context(|| format!("{item:?}: {example}"))?;
    let share: f64 = share
        .trim()
        .strip_suffix('%')
        .and_then(|percent| percent.trim().parse().ok())
        .with_context(|| format!("{item:?} has no percentage: {example}"))?;
    ensure!(
        (0.0..=100.0).contains(&share),
        "{item:?}: a share is between 0% and 100%"
    );
    let (stage, reply) = match reply.trim().split_once(':') {
        Some(("mail", reply)) => (RefusalStage::Mail, reply),
        Some(("rcpt", reply)) => (RefusalStage::Rcpt, reply),
        Some(("dot", reply)) => (RefusalStage::Dot, reply),
        _ => (RefusalStage::Rcpt, reply.trim()),
    };
    Ok(Refusal {
        stage,
        reply: parse_reply(reply.trim())?,
        share: share / 100.0,
    })
}

fn parse_reply(text: &str) -> anyhow::Result<Option<RefusalReply>> {
    if text == "drop" {
        return Ok(None);
    }
    let (code, text) = text.split_once(' ').unwrap_or((text, ""));
    let code: u16 = code
        .parse()
        .with_context(|| format!("{code:?} is no reply code"))?;
    if !(400..600).contains(&code) {
        bail!("{code} is not a refusal: use a code from 400 to 599, or drop");
    }
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (enhanced, text) = match first.parse::<EnhancedCode>() {
        Ok(EnhancedCode {
            class,
            subject,
            detail,
        }) => (Some((class, subject, detail)), rest),
        Err(_) => (None, text),
    };
    Ok(Some(RefusalReply {
        code,
        enhanced,
        text: text.to_owned(),
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_read_and_shown_alike() {
        for text in ["none", "20ms", "10ms-50ms", "exp:20ms"] {
            assert_eq!(text.parse::<Latency>().unwrap().to_string(), text);
        }
        assert_eq!(
            "2s".parse::<Latency>().unwrap(),
            Latency::Fixed(Duration::from_secs(2))
        );
        for bad in ["", "fast", "50ms-10ms", "exp:", "-1", "99999999s"] {
            assert!(bad.parse::<Latency>().is_err(), "{bad}");
        }
    }

    #[test]
    fn latencies_are_drawn_from_their_range() {
        let (from, to) = (Duration::from_millis(10), Duration::from_millis(20));
        for _ in 0..100 {
            let wait = Latency::Uniform(from, to).draw().unwrap();
            assert!((from..=to).contains(&wait));
        }
        let mean = Duration::from_millis(10);
        let draw = || Latency::Exponential { mean }.draw().unwrap().as_secs_f64();
        let average = (0..20_000).map(|_| draw()).sum::<f64>() / 20_000.0;
        assert!((0.009..0.011).contains(&average), "{average}");
    }

    #[test]
    fn reply_mixes_are_drawn_with_their_shares() {
        let mix: ReplyMix = "451 4.7.1 greylisted=30%, 550 5.1.1 unknown=20%,dot:drop=100%"
            .parse()
            .unwrap();
        let refused = (0..20_000)
            .filter(|_| mix.draw(RefusalStage::Rcpt).is_some())
            .count();
        assert!((9_500..10_500).contains(&refused), "{refused}");
        assert!(mix.draw(RefusalStage::Dot).is_some());
        assert!(mix.draw(RefusalStage::Mail).is_none());
        assert!(ReplyMix::default().draw(RefusalStage::Rcpt).is_none());
    }

    #[test]
    fn mixes_that_make_no_sense_are_refused() {
        for bad in [
            "451",
            "451=x%",
            "250 ok=5%",
            "451=60%,550=60%",
            "451=-1%",
            "451=5",
        ] {
            assert!(bad.parse::<ReplyMix>().is_err(), "{bad}");
        }
    }
}
