//! Events: the append-only record of what happened to deliveries.

use mail::bounce_class::BounceClass;
use mail::event::EventType;
use mail::ids::{EventId, MessageId};
use mail::text::DbText;
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::{bounce_class, event_type, unsigned};
use crate::error::{During, StoreError};
use crate::numbers::EventFlags;

/// More than any transcript or reply we keep.
const STORED_TEXT_MAX_OCTETS: usize = 1 << 20;

/// An event about a queued delivery, to be written with its settlement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// Carries the time.
    pub id: EventId,
    /// What happened.
    pub kind: EventType,
    /// queued 1, attempt n gives n + 1, an end without an attempt the next number.
    pub sequence: u16,
    /// The attempt that caused it, from 1; the last one for an end without an attempt.
    pub attempt: u16,
    /// What else is to be known.
    pub flags: EventFlags,
    /// Why it was refused or put off.
    pub class: Option<BounceClass>,
    /// The reply code.
    pub code: Option<u16>,
    /// The enhanced status code, as text.
    pub enhanced: Option<String>,
    /// Number of the egress source.
    pub source: Option<i32>,
    /// The host it was sent to.
    pub mx: Option<String>,
    /// The TLS version; none when in clear.
    pub tls: Option<String>,
    /// What the host answered.
    #[serde(default, deserialize_with = "stored_text")]
    pub reply: Option<DbText>,
    /// From the beginning of the attempt to its last reply.
    pub duration_ms: Option<i32>,
    /// The dialogue.
    #[serde(default, deserialize_with = "stored_text")]
    pub transcript: Option<DbText>,
}

fn stored_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DbText>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| DbText::parse(&text, STORED_TEXT_MAX_OCTETS))
        .transpose()
        .map_err(serde::de::Error::custom)
}

/// An event as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Carries the time.
    pub id: EventId,
    /// Which recipient of the message, from 0; none for events about no delivery.
    pub rcpt: Option<u16>,
    /// What happened.
    pub kind: EventType,
    /// Counts within the delivery.
    pub sequence: u16,
    /// The attempt that caused it; 0 before the first.
    pub attempt: u16,
    /// What else is to be known.
    pub flags: EventFlags,
    /// Why it was refused or put off.
    pub class: Option<BounceClass>,
    /// The reply code.
    pub code: Option<u16>,
    /// The enhanced status code, as text.
    pub enhanced: Option<String>,
    /// Address it was sent from, or our EHLO name when the system chose the address.
    pub source: Option<String>,
    /// The host it was sent to.
    pub mx: Option<String>,
    /// The TLS version.
    pub tls: Option<String>,
    /// What the host answered.
    pub reply: Option<String>,
    /// From the beginning of the attempt to its last reply.
    pub duration_ms: Option<i32>,
    /// When the next attempt is due; none when the delivery has ended, or was to go at once.
    pub next_at: Option<OffsetDateTime>,
}

impl StoredEvent {
    /// The time the delivery was to go when this happened: of mail for later, and of mail that was
    /// moved, be it to now.
    pub fn send_at(&self) -> Option<OffsetDateTime> {
        let waits = matches!(
            self.kind,
            EventType::EmailScheduled | EventType::EmailQueued
        );
        self.next_at.filter(|_| waits)
    }
}

/// The columns all readers of events name alike.
#[derive(FromRow)]
pub(crate) struct EventColumns {
    id: Uuid,
    rcpt: Option<i16>,
    r#type: i16,
    sequence: i16,
    attempt: i16,
    flags: i16,
    class: Option<i16>,
    code: Option<i16>,
    enhanced: Option<String>,
    source: Option<String>,
    mx: Option<String>,
    tls: Option<String>,
    reply: Option<String>,
    duration_ms: Option<i32>,
    next_at: Option<OffsetDateTime>,
}

impl TryFrom<EventColumns> for StoredEvent {
    type Error = StoreError;

    fn try_from(row: EventColumns) -> Result<Self, StoreError> {
        Ok(Self {
            id: EventId::from_uuid(row.id),
            rcpt: row
                .rcpt
                .map(|rcpt| unsigned("recipient number", rcpt))
                .transpose()?,
            kind: event_type(row.r#type)?,
            sequence: unsigned("event sequence", row.sequence)?,
            attempt: unsigned("attempt number", row.attempt)?,
            flags: EventFlags::from_bits(row.flags),
            class: row.class.and_then(|class| known_class(row.id, class)),
            code: row
                .code
                .map(|code| unsigned("reply code", code))
                .transpose()?,
            enhanced: row.enhanced,
            source: row.source,
            mx: row.mx,
            tls: row.tls,
            reply: row.reply,
            duration_ms: row.duration_ms,
            next_at: row.next_at,
        })
    }
}

impl Store {
    /// All events of a message, by recipient and sequence. Those that cannot be understood are
    /// logged and left out.
    ///
    /// # Errors
    /// Of the database.
    pub async fn message_events(&self, message: MessageId) -> Result<Vec<StoredEvent>, StoreError> {
        // An event is never older than its subject: the bound leaves the earlier days out.
        let rows: Vec<EventColumns> = sqlx::query_as(
            "SELECT e.id, e.rcpt, e.type, e.sequence, e.attempt, e.flags, e.class, e.code,
                    e.enhanced, coalesce(s.address, s.ehlo) AS source, e.mx, e.tls, e.reply,
                    e.duration_ms, e.next_at
             FROM event e LEFT JOIN source s ON s.id = e.source
             WHERE e.subject = $1 AND e.id >= $2 ORDER BY e.rcpt, e.sequence, e.id",
        )
        .bind(message.uuid())
        .bind(day_before(message.uuid()))
        .fetch_all(&self.general)
        .await
        .during("read the events of a message")?;
        Ok(rows.into_iter().filter_map(readable).collect())
    }
}

/// A class that a newer version wrote is no reason to withhold the rest of the event.
fn known_class(event: Uuid, code: i16) -> Option<BounceClass> {
    bounce_class(code)
        .inspect_err(|error| tracing::warn!(%error, %event, "an event is read without its class"))
        .ok()
}

/// The event, unless it cannot be understood: one such row must not hide the others.
fn readable(row: EventColumns) -> Option<StoredEvent> {
    let id = row.id;
    StoredEvent::try_from(row)
        .inspect_err(|error| tracing::error!(%error, event = %id, "an event is left out"))
        .ok()
}

/// The smallest UUIDv7 made a day before this one: clocks of two nodes may differ a little.
pub(crate) fn day_before(id: Uuid) -> Uuid {
    const DAY_MS: u128 = 86_400_000;
    let unix_ms = id.as_u128() >> 80;
    Uuid::from_u128(unix_ms.saturating_sub(DAY_MS) << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_journal() {
        let event = NewEvent {
            id: EventId::from_uuid(Uuid::from_u128(1)),
            kind: EventType::EmailBounced,
            sequence: 2,
            attempt: 1,
            flags: EventFlags::FINAL,
            class: Some(BounceClass::InvalidRecipient),
            code: Some(550),
            enhanced: Some("5.1.1".into()),
            source: Some(1),
            mx: Some("mx.example.com".into()),
            tls: None,
            reply: Some(DbText::from_remote(b"550 5.1.1 no such user", 100)),
            duration_ms: Some(12),
            transcript: None,
        };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<NewEvent>(&json).unwrap(), event);
    }
}
