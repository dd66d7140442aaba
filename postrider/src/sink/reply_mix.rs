//! Which commands a sink refuses, how often and how; what is left over is accepted. Parsed and
//! drawn only.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};

/// The command a refusal answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalStage {
    Mail,
    Rcpt,
    /// The final dot.
    Dot,
}

/// What a refused command is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A reply line.
    Reply { code: u16, line: Arc<str> },
    /// Nothing: the connection is closed.
    Drop,
}

/// One kind of answer.
#[derive(Debug, Clone, PartialEq)]
struct Share {
    stage: RefusalStage,
    /// None: accepted.
    refusal: Option<Refusal>,
    /// Of all commands of the stage, 0 to 1.
    share: f64,
}

/// How often what is refused.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ReplyMix {
    shares: Vec<Share>,
}

impl ReplyMix {
    /// Draws the refusal of one command, or nothing if it is accepted.
    pub(super) fn draw(&self, stage: RefusalStage) -> Option<&Refusal> {
        if self.shares.is_empty() {
            return None;
        }
        let mut left: f64 = rand::random();
        for share in self.shares.iter().filter(|share| share.stage == stage) {
            if left < share.share {
                return share.refusal.as_ref();
            }
            left -= share.share;
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
        let shares = items.map(share).collect::<anyhow::Result<Vec<_>>>()?;
        for stage in [RefusalStage::Mail, RefusalStage::Rcpt, RefusalStage::Dot] {
            let of_stage = shares.iter().filter(|share| share.stage == stage);
            let total: f64 = of_stage.map(|share| share.share).sum();
            ensure!(
                total <= 1.0 + 1e-9,
                "the {stage:?} replies add up to more than 100%"
            );
        }
        Ok(Self { shares })
    }
}

fn share(item: &str) -> anyhow::Result<Share> {
    let example = "write it like \"451 4.7.1 greylisted=5%\", \"450:3%\" or \"dot:drop=0.1%\"";
    let (reply, percent) = item
        .rsplit_once('=')
        .or_else(|| item.rsplit_once(':'))
        .with_context(|| format!("{item:?}: {example}"))?;
    let percent: f64 = percent
        .trim()
        .strip_suffix('%')
        .and_then(|percent| percent.trim().parse().ok())
        .with_context(|| format!("{item:?} has no percentage: {example}"))?;
    ensure!(
        (0.0..=100.0).contains(&percent),
        "{item:?}: a share is between 0% and 100%"
    );
    let (stage, reply) = match reply.trim().split_once(':') {
        Some(("mail", reply)) => (RefusalStage::Mail, reply),
        Some(("rcpt", reply)) => (RefusalStage::Rcpt, reply),
        Some(("dot", reply)) => (RefusalStage::Dot, reply),
        _ => (RefusalStage::Rcpt, reply),
    };
    Ok(Share {
        stage,
        refusal: refusal(reply.trim())?,
        share: percent / 100.0,
    })
}

/// None for 250, which is no refusal but may be written beside the others.
fn refusal(text: &str) -> anyhow::Result<Option<Refusal>> {
    if text == "drop" {
        return Ok(Some(Refusal::Drop));
    }
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    let code: u16 = code
        .parse()
        .with_context(|| format!("{code:?} is no reply code"))?;
    if code == 250 {
        return Ok(None);
    }
    if !(400..600).contains(&code) {
        bail!("{code} is not a refusal: use a code from 400 to 599, or drop");
    }
    ensure!(
        !rest.chars().any(char::is_control),
        "{text:?}: a reply is one line"
    );
    let said = if rest.is_empty() { "As asked" } else { rest };
    Ok(Some(Refusal::Reply {
        code,
        line: format!("{code} {said}\r\n").into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(mix: &str, stage: RefusalStage) -> usize {
        let mix: ReplyMix = mix.parse().unwrap();
        let draws = (0..20_000).filter(|_| mix.draw(stage).is_some());
        draws.count()
    }

    #[test]
    fn reply_mixes_are_drawn_with_their_shares() {
        let mix = "451 4.7.1 greylisted=30%, 550 5.1.1 unknown=20%,dot:drop=100%";
        let at_rcpt = refused(mix, RefusalStage::Rcpt);
        assert!((9_500..10_500).contains(&at_rcpt), "{at_rcpt}");
        assert_eq!(refused(mix, RefusalStage::Dot), 20_000);
        assert_eq!(refused(mix, RefusalStage::Mail), 0);
        assert_eq!(refused("", RefusalStage::Rcpt), 0);
        let short = refused("250:50%,450:30%,550:20%", RefusalStage::Rcpt);
        assert!((9_500..10_500).contains(&short), "{short}");
    }

    #[test]
    fn a_reply_is_said_as_it_was_written() {
        let mix: ReplyMix = "452 4.2.2 full=100%,dot:450:100%".parse().unwrap();
        let said = |stage| match mix.draw(stage) {
            Some(Refusal::Reply { line, .. }) => line.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(said(RefusalStage::Rcpt), "452 4.2.2 full\r\n");
        assert_eq!(said(RefusalStage::Dot), "450 As asked\r\n");
    }

    #[test]
    fn mixes_that_make_no_sense_are_refused() {
        for bad in [
            "451",
            "451=x%",
            "354 go=5%",
            "451=60%,550=60%",
            "250:95%,450:10%",
            "451=-1%",
            "451=5",
            "451 a\u{7}b=5%",
        ] {
            assert!(bad.parse::<ReplyMix>().is_err(), "{bad}");
        }
    }
}
