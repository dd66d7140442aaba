//! How the sandbox treats a recipient, told by the first word of its local part, or by its domain.
//!
//! | first word | answer |
//! |---|---|
//! | `greylist` | 451 4.7.1 to the first RCPT of a reverse-path and recipient, accepted from then on |
//! | `mailbox-full` | 552 5.2.2 to RCPT |
//! | `unknown` | 550 5.1.1 to RCPT |
//! | `tempfail` | 451 4.3.0 to RCPT, every time |
//! | `slow` | accepted, 5 s after the final dot |
//! | `spam-block` | 554 5.7.1 to the final dot |
//! | `bounce-later` | accepted; a delivery status notification comes back |
//! | `complaint` | accepted; a feedback report comes back |
//! | `delivered` | accepted |
//!
//! The word ends at the first `+` or `.`, so that `slow+1@` and `slow.2@` are two slow mailboxes;
//! case does not matter. Where the local part begins with no such word, the domain decides if it
//! is such a word below the sandbox's own, as in `ana@unknown.sandbox.test`; all others accept.
//! Pure: what has been tried before is `greylist`'s knowledge.

use std::time::Duration;

use mail::address::EmailAddress;
use mail::domain_name::DomainName;

use super::report::ReportKind;
use crate::listener::HandlerReply;

/// What happens to mail for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Accepted, the reply to the final dot coming this much later; then a report may follow.
    Accept {
        after: Duration,
        then: Option<ReportKind>,
    },
    /// Refused at RCPT.
    RefuseRecipient(Refusal),
    /// Refused at the first RCPT only.
    RefuseFirstTry(Refusal),
    /// Refused at the final dot, with all recipients of the transaction: it has one reply.
    RefuseContent(Refusal),
}

/// A negative reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    code: u16,
    enhanced: (u8, u16, u16),
    text: &'static str,
}

impl Refusal {
    const fn new(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Self {
        Self {
            code,
            enhanced,
            text,
        }
    }

    pub(super) fn reply(self) -> HandlerReply {
        HandlerReply::new(self.code, Some(self.enhanced), self.text)
    }
}

const ACCEPT: Behaviour = Behaviour::Accept {
    after: Duration::ZERO,
    then: None,
};

const fn accept_then(report: ReportKind) -> Behaviour {
    Behaviour::Accept {
        after: Duration::ZERO,
        then: Some(report),
    }
}

/// Texts are worded as real receivers word them, because bounce classes are read from both.
const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("delivered", ACCEPT),
    ("bounce-later", accept_then(ReportKind::Bounce)),
    ("complaint", accept_then(ReportKind::Complaint)),
    (
        "greylist",
        Behaviour::RefuseFirstTry(Refusal::new(
            451,
            (4, 7, 1),
            "Greylisting in action, please try again later",
        )),
    ),
    (
        "mailbox-full",
        Behaviour::RefuseRecipient(Refusal::new(552, (5, 2, 2), "Mailbox full")),
    ),
    (
        "unknown",
        Behaviour::RefuseRecipient(Refusal::new(550, (5, 1, 1), "User unknown")),
    ),
    (
        "tempfail",
        Behaviour::RefuseRecipient(Refusal::new(
            451,
            (4, 3, 0),
            "Temporary local problem, please try again later",
        )),
    ),
    (
        "slow",
        Behaviour::Accept {
            after: Duration::from_secs(5),
            then: None,
        },
    ),
    (
        "spam-block",
        Behaviour::RefuseContent(Refusal::new(554, (5, 7, 1), "Message rejected as spam")),
    ),
];

impl Behaviour {
    /// The behaviour of a recipient, given without brackets, in a sandbox whose own domain is `own`.
    pub(super) fn of(recipient: &str, own: &DomainName) -> Self {
        let local = recipient
            .rsplit_once('@')
            .map_or(recipient, |(local, _)| local);
        let word = local
            .trim_matches('"')
            .split(['+', '.'])
            .next()
            .unwrap_or_default();
        named(word)
            .or_else(|| {
                let address = EmailAddress::parse(recipient).ok()?;
                let below = address.domain().as_str().strip_suffix(own.as_str())?;
                named(below.strip_suffix('.')?)
            })
            .unwrap_or(ACCEPT)
    }
}

fn named(word: &str) -> Option<Behaviour> {
    let mut behaviours = BEHAVIOURS.iter();
    let (_, behaviour) = behaviours.find(|(name, _)| name.eq_ignore_ascii_case(word))?;
    Some(*behaviour)
}

/// The words there are.
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    BEHAVIOURS.iter().map(|(word, _)| *word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_the_local_part_decides_and_then_the_domain() {
        let own = "Sink.test".parse().unwrap();
        let check = |recipient: &str, expected: &str| {
            let told = match Behaviour::of(recipient, &own) {
                Behaviour::Accept { after, then: None } => format!("accept {}", after.as_secs()),
                Behaviour::Accept {
                    then: Some(report), ..
                } => format!("then {report:?}"),
                Behaviour::RefuseRecipient(refusal) => format!("rcpt {}", refusal.code),
                Behaviour::RefuseFirstTry(refusal) => format!("first {}", refusal.code),
                Behaviour::RefuseContent(refusal) => format!("dot {}", refusal.code),
            };
            assert_eq!(told, expected, "{recipient}");
        };
        check("delivered@sink.test", "accept 0");
        check("greylist@sink.test", "first 451");
        check("Mailbox-Full+17@sink.test", "rcpt 552");
        check("unknown.5@sink.test", "rcpt 550");
        check("\"unknown+a b\"@sink.test", "rcpt 550");
        check("tempfail@sink.test", "rcpt 451");
        check("slow@sink.test", "accept 5");
        check("spam-block@sink.test", "dot 554");
        check("unknowns@sink.test", "accept 0");
        check("ana@unknown.test", "accept 0");
        check("bounce-later+1@sink.test", "then Bounce");
        check("Complaint@elsewhere.test", "then Complaint");
        check("ana@unknown.sink.test", "rcpt 550");
        check("ana@Spam-Block.SINK.test", "dot 554");
        check("ana@greylist.sink.test", "first 451");
        check("ana@bounce-later.sink.test", "then Bounce");
        check("slow@unknown.sink.test", "accept 5");
        check("delivered@unknown.sink.test", "accept 0");
        check("ana@x.unknown.sink.test", "accept 0");
        check("ana@unknownsink.test", "accept 0");
        check("ana@unknown.notsink.test", "accept 0");
        check("postmaster", "accept 0");
        check("+unknown@sink.test", "accept 0");
    }
}
