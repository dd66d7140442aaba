//! What a refusal means: the closed list of bounce classes and what each one does to a recipient.
//!
//! A class says who is at fault and whether the address may be kept. Which class a reply has is
//! decided in [`crate::judge`]; nothing here reads a reply.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The families of classes. The family, not the reply code, decides about suppression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BounceGroup {
    /// The address is dead: suppress at once.
    Hard,
    /// The address is troubled: suppress after repetition.
    Soft,
    /// Nobody's fault that lasts: retry.
    Transient,
    /// About us, the senders: never suppress for it.
    Block,
    /// About this message only.
    Content,
    /// About our set-up or the account's.
    Config,
    /// The reader called it spam.
    Complaint,
    /// A machine answered; not a bounce.
    Autoreply,
    /// It arrived.
    Success,
    /// No rule fits.
    Unknown,
}

impl BounceGroup {
    /// The word used in events, metrics and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
            Self::Transient => "transient",
            Self::Block => "block",
            Self::Content => "content",
            Self::Config => "config",
            Self::Complaint => "complaint",
            Self::Autoreply => "autoreply",
            Self::Success => "success",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for BounceGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What clients read in `bounce.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BounceType {
    /// The address should not be used again.
    Permanent,
    /// This delivery failed; the address may be good.
    Transient,
    /// Nobody can tell.
    Undetermined,
}

/// When a class of bounce puts the recipient on the suppression list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuppressionRule {
    /// The class says nothing about the recipient.
    Never,
    /// The first final refusal is proof enough.
    AtOnce,
    /// Only when it was refused again and again.
    AfterRepeats {
        /// Final refusals needed.
        times: u16,
        /// They must lie within this many days.
        within_days: u16,
        /// The first and the last of them must be at least this many days apart.
        spread_days: u16,
    },
}

/// An unknown class name or database code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no bounce class is called {0:?}")]
pub struct UnknownBounceClass(pub String);

/// One row a class: variant, its word, its number in the database, its group. The numbers are
/// stored: a row may be added, a number never changes its meaning.
macro_rules! bounce_classes {
    ($($variant:ident, $word:literal, $code:literal, $group:ident, $doc:literal;)*) => {
        /// Why a delivery was refused or put off.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum BounceClass {
            $(#[doc = $doc] #[serde(rename = $word)] $variant,)*
        }

        impl BounceClass {
            /// Every class, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The snake_case word used in events, the API and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The stable number stored in the database.
            pub fn code(self) -> i16 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The class stored under `code`, if there is one.
            pub fn from_code(code: i16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The family of this class.
            pub fn group(self) -> BounceGroup {
                match self { $(Self::$variant => BounceGroup::$group,)* }
            }
        }

        impl FromStr for BounceClass {
            type Err = UnknownBounceClass;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(UnknownBounceClass(word.chars().take(64).collect())),
                }
            }
        }
    };
}

bounce_classes! {
    InvalidRecipient, "invalid_recipient", 1, Hard, "The mailbox does not exist.";
    InvalidDomain, "invalid_domain", 2, Hard, "The domain does not exist or has no mail host.";
    DomainRefusesMail, "domain_refuses_mail", 3, Hard, "Null MX, or a host that takes no mail at all.";
    RecipientMoved, "recipient_moved", 4, Hard, "Moved, with no forwarding address.";
    InactiveMailbox, "inactive_mailbox", 5, Soft, "The mailbox exists but is disabled.";
    RecipientRefused, "recipient_refused", 6, Soft, "The recipient refuses this sender, or the text is ambiguous.";
    MailboxFull, "mailbox_full", 7, Soft, "Over quota.";
    MessageTooBig, "message_too_big", 8, Content, "Message or header over the limit.";
    SystemError, "system_error", 9, Transient, "A fault of the remote host.";
    NetworkError, "network_error", 10, Transient, "Connection, DNS or routing trouble.";
    Expired, "expired", 11, Transient, "The retries were used up.";
    Greylisted, "greylisted", 12, Transient, "Asked to come back later (RFC 6647).";
    RateLimited, "rate_limited", 13, Block, "Too fast, or too much for our reputation.";
    ReputationBlock, "reputation_block", 14, Block, "Our address or domain is blocked or listed.";
    SenderDns, "sender_dns", 15, Config, "PTR, HELO or the envelope sender's domain does not resolve.";
    AuthFailure, "auth_failure", 16, Config, "SPF, DKIM, DMARC or alignment failed.";
    TlsFailure, "tls_failure", 17, Config, "TLS was wanted and missing or broken.";
    SpamContent, "spam_content", 18, Block, "The content was scored as spam.";
    Virus, "virus", 19, Content, "Malware was found.";
    ContentRejected, "content_rejected", 20, Content, "Attachment, link or format refused.";
    PolicyRejected, "policy_rejected", 21, Block, "Local policy, no reason given.";
    SenderRejected, "sender_rejected", 22, Block, "The sender address or domain is refused.";
    RelayDenied, "relay_denied", 23, Config, "The host does not take mail for this domain.";
    SecurityError, "security_error", 24, Config, "Authentication or permission was asked of us.";
    ProtocolError, "protocol_error", 25, Config, "Our dialogue was refused.";
    NotRfcCompliant, "not_rfc_compliant", 26, Content, "The message is malformed.";
    AlreadySuppressed, "already_suppressed", 27, Hard, "An upstream platform has the address on its own list.";
    Complaint, "complaint", 28, Complaint, "The reader reported it as spam.";
    Autoreply, "autoreply", 29, Autoreply, "Vacation notice or challenge.";
    Delivered, "delivered", 30, Success, "A positive report.";
    Unknown, "unknown", 31, Unknown, "No rule fits.";
}

impl BounceClass {
    /// True when a final refusal of this class proves that the address is dead.
    pub fn is_hard(self) -> bool {
        self.group() == BounceGroup::Hard
    }

    /// What clients are told in `bounce.type`.
    pub fn bounce_type(self) -> BounceType {
        match self {
            Self::InactiveMailbox | Self::RelayDenied => BounceType::Permanent,
            Self::Unknown => BounceType::Undetermined,
            _ if self.is_hard() => BounceType::Permanent,
            _ => BounceType::Transient,
        }
    }

    /// When final refusals of this class suppress the recipient.
    pub fn suppression(self) -> SuppressionRule {
        let after = |times, within_days, spread_days| SuppressionRule::AfterRepeats {
            times,
            within_days,
            spread_days,
        };
        match self {
            Self::Complaint => SuppressionRule::AtOnce,
            Self::InactiveMailbox => after(2, 90, 1),
            Self::MailboxFull => after(3, 90, 7),
            Self::RelayDenied => after(2, 90, 0),
            Self::RecipientRefused | Self::PolicyRejected | Self::Expired | Self::Unknown => {
                after(3, 30, 0)
            }
            _ if self.is_hard() => SuppressionRule::AtOnce,
            _ => SuppressionRule::Never,
        }
    }
}

impl fmt::Display for BounceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_lead_back_to_their_class() {
        for (place, class) in BounceClass::ALL.iter().enumerate() {
            assert_eq!(class.as_str().parse(), Ok(*class));
            assert_eq!(BounceClass::from_code(class.code()), Some(*class));
            assert_eq!(usize::try_from(class.code()).unwrap(), place + 1, "{class}");
            let json = serde_json::to_string(class).unwrap();
            assert_eq!(json, format!("\"{class}\""));
        }
        assert!("soft_bounce".parse::<BounceClass>().is_err());
        assert_eq!(BounceClass::from_code(0), None);
    }

    #[test]
    fn nothing_that_is_about_us_ever_suppresses_at_once() {
        for class in BounceClass::ALL {
            let about_us = matches!(
                class.group(),
                BounceGroup::Block | BounceGroup::Config | BounceGroup::Content
            );
            if about_us {
                assert_ne!(class.suppression(), SuppressionRule::AtOnce, "{class}");
            }
        }
    }

    #[test]
    fn names_and_groups_are_those_of_the_taxonomy() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../shared/corpora/taxonomy.json"
        );
        let Ok(text) = std::fs::read_to_string(path) else {
            eprintln!("SKIPPED: {path} is absent");
            return;
        };
        let taxonomy: serde_json::Value = serde_json::from_str(&text).unwrap();
        let classes = taxonomy["classes"].as_object().unwrap();
        assert_eq!(classes.len(), BounceClass::ALL.len());
        for (word, facts) in classes {
            let class: BounceClass = word.parse().unwrap();
            assert_eq!(facts["group"], class.group().as_str(), "{word}");
        }
    }
}
