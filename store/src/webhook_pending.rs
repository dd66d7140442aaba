//! Webhook calls that were not answered in time, and when to make them again.

use std::collections::HashSet;

use mail::ids::{EventId, WebhookReplayId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::{signed, unsigned};
use crate::error::{During, StoreError};
use crate::numbers::{EndpointNo, micros};

/// All 16 readers of the event log.
const ALL_DISPATCHERS: [i16; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// One event to be told to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PendingCall {
    /// Whom to tell.
    pub endpoint: EndpointNo,
    /// Not before this time.
    pub next_at: OffsetDateTime,
    /// Which event.
    pub event_id: EventId,
    /// What the event is about.
    pub subject: Uuid,
    /// Calls made.
    pub attempt: u16,
    /// The replay it belongs to.
    pub replay: Option<WebhookReplayId>,
}

pub(crate) type Columns = (i32, OffsetDateTime, Uuid, Uuid, i16, Option<Uuid>);

impl PendingCall {
    pub(crate) fn from_columns(
        (endpoint, next_at, event_id, subject, attempt, replay): Columns,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            endpoint: EndpointNo(endpoint),
            next_at,
            event_id: EventId::from_uuid(event_id),
            subject,
            attempt: unsigned("webhook attempt", attempt)?,
            replay: replay.map(WebhookReplayId::from_uuid),
        })
    }
}

impl Store {
    /// Notes calls to be made later, none of them of a replay. A call that is noted already stays as it is.
    ///
    /// # Errors
    /// Of the database.
    pub async fn pend_calls(&self, calls: &[PendingCall]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO webhook_pending (endpoint, next_at, event_id, subject, attempt)
             SELECT u.endpoint, u.next_at, u.event_id, u.subject, u.attempt
             FROM unnest($1::int4[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::int2[])
                  AS u (endpoint, next_at, event_id, subject, attempt)
             ORDER BY u.endpoint, u.next_at, u.event_id
             ON CONFLICT DO NOTHING",
        )
        .bind(
            calls
                .iter()
                .map(|call| call.endpoint.0)
                .collect::<Vec<i32>>(),
        )
        .bind(
            calls
                .iter()
                .map(|call| call.next_at)
                .collect::<Vec<OffsetDateTime>>(),
        )
        .bind(
            calls
                .iter()
                .map(|call| call.event_id.uuid())
                .collect::<Vec<Uuid>>(),
        )
        .bind(calls.iter().map(|call| call.subject).collect::<Vec<Uuid>>())
        .bind(
            calls
                .iter()
                .map(|call| signed(call.attempt))
                .collect::<Vec<i16>>(),
        )
        .execute(&self.general)
        .await
        .during("note pending webhook calls")?;
        Ok(())
    }

    /// Calls due by `now`, the oldest of each enabled endpoint first; those of replays have a
    /// statement of their own.
    ///
    /// # Errors
    /// Of the database.
    pub async fn due_calls(
        &self,
        now: OffsetDateTime,
        per_endpoint_limit: i64,
        limit: i64,
    ) -> Result<Vec<PendingCall>, StoreError> {
        self.due_calls_of(&ALL_DISPATCHERS, now, per_endpoint_limit, limit)
            .await
    }

    /// Like [`Store::due_calls`], only of the accounts of these dispatchers, so that several
    /// workers do not make the same calls.
    ///
    /// # Errors
    /// Of the database.
    pub async fn due_calls_of(
        &self,
        dispatchers: &[i16],
        now: OffsetDateTime,
        per_endpoint_limit: i64,
        limit: i64,
    ) -> Result<Vec<PendingCall>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT p.endpoint, p.next_at, p.event_id, p.subject, p.attempt, p.replay
             FROM webhook_endpoint w
             CROSS JOIN LATERAL (
               SELECT * FROM webhook_pending p WHERE p.endpoint = w.id AND p.next_at <= $2
                 AND p.replay IS NULL
               ORDER BY p.next_at, p.event_id LIMIT $3) p
             WHERE w.account % 16 = ANY ($1::int2[]) AND w.enabled
             ORDER BY p.next_at, p.event_id
             LIMIT $4",
        )
        .bind(dispatchers)
        .bind(now)
        .bind(per_endpoint_limit)
        .bind(limit)
        .fetch_all(&self.general)
        .await
        .during("read due webhook calls")?;
        rows.into_iter().map(PendingCall::from_columns).collect()
    }

    /// After a call: to be made once more at `next_at`, or never again. False when the call was
    /// not there any more.
    ///
    /// # Errors
    /// Of the database.
    pub async fn reschedule_call(
        &self,
        call: &PendingCall,
        next_at: Option<OffsetDateTime>,
    ) -> Result<bool, StoreError> {
        let found: Option<i32> = sqlx::query_scalar(
            "WITH gone AS (
               DELETE FROM webhook_pending
               WHERE endpoint = $1 AND next_at = $2 AND event_id = $3
               RETURNING endpoint, event_id, subject, attempt, replay),
             later AS (
               INSERT INTO webhook_pending (endpoint, next_at, event_id, subject, attempt, replay)
               SELECT endpoint, $4, event_id, subject, attempt + 1, replay FROM gone
               WHERE $4::timestamptz IS NOT NULL)
             SELECT endpoint FROM gone",
        )
        .bind(call.endpoint.0)
        .bind(call.next_at)
        .bind(call.event_id.uuid())
        // The same instant again would meet its own row, which is not gone yet.
        .bind(
            next_at
                .map(micros)
                .filter(|next_at| *next_at != call.next_at),
        )
        .fetch_optional(&self.general)
        .await
        .during("reschedule a webhook call")?;
        Ok(found.is_some())
    }

    /// Endpoints with at least one pending call.
    ///
    /// # Errors
    /// Of the database.
    pub async fn endpoints_with_pending(&self) -> Result<HashSet<EndpointNo>, StoreError> {
        let numbers: Vec<i32> = sqlx::query_scalar(
            "SELECT w.id FROM webhook_endpoint w
             WHERE EXISTS (SELECT FROM webhook_pending p WHERE p.endpoint = w.id)",
        )
        .fetch_all(&self.general)
        .await
        .during("find endpoints with pending calls")?;
        Ok(numbers.into_iter().map(EndpointNo).collect())
    }
}
