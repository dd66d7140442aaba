//! Events: what happened to a delivery (or to a domain, a source, an endpoint), as stored, shown
//! by the API and sent to webhooks. The shapes are a published contract: fields are added, never
//! renamed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::bounce_class::{BounceClass, BounceType};
use crate::ids::{DeliveryId, EventId, MessageId};
use crate::reply::Reply;

/// An unknown event type or status word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not known")]
pub struct UnknownWord(pub String);

/// An enum with a word for the API and a number for the database. The numbers are stored: a row
/// may be added, a number never changes its meaning.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($variant:ident, $word:literal, $code:literal, $doc:literal;)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = $doc] #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every value, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word used in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The stable number stored in the database.
            pub fn code(self) -> i16 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The value stored under `code`, if there is one.
            pub fn from_code(code: i16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(UnknownWord(word.chars().take(64).collect())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

words! {
    /// What happened. 1 to 49 belong to emails, 50 and up to everything else.
    EventType {
        EmailQueued, "email.queued", 1, "Accepted and waiting for its first attempt.";
        EmailScheduled, "email.scheduled", 2, "Accepted for a later time.";
        EmailDelivered, "email.delivered", 3, "The receiver took responsibility.";
        EmailDeferred, "email.deferred", 4, "An attempt failed; another one follows.";
        EmailBounced, "email.bounced", 5, "Refused for good, in the session or by a later report.";
        EmailExpired, "email.expired", 6, "The time for retries is over.";
        EmailSuppressed, "email.suppressed", 7, "Not tried: the recipient is on a suppression list.";
        EmailCancelled, "email.cancelled", 8, "Taken back before it was sent.";
        EmailComplained, "email.complained", 9, "The reader reported it as spam.";
        EmailOpened, "email.opened", 10, "The tracking image was fetched.";
        EmailClicked, "email.clicked", 11, "A tracked link was followed.";
        EmailUnsubscribed, "email.unsubscribed", 12, "The reader unsubscribed.";
        EmailReceived, "email.received", 13, "An inbound message came in.";
        DomainVerified, "domain.verified", 50, "The domain's records were found.";
        DomainFailed, "domain.failed", 51, "The domain's records were missed too long.";
        SourceWarmupAdvanced, "source.warmup_advanced", 60, "The daily cap of a source rose.";
        SourceWarmupHeld, "source.warmup_held", 61, "The daily cap of a source was held or lowered.";
        SourceWarmupCompleted, "source.warmup_completed", 62, "A source has no cap any more.";
        SourceBlocked, "source.blocked", 63, "A site refuses a source.";
        SourceRecovered, "source.recovered", 64, "A site accepts a source again.";
        AccountPaused, "account.paused", 70, "The guard stopped an account.";
        AccountResumed, "account.resumed", 71, "An account may send again.";
        WebhookDisabled, "webhook.disabled", 80, "An endpoint failed for days and is called no more.";
        WebhookTest, "webhook.test", 81, "Asked for by the owner of the endpoint.";
    }
}

impl EventType {
    /// True for the types that may end a delivery. An out-of-band bounce has a final type too,
    /// yet comes after the end: [`EmailEventData::final_`] tells them apart.
    pub fn is_final(self) -> bool {
        self.status().is_some_and(DeliveryStatus::is_final)
    }

    /// True for what happened to a delivery.
    pub fn is_email(self) -> bool {
        self.code() < 50
    }

    /// The status a delivery has after this event; none when it does not change the status.
    pub fn status(self) -> Option<DeliveryStatus> {
        match self {
            Self::EmailQueued => Some(DeliveryStatus::Queued),
            Self::EmailScheduled => Some(DeliveryStatus::Scheduled),
            Self::EmailDelivered => Some(DeliveryStatus::Delivered),
            Self::EmailDeferred => Some(DeliveryStatus::Deferred),
            Self::EmailBounced => Some(DeliveryStatus::Bounced),
            Self::EmailExpired => Some(DeliveryStatus::Expired),
            Self::EmailSuppressed => Some(DeliveryStatus::Suppressed),
            Self::EmailCancelled => Some(DeliveryStatus::Cancelled),
            _ => None,
        }
    }
}

words! {
    /// Where a delivery stands.
    DeliveryStatus {
        Scheduled, "scheduled", 1, "Waits for the time it was asked to go.";
        Queued, "queued", 2, "Waits for its first attempt.";
        Deferred, "deferred", 3, "Was tried and will be tried again.";
        Delivered, "delivered", 4, "The receiver took it.";
        Bounced, "bounced", 5, "Refused for good.";
        Expired, "expired", 6, "Ran out of time.";
        Suppressed, "suppressed", 7, "Not tried: on a suppression list.";
        Cancelled, "cancelled", 8, "Taken back.";
    }
}

impl DeliveryStatus {
    /// True when nothing more will be tried.
    pub fn is_final(self) -> bool {
        self.unfinished_rank() == 0
    }

    /// How far from its end: 0 is finished.
    fn unfinished_rank(self) -> u8 {
        match self {
            Self::Scheduled => 3,
            Self::Queued => 2,
            Self::Deferred => 1,
            _ => 0,
        }
    }

    /// Among finished deliveries, the one the sender should look at first.
    fn trouble_rank(self) -> u8 {
        match self {
            Self::Bounced => 4,
            Self::Expired => 3,
            Self::Suppressed => 2,
            Self::Cancelled => 1,
            _ => 0,
        }
    }

    /// The status of a message with these deliveries: that of the least finished one; when all
    /// are finished, the one with most trouble. None without deliveries.
    pub fn of_message(deliveries: impl IntoIterator<Item = Self>) -> Option<Self> {
        deliveries
            .into_iter()
            .max_by_key(|status| (status.unfinished_rank(), status.trouble_rank()))
    }
}

/// What every event looks like from outside, `data` depending on its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventEnvelope<D> {
    /// The same over all retries of a webhook call.
    pub id: EventId,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// When it happened, not when it was told.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
    /// Counts within a delivery; absent for events that belong to none. An email that is moved
    /// before its first attempt begins again with 1: of events with the same number the later counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u32>,
    /// The rest.
    pub data: D,
}

/// `data` of the `email.*` events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailEventData {
    /// The send request.
    pub message_id: MessageId,
    /// The recipient's copy.
    pub delivery_id: DeliveryId,
    /// The Message-ID header field, in angle brackets.
    pub rfc_message_id: String,
    /// The From field as the sender gave it.
    pub from: String,
    /// The recipient's address.
    pub to: String,
    /// The subject, decoded.
    pub subject: String,
    /// Name of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The time it is to go: of an event `scheduled`, and of one `queued` that a move to now made.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub send_at: Option<OffsetDateTime>,
    /// The sender's tags, as given.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The sender's metadata, as given.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// True for exactly one event of a delivery.
    #[serde(rename = "final")]
    pub final_: bool,
    /// The attempt that caused the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptData>,
    /// Why it was refused or put off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounce: Option<BounceData>,
    /// True for a bounce that came as a report after the delivery had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_band: Option<bool>,
    /// True for opens and clicks that a machine made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<bool>,
}

/// One try, as events show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptData {
    /// 1 for the first.
    pub number: u16,
    /// True when the final dot was sent and no reply was read: it may have arrived.
    pub ambiguous: bool,
    /// The address it was sent from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The host it was sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<String>,
    /// The TLS version; absent when it went in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// What the host answered, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// From the beginning of the try to its last reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// Why a delivery was refused or put off, as events show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BounceData {
    /// What to think of the address.
    #[serde(rename = "type")]
    pub bounce_type: BounceType,
    /// The class.
    pub class: BounceClass,
    /// The reply code; absent when no server answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The enhanced code, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhanced_code: Option<String>,
    /// What the server said or what went wrong, in one line.
    pub diagnostic: String,
}

impl BounceData {
    /// From a reply and the class it was judged to be.
    pub fn from_reply(class: BounceClass, reply: &Reply) -> Self {
        Self {
            bounce_type: class.bounce_type(),
            class,
            code: Some(reply.code().get()),
            enhanced_code: reply.enhanced().map(|code| code.to_string()),
            diagnostic: reply.stored_text().as_str().to_owned(),
        }
    }

    /// From a failure in which no server answered; `diagnostic` is our own sentence.
    pub fn without_reply(class: BounceClass, diagnostic: impl Into<String>) -> Self {
        Self {
            bounce_type: class.bounce_type(),
            class,
            code: None,
            enhanced_code: None,
            diagnostic: diagnostic.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_lead_back() {
        for event_type in EventType::ALL {
            assert_eq!(event_type.as_str().parse(), Ok(*event_type));
            assert_eq!(EventType::from_code(event_type.code()), Some(*event_type));
            assert_eq!(
                event_type.is_email(),
                event_type.as_str().starts_with("email.")
            );
        }
        for status in DeliveryStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
            assert_eq!(DeliveryStatus::from_code(status.code()), Some(*status));
        }
        assert!("email.lost".parse::<EventType>().is_err());
    }

    #[test]
    fn five_types_end_a_delivery() {
        let ends: Vec<&str> = EventType::ALL
            .iter()
            .filter(|event_type| event_type.is_final())
            .map(|event_type| event_type.as_str())
            .collect();
        let expected = ["delivered", "bounced", "expired", "suppressed", "cancelled"];
        assert_eq!(ends, expected.map(|word| format!("email.{word}")));
    }

    #[test]
    fn a_message_is_as_finished_as_its_least_finished_delivery() {
        use DeliveryStatus::*;
        assert_eq!(
            DeliveryStatus::of_message([Delivered, Queued, Deferred]),
            Some(Queued)
        );
        assert_eq!(
            DeliveryStatus::of_message([Delivered, Deferred]),
            Some(Deferred)
        );
        assert_eq!(
            DeliveryStatus::of_message([Bounced, Delivered]),
            Some(Bounced)
        );
        assert_eq!(
            DeliveryStatus::of_message([Delivered, Delivered]),
            Some(Delivered)
        );
        assert_eq!(DeliveryStatus::of_message([]), None);
    }
}
