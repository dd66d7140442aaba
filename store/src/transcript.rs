//! What was said in the attempts that failed. Kept in the event of the attempt and read alone: it
//! is longer than all the rest of an event.

use mail::ids::{EventId, MessageId};
use uuid::Uuid;

use crate::database::Store;
use crate::decode::signed;
use crate::error::{During, StoreError};
use crate::event::day_before;

/// The event that tells of an attempt, and its dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptTranscript {
    /// Carries the time.
    pub event: EventId,
    /// None when none was kept.
    pub transcript: Option<String>,
}

impl Store {
    /// An attempt of the delivery to recipient `rcpt` (from 0); none when there was no such attempt.
    /// Whose message it is was asked before.
    ///
    /// # Errors
    /// Of the database.
    pub async fn attempt_transcript(
        &self,
        message: MessageId,
        rcpt: u16,
        attempt: u16,
    ) -> Result<Option<AttemptTranscript>, StoreError> {
        // Attempt n has sequence n + 1; what ends a delivery without an attempt repeats the last
        // number under a higher one.
        let row: Option<(Uuid, Option<String>)> = sqlx::query_as(
            "SELECT e.id, e.transcript FROM event e
             WHERE e.subject = $1 AND e.id >= $2 AND e.rcpt = $3 AND e.attempt = $4
               AND e.attempt > 0 AND e.sequence = e.attempt + 1
             ORDER BY e.id LIMIT 1",
        )
        .bind(message.uuid())
        .bind(day_before(message.uuid()))
        .bind(signed(rcpt))
        .bind(signed(attempt))
        .fetch_optional(&self.general)
        .await
        .during("read a transcript")?;
        Ok(row.map(|(event, transcript)| AttemptTranscript {
            event: EventId::from_uuid(event),
            transcript,
        }))
    }
}
