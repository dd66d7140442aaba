//! Judges one attempt: what happened at which stage becomes an outcome, a class and a scope.
//!
//! Pure and in this order: a rule on the text, the enhanced code, the reply code with its stage.
//! The first digit alone decides whether a delivery may be tried again; the rest refines why.
//! Knows nothing of retries, suppression lists or sources: it says who suffers, others act.

mod code_rules;
mod text_rules;

use crate::bounce_class::BounceClass;
use crate::reply::{EnhancedCode, Reply};

/// Where in an attempt something ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Looking up MX and addresses, and policies (MTA-STS, DANE).
    Resolve,
    /// Opening the connection.
    Connect,
    /// Waiting for the greeting.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH, towards a relay.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA or BDAT up to the go-ahead.
    Data,
    /// The content and its final dot.
    Dot,
}

impl Stage {
    /// The word used in events, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::StartTls => "starttls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Dot => "dot",
        }
    }

    /// True while the server has heard nothing of the message.
    pub fn is_before_mail(self) -> bool {
        self < Self::Mail
    }
}

/// Who suffers from a failure: everything in the scope can expect the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureScope {
    /// This recipient.
    Recipient,
    /// Every recipient at this domain.
    Domain,
    /// This message, whoever gets it.
    Message,
    /// What this account sends to this site.
    AccountAtSite,
    /// What this source sends to this site.
    SourceAtSite,
    /// This one host; another MX of the domain may do better.
    Host,
    /// Everything to this site.
    Site,
    /// What this source sends anywhere.
    Source,
}

/// What ended an attempt when no reply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// NXDOMAIN: the name does not exist (final).
    NoSuchDomain,
    /// The domain exists and has neither MX nor address records (final).
    NoMailHost,
    /// MX 0 "." (RFC 7505; final).
    NullMx,
    /// SERVFAIL, timeout or a bogus signature: DNS could not tell.
    DnsTrouble,
    /// The domain's mail hosts have only addresses that must not be connected to (private,
    /// loopback): a mistake over there that may be mended, or a trap for us.
    ForbiddenAddress,
    /// Nobody listens.
    ConnectionRefused,
    /// No route, no answer to SYN, reset while connecting.
    Unreachable,
    /// The peer took longer than the stage's deadline.
    TimedOut,
    /// The connection broke or was closed without a reply.
    ConnectionLost,
    /// What came was no reply, or the reply to something else.
    BadReply,
    /// The handshake failed, or the certificate does not satisfy the domain's policy.
    TlsFailed,
    /// TLS is required (policy, `require_tls`) and was not offered.
    TlsNotOffered,
    /// A non-ASCII local part, and the server lacks SMTPUTF8 (RFC 6531 section 3.5; final).
    SmtpUtf8NotOffered,
    /// Octets over 127 in the body, and the server lacks 8BITMIME (RFC 6152 section 3; final, as
    /// nobody may change the body of a message that came finished).
    EightBitMimeNotOffered,
    /// The message is over the SIZE the server announced (RFC 1870 section 6; final).
    TooBigForServer,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The receiver took responsibility.
    Delivered,
    /// To be tried again.
    Deferred {
        /// Why.
        class: BounceClass,
        /// Who suffers.
        scope: FailureScope,
    },
    /// Never to be tried again.
    Bounced {
        /// Why.
        class: BounceClass,
        /// Who suffers.
        scope: FailureScope,
    },
}

impl Outcome {
    /// The class of a refusal; `Delivered` has its own.
    pub fn class(self) -> BounceClass {
        match self {
            Self::Delivered => BounceClass::Delivered,
            Self::Deferred { class, .. } | Self::Bounced { class, .. } => class,
        }
    }

    /// The scope of a refusal.
    pub fn scope(self) -> Option<FailureScope> {
        match self {
            Self::Delivered => None,
            Self::Deferred { scope, .. } | Self::Bounced { scope, .. } => Some(scope),
        }
    }

    /// True when the delivery is over.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Deferred { .. })
    }

    /// True when the recipient must be suppressed now: refused for good, as a dead address.
    pub fn is_hard_bounce(self) -> bool {
        matches!(self, Self::Bounced { class, .. } if class.is_hard())
    }
}

/// Judges the reply that ended an attempt at `stage`.
///
/// - 421 and every 4xx: deferred, whatever the text says.
/// - 5xx: bounced, with two exceptions. Before MAIL the server has refused the connection and not
///   the message, so another host or source or a later hour may do (521 and 556 excepted,
///   RFC 7504: final for the domain). And a full mailbox at RCPT with 552 is deferred, because
///   RFC 5321 section 4.5.3.1.10 wants 552 there treated as temporary.
/// - 2xx to the final dot: delivered. Any other reply is out of place, hence a protocol error.
pub fn judge_reply(stage: Stage, reply: &Reply) -> Outcome {
    if reply.is_positive() && stage == Stage::Dot {
        return Outcome::Delivered;
    }
    if reply.is_positive() || reply.is_intermediate() {
        return deferred(BounceClass::ProtocolError, stage, "");
    }
    let text = text_rules::normalise(&reply.text());
    let class = classify(stage, reply, &text);
    if reply.is_transient() || permits_retry(stage, reply, class, &text) {
        deferred(class, stage, &text)
    } else {
        bounced(class, stage, &text)
    }
}

/// Judges a failure without a reply.
pub fn judge_failure(stage: Stage, failure: Failure) -> Outcome {
    match failure {
        Failure::NoSuchDomain | Failure::NoMailHost => {
            bounced(BounceClass::InvalidDomain, stage, "")
        }
        Failure::NullMx => bounced(BounceClass::DomainRefusesMail, stage, ""),
        Failure::SmtpUtf8NotOffered => Outcome::Bounced {
            class: BounceClass::RecipientRefused,
            scope: FailureScope::Recipient,
        },
        Failure::EightBitMimeNotOffered => Outcome::Bounced {
            class: BounceClass::ContentRejected,
            scope: FailureScope::Message,
        },
        Failure::TooBigForServer => bounced(BounceClass::MessageTooBig, stage, ""),
        Failure::DnsTrouble | Failure::ForbiddenAddress => Outcome::Deferred {
            class: BounceClass::NetworkError,
            scope: FailureScope::Domain,
        },
        Failure::ConnectionRefused
        | Failure::Unreachable
        | Failure::TimedOut
        | Failure::ConnectionLost => deferred(BounceClass::NetworkError, stage, ""),
        Failure::BadReply => deferred(BounceClass::ProtocolError, stage, ""),
        Failure::TlsFailed | Failure::TlsNotOffered => deferred(BounceClass::TlsFailure, stage, ""),
    }
}

/// The class of a refusal, for replies in a session and those quoted in reports.
pub fn class_of(stage: Stage, reply: &Reply) -> BounceClass {
    classify(stage, reply, &text_rules::normalise(&reply.text()))
}

fn classify(stage: Stage, reply: &Reply, text: &str) -> BounceClass {
    let quoted = || embedded_code(text);
    text_rules::class_by_text(reply.is_permanent(), text)
        .or_else(|| {
            let enhanced = reply.enhanced().or_else(quoted)?;
            code_rules::class_by_enhanced(reply, enhanced)
        })
        .unwrap_or_else(|| code_rules::class_by_stage(stage, reply.code()))
}

/// Servers that do not announce enhanced codes put them anywhere: `sorry, no (#5.1.1)`. The last
/// one counts: it comes from the system nearest to the recipient.
fn embedded_code(text: &str) -> Option<EnhancedCode> {
    text.rsplit(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|word| word.trim_end_matches('.'))
        .filter_map(|word| word.parse::<EnhancedCode>().ok())
        .find(|code| code.class != 2)
}

fn permits_retry(stage: Stage, reply: &Reply, class: BounceClass, text: &str) -> bool {
    let code = reply.code().get();
    let full_for_now = class == BounceClass::MailboxFull
        && stage == Stage::Rcpt
        && code == 552
        && !text.contains("inactive");
    let only_the_connection = stage.is_before_mail() && !matches!(code, 521 | 556);
    full_for_now || only_the_connection
}

fn deferred(class: BounceClass, stage: Stage, text: &str) -> Outcome {
    Outcome::Deferred {
        class,
        scope: scope_of(class, stage, text),
    }
}

fn bounced(class: BounceClass, stage: Stage, text: &str) -> Outcome {
    Outcome::Bounced {
        class,
        scope: scope_of(class, stage, text),
    }
}

/// Who else would get this answer. The class tells most of it, the text which of our names or
/// addresses is meant.
fn scope_of(class: BounceClass, stage: Stage, text: &str) -> FailureScope {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match class {
        BounceClass::InvalidDomain | BounceClass::DomainRefusesMail | BounceClass::RelayDenied => {
            FailureScope::Domain
        }
        BounceClass::SystemError if stage >= Stage::Rcpt => FailureScope::Recipient,
        BounceClass::SystemError
        | BounceClass::NetworkError
        | BounceClass::TlsFailure
        | BounceClass::ProtocolError => FailureScope::Host,
        BounceClass::RateLimited if says(&["receiving mail", "recipient", "the user"]) => {
            FailureScope::Recipient
        }
        BounceClass::RateLimited | BounceClass::ReputationBlock
            if says(&[
                "dkim domain",
                "spf domain",
                "url domain",
                "dbl",
                "uribl",
                "surbl",
            ]) =>
        {
            FailureScope::AccountAtSite
        }
        BounceClass::RateLimited | BounceClass::ReputationBlock | BounceClass::SecurityError => {
            FailureScope::SourceAtSite
        }
        BounceClass::SenderDns if says(&["ptr", "reverse", "helo", "hostname"]) => {
            FailureScope::Source
        }
        BounceClass::SenderDns
        | BounceClass::AuthFailure
        | BounceClass::SenderRejected
        | BounceClass::SpamContent => FailureScope::AccountAtSite,
        BounceClass::PolicyRejected if stage.is_before_mail() => FailureScope::SourceAtSite,
        BounceClass::PolicyRejected
        | BounceClass::MessageTooBig
        | BounceClass::Virus
        | BounceClass::ContentRejected
        | BounceClass::NotRfcCompliant
        | BounceClass::Expired => FailureScope::Message,
        _ => FailureScope::Recipient,
    }
}
